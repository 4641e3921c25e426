"""Members that join and leave under load, politely and not."""

import asyncio
import random
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest
from aiokafka import TopicPartition

from services.kit.kafka.consumer_loop import DONE, ConsumerLoop, Outcome, Record
from tests.integration.kafka.harness import SHORT, Cluster, Judge, Ledger, new_group, new_loop, running, until


async def test_partitions_are_shared_and_a_polite_rebalance_repeats_nothing(cluster: Cluster) -> None:
    topic, group, ledger = await cluster.topic(6), new_group(), Ledger()
    await cluster.fill(topic, 600)

    async def handler(records: Sequence[Record]) -> Sequence[Outcome]:
        await asyncio.sleep(0.05)  # so that a batch is in work whenever a rebalance comes
        return await ledger.handler(records)

    first = new_loop(cluster, group, [topic], handler, batch=20)
    second = new_loop(cluster, group, [topic], handler, batch=20)
    async with Judge(cluster, group, lambda: ledger.counts).watching(), running(first):
        await until(lambda: ledger.handled > 50)
        async with running(second):
            await until(lambda: len(first.health().partitions) == len(second.health().partitions) == 3)
            await cluster.fill(topic, 300, start=600)
            await until(lambda: ledger.handled == 900)
        await until(lambda: len(first.health().partitions) == 6)
        await cluster.fill(topic, 100, start=900)
        await until(lambda: ledger.handled == 1000)
        await cluster.await_committed(group, topic)
    assert set(ledger.counts.values()) == {1}, "batches in work end and commit before their partitions go"
    assert ledger.keys_in_order()


async def test_a_batch_that_outlasts_the_drain_does_not_commit_after_its_partitions_went(cluster: Cluster) -> None:
    """The dangerous case: the slow member keeps a partition in the next assignment, and its old batch ends then.
    aiokafka would commit it under the new generation.
    """
    topic, group, ledger = await cluster.topic(2), new_group(), Ledger()
    for partition in (0, 1):
        await cluster.put(topic, partition, *[b"%d" % n for n in range(5)])
    began, end_old, end_new = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow(records: Sequence[Record]) -> Sequence[Outcome]:
        if not began.is_set():
            began.set()
            await end_old.wait()
        else:
            await end_new.wait()
            ledger.note(records)
        return [DONE] * len(records)

    sluggard = new_loop(cluster, group, [topic], slow, limits=replace(SHORT, drain=0.3))
    async with running(sluggard):
        await began.wait()
        async with running(new_loop(cluster, group, [topic], ledger.handler)):
            await until(lambda: ledger.handled == 5, what="the new member handles what it was given")
            (kept,) = {0, 1} - {partition for _, partition, _ in ledger.counts}
            await until(lambda: len(sluggard.health().partitions) == 0)
            end_old.set()
            await until(lambda: len(sluggard.health().partitions) == 1, what="it has one of them again")
            await asyncio.sleep(0.3)  # a commit of the old batch would arrive now
            committed = await cluster.committed(group)
            assert committed.get(TopicPartition(topic, kept), 0) == 0
            assert committed[TopicPartition(topic, 1 - kept)] == 5
            end_new.set()
            await cluster.await_committed(group, topic)


async def commotion(cluster: Cluster, seed: int, *, records: int, changes: int) -> None:
    """Two to three members come and go while records flow; handlers are sometimes slower than the drain."""
    topic, group, ledger, chance = await cluster.topic(5), new_group(), Ledger(), random.Random(seed)
    limits = replace(SHORT, drain=0.4)

    async def handler(records_: Sequence[Record]) -> Sequence[Outcome]:
        await asyncio.sleep(1.0 if chance.random() < 0.08 else 0.01)
        return await ledger.handler(records_)

    def member() -> ConsumerLoop:
        return new_loop(cluster, group, [topic], handler, batch=25, limits=limits)

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(Judge(cluster, group, lambda: ledger.counts).watching())
        members: list[ConsumerLoop] = []

        async def stop_all() -> None:
            await asyncio.gather(*(loop.stop() for loop in members))

        stack.push_async_callback(stop_all)
        filled = 0
        for _ in range(changes):
            if len(members) < 2 or (len(members) < 3 and chance.random() < 0.5):
                members.append(member())
                await members[-1].start()
            else:
                await members.pop(chance.randrange(len(members))).stop(timeout=chance.choice([0.0, 5.0]))
            if chance.random() < 0.3:
                await cluster.expel(group)
            await cluster.fill(topic, records // changes, start=filled)
            filled += records // changes
            await asyncio.sleep(chance.random())
        if not members:
            members.append(member())
            await members[-1].start()
        await until(lambda: ledger.handled == filled)
        await cluster.await_committed(group, topic)
    print(f"seed {seed}: {filled} records, {sum(ledger.counts.values()) - filled} repetitions")


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.long)])
async def test_members_that_come_and_go_lose_nothing(cluster: Cluster, seed: int) -> None:
    await commotion(cluster, seed, records=1200, changes=6)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(200, 206))
async def test_much_commotion_loses_nothing(cluster: Cluster, seed: int) -> None:
    await commotion(cluster, seed, records=8000, changes=40)
