"""The judge: the read model must be the pure fold of all that is on the topic."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from services.events.adapters.mongo_documents import from_document, from_row
from services.events.adapters.mongo_read_models import FACTS, collection_name
from services.events.composing import ReadingSide
from services.events.projections.known import Known, add, spill, tally
from services.events.reader import read_event
from tests.integration.events.conftest import HANG


async def whole_log(side: ReadingSide) -> list[Any]:
    """Every record of the topic."""
    consumer = AIOKafkaConsumer(bootstrap_servers=side.bootstrap, auto_offset_reset="none", enable_auto_commit=False)
    await consumer.start()
    try:
        found: list[Any] = []
        reader = side.log()
        await reader.start()
        bounds = await reader.bounds()
        await reader.stop()
        for partition, (first, end) in bounds.items():
            wanted = TopicPartition(side.projection.topic, partition)
            consumer.assign([wanted])
            consumer.seek(wanted, first)
            while await consumer.position(wanted) < end:
                found += (await consumer.getmany(wanted, timeout_ms=500)).get(wanted, [])
        return found
    finally:
        await consumer.stop()


def fold_of(side: ReadingSide, records: list[Any]) -> dict[str, Any]:
    """Aggregate → (body, inline events, tally, rows), as they must be stored."""
    knowns: dict[str, Known] = {}
    for record in records:
        try:
            subject = record.key.decode()
            event = read_event(record.value, record.partition, record.offset, subject)
        except (ValueError, AttributeError):
            continue
        add(knowns.setdefault(subject, {}), event)
    found: dict[str, Any] = {}
    for aggregate, known in knowns.items():
        outside = spill(known, side.projection.engagement)
        overflow = tally(outside, side.projection.engagement)
        body = side.projection.fold(sorted(known.values()), overflow)
        found[aggregate] = (_in_milliseconds(body), known, overflow, {event.id: event for event in outside})
    return found


async def stored(side: ReadingSide, generation: int) -> dict[str, Any]:
    """What is stored, in the same form."""
    name = collection_name(side.projection.name, generation)
    found: dict[str, Any] = {}
    async for document in side.database[name].find():
        kept = from_document(document)
        body = {key: value for key, value in document.items() if not key.startswith("_") or key == "_permanent"}
        visible = document.get("_visible", True)
        found[document["_id"]] = (body if visible else None, kept.known, kept.overflow, {})
    async for row in side.database[name + FACTS].find():
        _, known, _, outside = found[row["aggregate"]]
        if row["event"] not in known:
            outside[row["event"]] = from_row(row).event
    return found


async def wait_until_projected(side: ReadingSide, generation: int, seconds: float = HANG) -> None:
    """Return when every checkpoint has reached the end of its partition."""
    until = time.monotonic() + seconds
    reader = side.log()
    await reader.start()
    try:
        while True:
            ends = {partition: end for partition, (_, end) in (await reader.bounds()).items()}
            at = {lease.partition: lease.next for lease in await side.leases(generation).view()}
            if at and all(at.get(partition, -1) >= end for partition, end in ends.items()):
                return
            assert time.monotonic() < until, f"not projected in {seconds} s: {at} of {ends}"
            await asyncio.sleep(0.02)
    finally:
        await reader.stop()


async def assert_equal_to_the_log(side: ReadingSide, generation: int) -> int:
    """Compare all; how many documents there are."""
    wanted, found = fold_of(side, await whole_log(side)), await stored(side, generation)
    assert found.keys() == wanted.keys()
    for aggregate, expected in wanted.items():
        assert found[aggregate] == expected, aggregate
    return len(found)


def _in_milliseconds(value: Any) -> Any:
    """As BSON keeps it."""
    if isinstance(value, dict):
        return {key: _in_milliseconds(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_in_milliseconds(each) for each in value]
    if hasattr(value, "microsecond"):
        return value.replace(microsecond=value.microsecond // 1000 * 1000)
    return value
