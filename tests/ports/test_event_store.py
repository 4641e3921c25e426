"""What every event store promises: one suite, run on memory and on a real MongoDB."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from contracts.email.events import EmailCancelled
from contracts.envelope import Envelope
from services.kit.clock import SystemIds
from services.kit.errors import ExpectedVersionConflict
from services.kit.event_store.memory import MemoryEventStore
from services.kit.event_store.mongo import MongoEventStore
from services.kit.event_store.port import (
    Append,
    Appended,
    Draft,
    EventStore,
    Lease,
    Stream,
    StreamIndex,
    confirmed,
    stamp,
)
from services.kit.mongo import connect
from services.kit.testing.clock import FakeClock

NOW = datetime(2025, 11, 24, 10, 25, 0, 123456, tzinfo=UTC)  # before any clock here
NO_INDEX = StreamIndex()
SHORT = timedelta(milliseconds=50)
LONG = timedelta(seconds=30)


@dataclass
class Place:
    """A store and its time."""

    store: EventStore
    clock: FakeClock | None

    def now(self) -> datetime:
        return datetime.now(UTC) if self.clock is None else self.clock.now()

    async def wait(self, duration: timedelta) -> None:
        """Let a little more than `duration` pass in the store's time."""
        seconds = duration.total_seconds() + 0.02
        if self.clock is None:
            await asyncio.sleep(seconds)
        else:
            self.clock.move(seconds)

    async def grow(self, stream_id: str, count: int = 1, index: StreamIndex = NO_INDEX) -> Stream:
        """Append `count` events, each by itself."""
        for _ in range(count):
            stream = confirmed(await self.store.append(append_to(await self.store.load(stream_id), index=index)))
        return stream


def events(stream: Stream, *reasons: str, now: datetime = NOW) -> tuple[Envelope, ...]:
    drafts = [Draft(EmailCancelled(reason=reason)) for reason in reasons]
    return stamp(stream, drafts, now=now, new_id=SystemIds().new, source="test", correlation="c1")


def append_to(
    stream: Stream,
    *reasons: str,
    index: StreamIndex = NO_INDEX,
    keep_lease: bool = False,
    lease: Lease | None = None,
) -> Append:
    return Append(stream, events(stream, *(reasons or ("because",))), index, keep_lease, lease)


def due(lane: str, at: datetime = NOW) -> StreamIndex:
    return StreamIndex(due_at=at, lane=lane)


@pytest.fixture(params=["memory", "mongo"])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    if request.param == "memory":
        clock = FakeClock()
        yield Place(MemoryEventStore(clock), clock)
        return
    client = connect(request.getfixturevalue("mongo_url"))
    name = f"store_{uuid4().hex}"
    store = MongoEventStore(client[name]["streams"], lease_margin=timedelta(0))
    await store.prepare()
    yield Place(store, None)
    await client.drop_database(name)
    await client.close()


class TestAppending:
    async def test_an_unknown_stream_is_absent(self, place: Place) -> None:
        stream = await place.store.load("nothing")
        assert (stream.version, stream.events, stream.published, stream.index) == (0, (), 0, NO_INDEX)

    async def test_what_is_read_is_what_was_appended(self, place: Place) -> None:
        index = StreamIndex(due_at=NOW, lane="high", lookup=("p-1", "p-2"), owner_user="u1")
        first = append_to(Stream.absent("m1"), "Grüße", "two", index=index)
        grown = confirmed(await place.store.append(first))
        read = await place.store.load("m1")
        assert read == grown
        assert read.events == first.events == grown.events
        assert read.wire == tuple(event.to_bytes().decode() for event in first.events)
        assert (read.version, read.published, read.index, read.leased_by) == (2, 0, index, None)

    async def test_an_append_goes_after_what_is_there(self, place: Place) -> None:
        one = confirmed(await place.store.append(append_to(Stream.absent("m1"), "one")))
        two = confirmed(await place.store.append(append_to(one, "two")))
        assert [event.data.reason for event in (await place.store.load("m1")).events] == ["one", "two"]  # type: ignore[attr-defined]
        assert [event.streamversion for event in two.events] == [1, 2]

    async def test_the_index_is_replaced_whole(self, place: Place) -> None:
        full = StreamIndex(due_at=NOW, lane="high", lookup=("p-1",), owner_user="u1")
        one = confirmed(await place.store.append(append_to(Stream.absent("m1"), index=full)))
        later = StreamIndex(due_at=NOW + LONG, lane="low", lookup=("p-2", "p-3"), owner_user="u1")
        two = confirmed(await place.store.append(append_to(one, index=later)))
        assert (await place.store.load("m1")).index == two.index == later
        confirmed(await place.store.append(append_to(two)))
        assert (await place.store.load("m1")).index == NO_INDEX
        assert await place.store.find_by_lookup("p-2") is None

    async def test_of_two_on_one_version_one_wins(self, place: Place) -> None:
        for version in (0, 1):
            seen = await place.store.load("m1")
            results = await asyncio.gather(*(place.store.append(append_to(seen, f"{n}")) for n in range(4)))
            assert sum(isinstance(result, Appended) for result in results) == 1
            assert sum(isinstance(result, ExpectedVersionConflict) for result in results) == 3
            assert (await place.store.load("m1")).version == version + 1

    async def test_a_version_that_never_was_is_a_conflict_and_writes_nothing(self, place: Place) -> None:
        ahead = replace(Stream.of("m1", events(Stream.absent("m1"), "one")), published=1)
        assert isinstance(await place.store.append(append_to(ahead)), ExpectedVersionConflict)
        assert (await place.store.load("m1")).version == 0

    async def test_the_same_append_again_is_a_conflict(self, place: Place) -> None:
        same = append_to(Stream.absent("m1"), "one")
        assert isinstance(await place.store.append(same), Appended)
        assert isinstance(await place.store.append(same), ExpectedVersionConflict)

    async def test_each_item_of_a_bulk_has_its_own_result(self, place: Place) -> None:
        stale, stale_new = Stream.absent("old"), Stream.absent("new")
        await place.grow("new")
        current = await place.grow("old", 2)
        one = Stream.of("old", current.events[:1])
        await place.grow("third")
        third = await place.store.load("third")
        appends = [append_to(one), append_to(Stream.absent("a")), append_to(stale_new), append_to(third)]
        results = await place.store.append_many(appends)
        kinds = [ExpectedVersionConflict, Appended, ExpectedVersionConflict, Appended]
        assert [type(result) for result in results] == kinds
        assert [confirmed(results[n]).stream_id for n in (1, 3)] == ["a", "third"]
        versions = {name: s.version for name, s in (await place.store.load_many(["old", "new", "a", "third"])).items()}
        assert versions == {"old": 2, "new": 1, "a": 1, "third": 2}
        assert isinstance(await place.store.append(append_to(stale)), ExpectedVersionConflict)

    async def test_a_stream_named_twice_is_refused(self, place: Place) -> None:
        with pytest.raises(ValueError, match="twice"):
            await place.store.append_many([append_to(Stream.absent("a")), append_to(Stream.absent("a"))])
        assert await place.store.append_many([]) == []

    async def test_load_many_tells_the_absent_ones_too(self, place: Place) -> None:
        await place.grow("a", 2)
        streams = await place.store.load_many(["a", "b"])
        assert {name: stream.version for name, stream in streams.items()} == {"a": 2, "b": 0}
        assert await place.store.load_many([]) == {}

    async def test_any_of_the_lookups_finds_the_stream(self, place: Place) -> None:
        await place.grow("a", index=StreamIndex(lookup=("x", "y")))
        await place.grow("b", index=StreamIndex(lookup=("z",)))
        assert [await place.store.find_by_lookup(value) for value in "xyzw"] == ["a", "a", "b", None]


class TestOutbox:
    async def test_an_appended_stream_is_unpublished_until_marked(self, place: Place) -> None:
        await place.grow("a", 2)
        await place.wait(SHORT)
        assert [s.unpublished for s in await place.store.unpublished(SHORT, 10)] == [
            (await place.store.load("a")).wire,
        ]
        await place.store.mark_published([("a", 2)])
        assert await place.store.unpublished(timedelta(0), 10) == []
        assert (await place.store.load("a")).unpublished == ()

    async def test_a_fresh_one_is_left_to_its_writer(self, place: Place) -> None:
        await place.grow("a")
        assert await place.store.unpublished(LONG, 10) == []

    async def test_a_mark_below_the_version_leaves_it_pending(self, place: Place) -> None:
        await place.grow("a", 3)
        await place.grow("b", 1)
        await place.store.mark_published([("a", 2), ("b", 1)])
        await place.wait(timedelta(0))
        (left,) = await place.store.unpublished(timedelta(0), 10)
        assert (left.stream_id, left.published, len(left.unpublished)) == ("a", 2, 1)

    async def test_a_mark_never_goes_back(self, place: Place) -> None:
        await place.grow("a", 3)
        await place.store.mark_published([("a", 3)])
        await place.store.mark_published([("a", 1), ("unheard-of", 4)])
        assert (await place.store.load("a")).published == 3
        assert await place.store.unpublished(timedelta(0), 10) == []

    async def test_the_oldest_come_first_and_age_counts_from_the_first_append(self, place: Place) -> None:
        for name in ("a", "b", "c"):
            await place.grow(name)
            await place.wait(timedelta(milliseconds=5))
        await place.grow("a")  # younger event, but the stream has been waiting longest
        await place.wait(timedelta(0))
        assert [s.stream_id for s in await place.store.unpublished(timedelta(0), 2)] == ["a", "b"]


class TestLeases:
    async def lease(self, place: Place, owner: str = "me", lanes: str = "high", limit: int = 10) -> list[str]:
        wanted = [(lane, limit) for lane in lanes.split()]
        return [s.stream_id for s in await place.store.lease_due(wanted, owner, LONG, place.now())]

    async def test_only_what_is_due_in_these_lanes_is_leased_earliest_first(self, place: Place) -> None:
        past = place.now() - LONG
        await place.grow("late", index=due("high", past + timedelta(seconds=2)))
        await place.grow("early", index=due("high", past))
        await place.grow("future", index=due("high", place.now() + LONG))
        await place.grow("elsewhere", index=due("low", past))
        await place.grow("never")
        (early, late) = await place.store.lease_due([("high", 10)], "me", LONG, place.now())
        assert (early.stream_id, late.stream_id) == ("early", "late")
        assert early.leased_by == "me"
        assert early.leased_until is not None
        assert early == await place.store.load("early")

    async def test_what_waits_to_be_leased_is_counted_by_lane(self, place: Place) -> None:
        for n in range(3):
            await place.grow(f"s{n}", index=due("high", place.now() - LONG))
        await place.grow("future", index=due("high", place.now() + LONG))
        await place.grow("never")
        assert await place.store.due_counts(("urgent", "high"), place.now()) == {"urgent": 0, "high": 3}
        await place.store.lease_due([("high", 1)], "me", LONG, place.now())
        assert await place.store.due_counts(("high",), place.now()) == {"high": 2}

    async def test_lanes_come_in_the_order_asked_each_up_to_its_limit(self, place: Place) -> None:
        for lane in ("low", "urgent"):
            for n in range(3):
                await place.grow(f"{lane}{n}", index=due(lane, place.now() - LONG + timedelta(seconds=n)))
        got = await place.store.lease_due([("urgent", 2), ("high", 5), ("low", 1)], "me", LONG, place.now())
        assert [stream.stream_id for stream in got] == ["urgent0", "urgent1", "low0"]
        assert await place.store.lease_due([("low", 0)], "me", LONG, place.now()) == []

    async def test_a_leased_stream_is_not_leased_again_until_released(self, place: Place) -> None:
        await place.grow("a", index=due("high"))
        assert await self.lease(place) == ["a"]
        assert await self.lease(place, "other") == []
        await place.store.release(["a"], "other")
        assert await self.lease(place, "other") == []
        await place.store.release(["a"], "me")
        assert await self.lease(place, "other") == ["a"]

    async def test_of_many_at_once_each_stream_goes_to_one(self, place: Place) -> None:
        for n in range(12):
            await place.grow(f"s{n}", index=due("high"))
        got = await asyncio.gather(*(self.lease(place, f"owner{n}", limit=12) for n in range(4)))
        assert sorted(name for names in got for name in names) == sorted(f"s{n}" for n in range(12))

    async def test_an_expired_lease_is_taken_over_and_cannot_be_renewed(self, place: Place) -> None:
        await place.grow("a", index=due("high"))
        await place.store.lease_due([("high", 1)], "me", SHORT, place.now())
        await place.wait(SHORT)
        assert await self.lease(place, "other") == ["a"]
        assert await place.store.renew(["a"], "me", LONG) == set()
        assert (await place.store.load("a")).leased_by == "other"

    async def test_renewing_prolongs(self, place: Place) -> None:
        for name in ("a", "b"):
            await place.grow(name, index=due("high"))
        await place.store.lease_due([("high", 5)], "me", LONG, place.now())
        await place.store.release(["b"], "me")
        before = (await place.store.load("a")).leased_until
        assert await place.store.renew(["a", "b", "unheard-of"], "me", 2 * LONG) == {"a"}
        after = (await place.store.load("a")).leased_until
        assert before is not None
        assert after is not None
        assert after >= before + LONG
        assert await self.lease(place, "other") == ["b"]
        assert await place.store.renew([], "me", LONG) == set()

    async def test_renewing_shortens_a_lease_only_when_told_to(self, place: Place) -> None:
        for name in ("a", "b"):
            await place.grow(name, index=due("high"))
        await place.store.lease_due([("high", 5)], "me", LONG, place.now())
        assert await place.store.renew(["a"], "me", SHORT) == {"a"}
        assert await place.store.renew(["b"], "me", SHORT, shorten=True) == {"b"}
        await place.wait(SHORT)
        assert await self.lease(place, "other") == ["b"]

    async def test_a_long_lease_makes_no_later_one_longer(self, place: Place) -> None:
        for name in ("a", "b"):
            await place.grow(name, index=due("high"))
        await place.store.lease_due([("high", 1)], "me", LONG, place.now())
        await place.store.lease_due([("high", 1)], "me", SHORT, place.now())
        await place.wait(SHORT)
        assert len(await self.lease(place, "other")) == 1

    async def test_an_append_takes_a_lease_with_it(self, place: Place) -> None:
        lease = Lease("me", LONG)
        taken = confirmed(await place.store.append(append_to(Stream.absent("a"), index=due("high"), lease=lease)))
        assert taken.leased_by == "me"
        assert taken == await place.store.load("a")
        assert await self.lease(place, "other") == []
        assert await place.store.renew(["a"], "me", LONG) == {"a"}

    async def test_an_append_keeps_a_lease_or_drops_it(self, place: Place) -> None:
        for name in ("kept", "dropped"):
            await place.grow(name, index=due("high"))
        leased = {s.stream_id: s for s in await place.store.lease_due([("high", 5)], "me", LONG, place.now())}
        kept = confirmed(await place.store.append(append_to(leased["kept"], index=due("high"), keep_lease=True)))
        assert kept == await place.store.load("kept")
        assert kept.leased_by == "me"
        dropped = confirmed(await place.store.append(append_to(leased["dropped"], index=due("high"))))
        assert (dropped.leased_by, dropped.leased_until) == (None, None)
        assert dropped == await place.store.load("dropped")
        assert await self.lease(place, "other") == ["dropped"]

    async def test_an_append_by_another_writer_leaves_the_lease(self, place: Place) -> None:
        await place.grow("a", index=due("high"))
        unleased = await place.store.load("a")
        assert await self.lease(place) == ["a"]
        confirmed(await place.store.append(append_to(unleased, index=due("high"), keep_lease=True)))
        assert (await place.store.load("a")).leased_by == "me"

    async def test_a_stream_that_waits_for_nothing_is_not_due(self, place: Place) -> None:
        one = await place.grow("a", index=due("high"))
        confirmed(await place.store.append(append_to(one)))
        assert await self.lease(place, lanes="high low") == []


async def test_streams_are_listed_by_look_up_page_by_page(place: Place) -> None:
    prefix = uuid4().hex
    for name in ("c", "a", "b"):
        await place.grow(f"{prefix}-{name}", index=StreamIndex(lookup=(prefix,)))
    await place.grow(f"{prefix}-other")
    first = await place.store.list_by_lookup(prefix, None, 2)
    rest = await place.store.list_by_lookup(prefix, first[-1].stream_id, 2)
    assert [stream.stream_id[-1] for stream in (*first, *rest)] == ["a", "b", "c"]
