"""Whole processes of the reading side come and go while mail, rebuilds and roll backs go on.

The processes are those of production (`python -m services.events projector`, with their workers), on a topic and a
database of the test. Afterwards all is settled by those that are left alone, and what is read is the pure fold of the
log, as is what a rebuild makes of it.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from services.events.adapters.mongo_read_models import collection_name
from services.events.composing import ReadingSide
from services.events.generations import retire
from services.events.operating import ProjectionOperator
from services.events.ports import GONE, LeaseView
from services.events.stages import given_up
from services.kit.errors import MailroomError, TransientError
from services.kit.mongo import connect, foreign_errors
from tests.chaos.crashing import NTH, PHASES, POINT, REBUILD, effect_of, points
from tests.integration.events.conftest import HANG, Write, address, until
from tests.integration.events.judge import assert_equal_to_the_log, wait_until_projected, whole_log
from tests.integration.events.mails import mails
from tests.integration.events.workers import WorkersHere
from tests.integration.own_stack import own_stack

COUNT = 3
"""Processes at a time."""

KILLS = 100
"""At least so many for each seed: two hundred with both."""

PATIENCE = 60.0
"""Seconds after which a process that has not come by its point is killed from outside."""

LEASE = 10.0
GRACE = 10.0
SETTLING = 600.0
"""Seconds after which what has not settled never will: twice the time between two looks for what was left behind."""

ROUNDS = 8
AWAY = (1, 4, 13)
"""Seconds for which MongoDB has no primary: those of an election, and more than a lease."""

POISON = b"{not JSON"

Process = asyncio.subprocess.Process


class Processes:
    """Starts processes of the events service, and leaves none behind."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self._environment = environment
        self._log = log
        self._started: list[Process] = []

    async def start(self, point: str = "", nth: int = 1) -> Process:
        """One more; with a `point` (of `tests.chaos.crashing`) it kills itself at its `nth` passing."""
        words = ("services.events", "projector")
        at = {POINT: point, NTH: str(nth)} if point else {}
        with self._log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", *(("tests.chaos.crashing",) if point else ()), *words),
                env=self._environment | at,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._started.append(process)
        return process

    @staticmethod
    async def kill(process: Process, *, with_workers: bool) -> None:
        """SIGKILL, and wait until it is gone. Workers end by themselves where they are not killed too."""
        if process.returncode is None:
            with suppress(ProcessLookupError):
                (os.killpg if with_workers else os.kill)(process.pid, signal.SIGKILL)
        await process.wait()

    @staticmethod
    async def stop(process: Process) -> int:
        """SIGTERM; how it ended."""
        with suppress(ProcessLookupError):
            process.terminate()
        async with asyncio.timeout(HANG):
            return await process.wait()

    async def close(self) -> None:
        for process in self._started:
            await self.kill(process, with_workers=True)


@asynccontextmanager
async def processes_of(side: ReadingSide, mongo_url: str, log: Path) -> AsyncIterator[Processes]:
    """Processes on the topic and database of `side`."""
    files = f"{side.projection.topic}.files"
    admin = AIOKafkaAdminClient(bootstrap_servers=address(side))
    await admin.start()
    await admin.create_topics([NewTopic(files, 1, 1)])
    environment = {
        "MAILROOM_KAFKA_BOOTSTRAP": address(side),
        "MAILROOM_MONGO_URL": mongo_url,
        "MAILROOM_EVENTS_DATABASE": side.database.name,
        "MAILROOM_EMAIL_EVENTS_TOPIC": side.projection.topic,
        "MAILROOM_FILES_EVENTS_TOPIC": files,
        "MAILROOM_REBUILD_WORKERS": "1",
        "MAILROOM_GRACE_HOURS": str(GRACE / 3600),
        "MAILROOM_EVENTS_PORT": "0",
        "MAILROOM_PUBLIC_URL": "http://127.0.0.1:1",
        "FILE_ENCRYPTION_KEY": "k" * 32,
        "MAILROOM_JWT_ALGORITHM": "HS256",
        "MAILROOM_JWT_SECRET": "s" * 32,
    }
    processes = Processes({**os.environ, **environment}, log)
    try:
        yield processes
    finally:
        await processes.close()
        await admin.delete_topics([files])
        await admin.close()


@asynccontextmanager
async def going_on(*work: Any) -> AsyncIterator[None]:
    """Run these coroutines beside; none may end before it is told to."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        yield
        assert not [each for each in tasks if each.done()], tasks
    finally:
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def keep_writing(write: Write, seed: int) -> None:
    """Mail for ever, some of it with more facts than a document holds, and a bad record now and then."""
    for number in range(1, 1_000_000):
        await write(mails(3, seed=1_000_000 * seed + number, busy_opens=600 if number % 100 == 0 else 0))
        if number % 25 == 0:
            await write([(b"poison-%d" % number, POISON)])
        await asyncio.sleep(0.2)


class Operator:
    """Asks for rebuilds, rolls back and gives up; what is refused is refused."""

    def __init__(self, side: ReadingSide, seed: int) -> None:
        self._side, self._rng = side, random.Random(f"{seed} operator")
        create = side.rebuild(WorkersHere(side), projects=False).create
        self.verbs = ProjectionOperator(side.projection, side.generations, side.leases, side.log, create, grace=GRACE)
        self.done = Counter[str]()

    async def go_on(self) -> None:
        while True:
            with suppress(MailroomError):
                await self.verbs.start()
                self.done["start"] += 1
                if self._rng.random() < 0.2:
                    await asyncio.sleep(self._rng.uniform(0.0, 10.0))
                    await self._give_up()
                    self.done["give up"] += 1
            if self._rng.random() < 0.1:
                with suppress(MailroomError):
                    await self.verbs.rollback()
                    self.done["rollback"] += 1
            await asyncio.sleep(self._rng.uniform(0.5, 2.0))

    async def _give_up(self) -> None:
        """As a whole, or as a process leaves it that was killed before it dropped anything."""
        number = (await self.verbs.building()).number
        if self._rng.random() < 0.5:
            await self._side.generations.change(lambda standing: given_up(standing, number), grace=GRACE)
        else:
            await retire(self._side.generations, number)


class Killing:
    """Kills processes at any time and at the points of a rebuild, until there were enough of them at each."""

    def __init__(self, side: ReadingSide, processes: Processes, seed: int) -> None:
        self._side, self._processes, self._seed = side, processes, seed
        self.kills = 0
        self.fatal = Counter[str]()
        self.meanwhile = Counter[str]()
        self.in_vain = Counter[str]()

    async def until_enough(self) -> None:
        async with asyncio.TaskGroup() as group:
            for slot in range(COUNT):
                lives = self._killed_at_any_time if slot == 0 else self._killed_at_a_point
                group.create_task(self._lives(lives, random.Random(f"{self._seed} {slot}")))

    def _missing(self) -> list[str]:
        hit = {effect_of(point)[1].name for point in self.fatal}
        return [f"{phase}: {each.name}" for each in REBUILD if each.name not in hit for phase in PHASES]

    async def _lives(self, life: Callable[[random.Random], Awaitable[None]], rng: random.Random) -> None:
        while self.kills < KILLS or self._missing() or not self.meanwhile["half dropped"]:
            await life(rng)
            self.kills += 1

    async def _killed_at_any_time(self, rng: random.Random) -> None:
        process = await self._processes.start()
        await asyncio.sleep(rng.uniform(0.0, 6.0))
        await self._processes.kill(process, with_workers=rng.random() < 0.5)
        self.meanwhile[await self._stage()] += 1

    async def _killed_at_a_point(self, rng: random.Random) -> None:
        """It dies at its point, or by the clock where it does not come by it: others may do what it would."""
        point, nth = rng.choice(self._missing() or points(REBUILD)), 1
        left = await _left_behind(self._side)
        if left:  # by who was killed before it dropped anything: a process that starts does that first
            gone = [each.number for each in await self._side.generations.list() if each.stage in GONE]
            point, nth = "after: collection dropped", 3 * gone.index(left[0]) + rng.randint(1, 2)
        process = await self._processes.start(point, nth)
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await process.wait()
        if process.returncode is None:
            await self._processes.kill(process, with_workers=rng.random() < 0.5)
            self.in_vain[point] += 1
            return
        assert process.returncode == -signal.SIGKILL, f"{point}: it ended by itself, with {process.returncode}"
        self.fatal[point] += 1
        if left and left[0] in await _left_behind(self._side):
            self.meanwhile["half dropped"] += 1

    async def _stage(self) -> str:
        newest = (await self._side.generations.list())[-1:]
        return newest[0].stage if newest else "nothing yet"

    def __str__(self) -> str:
        return (
            f"seed {self._seed}: {self.kills} kills: {self.fatal.total()} at their point {dict(self.fatal)}; at any "
            f"time, with the newest generation {dict(self.meanwhile)}; by the clock {dict(self.in_vain)}"
        )


async def bury(side: ReadingSide) -> None:
    """End what the dead still hold. It would only be waited for; the living prolong theirs every second."""
    left = {"$subtract": ["$until", "$$NOW"]}
    silent = {"owner": {"$ne": None}, "$expr": {"$and": [{"$gt": [left, 0]}, {"$lt": [left, 4000]}]}}
    old = {"$expr": {"$lt": ["$at", {"$subtract": ["$$NOW", 6000]}]}}
    while True:
        await side.database["leases"].update_many(silent, [{"$set": {"until": {"$subtract": ["$$NOW", 1]}}}])
        await side.database["workers"].delete_many(old)
        await asyncio.sleep(0.5)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [1, 2])
async def test_whatever_is_killed_in_the_middle_a_rebuild_equals_live(
    side: ReadingSide, write: Write, mongo_url: str, tmp_path: Path, seed: int
) -> None:
    began = time.monotonic()
    await write(mails(300, seed=seed, busy_opens=600))
    async with processes_of(side, mongo_url, tmp_path / "log") as processes:
        killing, operator = Killing(side, processes, seed), Operator(side, seed)
        async with going_on(bury(side), keep_writing(write, seed)):
            first = await processes.start()
            await until(lambda: _is_read(side))
            await processes.kill(first, with_workers=True)
            async with going_on(operator.go_on()):
                await killing.until_enough()
        print(f"\n{killing}\nthe operator did {dict(operator.done)}; {time.monotonic() - began:.0f} s")

        crew = [await processes.start() for _ in range(COUNT)]
        await _settles(side)
        live = await _active(side)
        await wait_until_projected(side, live)
        documents = await assert_equal_to_the_log(side, live)
        rebuilt = (await operator.verbs.start()).number
        await until(lambda: _is_read(side, rebuilt), SETTLING)
        await _settles(side)
        await wait_until_projected(side, rebuilt)
        assert [await processes.stop(each) for each in crew] == [0] * COUNT
    assert await assert_equal_to_the_log(side, rebuilt) == documents
    await _nothing_is_left(side, rebuilt)
    print(f"{documents} documents; settled after {time.monotonic() - began:.0f} s")


async def _settles(side: ReadingSide) -> None:
    """Wait until nothing is given up that was not dropped, or half built: there is what is read and no more."""

    async def rests() -> bool:
        stages = [each.stage for each in await side.generations.list()]
        return stages.count("active") == 1 and {*stages} <= {"active", *GONE} and not await _left_behind(side)

    try:
        await until(rests, SETTLING)
    except AssertionError as error:
        raise AssertionError((await side.generations.list(), await _left_behind(side))) from error


async def _left_behind(side: ReadingSide) -> list[int]:
    """The generations that are given up and of which something is still there."""
    names = await side.database.list_collection_names()
    leased = await side.database["leases"].distinct("generation")
    left = []
    for each in await side.generations.list():
        name = collection_name(side.projection.name, each.number)
        there = any(found == name or found.startswith(f"{name}__") for found in names)
        if each.stage in GONE and (there or f"{side.projection.name}/{each.number}" in leased):
            left.append(each.number)
    return left


async def _nothing_is_left(side: ReadingSide, active: int) -> None:
    """What is read is there and active, nobody holds a lease, and what is parked are the bad records."""
    pointer = await side.generations.pointer()
    assert pointer.active == active
    assert [each.number for each in await side.generations.list() if each.stage == "active"] == [active]
    assert await side.database[side.projection.name].find_one() is not None
    held = {"$expr": {"$gte": ["$until", "$$NOW"]}}
    assert await side.database["leases"].find(held).to_list(None) == []
    read = {"generation": {"$regex": f"^{side.projection.name}/[0-9]+$"}}
    assert await side.database["leases"].distinct("generation", read) == [f"{side.projection.name}/{active}"]
    bad = sorted((each.partition, each.offset) for each in await whole_log(side) if each.value == POISON)
    parked = await side.database["parked"].find().to_list(None)
    assert sorted((each["partition"], each["offset"]) for each in parked) == bad
    assert {each["reason"] for each in parked} <= {"notJson"}


async def _is_read(side: ReadingSide, number: int = 1) -> bool:
    return (await side.generations.pointer()).active == number


async def _active(side: ReadingSide) -> int:
    active = (await side.generations.pointer()).active
    assert active is not None
    return active


@pytest.fixture(scope="module")
def own_mongo() -> Iterator[str]:
    """URL of a MongoDB whose primary this module may take away."""
    with own_stack("mongo") as stack:
        yield stack.site.addresses().mongo_url


class Readers:
    """Watches the leases of a generation: how long a partition had none while MongoDB was there."""

    def __init__(self, side: ReadingSide) -> None:
        self._side = side
        self._back_at = time.monotonic()
        self.longest = 0.0
        """Seconds, by the server's clock, from the end of a lease, or of an outage, to the next lease."""

    async def watch(self) -> None:
        free: dict[str, Any] = {"$max": [0, {"$subtract": ["$$NOW", "$until"]}]}
        pipeline: list[dict[str, Any]] = [
            {"$match": {"generation": f"{self._side.projection.name}/1"}},
            {"$project": {"free": free}},
        ]
        while True:
            try:
                with foreign_errors():
                    found = await (await self._side.database["leases"].aggregate(pipeline)).to_list(None)
            except TransientError:
                self._back_at = time.monotonic()
            else:
                since_back = time.monotonic() - self._back_at
                self.longest = max([self.longest, *(min(each["free"] / 1000, since_back) for each in found)])
            await asyncio.sleep(0.1)

    async def read_on(self) -> None:
        """Return when every partition was read on, by whoever has it, up to where the log ended."""
        ends = await self._ends()

        async def past() -> bool:
            with suppress(TransientError):
                view = await self._side.leases(1).view()
                return len(view) == len(ends) and all(_reached(each, ends) for each in view)
            return False

        await until(past)

    async def _ends(self) -> dict[int, int]:
        reader = self._side.log()
        await reader.start()
        try:
            return {partition: end for partition, (_, end) in (await reader.bounds()).items()}
        finally:
            await reader.stop()


def _reached(lease: LeaseView, ends: dict[int, int]) -> bool:
    return lease.held and lease.next >= ends[lease.partition]


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [1, 2])
async def test_processes_come_and_go_while_mongodb_steps_down(
    side: ReadingSide, write: Write, own_mongo: str, tmp_path: Path, seed: int
) -> None:
    rng, client, did = random.Random(seed), connect(own_mongo), Counter[str]()
    side = replace(side, database=client[side.database.name])
    readers = Readers(side)

    async with processes_of(side, own_mongo, tmp_path / "log") as processes:
        slots = [await processes.start() for _ in range(COUNT)]

        async def come_and_go(slot: int, times: list[float], how: list[str]) -> None:
            for pause, verb in zip(times, how, strict=True):
                await asyncio.sleep(pause)
                if slots[slot].returncode is not None:
                    slots[slot] = await processes.start()
                    did["start"] += 1
                    continue
                if verb == "SIGTERM":
                    await processes.stop(slots[slot])
                else:
                    await processes.kill(slots[slot], with_workers=True)
                did[verb] += 1

        await until(lambda: _is_read(side))
        async with going_on(keep_writing(write, seed)):
            await readers.read_on()
            async with going_on(readers.watch()):
                for number in range(ROUNDS):
                    away = AWAY[number % len(AWAY)]
                    staying = rng.randrange(COUNT)  # it is there since the last round: somebody always is
                    await client.admin.command({"replSetStepDown": away, "force": True})
                    async with asyncio.TaskGroup() as group:
                        for slot in range(COUNT):
                            times = [rng.uniform(0, away) for _ in range(3)]
                            how = rng.choices(("SIGTERM", "SIGKILL"), k=3)
                            if slot != staying:
                                group.create_task(come_and_go(slot, times, how))
                    for slot in range(COUNT):
                        if slots[slot].returncode is not None:
                            slots[slot] = await processes.start()
                            did["start"] += 1
                    await readers.read_on()
        await wait_until_projected(side, 1)
        # Who has only just been started may have no handler for SIGTERM yet.
        assert {await processes.stop(each) for each in slots} <= {0, -signal.SIGTERM}
    documents = await assert_equal_to_the_log(side, 1)
    print(
        f"\nseed {seed}: {ROUNDS} times without a primary, {dict(did)}; {documents} documents; "
        f"a partition was free for {readers.longest:.1f} s at most"
    )
    assert readers.longest < LEASE
    await _nothing_is_left(side, 1)
    await client.drop_database(side.database.name)
    await client.close()
