"""What one assignment of partitions to this member knows: where each partition stands, and why it waits."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from services.kit.errors import MailroomError
from services.kit.kafka.batch import Verdict
from services.kit.kafka.records import Partition, Record

SHORTEST_PAUSE = 0.05
LONGEST_PAUSE = 5.0
LONGEST_ASKED_PAUSE = 300.0


@dataclass(slots=True)
class PartitionState:
    """One partition of one assignment.

    Attributes:
        next: the first offset that is not handled; where reading goes on, and what may be committed.
        committed: what the group's coordinator has, -1 = nothing.
        done: offsets from `next` on that are handled already, out of line.
        moved_at: monotonic time of the last progress (or of the assignment).
        resume_at: paused until then (monotonic); None = not paused.
        readable_since: monotonic time of the last resumption; 0 = never paused.
        failures: turns without progress one after the other.
        waiting: why its records are to be handed out again; "" = they are not.
        unreadable: why what lies at `next` cannot be read; "" = it can.
        suspect: read it by itself, since reading everything at once failed.
        size: handle it by itself and so many records at once, since the handler took too long; None = with the others.
        end: end offset as last heard of.
    """

    next: int
    committed: int
    moved_at: float
    done: set[int] = field(default_factory=set)
    resume_at: float | None = None
    readable_since: float = 0.0
    failures: int = 0
    waiting: str = ""
    unreadable: str = ""
    suspect: bool = False
    size: int | None = None
    end: int | None = None

    def fresh(self, records: Iterable[Record]) -> list[Record]:
        """Those that are still to be handled."""
        return [record for record in records if record.offset >= self.next and record.offset not in self.done]

    def settle(self, records: Sequence[Record], last_offset: int, verdicts: Sequence[Verdict], now: float) -> bool:
        """Take in the verdicts on `records`, read together with everything up to `last_offset`. True = all of it
        is handled; False = reading must go back to `next`, after the pause that `resume_at` now says.
        """
        retries = [(r.offset, v) for r, v in zip(records, verdicts, strict=True) if v is not None]
        moved = len(retries) < len(records) or not records
        if moved:
            self.moved_at = now
        if not retries:
            self.next = last_offset + 1
            self.done = {offset for offset in self.done if offset > last_offset}
            self.failures = 0
            self.waiting = ""
            return True
        first, verdict = retries[0]
        self.next = first
        self.done.update(r.offset for r, v in zip(records, verdicts, strict=True) if v is None)
        self.done = {offset for offset in self.done if offset > first}
        self.waiting = f"offset {first}: {_shown(verdict.error)}"
        self.failures = 0 if moved else self.failures + 1
        backoff = min(SHORTEST_PAUSE * 2 ** min(self.failures, 10), LONGEST_PAUSE)
        asked = max(retry.after or 0.0 for _, retry in retries)
        self.resume_at = now + min(max(asked, backoff), LONGEST_ASKED_PAUSE)
        return False

    def pace(self, took_too_long: bool, limit: int) -> None:
        """After a batch in which it took part: half as much next time, or twice as much until `limit` is reached."""
        if took_too_long:
            self.size = max(1, (self.size or limit) // 2)
        elif self.size is not None:
            self.size = self.size * 2 if self.size * 2 < limit else None


def _shown(error: BaseException) -> str:
    """Our own errors carry nothing personal; of others only the name is told."""
    name = type(error).__name__
    return f"{name}: {error}" if isinstance(error, MailroomError) else name


class Assignment:
    """The partitions this member has until the next rebalance.

    `abort` is set when they are about to be taken, or the loop stops: begin nothing more. `idle` is set while no
    batch is in work. `over` is set when they are gone: whatever was fetched before never commits after it.
    """

    def __init__(self, partitions: Iterable[Partition]) -> None:
        self.partitions = frozenset(partitions)
        self.states: dict[Partition, PartitionState] = {}
        self.abort = asyncio.Event()
        self.idle = asyncio.Event()
        self.idle.set()
        self.over = asyncio.Event()

    @property
    def placed(self) -> bool:
        """Whether the start offsets are known."""
        return len(self.states) == len(self.partitions)

    def uncommitted(self) -> dict[Partition, int]:
        """What there is to commit."""
        return {partition: state.next for partition, state in self.states.items() if state.next != state.committed}

    def next_resume(self) -> float | None:
        """When the first paused partition is to go on."""
        times = [state.resume_at for state in self.states.values() if state.resume_at is not None]
        return min(times, default=None)
