"""Publishing what was appended, in the background, many streams at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace

from services.kit.clock import Clock
from services.kit.event_store.port import Stream
from services.kit.event_store.relay import PATIENCE, StreamPublisher
from services.kit.event_store.waiting import first_of
from services.kit.health import Progress

OUTBOX_LIMIT = 20_000
GATHER_SECONDS = 0.02
"""How long the first of a batch waits for others: a stream's next event is often only milliseconds away."""

MARK_SECONDS = 1.0
"""How often it is noted what was published: well within the relay's patience of 5 s."""

LOOK_SECONDS = 0.1
"""How often it is looked whether another process has published what comes before ours."""


class Outbox:
    """Publishes appended streams in the background, many at once. A `LoopComponent` runs it.

    Each process publishes what it appended, and no event goes out before the one before it: where that is another
    process's, ours wait until it is noted as published. So nothing goes out twice while all goes well.

    What it does not get out (a crash, Kafka away, too much at once, another process's event that does not come) is the
    relay's business. That it got out is noted in the store every `MARK_SECONDS`, so that a stream that grows fast costs
    one note and not one an event; a crash before that makes events go out again, under the same ids.
    """

    def __init__(
        self, publisher: StreamPublisher, clock: Clock, progress: Progress, *, mark_at_once: bool = False
    ) -> None:
        """`mark_at_once`: for a process whose streams are soon appended to by another one, which waits for the note."""
        self._publisher, self._clock, self.progress = publisher, clock, progress
        self._mark_at_once = mark_at_once
        self._waiting: dict[str, Stream] = {}
        self._early: dict[str, tuple[Stream, float]] = {}  # with when it is left to the relay
        self._work = asyncio.Event()

    def put(self, streams: Iterable[Stream]) -> None:
        """Take on streams that were just appended to; returns at once."""
        for stream in streams:
            known = self._waiting.get(stream.stream_id)
            if (known is None and len(self._waiting) < OUTBOX_LIMIT) or (known and known.version < stream.version):
                self._waiting[stream.stream_id] = _joined(known, stream)
                self._work.set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Publish until told to stop, and then what is left."""
        marked_at = self._clock.monotonic()
        while not (stopping.is_set() and not self._waiting):
            await first_of(self._clock, LOOK_SECONDS if self._early else MARK_SECONDS, self._work, stopping)
            if self._clock.monotonic() - marked_at >= MARK_SECONDS:
                await self._publisher.mark(self._waiting.keys())
                marked_at = self._clock.monotonic()
            if not self._waiting and not self._early:
                self.progress.idle()
                continue
            if self._waiting and not stopping.is_set():
                await self._clock.sleep(GATHER_SECONDS)
            batch = await self._next()
            done = await self._publisher.publish(batch, mark=self._mark_at_once)
            if batch and len(done.failed) == len(batch):
                self.progress.waiting("Kafka takes nothing")
            else:
                self.progress.progressed()
        await self._publisher.mark()

    async def _next(self) -> list[Stream]:
        """What may go out now; the rest waits for its turn, for as long as the relay has patience with it."""
        batch, self._waiting = self._waiting, {}
        self._work.clear()
        now = self._clock.monotonic()
        until = dict.fromkeys(batch, now + PATIENCE.total_seconds())
        for name, (stream, end) in self._early.items():
            if end > now:
                batch[name] = _joined(stream, batch[name]) if name in batch else stream
                until[name] = end
        early = await self._publisher.early(batch.values())
        self._early = {name: (batch[name], until[name]) for name in early}
        return [stream for name, stream in batch.items() if name not in early]


def _joined(before: Stream | None, stream: Stream) -> Stream:
    """The newer one, with what the older one counts as ours."""
    return stream if before is None or before.others >= stream.others else replace(stream, others=before.others)
