"""The one consumer loop of all groups: intake, translators, settlers.

What it guarantees: every record is handled at least once (its effect acknowledged, or the record parked), none is
skipped, and no offset is committed past a record that is not handled; through crashes of this process at any point,
rebalances, restarts of the broker, handlers with bugs, and records that nobody can read. Records of one key are
handled in order within a partition. Nothing is guaranteed about how often: effects must bear repetition.
"""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from services.kit.breaker import Breaker
from services.kit.clock import Clock, SystemClock
from services.kit.errors import MailroomError
from services.kit.kafka.assignment import Assignment
from services.kit.kafka.batch import BatchRunner, what_to_do
from services.kit.kafka.bounded import bounded
from services.kit.kafka.connection import Where, connection
from services.kit.kafka.diagnosis import explained
from services.kit.kafka.health import LoopHealth, PartitionHealth
from services.kit.kafka.records import DONE, BatchHandler, Done, Outcome, Park, Partition, Record, Retry
from services.kit.kafka.releasing import ReleaseWatch
from services.kit.kafka.session import ConsumerSession, Limits
from services.kit.kafka.stepping_over import ordered_offset
from services.kit.logs import get_logger
from services.kit.metrics import BREAKER_OPEN, CONSUMER_LAG, CONSUMER_RESTARTS, PARTITIONS_BLOCKED, Metrics
from services.kit.parking import ParkingLot
from services.kit.process_name import process_name
from services.kit.releases import NoReleases, Releases

__all__ = [
    "DONE",
    "BatchHandler",
    "ConsumerLoop",
    "Done",
    "Limits",
    "LoopHealth",
    "Outcome",
    "Park",
    "Record",
    "Retry",
]

log = get_logger(__name__)

BEAT_SECONDS = 240.0
"""A turn may take as long as a batch may (see `BatchRunner`); after this it counts as hanging."""

STALLED_SECONDS = 60.0
_LEAVE_SECONDS = 5.0
_SHORTEST_RESTART, _LONGEST_RESTART = 0.25, 3.0
_REPORT_SECONDS = 1.0


class ConsumerLoop:
    """Consumes `topics` as a member of `group` and hands batches to `handler`."""

    def __init__(
        self,
        bootstrap: Where,
        group: str,
        topics: Iterable[str],
        handler: BatchHandler,
        parking: ParkingLot,
        *,
        releases: Releases | None = None,
        batch: int = 500,
        clock: Clock | None = None,
        metrics: Metrics | None = None,
        breaker: Breaker | None = None,
        limits: Limits | None = None,
        runner_options: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        """Connects to nothing yet.

        Args:
            bootstrap: the cluster.
            group: consumer group; also the name that parked records carry.
            topics: must exist.
            handler: see `BatchHandler`.
            parking: where records go that are to be set aside.
            releases: where operators' orders about floods are kept; None = it takes none.
            batch: records at most in one call of the handler (about).
            breaker: at most 50 parked records a minute unless given.
            limits: time limits; its `batch` gives way to the argument's.
            runner_options: time limits of `BatchRunner`.
            options: further ones of aiokafka's clients.
        """
        self.group = group
        self._parking = parking
        self._topics = frozenset(topics)
        self._clock = clock or SystemClock()
        self._metrics = metrics or Metrics()
        self.breaker = breaker or Breaker(50, 60.0, self._clock)
        self._limits = _with_batch(limits or Limits(), batch)
        self._to = connection(bootstrap)
        self._connection = self._to.arguments(f"mailroom-{group}", **options)
        orders = releases or NoReleases()
        self._runner = BatchRunner(
            group,
            handler,
            parking,
            self.breaker,
            self._clock,
            self._metrics,
            releases=orders,
            **(runner_options or {}),
        )
        self._watch = ReleaseWatch(orders, group, process_name(), tuple(self._topics), self.breaker, self._clock)
        self._task: asyncio.Task[None] | None = None
        self._reporter: asyncio.Task[None] | None = None
        self._session: ConsumerSession | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._trouble = ""
        self._beat = self._clock.monotonic()

    async def start(self) -> None:
        """Begin in the background; does not wait for Kafka."""
        if self._task is not None:
            raise RuntimeError("the loop was started already")
        self._beat = self._clock.monotonic()
        self._task = asyncio.create_task(self._run(), name=f"consumer-loop-{self.group}")
        self._reporter = asyncio.create_task(self._report(), name=f"consumer-report-{self.group}")

    async def stop(self, timeout: float = 8.0) -> None:
        """Begin nothing more, give the batch in work `timeout` seconds to end and commit, then cancel it. Returns
        within `timeout` + 3 seconds.
        """
        self._stopping.set()
        if self._session is not None:
            self._session.stop()
        if self._task is None or self._reporter is None:
            return
        await asyncio.wait({self._task}, timeout=timeout)
        if not self._task.done():
            log.warning("the batch in work takes too long and is cancelled", group=self.group)
            self._task.cancel()
        if self._leaving:
            await asyncio.wait(set(self._leaving), timeout=2.0)
        for task in (*self._leaving, self._reporter):
            task.cancel()
        await asyncio.wait({self._task, self._reporter, *self._leaving}, timeout=1.0)

    def skip(self, topic: str, partition: int, to_offset: int) -> None:
        """The operator's verb for a partition that cannot be read: go on at `to_offset`; what lies before it is given
        up and the new offset committed. Raises ValueError where the partition is not assigned here or not blocked.
        """
        if self._session is None:
            raise ValueError("the loop has no partitions now")
        self._session.skip(Partition(topic, partition), to_offset)

    def health(self) -> LoopHealth:
        """How it stands now. Cheap; asks nobody."""
        now = self._clock.monotonic()
        session = self._session
        assignment = None if session is None else session.assignment
        partitions = () if assignment is None else tuple(self._partitions(assignment, now))
        live = (
            self._task is not None
            and not self._task.done()
            and now - max(self._beat, session.beat if session else 0.0) < BEAT_SECONDS
        )
        reasons = tuple(self._reasons(assignment, partitions, live))
        return LoopHealth(self.group, live, not reasons, reasons, self.breaker.state, partitions)

    def _partitions(self, assignment: Assignment, now: float) -> Iterable[PartitionHealth]:
        for partition, state in assignment.states.items():
            lag = None if state.end is None else max(0, state.end - state.next)
            moved = 0.0 if lag == 0 else now - state.moved_at
            yield PartitionHealth(
                *partition, state.next, state.end, lag, moved, blocked=state.unreadable, waiting=state.waiting
            )

    def _reasons(
        self, assignment: Assignment | None, partitions: Iterable[PartitionHealth], live: bool
    ) -> Iterable[str]:
        if not live:
            yield "the loop does not turn"
        if assignment is None or not assignment.placed:
            yield self._trouble or "no partitions are assigned yet"
        if self.breaker.state == "open":
            yield f"the breaker is open: {what_to_do(self.group)}"
        if self._session is not None and self._session.committer.trouble:
            yield f"offsets cannot be committed: {self._session.committer.trouble}"
        silent = {} if self._session is None else self._session.silence.silent()
        if silent:
            yield f"Kafka has not answered for {max(silent.values()):.0f} s, partitions concerned: {len(silent)}"
        for p in partitions:
            if p.blocked:
                yield f"{p.topic}/{p.partition} is blocked: {p.blocked}"
            elif p.moved_seconds_ago > STALLED_SECONDS:
                why = p.waiting or "no reason known"
                yield f"{p.topic}/{p.partition} stands for {p.moved_seconds_ago:.0f} s: {why}"

    async def _run(self) -> None:
        """One consumer after another: any error ends one, and the next begins from the committed offsets."""
        pause = _SHORTEST_RESTART
        while not self._stopping.is_set():
            self._beat = began = self._clock.monotonic()
            session = self._new_session()
            self._session = session
            try:
                await session.serve()
            except (Exception, asyncio.CancelledError) as failure:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                self._trouble = await explained(self._to, failure)
                log.warning("consumer failed, a new one begins", group=self.group, error=self._trouble)
            finally:
                await self._leave(session)
            if self._stopping.is_set():
                return
            self._metrics.inc(CONSUMER_RESTARTS, group=self.group)
            pause = _SHORTEST_RESTART if self._clock.monotonic() - began > 60 else min(pause * 2, _LONGEST_RESTART)
            with suppress(TimeoutError):
                await bounded(self._stopping.wait(), pause)

    def _new_session(self) -> ConsumerSession:
        return ConsumerSession(
            self._connection,
            self.group,
            self._topics,
            self._runner,
            self.breaker,
            self._clock,
            self._metrics,
            self._limits,
        )

    async def _leave(self, session: ConsumerSession) -> None:
        """Leave the group; what takes longer than a few seconds (Kafka is away) goes on by itself."""
        self._session = None
        leaving = asyncio.create_task(session.close(), name=f"consumer-leave-{self.group}")
        self._leaving.add(leaving)
        leaving.add_done_callback(self._left)
        await asyncio.wait({leaving}, timeout=_LEAVE_SECONDS)

    def _left(self, leaving: "asyncio.Task[None]") -> None:
        self._leaving.discard(leaving)
        if not leaving.cancelled() and (failure := leaving.exception()) is not None:
            log.info("a consumer did not leave in order", group=self.group, error=repr(failure))

    async def _report(self) -> None:
        """Metrics of what stands, once a second; an opening breaker is told in the log."""
        shown: set[tuple[str, str]] = set()
        breaker = self.breaker.state
        while not self._stopping.is_set():
            health = self.health()
            if health.breaker != breaker:
                breaker = health.breaker
                log.error("the breaker changed", group=self.group, state=breaker, limit=self.breaker.limit)
            self._metrics.set(BREAKER_OPEN, float(breaker == "open"), consumer=self.group)
            blocked = sum(bool(p.blocked) for p in health.partitions)
            self._metrics.set(PARTITIONS_BLOCKED, blocked, group=self.group)
            current = {(p.topic, str(p.partition)) for p in health.partitions}
            for topic, partition in shown - current:
                self._metrics.clear(CONSUMER_LAG, group=self.group, topic=topic, partition=partition)
            for p in health.partitions:
                lag = float(p.lag or 0)
                self._metrics.set(CONSUMER_LAG, lag, group=self.group, topic=p.topic, partition=str(p.partition))
            shown = current
            assignment = None if self._session is None else self._session.assignment
            states = {} if assignment is None else assignment.states
            await self._watch.turn(
                {partition: state.next for partition, state in states.items()},
                {partition: state.committed for partition, state in states.items()},
                self._runner.refused,
            )
            for p in health.partitions:
                if p.blocked:
                    await self._step_over_if_told(p)
            with suppress(TimeoutError):
                await bounded(self._stopping.wait(), _REPORT_SECONDS)
        await self._watch.end()

    async def _step_over_if_told(self, blocked: PartitionHealth) -> None:
        with suppress(MailroomError):  # the parking lot is away: it is looked at again in a second
            word = f"{self.group}|{blocked.topic}|{blocked.partition}|{blocked.position}"
            to_offset = ordered_offset(await self._parking.find(word))
            if to_offset is not None:
                with suppress(ValueError):  # it was taken away, or could be read, meanwhile
                    self.skip(blocked.topic, blocked.partition, to_offset)


def _with_batch(limits: Limits, batch: int) -> Limits:
    return limits if limits.batch == batch else replace(limits, batch=batch)
