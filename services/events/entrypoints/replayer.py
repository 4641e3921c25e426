"""Working on rebuilds: a worker that fills a generation, and what looks for rebuilds that nobody works on."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from services.events.ports import GenerationStore, LeaseStore
from services.events.projector import Pace, Projector
from services.events.rebuild import Rebuild, is_unfinished
from services.kit.errors import PermanentError, RefusedHere, TransientError
from services.kit.logs import get_logger

log = get_logger(__name__)

BACKFILL: Final = Pace(most=100_000, wait=0.2, fresh=True)
"""A partition is read in chunks that hold most messages whole, so that each document is written about once."""
LOOK_SECONDS: Final = 1.0


async def backfill(
    generation: int,
    store: GenerationStore,
    leases: LeaseStore,
    projector: Callable[[dict[int, int]], Projector],
    stopping: asyncio.Event,
) -> None:
    """Fill a generation until `stopping` is set, resting while it is paused.

    Args:
        generation: its number; its leases are seeded.
        store: the projection's generations.
        leases: of this generation.
        projector: makes the projector, given where each partition begins.
        stopping: set when the work is over or the parent is gone.
    """
    working = projector({lease.partition: lease.begin for lease in await leases.view()})
    found = await store.get(generation)
    working.paused = found is None or found.paused
    running = asyncio.create_task(working.run())
    try:
        while not stopping.is_set() and not running.done():
            with suppress(TransientError):
                found = await store.get(generation)
                if found is None or found.stage != "backfilling":
                    return
                working.paused = found.paused
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await stopping.wait()
    finally:
        working.stop()
        await asyncio.wait({running}, timeout=15)


async def until_input_ends() -> None:
    """Return when standard input is closed: by the parent, or by the parent's death."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()


class RebuildsFound:
    """Runs each rebuild that somebody has asked for (`created`) or left unfinished, one after the other."""

    def __init__(self, store: GenerationStore, rebuild: Callable[[], Rebuild]) -> None:
        self._store = store
        self._rebuild = rebuild
        self._given_up: set[int] = set()

    async def turn(self) -> float:
        """Work on one if there is one; how long to rest after it."""
        active = (await self._store.pointer()).active
        for generation in await self._store.list():
            number = generation.number
            if active is not None and is_unfinished(generation, active) and number not in self._given_up:
                await self._run(number)
                break
        return LOOK_SECONDS

    async def _run(self, number: int) -> None:
        try:
            await self._rebuild().run(number)
        except RefusedHere:
            return  # another process does it
        except PermanentError as error:
            self._given_up.add(number)
            log.error("rebuild stopped: an operator must look at it", generation=number, reason=str(error))  # noqa: TRY400
