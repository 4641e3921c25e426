"""The life of one Kafka consumer in its group, from joining to leaving."""

from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import IllegalStateError

from services.kit.breaker import Breaker
from services.kit.clock import Clock
from services.kit.errors import Unavailable
from services.kit.kafka.assignment import Assignment, PartitionState
from services.kit.kafka.batch import BatchRunner
from services.kit.kafka.bounded import bounded
from services.kit.kafka.committing import Committer
from services.kit.kafka.connection import ClientArguments
from services.kit.kafka.offsets import start_offsets
from services.kit.kafka.reading import Fetched, Reader
from services.kit.kafka.records import Partition, Record
from services.kit.kafka.silence import Silence
from services.kit.logs import get_logger
from services.kit.metrics import (
    BATCH_RECORDS,
    BATCH_SECONDS,
    RECORDS_CONSUMED,
    RECORDS_HANDLED,
    RECORDS_RETRIED,
    Metrics,
)

log = get_logger(__name__)

HALF_OPEN_LIMIT = 10
"""Records at most in a batch while the breaker is half open."""


RELEASED_LIMIT = 1_000
"""Records at most in a batch after one that was set aside whole by an operator's order. So many cost a few dozen
milliseconds, and where the process is busy, each batch waits for its turn at every step, however small it is.
"""


class Stuck(Exception):
    """The consumer does not move and does not say why; a new one may."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How a loop waits, all in seconds, and how much it takes at once.

    Attributes:
        batch: records handed to the handler at most at once (about: suspects are read by themselves).
        wait: waiting for records; also how late the loop may notice that it is to stop.
        start: joining the group.
        drain: how long a rebalance waits for the batch in work; below `rebalance` or members are thrown out.
        rebalance, session, heartbeat, poll: the group protocol's times.
        commit: one commit; `commit_spacing`: from one to the next.
        fetch_wait: how long the broker holds a fetch that finds less than `fetch_bytes` in all. A loop that is back for
            more within 0.1 s misses nothing by it. Where it takes longer the client fetches what lies in other
            partitions meanwhile, and the next record of those in work waits for that fetch to end.
        stuck: without assignment, or with records to read and none read, until a new consumer is made.
    """

    batch: int = 500
    wait: float = 0.5
    start: float = 75.0
    drain: float = 8.0
    rebalance: float = 30.0
    session: float = 10.0
    heartbeat: float = 2.0
    poll: float = 300.0
    commit: float = 5.0
    commit_spacing: float = 0.2
    fetch_wait: float = 0.25
    fetch_bytes: int = 1
    stuck: float = 90.0


class ConsumerSession(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """Joins the group, hands batches to the runner, commits the handled prefix of each partition.

    One task runs `serve`; aiokafka calls the two listeners from its own.
    """

    def __init__(
        self,
        connection: ClientArguments,
        group: str,
        topics: frozenset[str],
        runner: BatchRunner,
        breaker: Breaker,
        clock: Clock,
        metrics: Metrics,
        limits: Limits,
    ) -> None:
        self._connection = connection
        self._group = group
        self._topics = topics
        self._runner = runner
        self._breaker = breaker
        self._clock = clock
        self._metrics = metrics
        self._limits = limits
        self._stopping = False
        self._unassigned_since = clock.monotonic()
        self.assignment: Assignment | None = None
        self.beat = clock.monotonic()
        """Monotonic time of the last turn of the loop."""
        self._consumer = AIOKafkaConsumer(
            **connection,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="none",
            fetch_max_wait_ms=int(limits.fetch_wait * 1000),
            fetch_min_bytes=limits.fetch_bytes,
            session_timeout_ms=int(limits.session * 1000),
            heartbeat_interval_ms=int(limits.heartbeat * 1000),
            rebalance_timeout_ms=int(limits.rebalance * 1000),
            max_poll_interval_ms=int(limits.poll * 1000),
        )
        self.committer = Committer(self._consumer, group, clock, limits.commit, limits.commit_spacing)
        self._reader = Reader(self._consumer, group, clock, metrics)
        self.silence = Silence(self._consumer, clock)

    # --- aiokafka's listeners ---

    async def on_partitions_revoked(self, revoked: Any) -> None:
        """Let the batch in work end and commit, for `drain` seconds; after that it is not ours to commit."""
        assignment = self.assignment
        if assignment is not None:
            assignment.abort.set()
            try:
                await bounded(self._last_commit(assignment), self._limits.drain)
            except TimeoutError:
                log.warning("a batch is still in work while its partitions are taken", group=self._group)
            finally:
                assignment.over.set()
        self.assignment = None
        self._unassigned_since = self._clock.monotonic()

    async def on_partitions_assigned(self, assigned: Any) -> None:
        """Only note them: aiokafka sends heartbeats again when this returns. `serve` finds where to begin."""
        self._consumer.pause(*assigned)
        self.silence.forget()
        assignment = Assignment(Partition(*partition) for partition in assigned)
        if self._stopping:
            assignment.abort.set()
        self.assignment = assignment
        log.info("partitions assigned", group=self._group, partitions=len(assignment.partitions))

    async def _last_commit(self, assignment: Assignment) -> None:
        await assignment.idle.wait()
        await self.committer.commit(assignment)

    # --- the loop's side ---

    def stop(self) -> None:
        """Begin nothing more; `serve` returns soon."""
        self._stopping = True
        if self.assignment is not None:
            self.assignment.abort.set()

    async def serve(self) -> None:
        """Consume until `stop`. Raises whatever makes this consumer useless."""
        self._consumer.subscribe(tuple(self._topics), listener=self)
        await bounded(self._consumer.start(), self._limits.start)
        while not self._stopping:
            self.beat = self._clock.monotonic()
            assignment = self.assignment
            try:
                if assignment is None or assignment.abort.is_set():
                    await self._await_assignment()
                elif not assignment.placed:
                    await self._place(assignment)
                else:
                    await self._turn(assignment)
            except IllegalStateError:  # a partition was taken under a call on it: a new assignment follows
                if assignment is not None and assignment is self.assignment and not assignment.abort.is_set():
                    raise
        if self.assignment is not None:
            await self.committer.commit(self.assignment)

    async def close(self) -> None:
        """Leave the group and close the connections. Unbounded: the caller says how long."""
        if self.assignment is not None:
            self.assignment.abort.set()
            self.assignment.over.set()
        await self._consumer.stop()

    def skip(self, partition: Partition, offset: int) -> None:
        """Step over what cannot be read: go on at `offset`. The partition must be blocked. ValueError otherwise."""
        state = None if self.assignment is None else self.assignment.states.get(partition)
        if state is None:
            raise ValueError(f"{partition} is not assigned here")
        if not state.unreadable:
            raise ValueError(f"{partition} is not blocked; only what cannot be read may be stepped over")
        log.critical(
            "stepping over what cannot be read, by the operator's word",
            group=self._group,
            topic=partition.topic,
            partition=partition.partition,
            from_offset=state.next,
            to_offset=offset,
        )
        state.next, state.unreadable, state.resume_at = offset, "", None
        state.done = {done for done in state.done if done >= offset}
        self._consumer.seek(TopicPartition(*partition), offset)

    async def _await_assignment(self) -> None:
        """aiokafka tells what went wrong with the group only to who reads; what is read now is not ours."""
        if self._clock.monotonic() - self._unassigned_since > self._limits.stuck:
            raise Stuck(f"no assignment for {self._limits.stuck:g} s")
        try:
            early = await bounded(self._consumer.getmany(timeout_ms=100, max_records=1), self._limits.wait)
        except TimeoutError:
            return
        if not early:
            await self._clock.sleep(0.02)

    async def _place(self, assignment: Assignment) -> None:
        """Find the start offsets and let the partitions flow."""
        try:
            starts = await start_offsets(self._connection, self._group, self._consumer, assignment.partitions)
        except Unavailable as failure:
            log.warning("start offsets are not known yet", group=self._group, error=str(failure))
            await self._clock.sleep(0.5)
            return
        if assignment.abort.is_set():
            return
        now = self._clock.monotonic()
        for partition, (start, committed) in starts.items():
            self._consumer.seek(TopicPartition(*partition), start)
            assignment.states[partition] = PartitionState(start, committed, now)
        for partition in starts:  # what aiokafka kept of its own search for offsets, while all are paused
            await self._reader.discard(partition)

    async def _turn(self, assignment: Assignment) -> None:
        self._pause_and_resume(assignment)
        await self.committer.commit_if_due(assignment)
        try:
            fetched = await self._reader.read(assignment, self._limit(), self._wait(assignment))
        except TimeoutError:
            fetched = {}
        if assignment.abort.is_set() or assignment is not self.assignment:
            return  # read before a rebalance or a stop: not handled, and its positions are set anew
        self._note_ends(assignment)
        if fetched:
            self.silence.note((TopicPartition(*each) for each in fetched), ())
            await self._handle(assignment, fetched)
        elif self._breaker.state != "open":
            flowing = [each for each, state in assignment.states.items() if state.resume_at is None]
            self.silence.note((), (TopicPartition(*each) for each in flowing))
            await self._check_moving(assignment)

    def _limit(self) -> int:
        """Records of the next batch at most (about)."""
        if self._breaker.state != "closed":
            return min(self._limits.batch, HALF_OPEN_LIMIT)
        return max(self._limits.batch, RELEASED_LIMIT) if self._runner.released else self._limits.batch

    def _pause_and_resume(self, assignment: Assignment) -> None:
        now = self._clock.monotonic()
        everything = self._breaker.state == "open"
        paused = self._consumer.paused()
        for partition, state in assignment.states.items():
            if state.resume_at is not None and state.resume_at <= now:
                state.resume_at, state.readable_since = None, now
            hold = everything or state.resume_at is not None
            topic_partition = TopicPartition(*partition)
            if hold and topic_partition not in paused:
                self._consumer.pause(topic_partition)
            elif not hold and topic_partition in paused:
                self._consumer.resume(topic_partition)

    def _wait(self, assignment: Assignment) -> float:
        waits = [self._limits.wait]
        resume = assignment.next_resume()
        if resume is not None:
            waits.append(max(0.01, resume - self._clock.monotonic()))
        commit = self.committer.due_in(assignment)
        if commit is not None:
            waits.append(max(0.01, commit))
        return min(waits)

    async def _handle(self, assignment: Assignment, fetched: Fetched) -> None:
        fresh = {partition: assignment.states[partition].fresh(records) for partition, records in fetched.items()}
        batch: list[Record] = [record for records in fresh.values() for record in records]
        assignment.idle.clear()
        try:
            verdicts = []
            if batch:
                self._metrics.observe(BATCH_RECORDS, len(batch), group=self._group)
                with self._metrics.timed(BATCH_SECONDS, group=self._group):
                    verdicts = await self._runner.run(batch, assignment.abort)
                for partition in fetched:
                    assignment.states[partition].pace(self._runner.timed_out, self._limits.batch)
            if assignment.over.is_set():
                return
            now = self._clock.monotonic()
            remaining = iter(verdicts)
            for partition, records in fetched.items():
                state = assignment.states[partition]
                mine = [next(remaining) for _ in fresh[partition]]
                self._count(partition, mine)
                if not state.settle(fresh[partition], records[-1].offset, mine, now):
                    self._consumer.seek(TopicPartition(*partition), state.next)
            await self.committer.commit_if_due(assignment)
        finally:
            assignment.idle.set()

    def _count(self, partition: Partition, verdicts: list[Any]) -> None:
        if not verdicts:
            return
        labels = {"group": self._group, "topic": partition.topic}
        handled = verdicts.count(None)
        self._metrics.inc(RECORDS_CONSUMED, len(verdicts), **labels)
        self._metrics.inc(RECORDS_HANDLED, handled, **labels)
        if handled < len(verdicts):
            self._metrics.inc(RECORDS_RETRIED, len(verdicts) - handled, **labels)

    def _note_ends(self, assignment: Assignment) -> None:
        for partition, state in assignment.states.items():
            end = self._consumer.highwater(TopicPartition(*partition))
            if end is not None:
                state.end = end

    async def _check_moving(self, assignment: Assignment) -> None:
        """Nothing was read. Where records lie ahead and nothing is in their way, this consumer may be of no use."""
        now = self._clock.monotonic()
        for partition, state in assignment.states.items():
            if state.resume_at is not None or state.suspect:
                continue
            if state.end is not None and state.next < state.end:
                # offsets without records for us (transaction markers, compaction) move only aiokafka's position
                position = await bounded(self._consumer.position(TopicPartition(*partition)), self._limits.commit)
                state.next = max(state.next, position)
            if state.end is None or state.next >= state.end:
                state.moved_at = now
            elif now - max(state.moved_at, state.readable_since) > self._limits.stuck:
                raise Stuck(f"{partition} stands at {state.next} of {state.end} for {self._limits.stuck:g} s")
