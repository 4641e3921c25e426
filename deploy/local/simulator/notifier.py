"""From what happens to a mail to messages on SNS: in time, in order unless asked otherwise, ten at a time."""

import asyncio
import sys
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson

from deploy.local.simulator import faults
from deploy.local.simulator.behaviours import Step, timeline
from deploy.local.simulator.emulator import Emulator, EmulatorUnavailable, Topics
from deploy.local.simulator.events import Mail, render, timestamp
from deploy.local.simulator.faults import Faults, malform
from deploy.local.simulator.journal import Journal

_BATCH = 10
_BATCH_BYTES = 240_000
_GATHER_SECONDS = 0.005
"""Waited before a call, so that ten share it: a call costs this process and the emulator as much as five messages."""

_RETRY_SECONDS = (0.1, 0.2, 0.5, 1.0)
_REFUSED_TRIES = 5


_Slot = list[tuple[Step, str | None, str]]
"""What is published at one moment of a mail's way: the step, the recipient it is about, the topic."""


@dataclass(slots=True)
class _Notification:
    topic: str
    message: bytes
    kind: str
    provider_message_id: str
    recipient: str | None
    faults: tuple[str, ...] = ()
    tries: int = 0


class Notifier:
    """Publishes until `stop`. What it published is in the journal, one line each, duplicates included.

    One call to SNS after the other, so that notifications reach it in the order of their times. An emulator that
    does not answer is asked again for ever: SES, too, would deliver later.
    """

    def __init__(self, emulator: Emulator, rules: Faults, journal: Journal, step_seconds: float) -> None:
        self.step_seconds = step_seconds
        self.pending = 0
        self.published = 0
        self._emulator = emulator
        self._faults = rules
        self._journal = journal
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Notification] = deque()
        self._wake = asyncio.Event()
        self._generation = 0
        self._task = self._loop.create_task(self._publish())

    def accepted(self, mail: Mail, suppressed: frozenset[str], topics: Topics) -> None:
        """Plan all notifications of a mail that was just accepted: one step each `step_seconds`."""
        slots: list[_Slot] = []
        for step, recipient in timeline(mail.destination, suppressed):
            slots.append([(step, recipient, topic) for topic, kinds in topics.items() if step.kind in kinds])
        self.pending += sum(map(len, slots))
        self._loop.call_soon(self._advance, mail, slots, 0, self._generation)

    def inject(self, topic: str, message: bytes) -> None:
        """Publish this, whatever it is."""
        self.pending += 1
        self._enqueue(_Notification(topic, message, "injected", "", None), self._generation)

    async def drain(self, seconds: float) -> bool:
        """Wait until nothing is pending, at most `seconds`; whether that came to be."""
        deadline = self._loop.time() + seconds
        while self.pending and self._loop.time() < deadline:  # noqa: ASYNC110 - used once, at the end
            await asyncio.sleep(0.01)
        return not self.pending

    def forget(self) -> None:
        """Drop what is pending."""
        self._generation += 1
        self._queue.clear()
        self.pending = 0

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    # --- planning ----------------------------------------------------------------------------------------------------

    def _advance(self, mail: Mail, slots: list[_Slot], number: int, generation: int) -> None:
        """Make the notifications of one slot, then plan the next: one after the other, or timers could overtake."""
        if generation != self._generation or number == len(slots):
            return
        for step, recipient, topic in slots[number]:
            self._make(mail, step, recipient, topic)
        self._loop.call_later(self.step_seconds, self._advance, mail, slots, number + 1, generation)

    def _make(self, mail: Mail, step: Step, recipient: str | None, topic: str) -> None:
        destination = mail.destination
        if self._faults.draw(faults.SILENT, "SendEmail", destination):
            self.pending -= 1
            return
        message = render(step, mail, recipient, datetime.now(UTC))
        marks, copies, wait = [], 1, 0.0
        if fault := self._faults.draw(faults.DUPLICATE, "SendEmail", destination):
            copies = fault.copies
            marks.append(fault.kind)
        if fault := self._faults.draw(faults.MALFORMED, "SendEmail", destination):
            message = malform(message, fault.how)
            marks.append(fault.kind)
        if fault := self._faults.draw(faults.LATE, "SendEmail", destination):
            seconds = fault.ms / 1000
            wait = seconds if fault.kind == "delay" else self._faults.uniform(seconds)
            marks.append(fault.kind)
        self.pending += copies - 1
        for _ in range(copies):
            notification = _Notification(topic, message, step.kind, mail.provider_message_id, recipient, tuple(marks))
            if wait:
                self._loop.call_later(wait, self._enqueue, notification, self._generation)
            else:
                self._enqueue(notification, self._generation)

    def _enqueue(self, notification: _Notification, generation: int) -> None:
        if generation != self._generation:
            return
        self._queue.append(notification)
        self._wake.set()

    # --- publishing --------------------------------------------------------------------------------------------------

    async def _publish(self) -> None:
        while True:
            await self._wake.wait()
            await asyncio.sleep(_GATHER_SECONDS)
            self._wake.clear()
            while self._queue:
                batch = _batch(self._queue)
                generation = self._generation
                ids = await self._send(batch, generation)
                if generation == self._generation:
                    self._note(batch, ids)
                if len(batch) < _BATCH:
                    await asyncio.sleep(_GATHER_SECONDS)

    async def _send(self, batch: list[_Notification], generation: int) -> list[str | None]:
        failures = 0
        while generation == self._generation:
            try:
                return await self._emulator.publish(batch[0].topic, [each.message for each in batch])
            except EmulatorUnavailable as error:
                wait = _RETRY_SECONDS[min(failures, len(_RETRY_SECONDS) - 1)]
                failures += 1
                if failures in (1, 10, 100):
                    print(
                        f"simulator: publishing to SNS fails and is tried again: {error}", file=sys.stderr, flush=True
                    )
                await asyncio.sleep(wait)
        return []

    def _note(self, batch: list[_Notification], ids: list[str | None]) -> None:
        now = timestamp(datetime.now(UTC))
        lines = []
        for notification, sns_id in zip(batch, ids, strict=True):
            if sns_id is None and notification.tries < _REFUSED_TRIES:
                notification.tries += 1
                self._queue.append(notification)
                continue
            self.pending -= 1
            if sns_id is None:
                print("simulator: SNS refuses a notification; it is dropped.", file=sys.stderr, flush=True)
                continue
            self.published += 1
            lines.append(
                orjson.dumps(
                    {
                        "at": now,
                        "snsMessageId": sns_id,
                        "eventType": notification.kind,
                        "providerMessageId": notification.provider_message_id,
                        "recipient": notification.recipient,
                        "faults": notification.faults,
                        "topicArn": notification.topic,
                    }
                )
            )
        if lines:
            self._journal.write(lines)


def _batch(queue: deque[_Notification]) -> list[_Notification]:
    """The next notifications that go into one call: one topic, ten at most, within SNS's size."""
    first = queue.popleft()
    batch, size = [first], len(first.message)
    while queue and len(batch) < _BATCH and queue[0].topic == first.topic:
        size += len(queue[0].message)
        if size > _BATCH_BYTES:
            break
        batch.append(queue.popleft())
    return batch
