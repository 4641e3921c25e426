"""What is asked of a read model: pages with their sums, one document, and the history of one. The same for all of them.

A read model of its own adds its filter, its sums and its name: `email_queries.py`, `file_queries.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from contracts.envelope import Envelope
from contracts.registry import event_from_wire, read_json
from services.events.cursors import Place, Step, decode, decode_step, encode, encode_step
from services.events.projections.known import KnownEvent, is_retracted
from services.kit.clock import Clock
from services.kit.errors import InvalidRequest, TooMuch

LARGEST_PAGE: Final = 100
DEEPEST: Final = 10_000
"""Documents that page numbers reach; a cursor goes on to the end."""

SUM_SECONDS: Final = 10.0
"""What summing up one filter may take."""

WAIT_SECONDS: Final = 1.0
"""How long a document that is not there yet is waited for, so that a caller can read what it just wrote."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.1

Where = TypeVar("Where")
Shown = TypeVar("Shown")
Total = TypeVar("Total")
_Where_contra = TypeVar("_Where_contra", contravariant=True)
_Shown_co = TypeVar("_Shown_co", covariant=True)
_Total_co = TypeVar("_Total_co", covariant=True)


@dataclass(frozen=True, slots=True)
class HistoryPart:
    """Some of the events known of an aggregate, in the order in which they are folded; `withdrawn`: as `retractions`
    tells it of all of them.
    """

    events: Sequence[KnownEvent]
    withdrawn: dict[str, int]


class Documents(Protocol[_Where_contra, _Shown_co, _Total_co]):
    """A read model as it is asked: its active generation. Nothing is there before the first one.

    Every call raises Unavailable when it cannot be reached.
    """

    async def page(self, where: _Where_contra, after: Place | None, skip: int, count: int) -> Sequence[_Shown_co]:
        """`count` documents behind a place, or from the latest on, in the order (createdAt, id), without the first
        `skip`. Raises TooMuch when they cannot be found in `READ_SECONDS`.
        """
        ...

    async def sums(self, where: _Where_contra) -> _Total_co:
        """The sums of all that match. Raises TooMuch when they cannot be made in `SUM_SECONDS`."""
        ...

    async def find(self, aggregate: str, owner: str | None) -> _Shown_co | None:
        """One document, None when there is none that `owner` may see (None = anybody's)."""
        ...

    async def history(self, aggregate: str, after: Step | None, count: int) -> HistoryPart:
        """The first `count` events known of one aggregate behind a step, or from its beginning on: those of its
        document and those outside it, of which no more are read than are told.
        """
        ...


@dataclass(frozen=True, slots=True)
class Page(Generic[Shown, Total]):
    """Some documents, latest first; `cursor` goes on after them, None = these are the last. `sums`: of the filter."""

    shown: tuple[Shown, ...]
    cursor: str | None
    sums: Total


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One event of an aggregate, current version, and where it lies in the log."""

    event: Envelope
    topic: str
    partition: int
    offset: int
    retracted: bool


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Events of an aggregate in the order in which they are folded; `cursor` goes on, None = these are the last."""

    entries: tuple[HistoryEntry, ...]
    cursor: str | None


class Queries(Generic[Where, Shown, Total]):
    """Reads; changes nothing."""

    def __init__(
        self,
        documents: Documents[Where, Shown, Total],
        clock: Clock,
        *,
        topic: str,
        place: Callable[[Shown], Place],
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        """`topic`: where the events lie; `place`: a document's place in a list."""
        self._documents = documents
        self._clock = clock
        self._topic = topic
        self._place = place
        self._wait_seconds = wait_seconds

    async def page(
        self, where: Where, *, limit: int, number: int | None = None, cursor: str | None = None
    ) -> Page[Shown, Total]:
        """The page `number` (from 1), or the one that `cursor` begins, and the sums of all that match.

        Raises:
            InvalidRequest: a cursor that is not ours, a page too deep, or a filter whose page cannot be found, or whose
                sums cannot be made, in time.
        """
        after = None if cursor is None else decode(cursor)
        skip = 0 if number is None else (number - 1) * limit
        if skip + limit > DEEPEST:
            raise _wrong("page", f"pages reach {DEEPEST} entries: go on with nextCursor, or narrow the filter")
        try:
            found = await self._documents.page(where, after, skip, limit + 1)
            sums = await self._documents.sums(where)
        except TooMuch as error:
            raise _wrong("startDate", f"{error.detail}: narrow the filter by startDate and endDate") from None
        shown = tuple(found[:limit])
        more = len(found) > limit
        return Page(shown, encode(self._place(shown[-1])) if more else None, sums)

    async def wait_for(self, aggregate: str, owner: str | None) -> Shown | None:
        """One document, None when there is none that `owner` may see (None = anybody's). While there is none it is
        looked for again, for `wait_seconds`; another's takes as long as none at all.
        """
        until = self._clock.monotonic() + self._wait_seconds
        pause = _FIRST_PAUSE
        while (found := await self._documents.find(aggregate, owner)) is None:
            left = until - self._clock.monotonic()
            if left <= 0:
                return None
            await self._clock.sleep(min(pause, left))
            pause = min(2 * pause, _LONGEST_PAUSE)
        return found

    async def history(self, aggregate: str, *, limit: int, cursor: str | None = None) -> HistoryPage:
        """Events known of an aggregate. Who may see them is the caller's to say.

        What is retracted is there and says so; a type that this build does not know is there with its data as it came.

        Raises:
            InvalidRequest: a cursor that is not ours.
        """
        after = None if cursor is None else decode_step(cursor)
        found = await self._documents.history(aggregate, after, limit + 1)
        shown, withdrawn, topic = found.events[:limit], found.withdrawn, self._topic
        entries = tuple(
            HistoryEntry(_envelope(event), topic, event.partition, event.offset, is_retracted(event, withdrawn))
            for event in shown
        )
        return HistoryPage(entries, encode_step(Step.of(shown[-1])) if len(found.events) > limit else None)


def _envelope(event: KnownEvent) -> Envelope:
    return event_from_wire(read_json(event.raw))


def _wrong(field: str, message: str) -> InvalidRequest:
    return InvalidRequest(details=[{"field": field, "message": message, "in": "query"}])
