"""From SQS to Kafka: every notification on a queue, raw, onto a topic.

A message is deleted from the queue only after Kafka has acknowledged all that was made of it (`acks=all`), so a crash
between the two repeats it and loses nothing; the facts made of it have the same ids both times. Nothing is received
while the producer is not healthy: every receive counts towards the queue's `maxReceiveCount`, and an outage of Kafka
must not empty the queue into its dead-letter queue.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol, TypeAlias

from services.kit import metrics as m
from services.kit.aws import foreign_errors
from services.kit.clock import Clock
from services.kit.component import Part
from services.kit.errors import MailroomError, PermanentError
from services.kit.health import Report
from services.kit.kafka.publisher import Outgoing, Publisher
from services.kit.logs import get_logger
from services.kit.metrics import Metrics

log = get_logger(__name__)

RECEIVE_AT_MOST = 10
"""What SQS gives in one call at most."""

GATHER_SECONDS = 0.03
"""Pause after a receive that brought few, so that the next one brings more: SQS answers as soon as it has one."""

CROWD, FEW = 5, 2
"""A receive of so many calls all pollers in, one of so few sends them away. SQS rarely fills a receive, even with
thousands waiting, so counting on full ones would leave a single poller alone with them."""

IDLE_WHILE_UNHEALTHY = 0.5
PAUSE_AFTER_ERROR = (0.2, 5.0)


SqsMessage: TypeAlias = Mapping[str, Any]
"""A message as SQS gives it: MessageId, Body, Attributes."""

Split: TypeAlias = Callable[[SqsMessage], Sequence[Outgoing]]
"""The records that a message becomes; none where it says nothing. Pure, and raises nothing: what cannot be read goes
to the topic as it came, so that it is parked there and not lost.
"""


class IngestMetrics(Protocol):
    """What ingest counts."""

    def received(self, ages: Sequence[float]) -> None:
        """Messages taken from the queue, by the seconds that each lay there."""

    def deleted(self, count: int) -> None:
        """Messages acknowledged by Kafka and deleted from the queue."""

    def failed(self, count: int) -> None:
        """Messages left on the queue because publishing or deleting failed; they come again."""


class Ingest:
    """Long-polls one queue: with one poller while receives bring few, with all of them while they bring many.

    After a crash at any point each message is on Kafka, or still on the queue, or both; never neither.
    """

    def __init__(
        self,
        sqs: Any,
        queue_url: str,
        split: Split,
        publisher: Publisher,
        clock: Clock,
        metrics: IngestMetrics,
        *,
        pollers: int = 4,
        wait_seconds: int = 10,
        visibility_seconds: int = 60,
        before_receiving: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`visibility_seconds`: how long a received message is hidden. Longer than a publish may take, so that it is
        rarely received twice. `before_receiving`: awaited before each receive, for work that goes first.
        """
        self._before_receiving = before_receiving
        self._sqs, self._queue_url, self._split, self._publisher = sqs, queue_url, split, publisher
        self._clock, self._metrics = clock, metrics
        self._pollers, self._wait_seconds, self._visibility_seconds = pollers, wait_seconds, visibility_seconds
        self._stopping = False
        self._crowded = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._beats = [0.0] * pollers
        self._trouble: str | None = None

    async def start(self) -> None:
        """Begin polling; returns at once."""
        self._beats = [self._clock.monotonic()] * self._pollers
        self._tasks = [asyncio.create_task(self._poll(n), name=f"ingest-{n}") for n in range(self._pollers)]

    async def stop(self, timeout: float = 8.0) -> None:
        """Stop within `timeout` seconds: a message in hand is published and deleted, an idle poll is given up."""
        self._stopping = True
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=min(timeout, 1.0))
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=timeout)

    def health(self) -> tuple[bool, dict[str, object]]:
        """Alive while every poller has finished a poll lately; a queue that cannot be reached is no reason to die."""
        slowest = self._clock.monotonic() - min(self._beats)
        dead = [task.get_name() for task in self._tasks if task.done() and not self._stopping]
        return not dead and slowest < self._wait_seconds + 60, {
            "secondsSinceSlowestPoll": round(slowest, 1),
            "deadPollers": dead,
            "trouble": self._trouble,
            "producerHealthy": self._publisher.healthy,
        }

    async def _poll(self, number: int) -> None:
        pause = PAUSE_AFTER_ERROR[0]
        while not self._stopping:
            self._beats[number] = self._clock.monotonic()
            if number and not self._crowded.is_set():
                await self._until_crowded()
                continue
            if not self._publisher.healthy:
                self._trouble = "waiting for Kafka: receiving now would only wear messages out"
                await self._clock.sleep(IDLE_WHILE_UNHEALTHY)
                continue
            if self._before_receiving is not None:
                await self._before_receiving()
            try:
                messages = await self._receive()
                if len(messages) >= CROWD:
                    self._crowded.set()
                elif len(messages) <= FEW:
                    self._crowded.clear()
                if messages:
                    # Shielded: once received, publish and delete are carried through even when we are told to stop.
                    await asyncio.shield(self._forward(messages))
                    if not self._crowded.is_set():
                        await self._clock.sleep(GATHER_SECONDS)
                self._trouble, pause = None, PAUSE_AFTER_ERROR[0]
            except MailroomError as error:
                self._trouble = str(error)
                log.warning("ingest.trouble", error=str(error), retry_in=pause)
                await self._clock.sleep(pause)
                pause = min(pause * 2, PAUSE_AFTER_ERROR[1])

    async def _until_crowded(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._wait_seconds):
                await self._crowded.wait()

    async def _receive(self) -> list[dict[str, Any]]:
        with foreign_errors("SQS"):
            answer = await self._sqs.receive_message(
                QueueUrl=self._queue_url,
                MaxNumberOfMessages=RECEIVE_AT_MOST,
                WaitTimeSeconds=self._wait_seconds,
                VisibilityTimeout=self._visibility_seconds,
                AttributeNames=["SentTimestamp", "ApproximateReceiveCount"],
            )
        messages: list[dict[str, Any]] = answer.get("Messages") or []
        now = self._clock.now().timestamp()
        self._metrics.received([max(0.0, now - _sent_at(message, now)) for message in messages])
        return messages

    async def _forward(self, messages: Sequence[dict[str, Any]]) -> None:
        split = [self._split(message) for message in messages]
        results = iter(await self._publisher.publish([item for items in split for item in items]))
        done = []
        for message, items in zip(messages, split, strict=True):
            errors = [error for error in islice(results, len(items)) if error is not None]
            if not errors:
                done.append(message)
            for error in errors:
                if isinstance(error, PermanentError):
                    # It stays on the queue and ends, whole, in the dead-letter queue, which has an alarm of its own.
                    log.error("ingest.unpublishable", sqs_message_id=message.get("MessageId"), error=str(error))
        if done:
            await self._delete(done)
        self._metrics.deleted(len(done))
        self._metrics.failed(len(messages) - len(done))

    async def _delete(self, messages: Sequence[dict[str, Any]]) -> None:
        entries = [{"Id": str(n), "ReceiptHandle": message["ReceiptHandle"]} for n, message in enumerate(messages)]
        with foreign_errors("SQS"):
            answer = await self._sqs.delete_message_batch(QueueUrl=self._queue_url, Entries=entries)
        if failed := answer.get("Failed"):
            # They come again after the visibility time-out and make the same facts.
            log.warning("ingest.notDeleted", count=len(failed))


def how_it_came(message: SqsMessage, source: str) -> tuple[tuple[str, bytes], ...]:
    """The headers of a record made of `message`: whose notification it is, and what its transport knows."""
    attributes = message.get("Attributes") or {}
    return (
        ("source", source.encode()),
        ("via", b"sqs"),
        # The queue's policy names who may write to it, and each of those admits one source alone: that is the verdict
        # on its origin.
        ("verified", b"queue-policy"),
        ("sqs-message-id", str(message.get("MessageId", "")).encode()),
        ("sqs-sent-timestamp", str(attributes.get("SentTimestamp", "")).encode()),
        ("receive-count", str(attributes.get("ApproximateReceiveCount", "")).encode()),
    )


def _sent_at(message: SqsMessage, otherwise: float) -> float:
    try:
        return int(message["Attributes"]["SentTimestamp"]) / 1000
    except (KeyError, ValueError):
        return otherwise


def ingest_part(ingest: Ingest) -> Part:
    """The poller as a component of a process."""
    return Part(ingest.start, ingest.stop, lambda: ingest_report(ingest.health()))


def ingest_report(health: tuple[bool, dict[str, object]]) -> Report:
    """The poller's own word, as a component's."""
    live, detail = health
    dead = detail.get("deadPollers")
    return Report(
        live=live,
        ready=live and detail.get("trouble") is None,
        detail=detail,
        died=f"pollers ended by themselves: {dead}" if dead else None,
    )


class IngestCounts:
    """`IngestMetrics` in the list of metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def received(self, ages: Sequence[float]) -> None:
        """Taken from the queue, by the seconds that each lay there."""
        self._metrics.inc(m.NOTIFICATIONS_RECEIVED, len(ages), source="sqs")
        for age in ages:
            self._metrics.observe(m.NOTIFICATION_AGE_SECONDS, age, source="sqs")

    def deleted(self, count: int) -> None:
        """Acknowledged by Kafka and let go."""
        if count:
            self._metrics.inc(m.NOTIFICATIONS_RELEASED, count, source="sqs")

    def failed(self, count: int) -> None:
        """Left on the queue: the difference between the two above tells it."""
