"""Records that a consumer set aside: what is kept of them, and the port to where they are kept.

A parked record is retried *in place*: it is handed to its consumer's handler with its own topic, partition
and offset, and never published again. Parking the same record twice (a crash before the offset's commit
repeats it) is one record. Values up to the 1 MB that Kafka takes are kept inline: a MongoDB document holds 16
MB.
"""

import traceback
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol, Self, get_args

from pydantic_core import from_json

from contracts.topics import LANES
from services.kit.breaker import Breaker
from services.kit.kafka.binding import is_binary
from services.kit.kafka.records import Park, ParkKind, Record

__all__ = [
    "COMES_LATER",
    "PARK_KINDS",
    "UNCOUNTED",
    "Breaker",
    "ParkKind",
    "ParkStatus",
    "ParkedFilter",
    "ParkedPage",
    "ParkedRecord",
    "ParkingLot",
    "parked_id",
    "presentable_value",
]

PARK_KINDS: tuple[ParkKind, ...] = get_args(ParkKind)

UNCOUNTED: frozenset[ParkKind] = frozenset({"uncorrelated", "orphan"})
"""Kinds that do not count towards the breaker: their records are in order, only early, or about what is not ours. A
flood of them says nothing against our code, and must not stop the records that are ours.
"""

COMES_LATER: frozenset[ParkKind] = frozenset({"uncorrelated"})
"""Kinds that are due for a retry from the beginning: what they wait for may come by itself."""

STACK_CHARACTERS = 20_000
"""How much of a stack is kept: its end, where the error is."""

ParkStatus = Literal["parked", "retried", "discarded"]
"""`parked`: waits. `retried`: a retry handled it. `discarded`: an operator gave it up; kept for the audit."""

_MAY_BE_SECRET = frozenset(topic.name for topic in LANES.values())


class _At(Protocol):
    """Where a record lies."""

    @property
    def topic(self) -> str: ...

    @property
    def partition(self) -> int: ...

    @property
    def offset(self) -> int: ...


def parked_id(consumer: str, record: _At) -> str:
    """The id of a record that `consumer` parks, `consumer|topic|partition|offset`: the same however often it is."""
    return f"{consumer}|{record.topic}|{record.partition}|{record.offset}"


@dataclass(frozen=True, slots=True)
class ParkedRecord:
    """One record that `consumer` set aside.

    Attributes:
        consumer: the group (or projection) that could not handle it.
        topic, partition, offset, timestamp_ms, key, headers: the record's own, unchanged.
        raw: the value, byte for byte; None = a null value. `ParkingLot.list` and `find` leave it out.
        size: bytes of the value.
        reason, kind, detail: as in `Park`.
        error_class, stack: the exception, "" when the handler itself asked for parking.
        decision: what was decided about it and could not be carried out, if anything.
        release: the order by which it was parked though the breaker was open; None = without one.
        kept: as in `Park`; False in what was parked before there was such a thing.
        at: when it was parked first.
        tries, next_try_at, last_error: of the retries so far.
        closed_at, closed_by, closed_reason: when it was retried or discarded, by whom and why.
    """

    consumer: str
    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    raw: bytes | None
    size: int
    reason: str
    kind: ParkKind
    at: datetime
    detail: str = ""
    error_class: str = ""
    stack: str = ""
    decision: str | None = None
    release: str | None = None
    kept: bool = False
    status: ParkStatus = "parked"
    tries: int = 0
    next_try_at: datetime | None = None
    last_error: str = ""
    closed_at: datetime | None = None
    closed_by: str = ""
    closed_reason: str = ""

    @classmethod
    def of(
        cls,
        consumer: str,
        record: Record,
        park: Park,
        at: datetime,
        release: str | None = None,
    ) -> Self:
        """`record` as `consumer` parks it the first time, at the time `at`, by an order if there is one."""
        error = park.error
        return cls(
            consumer=consumer,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            timestamp_ms=record.timestamp_ms,
            key=record.key,
            headers=record.headers,
            raw=record.value,
            size=len(record.value or b""),
            reason=park.reason,
            kind=park.kind,
            at=at,
            detail=park.detail,
            error_class="" if error is None else type(error).__name__,
            stack="" if error is None else "".join(traceback.format_exception(error))[-STACK_CHARACTERS:],
            decision=park.decision,
            release=release,
            kept=park.kept,
            next_try_at=at if park.kind in COMES_LATER else None,
        )

    @property
    def id(self) -> str:
        """As `parked_id` says."""
        return parked_id(self.consumer, self)

    @property
    def record(self) -> Record:
        """The record as the consumer got it. Only of a parked record that has its `raw` (`show`,
        `claim_due`).
        """
        return Record(self.topic, self.partition, self.offset, self.timestamp_ms, self.key, self.raw, self.headers)


@dataclass(frozen=True, slots=True)
class ParkedFilter:
    """Which parked records; None = any."""

    consumer: str | None = None
    topic: str | None = None
    kind: ParkKind | None = None
    reason: str | None = None
    status: ParkStatus | None = "parked"


@dataclass(frozen=True, slots=True)
class ParkedPage:
    """Some parked records without their `raw` and `stack`, latest first; `cursor` fetches the next page, None
    = no more.
    """

    records: tuple[ParkedRecord, ...]
    cursor: str | None


class ParkingLot(Protocol):
    """Where parked records are kept. Every call raises Unavailable when the place cannot be reached."""

    async def park(self, records: Sequence[ParkedRecord]) -> None:
        """Keep all of them; durable when this returns. One that is parked or discarded already stays as it
        is; one that was retried with success and failed again is open again.
        """
        ...

    async def list(self, where: ParkedFilter, *, limit: int = 50, cursor: str | None = None) -> ParkedPage:
        """A page of those that match. Raises PermanentError `badCursor` for a cursor that is not ours, TooMuch for a
        filter that is not answered in time.
        """
        ...

    async def show(self, parked_id: str) -> ParkedRecord | None:
        """All of one record, its raw bytes included; None when there is none. Raises KeyUnknown where this process
        lacks the key, PermanentError `sealedBroken` where it was changed.
        """
        ...

    async def find(self, parked_id: str) -> ParkedRecord | None:
        """One record without its `raw` and `stack`, as `list` has it, which no key is needed for; None when there is
        none.
        """
        ...

    async def known(self, parked_ids: Collection[str]) -> set[str]:
        """Those of these ids that lie here, whatever became of them."""
        ...

    async def left_out(
        self, consumer: str, topic: str, spans: Mapping[int, tuple[int, int]]
    ) -> Mapping[tuple[int, int], str]:
        """(partition, offset) → reason of the records that `consumer` is to leave out when it reads them again: those
        that wait or were discarded, without those that it keeps (`kept`). `spans` has the first and the last offset to
        look at, by partition.
        """
        ...

    async def any_from(self, consumer: str, topic: str, offsets: Mapping[int, int]) -> bool:
        """Whether any record of `consumer` was ever parked that lies at one of these offsets, by partition, or behind
        it.
        """
        ...

    async def mark_retried(self, parked_id: str, *, at: datetime, by: str = "") -> bool:
        """A retry handled it. False when it was not open."""
        ...

    async def mark_failed(
        self,
        parked_id: str,
        *,
        at: datetime,
        error: str,
        next_try_at: datetime | None,
        reason: str | None = None,
        kind: ParkKind | None = None,
        kept: bool | None = None,
    ) -> bool:
        """A retry failed: count it, keep `error`, and a new reason, kind and `kept` if given. False when it was not
        open.
        """
        ...

    async def discard(self, parked_id: str, *, reason: str, by: str, at: datetime) -> bool:
        """Give it up; the record and the reason are kept. False when it was not open."""
        ...

    async def claim_due(
        self, kind: ParkKind, consumer: str, *, now: datetime, since: datetime, lease_until: datetime, limit: int
    ) -> Sequence[ParkedRecord]:
        """Open records of `kind`, parked not before `since`, whose next try is due: with their raw bytes, and
        put off to `lease_until` so that no other process takes them too. One that cannot be opened is put off as well,
        and not among them.
        """
        ...

    async def counts(self) -> Mapping[tuple[str, ParkKind], int]:
        """How many are open for each (consumer, kind)."""
        ...


def presentable_value(parked: ParkedRecord) -> bytes | None:
    """The raw value for a person's eyes, None where it must not be shown.

    A command may carry a password-reset link or a login code (category `auth`), so a record of a command
    topic is shown only when it can be read and says that it is of another category. In binary mode the value is the
    command's data, and there is no envelope around it.
    """
    if parked.topic not in _MAY_BE_SECRET or parked.raw is None:
        return parked.raw
    try:
        wire = from_json(parked.raw)
        category = wire["category"] if is_binary(parked.record) else wire["data"]["category"]
    except (ValueError, KeyError, TypeError, IndexError):
        return None
    return None if not isinstance(category, str) or category.strip().lower() == "auth" else parked.raw
