"""What an event store promises, and the values that go in and out of it.

A stream is one aggregate's decisions in order. `version` is how many there are; 0 = no such stream. An append
is one compare-and-set on the version: the events, where the stream is found (`StreamIndex`), its lease and
its place in the outbox change together or not at all. Events are stored as the exact strings that are
published.

Leases only keep two processes from doing the same work; nothing is *licensed* by one. What licenses is a
confirmed append, since of two appends on one version only one succeeds.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Protocol

from contracts.base import EventData
from contracts.envelope import Envelope
from contracts.errors import ContractError
from contracts.registry import EVENTS, NAMES, event_from_wire, read_json
from services.kit.errors import (
    AppendOutcomeUnknown,
    ExpectedVersionConflict,
    MailroomError,
    PermanentError,
    Unavailable,
)

MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class StreamIndex:
    """By what a stream is found. Written in the same compare-and-set as the events; each append replaces all
    of it.

    Attributes:
        due_at: when the stream next wants to be looked at (aware, UTC); None = it waits for nothing.
        lane: the lane in which it is then leased; needed with `due_at`.
        lookup: values that `find_by_lookup` knows it by, for instance provider message ids.
        owner_user: the user it belongs to, for authorisation.
    """

    due_at: datetime | None = None
    lane: str | None = None
    lookup: tuple[str, ...] = ()
    owner_user: str | None = None

    def __post_init__(self) -> None:
        if self.due_at is not None and self.lane is None:
            raise ValueError("a stream that is due needs a lane to be leased in")


@dataclass(frozen=True)
class Stream:
    """A stream as it stood when it was read or appended to.

    `wire` holds the stored strings, `events` the same decoded (and upcast) at first use. `published` is how
    many are known to be on the log, and the events up to version `others` were appended by others than the
    append that this object came of (0 where that is not known: all count as its own). `leased_by` and
    `leased_until` are None without a lease; `leased_until` is in the store's time, so compare it with nothing
    of this process: call `renew`.
    """

    stream_id: str
    version: int = 0
    wire: tuple[str, ...] = ()
    published: int = 0
    index: StreamIndex = field(default_factory=StreamIndex)
    leased_by: str | None = None
    leased_until: datetime | None = None
    others: int = field(default=0, compare=False)

    @classmethod
    def absent(cls, stream_id: str) -> "Stream":
        """The stream before its first event: what `load` returns for an unknown id."""
        return cls(stream_id)

    @classmethod
    def of(
        cls,
        stream_id: str,
        events: Sequence[Envelope],
        *,
        published: int = 0,
        index: StreamIndex | None = None,
        leased_by: str | None = None,
        leased_until: datetime | None = None,
    ) -> "Stream":
        """A stream of these events, written by this build."""
        wire = tuple(event.to_bytes().decode() for event in events)
        stream = cls(stream_id, len(wire), wire, published, index or StreamIndex(), leased_by, leased_until)
        stream.__dict__["events"] = tuple(events)
        return stream

    @cached_property
    def events(self) -> tuple[Envelope, ...]:
        """The decoded events, oldest first.

        Raises:
            PermanentError: `unreadableStream`: this build cannot decode one of them. Other streams are
            unaffected.
        """
        try:
            return tuple(event_from_wire(read_json(text.encode())) for text in self.wire)
        except ContractError as error:
            raise PermanentError("unreadableStream", f"{self.stream_id}: {error}") from error

    def extended(
        self,
        events: Sequence[Envelope],
        wire: Sequence[str],
        *,
        index: StreamIndex,
        leased_by: str | None,
        leased_until: datetime | None,
    ) -> "Stream":
        """The stream with `events` (`wire` is their stored form) after its own, and the rest replaced."""
        longer = Stream(
            self.stream_id,
            self.version + len(wire),
            (*self.wire, *wire),
            self.published,
            index,
            leased_by,
            leased_until,
            others=self.version,
        )
        if self.version == 0 or "events" in self.__dict__:
            longer.__dict__["events"] = (*self.events, *events)
        return longer

    @property
    def unpublished(self) -> tuple[str, ...]:
        """The stored strings that are not known to be on the log, oldest first."""
        return self.wire[self.published :]


@dataclass(frozen=True, slots=True)
class Draft:
    """A decision before it has a place in a stream.

    Attributes:
        data: what was decided; its model names the type.
        id: the event's id where it is not just a new one (a suppression's follows from its cause).
        causation: id of the command or event that caused it.
        actor: who asked for it.
    """

    data: EventData
    id: str | None = None
    causation: str | None = None
    actor: str | None = None


def stamp(
    stream: Stream,
    drafts: Sequence[Draft],
    *,
    now: datetime,
    new_id: Callable[[], str],
    source: str,
    correlation: str,
    traceparent: str | None = None,
) -> tuple[Envelope, ...]:
    """Make the envelopes that follow `stream`'s last event.

    Versions count on from the stream's; each time is max(`now`, the time before + 1 µs), so that the order in
    the stream and the order by time agree whatever clocks did. The subject is the stream's id.
    """
    last = stream.events[-1].time if stream.version else None
    stamped: list[Envelope] = []
    for version, draft in enumerate(drafts, stream.version + 1):
        last = now if last is None else max(now, last + MICROSECOND)
        name = NAMES[type(draft.data)]
        stamped.append(
            Envelope(
                id=draft.id or new_id(),
                source=source,
                type=name,
                subject=stream.stream_id,
                time=last,
                dataversion=EVENTS[name].version,
                correlationid=correlation,
                causationid=draft.causation,
                traceparent=traceparent,
                actor=draft.actor,
                streamversion=version,
                data=draft.data,
            )
        )
    return tuple(stamped)


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease to be taken: by whom, and for how long from now."""

    owner: str
    lasts: timedelta


DUE_COUNTED = 100_000
"""What waits is counted up to here: beyond it, how many there are is no question any more."""


@dataclass(frozen=True, slots=True)
class Append:
    """One append: `events` (from `stamp`, at least one) onto `stream` as it was read.

    Attributes:
        stream: what the decision was made on; its version is the expected one.
        events: what was decided.
        index: by what the stream is found from now on; replaces the old one whole.
        keep_lease: leave a lease on it as it is (a writer that is not its holder does this, or a holder that
        goes on);
            False drops any lease.
        lease: take the lease in the same compare-and-set, whoever had it. Wins over `keep_lease`.
    """

    stream: Stream
    events: tuple[Envelope, ...]
    index: StreamIndex
    keep_lease: bool = False
    lease: Lease | None = None

    def __post_init__(self) -> None:
        first = self.stream.version + 1
        if not self.events:
            raise ValueError("an append needs an event")
        if any(event.streamversion != version for version, event in enumerate(self.events, first)):
            raise ValueError(f"the events' stream versions must count on from {first}: use stamp()")
        if any(event.subject != self.stream.stream_id for event in self.events):
            raise ValueError("an event's subject must be the stream it is appended to")


@dataclass(frozen=True, slots=True)
class Appended:
    """Confirmed: the events stand, acknowledged by a majority.

    `stream` is what they made of it; where the answer was lost and it was read back, it may have grown on since.
    """

    stream: Stream


AppendResult = Appended | ExpectedVersionConflict | AppendOutcomeUnknown | Unavailable | PermanentError
"""Appended; somebody else wrote first (load and decide again); written or not, nobody can tell (load before
acting);
certainly not written because the store is away; never writable (`streamTooLarge`, `appendRefused`)."""


def has_grown(append: Append, result: Appended) -> bool:
    """Whether more stands than what was appended: then the state that these events make is not that of the stream."""
    return result.stream.version > append.stream.version + len(append.events)


def is_race(result: object) -> bool:
    """Whether to read the stream and decide again: somebody else wrote first, or nobody knows who did."""
    return isinstance(result, ExpectedVersionConflict | AppendOutcomeUnknown)


def confirmed(result: AppendResult) -> Stream:
    """The stream after a confirmed append.

    Raises:
        MailroomError: the result, if it is anything else.
    """
    if isinstance(result, MailroomError):
        raise result
    return result.stream


class EventStore(Protocol):
    """Streams and their outbox. Every method but the appends raises Unavailable when the store cannot answer and
    nothing is known.

    What is read was acknowledged by a majority; what was confirmed survives a crash of any one node.
    """

    async def load(self, stream_id: str) -> Stream:
        """The stream, or `Stream.absent` (version 0)."""
        ...

    async def load_many(self, stream_ids: Collection[str]) -> Mapping[str, Stream]:
        """Each of the streams, absent ones too, by id."""
        ...

    async def append(self, append: Append) -> AppendResult:
        """`append_many` of one."""
        ...

    async def append_many(self, appends: Sequence[Append]) -> list[AppendResult]:
        """Append to several streams; each item has its own result at its index and none affects another. While the
        store is away that is Unavailable for each: this is the one method that never raises it.

        A stream may be named once per call: it raises ValueError otherwise. An item whose answer was lost is
        read back, and written again while the stream is unchanged; AppendOutcomeUnknown is what could not be
        settled so. Cancelling the call leaves the outcome unknown.
        """
        ...

    async def find_by_lookup(self, value: str) -> str | None:
        """The id of a stream whose index holds `value`; None if there is none."""
        ...

    async def list_by_lookup(self, value: str, after: str | None, limit: int) -> list[Stream]:
        """At most `limit` streams whose index holds `value`, by id, those after the id `after`."""
        ...

    async def mark_published(self, marks: Sequence[tuple[str, int]]) -> None:
        """Note for each (stream id, version) that the events up to that version are on the log. Never goes
        back.
        """
        ...

    async def unpublished(self, older_than: timedelta, limit: int) -> list[Stream]:
        """At most `limit` streams with an event that is unpublished for longer than that, the oldest first."""
        ...

    async def postpone_publishing(self, stream_ids: Collection[str], delay: timedelta) -> None:
        """Let these unpublished streams count as unpublished from `delay` from now on only, so that those that cannot
        be published do not stand before the others. The next append to one ends that.
        """
        ...

    async def lease_due(
        self,
        lanes: Sequence[tuple[str, int]],
        owner: str,
        lease_for: timedelta,
        now: datetime,
        total: int | None = None,
    ) -> list[Stream]:
        """Lease at most `limit` due streams of each (lane, limit): lanes in this order, earliest due first in each,
        and `total` in all, if given.

        Due = `due_at` ≤ `now` and no lease in force. `lease_for` counts in the store's time.
        """
        ...

    async def due_counts(self, lanes: Sequence[str], now: datetime) -> dict[str, int]:
        """How many streams of each lane are due and free to be leased; no more than `DUE_COUNTED` are counted."""
        ...

    async def renew(
        self, stream_ids: Collection[str], owner: str, lease_for: timedelta, *, shorten: bool = False
    ) -> set[str]:
        """Prolong `owner`'s leases to `lease_for` from now; returns those that it still holds, the rest are
        lost. A lease that ends later keeps its end, unless `shorten`.
        """
        ...

    async def release(self, stream_ids: Collection[str], owner: str) -> None:
        """Give back `owner`'s leases; streams that somebody else has leased meanwhile are left alone."""
        ...
