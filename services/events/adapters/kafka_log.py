"""The projection's topic in Kafka, read by offset with `assign()`: no consumer group decides what is read here.

Where nobody may fetch from is never guessed (`auto_offset_reset="none"`): a lost head of an event log must alarm.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import IllegalStateError, KafkaError, OffsetOutOfRangeError

from services.events.ports import BLOCKED_SECONDS, LogRecord, bytes_of
from services.kit.clock import SystemClock
from services.kit.errors import PermanentError, Unavailable
from services.kit.kafka.bounded import bounded
from services.kit.kafka.connection import Where, connection
from services.kit.kafka.diagnosis import unreachable
from services.kit.kafka.silence import Silence
from services.kit.logs import get_logger

log = get_logger(__name__)

BEHIND: Final = 5_000
"""Records that a partition may be behind before it is read alone, in one go."""
GATHER_SECONDS: Final = 5.0
"""How long one partition is gathered at most."""
STEP: Final = 100
"""Records that are taken before their bytes are counted, see `_more`."""
PARTITIONS_SECONDS: Final = 60.0
"""How long a topic is taken to have the partitions that it had."""
_NO_TOPIC: Final = 3
_CALL_SECONDS: Final = 10.0
_FETCH_BYTES: Final = 4 << 20
_FETCH_WAIT_MS: Final = 50
"""How long the broker holds a fetch that finds nothing. Where records lie unread for longer than 0.1 s, the client
fetches the other partitions meanwhile, and what comes to theirs then waits for that fetch to end (there is one at a
time for each broker). Each fetch costs the broker half a millisecond and more: an idle service is made of them.
"""


class KafkaLog:
    """A `Log`."""

    def __init__(self, bootstrap: Where, topic: str, *, group: str | None = None, client_id: str = "mailroom") -> None:
        """`group` = under which name positions are told to lag tools; None = they are not."""
        self._topic = topic
        self._group = group
        self._connection = connection(bootstrap).arguments(client_id)
        self._bootstrap = bootstrap
        self._options: dict[str, Any] = {
            "group_id": group,
            "enable_auto_commit": False,
            "auto_offset_reset": "none",
            "isolation_level": "read_committed",
            "fetch_max_bytes": 4 * _FETCH_BYTES,
            "max_partition_fetch_bytes": _FETCH_BYTES,
            "fetch_max_wait_ms": _FETCH_WAIT_MS,
            "check_crcs": True,
        }
        self._consumer: AIOKafkaConsumer | None = None
        self._silence: Silence | None = None
        self._positions: dict[TopicPartition, int] = {}
        self._blocked: dict[int, tuple[str, float]] = {}
        self._suspects: set[TopicPartition] = set()
        """Read alone, in ever smaller steps: something that cannot be read lies within the next records of each."""
        self._turn = 0
        self._all: list[TopicPartition] = []
        self._all_until = 0.0

    async def start(self) -> None:
        consumer = AIOKafkaConsumer(**self._connection, **self._options)
        try:
            await bounded(consumer.start(), _CALL_SECONDS)
        except (KafkaError, TimeoutError, OSError) as error:
            with suppress(Exception):
                await bounded(consumer.stop(), 2)
            raise await unreachable(self._bootstrap, error) from error
        self._consumer = consumer
        self._silence = Silence(consumer, SystemClock())

    async def stop(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            with suppress(Exception):
                await bounded(consumer.stop(), 5)

    async def bounds(self) -> dict[int, tuple[int, int]]:
        consumer = self._connected()
        try:
            return await bounded(self._bounds(consumer), _CALL_SECONDS)
        except (KafkaError, TimeoutError) as error:
            raise Unavailable("Kafka", f"cannot tell the bounds of {self._topic}: {type(error).__name__}") from error

    def assign(self, positions: Mapping[int, int]) -> None:
        consumer, before = self._connected(), self._positions
        self._positions = {TopicPartition(self._topic, each): at for each, at in positions.items()}
        still = {each.partition for each, at in self._positions.items() if before.get(each) == at}
        self._blocked = {each: why for each, why in self._blocked.items() if each in still}
        self._suspects.intersection_update(self._positions)
        consumer.assign(list(self._positions))
        if self._silence is not None:
            self._silence.forget()
        for partition, offset in self._positions.items():  # without it a partition would start anywhere
            consumer.seek(partition, offset)

    async def read(self, wait: float, most: int, most_bytes: int) -> dict[int, list[LogRecord]]:
        consumer = self._connected()
        await self._try_blocked(consumer)
        deep: TopicPartition | None = None
        found: dict[TopicPartition, list[Any]] = {}
        try:
            deep = self._far_behind(consumer)
            if deep is not None:
                found = await self._gather(consumer, deep, most, most_bytes)
            elif readable := self._readable():
                found = await self._take(consumer, readable, wait, most_bytes)
            elif not self._suspects:
                await asyncio.sleep(wait)
            for partition in sorted(self._suspects):
                found |= await self._alone(consumer, partition)
        except IllegalStateError:
            return {}  # assigned anew meanwhile
        except Exception as error:  # noqa: BLE001 - whatever a batch in the log makes the client raise
            log.warning("fetching failed, looking at each partition alone", topic=self._topic, error=repr(error))
            found = await self._each_alone(consumer)
        for partition, records in found.items():
            self._positions[partition] = records[-1].offset + 1
        if self._silence is not None:
            self._silence.note(found, () if found else self._readable() if deep is None else (deep,))
        return {partition.partition: records for partition, records in found.items() if records}

    async def position(self, partition: int) -> int | None:
        wanted = TopicPartition(self._topic, partition)
        known = self._positions.get(wanted)
        if known is None or partition in self._blocked:
            return known
        with suppress(KafkaError, TimeoutError):
            async with asyncio.timeout(1):
                return max(known, int(await self._connected().position(wanted)))
        return known

    def blocked(self) -> Mapping[int, str]:
        silent = {} if self._silence is None else self._silence.silent()
        return {
            **{each.partition: f"Kafka has not answered for {seconds:.0f} s" for each, seconds in silent.items()},
            **{partition: why for partition, (why, _) in self._blocked.items()},
        }

    async def commit(self, positions: Mapping[int, int]) -> None:
        if self._consumer is None or self._group is None:
            return
        offsets = {TopicPartition(self._topic, each): at for each, at in positions.items()}
        with suppress(Exception):
            await bounded(self._consumer.commit(offsets), 2)

    def _far_behind(self, consumer: AIOKafkaConsumer) -> TopicPartition | None:
        """The next partition in turn that is far behind."""
        late = [
            each
            for each in sorted(self._readable(), key=lambda each: each.partition)
            if (consumer.highwater(each) or 0) - self._positions[each] > BEHIND
        ]
        if not late:
            return None
        self._turn += 1
        return late[self._turn % len(late)]

    async def _take(
        self, consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition], wait: float, most_bytes: int
    ) -> dict[TopicPartition, list[Any]]:
        """What has been fetched of these partitions, up to `BEHIND` records."""
        taken: dict[TopicPartition, list[Any]] = {}
        left, size, step, timeout_ms = BEHIND, 0, STEP, int(wait * 1000)
        while left > 0 and size < most_bytes:
            found = await consumer.getmany(*partitions, timeout_ms=timeout_ms, max_records=min(step, left))
            for partition, records in found.items():
                taken.setdefault(partition, []).extend(records)
                left -= len(records)
                size += bytes_of(records)
            if sum(map(len, found.values())) < step:
                break  # that was all
            step, timeout_ms = _more(step, BEHIND - left, size, most_bytes), 0
        return taken

    async def _gather(
        self, consumer: AIOKafkaConsumer, partition: TopicPartition, most: int, most_bytes: int
    ) -> dict[TopicPartition, list[Any]]:
        gathered: list[Any] = []
        size, step, until = 0, STEP, time.monotonic() + GATHER_SECONDS
        while len(gathered) < most and size < most_bytes and time.monotonic() < until:
            found = await consumer.getmany(partition, timeout_ms=300, max_records=min(step, most - len(gathered)))
            if not found:
                break
            gathered += found[partition]
            size += bytes_of(found[partition])
            step = _more(step, len(gathered), size, most_bytes)
            if gathered[-1].offset + 1 >= (consumer.highwater(partition) or 0):
                break  # waiting for more would only be waiting
        return {partition: gathered} if gathered else {}

    async def _each_alone(self, consumer: AIOKafkaConsumer) -> dict[TopicPartition, list[Any]]:
        """After a failed fetch, which drops what it had taken of other partitions too: back to where each was."""
        found: dict[TopicPartition, list[Any]] = {}
        for partition in self._readable():
            found |= await self._alone(consumer, partition)
        if not found and len(self._blocked) == len(self._positions):
            raise Unavailable("Kafka", f"no partition of {self._topic} can be read")
        return found

    async def _alone(self, consumer: AIOKafkaConsumer, partition: TopicPartition) -> dict[TopicPartition, list[Any]]:
        """Records of one partition from where it is, {} when there are none. As many as can be read before what cannot;
        blocks the partition when that comes next.
        """
        size = BEHIND
        while True:
            try:
                consumer.seek(partition, self._positions[partition])
                found: dict[TopicPartition, list[Any]] = await consumer.getmany(
                    partition, timeout_ms=300, max_records=size
                )
            except IllegalStateError:
                return {}  # assigned anew meanwhile
            except Exception as error:  # noqa: BLE001 - whatever a batch in the log makes the client raise
                if size > 1 and not isinstance(error, OffsetOutOfRangeError):
                    size = max(1, size // 8)
                    self._suspects.add(partition)
                    continue
                why = f"{type(error).__name__} at offset {self._positions[partition]}"
                log.critical("partition cannot be read", topic=self._topic, partition=partition.partition, reason=why)
                self._blocked[partition.partition] = (why, time.monotonic() + BLOCKED_SECONDS)
                self._suspects.discard(partition)
                consumer.pause(partition)
                return {}
            if size == BEHIND and found:
                self._suspects.discard(partition)
            return found

    async def _try_blocked(self, consumer: AIOKafkaConsumer) -> None:
        """Look whether a partition that could not be read can be now, without disturbing the others."""
        for number, (_, until) in list(self._blocked.items()):
            if until < time.monotonic():
                del self._blocked[number]
                partition = TopicPartition(self._topic, number)
                if partition in self._positions:
                    consumer.resume(partition)
                    await self._alone(consumer, partition)
                    if number not in self._blocked:
                        consumer.seek(partition, self._positions[partition])

    def _readable(self) -> list[TopicPartition]:
        return [each for each in self._positions if each.partition not in self._blocked and each not in self._suspects]

    async def _bounds(self, consumer: AIOKafkaConsumer) -> dict[int, tuple[int, int]]:
        partitions = await self._partitions()
        first = await consumer.beginning_offsets(partitions)
        last = await consumer.end_offsets(partitions)
        return {each.partition: (first[each], last[each]) for each in partitions}

    async def _partitions(self) -> list[TopicPartition]:
        if not self._all or time.monotonic() > self._all_until:
            admin = AIOKafkaAdminClient(**self._connection)
            try:
                await admin.start()
                (described,) = await admin.describe_topics([self._topic])
            finally:
                await admin.close()
            if described["error_code"] == _NO_TOPIC:
                raise PermanentError("noTopic", f"topic {self._topic} does not exist: run `mailroom topics apply`")
            if described["error_code"] or not described["partitions"]:
                raise Unavailable("Kafka", f"no word on the partitions of {self._topic}")
            self._all = [
                TopicPartition(self._topic, each) for each in sorted(p["partition"] for p in described["partitions"])
            ]
            self._all_until = time.monotonic() + PARTITIONS_SECONDS
        return self._all

    def _connected(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            raise Unavailable("Kafka", "not connected")
        return self._consumer


def _more(step: int, count: int, size: int, most_bytes: int) -> int:
    """How many records to take next: twice as many as before, or as fit if they are like those so far."""
    fit = (most_bytes - size) * count // size if size else BEHIND
    return max(STEP, min(2 * step, fit, BEHIND))
