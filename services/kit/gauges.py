"""Levels that nobody meets in passing and that have to be looked up: once every ten seconds, in one process a service.

A look that fails changes no gauge and no health: that the store is away is told by those who work with it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from services.kit.clock import Clock
from services.kit.errors import MailroomError
from services.kit.event_store.port import EventStore
from services.kit.health import Progress
from services.kit.logs import get_logger
from services.kit.metrics import DUE_STREAMS, PARKED_OPEN, Metrics
from services.kit.parking import ParkKind

log = get_logger(__name__)

LOOK_SECONDS = 10.0

Look = Callable[[], Awaitable[None]]
"""Looks one thing up and sets its gauges."""


class Counted(Protocol):
    """Where parked records are counted."""

    async def counts(self) -> Mapping[tuple[str, ParkKind], int]: ...


def parked_open(lot: Counted, metrics: Metrics) -> Look:
    """How many records are parked, for each consumer and kind; one that was seen once stays, with 0."""
    seen: set[tuple[str, ParkKind]] = set()

    async def look() -> None:
        counts = await lot.counts()
        seen.update(counts)
        for consumer, kind in seen:
            metrics.set(PARKED_OPEN, counts.get((consumer, kind), 0), consumer=consumer, kind=kind)

    return look


def due_streams(store: EventStore, lanes: Sequence[str], clock: Clock, metrics: Metrics) -> Look:
    """How many streams wait to be taken, by lane."""

    async def look() -> None:
        for lane, count in (await store.due_counts(lanes, clock.now())).items():
            metrics.set(DUE_STREAMS, count, lane=lane)

    return look


async def keep_looking(looks: Sequence[Look], clock: Clock, progress: Progress, stopping: asyncio.Event) -> None:
    """The body of a `LoopComponent`: all looks, every `LOOK_SECONDS`. One that is under way at the end is given up."""
    looking = asyncio.create_task(_look_again(looks, clock, progress, stopping))
    told = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({looking, told}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (looking, told):
            task.cancel()
        await asyncio.gather(looking, told, return_exceptions=True)


async def _look_again(looks: Sequence[Look], clock: Clock, progress: Progress, stopping: asyncio.Event) -> None:
    while not stopping.is_set():
        for look in looks:
            try:
                await look()
            except MailroomError as error:
                log.info("a level cannot be looked up for now", error=str(error))
            except Exception:
                log.exception("a level cannot be looked up")
        progress.idle()
        await clock.sleep(LOOK_SECONDS)
