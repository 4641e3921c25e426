"""Fetching from the partitions of an assignment so that an unreadable one blocks only itself.

aiokafka's `getmany` drops what it already took from other partitions when one of them cannot be read. So after a
failed fetch all partitions with data become suspects, and suspects are read one by one from where they stand, in ever
smaller pieces, until what cannot be read lies exactly at the partition's position.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import (
    CorruptRecordException,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    RecordTooLargeError,
    TopicAuthorizationFailedError,
    UnsupportedCodecError,
)
from aiokafka.structs import ConsumerRecord

from services.kit.clock import Clock
from services.kit.errors import MailroomError
from services.kit.kafka.assignment import Assignment, PartitionState
from services.kit.kafka.bounded import bounded
from services.kit.kafka.offsets import log_bounds
from services.kit.kafka.records import Partition, Record
from services.kit.logs import get_logger
from services.kit.metrics import RECORDS_LOST, Metrics

log = get_logger(__name__)

UNREADABLE_PAUSE = 30.0
"""Seconds until an unreadable partition is tried again."""

_SHRINK = 8
_LOG_APPEND_TIME = 1
"""Of a record's timestamp type: the broker has set the timestamp (Kafka message format, batch attributes, bit 3)."""

_GRACE = 5.0
_OF_ONE_PARTITION = (
    CorruptRecordException,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    RecordTooLargeError,
    TopicAuthorizationFailedError,
    UnsupportedCodecError,
)

Fetched = dict[Partition, list[Record]]


class Reader:
    """Reads for one consumer of `group`."""

    def __init__(self, consumer: AIOKafkaConsumer, group: str, clock: Clock, metrics: Metrics) -> None:
        self._consumer = consumer
        self._group = group
        self._clock = clock
        self._metrics = metrics
        self._turn = 0

    async def read(self, assignment: Assignment, limit: int, wait: float) -> Fetched:
        """At most about `limit` records, waiting `wait` seconds when there are none. Raises what concerns the whole
        consumer; what concerns one partition is noted in its state.
        """
        active = {partition: state for partition, state in assignment.states.items() if state.resume_at is None}
        slow = [p for p, state in active.items() if state.size is not None and state.end != state.next]
        self._turn += 1
        if slow and self._turn % 2:
            partition = slow[self._turn // 2 % len(slow)]
            return await self._read_alone(assignment, partition, active[partition].size or limit)
        suspects = [partition for partition, state in active.items() if state.suspect]
        alone = {*slow, *suspects}
        try:
            if not alone:
                fetched = await self._fetch((), limit, wait)
            else:
                others = assignment.partitions - alone
                fetched = await self._fetch(others, limit, 0.01 if slow else 0.0) if others else {}
        except Exception as failure:
            if not _concerns_one_partition(failure):
                raise
            fetched = {}
            suspects = self._suspect(assignment)
        for partition in suspects:
            fetched.update(await self._read_alone(assignment, partition, max(1, limit // len(suspects))))
        return fetched

    async def discard(self, partition: Partition) -> None:
        """Forget what aiokafka holds of a paused partition, an error about its missing offset included."""
        with suppress(NoOffsetForPartitionError):
            await self._fetch([partition], 1, 0.0)

    async def _fetch(self, partitions: Iterable[Partition], limit: int, wait: float) -> Fetched:
        topic_partitions = [TopicPartition(*partition) for partition in partitions]
        found: Mapping[TopicPartition, Sequence[ConsumerRecord]] = await bounded(
            self._consumer.getmany(*topic_partitions, timeout_ms=int(wait * 1000), max_records=limit), wait + _GRACE
        )
        return {Partition(*partition): [_record(r) for r in records] for partition, records in found.items()}

    def _suspect(self, assignment: Assignment) -> list[Partition]:
        """Those of which a failed fetch may have dropped records: from now on read by themselves, from where they
        stand.
        """
        suspects = []
        for partition, state in assignment.states.items():
            end = self._consumer.highwater(TopicPartition(*partition))
            if state.resume_at is None and (end is None or end != state.next):
                state.suspect = True
                suspects.append(partition)
        return suspects

    async def _read_alone(self, assignment: Assignment, partition: Partition, limit: int) -> Fetched:
        state = assignment.states[partition]
        size = limit
        while not assignment.abort.is_set():
            self._consumer.seek(TopicPartition(*partition), state.next)
            try:
                fetched = await self._fetch([partition], size, 0.5)
            except Exception as failure:
                if not _concerns_one_partition(failure):
                    raise
                if size == 1 or isinstance(failure, OffsetOutOfRangeError):
                    await self._blocked(partition, state, failure)
                    return {}
                size = max(1, size // _SHRINK)
            else:
                state.unreadable = ""
                state.suspect = size < limit
                return fetched
        return {}

    async def _blocked(self, partition: Partition, state: PartitionState, failure: Exception) -> None:
        if isinstance(failure, OffsetOutOfRangeError):
            first, end = (await log_bounds(self._consumer, [partition]))[partition]
            if state.next < first:
                self._lost(partition, state, first)
                return
            why = f"position {state.next} is behind the end {end}: was the topic made anew or cut?"
        else:
            why = f"{type(failure).__name__} at offset {state.next}"
        state.unreadable = why
        state.resume_at = self._clock.monotonic() + UNREADABLE_PAUSE
        log.critical(
            "partition blocked: it cannot be read here, and nothing is skipped",
            group=self._group,
            topic=partition.topic,
            partition=partition.partition,
            offset=state.next,
            reason=why,
            remedy="install the missing codec or repair the log; else step over it with skip",
        )

    def _lost(self, partition: Partition, state: PartitionState, first: int) -> None:
        """Retention deleted what this group had not handled. Nothing brings it back, so it goes on, loudly."""
        self._metrics.inc(RECORDS_LOST, first - state.next, group=self._group, topic=partition.topic)
        log.critical(
            "records were deleted before this group handled them",
            group=self._group,
            topic=partition.topic,
            partition=partition.partition,
            offsets=f"{state.next}..{first - 1}",
        )
        state.next = first
        state.done = set()
        self._consumer.seek(TopicPartition(*partition), first)


def _concerns_one_partition(failure: Exception) -> bool:
    """Whether it comes from decoding or fetching one partition, and not from the group or the connection."""
    if isinstance(failure, TimeoutError | OSError | MailroomError):
        return False
    return isinstance(failure, _OF_ONE_PARTITION) or not isinstance(failure, KafkaError)


def _record(found: ConsumerRecord) -> Record:
    return Record(
        found.topic,
        found.partition,
        found.offset,
        found.timestamp,
        found.key,
        found.value,
        found.headers,
        log_append_time=found.timestamp_type == _LOG_APPEND_TIME,
    )
