"""What the reading side needs from the world: the log, the documents of a generation, leases, the pointer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal, Protocol

from services.events.projections.known import NO_OVERFLOW, Known, KnownEvent, Overflow
from services.events.projections.projection import Body

Outcome = Literal["done", "conflict", "failed"]
"""Of one write: acknowledged by a majority; somebody else wrote first, nothing written; can never succeed."""


BLOCKED_SECONDS: Final = 30.0
"""How long a partition that cannot be read is left alone before it is tried again."""


class LogRecord(Protocol):
    """A record as it lies in a partition of the projection's topic. What the Kafka client gives is one."""

    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int:
        """Milliseconds since the epoch."""
        ...

    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]: ...


def bytes_of(records: Iterable[LogRecord]) -> int:
    """Of their values: what the memory that they take goes by."""
    return sum(len(record.value or b"") for record in records)


@dataclass(frozen=True, slots=True)
class ReadRecord:
    """A `LogRecord` that does not come from the log at this moment."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


class Log(Protocol):
    """The projection's topic, read by offset. Every call raises Unavailable while Kafka is away."""

    async def start(self) -> None:
        """Connect."""
        ...

    async def stop(self) -> None:
        """Disconnect; returns within a few seconds whatever Kafka does."""
        ...

    async def bounds(self) -> dict[int, tuple[int, int]]:
        """Of every partition the first offset and the one after the last that may be read."""
        ...

    def assign(self, positions: Mapping[int, int]) -> None:
        """Read these partitions from these offsets on; others no more."""
        ...

    async def read(self, wait: float, most: int, most_bytes: int) -> dict[int, list[LogRecord]]:
        """What is there of the assigned partitions, by partition in offset order; {} when nothing comes in `wait`
        seconds. Where a partition is far behind it is read alone, until there are `most` records or `most_bytes` bytes
        of values, since events of one aggregate that are read together are folded and written once.
        """
        ...

    async def position(self, partition: int) -> int | None:
        """The offset to be read next, which lies beyond records that only transactions see."""
        ...

    def blocked(self) -> Mapping[int, str]:
        """Partitions that cannot be read, and why: an unreadable batch, offsets that the log has lost, or a broker
        that does not answer.
        """
        ...

    async def commit(self, positions: Mapping[int, int]) -> None:
        """Tell Kafka where we are, for lag tools only. Never raises."""
        ...


@dataclass(frozen=True, slots=True)
class Stored:
    """An aggregate as stored: `rev` counts its writes, 0 = not there."""

    rev: int = 0
    known: Known = field(default_factory=dict)
    overflow: Overflow = NO_OVERFLOW
    has_rows: bool = False


ABSENT = Stored()


@dataclass(frozen=True, slots=True)
class Write:
    """An aggregate to be written where its `rev` is still `expected`."""

    id: str
    expected: int
    ordered: list[KnownEvent]
    overflow: Overflow
    has_rows: bool
    body: Body | None


@dataclass(frozen=True, slots=True)
class Row:
    """An engagement fact outside its document; `rev` counts its writes, 0 = not there."""

    event: KnownEvent
    rev: int = 0


class ReadModels(Protocol):
    """The documents of one generation. Reads see what a majority acknowledged; Unavailable when nobody answers."""

    async def load(self, ids: Sequence[str]) -> dict[str, Stored]:
        """Those of `ids` that are there."""
        ...

    async def write(self, writes: Sequence[Write]) -> list[Outcome]:
        """Insert or replace each where nobody else has written it; outcomes by index."""
        ...

    def takes(self, write: Write) -> bool:
        """Whether a document with this body and these events can be stored as far as can be told without asking the
        server: its values can be encoded, and it is not too large.
        """
        ...

    async def claimants(self, write: Write) -> list[str]:
        """The ids of the stored documents that have a unique key of this one's body, itself among them."""
        ...

    async def load_rows(self, aggregate: str, event_ids: Collection[str]) -> dict[str, Row]:
        """Those of an aggregate's rows that are there, by event id."""
        ...

    async def write_rows(self, aggregate: str, rows: Sequence[Row]) -> list[Outcome]:
        """Insert (`rev` 0) or replace each row where its `rev` is still the one given."""
        ...

    async def tally_rows(self, aggregate: str, inline: Collection[str], withdrawn: Mapping[str, int]) -> Overflow:
        """Count the rows of an aggregate, without those whose id lies inline or is withdrawn at their revision."""
        ...

    async def mark_dirty(self, buckets: Iterable[str]) -> None:
        """Say that the documents of these statistics buckets may have changed."""
        ...


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to project a partition, and how far it got: `next` is the checkpoint, `epoch` fences former owners."""

    partition: int
    epoch: int
    next: int


@dataclass(frozen=True, slots=True)
class LeaseView:
    """A lease as others see it."""

    partition: int
    owner: str | None
    epoch: int
    next: int
    begin: int
    held: bool


class LeaseStore(Protocol):
    """The leases of one generation; the server's clock decides. Unavailable when they cannot be asked."""

    async def seed(self, begins: Mapping[int, int]) -> None:
        """Make the leases that are not there yet, each starting at its partition's offset."""
        ...

    async def beat(self, owner: str) -> int:
        """Say that this process lives; how many do."""
        ...

    async def leave(self, owner: str) -> None:
        """Take back the heartbeat and give back every lease."""
        ...

    async def acquire(self, owner: str, partition: int) -> Lease | None:
        """Take a free or expired lease; None when another has it."""
        ...

    async def renew(self, owner: str, leases: Sequence[Lease]) -> set[int]:
        """Prolong each of these where owner and epoch still stand, and no other; the partitions lost."""
        ...

    async def checkpoint(self, owner: str, leases: Sequence[Lease]) -> set[int]:
        """Record each lease's `next` and prolong it where owner and epoch still stand; the partitions lost."""
        ...

    async def release(self, owner: str, leases: Sequence[Lease]) -> None:
        """Give leases back; does nothing for those lost meanwhile."""
        ...

    async def step_over(self, partition: int, to: int) -> bool:
        """An operator's word that what lies before offset `to` cannot be read: whoever projects the partition goes on
        there. False when its checkpoint is there or further already.
        """
        ...

    async def view(self) -> list[LeaseView]:
        """All leases, by partition."""
        ...


Stage = Literal["created", "backfilling", "catchingUp", "verified", "active", "grace", "retired", "abandoned"]
FILLING: Final[frozenset[Stage]] = frozenset({"created", "backfilling"})
"""Stages in which a rebuild can be paused."""
GONE: Final[frozenset[Stage]] = frozenset({"retired", "abandoned"})
"""Stages of a generation whose documents are dropped, or are to be."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a rebuild is, for a bar: events in log positions; `eta` in seconds, None = not known."""

    stage: str
    done: int
    total: int
    rate: float
    eta: float | None


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a rebuild did not go on: the last error, how many in a row, when, and when it is tried again; None = not
    before a person has looked and the process was started anew.
    """

    error: str
    failures: int
    at: datetime
    again_at: datetime | None


@dataclass(frozen=True, slots=True)
class Generation:
    """One build of a read model."""

    projection: str
    number: int
    version: int
    stage: Stage
    created_at: datetime
    paused: bool = False
    grace_until: datetime | None = None
    progress: Progress | None = None
    report: Mapping[str, object] | None = None
    trouble: Trouble | None = None

    @property
    def rests(self) -> bool:
        """Whether it is paused; the flag alone says nothing of one that is filled already."""
        return self.paused and self.stage in FILLING


@dataclass(frozen=True, slots=True)
class Pointer:
    """Which generation is read: `active`; where a rollback goes: `previous`; the highest number given: `generation`."""

    active: int | None
    previous: int | None
    generation: int


@dataclass(frozen=True, slots=True)
class Standing:
    """The pointer of a projection and its generations by number, as they stand at one moment."""

    pointer: Pointer
    generations: Mapping[int, Generation]


class GenerationStore(Protocol):
    """Generations of one projection and the pointer. Unavailable when they cannot be asked."""

    async def pointer(self) -> Pointer:
        """The pointer; all empty when nothing was built yet."""
        ...

    async def list(self) -> list[Generation]:
        """Every generation ever made, oldest first."""
        ...

    async def get(self, number: int) -> Generation | None:
        """One generation."""
        ...

    async def create(self, version: int, number: int | None = None) -> Generation:
        """A new one in stage `created`; `number` = this one, or what stands under it already."""
        ...

    async def change(self, step: Callable[[Standing], Standing], *, grace: float) -> Standing:
        """Take pointer and stages from how they stand to what `step` makes of them, in one write that nothing comes
        between and that is made whole or not at all; what `step` made of them.

        Args:
            step: one of `services.events.stages`; may be called several times. What it raises is raised, and nothing
                was changed. It changes pointer and stages only.
            grace: seconds for which a generation that enters `grace` is kept, by the server's clock.

        Raises:
            Unavailable: perhaps it was changed: take the step again, which changes nothing where it was taken.
        """
        ...

    async def note(
        self, number: int, *, progress: Progress | None = None, report: Mapping[str, object] | None = None
    ) -> None:
        """Keep progress or a report for people."""
        ...

    async def note_trouble(self, number: int, trouble: Trouble | None) -> None:
        """Keep for people why a rebuild does not go on; None = it does."""
        ...

    async def pause(self, number: int, *, paused: bool) -> bool:
        """Set the flag that the workers of a rebuild look at. False, and nothing was set, where a generation to be
        paused is not being filled.
        """
        ...

    async def follow(self) -> None:
        """Make the view of the projection's name show the active generation; creates it when missing."""
        ...

    async def ensure_unique(self, number: int) -> None:
        """Build those of the declared indexes of a generation that are unique, before it is filled: what claims the key
        of another document then meets it at once. Raises PermanentError `duplicateKeys` where it is filled already,
        and has documents that share a key.
        """
        ...

    async def ensure_indexes(self, number: int) -> None:
        """Build the declared indexes of a generation; returns when they stand. Raises as `ensure_unique` does."""
        ...

    async def drop(self, number: int) -> None:
        """Drop the documents, rows, statistics and leases of a generation that is `retired` or `abandoned`, and what a
        late writer has made of them since. Raises PermanentError `generationActive`, `wrongStage`, `noGeneration`.
        """
        ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a comparison found: all documents, those that differ, and some of their ids.

    `differing` counts documents whose event ids or origins differ, or whose body does though the projection's version
    is the same; `reshaped` those whose body differs because the version does; `moving` those that changed at each look:
    both sides have the same events as far as both have read, and their bodies were never seen of one moment.
    """

    documents: int
    differing: int
    reshaped: int
    examples: tuple[str, ...]
    moving: int = 0
