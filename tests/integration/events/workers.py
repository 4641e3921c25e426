"""Workers of a rebuild in the test's own process: what a test needs that does not kill them starts at once."""

from __future__ import annotations

import asyncio

from services.events.composing import ReadingSide
from services.events.entrypoints.replayer import BACKFILL, backfill


class WorkersHere:
    """`Workers` as tasks, each a projector of its own as far as leases go."""

    def __init__(self, side: ReadingSide, count: int = 2) -> None:
        self._side = side
        self._count = count
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, generation: int) -> None:
        self._stopping = asyncio.Event()
        self._tasks = [asyncio.create_task(self._work(generation, self._stopping)) for _ in range(self._count)]

    async def revive(self) -> None:
        for task in self._tasks:
            if task.done():
                task.result()

    async def stop(self) -> None:
        self._stopping.set()
        await asyncio.gather(*self._tasks)
        self._tasks = []

    async def _work(self, generation: int, stopping: asyncio.Event) -> None:
        side = self._side
        await backfill(
            generation,
            side.generations,
            side.leases(generation),
            lambda begins: side.projector(generation, pace=BACKFILL, begins=lambda: begins, processes=self._count),
            stopping,
        )
