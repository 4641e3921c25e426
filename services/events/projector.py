"""The projector of one generation: read → apply → close, over the partitions whose leases it holds.

The order of effects is documents, statistics marks, checkpoint, Kafka's offset. A crash between two of them repeats
what came before: applying is idempotent, and nothing is marked as done before it is. Marks and checkpoint are made
while the next batch is read and applied.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from services.events.aggregates import Aggregates
from services.events.closing import Closing
from services.events.leases import LeaseKeeper
from services.events.ports import Log, LogRecord
from services.kit.clock import Clock
from services.kit.errors import TransientError
from services.kit.health import Progress, Report
from services.kit.logs import get_logger
from services.kit.metrics import (
    PARTITIONS_BLOCKED,
    PROJECTION_BATCH_SECONDS,
    PROJECTION_DELAY_SECONDS,
    Metrics,
)
from services.kit.retry import Backoff

log = get_logger(__name__)

LEASE_TURN_SECONDS: Final = 1.0
COMMIT_SECONDS: Final = 5.0
_NOBODY_STOPS: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How a projector reads.

    Attributes:
        most: records of one partition that are applied together when it is far behind.
        most_bytes: bytes of their values at most (and those of a few records more): what is read together is in memory
            as a whole, several times over.
        wait: seconds to wait for a record when there is none.
        fresh: a new generation is filled: what lies at a partition's beginning is inserted without looking for it.
    """

    most: int = 50_000
    most_bytes: int = 64 << 20
    wait: float = 0.2
    fresh: bool = False


class Projector:
    """Runs until told to stop. `report()` is its health."""

    def __init__(
        self,
        reader: Log,
        keeper: LeaseKeeper,
        aggregates: Aggregates,
        clock: Clock,
        metrics: Metrics,
        *,
        name: str,
        pace: Pace = Pace(),
        begins: Callable[[], dict[int, int]] = dict,
        tells_kafka: Callable[[], bool] = bool,
    ) -> None:
        """`begins`: where each partition's first checkpoint lay; only with `pace.fresh`. `tells_kafka`: whether Kafka's
        lag tools are to see the positions of this one, which only one generation can.
        """
        self._log = reader
        self._keeper = keeper
        self._aggregates = aggregates
        self._clock = clock
        self._metrics = metrics
        self._name = name
        self._pace = pace
        self._begins = begins
        self._tells_kafka = tells_kafka
        self._closing = Closing(self._close)
        self._begun: set[int] = set()  # partitions of which something was applied since they were assigned
        self._stopping = asyncio.Event()
        self._progress = Progress(clock)
        self._committed_at = 0.0
        self.paused = False

    def report(self) -> Report:
        """Live while it makes progress or has nothing to do; ready while nothing keeps it from reading, and no
        partition of the generation has been without a reader, here or elsewhere, for longer than a lease.
        """
        blocked, unread = self._log.blocked(), self._keeper.trouble()
        detail: dict[str, object] = {"partitions": sorted(self._keeper.held), "blocked": dict(blocked)}
        report = self._progress.report(detail | ({"unread": unread} if unread else {}))
        return report if not blocked and not unread else Report(report.live, ready=False, detail=report.detail)

    def blocked(self) -> Mapping[int, str]:
        """Partitions that cannot be read, and why."""
        return self._log.blocked()

    def stop(self) -> None:
        """Begin nothing more; `run` returns after the batch in work."""
        self._stopping.set()

    async def run(self) -> None:
        """Project until stopped. Returns after the leases were given back, however long dependencies are away."""
        keeping = asyncio.create_task(self._keep_leases(), name=f"{self._name}-leases")
        backoff, failures = Backoff(first=0.2, most=5.0), 0
        try:
            while not self._stopping.is_set():
                try:
                    await self._log.start()
                    self._keeper.changed = True
                    while not self._stopping.is_set():
                        await self._turn()
                        failures = 0
                    with suppress(TimeoutError):
                        async with asyncio.timeout(3):
                            await self._closing.settle()
                except TransientError as error:
                    failures += 1
                    self._progress.waiting(str(error))
                    log.warning("projector waits", name=self._name, reason=str(error))
                    await self._pause(max(backoff.delay(failures), error.retry_after or 0.0))
                except (Exception, asyncio.CancelledError):
                    task = asyncio.current_task()
                    if task is not None and task.cancelling():
                        raise  # ours; any other one leaked out of a client
                    failures += 1
                    self._progress.waiting("an unexpected error, see the log")
                    log.exception("projector failed, starting anew from the checkpoints", name=self._name)
                    await self._pause(backoff.delay(failures))
                finally:
                    await self._closing.drop()
                    await self._log.stop()
        finally:
            keeping.cancel()
            with suppress(asyncio.CancelledError):
                await keeping
            with suppress(TransientError, TimeoutError):
                async with asyncio.timeout(3):
                    await self._keeper.leave()

    async def _turn(self) -> None:
        keeper = self._keeper
        if keeper.changed:
            await self._closing.settle()
            keeper.changed = False
            self._aggregates.forget()
            self._begun.clear()
            self._log.assign({each: lease.next for each, lease in keeper.held.items()})
        if not keeper.held or self.paused:
            await self._closing.settle()
            self._progress.idle()
            await self._pause(self._pace.wait)
        else:
            batches = await self._log.read(self._pace.wait, self._pace.most, self._pace.most_bytes)
            if keeper.changed:
                return  # read from somewhere else than the leases say
            if batches:
                await self._apply(batches)
            else:
                await self._closing.settle()
                await self._skip_invisible()
                self._progress.idle()
        if keeper.has_surplus:
            await self._closing.settle()
            await keeper.give_back()
        await self._tell_kafka()
        self._metrics.set(PARTITIONS_BLOCKED, len(self._log.blocked()), group=self._name)

    async def _apply(self, batches: dict[int, list[LogRecord]]) -> None:
        records = [record for batch in batches.values() for record in batch]
        begins = self._begins() if self._pace.fresh else {}
        fresh = bool(begins) and all(
            each not in self._begun and self._keeper.held[each].next == begins.get(each) for each in batches
        )
        started = time.perf_counter()
        buckets = await self._aggregates.write(records, fresh=fresh)
        self._metrics.observe(
            PROJECTION_BATCH_SECONDS, time.perf_counter() - started, projection=self._name, step="apply"
        )
        self._begun.update(batches)
        oldest = min(batch[0].timestamp for batch in batches.values())
        delay = max(0.0, self._clock.now().timestamp() - oldest / 1000)
        self._metrics.observe(PROJECTION_DELAY_SECONDS, delay, projection=self._name)
        await self._closing.add(buckets, {each: batch[-1].offset + 1 for each, batch in batches.items()}, len(records))

    async def _close(self, buckets: list[str], positions: dict[int, int]) -> None:
        started = time.perf_counter()
        await self._aggregates.mark(buckets)
        await self._keeper.checkpoint(positions)
        self._progress.progressed()
        self._metrics.observe(
            PROJECTION_BATCH_SECONDS, time.perf_counter() - started, projection=self._name, step="close"
        )

    async def _skip_invisible(self) -> None:
        """Records that only transactions see lie at the end: the checkpoint moves over them too."""
        at = {each: await self._log.position(each) for each in list(self._keeper.held)}
        held = self._keeper.held
        moved = {
            each: position
            for each, position in at.items()
            if position is not None and each in held and position > held[each].next
        }
        if moved and not self._keeper.changed and self._closing.is_settled:
            await self._keeper.checkpoint(moved)

    async def _tell_kafka(self) -> None:
        if self._tells_kafka() and time.monotonic() - self._committed_at > COMMIT_SECONDS and self._keeper.held:
            self._committed_at = time.monotonic()
            await self._log.commit({each: lease.next for each, lease in self._keeper.held.items()})

    async def _keep_leases(self) -> None:
        while True:
            try:
                await self._keeper.turn()
            except TransientError as error:
                log.warning("leases cannot be kept for now", name=self._name, reason=str(error))
            except Exception:
                log.exception("leases cannot be kept for now", name=self._name)
            await asyncio.sleep(LEASE_TURN_SECONDS)

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
