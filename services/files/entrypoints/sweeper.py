"""Time is an entrypoint: every file is looked at once when its upload is over, whatever S3 has told or not, and one
with a lifetime when that is over. No rule of the bucket deletes a file, so that nothing can contradict the settings.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final

from services.files.domain.commands import Look
from services.files.domain.file import due_at
from services.files.handlers import LOOKS_TO_CLOSE, Files
from services.files.streams import LANE
from services.kit.clock import Clock
from services.kit.errors import PermanentError, RefusedHere, TransientError
from services.kit.event_store.waiting import first_of
from services.kit.health import Progress
from services.kit.logs import get_logger

log = get_logger(__name__)

EVERY_SECONDS: Final = 5.0
BATCH: Final = 50
AT_ONCE: Final = 8
"""Files of a batch that are looked at at the same time."""

LEASE_FOR: Final = timedelta(minutes=5)
"""Longer than a batch of looks takes; what a dead process held is looked at by another one after it."""


class Sweeper:
    """Run as a `LoopComponent`. Several at once share the work by leases."""

    def __init__(self, files: Files, owner: str, clock: Clock, progress: Progress) -> None:
        self._files, self._owner, self._clock, self._progress = files, owner, clock, progress

    async def run(self, stopping: asyncio.Event) -> None:
        """Sweep until told to stop."""
        while not stopping.is_set():
            more = False
            try:
                more = await self.sweep()
                self._progress.progressed()
            except TransientError as error:
                self._progress.waiting(str(error))
            await first_of(self._clock, 0.1 if more else EVERY_SECONDS, stopping)

    async def sweep(self) -> bool:
        """Look at what is due; whether there is more. Raises the first TransientError once all have had their turn:
        what failed comes again when its lease is over, and keeps nobody else waiting.
        """
        store = self._files.streams.store
        due = await store.lease_due([(LANE, BATCH)], self._owner, LEASE_FOR, self._clock.now())
        places = asyncio.Semaphore(AT_ONCE)
        trouble: list[TransientError] = []

        async def look(file_id: str) -> None:
            async with places:
                try:
                    await self._look(file_id)
                except (PermanentError, RefusedHere) as error:
                    log.error("a file cannot be swept", aggregate_id=file_id, error=str(error))  # noqa: TRY400
                except TransientError as error:
                    trouble.append(error)
                # Where each look waits long for S3, a batch takes longer than a loop that lives may be silent.
                if not trouble:
                    self._progress.progressed()
                else:
                    self._progress.waiting(str(trouble[0]))

        async with asyncio.TaskGroup() as tasks:  # none outlives the sweep, however it ends
            for stream in due:
                tasks.create_task(look(stream.stream_id))
        if trouble:
            raise trouble[0]
        return len(due) == BATCH

    async def _look(self, file_id: str) -> None:
        """Look until nothing is left to do now. What an interrupted one leaves is due again."""
        for _ in range(LOOKS_TO_CLOSE):
            held = await self._files.look(file_id, lambda seen: Look(seen, "sweeper"))
            due = due_at(held.state, self._files.streams.policy)
            if due is None or due > self._clock.now():
                return
