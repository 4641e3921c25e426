"""A webhook of the running service: what is answered 200 is on the real Kafka, and MongoDB knows its token."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from uuid import uuid4

import httpx
from aiokafka import AIOKafkaConsumer, TopicPartition

from contracts.topics import EMAIL_NOTIFICATIONS
from services.email.settings import EmailSettings
from services.kit.kafka.topics_admin import apply
from services.kit.settings import load
from tests.integration.email.conftest import HANG, process
from tests.unit.email_service.signing import MAILGUN_KEY, mailgun_body, mailgun_signature


async def _on_the_topic(bootstrap: str, token: str) -> list[bytes]:
    """Every record on the topic that holds `token`, from the first to the last one that is there now."""
    partitions = [TopicPartition(EMAIL_NOTIFICATIONS.name, n) for n in range(EMAIL_NOTIFICATIONS.partitions)]
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="none", enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign(partitions)
        await consumer.seek_to_beginning()
        ends = await consumer.end_offsets(partitions)
        found: list[bytes] = []
        async with asyncio.timeout(HANG):
            while any([await consumer.position(each) < ends[each] for each in partitions]):
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    found += [record.value for record in records if token.encode() in record.value]
        return found
    finally:
        await consumer.stop()


def _settings(bootstrap: str, mongo_url: str) -> EmailSettings:
    """AWS is named and never called: nothing that a webhook does needs it."""
    return load(
        EmailSettings,
        {
            "AWS_REGION": "eu-central-1",
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
            "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
            "MAILROOM_CONTENT_BUCKET": "contents",
            "SES_CONFIGURATION_SET": "mailroom",
            "AWS_SES_FROM_EMAIL": "no-reply@mailroom.example",
            "MAILROOM_NOTIFICATIONS_QUEUE_URL": "http://127.0.0.1:1/queue",
            "MAILROOM_KAFKA_BOOTSTRAP": bootstrap,
            "MAILROOM_MONGO_URL": mongo_url,
            "MAILROOM_EMAIL_DATABASE": f"email_{uuid4().hex[:12]}",
            "MAILROOM_PUBLIC_URL": "http://127.0.0.1:8080",
            "MAILROOM_JWT_ALGORITHM": "HS256",
            "MAILROOM_JWT_SECRET": "s" * 32,
            "FILE_ENCRYPTION_KEY": "k" * 32,
            "MAILROOM_MAILGUN_WEBHOOK_KEYS": MAILGUN_KEY,
        },
    )


async def test_mailguns_events_are_durable_once_and_its_token_is_good_for_one_body(
    own_kafka: str, mongo_url: str
) -> None:
    await apply(own_kafka)
    token = uuid4().hex.ljust(50, "0")
    signature = mailgun_signature(token=token, at=datetime.now(UTC))
    body = mailgun_body(signature)
    async with process(_settings(own_kafka, mongo_url), "http") as (email, _):
        base = f"http://127.0.0.1:{email.server.port}"
        async with httpx.AsyncClient(base_url=base, timeout=HANG, trust_env=False) as http:

            async def post(body: bytes) -> int:
                return (await http.post("/api/webhooks/mailgun", content=body)).status_code

            assert await post(body) == 200
            assert await post(body) == 200
            assert await post(mailgun_body(signature, event="failed")) == 406
            assert await post(mailgun_body(mailgun_signature(key="x" * 32))) == 403
            assert (await http.post("/api/webhooks/sendgrid", content=b"[]")).status_code == 404
        kept = [each async for each in email.database["webhook_tokens"].find({})]
    assert await _on_the_topic(own_kafka, token) == [body]
    assert len(kept) == 1
    assert token not in str(kept)
