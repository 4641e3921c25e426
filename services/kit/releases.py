"""Releases: an operator's order to let go of the flood that a breaker holds back, carried out by the consumer itself.

A breaker keeps a flood of bad records on its topic, because it may be our fault. Once a person knows that it is not,
they release it. The order names a range of each partition. Within it, what the consumer's own handler refuses is set
aside without asking the breaker; what the handler takes is handled as ever. So an order can never cost a good record.

`park` puts each refused record into the parking lot. `discard` keeps of them only which offsets they were, how many, a
hash of their bytes and the reason; but what our code failed on (`bug`) is parked all the same, since it may be good.
The record of a range stands before an offset is committed, and what is discarded a second time, after a crash or by
another process, is not counted again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from struct import Struct
from typing import Final, Literal, Protocol, TypeVar

from services.kit.breaker import BreakerState
from services.kit.kafka.binding import source_of
from services.kit.kafka.records import ParkKind, Partition, Record
from services.kit.parking import UNCOUNTED

ReleaseAction = Literal["park", "discard"]

Run = tuple[int, int]
"""First and last of offsets of which none is left out."""

K = TypeVar("K")

_OFFSET: Final = Struct(">q")
_LENGTH: Final = Struct(">i")


@dataclass(frozen=True, slots=True)
class Bound:
    """Where an order holds in a partition: offsets from `first` on and before `until`."""

    topic: str
    partition: int
    first: int
    until: int

    @property
    def where(self) -> Partition:
        """The partition."""
        return Partition(self.topic, self.partition)


@dataclass(frozen=True, slots=True)
class Release:
    """One order.

    Attributes:
        id: a UUIDv7: orders sort by the time they were given.
        consumer: the group (or projection) that is to carry it out.
        action: what becomes of the records that its handler refuses.
        reason, by, at: why, by whom and when it was given.
        bounds: where it holds; nothing that was written after the order.
        source: only records with this CloudEvents `source`; None = all.
        passed: partitions in which the consumer has committed past the bound.
        closed_at: when it was past all of them; an order that is closed is not looked at any more.
    """

    id: str
    consumer: str
    action: ReleaseAction
    reason: str
    by: str
    at: datetime
    bounds: tuple[Bound, ...]
    source: str | None = None
    passed: frozenset[Partition] = frozenset()
    closed_at: datetime | None = None

    def discards(self, kind: ParkKind) -> bool:
        """Whether a record that is refused with `kind` is discarded. What our own code failed on may be good, and is
        parked by an order of either action.
        """
        return self.action == "discard" and kind != "bug"

    def holds(self, record: Record) -> bool:
        """Whether the order is about this record, if its handler refuses it."""
        return any(
            each.first <= record.offset < each.until
            for each in self.bounds
            if (each.topic, each.partition) == (record.topic, record.partition)
        ) and (self.source is None or source_of(record) == self.source)


@dataclass(frozen=True, slots=True)
class DiscardedRange:
    """Records of one partition that were discarded together.

    Attributes:
        number: 1 for the first of its consumer and partition, then one more each time.
        runs: exactly which offsets.
        size: bytes of the values.
        sha256: see `digest`.
        release, reason, by: the order by which they were.
        at: when.
    """

    consumer: str
    topic: str
    partition: int
    number: int
    runs: tuple[Run, ...]
    size: int
    sha256: str
    release: str
    reason: str
    by: str
    at: datetime

    @classmethod
    def of(cls, release: Release, number: int, records: Sequence[Record], at: datetime) -> DiscardedRange:
        """`records` of one partition, in order of their offsets, discarded by `release`."""
        return cls(
            consumer=release.consumer,
            topic=records[0].topic,
            partition=records[0].partition,
            number=number,
            runs=runs_of(record.offset for record in records),
            size=sum(len(record.value or b"") for record in records),
            sha256=digest(records),
            release=release.id,
            reason=release.reason,
            by=release.by,
            at=at,
        )

    @property
    def count(self) -> int:
        """How many records."""
        return sum(last - first + 1 for first, last in self.runs)


@dataclass(frozen=True, slots=True)
class BreakerReport:
    """What a process says of the breaker of one of its consumers while it is not closed.

    Attributes:
        member: which process, in words.
        topics: what the consumer reads.
        since: when it opened first.
        at: when this was said.
        topic, partition, offset, reason, source: of the last record that it did not admit; "" or None = unknown.
    """

    consumer: str
    member: str
    state: BreakerState
    topics: tuple[str, ...]
    since: datetime
    at: datetime
    topic: str = ""
    partition: int = -1
    offset: int = -1
    reason: str = ""
    source: str | None = None


class Releases(Protocol):
    """Where orders and what came of them are kept, as consumers use it. Every call raises Unavailable when the place
    cannot be reached.
    """

    async def in_force(self, consumer: str) -> Sequence[Release]:
        """The consumer's orders that are not closed, oldest first."""
        ...

    async def passed(self, release_id: str, partitions: Collection[Partition], at: datetime) -> None:
        """The consumer has committed past the order's bound in these partitions. With the last one it is closed."""
        ...

    async def discard(self, release: Release, records: Sequence[Record], at: datetime) -> int:
        """Record that these were discarded; durable when this returns. How many were not recorded before: doing it
        again, in other portions or from several processes, counts each record once.
        """
        ...

    async def discarded(
        self, consumer: str, topic: str, offsets: Mapping[int, Collection[int]]
    ) -> set[tuple[int, int]]:
        """Those of the offsets, by partition, that were discarded before: (partition, offset)."""
        ...

    async def any_from(self, consumer: str, topic: str, offsets: Mapping[int, int]) -> bool:
        """Whether any record was discarded that lies at one of these offsets, by partition, or behind it."""
        ...

    async def report(self, report: BreakerReport) -> None:
        """Keep what a breaker says, in place of what the same consumer and member said before."""
        ...

    async def withdraw(self, consumer: str, member: str) -> None:
        """The breaker is closed again, or its process ends."""
        ...


class NoReleases:
    """`Releases` of a consumer that takes no orders."""

    async def in_force(self, consumer: str) -> Sequence[Release]:
        """None."""
        return ()

    async def passed(self, release_id: str, partitions: Collection[Partition], at: datetime) -> None:
        """Nothing."""

    async def discard(self, release: Release, records: Sequence[Record], at: datetime) -> int:
        """Never called, since no order is in force."""
        raise NotImplementedError

    async def discarded(
        self, consumer: str, topic: str, offsets: Mapping[int, Collection[int]]
    ) -> set[tuple[int, int]]:
        """None."""
        return set()

    async def any_from(self, consumer: str, topic: str, offsets: Mapping[int, int]) -> bool:
        """None."""
        return False

    async def report(self, report: BreakerReport) -> None:
        """Nothing."""

    async def withdraw(self, consumer: str, member: str) -> None:
        """Nothing."""


def release_for(releases: Iterable[Release], record: Record, kind: ParkKind) -> Release | None:
    """The order by which a record may be set aside that its handler refuses with `kind`: the oldest one that holds.
    What the breaker does not count needs no order, and is parked whatever one says.
    """
    if kind in UNCOUNTED:
        return None
    return next((each for each in releases if each.holds(record)), None)


def by_release(released: Mapping[K, Release]) -> list[tuple[Release, list[K]]]:
    """Each order with what it holds for, in the order in which they come."""
    found: dict[str, tuple[Release, list[K]]] = {}
    for which, release in released.items():
        found.setdefault(release.id, (release, []))[1].append(which)
    return list(found.values())


async def note_passed(
    releases: Releases, orders: Iterable[Release], committed: Mapping[Partition, int], at: datetime
) -> None:
    """Tell `releases` of the bounds that are behind the committed offsets, or checkpoints, of these partitions."""
    for order in orders:
        behind = [
            each.where
            for each in order.bounds
            if each.where not in order.passed and committed.get(each.where, -1) >= each.until
        ]
        if behind:
            await releases.passed(order.id, behind, at)


def digest(records: Iterable[Record]) -> str:
    """SHA-256, in hex, over everything that was in the records, one after the other: the offset (8 bytes), the key,
    the value, the number of headers (4 bytes), and each header's name and value. Integers are signed and big-endian;
    bytes come after their length (4 bytes), -1 for null.
    """
    found = hashlib.sha256()
    for record in records:
        found.update(_OFFSET.pack(record.offset))
        found.update(_sized(record.key))
        found.update(_sized(record.value))
        found.update(_LENGTH.pack(len(record.headers)))
        for name, value in record.headers:
            found.update(_sized(name.encode()))
            found.update(_sized(value))
    return found.hexdigest()


def _sized(value: bytes | None) -> bytes:
    return _LENGTH.pack(-1) if value is None else _LENGTH.pack(len(value)) + value


def runs_of(offsets: Iterable[int]) -> tuple[Run, ...]:
    """Ascending offsets as runs without gaps."""
    runs: list[Run] = []
    for offset in offsets:
        if runs and runs[-1][1] == offset - 1:
            runs[-1] = (runs[-1][0], offset)
        else:
            runs.append((offset, offset))
    return tuple(runs)


def offsets_in(runs: Iterable[Sequence[int]], wanted: Collection[int]) -> set[int]:
    """Those of `wanted` that lie in one of the runs."""
    if not wanted:
        return set()
    low, high = min(wanted), max(wanted)
    inside = {offset for first, last in runs for offset in range(max(first, low), min(last, high) + 1)}
    return inside.intersection(wanted)
