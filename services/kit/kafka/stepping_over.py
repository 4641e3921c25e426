"""Stepping over what cannot be read: an operator's word, given by parking the bytes.

A consumer that is blocked looks whether what blocks it lies in the parking lot with the header `STEP_OVER_TO`, and goes
on there. So nothing can be stepped over that is not kept, and no word can be given on an offset that blocks nobody.

Kafka hands out whole batches, and a client that cannot decode one of a batch's records cannot come past it by offsets
inside the batch. So a batch is stepped over to its end, and parked whole.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from struct import Struct
from typing import Final

from aiokafka import TopicPartition
from aiokafka.errors import OffsetOutOfRangeError, for_code
from aiokafka.protocol.fetch import FetchRequest

from services.kit.errors import PermanentError, Unavailable
from services.kit.kafka import asking
from services.kit.kafka.connection import Where, connection
from services.kit.kafka.offsets import log_bounds, start_offsets
from services.kit.kafka.records import Park, Partition, Record
from services.kit.parking import ParkedRecord

STEP_OVER_TO: Final = "mailroom-step-over-to"
SKIPPED: Final = "skippedByOperator"

_NAME: Final = "mailroom-skip"
_BYTES = 4 << 20
_BATCH = Struct(">qiibIhiq")
"""Of a record batch, version 2: first offset, bytes after the length, leader epoch, version, checksum, attributes, last
offset delta, first timestamp (ms)."""
_LENGTH_ENDS_AT = 12
_VERSION = 2


@dataclass(frozen=True, slots=True)
class RawBatch:
    """A batch as it lies in the log. `last` is its last offset."""

    first: int
    last: int
    timestamp_ms: int
    raw: bytes


def find_batch(raw: bytes, offset: int) -> RawBatch:
    """The batch with `offset` among these batches. Raises PermanentError where it cannot be told where one ends."""
    at = 0
    while at + _BATCH.size <= len(raw):
        first, length, _, version, _, _, delta, timestamp = _BATCH.unpack_from(raw, at)
        end = at + _LENGTH_ENDS_AT + length
        if version != _VERSION or delta < 0 or end <= at + _BATCH.size or end > len(raw):
            break
        if first <= offset <= first + delta:
            return RawBatch(first, first + delta, timestamp, raw[at:end])
        at = end
    raise PermanentError("notABatch", f"what Kafka has at offset {offset} is no whole record batch: look at its log")


async def fetch_batch(bootstrap: Where, partition: Partition, offset: int) -> RawBatch:
    """The batch with `offset`, undecoded. Raises PermanentError where there is none, and Unavailable."""
    async with asking.client(bootstrap, _NAME) as client:
        await client.set_topics([partition.topic])
        leader = client.cluster.leader_for_partition(TopicPartition(*partition))
        if leader is None or leader < 0:
            raise PermanentError(
                "noPartition", f"{partition.topic}/{partition.partition} does not exist, or has no leader"
            )
        wanted = [(partition.topic, [(partition.partition, offset, _BYTES)])]
        response = await asyncio.wait_for(client.send(leader, FetchRequest(100, 1, _BYTES, 0, wanted)), asking.SECONDS)
    ((_, ((_, code, *_, raw),)),) = response.topics
    if code == OffsetOutOfRangeError.errno or (not code and not raw):
        raise PermanentError("noRecord", f"{partition.topic}/{partition.partition} has nothing at offset {offset}")
    if code:
        raise Unavailable("Kafka", f"{for_code(code).__name__} at {partition.topic}/{partition.partition}")
    return find_batch(bytes(raw), offset)


async def standing(bootstrap: Where, group: str, partition: Partition) -> int:
    """Where the group stands: what it committed, else the beginning of the log. Raises Unavailable."""
    async with asking.consumer(bootstrap, _NAME) as consumer:
        starts = await start_offsets(connection(bootstrap).arguments(_NAME), group, consumer, [partition])
    return starts[partition][0]


async def first_offset(bootstrap: Where, partition: Partition) -> int:
    """Where the log of the partition begins. Raises Unavailable."""
    async with asking.consumer(bootstrap, _NAME) as consumer:
        return (await log_bounds(consumer, [partition]))[partition][0]


async def why_unreadable(bootstrap: Where, partition: Partition, offset: int) -> str:
    """What a client makes of the record at `offset`; "" = it can be read here. Raises Unavailable."""
    async with asking.consumer(bootstrap, _NAME) as consumer:
        consumer.assign([TopicPartition(*partition)])
        consumer.seek(TopicPartition(*partition), offset)
        try:
            await asyncio.wait_for(consumer.getmany(timeout_ms=3000, max_records=1), asking.SECONDS)
        except (OSError, TimeoutError):
            raise
        except Exception as failure:  # noqa: BLE001 - whatever a batch makes the client raise
            return type(failure).__name__
    return ""


def step_over_order(
    consumer: str, partition: Partition, offset: int, batch: RawBatch, by: str, at: datetime
) -> ParkedRecord:
    """What is to be parked so that `consumer`, blocked at `offset`, goes on after `batch`."""
    record = Record(
        partition.topic,
        partition.partition,
        offset,
        batch.timestamp_ms,
        None,
        batch.raw,
        ((STEP_OVER_TO, str(batch.last + 1).encode()),),
    )
    told = f"offsets {offset} to {batch.last}; the value is the whole record batch {batch.first} to {batch.last}"
    return ParkedRecord.of(consumer, record, Park(SKIPPED, "poison", f"{by}: {told}, as it lay in the log"), at)


def ordered_offset(parked: ParkedRecord | None) -> int | None:
    """Where a consumer that is blocked at this parked record's offset is to go on; None = nobody said so."""
    given = None if parked is None else dict(parked.headers).get(STEP_OVER_TO)
    return int(given) if given is not None and given.isdigit() else None
