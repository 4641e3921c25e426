"""A real cluster in a test's hands: topics and groups of its own, records of every sort, and the judge.

The judge is the invariant of the consumer loop: no offset is committed past a record that is not handled.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError
from aiokafka.protocol.group import LeaveGroupRequest
from aiokafka.record.util import calc_crc32c

from services.kit.kafka.consumer_loop import DONE, BatchHandler, ConsumerLoop, Limits, Outcome, Record
from services.kit.metrics import Metrics
from services.kit.parking import ParkingLot
from services.kit.testing.parking import MemoryParkingLot

SHORT = Limits(
    wait=0.2, start=20.0, drain=2.0, rebalance=6.0, session=6.0, heartbeat=0.5, poll=30.0, commit=3.0, stuck=10.0
)

HANG = 180.0
"""Seconds that only something that hangs takes."""

Origin = tuple[str, int, int]

_CRC_AT, _CRC_FROM = 17, 21  # record batch v2: the checksum, and where what it covers begins


async def until(condition: Callable[[], bool], seconds: float = HANG, what: str = "") -> None:
    """Wait for a condition, looking often; AssertionError after `seconds`."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"not within {seconds:g} s: {what or condition}"
        await asyncio.sleep(0.02)


@dataclass
class Ledger:
    """What handlers did: every record with how often, and the keys' orders."""

    counts: Counter[Origin] = field(default_factory=Counter)
    orders: dict[tuple[str, int, bytes], list[int]] = field(default_factory=dict)

    def note(self, records: Iterable[Record]) -> None:
        for record in records:
            self.counts[record.origin] += 1
            if record.key is not None:
                self.orders.setdefault((record.topic, record.partition, record.key), []).append(record.offset)

    @property
    def handled(self) -> int:
        """How many different records."""
        return len(self.counts)

    async def handler(self, records: Sequence[Record]) -> Sequence[Outcome]:
        """A handler that does nothing but note."""
        self.note(records)
        return [DONE] * len(records)

    def keys_in_order(self) -> bool:
        """Whether each record of a key was handled first after all earlier ones of that key."""
        return all(list(dict.fromkeys(offsets)) == sorted(set(offsets)) for offsets in self.orders.values())


class Cluster:
    """One Kafka cluster, by its bootstrap address."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap

    async def topic(self, partitions: int = 4) -> str:
        """A new topic."""
        name = f"t-{uuid4().hex[:10]}"
        async with self.admin() as admin:
            await admin.create_topics([NewTopic(name, partitions, 1)])
        return name

    @asynccontextmanager
    async def admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        try:
            await admin.start()
            yield admin
        finally:
            await admin.close()

    @asynccontextmanager
    async def producer(self) -> AsyncIterator[AIOKafkaProducer]:
        producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap, acks="all", linger_ms=5)
        try:
            await producer.start()
            yield producer
        finally:
            await producer.stop()

    async def fill(self, topic: str, count: int, *, keys: int = 50, start: int = 0) -> None:
        """`count` records, value = number, key = one of `keys`."""
        async with self.producer() as producer:
            numbers = range(start, start + count)
            futures = [await producer.send(topic, b"%d" % n, b"key-%d" % (n % keys)) for n in numbers]
            await asyncio.gather(*futures)

    async def put(
        self,
        topic: str,
        partition: int,
        *values: bytes | None,
        key: bytes | None = b"k",
        headers: Sequence[tuple[str, bytes | None]] = (),
    ) -> None:
        """Records into one partition, each a batch of its own."""
        async with self.producer() as producer:
            for value in values:
                batch = producer.create_batch()
                assert batch.append(timestamp=None, key=key, value=value, headers=list(headers)) is not None
                batch.close()
                await (await producer.send_batch(batch, topic, partition=partition))

    async def put_unreadable(
        self, topic: str, partition: int, readable_before: int = 0, readable_after: int = 0
    ) -> None:
        """A batch that aiokafka cannot decode: one of its records has a header key that is not UTF-8."""
        async with self.producer() as producer:
            batch = producer.create_batch()
            for n in range(readable_before):
                batch.append(timestamp=None, key=b"k", value=b"fine %d" % n, headers=[])
            batch.append(timestamp=None, key=b"k", value=b"bad", headers=[("ZZZZ", b"x")])
            for n in range(readable_after):
                batch.append(timestamp=None, key=b"k", value=b"fine %d" % n, headers=[])
            raw = bytearray(batch._build())
            at = raw.rindex(b"ZZZZ")
            raw[at : at + 4] = b"\xff\xfe\xfd\xfc"
            raw[_CRC_AT:_CRC_FROM] = calc_crc32c(bytes(raw[_CRC_FROM:])).to_bytes(4, "big")
            batch._buffer = raw
            await (await producer.send_batch(batch, topic, partition=partition))

    async def ends(self, topic: str) -> dict[TopicPartition, int]:
        """End offset of each partition."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap)
        try:
            await consumer.start()
            await consumer._client._wait_on_metadata(topic)
            partitions = [TopicPartition(topic, n) for n in consumer.partitions_for_topic(topic)]
            found: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
            return found
        finally:
            await consumer.stop()

    async def committed(self, group: str) -> dict[TopicPartition, int]:
        """What the group has committed."""
        async with self.admin() as admin:
            found = await admin.list_consumer_group_offsets(group)
        return {partition: committed.offset for partition, committed in found.items()}

    async def expel(self, group: str) -> None:
        """Throw all members out, so that a test need not wait for the session of a killed one to end. Those alive
        join again: a rebalance without a warning.
        """
        async with self.admin() as admin:
            coordinator = await admin.find_coordinator(group)
            for response in await admin.describe_consumer_groups([group]):
                for _error, _group, _state, _type, _protocol, members, *_ in response.groups:
                    for member in members:
                        await admin._send_request(LeaveGroupRequest(group, member[0]), coordinator)

    async def all_committed(self, group: str, topic: str) -> bool:
        """Whether the group has committed up to the end."""
        committed, ends = await self.committed(group), await self.ends(topic)
        return all(committed.get(partition, 0) >= end for partition, end in ends.items())

    async def await_position(self, group: str, partition: TopicPartition, offset: int) -> None:
        """Wait until the group has committed this offset of a partition; AssertionError when it goes past it."""
        async with asyncio.timeout(HANG):
            while (found := (await self.committed(group)).get(partition, 0)) != offset:
                assert found < offset, f"{found} is committed, past {offset}"
                await asyncio.sleep(0.02)

    async def await_committed(self, group: str, topic: str) -> None:
        """Wait until the group has committed up to the end."""
        deadline = asyncio.get_running_loop().time() + HANG
        while not await self.all_committed(group, topic):
            late = asyncio.get_running_loop().time() > deadline
            assert not late, f"not committed to the end: {await self.committed(group)}"
            await asyncio.sleep(0.05)


class Judge:
    """Watches a group all the time a test runs: what is committed was handled (or parked) before."""

    def __init__(self, cluster: Cluster, group: str, settled: Callable[[], Mapping[Origin, int] | set[Origin]]) -> None:
        self._cluster = cluster
        self._group = group
        self._settled = settled
        self.looks = 0
        self._passed: dict[TopicPartition, int] = {}

    async def look(self) -> None:
        """Look once. AssertionError when an offset is committed past a record that is not settled."""
        committed = await self._cluster.committed(self._group)
        settled = self._settled()  # after the offsets: it only grows
        for partition, offset in committed.items():
            for passed in range(self._passed.get(partition, 0), offset):
                assert (*partition, passed) in settled, f"{partition} is committed at {offset}, past {passed}"
            self._passed[partition] = max(offset, self._passed.get(partition, 0))
        self.looks += 1

    @asynccontextmanager
    async def watching(self) -> AsyncIterator["Judge"]:
        """Look every 50 ms, and once more at the end. A broker that is away is no verdict."""

        over = asyncio.Event()

        async def watch() -> None:
            while not over.is_set():  # aiokafka's admin client swallows a cancellation now and then: one of 250, seen
                with suppress(OSError, KafkaError):
                    await self.look()
                await asyncio.sleep(0.05)

        task = asyncio.create_task(watch())
        try:
            yield self
            assert not task.done(), task.exception()
        finally:
            over.set()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self.look()


def new_loop(
    cluster: Cluster,
    group: str,
    topics: Iterable[str],
    handler: BatchHandler,
    parking: ParkingLot | None = None,
    *,
    batch: int = 100,
    limits: Limits = SHORT,
    **options: Any,
) -> ConsumerLoop:
    """A loop with short times."""
    lot = parking or MemoryParkingLot()
    return ConsumerLoop(
        cluster.bootstrap, group, topics, handler, lot, batch=batch, limits=limits, metrics=Metrics(), **options
    )


@asynccontextmanager
async def running(*loops: ConsumerLoop) -> AsyncIterator[None]:
    """Start loops, and stop them whatever happens."""
    for loop in loops:
        await loop.start()
    try:
        yield
    finally:
        await asyncio.gather(*(loop.stop() for loop in loops))


def new_group() -> str:
    """A group's name that nobody has used."""
    return f"g-{uuid4().hex[:10]}"
