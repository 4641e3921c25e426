"""The projector process: works on every generation that is kept up to date, keeps views, statistics and grace."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from services.events.generations import (
    GRACE_SECONDS,
    end_grace,
    ensure_first,
    is_settled,
    settle,
    sweep,
    to_project,
)
from services.events.ports import Generation, GenerationStore, LeaseStore, Log
from services.events.projections.projection import Projection
from services.events.projector import Projector
from services.events.stages import PROJECTED, is_over
from services.kit.clock import Clock
from services.kit.errors import TransientError
from services.kit.health import Report
from services.kit.logs import get_logger

log = get_logger(__name__)

LOOK_SECONDS: Final = 0.5
FOLLOW_SECONDS: Final = 5.0
SWEEP_SECONDS: Final = 300.0
"""Between two looks for what late writers have made of generations that are given up."""
PARTITIONS_SECONDS: Final = 60.0
"""How often it is looked whether partitions were added to the topic."""
SUM_TURN_SECONDS: Final = 10.0
"""How long the statistics of one generation are worked on before the others' turn, and a rest."""
STATISTICS_SHARE: Final = 0.1
"""The part of its time that a process spends on statistics at most."""


class Statistics(Protocol):
    """The buckets of one generation."""

    async def dirty(self) -> list[str]: ...

    async def refresh(self, bucket: str) -> bool: ...


class MakeProjector(Protocol):
    """Makes the projector of a generation."""

    def __call__(self, generation: int, tells_kafka: Callable[[], bool], *, version: int) -> Projector:
        """`tells_kafka`: whether it is the active one now; `version`: of its fold, one of those that the build has."""
        ...


@dataclass(frozen=True, slots=True)
class Parts:
    """What the composition root hands over: how things of one generation are made."""

    projection: Projection
    store: GenerationStore
    log: Callable[[], Log]
    leases: Callable[[int], LeaseStore]
    statistics: Callable[[int], Statistics]
    projector: MakeProjector
    rebuilds: Callable[[], Awaitable[float]]
    """Works on a rebuild if there is one; how long to rest after it."""
    close_releases: Callable[[Mapping[int, int]], Awaitable[None]] | None = None
    """Closes the orders about floods that the active generation's checkpoints, by partition, are past."""
    grace: float = GRACE_SECONDS
    """Seconds for which a generation is kept up to date whose swap was not written to its end by an earlier release."""


class ProjectorService:
    """A `Component`. Finds by itself which generations there are, the first included."""

    def __init__(self, parts: Parts, clock: Clock, *, partitions_seconds: float = PARTITIONS_SECONDS) -> None:
        """`partitions_seconds`: see `PARTITIONS_SECONDS`."""
        self._parts = parts
        self._clock = clock
        self._partitions_seconds = partitions_seconds
        self._to_sum: dict[int, list[str]] = {}
        self._active: int | None = None
        self._running: dict[int, tuple[Projector, asyncio.Task[None]]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._followed_at = -FOLLOW_SECONDS
        self._trouble = "starting"

    async def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._for_ever(self._look, LOOK_SECONDS), name="generations"),
            asyncio.create_task(self._for_ever(self._sum_up, LOOK_SECONDS), name="statistics"),
            asyncio.create_task(self._for_ever(self._parts.rebuilds, LOOK_SECONDS), name="rebuilds"),
            asyncio.create_task(self._for_ever(self._sweep, SWEEP_SECONDS), name="sweep"),
            asyncio.create_task(self._for_ever(self._take_added, self._partitions_seconds), name="partitions"),
        ]

    async def stop(self, timeout: float) -> None:
        for task in self._tasks:
            task.cancel()
        for projector, _ in self._running.values():
            projector.stop()
        tasks = [*self._tasks, *(task for _, task in self._running.values())]
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=timeout)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=1.0)

    def health(self) -> Report:
        """Live and ready as its projectors are; not ready before the first generation is found."""
        reports = {f"g{number}": projector.report() for number, (projector, _) in self._running.items()}
        died = next((number for number, (_, task) in self._running.items() if task.done()), None)
        detail: dict[str, object] = {"active": self._active, **{name: dict(r.detail) for name, r in reports.items()}}
        if self._trouble:
            detail["state"] = self._trouble
        return Report(
            live=all(report.live for report in reports.values()),
            ready=bool(reports) and not self._trouble and all(report.ready for report in reports.values()),
            detail=detail,
            died=None if died is None else f"the projector of generation {died} ended",
        )

    async def _for_ever(self, turn: Callable[[], Awaitable[float]], seconds: float) -> None:
        while True:
            pause = seconds
            try:
                pause = max(seconds, await turn())
            except TransientError as error:
                self._trouble = str(error)
            except Exception:
                self._trouble = "an unexpected error, see the log"
                log.exception("looking after the generations failed")
            await asyncio.sleep(pause)

    async def _look(self) -> float:
        parts = self._parts
        pointer = await parts.store.pointer()
        self._active = pointer.active
        if self._active is None:
            await self._make_first()
        generations = await parts.store.list()
        if not is_settled(pointer, generations):
            await settle(parts.store, grace=parts.grace)
        wanted = {each.number: each.version for each in to_project(generations) if self._has_fold(each)}
        for number in sorted(wanted.keys() - self._running.keys()):
            projector = parts.projector(number, partial(self._is_active, number), version=wanted[number])
            self._running[number] = (projector, asyncio.create_task(projector.run(), name=f"projector-g{number}"))
        for number in self._running.keys() - wanted.keys():
            projector, task = self._running.pop(number)
            projector.stop()
            await asyncio.wait({task}, timeout=10)
        if self._clock.monotonic() - self._followed_at >= FOLLOW_SECONDS:
            await parts.store.follow()
            self._followed_at = self._clock.monotonic()
            await self._end_grace(generations)
            if parts.close_releases is not None and self._active is not None:
                leases = await parts.leases(self._active).view()
                await parts.close_releases({lease.partition: lease.next for lease in leases})
        self._trouble = self._without_writer(generations)
        return LOOK_SECONDS

    def _has_fold(self, generation: Generation) -> bool:
        return self._parts.projection.of(generation.version) is not None

    def _without_writer(self, generations: list[Generation]) -> str:
        """What to say where this build cannot project what is read; "" where it can. Others that have its fold do."""
        active = next((each for each in generations if each.number == self._active), None)
        if active is None or self._has_fold(active):
            return ""
        return self._parts.projection.missing(active.version)

    def _is_active(self, number: int) -> bool:
        return number == self._active

    async def _make_first(self) -> None:
        parts, reader = self._parts, self._parts.log()
        try:
            await reader.start()
            self._active = await ensure_first(parts.projection, parts.store, parts.leases(1), reader)
        finally:
            await reader.stop()

    async def _end_grace(self, generations: list[Generation]) -> None:
        now = self._clock.now()
        for each in generations:
            if is_over(each, now):
                await end_grace(self._parts.store, each.number, now)

    async def _sweep(self) -> float:
        await sweep(self._parts.store)
        return SWEEP_SECONDS

    async def _take_added(self) -> float:
        """Make leases for partitions that were added to the topic: whoever projects the generation takes them."""
        parts = self._parts
        generations = [each.number for each in await parts.store.list() if each.stage in PROJECTED | {"backfilling"}]
        if not generations:
            return LOOK_SECONDS
        reader = parts.log()
        try:
            await reader.start()
            bounds = await reader.bounds()
        finally:
            await reader.stop()
        for number in generations:
            leases = parts.leases(number)
            known = {each.partition for each in await leases.view()}
            added = {each: first for each, (first, _) in bounds.items() if each not in known}
            if known and added:  # without any they are being made, or dropped
                log.warning("partitions were added to the topic", partitions=sorted(added), generation=number)
                await leases.seed(added)
        return self._partitions_seconds

    async def _sum_up(self) -> float:
        """Sum up dirty buckets, each in its turn; how long to rest after it."""
        began = self._clock.monotonic()
        for number in list(self._running):
            statistics, until = self._parts.statistics(number), self._clock.monotonic() + SUM_TURN_SECONDS
            buckets = self._to_sum.pop(number, None) or await statistics.dirty()
            while buckets and number in self._running and self._clock.monotonic() < until:
                with suppress(TransientError):
                    await statistics.refresh(buckets.pop(0))
            self._to_sum[number] = buckets
        self._to_sum = {number: left for number, left in self._to_sum.items() if number in self._running}
        return (self._clock.monotonic() - began) * (1 / STATISTICS_SHARE - 1)
