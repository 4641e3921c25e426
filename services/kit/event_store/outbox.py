"""Publishing what was appended, in the background, many streams at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from services.kit.clock import Clock
from services.kit.event_store.port import Stream
from services.kit.event_store.relay import StreamPublisher
from services.kit.event_store.waiting import first_of
from services.kit.health import Progress

OUTBOX_LIMIT = 20_000
GATHER_SECONDS = 0.02
"""How long the first of a batch waits for others: a stream's next event is often only milliseconds away."""

MARK_SECONDS = 1.0
"""How often it is noted what was published: well within the relay's patience of 5 s."""


class Outbox:
    """Publishes appended streams in the background, many at once. A `LoopComponent` runs it.

    What it does not get out (a crash, Kafka away, too much at once) is the relay's business. That it got out is noted
    in the store every `MARK_SECONDS`, so that a stream that grows fast costs one note and not one an event; a crash
    before that makes events go out again, under the same ids.
    """

    def __init__(self, publisher: StreamPublisher, clock: Clock, progress: Progress) -> None:
        self._publisher, self._clock, self.progress = publisher, clock, progress
        self._waiting: dict[str, Stream] = {}
        self._work = asyncio.Event()

    def put(self, streams: Iterable[Stream]) -> None:
        """Take on streams that were just appended to; returns at once."""
        for stream in streams:
            known = self._waiting.get(stream.stream_id)
            if (known is None and len(self._waiting) < OUTBOX_LIMIT) or (known and known.version < stream.version):
                self._waiting[stream.stream_id] = stream
                self._work.set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Publish until told to stop, and then what is left."""
        marked_at = self._clock.monotonic()
        while not (stopping.is_set() and not self._waiting):
            await first_of(self._clock, MARK_SECONDS, self._work, stopping)
            if self._clock.monotonic() - marked_at >= MARK_SECONDS:
                await self._publisher.mark(self._waiting.keys())
                marked_at = self._clock.monotonic()
            if not self._waiting:
                self.progress.idle()
                continue
            if not stopping.is_set():
                await self._clock.sleep(GATHER_SECONDS)
            batch, self._waiting = self._waiting, {}
            self._work.clear()
            done = await self._publisher.publish(batch.values(), mark=False)
            if len(done.failed) == len(batch):
                self.progress.waiting("Kafka takes nothing")
            else:
                self.progress.progressed()
        await self._publisher.mark()
