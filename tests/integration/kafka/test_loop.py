"""The consumer loop on a real broker: one member, handlers of every sort."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import RecordsToDelete

from services.kit.breaker import Breaker
from services.kit.clock import SystemClock
from services.kit.errors import TransientError, Unavailable
from services.kit.kafka.consumer_loop import DONE, Outcome, Park, Record, Retry
from services.kit.testing.parking import MemoryParkingLot
from tests.integration.kafka.harness import (
    HANG,
    SHORT,
    Cluster,
    Judge,
    Ledger,
    Origin,
    new_group,
    new_loop,
    running,
    until,
)


async def test_a_new_group_begins_at_the_beginning_and_goes_on_where_it_stood(cluster: Cluster) -> None:
    topic, group, ledger = await cluster.topic(), new_group(), Ledger()
    await cluster.fill(topic, 500)
    loop = new_loop(cluster, group, [topic], ledger.handler)
    async with running(loop):
        await until(lambda: ledger.handled == 500)
        await until(lambda: loop.health().healthy)
        assert loop.health().caught_up
        assert loop.health().lag == 0
    assert await cluster.all_committed(group, topic)
    await cluster.fill(topic, 100, start=500)
    async with running(new_loop(cluster, group, [topic], ledger.handler)):
        await until(lambda: ledger.handled == 600)
    assert set(ledger.counts.values()) == {1}, "nothing twice without a reason"
    assert ledger.keys_in_order()


async def test_commits_keep_their_distance_and_none_is_missing_at_the_end(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, group, ledger, commits = await cluster.topic(1), new_group(), Ledger(), 0
    await cluster.fill(topic, 400)
    plain = AIOKafkaConsumer.commit

    async def counted(self: AIOKafkaConsumer, offsets: dict[TopicPartition, int]) -> None:
        nonlocal commits
        commits += 1
        await plain(self, offsets)

    monkeypatch.setattr(AIOKafkaConsumer, "commit", counted)
    limits = replace(SHORT, commit_spacing=60.0)
    async with running(new_loop(cluster, group, [topic], ledger.handler, batch=10, limits=limits)):
        await until(lambda: ledger.handled == 400)
        assert commits == 1, "forty batches, and one commit so far"
        assert not await cluster.all_committed(group, topic)
    assert await cluster.all_committed(group, topic), "whoever stops commits what it has handled"
    async with running(new_loop(cluster, group, [topic], ledger.handler, limits=replace(SHORT, commit_spacing=0.2))):
        await cluster.fill(topic, 1, start=400)
        await cluster.await_committed(group, topic)  # with nothing else to do, too
    assert set(ledger.counts.values()) == {1}


async def test_a_storm_of_retries_skips_nothing_repeats_nothing_and_keeps_the_order(cluster: Cluster) -> None:
    topic, group, ledger, chance = await cluster.topic(), new_group(), Ledger(), random.Random(7)
    await cluster.fill(topic, 1500, keys=40)

    async def handler(records: Sequence[Record]) -> Sequence[Outcome]:
        if chance.random() < 0.1:
            raise TransientError("the whole batch")
        held: set[tuple[int, bytes | None]] = set()
        outcomes: list[Outcome] = []
        for record in records:
            key = (record.partition, record.key)
            if key in held or chance.random() < 0.05:
                held.add(key)
                outcomes.append(Retry(TransientError("this one")))
            else:
                ledger.note([record])
                outcomes.append(DONE)
        return outcomes

    judge = Judge(cluster, group, lambda: ledger.counts)
    async with judge.watching(), running(new_loop(cluster, group, [topic], handler)):
        await until(lambda: ledger.handled == 1500)
        await cluster.await_committed(group, topic)
    assert set(ledger.counts.values()) == {1}
    assert ledger.keys_in_order()
    assert judge.looks > 5


async def test_bugs_are_parked_alone_and_the_rest_flows(cluster: Cluster) -> None:
    topic, group, ledger, lot = await cluster.topic(), new_group(), Ledger(), MemoryParkingLot()
    await cluster.fill(topic, 400)
    bad = {b"17", b"170", b"171"}

    async def handler(records: Sequence[Record]) -> Sequence[Outcome]:
        for record in records:
            if record.value in bad:
                raise KeyError(record.value)
        return await ledger.handler(records)

    def settled() -> set[Origin]:
        return set(ledger.counts) | {one.record.origin for one in lot.all()}

    async with (
        Judge(cluster, group, settled).watching(),
        running(new_loop(cluster, group, [topic], handler, lot)),
    ):
        await until(lambda: len(settled()) == 400)
        await cluster.await_committed(group, topic)
    assert {one.raw for one in lot.all()} == bad
    assert all("KeyError" in one.stack and one.consumer == group for one in lot.all())
    assert not bad & {b"%d" % n for n in range(400) if n not in (17, 170, 171)}
    assert ledger.handled == 397


async def test_what_cannot_be_parked_stays_until_it_can(cluster: Cluster) -> None:
    topic, group, ledger, lot = await cluster.topic(1), new_group(), Ledger(), MemoryParkingLot()
    await cluster.fill(topic, 50)
    lot.away = True

    async def handler(records: Sequence[Record]) -> Sequence[Outcome]:
        ledger.note(record for record in records if record.offset != 20)
        return [Park("bad", "poison") if record.offset == 20 else DONE for record in records]

    loop = new_loop(cluster, group, [topic], handler, lot)
    async with running(loop):
        await until(lambda: ledger.handled == 49)
        await until(lambda: any("offset 20" in p.waiting for p in loop.health().partitions))
        assert (await cluster.committed(group))[TopicPartition(topic, 0)] <= 20
        lot.away = False
        await cluster.await_committed(group, topic)
    assert [one.offset for one in lot.all()] == [20]


async def test_a_flood_opens_the_breaker_and_nothing_is_committed_past_it(cluster: Cluster) -> None:
    topic, group, ledger, lot = await cluster.topic(2), new_group(), Ledger(), MemoryParkingLot()
    await cluster.fill(topic, 300)
    broken = True

    async def handler(records: Sequence[Record]) -> Sequence[Outcome]:
        if broken:
            raise AttributeError("a bad release")
        return await ledger.handler(records)

    breaker = Breaker(5, 60.0, SystemClock(), cooldown=1.0)
    loop = new_loop(cluster, group, [topic], handler, lot, breaker=breaker)

    def settled() -> set[Origin]:
        return set(ledger.counts) | {one.record.origin for one in lot.all()}

    async with Judge(cluster, group, settled).watching(), running(loop):
        await until(lambda: loop.health().breaker == "open")
        assert any("breaker" in reason for reason in loop.health().reasons)
        assert loop.health().live
        await until(lambda: loop.health().breaker == "halfOpen")
        await until(lambda: loop.health().breaker == "open", what="half open, one more failure opens it again")
        assert len(lot.all()) == 5
        broken = False
        breaker.reset()
        await cluster.await_committed(group, topic)
        await until(lambda: loop.health().healthy)
    assert len(lot.all()) == 5
    assert len(settled()) == 300


async def test_a_breaker_closes_by_itself_when_the_cause_is_gone(cluster: Cluster) -> None:
    topic, group, ledger = await cluster.topic(2), new_group(), Ledger()
    await cluster.fill(topic, 100)
    broken = True

    async def handler(records: Sequence[Record]) -> Sequence[Outcome]:
        if broken:
            raise AttributeError("a bad release")
        return await ledger.handler(records)

    loop = new_loop(cluster, group, [topic], handler, breaker=Breaker(0, 60.0, SystemClock(), cooldown=0.5))
    async with running(loop):
        await until(lambda: loop.health().breaker == "open")
        broken = False
        await until(lambda: ledger.handled == 100)
        assert loop.health().breaker == "closed"


async def test_a_hanging_record_holds_only_its_partition(cluster: Cluster) -> None:
    topic, group, ledger = await cluster.topic(3), new_group(), Ledger()
    await cluster.put(topic, 0, *[b"%d" % n for n in range(5)], key=None)
    await cluster.put(topic, 1, b"0", b"hang", b"2", key=None)
    await cluster.put(topic, 2, *[b"%d" % n for n in range(5)], key=None)

    async def handler(records: Sequence[Record]) -> Sequence[Outcome]:
        if any(record.value == b"hang" for record in records):
            await asyncio.Event().wait()
        return await ledger.handler(records)

    loop = new_loop(cluster, group, [topic], handler, batch=8, runner_options={"attempt_seconds": 0.2})
    async with running(loop):
        await until(lambda: ledger.handled == 11)
        await until(lambda: any("gave up" in p.waiting for p in loop.health().partitions))
        await cluster.put(topic, 0, b"5", key=None)
        await until(lambda: ledger.handled == 12, what="others go on while it hangs")


async def test_stop_lets_the_batch_end_and_commits_it(cluster: Cluster) -> None:
    topic, group, ledger, started = await cluster.topic(1), new_group(), Ledger(), asyncio.Event()
    await cluster.fill(topic, 20)

    async def handler(records: Sequence[Record]) -> Sequence[Outcome]:
        started.set()
        await asyncio.sleep(0.7)
        return await ledger.handler(records)

    loop = new_loop(cluster, group, [topic], handler)
    async with running(loop):
        await started.wait()
        await loop.stop(timeout=HANG)
    assert ledger.handled > 0
    assert (await cluster.committed(group))[TopicPartition(topic, 0)] == ledger.handled
    assert not loop.health().live


async def test_stop_cancels_a_batch_that_does_not_end(cluster: Cluster) -> None:
    topic, group, started = await cluster.topic(1), new_group(), asyncio.Event()
    await cluster.fill(topic, 5)

    async def handler(records: Sequence[Record]) -> Sequence[Outcome]:
        started.set()
        await asyncio.Event().wait()
        return []

    loop = new_loop(cluster, group, [topic], handler)
    await loop.start()
    await started.wait()
    async with asyncio.timeout(HANG):
        await loop.stop(timeout=0.5)
    assert (await cluster.committed(group)).get(TopicPartition(topic, 0), 0) == 0


async def test_a_stalled_partition_says_why(cluster: Cluster) -> None:
    topic, group = await cluster.topic(1), new_group()
    await cluster.fill(topic, 3)

    async def handler(records: Sequence[Record]) -> Sequence[Outcome]:
        raise Unavailable("MongoDB", "no primary answers")

    loop = new_loop(cluster, group, [topic], handler)
    async with running(loop):
        await until(lambda: any(p.waiting for p in loop.health().partitions))
        (partition,) = loop.health().partitions
        assert partition.waiting == "offset 0: Unavailable: MongoDB: no primary answers"
        assert partition.lag == 3
        assert not loop.health().caught_up
        assert loop.health().live


async def test_records_deleted_before_they_were_handled_are_counted_and_told(cluster: Cluster) -> None:
    topic, group, ledger = await cluster.topic(1), new_group(), Ledger()
    await cluster.fill(topic, 10)
    async with running(new_loop(cluster, group, [topic], ledger.handler)):
        await until(lambda: ledger.handled == 10)
    await cluster.fill(topic, 10)
    async with cluster.admin() as admin:
        await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(before_offset=15)})
    loop = new_loop(cluster, group, [topic], ledger.handler)
    async with running(loop):
        await until(lambda: ledger.handled == 15)
        lost = loop._metrics.registry.get_sample_value("mailroom_records_lost_total", {"group": group, "topic": topic})
        assert lost == 5
    assert sorted(offset for _, _, offset in ledger.counts) == [*range(10), *range(15, 20)]


async def test_a_topic_that_does_not_exist_is_no_reason_to_die(cluster: Cluster) -> None:
    ledger = Ledger()
    loop = new_loop(cluster, new_group(), ["t-absent"], ledger.handler, limits=replace(SHORT, start=1.0))
    async with running(loop):
        await until(lambda: loop._trouble != "")
        assert loop.health().live
        assert not loop.health().healthy
