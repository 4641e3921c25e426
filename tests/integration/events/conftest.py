"""A topic and a database of its own for each test, and writing to the topic."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from dataclasses import replace
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from services.events.composing import ReadingSide
from services.events.projections.projection import EMAIL_LOG, Projection
from services.kit.kafka.connection import connection
from services.kit.metrics import Metrics
from services.kit.mongo import connect
from services.kit.testing.parking import MemoryParkingLot

PARTITIONS = 6
HANG = 180.0
"""Seconds that only something that hangs takes."""
Entry = tuple[bytes | None, bytes | None]
Write = Callable[[Iterable[Entry]], Coroutine[Any, Any, None]]


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = HANG) -> None:
    """Wait for a condition, looking often; AssertionError after `seconds`."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not await condition():
        assert asyncio.get_running_loop().time() < deadline, "not within the time limit"
        await asyncio.sleep(0.02)


async def end_leases(side: ReadingSide) -> None:
    """Let the leases and heartbeats of the dead run out now."""
    ended = [{"$set": {"until": {"$dateSubtract": {"startDate": "$$NOW", "unit": "minute", "amount": 1}}}}]
    await side.database["leases"].update_many({"owner": {"$ne": None}}, ended)
    await side.database["workers"].delete_many({})


def address(side: ReadingSide) -> str:
    """Where its Kafka is: `host:port`."""
    return connection(side.bootstrap).bootstrap


@pytest.fixture
def projection() -> Projection:
    """What is projected; a module of tests for another one says so."""
    return EMAIL_LOG


@pytest.fixture
async def topic(kafka_bootstrap: str) -> AsyncIterator[str]:
    """A fresh topic of six partitions."""
    name = f"test.events.{uuid.uuid4().hex[:8]}"
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, PARTITIONS, 1)])
        yield name
        await admin.delete_topics([name])
    finally:
        await admin.close()


@pytest.fixture
async def side(kafka_bootstrap: str, mongo_url: str, topic: str, projection: Projection) -> AsyncIterator[ReadingSide]:
    """The reading side on that topic and a fresh database."""
    client = connect(mongo_url)
    database = client[f"events_{uuid.uuid4().hex[:8]}"]
    yield ReadingSide(
        replace(projection, topic=topic), kafka_bootstrap, database, MemoryParkingLot(), Metrics(), lease_seconds=3.0
    )
    await client.drop_database(database.name)
    await client.close()


@pytest.fixture
async def write(kafka_bootstrap: str, topic: str) -> AsyncIterator[Write]:
    """Appends records to the topic, in order, acknowledged."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka_bootstrap, acks="all", enable_idempotence=True, linger_ms=5)
    await producer.start()

    async def write(records: Iterable[Entry]) -> None:
        sent = [await producer.send(topic, value, key=key) for key, value in records]
        await asyncio.gather(*sent)

    yield write
    await producer.stop()
