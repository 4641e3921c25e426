"""Kafka itself stopped, killed and started under load: the loop and the publisher come back by themselves."""

import asyncio
import signal
from collections.abc import Sequence
from uuid import uuid4

import pytest

from deploy.local.stack import Stack
from services.kit.errors import TransientError
from services.kit.kafka.consumer_loop import DONE, Outcome, Record
from services.kit.kafka.publisher import KafkaPublisher, Outgoing
from services.kit.metrics import Metrics
from tests.integration.kafka.harness import HANG, Cluster, Judge, Ledger, new_group, new_loop, running, until


async def stop(kafka: Stack) -> None:
    await asyncio.to_thread(kafka.stop, ["kafka"])


async def start(kafka: Stack) -> None:
    await asyncio.to_thread(kafka.start, ["kafka"])


def new_publisher(cluster: Cluster, delivery_seconds: float = 1.5) -> KafkaPublisher:
    return KafkaPublisher(cluster.bootstrap, delivery_seconds=delivery_seconds, metrics=Metrics())


@pytest.mark.parametrize("hard", [True, pytest.param(False, marks=pytest.mark.long)])
async def test_nothing_is_lost_and_nobody_helps(own_kafka: Stack, hard: bool) -> None:
    await start(own_kafka)
    cluster = Cluster(own_kafka.site.addresses().kafka_bootstrap)
    topic, group, ledger = await cluster.topic(4), new_group(), Ledger()
    publisher = new_publisher(cluster)
    acknowledged: set[bytes] = set()
    seen: set[bytes | None] = set()
    failures = 0
    publishing = True

    async def handler(records: Sequence[Record]) -> Sequence[Outcome]:
        await asyncio.sleep(0.01)
        ledger.note(records)
        seen.update(record.value for record in records)
        return [DONE] * len(records)

    async def publish() -> None:
        nonlocal failures
        while publishing:
            values = [uuid4().hex.encode() for _ in range(20)]
            results = await publisher.publish([Outgoing(topic, value[:2], value) for value in values])
            assert all(result is None or isinstance(result, TransientError) for result in results)
            failures += sum(result is not None for result in results)
            acknowledged.update(v for v, result in zip(values, results, strict=True) if result is None)
            await asyncio.sleep(0.05)

    loop = new_loop(cluster, group, [topic], handler, batch=50)
    await publisher.start()
    assert publisher.healthy
    task = asyncio.create_task(publish())
    try:
        async with Judge(cluster, group, lambda: ledger.counts).watching(), running(loop):
            await until(lambda: ledger.handled > 100)
            if hard:
                await asyncio.to_thread(own_kafka.kill, "kafka", signal.SIGKILL)
            else:
                await stop(own_kafka)
            await until(lambda: not publisher.healthy, what="who is asked whether to take more work says no")
            await until(lambda: failures > 0)
            assert loop.health().live, "an outage of Kafka is no reason to restart the process"
            await start(own_kafka)
            await until(lambda: publisher.healthy)
            before, handled = len(acknowledged), ledger.handled
            await until(lambda: len(acknowledged) > before + 100 and ledger.handled > handled + 100)
            publishing = False
            await task
            await until(lambda: acknowledged <= seen, what="every acknowledged record arrived")
            await until(lambda: loop.health().healthy)
            await cluster.await_committed(group, topic)
    finally:
        publishing = False
        await asyncio.gather(task, return_exceptions=True)
        await publisher.stop()


async def test_both_start_without_kafka_and_stop_in_time_without_it(own_kafka: Stack) -> None:
    await start(own_kafka)
    cluster = Cluster(own_kafka.site.addresses().kafka_bootstrap)
    topic, ledger = await cluster.topic(1), Ledger()
    await stop(own_kafka)
    publisher = new_publisher(cluster)
    loop = new_loop(cluster, new_group(), [topic], ledger.handler)
    try:
        async with asyncio.timeout(HANG):
            await publisher.start(timeout=0.5)
        await loop.start()
        assert not publisher.healthy
        (answer,) = await publisher.publish([Outgoing(topic, b"k", b"v")])
        assert isinstance(answer, TransientError)
        await until(lambda: any("MAILROOM_KAFKA_BOOTSTRAP" in reason for reason in loop.health().reasons))
        assert loop.health().live
        await start(own_kafka)
        await until(lambda: publisher.healthy)
        assert await publisher.publish([Outgoing(topic, b"k", b"v")]) == [None]
        await until(lambda: ledger.handled == 1)
        await stop(own_kafka)
        await publisher.publish([Outgoing(topic, b"k", b"v")])
        async with asyncio.timeout(HANG):
            await publisher.stop()
        assert not publisher.healthy
        async with asyncio.timeout(HANG):
            await loop.stop(timeout=1)
    finally:
        await publisher.stop()
        await loop.stop(timeout=1)
