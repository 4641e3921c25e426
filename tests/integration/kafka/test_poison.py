"""Records that nobody expects: what arrives as it is, and what cannot be read at all."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial

import pytest
from aiokafka import TopicPartition

from services.kit.errors import PermanentError
from services.kit.kafka import reading
from services.kit.kafka.broker import LARGEST_RECORD_BYTES
from services.kit.kafka.codec import decode
from services.kit.kafka.consumer_loop import DONE, ConsumerLoop, Outcome, Record
from services.kit.kafka.records import Partition
from services.kit.kafka.stepping_over import fetch_batch, standing, step_over_order, why_unreadable
from services.kit.testing.parking import MemoryParkingLot
from tests.integration.kafka.harness import Cluster, Judge, Ledger, new_group, new_loop, running, until


def blocked(loop: ConsumerLoop) -> bool:
    return any(partition.blocked for partition in loop.health().partitions)


async def test_odd_records_arrive_as_they_are(cluster: Cluster) -> None:
    topic, seen = await cluster.topic(1), list[Record]()

    async def handler(records: Sequence[Record]) -> Sequence[Outcome]:
        seen.extend(records)
        return [DONE] * len(records)

    large = b"x" * (LARGEST_RECORD_BYTES - 200)
    headers: list[tuple[str, bytes | None]] = [("a", None), ("b", b"\xff\xfe"), ("", b""), ("ä", b"x"), ("a", b"2")]
    await cluster.put(topic, 0, b"plain", key=b"k")
    await cluster.put(topic, 0, None, key=b"k")
    await cluster.put(topic, 0, b"no key", key=None)
    await cluster.put(topic, 0, b"", key=b"")
    await cluster.put(topic, 0, None, key=None)
    await cluster.put(topic, 0, b"headers", key=b"\xff", headers=headers)
    await cluster.put(topic, 0, large, key=b"k")
    async with running(new_loop(cluster, new_group(), [topic], handler)):
        await until(lambda: len(seen) == 7)
    assert [(record.key, record.value) for record in seen] == [
        (b"k", b"plain"),
        (b"k", None),
        (None, b"no key"),
        (b"", b""),
        (None, None),
        (b"\xff", b"headers"),
        (b"k", large),
    ]
    assert seen[5].headers == tuple(headers)
    assert seen[5].header("a") == b"2"
    assert seen[5].header("absent") is None


async def test_bad_events_are_parked_each_with_its_reason(cluster: Cluster) -> None:
    topic, lot, ledger = await cluster.topic(1), MemoryParkingLot(), Ledger()
    await cluster.put(topic, 0, b"{", None, b"[]", b"[" * 50_000, b"{}", b'"' + b"x" * 900_000 + b'"')

    async def handler(records: Sequence[Record]) -> Sequence[Outcome]:
        for record in records:
            decode(record)
        return await ledger.handler(records)

    group = new_group()
    async with running(new_loop(cluster, group, [topic], handler, lot)):
        await cluster.await_committed(group, topic)
    reasons = {one.offset: one.reason for one in lot.all()}
    assert reasons == {
        0: "notJson",
        1: "nullValue",
        2: "notAnObject",
        3: "tooDeep",
        4: "invalid",
        5: "notAnObject",
    }
    assert all(one.kind == "poison" for one in lot.all())
    assert ledger.handled == 0


async def test_an_unreadable_batch_blocks_only_its_partition_until_an_operator_steps_over_it(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "UNREADABLE_PAUSE", 0.5)
    topic, group, ledger = await cluster.topic(3), new_group(), Ledger()
    for partition in range(3):
        await cluster.put(topic, partition, *[b"%d" % n for n in range(30)])
    await cluster.put_unreadable(topic, 1, readable_before=4)  # offsets 30 to 34; the last cannot be read
    await cluster.put(topic, 1, b"after", b"after", key=None)
    loop = new_loop(cluster, group, [topic], ledger.handler, batch=20)
    async with Judge(cluster, group, lambda: {*ledger.counts, (topic, 1, 34)}).watching(), running(loop):
        await until(lambda: ledger.handled == 94, what="all that is readable, the four before it in its batch too")
        await until(partial(blocked, loop))
        assert [r for r in loop.health().reasons if "blocked" in r] == [
            f"{topic}/1 is blocked: UnicodeDecodeError at offset 34"
        ]
        assert loop.health().live
        assert not loop.health().healthy
        await cluster.put(topic, 0, b"30")
        await cluster.put(topic, 2, b"30")
        await until(lambda: ledger.handled == 96, what="others flow while one is blocked")
        await cluster.await_position(group, TopicPartition(topic, 1), 34)
        with pytest.raises(ValueError, match="not blocked"):
            loop.skip(topic, 0, 99)
        with pytest.raises(ValueError, match="not assigned"):
            loop.skip(topic, 77, 1)
        loop.skip(topic, 1, 35)
        await until(lambda: ledger.handled == 98)
        await until(lambda: loop.health().healthy)
        await cluster.await_committed(group, topic)
    assert (topic, 1, 34) not in ledger.counts
    assert set(ledger.counts.values()) == {1}


async def test_what_an_operator_parked_is_stepped_over_to_the_end_of_its_batch(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "UNREADABLE_PAUSE", 0.5)
    topic, group, ledger, lot = await cluster.topic(1), new_group(), Ledger(), MemoryParkingLot()
    where = Partition(topic, 0)
    await cluster.put(topic, 0, b"before")
    await cluster.put_unreadable(topic, 0, readable_before=2, readable_after=2)  # offsets 1 to 5; 3 is the bad one
    await cluster.put(topic, 0, b"after")
    assert await standing(cluster.bootstrap, group, where) == 0
    loop = new_loop(cluster, group, [topic], ledger.handler, lot)
    async with running(loop):
        await until(partial(blocked, loop))
        assert ledger.handled == 3
        await until(lambda: loop.health().partitions[0].position == 3)
        await cluster.await_position(group, TopicPartition(topic, 0), 3)
        assert await standing(cluster.bootstrap, group, where) == 3
        batch = await fetch_batch(cluster.bootstrap, where, 3)
        assert (batch.first, batch.last) == (1, 5)
        assert batch.raw.count(b"fine") == 4
        assert await why_unreadable(cluster.bootstrap, where, 3) == "UnicodeDecodeError"
        assert await why_unreadable(cluster.bootstrap, where, 0) == ""
        assert await why_unreadable(cluster.bootstrap, where, 6) == ""
        with pytest.raises(PermanentError, match="nothing at offset"):
            await fetch_batch(cluster.bootstrap, where, 7)
        await lot.park([step_over_order(group, where, 2, batch, "operator:test", datetime.now(UTC))])
        await asyncio.sleep(1)  # it looks for such a word every half second
        assert blocked(loop), "that was a word on another offset"
        order = step_over_order(group, where, 3, batch, "operator:test", datetime.now(UTC))
        await lot.park([order])
        await until(lambda: ledger.handled == 4)
        await until(lambda: loop.health().healthy)
        await cluster.await_committed(group, topic)
    assert set(ledger.counts) == {(topic, 0, 0), (topic, 0, 1), (topic, 0, 2), (topic, 0, 6)}
    kept = await lot.show(order.id)
    assert kept is not None
    assert (kept.reason, kept.raw) == ("skippedByOperator", batch.raw)


async def test_a_blocked_partition_stays_blocked_for_the_next_member_too(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "UNREADABLE_PAUSE", 0.2)
    topic, group, ledger = await cluster.topic(1), new_group(), Ledger()
    await cluster.put(topic, 0, b"0")
    await cluster.put_unreadable(topic, 0)
    await cluster.put(topic, 0, b"2")
    for _ in range(2):
        loop = new_loop(cluster, group, [topic], ledger.handler)
        async with running(loop):
            await until(partial(blocked, loop))
        await cluster.await_position(group, TopicPartition(topic, 0), 1)
    assert set(ledger.counts) == {(topic, 0, 0)}
