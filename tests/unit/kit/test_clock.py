"""The clocks: the real one in UTC, the fake one under the test's hand."""

import asyncio
from datetime import UTC, timedelta
from uuid import UUID

from contracts.ids import time_of
from services.kit.clock import SystemClock, SystemIds
from services.kit.testing import FakeClock, FakeIds
from services.kit.testing.clock import START


async def test_system_clock_is_utc_and_monotonic() -> None:
    clock = SystemClock()
    before = clock.monotonic()
    await clock.sleep(-1)
    assert clock.now().tzinfo is UTC
    assert clock.monotonic() >= before


def test_ids_are_uuid7_and_different() -> None:
    for ids in (SystemIds(), FakeIds()):
        made = [ids.new() for _ in range(100)]
        assert len(set(made)) == 100
        assert all(UUID(one).version == 7 and str(UUID(one)) == one for one in made)
    assert made[2] == FakeIds.nth(3)


def test_an_id_tells_when_it_was_made() -> None:
    assert time_of(FakeIds.nth(3)) == START
    assert abs(time_of(SystemIds().new()) - SystemClock().now()) < timedelta(minutes=1)


async def test_advancing_sleep_moves_both_clocks() -> None:
    clock = FakeClock()
    began = clock.now()
    await clock.sleep(2.5)
    assert clock.now() - began == timedelta(seconds=2.5)
    assert clock.monotonic() == 2.5
    assert clock.slept == [2.5]


async def test_waiting_sleepers_wake_in_the_order_of_their_ends() -> None:
    clock = FakeClock(sleeping="wait")
    woken: list[float] = []

    async def sleeper(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(seconds)

    tasks = [asyncio.create_task(sleeper(seconds)) for seconds in (3, 1, 2)]
    await asyncio.sleep(0)
    await clock.advance(2)
    assert woken == [1, 2]
    await clock.advance(1)
    assert woken == [1, 2, 3]
    await asyncio.gather(*tasks)


async def test_a_cancelled_sleeper_does_not_disturb_the_others() -> None:
    clock = FakeClock(sleeping="wait")
    task = asyncio.create_task(clock.sleep(1))
    await asyncio.sleep(0)
    task.cancel()
    await clock.advance(5)
    assert task.cancelled()


def test_a_jump_leaves_the_monotonic_clock_alone() -> None:
    clock = FakeClock()
    began = clock.now()
    clock.jump(-3600)
    assert clock.now() - began == timedelta(hours=-1)
    assert clock.monotonic() == 0
