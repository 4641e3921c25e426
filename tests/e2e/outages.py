"""Mail and files while something that Mailroom stands on is away, judged afterwards: nothing lost, nothing doubled, no
false success.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.e2e.evidence import Observer
from tests.e2e.files_evidence import FilesObserver
from tests.e2e.judge import Decisions, Evidence, assert_fair, unknowns
from tests.e2e.live import EMAIL, always_alive
from tests.e2e.traffic import Traffic, traffic
from tests.e2e.uploads import Teller, Uploads, uploads

PER_SECOND = 15.0
BOTH_SIDES = 2.0
"""Seconds of load before an outage and after it."""

SETTLING = 180.0
"""Seconds after which what has not settled never will."""

SHORT, LONG_SECONDS = 6, 30
"""Seconds of an outage: in `make test`, and as long as it is meant to be in `make test-long`."""

LONG = pytest.param(LONG_SECONDS, marks=[pytest.mark.long, pytest.mark.timeout(500)])


async def mail_survives(
    observer: Observer, outage: Callable[[Traffic], Awaitable[None]], seed: int, *, may_be_unknown: int = 0
) -> Evidence:
    """Mail before, during and after an outage; the services stay alive all the time; then judged."""
    since = await observer.now()
    enough = asyncio.Event()
    async with traffic(observer.stack, seed) as load:
        async with asyncio.TaskGroup() as group:
            group.create_task(load.flow(PER_SECOND, enough))
            group.create_task(always_alive(observer.stack, enough, *EMAIL, "events"))
            await asyncio.sleep(BOTH_SIDES)
            await outage(load)
            await asyncio.sleep(BOTH_SIDES)
            enough.set()
        evidence = await observer.settled(since, load.ids, SETTLING)
    print(f"\n{len(load.requested)} messages, {unknowns(Decisions(evidence.log))} without answer, {load.refusals}")
    assert_fair(evidence, load.expected(may_be_unknown=may_be_unknown))
    return evidence


async def files_survive(
    observer: Observer, outage: Callable[[], Awaitable[None]], seed: int, teller: Teller = "either"
) -> Uploads:
    """Uploads before, during and after an outage; the services stay alive all the time; then judged."""
    files = FilesObserver(observer)
    since = await observer.now()
    enough = asyncio.Event()
    async with uploads(observer.stack, seed, teller) as load:
        async with asyncio.TaskGroup() as group:
            group.create_task(load.flow(enough))
            group.create_task(always_alive(observer.stack, enough, "files", "email", "events"))
            await asyncio.sleep(BOTH_SIDES)
            await outage()
            await asyncio.sleep(BOTH_SIDES)
            enough.set()
        await files.assert_fair(since, load, SETTLING)
    print(f"\n{len(load.cases)} files {dict(load.counts())}, repeated {dict(load.repeated)}")
    return load
