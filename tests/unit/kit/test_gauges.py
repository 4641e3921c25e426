"""Levels that are looked up: what they are set to, and what an outage does to them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from services.kit.errors import Unavailable
from services.kit.gauges import LOOK_SECONDS, keep_looking, parked_open
from services.kit.health import Progress
from services.kit.metrics import PARKED_OPEN, Metrics
from services.kit.parking import ParkKind
from services.kit.testing import FakeClock


class Lot:
    """Counts as a test says; None = away."""

    def __init__(self) -> None:
        self.told: Mapping[tuple[str, ParkKind], int] | None = {}

    async def counts(self) -> Mapping[tuple[str, ParkKind], int]:
        if self.told is None:
            raise Unavailable("MongoDB", "away")
        return self.told


async def test_what_is_parked_is_counted_and_what_was_mended_goes_to_nothing() -> None:
    lot, metrics = Lot(), Metrics()
    look = parked_open(lot, metrics)
    lot.told = {("email-translator", "uncorrelated"): 3, ("email-translator", "poison"): 2}
    await look()
    assert metrics.value(PARKED_OPEN, consumer="email-translator", kind="uncorrelated") == 3
    assert metrics.value(PARKED_OPEN, consumer="email-translator", kind="poison") == 2
    lot.told = {("email-translator", "poison"): 1}
    await look()
    assert metrics.value(PARKED_OPEN, consumer="email-translator", kind="uncorrelated") == 0
    assert 'consumer="email-translator",kind="uncorrelated"} 0.0' in metrics.render().decode()
    assert metrics.value(PARKED_OPEN, consumer="email-translator", kind="poison") == 1


async def test_a_look_that_fails_stops_neither_the_others_nor_the_next_one() -> None:
    lot, clock, looks = Lot(), FakeClock(), 0
    progress, stopping = Progress(clock), asyncio.Event()
    lot.told = None

    async def other() -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            stopping.set()
        if looks == 2:
            raise ZeroDivisionError

    await keep_looking((parked_open(lot, Metrics()), other), clock, progress, stopping)
    assert looks == 3
    assert progress.report().ready
    assert clock.slept[:2] == [LOOK_SECONDS] * 2


async def test_a_look_under_way_does_not_hold_up_the_end() -> None:
    stopping, begun = asyncio.Event(), asyncio.Event()

    async def endless() -> None:
        begun.set()
        await asyncio.Event().wait()

    clock = FakeClock()
    looking = asyncio.create_task(keep_looking((endless,), clock, Progress(clock), stopping))
    await begun.wait()
    stopping.set()
    async with asyncio.timeout(1):
        await looking
