"""Building a new generation beside the live one: backfill → indexes → catch up → verify → swap.

Everything that says how far a rebuild is lies in MongoDB (stage, leases, checkpoints), so whoever runs `run` after a
crash goes on where it was. Workers fill the generation in processes of their own; one coordinator at a time, by lease.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import Final, Protocol

from services.events.generations import GRACE_SECONDS, move, retire, settle, swap
from services.events.ports import Generation, GenerationStore, Lease, LeaseStore, LeaseView, Log, Progress, Verdict
from services.events.projections.projection import Projection
from services.events.projector import Projector
from services.events.stages import UNFINISHED
from services.kit.clock import Clock
from services.kit.errors import PermanentError, RefusedHere, TransientError
from services.kit.logs import get_logger
from services.kit.metrics import REBUILD_PROGRESS, Metrics

log = get_logger(__name__)

LOOK_SECONDS: Final = 0.5
KEEP_SECONDS: Final = 1.0


class Workers(Protocol):
    """Processes that fill a generation until they are stopped."""

    async def start(self, generation: int) -> None: ...

    async def revive(self) -> None:
        """Start those anew that died. Raises PermanentError `workersDie` when they do it again and again."""
        ...

    async def stop(self) -> None: ...


class Comparison(Protocol):
    """Compares generations in the store."""

    async def compare(self, old: int, new: int, *, same_version: bool) -> Verdict:
        """At positions that both have reached, each document at a moment of its own; traffic goes on.

        Raises:
            PermanentError: `abandoned`: one of them was dropped.
            TransientError: one that is behind the other stands still.
        """
        ...


class Summing(Protocol):
    """The statistics of a generation."""

    async def dirty(self) -> list[str]: ...

    async def refresh(self, bucket: str) -> bool: ...


class MakeProjector(Protocol):
    """Makes a projector of a generation."""

    def __call__(self, generation: int, *, version: int) -> Projector:
        """`version`: of the generation's fold, one of those that the build has."""
        ...


@dataclass(frozen=True, slots=True)
class Plan:
    """What a rebuild would do."""

    projection: str
    version: int
    active: int | None
    partitions: int
    events: int
    lost_head: tuple[int, ...]
    """Partitions whose first events the log has lost although the active generation was built from them."""


@dataclass(frozen=True, slots=True)
class RebuildParts:
    """What the composition root hands over."""

    projection: Projection
    store: GenerationStore
    log: Callable[[], Log]
    leases: Callable[[int], LeaseStore]
    coordination: Callable[[int], LeaseStore]
    """A lease store with one partition, 0: whoever has it coordinates the rebuild."""
    projector: MakeProjector | None
    """A projector for catching up; None where this process projects every generation anyway."""
    statistics: Callable[[int], Summing]
    workers: Workers
    comparison: Comparison
    metrics: Metrics


class Rebuild:
    """Rebuilds one projection."""

    def __init__(self, parts: RebuildParts, clock: Clock, owner: str, *, grace: float = GRACE_SECONDS) -> None:
        self._parts = parts
        self._clock = clock
        self._owner = owner
        self._grace = grace
        self._rates: list[tuple[float, int]] = []

    async def plan(self) -> Plan:
        """What `create` and `run` would do; changes nothing."""
        parts, reader = self._parts, self._parts.log()
        active = (await parts.store.pointer()).active
        await reader.start()
        try:
            bounds = await reader.bounds()
        finally:
            await reader.stop()
        before = {} if active is None else {each.partition: each.begin for each in await parts.leases(active).view()}
        return Plan(
            projection=parts.projection.name,
            version=parts.projection.version,
            active=active,
            partitions=len(bounds),
            events=sum(end - first for first, end in bounds.values()),
            lost_head=tuple(each for each, (first, _) in bounds.items() if first > before.get(each, 0)),
        )

    async def create(self, *, without_head: bool = False) -> Generation:
        """Make a new generation for `run` to fill.

        Raises:
            PermanentError: `rebuildInProgress`; `lostHead`: the log does not begin where it began, so documents would
                be lost; `without_head` takes that. `olderFold`: a newer fold than this build's has made what is read.
        """
        unfinished = [each for each in await self._parts.store.list() if each.stage in UNFINISHED]
        active = (await self._parts.store.pointer()).active
        if any(each.number != active for each in unfinished):
            number = next(each.number for each in unfinished if each.number != active)
            raise PermanentError("rebuildInProgress", f"generation {number} is being built: abandon it or let it end")
        read = None if active is None else await self._parts.store.get(active)
        if read is not None and read.version > self._parts.projection.version:
            raise PermanentError(
                "olderFold",
                f"generation {read.number}, which is read, was built by version {read.version} of the fold, and the "
                f"newest one here is {self._parts.projection.version}: ask a process of the newer build",
            )
        plan = await self.plan()
        if plan.lost_head and not without_head:
            raise PermanentError("lostHead", f"the log has lost the first events of partitions {list(plan.lost_head)}")
        return await self._parts.store.create(self._parts.projection.version)

    async def abandon(self, number: int) -> None:
        """Give up a generation that was not swapped in, and drop what it has."""
        await retire(self._parts.store, number)

    async def run(self, number: int, *, accept_differences: bool = False) -> Verdict | None:
        """Bring a generation from whatever stage it is in to `active`.

        Returns:
            What the comparison found; None when there was nothing to compare with, or it was active already.

        Raises:
            RefusedHere: another process coordinates this rebuild.
            PermanentError: `differs`: the new generation is not what the live one is; it stays beside it for a look.
                `abandoned`, `wrongStage`: it was given up, or was read before: there is nothing to build.
                `foldMissing`: this build has not the fold that it is built by; nothing was changed.
            Unavailable: Kafka or MongoDB is away; run it again.
        """
        self._parts.projection.with_fold((await self._known(number)).version)
        coordination = self._parts.coordination(number)
        await coordination.seed({0: 0})
        lease = await coordination.acquire(self._owner, 0)
        if lease is None:
            raise RefusedHere("coordinatedElsewhere", f"generation {number} is being built by another process")
        keeping = asyncio.create_task(self._keep(coordination, lease))
        working = asyncio.create_task(self._run(number, accept_differences=accept_differences))
        try:
            await asyncio.wait({keeping, working}, return_when=asyncio.FIRST_COMPLETED)
            if keeping.done() and not working.done():
                raise RefusedHere("coordinatedElsewhere", f"the lease on building generation {number} was lost")
            return await working
        finally:
            for task in (keeping, working):
                task.cancel()
            await asyncio.gather(keeping, working, return_exceptions=True)
            await coordination.release(self._owner, [lease])

    async def _keep(self, coordination: LeaseStore, lease: Lease) -> None:
        lost: set[int] = set()
        while not lost:
            await asyncio.sleep(KEEP_SECONDS)
            with suppress(TransientError):  # the store is away: nobody else can take the lease either
                lost = await coordination.renew(self._owner, [lease])

    async def _run(self, number: int, *, accept_differences: bool) -> Verdict | None:
        await settle(self._parts.store, grace=self._grace)
        generation = await self._known(number)
        if generation.stage == "created":
            await self._begin(number)
            generation = replace(generation, stage="backfilling")
        if generation.stage == "backfilling":
            await self._backfill(number)
            await self._note(number, "building indexes", await self._parts.leases(number).view(), {})
            await self._parts.store.ensure_indexes(number)
            await self._end_backfill(number)
            generation = replace(generation, stage="catchingUp")
        if generation.stage == "active":
            return None
        if generation.stage not in UNFINISHED:
            reason = "abandoned" if generation.stage == "abandoned" else "wrongStage"
            raise PermanentError(reason, f"generation {number} is {generation.stage}: there is nothing to build")
        async with self._projecting(generation):
            await self._catch_up(number)
            await self._sum_up(number)
            verdict = await self._swap_in(number, accept_differences=accept_differences)
        await self._note(number, "active", await self._parts.leases(number).view(), {})
        return verdict

    async def _end_backfill(self, number: int) -> None:
        """Let every process project it; not before it was resumed where it is paused."""
        while True:
            try:
                await move(self._parts.store, number, "catchingUp")
            except PermanentError as error:
                if error.reason != "paused":
                    raise
            else:
                return
            await self._view(number)
            await self._clock.sleep(LOOK_SECONDS)

    async def _swap_in(self, number: int, *, accept_differences: bool) -> Verdict | None:
        """Swap it for the generation that it was compared with; where another one is read meanwhile, compare anew."""
        while True:
            active = (await self._parts.store.pointer()).active
            verdict = await self._verify(number, active, accept_differences=accept_differences)
            await self._view(number)
            await move(self._parts.store, number, "verified")
            try:
                await swap(self._parts.store, number, expected=active, grace=self._grace)
            except PermanentError as error:
                if error.reason != "pointerMoved":
                    raise
            else:
                return verdict

    @asynccontextmanager
    async def _projecting(self, generation: Generation) -> AsyncIterator[None]:
        if self._parts.projector is None:
            yield
            return
        projector = self._parts.projector(generation.number, version=generation.version)
        running = asyncio.create_task(projector.run())
        try:
            yield
        finally:
            projector.stop()
            await asyncio.wait({running}, timeout=10)

    async def _begin(self, number: int) -> None:
        begins = {each: first for each, (first, _) in (await self._bounds()).items()}
        await self._parts.leases(number).seed(begins)
        await move(self._parts.store, number, "backfilling")

    async def _backfill(self, number: int) -> None:
        ends = {each: end for each, (_, end) in (await self._bounds()).items()}
        await self._parts.store.ensure_unique(number)
        workers = self._parts.workers
        await workers.start(number)
        try:
            while True:
                view = await self._view(number)
                await self._note(number, "backfilling", view, ends)
                if all(each.next >= ends.get(each.partition, 0) for each in view):
                    return
                await workers.revive()
                await self._clock.sleep(LOOK_SECONDS)
        finally:
            await workers.stop()

    async def _catch_up(self, number: int) -> None:
        """Wait until the new generation is where the log ended when this was called."""
        ends = {each: end for each, (_, end) in (await self._bounds()).items()}
        while True:
            view = await self._view(number)
            await self._note(number, "catching up", view, ends)
            if all(each.next >= ends.get(each.partition, 0) for each in view):
                return
            await self._clock.sleep(LOOK_SECONDS / 5)

    async def _sum_up(self, number: int) -> None:
        """Sum up once what is dirty now, since the statistics swap with the generation. What traffic marks meanwhile is
        left to those who keep them: whoever reads a dirty bucket sums it up. To wait until all are clean at one moment
        has no end, as the next event may mark a bucket before it is summed up.
        """
        statistics = self._parts.statistics(number)
        for bucket in await statistics.dirty():
            await self._note(number, "summing up", await self._view(number), {})
            await statistics.refresh(bucket)

    async def _verify(self, number: int, active: int | None, *, accept_differences: bool) -> Verdict | None:
        if active is None or active == number:
            return None
        old, new = await self._known(active), await self._known(number)
        await self._note(number, "verifying", await self._parts.leases(number).view(), {})
        verdict = await self._parts.comparison.compare(
            old.number, new.number, same_version=old.version == new.version
        )  # fmt: skip
        await self._parts.store.note(number, report={**asdict(verdict), "examples": list(verdict.examples)})
        if verdict.differing and not accept_differences:
            raise PermanentError(
                "differs",
                f"{verdict.differing} of {verdict.documents} documents of generation {number} are not what generation "
                f"{old.number} has, for instance {', '.join(verdict.examples[:3])}; look at them, then run it again "
                "accepting the differences, or abandon it",
            )
        return verdict

    async def _bounds(self) -> dict[int, tuple[int, int]]:
        reader = self._parts.log()
        await reader.start()
        try:
            return await reader.bounds()
        finally:
            await reader.stop()

    async def _view(self, number: int) -> list[LeaseView]:
        """The leases of a generation that is still wanted; PermanentError `abandoned` when it is given up."""
        view = await self._parts.leases(number).view()
        if not view or (await self._known(number)).stage not in UNFINISHED:
            raise PermanentError("abandoned", f"generation {number} was given up while it was built")
        return view

    async def _known(self, number: int) -> Generation:
        generation = await self._parts.store.get(number)
        if generation is None:
            raise PermanentError("noGeneration", f"there is no generation {number}")
        return generation

    async def _note(self, number: int, stage: str, view: list[LeaseView], ends: dict[int, int]) -> None:
        done = sum(each.next - each.begin for each in view)
        total = max(done, sum(ends.get(each.partition, each.next) - each.begin for each in view))
        now = self._clock.monotonic()
        self._rates = [*[each for each in self._rates if each[0] > now - 10], (now, done)]
        since, before = self._rates[0]
        rate = (done - before) / (now - since) if now > since else 0.0
        progress = Progress(stage, done, total, rate, (total - done) / rate if rate else None)
        await self._parts.store.note(number, progress=progress)
        labels = {"projection": self._parts.projection.name, "generation": str(number)}
        self._parts.metrics.set(REBUILD_PROGRESS, done / total if total else 1.0, **labels)


def is_unfinished(generation: Generation, active: int | None) -> bool:
    """Whether a rebuild should work on it."""
    return generation.stage in UNFINISHED and generation.number != active
