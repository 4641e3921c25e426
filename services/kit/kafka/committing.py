"""Committing the handled prefix of each partition, and never after the partitions are gone."""

import asyncio
from collections.abc import Mapping

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError

from services.kit.clock import Clock
from services.kit.kafka.assignment import Assignment
from services.kit.kafka.records import Partition
from services.kit.logs import get_logger

log = get_logger(__name__)


class Committer:
    """Commits for one consumer of `group`; each commit takes `seconds` at most, and comes `spacing` seconds after the
    one before: what a crash hands out again is what was handled in that time.
    """

    def __init__(self, consumer: AIOKafkaConsumer, group: str, clock: Clock, seconds: float, spacing: float) -> None:
        self._consumer = consumer
        self._group = group
        self._clock = clock
        self._seconds = seconds
        self._spacing = spacing
        self._next = clock.monotonic()
        self.trouble = ""
        """Why the last commit failed; "" = it did not."""

    def due_in(self, assignment: Assignment) -> float | None:
        """Seconds until `commit_if_due` has something to do; None where there is nothing to commit."""
        return max(0.0, self._next - self._clock.monotonic()) if assignment.uncommitted() else None

    async def commit_if_due(self, assignment: Assignment) -> None:
        """`commit`, unless the last one was a moment ago."""
        if self._clock.monotonic() >= self._next:
            await self.commit(assignment)

    async def commit(self, assignment: Assignment) -> None:
        """Commit what is handled and not committed, of partitions that are still ours: one that was lost would make
        the whole commit fail. What fails is left for the next call. It is given up at once when the assignment is
        over, since aiokafka would go on trying and commit it under the new generation.
        """
        assigned = self._consumer.assignment()
        offsets = {
            TopicPartition(*partition): offset
            for partition, offset in assignment.uncommitted().items()
            if partition in assigned
        }
        if not offsets or assignment.over.is_set():
            return
        self._next = self._clock.monotonic() + self._spacing
        commit = asyncio.ensure_future(self._consumer.commit(offsets))
        over = asyncio.ensure_future(assignment.over.wait())
        try:
            await asyncio.wait({commit, over}, timeout=self._seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            over.cancel()
            if not commit.done():
                commit.cancel()
                await asyncio.wait({commit}, timeout=1.0)
        self._note(assignment, offsets, commit)

    def _note(
        self, assignment: Assignment, offsets: Mapping[TopicPartition, int], commit: "asyncio.Future[None]"
    ) -> None:
        if not commit.done() or commit.cancelled():
            self.trouble = "" if assignment.over.is_set() else "no answer in time"
        elif (failure := commit.exception()) is None:
            self.trouble = ""
            for topic_partition, offset in offsets.items():
                assignment.states[Partition(*topic_partition)].committed = offset
        elif isinstance(failure, CommitFailedError | IllegalStateError):
            self.trouble = ""
            log.info("partitions were taken before a commit; their records are handed out again", group=self._group)
        else:
            self.trouble = repr(failure)
        if self.trouble:
            log.warning("commit failed, trying again", group=self._group, error=self.trouble)
