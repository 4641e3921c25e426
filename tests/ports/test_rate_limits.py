"""What every store of rate limits promises: one suite, run on memory and on a real MongoDB."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import uuid4

import pytest

from services.kit.errors import Unavailable
from services.kit.mongo import connect
from services.kit.rate import MemoryRateLimits, RateLimits, burst, kept
from services.kit.rate_mongo import MongoRateLimits
from services.kit.testing.clock import FakeClock


@dataclass
class Place:
    limits: RateLimits
    clock: FakeClock | None

    def now(self) -> float:
        return time.monotonic() if self.clock is None else self.clock.monotonic()

    async def wait(self, seconds: float) -> None:
        if self.clock is None:
            await asyncio.sleep(seconds)
        else:
            self.clock.move(seconds)

    async def full(self, per_second: float) -> None:
        """An account `a` whose pots are full."""
        await self.limits.set_limit("a", per_second)
        await self.wait(2 * burst(per_second) / per_second)


@pytest.fixture(params=["memory", "mongo"])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    if request.param == "memory":
        clock = FakeClock()
        yield Place(MemoryRateLimits(clock), clock)
        return
    client = connect(request.getfixturevalue("mongo_url"))
    name = f"rate_{uuid4().hex}"
    yield Place(MongoRateLimits(client[name]["rates"]), None)
    await client.drop_database(name)
    await client.close()


async def test_nothing_is_granted_on_a_guess(place: Place) -> None:
    with pytest.raises(Unavailable, match="no limit is set"):
        await place.limits.draw("a", 1, urgent=True)


async def test_pots_start_empty_and_say_when_to_come_back(place: Place) -> None:
    began = place.now()
    await place.limits.set_limit("a", 50)
    draw = await place.limits.draw("a", 1_000, urgent=False)
    assert draw.granted <= 50 * (place.now() - began) + 1
    assert 0 < draw.wait <= 1 / 45
    assert draw.per_second == 50
    await place.wait(2 * draw.wait + 0.002)
    assert (await place.limits.draw("a", 1, urgent=False)).granted == 1


async def test_full_pots_keep_one_in_ten_for_urgent(place: Place) -> None:
    await place.full(40)
    draw = await place.limits.draw("a", 1_000, urgent=False)
    assert burst(40) - kept(40) - 1 <= draw.granted <= burst(40) + 3  # 3: what the draws themselves may take in time
    assert (await place.limits.draw("a", 1, urgent=True)).granted == 1


async def test_full_pots_keep_one_in_ten_from_urgent(place: Place) -> None:
    await place.full(40)
    await place.limits.draw("a", 1_000, urgent=True)
    assert (await place.limits.draw("a", 1, urgent=False)).granted == 1


@pytest.mark.parametrize("urgent", [True, False])
async def test_one_side_alone_has_the_whole_rate(place: Place, urgent: bool) -> None:
    await place.full(200)
    await place.limits.draw("a", 1_000, urgent=urgent)
    began = drawn = place.now()
    granted, least = 0, 0.0
    while place.now() - began < 1.0:
        await place.wait(0.05)
        asked = place.now()
        granted += (await place.limits.draw("a", 1_000, urgent=urgent)).granted
        least += min(180 * (asked - drawn), 0.9 * burst(200))  # a pot that is full takes no more
        drawn = place.now()
    assert least - 2 <= granted <= 200 * (drawn - began) + burst(200)


async def test_many_at_once_are_never_granted_more_than_the_limit(place: Place) -> None:
    began = place.now()
    await place.limits.set_limit("a", 100)
    granted = 0

    async def draw_often(urgent: bool) -> int:
        mine = 0
        for _ in range(25):
            mine += (await place.limits.draw("a", 7, urgent=urgent)).granted
            await place.wait(0.01)
        return mine

    granted = sum(await asyncio.gather(*(draw_often(n % 3 == 0) for n in range(6))))
    elapsed = place.now() - began
    assert granted <= 100 * elapsed + burst(100)
    if place.clock is not None:  # pots that are full take no more, and a machine may pause
        assert granted >= 0.8 * 100 * elapsed - burst(100)
    assert granted > 0


async def test_a_new_limit_holds_at_once(place: Place) -> None:
    await place.full(40)
    await place.limits.set_limit("a", 0)
    await place.limits.draw("a", 1_000, urgent=False)
    await place.limits.draw("a", 1_000, urgent=True)
    await place.wait(0.1)
    stopped = await place.limits.draw("a", 1, urgent=True)
    assert (stopped.granted, stopped.per_second, stopped.exhausted) == (0, 0, False)
    assert stopped.wait > 0.5
    await place.limits.set_limit("a", 400)
    await place.wait(0.1)
    assert (await place.limits.draw("a", 30, urgent=False)).granted >= 25


async def test_the_24_hours_run_out(place: Place) -> None:
    await place.full(40)
    await place.limits.set_limit("a", 40, day_left=3)
    first = await place.limits.draw("a", 5, urgent=False)
    assert (first.granted, first.exhausted) == (3, True)
    second = await place.limits.draw("a", 5, urgent=True)
    assert (second.granted, second.exhausted) == (0, True)
    await place.limits.set_limit("a", 40, day_left=None)
    assert (await place.limits.draw("a", 1, urgent=True)).granted == 1


async def test_more_sent_than_the_quota_is_no_debt(place: Place) -> None:
    await place.full(40)
    await place.limits.set_limit("a", 40, day_left=-5)
    assert (await place.limits.draw("a", 5, urgent=True)).granted == 0


async def test_accounts_are_apart(place: Place) -> None:
    await place.full(40)
    await place.limits.set_limit("b", 0)
    assert (await place.limits.draw("b", 1, urgent=True)).granted == 0
    assert (await place.limits.draw("a", 1, urgent=True)).granted == 1
