"""Working on rebuilds: a worker that fills a generation, and what looks for rebuilds that nobody works on."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Final

from services.events.ports import BLOCKED_SECONDS, Generation, GenerationStore, LeaseStore, Trouble
from services.events.projector import Pace, Projector
from services.events.rebuild import Rebuild, is_unfinished
from services.kit.clock import Clock
from services.kit.errors import MailroomError, PermanentError, RefusedHere, TransientError
from services.kit.logs import get_logger
from services.kit.redaction import redact_text
from services.kit.retry import Backoff

log = get_logger(__name__)

BACKFILL: Final = Pace(most=100_000, wait=0.2, fresh=True)
"""A partition is read in chunks that hold most messages whole, so that each document is written about once."""
LOOK_SECONDS: Final = 1.0
TELL_SECONDS: Final = 10.0
"""How often it is told again that a partition cannot be read: another worker may have told of another one."""
_ERROR_CHARACTERS: Final = 500
_TOLD_OTHERWISE: Final = frozenset({"differs", "abandoned"})
"""Reasons for which a rebuild ends that its report or stage tells."""


async def backfill(
    generation: int,
    store: GenerationStore,
    leases: LeaseStore,
    projector: Callable[[dict[int, int]], Projector],
    stopping: asyncio.Event,
) -> None:
    """Fill a generation until `stopping` is set, resting while it is paused. While a partition cannot be read the
    generation tells so, as its trouble.

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
    telling = _Blocked(store, generation)
    try:
        while not stopping.is_set() and not running.done():
            with suppress(TransientError):
                found = await store.get(generation)
                if found is None or found.stage != "backfilling":
                    return
                working.paused = found.paused
                await telling.look(working.blocked())
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await stopping.wait()
    finally:
        working.stop()
        await asyncio.wait({running}, timeout=15)


class _Blocked:
    """Tells of a generation which partitions cannot be read, and takes that back once they can."""

    def __init__(self, store: GenerationStore, generation: int) -> None:
        self._store = store
        self._generation = generation
        self._looks = 0
        self._told: Mapping[int, str] = {}
        self._told_at = 0.0

    async def look(self, blocked: Mapping[int, str]) -> None:
        now = time.monotonic()
        changed = blocked.keys() != self._told.keys()  # the reasons may count seconds
        if not changed and (not blocked or now - self._told_at < TELL_SECONDS):
            return
        trouble = None
        if blocked:
            self._looks += changed
            at = datetime.now(UTC)
            told = "; ".join(f"partition {each} cannot be read: {why}" for each, why in sorted(blocked.items()))
            again_at = at + timedelta(seconds=BLOCKED_SECONDS)
            trouble = Trouble(redact_text(told)[:_ERROR_CHARACTERS], self._looks, at, again_at)
        await self._store.note_trouble(self._generation, trouble)
        self._told, self._told_at = dict(blocked), now


async def until_input_ends() -> None:
    """Return when standard input is closed: by the parent, or by the parent's death."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()


class RebuildsFound:
    """Runs each rebuild that somebody has asked for (`created`) or left unfinished, one after the other.

    One that fails is tried again, after 1 s and up to 60 s; its generation tells meanwhile why.
    """

    def __init__(
        self,
        store: GenerationStore,
        rebuild: Callable[[], Rebuild],
        clock: Clock,
        *,
        has_fold: Callable[[int], bool] = lambda _: True,
    ) -> None:
        """`has_fold`: whether this build has the fold of that version; rebuilds by other folds are for other builds."""
        self._has_fold = has_fold
        self._store = store
        self._rebuild = rebuild
        self._clock = clock
        self._not_before: dict[int, float] = {}
        self._backoff = Backoff(first=1.0, most=60.0)

    async def turn(self) -> float:
        """Work on one if there is one; how long to rest after it. Raises TransientError: the store is away."""
        active = (await self._store.pointer()).active
        for generation in await self._store.list():
            wanted = active is not None and is_unfinished(generation, active) and self._has_fold(generation.version)
            if wanted and self._clock.monotonic() >= self._not_before.get(generation.number, 0.0):
                await self._run(generation)
                break
        return LOOK_SECONDS

    async def _run(self, generation: Generation) -> None:
        number = generation.number
        if generation.trouble is not None and generation.trouble.again_at is None:
            await self._store.note_trouble(number, None)  # an operator has started this process anew
        try:
            await self._rebuild().run(number)
        except RefusedHere:
            return  # another process does it
        except PermanentError as error:
            self._not_before[number] = inf
            log.error("rebuild stopped: an operator must look at it", generation=number, reason=str(error))  # noqa: TRY400
            if error.reason not in _TOLD_OTHERWISE:
                await self._note(generation, error, None)
        except TransientError as error:
            log.warning("rebuild waits, it goes on where it was", generation=number, reason=str(error))
            await self._note(generation, error, self._put_off(generation))
        except Exception as error:
            log.exception("rebuild failed, it is tried again where it was", generation=number)
            await self._note(generation, error, self._put_off(generation))
        else:
            await self._store.note_trouble(number, None)

    def _put_off(self, generation: Generation) -> float:
        seconds = self._backoff.delay(_failures(generation) + 1)
        self._not_before[generation.number] = self._clock.monotonic() + seconds
        return seconds

    async def _note(self, generation: Generation, error: Exception, seconds: float | None) -> None:
        told = str(error) if isinstance(error, MailroomError) else f"{type(error).__name__}: {error}"
        now = self._clock.now()
        again_at = None if seconds is None else now + timedelta(seconds=seconds)
        trouble = Trouble(redact_text(told)[:_ERROR_CHARACTERS], _failures(generation) + 1, now, again_at)
        with suppress(TransientError):  # the store itself is what is away
            await self._store.note_trouble(generation.number, trouble)


def _failures(generation: Generation) -> int:
    return 0 if generation.trouble is None else generation.trouble.failures
