"""What every store of daily counts promises: one suite, run on memory and on a real MongoDB."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import date, timedelta
from uuid import uuid4

import pytest

from services.kit.clock import Clock, SystemClock
from services.kit.daily import DailyCounts, DailyLimit, MemoryDailyCounts, until_next_day
from services.kit.daily_mongo import MongoDailyCounts
from services.kit.mongo import Collection, connect
from services.kit.testing.clock import FakeClock

YESTERDAY = timedelta(days=-1)


@dataclass
class Place:
    counts: DailyCounts
    clock: Clock
    collection: Collection | None = None

    async def end_the_day(self, key: str, by: timedelta = YESTERDAY) -> None:
        """What was counted for it was counted on another day than today."""
        if self.collection is None:
            assert isinstance(self.clock, FakeClock)
            self.clock.move(-by.total_seconds())
            return
        found = await self.collection.find_one({"_id": key})
        assert found is not None
        day = date.fromisoformat(found["day"]) + by
        await self.collection.update_one({"_id": key}, {"$set": {"day": day.isoformat()}})


@pytest.fixture(params=["memory", "mongo"])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    if request.param == "memory":
        clock = FakeClock()
        yield Place(MemoryDailyCounts(clock), clock)
        return
    if (left := until_next_day(SystemClock().now())) < 60:  # one day for the whole test
        await asyncio.sleep(left)
    client = connect(request.getfixturevalue("mongo_url"))
    name = f"daily_{uuid4().hex}"
    collection = client[name]["daily_counts"]
    yield Place(MongoDailyCounts(collection, SystemClock()), SystemClock(), collection)
    await client.drop_database(name)
    await client.close()


def most(limit: int | None) -> DailyLimit:
    return lambda _: limit


async def test_no_more_are_granted_than_the_day_leaves(place: Place) -> None:
    assert [(await place.counts.take("a", 4, most(10))).granted for _ in range(4)] == [4, 4, 2, 0]
    assert (await place.counts.used(["a"]))["a"].used == 10


async def test_what_is_exempt_counts_and_is_always_granted(place: Place) -> None:
    await place.counts.take("a", 9, most(10))
    assert (await place.counts.take("a", 5, most(10), exempt=True)).granted == 5
    assert (await place.counts.used(["a"]))["a"].used == 14
    assert (await place.counts.take("a", 1, most(10))).granted == 0


async def test_what_is_given_back_may_be_taken_again(place: Place) -> None:
    count = await place.counts.take("a", 10, most(10))
    await place.counts.give_back("a", count.day, 3)
    assert (await place.counts.take("a", 10, most(10))).granted == 3


async def test_no_more_is_given_back_than_was_counted(place: Place) -> None:
    count = await place.counts.take("a", 2, most(10))
    await place.counts.give_back("a", count.day, 5)
    await place.counts.give_back("b", count.day, 5)
    assert (await place.counts.take("a", 20, most(10))).granted == 10
    assert (await place.counts.take("b", 20, most(10))).granted == 10


async def test_a_new_day_begins_with_nothing_used_and_takes_back_nothing_of_the_day_before(place: Place) -> None:
    count = await place.counts.take("a", 10, most(10))
    await place.end_the_day("a")
    assert (await place.counts.used(["a"]))["a"].used == 0
    today = await place.counts.take("a", 6, most(10))
    assert today.granted == 6
    former = today.day + YESTERDAY
    assert count.day in (former, today.day)
    await place.counts.give_back("a", former, 6)
    assert (await place.counts.take("a", 10, most(10))).granted == 4


async def test_a_day_that_is_ahead_of_the_clock_is_not_begun_anew(place: Place) -> None:
    """A server that takes over with a clock that is behind, at midnight."""
    await place.counts.take("a", 10, most(10))
    if place.collection is None:
        assert isinstance(place.clock, FakeClock)
        place.clock.jump(-86_400)
    else:
        await place.end_the_day("a", timedelta(days=1))
    assert (await place.counts.take("a", 1, most(10))).granted == 0


async def test_the_limit_is_that_of_the_store_s_day_whatever_a_process_s_clock_says(place: Place) -> None:
    today = (await place.counts.take("a", 1, most(None))).day

    def grows(day: date) -> int | None:
        return 7 + 10 * (day - today).days

    assert (await place.counts.take("b", 50, grows)).granted == 7
    if place.collection is not None:
        for days, granted in ((-1, 7), (1, 7), (5, 0)):
            counts = MongoDailyCounts(place.collection, FakeClock(place.clock.now() + timedelta(days=days)))
            assert (await counts.take(f"c{days}", 50, grows)).granted == granted


async def test_without_a_limit_all_are_granted(place: Place) -> None:
    assert (await place.counts.take("a", 1_000_000, most(None))).granted == 1_000_000


async def test_it_says_when_the_next_day_begins(place: Place) -> None:
    before = until_next_day(place.clock.now())
    count = await place.counts.take("a", 1, most(1))
    after = until_next_day(place.clock.now())
    assert after - 1 <= count.next_day <= before + 1, "the clocks of this machine and of its MongoDB are one"


async def test_many_at_once_are_granted_the_limit_and_no_more(place: Place) -> None:
    async def takes() -> int:
        return sum([(await place.counts.take("a", 3, most(100))).granted for _ in range(10)])

    assert sum(await asyncio.gather(*(takes() for _ in range(8)))) == 100


async def test_keys_are_apart_and_one_that_was_never_counted_has_used_nothing(place: Place) -> None:
    await place.counts.take("a", 10, most(10))
    assert (await place.counts.take("b", 10, most(10))).granted == 10
    used = await place.counts.used(["a", "c"])
    assert (used["a"].used, used["c"].used) == (10, 0)
