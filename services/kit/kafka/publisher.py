"""Publishing: the port, and Kafka behind it.

FastStream's broker gives lifecycle, settings and AsyncAPI. The records go straight to the aiokafka producer that it
holds: FastStream's `publish` costs twice the CPU a record (45 against 22 µs) and has no results by item for batches.
"""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

from aiokafka import AIOKafkaProducer
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaConnectionError, MessageSizeTooLargeError, RecordListTooLargeError
from faststream.kafka import KafkaBroker

from contracts.topics import Topic
from services.kit.clock import Clock, SystemClock
from services.kit.errors import PermanentError, TransientError, Unavailable
from services.kit.kafka.bounded import bounded
from services.kit.kafka.broker import LARGEST_RECORD_BYTES, build_broker
from services.kit.kafka.connection import Where, connection
from services.kit.kafka.diagnosis import explained, not_allowed
from services.kit.logs import get_logger
from services.kit.metrics import PUBLISH_FAILED, PUBLISH_SECONDS, PUBLISHED, Metrics

log = get_logger(__name__)

PROBE_SECONDS = 3.0
"""How often an idle producer asks whether Kafka is there; its word counts for `FRESH_SECONDS`."""

FRESH_SECONDS = 10.0
_CONNECT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A record to publish. `key` decides its partition; None = any."""

    topic: str
    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


class Publisher(Protocol):
    """Publishes records."""

    @property
    def healthy(self) -> bool:
        """Whether what is published now will probably be acknowledged. Whoever can leave work where it lies (SQS)
        takes none while this is False.
        """
        ...

    async def publish(self, items: Sequence[Outgoing]) -> list[Exception | None]:
        """Publish all, and say for each in order what became of it. None: all in-sync replicas have it. PermanentError
        (`tooLarge`, `unpublishable`): it will never be taken. TransientError: nobody knows, it may still arrive later;
        publish it again under the same id. Records of one key that are acknowledged keep their order. Takes the
        delivery time-out at most, and raises nothing but a cancellation.
        """
        ...


class KafkaPublisher:
    """A `Publisher` on Kafka: acks from all replicas, idempotent, batches of 5 ms.

    Comes back by itself after Kafka was away, also when it was away at the start. A producer that was refused a batch
    (its sequence numbers have a hole then), or hangs while the cluster answers, is replaced by a new one.
    """

    def __init__(
        self,
        bootstrap: Where,
        *,
        publishes: Iterable[Topic] = (),
        delivery_seconds: float = 10.0,
        clock: Clock | None = None,
        metrics: Metrics | None = None,
        **options: Any,
    ) -> None:
        """Connects to nothing yet. `publishes`: the topics that it may publish to; () = any. `options`: further ones of
        `build_broker`.
        """
        self._to = connection(bootstrap)
        self._publishes = tuple(publishes)
        self._declared = frozenset(topic.name for topic in self._publishes)
        self._delivery_seconds = delivery_seconds
        self._clock = clock or SystemClock()
        self._metrics = metrics or Metrics()
        self._options = options
        self.broker = self._build()
        """FastStream's broker, for AsyncAPI."""
        self._producer: AIOKafkaProducer | None = None
        self._care: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._connected = asyncio.Event()
        self._good_at: float | None = None
        self._failing = False
        self._timeouts = 0
        self._broken = False
        self._stopping = False
        self._trouble = ""

    @property
    def healthy(self) -> bool:
        if self._producer is None or self._good_at is None or self._failing or self._broken or self._stopping:
            return False
        return self._clock.monotonic() - self._good_at < FRESH_SECONDS

    @property
    def trouble(self) -> str:
        """Why it is not healthy, for people; "" = it is."""
        return "" if self.healthy else self._trouble or "the producer has had no acknowledgement lately"

    async def start(self, timeout: float = 5.0) -> None:
        """Connect, and stay connected from now on. Returns when connected, or after `timeout` seconds without."""
        if self._care is None:
            self._care = asyncio.create_task(self._stay_connected(), name="publisher")
        with suppress(TimeoutError):
            await bounded(self._connected.wait(), timeout)

    async def stop(self, timeout: float = 2.0) -> None:
        """Hand over what was given already, for `timeout` seconds at most."""
        self._stopping = True
        if self._care is not None:
            self._care.cancel()
            await asyncio.wait({self._care}, timeout=1.0)
        self._producer = None
        await _disconnect(self.broker, timeout)

    async def publish(self, items: Sequence[Outgoing]) -> list[Exception | None]:
        producer = self._producer
        if producer is None or self._stopping:
            why = "the publisher stops" if self._stopping else self._trouble or "not connected"
            return [Unavailable("Kafka", why)] * len(items)
        began = perf_counter()
        results: list[Exception | None] = [None] * len(items)
        futures: list[tuple[int, asyncio.Future[object]]] = []
        answered = 0
        try:
            async with asyncio.timeout(self._delivery_seconds):
                for index, item in enumerate(items):
                    await self._hand_over(producer, index, item, futures, results)
                for index, future in futures:
                    try:
                        await future
                    except Exception as failure:  # noqa: BLE001 - whatever Kafka said, it is this record's answer
                        results[index] = self._refused(items[index], failure)
                    answered += 1
        except TimeoutError:
            self._not_in_time(items, results, futures, answered)
        finally:
            for _, future in futures[answered:]:
                future.cancel()
        self._note(items, results, perf_counter() - began)
        return results

    async def _hand_over(
        self,
        producer: AIOKafkaProducer,
        index: int,
        item: Outgoing,
        futures: list[tuple[int, "asyncio.Future[object]"]],
        results: list[Exception | None],
    ) -> None:
        if self._declared and item.topic not in self._declared:
            results[index] = PermanentError("unpublishable", f"{item.topic} is not among the topics of this process")
            return
        try:
            future = await producer.send(item.topic, item.value, item.key, headers=list(item.headers))
        except Exception as failure:  # noqa: BLE001 - one record's refusal is not the others'
            results[index] = _not_sent(item, failure)
        else:
            futures.append((index, future))

    def _refused(self, item: Outgoing, failure: Exception) -> Exception:
        """What the broker said no to. Its sequence numbers were taken, so whatever follows would be out of order."""
        self._broken = True
        self._wake.set()
        if isinstance(failure, MessageSizeTooLargeError | RecordListTooLargeError):
            return PermanentError("tooLarge", f"{item.topic} takes smaller records than {len(item.value)} bytes")
        return _unavailable(item, failure)

    def _not_in_time(
        self,
        items: Sequence[Outgoing],
        results: list[Exception | None],
        futures: Sequence[tuple[int, "asyncio.Future[object]"]],
        answered: int,
    ) -> None:
        acknowledged = {index for index, _ in futures[:answered]}
        for index, future in futures[answered:]:
            if future.done() and not future.cancelled() and future.exception() is None:
                acknowledged.add(index)
        for index, item in enumerate(items):
            if index not in acknowledged and results[index] is None:
                detail = f"{item.topic}: no acknowledgement within {self._delivery_seconds:g} s; it may still arrive"
                results[index] = TransientError(f"Kafka: {detail}")
        self._timeouts += 1
        self._wake.set()

    def _note(self, items: Sequence[Outgoing], results: Sequence[Exception | None], seconds: float) -> None:
        self._metrics.observe(PUBLISH_SECONDS, seconds)
        counts: dict[tuple[str, bool], int] = {}
        for item, result in zip(items, results, strict=True):
            slot = (item.topic, result is None)
            counts[slot] = counts.get(slot, 0) + 1
        for (topic, acknowledged), count in counts.items():
            self._metrics.inc(PUBLISHED if acknowledged else PUBLISH_FAILED, count, topic=topic)
        if any(isinstance(result, TransientError) for result in results):
            self._failing = True
            self._wake.set()
        elif any(result is None for result in results):
            self._good()
            self._timeouts = 0

    def _good(self) -> None:
        self._good_at = self._clock.monotonic()
        self._failing = False
        self._trouble = ""

    async def _stay_connected(self) -> None:
        pause = 0.2
        while True:
            self._wake.clear()
            try:
                if self._producer is None or self._broken or self._timeouts >= 2:
                    await self._connect()
                await self._probe()
                pause = 0.2
            except Exception as failure:  # noqa: BLE001 - it must try for ever
                pause = min(pause * 2, PROBE_SECONDS)
                self._trouble = await explained(self._to, failure)
                log.warning("Kafka does not answer the producer", error=self._trouble)
                await self._clock.sleep(pause)
                continue
            with suppress(TimeoutError):
                await bounded(self._wake.wait(), PROBE_SECONDS)
            if self._wake.is_set():
                await self._clock.sleep(pause)

    async def _connect(self) -> None:
        await self._ask_metadata()  # first, since FastStream leaves a half-started producer behind when this fails
        old, new = self.broker, self._build()
        await bounded(new.connect(), _CONNECT_SECONDS)
        self.broker = new
        if self._producer is not None:
            log.warning("the producer was replaced", refused=self._broken, timeouts=self._timeouts)
        self._producer = self.broker.config.producer._producer.producer  # type: ignore[attr-defined]  # noqa: SLF001
        self._broken, self._timeouts = False, 0
        self._good()
        self._connected.set()
        log.info("producer connected", bootstrap=self._to.bootstrap)
        await _disconnect(old, 2.0)

    async def _probe(self) -> None:
        """Unless publishing shows that Kafka is there, ask it."""
        fresh = self._good_at is not None and self._clock.monotonic() - self._good_at < PROBE_SECONDS
        if self._producer is None or (fresh and not self._failing):
            return
        if not await bounded(self._producer.client.force_metadata_update(), PROBE_SECONDS):
            raise KafkaConnectionError("no broker answers")
        self._good()

    async def _ask_metadata(self) -> None:
        client = AIOKafkaClient(**self._to.arguments("mailroom-probe"))
        try:
            await bounded(client.bootstrap(), PROBE_SECONDS)
        finally:
            await bounded(client.close(), PROBE_SECONDS)

    def _build(self) -> KafkaBroker:
        return build_broker(self._to, publishes=self._publishes, **self._options)


async def _disconnect(broker: KafkaBroker, timeout: float) -> None:
    """Hand over what it holds and close it, as far as that goes in `timeout` seconds."""
    try:
        await bounded(broker.stop(), timeout)
    except Exception as failure:  # noqa: BLE001 - it is given up either way
        log.warning("the producer did not stop in order", error=repr(failure))


def _not_sent(item: Outgoing, failure: Exception) -> Exception:
    """What the client did not even send; nothing else suffers from it."""
    if isinstance(failure, MessageSizeTooLargeError):
        detail = f"{item.topic}: {len(item.value)} bytes of value, {LARGEST_RECORD_BYTES} fit with all the rest"
        return PermanentError("tooLarge", detail)
    if isinstance(failure, TypeError | ValueError):
        return PermanentError("unpublishable", f"{item.topic}: {failure}")
    return _unavailable(item, failure)


def _unavailable(item: Outgoing, failure: Exception) -> Unavailable:
    again = Unavailable("Kafka", f"{item.topic}: {not_allowed(failure) or type(failure).__name__}")
    again.__cause__ = failure
    return again
