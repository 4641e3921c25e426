"""Asks Mailgun about attempts that stay unknown: its webhook for a delivery is not repeated when nobody takes it.

What it finds goes where webhooks put it, in the same form, so that one translator makes the same facts of both: a
report that comes in both ways is heard once. Several pollers at once are harmless.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final

import orjson

from contracts.topics import EMAIL_NOTIFICATIONS
from services.email.domain.notifications import Json
from services.email.handlers import UnknownAttempt, list_unknown
from services.email.ports import NotificationFormat
from services.email.streams import MessageStreams
from services.kit import metrics as m
from services.kit.clock import Clock
from services.kit.errors import RefusedHere, TransientError
from services.kit.event_store.waiting import first_of
from services.kit.health import Progress
from services.kit.kafka.publisher import Outgoing, Publisher
from services.kit.logs import get_logger
from services.kit.metrics import Metrics

log = get_logger(__name__)

EVERY_SECONDS: Final = 15.0
LONGEST_PAUSE: Final = 1800.0
"""Seconds between two questions about one attempt: twice as long after each."""
REFUSED_SECONDS: Final = 300.0
"""Until Mailgun is asked again after it refused to be."""
MOST_QUESTIONS: Final = 100
"""In one look, so that an outage's attempts do not use up what the account may ask."""
CLOCKS_DIFFER: Final = timedelta(minutes=2)
PAGE: Final = 500

Asking = Callable[[str, datetime, datetime], Awaitable[list[Json]]]
"""Events of a recipient from one time to another. Raises RefusedHere, TransientError."""


class MailgunPoller:
    """Run as a `LoopComponent`."""

    def __init__(
        self,
        streams: MessageStreams,
        form: NotificationFormat,
        asking: Asking,
        publisher: Publisher,
        clock: Clock,
        progress: Progress,
        metrics: Metrics,
        *,
        after: timedelta,
    ) -> None:
        """`after`: how long an attempt is left to Mailgun's webhooks."""
        self._streams, self._form, self._asking, self._publisher = streams, form, asking, publisher
        self._clock, self._progress, self._metrics, self._after = clock, progress, metrics, after
        self._every = min(EVERY_SECONDS, after.total_seconds())
        self._asked: dict[str, tuple[float, float]] = {}
        """Attempt → when it may be asked about again (monotonic), and the pause after that."""

    async def run(self, stopping: asyncio.Event) -> None:
        """Ask until told to stop."""
        while not stopping.is_set():
            pause = self._every
            try:
                await self.look()
            except (RefusedHere, TransientError) as error:
                log.warning("mailgun.notAsked", error=str(error))
                self._metrics.inc(m.MAILGUN_QUESTIONS, outcome="failed")
                after = REFUSED_SECONDS if isinstance(error, RefusedHere) else error.retry_after
                pause = max(self._every, after or EVERY_SECONDS)
            self._progress.progressed()  # also where it could not ask: mail goes on without it
            await first_of(self._clock, pause, stopping)

    async def look(self) -> int:
        """Ask about each attempt that is due; how many events were found. Raises RefusedHere, TransientError."""
        waiting = await self._waiting()
        self._asked = {name: self._asked[name] for name in self._asked if name in waiting}
        now, asked, found = self._clock.monotonic(), 0, 0
        for attempt in waiting.values():
            due, pause = self._asked.get(attempt.attempt_id, (now, self._every))
            if due > now or asked == MOST_QUESTIONS:
                continue
            asked += 1
            events = await self._asking(attempt.recipient, attempt.begun_at - CLOCKS_DIFFER, self._clock.now())
            about = [event for event in events if self._is_about(event, attempt)]
            await self._publish(about)
            self._metrics.inc(m.MAILGUN_QUESTIONS, outcome="found" if about else "nothing")
            self._asked[attempt.attempt_id] = now + pause, min(2 * pause, LONGEST_PAUSE)
            found += len(about)
        return found

    async def _waiting(self) -> dict[str, UnknownAttempt]:
        """Unknown attempts through Mailgun that its webhooks have had time to report."""
        before = self._clock.now() - self._after
        found: dict[str, UnknownAttempt] = {}
        at: str | None = None
        while True:
            attempts, at = await list_unknown(self._streams, at, PAGE)
            found |= {
                each.attempt_id: each
                for each in attempts
                if each.provider == self._form.provider and each.begun_at < before
            }
            if at is None:
                return found

    async def _publish(self, events: list[Json]) -> None:
        headers = (("source", self._form.provider.encode()), ("via", b"api"), ("verified", b"api"))
        items = [
            Outgoing(EMAIL_NOTIFICATIONS.name, _key(event), orjson.dumps({"event-data": event}), headers)
            for event in events
        ]
        for error in await self._publisher.publish(items) if items else ():
            if isinstance(error, TransientError):
                raise error
            if error is not None:
                log.error("mailgun.unpublishable", error=str(error))

    def _is_about(self, event: Json, attempt: UnknownAttempt) -> bool:
        found = self._form.correlate(event)
        return found is not None and (found.message_id, found.attempt_id) == (attempt.message_id, attempt.attempt_id)


def _key(event: Json) -> bytes | None:
    found = event.get("id")
    return found.encode() if isinstance(found, str) and found else None
