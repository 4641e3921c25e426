"""The reading side's processes as they run in production, over stores in memory and virtual time, with every call to a
store as an effect before and after which a process can be killed, stand still, or lose the answer.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, cast

from services.events.aggregates import Aggregates
from services.events.entrypoints.projector import Parts, ProjectorService
from services.events.entrypoints.replayer import BACKFILL, RebuildsFound, backfill
from services.events.leases import PATIENCE, LeaseKeeper
from services.events.ports import GenerationStore, LeaseStore, LogRecord, ReadModels, Stage, Standing, Verdict
from services.events.projections.known import KnownEvent, add
from services.events.projections.projection import EMAIL_LOG
from services.events.projector import Pace, Projector
from services.events.reader import read_event
from services.events.rebuild import Rebuild, RebuildParts
from services.events.setting_aside import SettingAside
from services.kit.breaker import Breaker
from services.kit.errors import Unavailable
from services.kit.metrics import Metrics
from services.kit.testing.parking import MemoryParkingLot
from tests.unit.events_service.events import Record
from tests.unit.events_service.memory import MemoryReadModels
from tests.unit.events_service.memory_stores import MemoryGenerations, MemoryLeases
from tests.unit.events_service.virtual_time import LoopClock, VirtualLoop

PARTITIONS: Final = 3
LEASE: Final = 10.0
GRACE: Final = 40.0
SLOW_SECONDS: Final = 3.0
SLACK: Final = PATIENCE * LEASE + 2 * SLOW_SECONDS
"""Seconds beyond a lease that taking a partition over may last. Turns come once a second, and some of them fail."""

ALLOWED: Final[frozenset[tuple[Stage, Stage]]] = frozenset(
    {
        ("created", "backfilling"), ("backfilling", "catchingUp"), ("catchingUp", "verified"), ("verified", "active"),
        ("created", "active"), ("active", "grace"), ("grace", "active"), ("grace", "retired"), ("created", "abandoned"),
        ("backfilling", "abandoned"), ("catchingUp", "abandoned"), ("verified", "abandoned"),
    }
)  # fmt: skip

_METRICS: Final = Metrics()
_CURRENT: ContextVar[Process | None] = ContextVar("process", default=None)


class Killed(BaseException):
    """The process ends here."""


class WorldLog:
    """A `Log` of one reader."""

    def __init__(self, records: Mapping[int, list[Record]], most: int) -> None:
        self._records = records
        self._most = most
        self._at: dict[int, int] = {}

    async def start(self) -> None: ...

    async def stop(self) -> None:
        self._at = {}

    async def bounds(self) -> dict[int, tuple[int, int]]:
        return {partition: (0, len(records)) for partition, records in self._records.items()}

    def assign(self, positions: Mapping[int, int]) -> None:
        self._at = dict(positions)

    async def read(self, wait: float, most: int, most_bytes: int) -> dict[int, list[LogRecord]]:
        found: dict[int, list[LogRecord]] = {}
        for partition, at in self._at.items():
            if records := self._records[partition][at : at + self._most]:
                found[partition] = list(records)
                self._at[partition] += len(records)
        await asyncio.sleep(0 if found else wait)
        return found

    async def position(self, partition: int) -> int | None:
        return self._at.get(partition)

    def blocked(self) -> Mapping[int, str]:
        return {}

    async def commit(self, positions: Mapping[int, int]) -> None: ...


class Judged(MemoryGenerations):
    """Says what was wrong with each change, at the moment of it."""

    def __init__(self, world: World) -> None:
        super().__init__(world.clock, dropping=world.drop)
        self._world = world

    async def change(self, step: Callable[[Standing], Standing], *, grace: float) -> Standing:
        before = {number: each.stage for number, each in self.generations.items()}
        after = await super().change(step, grace=grace)
        for number, each in self.generations.items():
            if each.stage != before[number] and (before[number], each.stage) not in ALLOWED:
                self._world.wrong.append(f"{number} went from {before[number]} to {each.stage}")
        self._world.look_at_pointer()
        return after


class _Port:
    """A store as one process sees it."""

    def __init__(self, process: Process, real: object) -> None:
        self._process = process
        self._real = real

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._real, name)

        async def call(*arguments: Any, **named: Any) -> Any:
            return await self._process.effect(name, partial(method, *arguments, **named))

        return call


class Process:
    """One process of the events service, or a command of an operator."""

    def __init__(self, world: World, name: str, *, slow: float = 0.0) -> None:
        """`slow`: seconds that a call to a store may take; how many of them is drawn for each."""
        self.world = world
        self.name = name
        self.alive = True
        self.kill_after: int | None = None
        """So many calls to stores, counted twice each (before and after), go well from now on."""
        self.frozen_until = 0.0
        self.serves = False
        """Whether it projects, as no command of an operator does."""
        self.failing: dict[str, str] = {}
        """Method → whether its next call fails `before` it does anything, or `after`, so that the answer is lost, or is
        `slow`.
        """
        self.keepers: list[tuple[int, LeaseKeeper]] = []
        self._slow = slow
        self._tasks: set[asyncio.Task[Any]] = set()
        self._readers = 0

    @property
    def runs(self) -> bool:
        """Whether it gets anything done now."""
        return self.alive and self.world.loop.now >= self.frozen_until

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """This task is one of the process's."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def start(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> asyncio.Task[Any]:
        """Run something in this process."""

        async def run() -> Any:
            try:
                return await work()
            except Killed:
                return None

        token = _CURRENT.set(self)
        try:
            return self.world.loop.create_task(run())
        finally:
            _CURRENT.reset(token)

    def die(self) -> None:
        """Not one more effect."""
        self.alive = False
        for task in list(self._tasks):
            task.cancel()

    async def effect(self, name: str, call: Callable[[], Any]) -> Any:
        """Make a call to a store."""
        await self._come_to_it()
        fate = self.failing.pop(name, "")
        if fate == "slow":
            await asyncio.sleep(SLOW_SECONDS)
        if fate == "before":
            raise Unavailable("MongoDB", f"no answer to {name}")
        result = await call()
        if fate == "after":
            raise Unavailable("MongoDB", f"the answer to {name} was lost")
        await self._come_to_it()
        return result

    async def _come_to_it(self) -> None:
        await asyncio.sleep(random.random() * self._slow)  # others come between
        while self.world.loop.now < self.frozen_until:  # noqa: ASYNC110 - it may be told to stand still for longer
            await asyncio.sleep(self.frozen_until - self.world.loop.now)
        if self.kill_after is not None:
            self.kill_after -= 1
            if self.kill_after < 0:
                self.die()
        if not self.alive:
            raise Killed

    # --- what it is made of

    @property
    def store(self) -> GenerationStore:
        return cast("GenerationStore", _Port(self, self.world.generations))

    def leases(self, number: int) -> LeaseStore:
        return cast("LeaseStore", _Port(self, self.world.leases(number)))

    def log(self) -> WorldLog:
        return WorldLog(self.world.records, self.world.most)

    def service(self) -> ProjectorService:
        """What runs in production."""
        self.serves = True
        rebuilds = RebuildsFound(self.store, self.rebuild, self.world.clock)
        parts = Parts(
            projection=EMAIL_LOG,
            store=self.store,
            log=self.log,
            leases=self.leases,
            statistics=lambda _: NoStatistics(),
            projector=lambda number, _, version: self.projector(number),
            rebuilds=rebuilds.turn,
            grace=GRACE,
        )
        return ProjectorService(parts, self.world.clock)

    def projector(
        self, number: int, pace: Pace = Pace(wait=0.5), begins: dict[int, int] | None = None, processes: int = 1
    ) -> Projector:
        world = self.world
        self._readers += 1
        keeper = LeaseKeeper(
            self.leases(number),
            f"{self.name}/{self._readers}",
            world.clock,
            _METRICS,
            projection=EMAIL_LOG.name,
            generation=number,
            lease=LEASE,
            processes=processes,
        )
        self.keepers.append((number, keeper))
        aside = SettingAside("events.email_log", EMAIL_LOG.topic, world.lot, world.breaker, world.clock, _METRICS)
        models = cast("ReadModels", _Port(self, world.models(number)))
        aggregates = Aggregates(
            EMAIL_LOG, models, aside, _METRICS, generation=number, cache_events=0 if pace.fresh else 1000
        )
        return Projector(
            self.log(),
            keeper,
            aggregates,
            world.clock,
            _METRICS,
            name=f"{self.name}-g{number}",
            pace=pace,
            begins=lambda: begins or {},
        )

    def rebuild(self) -> Rebuild:
        parts = RebuildParts(
            projection=EMAIL_LOG,
            store=self.store,
            log=self.log,
            leases=self.leases,
            coordination=lambda number: cast("LeaseStore", _Port(self, self.world.coordination(number))),
            projector=None,
            statistics=lambda _: NoStatistics(),
            workers=WorkersOf(self),
            comparison=NothingDiffers(),
            metrics=_METRICS,
        )
        return Rebuild(parts, self.world.clock, f"{self.name}/rebuild", grace=GRACE)


class WorkersOf:
    """`Workers` that die with the process that started them."""

    def __init__(self, process: Process, count: int = 2) -> None:
        self._process = process
        self._count = count
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, generation: int) -> None:
        self._stopping = asyncio.Event()
        self._tasks = [asyncio.create_task(self._work(generation)) for _ in range(self._count)]

    async def revive(self) -> None:
        self._tasks = [
            asyncio.create_task(self._work(self._process.keepers[-1][0])) if task.done() else task
            for task in self._tasks
        ]

    async def stop(self) -> None:
        self._stopping.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _work(self, generation: int) -> None:
        process = self._process
        await backfill(
            generation,
            process.store,
            process.leases(generation),
            lambda begins: process.projector(generation, BACKFILL, begins, self._count),
            self._stopping,
        )


class NoStatistics:
    """Sums are not what is looked at here."""

    async def dirty(self, limit: int = 20) -> list[str]:
        return []

    async def refresh(self, bucket: str) -> bool:
        return False


class NothingDiffers:
    """A `Comparison` of which the judge is here."""

    async def compare(self, old: int, new: int, *, same_version: bool) -> Verdict:
        await asyncio.sleep(1.0)
        return Verdict(0, 0, 0, ())


class World:
    """The log, the stores, the processes, and what went wrong."""

    def __init__(self) -> None:
        self.loop = VirtualLoop()
        self.loop.set_task_factory(_adopting)
        self.loop.set_exception_handler(lambda _loop, _context: None)
        self.clock = LoopClock(self.loop)
        self.records: dict[int, list[Record]] = {each: [] for each in range(PARTITIONS)}
        self.most = 5
        self.lot = MemoryParkingLot()
        self.breaker = Breaker(10_000, 60.0, self.clock)
        self.wrong: list[str] = []
        self.processes: list[Process] = []
        self._models: dict[int, MemoryReadModels] = {}
        self._leases: dict[int, MemoryLeases] = {}
        self._coordination: dict[int, MemoryLeases] = {}
        self._seen: dict[int, tuple[list[_Seen], int]] = {each: ([], 0) for each in range(PARTITIONS)}
        self._unread_since: dict[tuple[int, int], float] = {}
        self._nobody_until = 0.0
        self.generations = Judged(self)
        self._watching = self.loop.create_task(self._watch())

    def models(self, number: int) -> MemoryReadModels:
        return self._models.setdefault(number, MemoryReadModels())

    def leases(self, number: int) -> MemoryLeases:
        return self._leases.setdefault(number, MemoryLeases(self.clock, LEASE))

    def coordination(self, number: int) -> MemoryLeases:
        return self._coordination.setdefault(number, MemoryLeases(self.clock, LEASE))

    def drop(self, number: int) -> None:
        """Drop all that a generation has. Whoever still writes into it makes it anew, as in MongoDB."""
        models = self.models(number)
        models.stored.clear()
        models.bodies.clear()
        models.rows.clear()
        models.dirty.clear()
        self.leases(number).clear()

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.loop.run_until_complete(asyncio.sleep(seconds))

    def close(self) -> None:
        """Nothing goes on."""
        for process in self.processes:
            process.die()
        self._watching.cancel()
        rest = asyncio.all_tasks(self.loop)
        for task in rest:
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*rest, return_exceptions=True))
        self.loop.close()

    # --- the judge

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(0.5)
            self.look_at_pointer()
            self._look_at_readers()
            self._look_at_checkpoints()

    def look_at_pointer(self) -> None:
        """The pointer names the one that is active, which has its documents."""
        generations, active = self.generations.generations, self.generations.pointed.active
        found = [number for number, each in generations.items() if each.stage == "active"]
        if found != ([] if active is None else [active]):
            self.wrong.append(f"the pointer names {active}, and {found} are active")
        if active is not None and set(self.leases(active).kept) != set(range(PARTITIONS)):
            self.wrong.append(f"what is read, {active}, is gone")

    def projected(self) -> list[int]:
        """The generations that are kept up to date."""
        wanted = ("active", "grace", "catchingUp", "verified")
        return [number for number, each in self.generations.generations.items() if each.stage in wanted]

    def _look_at_readers(self) -> None:
        now = self.loop.now
        if not any(process.runs for process in self.processes if process.serves):
            self._nobody_until = now
        read = {
            (number, partition)
            for process in self.processes
            if process.runs
            for number, keeper in process.keepers
            for partition, lease in keeper.held.items()
            if (kept := self.leases(number).kept.get(partition)) is not None
            and (kept.owner, kept.epoch) == (keeper.owner, lease.epoch)
        }
        wanted = {(number, partition) for number in self.projected() for partition in range(PARTITIONS)}
        self._unread_since = {each: self._unread_since.get(each, now) for each in wanted - read}
        for each, since in self._unread_since.items():
            alone = now - max(since, self._nobody_until)
            if alone > LEASE + SLACK:
                self.wrong.append(f"nobody has read partition {each[1]} of generation {each[0]} for {alone:.0f} s")

    def _look_at_checkpoints(self) -> None:
        """What lies before a checkpoint is in the documents."""
        for number in self.projected():
            stored = self.models(number).stored
            for partition, lease in self.leases(number).kept.items():
                for event in self._events(partition):
                    if event.offset >= lease.next:
                        break
                    if event.subject not in stored or event.id not in stored[event.subject].known:
                        self.wrong.append(f"the checkpoint of partition {partition} in {number} lies before {event.id}")

    def look_at_documents(self) -> None:
        """Each generation that is kept up to date is the fold of the log, and what is given up has nothing."""
        wanted: dict[str, dict[str, KnownEvent]] = {}
        for records in self.records.values():
            for record in records:
                if (event := _event(record)) is not None:
                    add(wanted.setdefault((record.key or b"").decode(), {}), event)
        bodies = {name: EMAIL_LOG.fold(sorted(known.values()), ()) for name, known in wanted.items()}
        for number in self.projected():
            found = self.models(number)
            if {name: each.known for name, each in found.stored.items()} != wanted or found.bodies != bodies:
                self.wrong.append(f"generation {number} is not the fold of the log")
        for number, each in self.generations.generations.items():
            if each.stage in ("retired", "abandoned") and self.models(number).stored:
                self.wrong.append(f"generation {number} is {each.stage} and has documents")

    def _events(self, partition: int) -> list[_Seen]:
        """Those of a partition that are events, in order; the log only grows."""
        seen, looked_at = self._seen[partition]
        for record in self.records[partition][looked_at:]:
            if (event := _event(record)) is not None:
                seen.append(_Seen(event.id, (record.key or b"").decode(), record.offset))
        self._seen[partition] = (seen, len(self.records[partition]))
        return seen


@dataclass(frozen=True)
class _Seen:
    id: str
    subject: str
    offset: int


_READ: dict[tuple[object, ...], KnownEvent | None] = {}


def _event(record: Record) -> KnownEvent | None:
    key = (record.key, record.value, record.partition, record.offset)
    if key not in _READ:
        try:
            _READ[key] = read_event(record.value, record.partition, record.offset, (record.key or b"").decode())
        except ValueError:
            _READ[key] = None
    return _READ[key]


def _adopting(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
    task = asyncio.Task(coroutine, loop=loop, **options)
    process = _CURRENT.get()
    if process is not None:
        process.adopt(task)
    return task
