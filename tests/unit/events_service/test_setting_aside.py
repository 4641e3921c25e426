"""How often it is asked what lies set aside: seldom where nothing does, and always in time."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from services.events.ports import ReadRecord
from services.events.setting_aside import LOOK_SECONDS, SettingAside
from services.kit.breaker import Breaker
from services.kit.kafka.records import Park
from services.kit.metrics import Metrics
from services.kit.testing.clock import FakeClock
from services.kit.testing.parking import MemoryParkingLot

TOPIC = "email.events"


class CountingLot(MemoryParkingLot):
    """Counts how often it is asked whether anything lies ahead."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Mapping[int, int]] = []

    async def any_from(self, consumer: str, topic: str, offsets: Mapping[int, int]) -> bool:
        self.asked.append(dict(offsets))
        return await super().any_from(consumer, topic, offsets)


def record(partition: int, offset: int) -> ReadRecord:
    return ReadRecord(partition, offset, 0, b"key", b"value", ())


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def lot() -> CountingLot:
    return CountingLot()


@pytest.fixture
def aside(lot: CountingLot, clock: FakeClock) -> SettingAside:
    return SettingAside("events.email_log", TOPIC, lot, Breaker(100, 60, clock), clock, Metrics())


async def test_small_batches_of_changing_partitions_ask_once_a_second(
    aside: SettingAside, lot: CountingLot, clock: FakeClock
) -> None:
    """Else each small batch costs a question, since hardly one has records of the partitions of the one before."""
    for offset in range(300):
        assert not await aside.left_out([record(offset % 12, offset), record((5 * offset + 1) % 12, offset)])
        clock.move(LOOK_SECONDS / 30)
    first_meetings = sum(len(asked) < 12 for asked in lot.asked)
    assert first_meetings <= 12
    assert len(lot.asked) - first_meetings <= 11


async def test_what_lies_ahead_in_any_partition_is_left_out(
    aside: SettingAside, lot: CountingLot, clock: FakeClock
) -> None:
    assert not await aside.left_out([record(1, 0)])
    other = SettingAside("events.email_log", TOPIC, lot, Breaker(100, 60, clock), clock, Metrics())
    await other.park([(record(2, 7), Park("badData", "poison", "no JSON"))])
    assert await aside.left_out([record(2, 6), record(2, 7)]) == {(2, 7)}
    assert not await aside.left_out([record(1, 1)])


async def test_a_partition_that_is_read_no_more_is_asked_about_no_more(
    aside: SettingAside, lot: CountingLot, clock: FakeClock
) -> None:
    await aside.left_out([record(1, 0)])
    for offset in range(3):
        clock.move(LOOK_SECONDS)
        await aside.left_out([record(2, offset)])
    assert list(lot.asked[-1]) == [2]


async def test_who_goes_back_asks_again(aside: SettingAside, lot: CountingLot, clock: FakeClock) -> None:
    """A log that is read again from an earlier checkpoint may have something set aside there."""
    await aside.left_out([record(1, 100)])
    await SettingAside("events.email_log", TOPIC, lot, Breaker(100, 60, clock), clock, Metrics()).park(
        [(record(1, 50), Park("badData", "poison", "no JSON"))]
    )
    assert await aside.left_out([record(1, 50)]) == {(1, 50)}
