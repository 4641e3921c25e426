"""What SendGrid and Mailgun report, posted to a URL: signed, and again until it is taken."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import aiohttp
import orjson

from deploy.local.simulator import faults
from deploy.local.simulator.behaviours import Step
from deploy.local.simulator.events import timestamp
from deploy.local.simulator.faults import Faults, malform
from deploy.local.simulator.journal import Journal
from deploy.local.simulator.submission import Submission

MADE_KEPT = 20_000
"""Events that a provider's log has."""

_GATHER_SECONDS = 0.02
"""Waited before a call, so that events share it where they may. SendGrid waits up to 30 s."""

_RETRY_SECONDS = (0.1, 0.2, 0.5, 1.0)
_TIMEOUT = aiohttp.ClientTimeout(total=30)


@dataclass(frozen=True, slots=True)
class Reported:
    """An accepted mail."""

    provider_message_id: str
    submission: Submission


@dataclass(frozen=True, slots=True)
class Post:
    """A call as it goes out, the same each time it is repeated."""

    headers: dict[str, str]
    body: bytes


class Reports(Protocol):
    """How one provider reports, with a key."""

    most_events: int
    """In one call."""
    stops: frozenset[int]
    """Statuses beside 2xx after which a call is not repeated."""

    def steps(self, recipient: str) -> tuple[Step, ...]:
        """What happens to a recipient, in order."""
        ...

    def event(self, step: Step, mail: Reported, recipient: str, now: float, *, late: bool) -> bytes | None:
        """The JSON of one event; None where the provider tells of no such thing. `late`: it comes after a delivery."""
        ...

    def post(self, events: Sequence[bytes], now: float) -> Post:
        """A signed call with these."""
        ...


@dataclass(frozen=True, slots=True)
class _Event:
    data: bytes
    kind: str
    provider_message_id: str
    recipient: str
    faults: tuple[str, ...]


class Webhook:
    """Posts one provider's reports to one URL until `stop`. What was answered with a 2xx, or with a status that stops,
    is in the journal, one line for each event, duplicates included.
    """

    def __init__(
        self, provider: str, operation: str, reports: Reports, url: str, rules: Faults, journal: Journal
    ) -> None:
        """`operation`: by which faults name this provider's sends. Events of one mail have 20 ms between them."""
        self.provider, self.url = provider, url
        self.pending = 0
        self.posted = 0
        self.step_seconds = 0.02
        self._operation, self._reports, self._faults, self._journal = operation, reports, rules, journal
        self._loop = asyncio.get_running_loop()
        self._session = aiohttp.ClientSession(timeout=_TIMEOUT)
        self._queue: deque[_Event] = deque()
        self.made: deque[tuple[float, str, bytes]] = deque(maxlen=MADE_KEPT)
        """Time, recipient and event of what was made, whether or not it was posted: a provider's log."""
        self._wake = asyncio.Event()
        self._calls: set[asyncio.Task[None]] = set()
        self._generation = 0
        self._task = self._loop.create_task(self._run())

    def accepted(self, mail: Reported) -> None:
        """Plan all reports of a mail that was just accepted."""
        for recipient in mail.submission.destination:
            steps = self._reports.steps(recipient)
            self.pending += len(steps)
            self._loop.call_soon(self._advance, mail, recipient, steps, 0, self._generation)

    def forget(self) -> None:
        """Drop what is pending."""
        self._generation += 1
        self._queue.clear()
        self.made.clear()
        self.pending = 0

    async def stop(self) -> None:
        """End all calls."""
        self.forget()
        tasks = [self._task, *self._calls]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._session.close()

    # --- planning ----------------------------------------------------------------------------------------------------

    def _advance(self, mail: Reported, recipient: str, steps: tuple[Step, ...], number: int, generation: int) -> None:
        if generation != self._generation or number == len(steps):
            return
        step = steps[number]
        late = step.kind == "Bounce" and any(earlier.kind == "Delivery" for earlier in steps[:number])
        self._make(mail, recipient, step, late=late)
        self._loop.call_later(self.step_seconds, self._advance, mail, recipient, steps, number + 1, generation)

    def _make(self, mail: Reported, recipient: str, step: Step, *, late: bool) -> None:
        now = time.time()
        data = self._reports.event(step, mail, recipient, now, late=late)
        if data is not None:
            self.made.append((now, recipient, data))
        addresses = (recipient,)
        if data is None or self._faults.draw(faults.SILENT, self._operation, addresses):
            self.pending -= 1
            return
        marks: list[str] = []
        copies, wait = 1, 0.0
        if fault := self._faults.draw(faults.DUPLICATE, self._operation, addresses):
            copies = fault.copies
            marks.append(fault.kind)
        if fault := self._faults.draw(faults.MALFORMED, self._operation, addresses):
            data = malform(data, fault.how)
            marks.append(fault.kind)
        if fault := self._faults.draw(faults.LATE, self._operation, addresses):
            seconds = fault.ms / 1000
            wait = seconds if fault.kind == "delay" else self._faults.uniform(seconds)
            marks.append(fault.kind)
        self.pending += copies - 1
        event = _Event(data, step.kind, mail.provider_message_id, recipient, tuple(marks))
        for _ in range(copies):
            if wait:
                self._loop.call_later(wait, self._enqueue, event, self._generation)
            else:
                self._enqueue(event, self._generation)

    def _enqueue(self, event: _Event, generation: int) -> None:
        if generation == self._generation:
            self._queue.append(event)
            self._wake.set()

    # --- posting -----------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        """One call after the other, so that reports come in their order; one that is refused holds up no other."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(_GATHER_SECONDS)
            self._wake.clear()
            while self._queue:
                size = min(self._reports.most_events, len(self._queue))
                events = [self._queue.popleft() for _ in range(size)]
                post = self._reports.post([event.data for event in events], time.time())
                generation = self._generation
                if not await self._call(post, events, generation):
                    task = self._loop.create_task(self._repeat(post, events, generation))
                    self._calls.add(task)
                    task.add_done_callback(self._calls.discard)

    async def _repeat(self, post: Post, events: list[_Event], generation: int) -> None:
        failures = 0
        while generation == self._generation:
            await asyncio.sleep(_RETRY_SECONDS[min(failures, len(_RETRY_SECONDS) - 1)])
            failures += 1
            if await self._call(post, events, generation):
                return

    async def _call(self, post: Post, events: list[_Event], generation: int) -> bool:
        """Whether it is done with."""
        status = 0
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with self._session.post(
                self.url, data=post.body, headers=post.headers, allow_redirects=False
            ) as answer:
                status = answer.status
        if not 200 <= status < 300 and status not in self._reports.stops:
            return False
        if generation == self._generation:
            self._note(events, status)
        return True

    def _note(self, events: list[_Event], status: int) -> None:
        self.pending -= len(events)
        self.posted += len(events)
        now = timestamp(datetime.now(UTC))
        self._journal.write(
            orjson.dumps(
                {
                    "at": now,
                    "provider": self.provider,
                    "eventType": event.kind,
                    "providerMessageId": event.provider_message_id,
                    "recipient": event.recipient,
                    "faults": event.faults,
                    "url": self.url,
                    "status": status,
                }
            )
            for event in events
        )


class Webhooks:
    """The webhooks that are configured, one a provider at most."""

    def __init__(self, rules: Faults, journal: Journal) -> None:
        self._faults, self._journal = rules, journal
        self._set: dict[str, Webhook] = {}

    @property
    def pending(self) -> int:
        """Events that are planned and not taken yet."""
        return sum(each.pending for each in self._set.values())

    @property
    def posted(self) -> int:
        """Events that were taken."""
        return sum(each.posted for each in self._set.values())

    async def configure(self, provider: str, operation: str, reports: Reports, url: str) -> None:
        """Report mail that is accepted from now on there; what was pending elsewhere is dropped."""
        if (before := self._set.pop(provider, None)) is not None:
            await before.stop()
        self._set[provider] = Webhook(provider, operation, reports, url, self._faults, self._journal)

    def accepted(self, provider: str, mail: Reported) -> None:
        """A mail was accepted."""
        if (webhook := self._set.get(provider)) is not None:
            webhook.accepted(mail)

    def made(self, provider: str) -> list[tuple[float, str, bytes]]:
        """Time, recipient and event of what a provider had to report, the oldest first."""
        webhook = self._set.get(provider)
        return [] if webhook is None else list(webhook.made)

    def forget(self) -> None:
        """Drop what is pending."""
        for webhook in self._set.values():
            webhook.forget()

    async def stop(self) -> None:
        """End all calls, and forget the webhooks."""
        for webhook in self._set.values():
            await webhook.stop()
        self._set.clear()
