"""From a real queue to a publisher that can be switched off: nothing leaves SQS before Kafka has it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest

from deploy.local.endpoints import AwsEndpoints
from services.email.entrypoints.ingest import split
from services.kit.aws import AwsAccount, sqs_client
from services.kit.clock import SystemClock
from services.kit.ingest import Ingest
from services.kit.kafka.broker import LARGEST_RECORD_BYTES
from services.kit.testing.publisher import MemoryPublisher


class Counts:
    """Counts what was received."""

    def __init__(self) -> None:
        self.taken = 0

    def received(self, ages: Sequence[float]) -> None:
        self.taken += len(ages)
        assert all(0 <= age < 60 for age in ages)

    def deleted(self, count: int) -> None: ...

    def failed(self, count: int) -> None: ...


@dataclass
class Place:
    """A queue of this test's own, and an ingest over it."""

    sqs: Any
    url: str
    publisher: MemoryPublisher
    counts: Counts
    ingest: Ingest

    async def put(self, *bodies: str) -> None:
        for body in bodies:
            await self.sqs.send_message(QueueUrl=self.url, MessageBody=body)

    async def left(self) -> int:
        """Messages on the queue, hidden ones too."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        answer = await self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)
        return sum(int(answer["Attributes"][name]) for name in names)

    @property
    def published(self) -> set[bytes]:
        return {item.value for item in self.publisher.published}


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 180.0) -> None:
    deadline = asyncio.get_running_loop().time() + seconds
    while not await condition():
        assert asyncio.get_running_loop().time() < deadline, "not within the time limit"
        await asyncio.sleep(0.05)


@pytest.fixture
async def place(aws: AwsEndpoints) -> AsyncIterator[Place]:
    account = AwsAccount(aws.region, aws.access_key_id, aws.secret_access_key, aws.endpoint_url)
    async with sqs_client(account) as sqs:
        url = (await sqs.create_queue(QueueName=f"ingest-{uuid4().hex[:8]}"))["QueueUrl"]
        publisher, counts = MemoryPublisher(), Counts()
        ingest = Ingest(
            sqs, url, split, publisher, SystemClock(), counts, pollers=2, wait_seconds=1, visibility_seconds=1
        )  # fmt: skip
        yield Place(sqs, url, publisher, counts, ingest)
        await ingest.stop(3.0)
        await sqs.delete_queue(QueueUrl=url)


async def test_each_notification_goes_raw_to_kafka_and_then_leaves_the_queue(place: Place) -> None:
    bodies = [f'{{"MessageId": "sns-{n}", "Message": " {n}\\n"}}' for n in range(25)]
    await place.put(*bodies)
    await place.ingest.start()

    async def empty() -> bool:
        return await place.left() == 0

    await until(empty)
    assert place.published == {body.encode() for body in bodies}
    assert {item.key for item in place.publisher.published} == {b"sns-%d" % n for n in range(25)}
    assert all(dict(item.headers)["source"] == b"ses" for item in place.publisher.published)


async def test_what_kafka_does_not_acknowledge_stays_on_the_queue(place: Place) -> None:
    """The acknowledgements are lost, as in an outage that begins between the receive and the answer."""
    place.publisher.losing_answers = True
    healthy = type("Healthy", (MemoryPublisher,), {"healthy": True})
    place.publisher.__class__ = healthy
    await place.put("one", "two", "three")
    await place.ingest.start()

    async def published_twice() -> bool:
        return len(place.publisher.published) >= 6

    await until(published_twice)
    assert await place.left() == 3
    place.publisher.losing_answers = False

    async def empty() -> bool:
        return await place.left() == 0

    await until(empty)
    assert place.published == {b"one", b"two", b"three"}


async def test_nothing_is_received_while_kafka_is_away(place: Place) -> None:
    """Each receive counts towards the dead-letter queue: an outage must not wear good notifications out."""
    place.publisher.away = True
    await place.put("one")
    await place.ingest.start()

    async def waits() -> bool:
        return "waiting for Kafka" in str(place.ingest.health()[1]["trouble"])

    await until(waits)
    await asyncio.sleep(0.7)
    assert place.counts.taken == 0
    assert place.ingest.health()[0], "waiting is no reason to be restarted"
    place.publisher.away = False

    async def published() -> bool:
        return place.published == {b"one"}

    await until(published)


async def test_one_that_kafka_will_never_take_holds_up_nobody(place: Place) -> None:
    await place.put("x" * 200_000, "good")
    place.publisher._publish = _refuses_large(place.publisher)  # type: ignore[method-assign]
    await place.ingest.start()

    async def good() -> bool:
        return b"good" in place.published and await place.left() == 1

    await until(good)


def _refuses_large(publisher: MemoryPublisher) -> Any:
    publish = publisher._publish

    def refuse(item: Any) -> Exception | None:
        if len(item.value) < 100_000:
            return publish(item)
        return publish(type(item)(item.topic, item.key, item.value * (LARGEST_RECORD_BYTES // 100_000)))

    return refuse
