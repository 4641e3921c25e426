"""Marks and checkpoints of what was applied, made beside the next batch: the documents of a batch are not kept waiting.

The order per batch stays documents, statistics marks, checkpoint. Only the last two are behind: what a crash leaves
unmarked or beyond the checkpoint is read and applied again, which changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Final

SPACING_SECONDS: Final = 0.05
"""Between two closings while little comes in: one stands for several small batches."""
MOST_RECORDS: Final = 20_000
"""Applied and not closed, from which on the next batch waits: what a crash makes to be read again stays bounded."""

Close = Callable[[list[str], dict[int, int]], Awaitable[None]]
"""(buckets to be marked, then positions to be recorded by partition) → durable when it returns."""


class Closing:
    """For one task at a time. What a closing failed with is raised by the next call; then `drop` and read anew."""

    def __init__(self, close: Close, spacing: float = SPACING_SECONDS, most: int = MOST_RECORDS) -> None:
        self._close = close
        self._spacing = spacing
        self._most = most
        self._buckets: set[str] = set()
        self._positions: dict[int, int] = {}
        self._records = 0
        self._running: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()

    @property
    def is_settled(self) -> bool:
        """Whether everything that was added is durable."""
        return self._running is None and not self._positions

    async def add(self, buckets: Iterable[str], positions: Mapping[int, int], records: int) -> None:
        """Have these marked and recorded soon: their documents are durable."""
        self._buckets.update(buckets)
        self._positions.update(positions)
        self._records += records
        if self._records >= self._most:
            await self.settle()
        else:
            await self.look()

    async def look(self) -> None:
        """Raise what a closing failed with, and begin the next one if there is anything to close."""
        if self._running is not None and self._running.done():
            ended, self._running = self._running, None
            await ended
        if self._running is None and self._positions:
            self._hurry.clear()
            self._running = asyncio.create_task(self._run(), name="closing")

    async def settle(self) -> None:
        """Return when everything that was added is durable."""
        while not self.is_settled:
            await self.look()
            if self._running is not None:
                self._hurry.set()
                await asyncio.wait({self._running})

    async def drop(self) -> None:
        """Forget what is not durable yet; it is to be applied again."""
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await running
        self._buckets, self._positions, self._records = set(), {}, 0

    async def _run(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._spacing):
                await self._hurry.wait()
        buckets, self._buckets = self._buckets, set()
        positions, self._positions = self._positions, {}
        self._records = 0
        await self._close(sorted(buckets), positions)
