"""From SQS to Kafka: every SES notification, raw, onto `email.notifications`.

A message is deleted from the queue only after Kafka has acknowledged it (`acks=all`), so a crash between the two
repeats it and loses nothing; the facts made of it have the same ids both times. Nothing is received while the
producer is not healthy: every receive counts towards the queue's `maxReceiveCount`, and an outage of Kafka must not
empty the queue into its dead-letter queue.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, Protocol

from pydantic_core import from_json

from contracts.topics import EMAIL_NOTIFICATIONS
from services.email.right_of_way import RightOfWay
from services.kit.aws import foreign_errors
from services.kit.clock import Clock
from services.kit.errors import MailroomError, PermanentError
from services.kit.kafka.publisher import Outgoing, Publisher
from services.kit.logs import get_logger

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
        publisher: Publisher,
        clock: Clock,
        metrics: IngestMetrics,
        *,
        pollers: int = 4,
        wait_seconds: int = 10,
        visibility_seconds: int = 60,
        right_of_way: RightOfWay | None = None,
    ) -> None:
        """`visibility_seconds`: how long a received message is hidden. Longer than a publish may take, so that it is
        rarely received twice. `right_of_way`: of the sender in the same process.
        """
        self._right_of_way = right_of_way or RightOfWay(clock)
        self._sqs, self._queue_url, self._publisher = sqs, queue_url, publisher
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
            await self._right_of_way.step_aside()
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
        results = await self._publisher.publish([_outgoing(message) for message in messages])
        kept = []
        for message, error in zip(messages, results, strict=True):
            if error is None:
                kept.append(message)
            elif isinstance(error, PermanentError):
                # It stays on the queue and ends, whole, in the dead-letter queue, which has an alarm of its own.
                log.error("ingest.unpublishable", sqs_message_id=message["MessageId"], error=str(error))
        if kept:
            await self._delete(kept)
        self._metrics.deleted(len(kept))
        self._metrics.failed(len(messages) - len(kept))

    async def _delete(self, messages: Sequence[dict[str, Any]]) -> None:
        entries = [{"Id": str(n), "ReceiptHandle": message["ReceiptHandle"]} for n, message in enumerate(messages)]
        with foreign_errors("SQS"):
            answer = await self._sqs.delete_message_batch(QueueUrl=self._queue_url, Entries=entries)
        if failed := answer.get("Failed"):
            # They come again after the visibility time-out and make the same facts.
            log.warning("ingest.notDeleted", count=len(failed))


def _outgoing(message: dict[str, Any]) -> Outgoing:
    body: str = message["Body"]
    attributes = message.get("Attributes") or {}
    transport_id = _sns_message_id(body) or message.get("MessageId")
    headers = [
        ("source", b"ses"),
        ("via", b"sqs"),
        # The queue's policy admits one SNS topic, the topic's admits SES alone: that is the verdict on its origin.
        ("verified", b"queue-policy"),
        ("sqs-message-id", str(message.get("MessageId", "")).encode()),
        ("sqs-sent-timestamp", str(attributes.get("SentTimestamp", "")).encode()),
        ("receive-count", str(attributes.get("ApproximateReceiveCount", "")).encode()),
    ]
    key = transport_id.encode() if transport_id else None
    return Outgoing(EMAIL_NOTIFICATIONS.name, key, body.encode(), tuple(headers))


def _sent_at(message: dict[str, Any], otherwise: float) -> float:
    try:
        return int(message["Attributes"]["SentTimestamp"]) / 1000
    except (KeyError, ValueError):
        return otherwise


def _sns_message_id(body: str) -> str | None:
    """The SNS MessageId: SNS repeats it on redelivery, SQS makes a new one of its own."""
    try:
        value = from_json(body)  # unlike the standard library's, it takes neither deep nesting nor lone surrogates
    except ValueError:
        return None
    found = value.get("MessageId") if isinstance(value, dict) else None
    return found if isinstance(found, str) else None
