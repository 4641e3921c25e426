"""What every place of releases promises: one suite, run on memory and on a real MongoDB."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from services.kit.kafka.records import Partition, Record
from services.kit.mongo import connect
from services.kit.releases import Bound, BreakerReport, Release, digest, runs_of
from services.kit.releases_mongo import FRESH_SECONDS, MongoReleases
from services.kit.testing.releases import MemoryReleases

NOW = datetime(2026, 11, 24, 10, 25, tzinfo=UTC)
Place = MemoryReleases | MongoReleases


@pytest.fixture(params=["memory", "mongo"])
async def releases(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    if request.param == "memory":
        yield MemoryReleases()
        return
    client = connect(request.getfixturevalue("mongo_url"))
    name = f"test_releases_{uuid4().hex[:8]}"
    try:
        mongo = MongoReleases(client[name])
        await mongo.ensure_indexes()
        yield mongo
    finally:
        await client.drop_database(name)
        await client.close()


def order(number: int = 1, consumer: str = "intake", *bounds: Bound) -> Release:
    return Release(f"r{number}", consumer, "discard", "wrong producer", "operator:ann", NOW, bounds or (bound(0),))


def bound(partition: int, first: int = 0, until: int = 1000) -> Bound:
    return Bound("t", partition, first, until)


def records(offsets: Iterable[int], partition: int = 0) -> list[Record]:
    return [Record("t", partition, n, 17, b"key %d" % n, b"value %d" % n, (("h", None),)) for n in offsets]


async def test_orders_are_in_force_until_their_consumer_is_past_every_bound(releases: Place) -> None:
    one, two = order(1, "intake", bound(0), bound(1)), replace(order(2), source="/crm", action="park")
    for each in (two, one, order(3, "settler"), replace(one, reason="given twice")):
        await releases.order(each)
    assert list(await releases.in_force("intake")) == [one, two]
    await releases.passed("r1", [Partition("t", 1)], NOW)
    assert (await releases.in_force("intake"))[0] == replace(one, passed=frozenset({Partition("t", 1)}))
    await releases.passed("r1", [Partition("t", 0), Partition("t", 1)], NOW)
    await releases.passed("r1", [Partition("t", 0)], NOW + timedelta(seconds=9))
    assert list(await releases.in_force("intake")) == [two]
    closed = await releases.show("r1")
    assert closed == replace(one, passed=frozenset({Partition("t", 0), Partition("t", 1)}), closed_at=NOW)


async def test_a_range_says_what_was_discarded_and_why(releases: Place) -> None:
    gone = records([5, 6, 8])
    assert await releases.discard(order(), gone, NOW) == 3
    assert await releases.discard(order(), records([5], partition=1), NOW) == 1
    first, other = await releases.ranges("r1")
    assert (first.runs, first.count, first.size, first.sha256) == (((5, 6), (8, 8)), 3, 21, digest(gone))
    assert (first.release, first.reason, first.by, first.at) == ("r1", "wrong producer", "operator:ann", NOW)
    assert (first.number, other.number, other.partition) == (1, 1, 1)


async def test_what_is_discarded_again_in_other_portions_is_not_counted_again(releases: Place) -> None:
    assert await releases.discard(order(), records([*range(10, 20), 25]), NOW) == 11
    assert await releases.discard(order(), records(range(10, 20)), NOW) == 0
    assert await releases.discard(order(2), records(range(5, 30)), NOW) == 14
    assert await releases.discard(order(1, "settler"), records(range(10, 12)), NOW) == 2
    assert [each.runs for each in await releases.ranges("r2")] == [((5, 9), (20, 24), (26, 29))]
    wanted = {0: [4, 5, 19, 30], 1: [5], 2: []}
    assert await releases.discarded("intake", "t", wanted) == {(0, 5), (0, 19)}
    assert await releases.discarded("intake", "other", wanted) == set()
    assert await releases.any_from("intake", "t", {0: 29, 1: 0})
    assert not await releases.any_from("intake", "t", {0: 30, 1: 0})
    assert not await releases.any_from("intake", "t", {})
    assert not await releases.any_from("intake", "other", {0: 0})
    assert not await releases.any_from("other", "t", {0: 0})


async def test_processes_that_discard_at_the_same_time_count_each_record_once(releases: Place) -> None:
    found = await asyncio.gather(*(releases.discard(order(), records(range(n, n + 50)), NOW) for n in range(0, 30, 10)))
    ranges = await releases.ranges("r1")
    assert sum(found) == sum(each.count for each in ranges) == 70
    assert [each.number for each in ranges] == list(range(1, len(ranges) + 1))


async def test_a_breaker_is_seen_until_it_is_withdrawn(releases: Place) -> None:
    one = BreakerReport("intake", "host:1", "open", ("t",), NOW, NOW, "t", 3, 17, "unknownType", "/crm")
    two = BreakerReport("intake", "host:2", "halfOpen", ("t",), NOW, NOW)
    for each in (two, one, replace(one, state="halfOpen")):
        await releases.report(each)
    assert list(await releases.breakers(NOW)) == [replace(one, state="halfOpen"), two]
    await releases.withdraw("intake", "host:1")
    await releases.withdraw("intake", "host:9")
    assert list(await releases.breakers(NOW)) == [two]
    if isinstance(releases, MongoReleases):
        later = NOW + timedelta(seconds=FRESH_SECONDS + 1)
        assert await releases.breakers(later) == [], "of a process that died nothing is told"


async def test_totals_count_what_an_order_parked_and_discarded(releases: Place) -> None:
    if not isinstance(releases, MongoReleases):
        pytest.skip("of operators alone")
    await releases.discard(order(), records(range(30)), NOW)
    await releases._parked.insert_many([{"release": "r1"}, {"release": "r1"}, {"release": None}, {}])
    assert await releases.totals("r1") == (2, 30)
    assert await releases.totals("r9") == (0, 0)


def test_the_hash_tells_any_two_records_apart() -> None:
    one = Record("t", 0, 7, 0, b"ab", b"c", (("h", b"x"),))
    others = [
        replace(one, offset=8),
        replace(one, key=b"a", value=b"bc"),
        replace(one, key=None),
        replace(one, value=None),
        replace(one, value=b""),
        replace(one, headers=()),
        replace(one, headers=(("h", None),)),
        replace(one, headers=(("hx", b""),)),
    ]
    assert len({digest([each]) for each in (one, *others)}) == 9
    assert digest([one, replace(one, offset=8)]) != digest([replace(one, offset=8), one])
    assert runs_of([]) == ()
