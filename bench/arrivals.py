"""What arrives in `bench.freshness`: deliveries on SQS, records of a made-up log on Kafka, each at an even pace."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import aioboto3
from aiokafka import AIOKafkaProducer

from bench.sight import Sight
from contracts.ids import uuid7
from deploy.local.simulator.events import timestamp
from deploy.local.stack import Stack
from deploy.processes import aws_environment
from services.email.domain.correlation import ATTEMPT_TAG, MESSAGE_TAG

SQS_RATE, KAFKA_RATE = 100, 500
FOLLOWED = 5
"""One of so many events from Kafka is looked for: a look at each would be what is measured."""

T = TypeVar("T")


def _notification(entry: dict[str, Any], at: datetime) -> str:
    """The SQS message of a delivery, as SES and SNS make it."""
    address = entry["destination"][0]
    mail = {
        "timestamp": entry["at"],
        "source": entry["source"],
        "messageId": entry["providerMessageId"],
        "destination": entry["destination"],
        "tags": {name: [entry["tags"][name]] for name in (MESSAGE_TAG, ATTEMPT_TAG)},
    }
    delivery = {
        "timestamp": timestamp(at),
        "processingTimeMillis": 900,
        "recipients": [address],
        "smtpResponse": "250 2.0.0 OK",
        "reportingMTA": "a0-1.smtp-out.mailroom.example",
    }
    message = json.dumps({"eventType": "Delivery", "mail": mail, "delivery": delivery}) + "\n"
    return json.dumps(
        {
            "Type": "Notification",
            "MessageId": uuid7(),
            "TopicArn": "arn:aws:sns:us-east-1:000000000000:mailroom-local-notifications",
            "Message": message,
            "Timestamp": timestamp(at),
        }
    )


async def notify(stack: Stack, queue_url: str, sent: Sequence[dict[str, Any]], sight: Sight) -> None:
    """One delivery on SQS each 10 ms, whether or not the one before was taken already."""
    env = aws_environment(stack.site.url("aws"))
    session = aioboto3.Session(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], region_name=env["AWS_REGION"])
    async with session.client("sqs", endpoint_url=env["AWS_ENDPOINT_URL"]) as sqs, asyncio.TaskGroup() as group:

        async def put(entry: dict[str, Any]) -> None:
            at = datetime.now(UTC)
            at = at.replace(microsecond=at.microsecond // 1000 * 1000)
            body = _notification(entry, at)
            sight.expect(entry["tags"][MESSAGE_TAG], at)
            await sqs.send_message(QueueUrl=queue_url, MessageBody=body)

        async for entry in _paced(sent, SQS_RATE):
            group.create_task(put(entry))


async def play(stack: Stack, topic: str, story: Sequence[tuple[bytes, bytes]], sight: Sight) -> None:
    """The records of a made-up log, evenly; one of five that a document can show at once is looked for."""
    producer = AIOKafkaProducer(bootstrap_servers=stack.site.addresses().kafka_bootstrap, acks="all")
    await producer.start()
    began: dict[bytes, float] = {}
    known: set[str] = set()
    candidates = 0
    try:
        async for key, value in _paced(story, KAFKA_RATE):
            event = json.loads(value)
            now = time.monotonic()
            if event["type"] == "email.requested":
                began.setdefault(key, now)
            elif event["id"] not in known and now - began.get(key, now) > 1.0:
                candidates += 1
                if candidates % FOLLOWED == 0:
                    sight.expect(event["subject"], datetime.fromisoformat(event["time"]))
            known.add(event["id"])
            await producer.send(topic, value, key=key)
        await producer.flush()
    finally:
        await producer.stop()


async def _paced(items: Sequence[T], per_second: float) -> AsyncIterator[T]:
    began = time.monotonic()
    for number, item in enumerate(items):
        ahead = began + number / per_second - time.monotonic()
        if ahead > 0:
            await asyncio.sleep(ahead)
        yield item
