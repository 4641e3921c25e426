"""Publishing on a real broker: an answer for each record, and a producer that is replaced when it must be."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiokafka.admin import NewTopic

from contracts.topics import EMAIL_EVENTS, FILES_EVENTS
from services.kit.errors import PermanentError, TransientError
from services.kit.kafka.broker import LARGEST_RECORD_BYTES
from services.kit.kafka.publisher import KafkaPublisher, Outgoing
from services.kit.metrics import PUBLISH_FAILED, PUBLISHED, Metrics
from tests.integration.kafka.harness import HANG, Cluster, Ledger, new_group, new_loop, running, until


@pytest.fixture
async def publisher(cluster: Cluster) -> AsyncIterator[KafkaPublisher]:
    publisher = KafkaPublisher(cluster.bootstrap, delivery_seconds=2.0, metrics=Metrics())
    await publisher.start()
    yield publisher
    await publisher.stop()


async def test_what_is_acknowledged_arrives_in_the_order_of_its_key(
    cluster: Cluster, publisher: KafkaPublisher
) -> None:
    topic, ledger, values = await cluster.topic(6), Ledger(), dict[bytes, list[bytes]]()
    items = [Outgoing(topic, b"key-%d" % (n % 7), b"%d" % n, (("n", b"%d" % n),)) for n in range(2000)]
    assert await publisher.publish(items) == [None] * 2000

    async def handler(records):  # type: ignore[no-untyped-def]
        for record in records:
            values.setdefault(record.key, []).append(record.value)
            assert record.headers == (("n", record.value),)
        return await ledger.handler(records)

    async with running(new_loop(cluster, new_group(), [topic], handler)):
        await until(lambda: ledger.handled == 2000)
    assert values == {b"key-%d" % k: [b"%d" % n for n in range(k, 2000, 7)] for k in range(7)}
    assert publisher._metrics.value(PUBLISHED, topic=topic) == 2000
    assert publisher.healthy


async def test_a_record_too_large_fails_alone_and_for_ever(cluster: Cluster, publisher: KafkaPublisher) -> None:
    topic = await cluster.topic(1)
    sizes = [10, LARGEST_RECORD_BYTES, 10, LARGEST_RECORD_BYTES - 200, 10, 3 * LARGEST_RECORD_BYTES, 10]
    answers = await publisher.publish([Outgoing(topic, b"k", b"x" * size) for size in sizes])
    for size, answer in zip(sizes, answers, strict=True):
        if size >= LARGEST_RECORD_BYTES:
            assert isinstance(answer, PermanentError)
            assert answer.reason == "tooLarge"
        else:
            assert answer is None
    assert publisher.healthy
    assert publisher._metrics.value(PUBLISH_FAILED, topic=topic) == 2


async def test_what_cannot_be_encoded_fails_alone(cluster: Cluster, publisher: KafkaPublisher) -> None:
    topic = await cluster.topic(1)
    odd = Outgoing(topic, b"k", b"v", (("\udcff", b"x"),))
    answers = await publisher.publish([Outgoing(topic, b"k", b"1"), odd, Outgoing(topic, b"k", b"2")])
    assert answers[0] is None
    assert answers[2] is None
    assert isinstance(answers[1], PermanentError)


async def test_a_missing_topic_takes_the_time_limit_and_is_not_made(
    cluster: Cluster, publisher: KafkaPublisher
) -> None:
    async with asyncio.timeout(HANG):
        (answer,) = await publisher.publish([Outgoing("t-absent", b"k", b"v")])
    assert isinstance(answer, TransientError)
    async with cluster.admin() as admin:
        assert "t-absent" not in await admin.list_topics()


async def test_a_refused_batch_costs_only_itself(cluster: Cluster, publisher: KafkaPublisher) -> None:
    """The broker refuses it after its sequence numbers were taken: the next batch would be out of order."""
    topic = await cluster.topic(1)
    narrow = f"{topic}-narrow"
    async with cluster.admin() as admin:
        await admin.create_topics([NewTopic(narrow, 1, 1, topic_configs={"max.message.bytes": "1000"})])
    small = Outgoing(narrow, b"k", b"small")
    assert await publisher.publish([small]) == [None]
    (answer,) = await publisher.publish([Outgoing(narrow, b"k", b"x" * 5000)])
    assert isinstance(answer, PermanentError)
    assert answer.reason == "tooLarge"
    await until(lambda: publisher.healthy)
    assert await publisher.publish([small, small]) == [None, None]


async def test_many_publish_at_once(cluster: Cluster, publisher: KafkaPublisher) -> None:
    topic = await cluster.topic(3)
    answers = await asyncio.gather(*(publisher.publish([Outgoing(topic, b"%d" % n, b"v")] * 3) for n in range(200)))
    assert all(answer == [None] * 3 for answer in answers)
    ends = await cluster.ends(topic)
    assert sum(ends.values()) == 600


async def test_asyncapi_shows_what_is_published_and_nothing_else_can_be(cluster: Cluster) -> None:
    from faststream.specification import AsyncAPI

    publisher = KafkaPublisher(cluster.bootstrap, publishes=[EMAIL_EVENTS])
    await publisher.start()
    (answer,) = await publisher.publish([Outgoing(FILES_EVENTS.name, b"k", b"v")])
    await publisher.stop()
    assert isinstance(answer, PermanentError)
    channels = AsyncAPI(publisher.broker).to_specification().to_jsonable()["channels"]
    assert [channel["address"] for channel in channels.values()] == ["email.events"]


async def test_a_stopped_publisher_takes_nothing(cluster: Cluster, publisher: KafkaPublisher) -> None:
    await publisher.stop()
    assert not publisher.healthy
    (answer,) = await publisher.publish([Outgoing("t", b"k", b"v")])
    assert isinstance(answer, TransientError)
