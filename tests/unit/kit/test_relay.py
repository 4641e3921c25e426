"""Publishing from streams: exact strings, in order, with the relay behind it."""

import asyncio
import json
from collections.abc import Sequence
from datetime import timedelta

import pytest

from contracts.email.events import EmailCancelled
from services.kit.clock import SystemIds
from services.kit.errors import ExpectedVersionConflict, PermanentError, Unavailable
from services.kit.event_store.memory import MemoryEventStore
from services.kit.event_store.port import Append, Draft, Stream, StreamIndex, confirmed, stamp
from services.kit.event_store.relay import PATIENCE, Relay, StreamPublisher, outgoing
from services.kit.health import Progress
from services.kit.kafka.publisher import Outgoing
from services.kit.metrics import RELAY_BACKLOG, RELAYED, UNPUBLISHABLE, Metrics
from services.kit.testing.clock import FakeClock
from services.kit.testing.publisher import MemoryPublisher

TOO_BIG = "x" * 1_100_000


class SlowPublisher(MemoryPublisher):
    """Lets other tasks run before it acknowledges, and keeps how many records each call had."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []

    async def publish(self, items: Sequence[Outgoing]) -> list[Exception | None]:
        self.calls.append(len(items))
        for _ in range(3):
            await asyncio.sleep(0)
        return await super().publish(items)


class Bench:
    def __init__(self, batch: int = 200) -> None:
        self.clock = FakeClock()
        self.store = MemoryEventStore(self.clock)
        self.kafka = SlowPublisher()
        self.metrics = Metrics()
        self.publisher = StreamPublisher(self.store, self.kafka)
        self.progress = Progress(self.clock)
        self.relay = Relay(
            self.store,
            StreamPublisher(self.store, self.kafka),
            clock=self.clock,
            progress=self.progress,
            metrics=self.metrics,
            batch=batch,
        )

    async def grow(self, name: str, count: int = 1, reason: str = "r", traceparent: str | None = None) -> Stream:
        stream = await self.store.load(name)
        events = stamp(
            stream,
            [Draft(EmailCancelled(reason=reason))] * count,
            now=self.clock.now(),
            new_id=SystemIds().new,
            source="test",
            correlation="c",
            traceparent=traceparent,
        )
        return confirmed(await self.store.append(Append(stream, events, StreamIndex())))

    def log(self, name: str) -> list[int]:
        """Versions of a stream's events in the order published."""
        return [json.loads(item.value)["streamversion"] for item in self.kafka.published if item.key == name.encode()]


async def test_what_is_published_is_the_stored_string() -> None:
    bench = Bench()
    stream = await bench.grow("m1", reason="Grüße", traceparent="00-1-2-01")
    await bench.publisher.publish([stream])
    (record,) = bench.kafka.published
    assert record.value == stream.wire[0].encode() == stream.events[0].to_bytes()
    assert (record.topic, record.key) == ("email.events", b"m1")
    assert dict(record.headers) == {"content-type": b"application/cloudevents+json", "traceparent": b"00-1-2-01"}


async def test_a_batch_goes_out_in_rounds_and_is_marked() -> None:
    bench = Bench()
    streams = [await bench.grow(f"s{n}", count) for n, count in enumerate((1, 3, 2))]
    result = await bench.publisher.publish(streams)
    assert (result.acknowledged, result.failed) == (6, {})
    assert bench.kafka.calls == [3, 2, 1]
    assert [bench.log(f"s{n}") for n in range(3)] == [[1], [1, 2, 3], [1, 2]]
    assert await bench.store.unpublished(timedelta(0), 10) == []


async def test_append_results_that_are_none_are_skipped() -> None:
    bench = Bench()
    stream = await bench.grow("a")
    await bench.publisher.publish([ExpectedVersionConflict("b", 1), stream, Unavailable("MongoDB", "away")])
    assert bench.log("a") == [1]
    assert (await bench.publisher.publish([])).acknowledged == 0


async def test_a_process_does_not_repeat_itself_with_an_old_view_of_a_stream() -> None:
    bench = Bench()
    one = await bench.grow("a")
    await bench.publisher.publish([one])
    two = await bench.grow("a")
    stale = Stream("a", 2, two.wire, 0)
    await bench.publisher.publish([stale, one])
    assert bench.log("a") == [1, 2]
    assert await bench.store.unpublished(timedelta(0), 10) == []


async def test_two_at_once_on_one_stream_keep_order_without_repeating() -> None:
    bench = Bench()
    one = await bench.grow("a")
    first = asyncio.ensure_future(bench.publisher.publish([one]))
    await asyncio.sleep(0)
    two = await bench.grow("a")
    await asyncio.gather(first, bench.publisher.publish([two]))
    assert bench.log("a") == [1, 2]


async def test_after_a_failure_nothing_later_of_that_stream_goes_out() -> None:
    bench = Bench()
    await bench.grow("poison")
    await bench.grow("poison", reason=TOO_BIG)
    poison = await bench.grow("poison")
    fine = await bench.grow("fine", 3)
    result = await bench.publisher.publish([poison, fine])
    assert isinstance(result.failed["poison"], PermanentError)
    assert (bench.log("poison"), bench.log("fine")) == ([1], [1, 2, 3])
    assert (await bench.store.load("poison")).published == 1


async def test_marks_that_fail_are_made_up_for() -> None:
    bench = Bench()
    stream = await bench.grow("a")
    publishing = asyncio.ensure_future(bench.publisher.publish([stream]))
    await asyncio.sleep(0)
    bench.store.away = True
    assert (await publishing).acknowledged == 1
    bench.store.away = False
    await bench.publisher.publish([stream])
    assert bench.log("a") == [1]
    assert (await bench.store.load("a")).published == 1


def test_an_event_of_a_type_without_topic_cannot_be_published() -> None:
    for wire in ('{"type": "email.invented"}', "{}", "no json"):
        with pytest.raises(PermanentError, match="unpublishable"):
            outgoing("a", wire)


class TestRelay:
    async def test_it_leaves_fresh_ones_to_their_writer(self) -> None:
        bench = Bench()
        await bench.grow("a")
        assert await bench.relay.turn() is False
        assert bench.kafka.published == []
        bench.clock.move(PATIENCE.total_seconds())
        await bench.relay.turn()
        assert bench.log("a") == [1]
        assert bench.metrics.value(RELAYED) == 1
        await bench.relay.turn()
        assert bench.metrics.value(RELAY_BACKLOG) == 0

    async def test_it_goes_on_at_once_while_there_is_more(self) -> None:
        bench = Bench(batch=2)
        for n in range(5):
            await bench.grow(f"s{n}")
        bench.clock.move(6)
        assert [await bench.relay.turn() for _ in range(3)] == [True, True, False]
        assert all(bench.log(f"s{n}") == [1] for n in range(5))

    async def test_poison_stands_in_nobodys_way(self) -> None:
        bench = Bench(batch=2)
        for n in range(3):
            await bench.grow(f"poison{n}", reason=TOO_BIG)
        bench.clock.move(1)
        await bench.grow("fine")
        bench.clock.move(6)
        for _ in range(4):
            await bench.relay.turn()
        assert bench.log("fine") == [1]
        assert bench.metrics.value(UNPUBLISHABLE) == 3
        bench.clock.move(700)
        await bench.relay.turn()
        assert bench.metrics.value(UNPUBLISHABLE) == 5  # it is looked at again, and said again

    async def test_while_kafka_is_away_it_waits_and_then_catches_up(self) -> None:
        bench = Bench()
        await bench.grow("a", 2)
        bench.clock.move(6)
        bench.kafka.away = True
        await bench.relay.turn()
        assert not bench.progress.report().ready
        bench.kafka.away = False
        await bench.relay.turn()
        assert bench.progress.report().ready
        assert bench.log("a") == [1, 2]

    async def test_it_runs_until_told_to_stop_also_without_a_store(self) -> None:
        bench = Bench()
        await bench.grow("a")
        bench.clock.move(6)
        bench.store.away = True
        stopping = asyncio.Event()
        running = asyncio.ensure_future(bench.relay.run(stopping))
        for _ in range(50):
            await asyncio.sleep(0)
        assert not bench.progress.report().ready
        bench.store.away = False
        async with asyncio.timeout(5):
            while not bench.kafka.published:  # noqa: ASYNC110  the fake clock does not wait
                await asyncio.sleep(0)
            stopping.set()
            await running


class CountingStore(MemoryEventStore):
    """Keeps what it has marked."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.marks: list[list[tuple[str, int]]] = []

    async def mark_published(self, marks: Sequence[tuple[str, int]]) -> None:
        await super().mark_published(marks)
        self.marks.append(list(marks))


async def test_a_stream_published_twice_before_it_is_marked_is_marked_once() -> None:
    bench = Bench()
    bench.store = store = CountingStore(bench.clock)
    publisher = StreamPublisher(store, bench.kafka)
    await publisher.publish([await bench.grow("a"), await bench.grow("b")], mark=False)
    await publisher.publish([await bench.grow("a")], mark=False)
    assert store.marks == []
    await publisher.mark()
    assert [sorted(marks) for marks in store.marks] == [[("a", 2), ("b", 1)]]
    assert await store.unpublished(timedelta(0), 10) == []


async def test_a_growing_stream_is_marked_when_it_has_been_published_again() -> None:
    bench = Bench()
    bench.store = store = CountingStore(bench.clock)
    publisher = StreamPublisher(store, bench.kafka)
    await publisher.publish([await bench.grow("a"), await bench.grow("b")], mark=False)
    grown = await bench.grow("a")
    await publisher.mark(growing={"a"})
    assert store.marks == [[("b", 1)]]
    await publisher.publish([grown], mark=False)
    await publisher.mark()
    assert store.marks == [[("b", 1)], [("a", 2)]]


async def test_what_could_not_be_marked_is_marked_the_next_time_and_not_published_again() -> None:
    bench = Bench()
    bench.store = store = CountingStore(bench.clock)
    publisher = StreamPublisher(store, bench.kafka)
    stream = await bench.grow("a")
    store.away = True
    assert (await publisher.publish([stream])).acknowledged == 1
    store.away = False
    await publisher.publish([await bench.grow("b")])
    assert [sorted(marks) for marks in store.marks] == [[("a", 1), ("b", 1)]]
    assert (bench.log("a"), bench.log("b")) == ([1], [1])
