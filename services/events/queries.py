"""What is asked of the read model `email_log`: pages with their sums, one mail, and the history of one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from contracts.base import Money
from contracts.email.values import Category
from contracts.envelope import Envelope
from contracts.registry import event_from_wire, read_json
from contracts.views import EmailLog, EmailStatus
from services.events.cursors import Place, Step, decode, decode_step, encode, encode_step
from services.events.projections.email_log import TOPIC
from services.events.projections.known import KnownEvent, is_retracted, retractions
from services.events.projections.statistics import Counts
from services.kit.clock import Clock
from services.kit.errors import InvalidRequest, PermanentError

LARGEST_PAGE: Final = 100
DEEPEST: Final = 10_000
"""Mails that page numbers reach; a cursor goes on to the end."""

SUM_SECONDS: Final = 10.0
"""What summing up one filter may take."""
WAIT_SECONDS: Final = 1.0
"""How long a mail that is not there yet is waited for, so that a caller can read what it just wrote."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.1


@dataclass(frozen=True, slots=True)
class EmailFilter:
    """Which mails; all conditions hold, None = any.

    Attributes:
        user_id: whose mails.
        since, before: of createdAt, `since` included and `before` not; aware.
        to: an address among the message's `to`, in any spelling of its domain.
        subject: text that the subject holds, upper and lower case alike.
    """

    user_id: str | None = None
    client_id: str | None = None
    category: Category | None = None
    status: EmailStatus | None = None
    since: datetime | None = None
    before: datetime | None = None
    to: str | None = None
    subject: str | None = None


@dataclass(frozen=True, slots=True)
class Sums:
    """What all mails of a filter add up to."""

    counts: Counts
    cost: Money


NO_SUMS: Final = Sums(Counts(), Money(amount=0, currency="USD"))


class TooMuch(PermanentError):
    """A filter covers more than may be read for one answer."""

    def __init__(self, detail: str) -> None:
        super().__init__("tooMuch", detail)


class EmailDocuments(Protocol):
    """The read model as it is asked: its active generation. Nothing is there before the first one.

    Every call raises Unavailable when it cannot be reached.
    """

    async def page(self, where: EmailFilter, after: Place | None, skip: int, count: int) -> list[EmailLog]:
        """`count` mails behind a place, or from the latest on, in the order (createdAt, id), without the first
        `skip`.
        """
        ...

    async def sums(self, where: EmailFilter) -> Sums:
        """The sums of all that match. Raises TooMuch when they cannot be made in `SUM_SECONDS`."""
        ...

    async def find(self, message_id: str, owner: str | None) -> EmailLog | None:
        """One mail, None when there is none that `owner` may see (None = anybody's)."""
        ...

    async def known(self, message_id: str) -> Sequence[KnownEvent]:
        """Every event known of one message, in no order: those of its document and those outside it."""
        ...


@dataclass(frozen=True, slots=True)
class EmailPage:
    """Some mails, latest first; `cursor` goes on after them, None = these are the last. `sums` are of the filter."""

    emails: tuple[EmailLog, ...]
    cursor: str | None
    sums: Sums


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One event of a message, current version, and where it lies in the log."""

    event: Envelope
    topic: str
    partition: int
    offset: int
    retracted: bool


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Events of a message in the order in which they are folded; `cursor` goes on, None = these are the last."""

    entries: tuple[HistoryEntry, ...]
    cursor: str | None


class EmailQueries:
    """Reads; changes nothing."""

    def __init__(self, documents: EmailDocuments, clock: Clock, *, wait_seconds: float = WAIT_SECONDS) -> None:
        self._documents = documents
        self._clock = clock
        self._wait_seconds = wait_seconds

    async def page(
        self, where: EmailFilter, *, limit: int, number: int | None = None, cursor: str | None = None
    ) -> EmailPage:
        """The page `number` (from 1), or the one that `cursor` begins, and the sums of all that match.

        Raises:
            InvalidRequest: a cursor that is not ours, a page too deep, or a filter that cannot be summed up in time.
        """
        after = None if cursor is None else decode(cursor)
        skip = 0 if number is None else (number - 1) * limit
        if skip + limit > DEEPEST:
            raise _wrong("page", f"pages reach {DEEPEST} mails: go on with nextCursor, or narrow the filter")
        found = await self._documents.page(where, after, skip, limit + 1)
        try:
            sums = await self._documents.sums(where)
        except TooMuch as error:
            raise _wrong("startDate", f"{error.detail}: narrow the filter by startDate and endDate") from None
        shown = tuple(found[:limit])
        more = len(found) > limit
        return EmailPage(shown, encode(Place(shown[-1].created_at, shown[-1].message_id)) if more else None, sums)

    async def wait_for(self, message_id: str, owner: str | None) -> EmailLog | None:
        """One mail, None when there is none that `owner` may see (None = anybody's). While there is none it is looked
        for again, for `wait_seconds`; another's mail takes as long as none at all.
        """
        until = self._clock.monotonic() + self._wait_seconds
        pause = _FIRST_PAUSE
        while (found := await self._documents.find(message_id, owner)) is None:
            left = until - self._clock.monotonic()
            if left <= 0:
                return None
            await self._clock.sleep(min(pause, left))
            pause = min(2 * pause, _LONGEST_PAUSE)
        return found

    async def history(self, message_id: str, *, limit: int, cursor: str | None = None) -> HistoryPage:
        """Events known of a message. Who may see them is the caller's to say.

        What is retracted is there and says so; a type that this build does not know is there with its data as it came.

        Raises:
            InvalidRequest: a cursor that is not ours.
        """
        after = None if cursor is None else decode_step(cursor)
        events = sorted(await self._documents.known(message_id))
        withdrawn = retractions(events)
        start = 0 if after is None else bisect_right(events, after, key=_step)
        shown = events[start : start + limit]
        entries = tuple(
            HistoryEntry(_envelope(event), TOPIC, event.partition, event.offset, is_retracted(event, withdrawn))
            for event in shown
        )
        return HistoryPage(entries, encode_step(_step(shown[-1])) if start + limit < len(events) else None)


def _step(event: KnownEvent) -> Step:
    return Step(event.time, event.rank, event.id)


def _envelope(event: KnownEvent) -> Envelope:
    return event_from_wire(read_json(event.raw))


def _wrong(field: str, message: str) -> InvalidRequest:
    return InvalidRequest(details=[{"field": field, "message": message, "in": "query"}])
