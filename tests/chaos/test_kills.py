"""kill -9 of the email service, the files service and the projector under load, at every gap between two effects:
nothing is lost or doubled, what is shown is the fold of the log, and S3 holds exactly what the files say.

MAILROOM_CHAOS_SEED runs one seed again. Each run prints its seed and where the processes died.
"""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from deploy.local.simulator.faults import Fault
from deploy.local.stack import Stack
from tests.chaos.killing import Killer
from tests.e2e.evidence import Observer
from tests.e2e.files_evidence import FilesObserver
from tests.e2e.judge import Decisions, assert_fair, unknowns
from tests.e2e.live import live
from tests.e2e.traffic import traffic
from tests.e2e.uploads import uploads

SEED = os.environ.get("MAILROOM_CHAOS_SEED")
BACKLOG = 400
"""Recipients who may wait for their mail; more only makes a slow machine settle longer."""

SETTLING = 180.0
"""Seconds after which what has not settled never will."""

DISORDER = (
    Fault(kind="duplicate", probability=0.1),
    Fault(kind="reorder", probability=0.2, ms=1500),
)
"""Notifications as they really come. No fault of sends: these would hide an attempt that a kill left unknown."""


async def mail_survives(
    stack: Stack,
    observer: Observer,
    seed: int,
    killed_all: asyncio.Barrier,
    *,
    email: int,
    urgent: int,
    events: int,
    per_second: float,
) -> None:
    """So many kills of each process under this load; then judged, once whoever kills beside it has come as far: the
    whole system must be at rest then.
    """
    began = time.monotonic()
    since = await observer.now()
    await observer.simulator.faults(*DISORDER, seed=seed)
    times = {"email": email, "email-urgent": urgent, "events": events}
    killers = [Killer(stack, observer, part, seed) for part in times]
    enough = asyncio.Event()
    async with traffic(stack, seed) as load:
        async with asyncio.TaskGroup() as group:
            group.create_task(load.flow(per_second, enough, backlog=BACKLOG))
            group.create_task(load.watched_by(observer.simulator, enough))
            group.create_task(load.busy_message(enough, facts=540, per_second=12))
            async with asyncio.TaskGroup() as killing:
                for killer in killers:
                    killing.create_task(killer.kill(times[killer.part]))
            await killed_all.wait()
            enough.set()
        killed = time.monotonic() - began
        evidence = await observer.settled(since, load.ids, SETTLING)
    print(
        f"\nseed {seed}: {len(load.requested)} messages, {len(evidence.acceptances)} acceptances, "
        f"{unknowns(Decisions(evidence.log))} without answer; "
        f"{killed:.0f} s of kills, {time.monotonic() - began - killed:.0f} s until all was settled"
    )
    print("\n".join(killer.report() for killer in killers))
    assert_fair(evidence, load.expected(kills=email + urgent))


async def files_survive(
    stack: Stack, observer: Observer, seed: int, killed_all: asyncio.Barrier, *, files: int
) -> None:
    """So many kills of the files service under uploads; then judged, as above."""
    async with uploads(stack, seed) as load:
        since = await observer.now()
        killer = Killer(stack, observer, "files", seed)
        enough = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(load.flow(enough))
            await killer.kill(files)
            await killed_all.wait()
            enough.set()
        await FilesObserver(observer).assert_fair(since, load, SETTLING)
    print(f"\nseed {seed}: {len(load.cases)} files: {dict(load.counts())}\n{killer.report()}")


async def test_a_few_kills_lose_and_double_nothing(stack: Stack) -> None:
    """Mail and files at once, and every process of ours."""
    seed, both = int(SEED or 1), asyncio.Barrier(2)
    async with live(stack) as observer, asyncio.TaskGroup() as group:
        group.create_task(mail_survives(stack, observer, seed, both, email=2, urgent=1, events=2, per_second=15))
        group.create_task(files_survive(stack, observer, seed, both, files=2))


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", [int(SEED)] if SEED else [101, 102, 103, 104])
async def test_many_kills_lose_and_double_no_mail(stack: Stack, seed: int) -> None:
    async with live(stack) as observer:
        await mail_survives(stack, observer, seed, asyncio.Barrier(1), email=34, urgent=8, events=18, per_second=20)


@pytest.mark.long
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("seed", [int(SEED)] if SEED else [201, 202])
async def test_many_kills_lose_no_file(stack: Stack, seed: int) -> None:
    async with live(stack) as observer:
        await files_survive(stack, observer, seed, asyncio.Barrier(1), files=57)
