"""What is asked of the read model `email_log`: pages with their sums, one mail, and the history of one.

Everything is read through the pointer, so from the active generation, and nothing of a document's bookkeeping is shown.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

from pymongo.errors import PyMongoError

from contracts.base import Money
from contracts.envelope import Envelope
from contracts.registry import event_from_wire, read_json
from contracts.views import EmailLog
from services.events.analytics import CURRENCY, counts_of, sums
from services.events.cursors import Place, decode, encode
from services.events.email_filter import EmailFilter, Query
from services.events.projections.email_log import TOPIC
from services.events.projections.known import KnownEvent, is_retracted, retractions
from services.events.projections.statistics import Counts
from services.kit.clock import Clock
from services.kit.errors import InvalidRequest
from services.kit.mongo import Collection, foreign_errors

LARGEST_PAGE: Final = 100
DEEPEST: Final = 10_000
"""Mails that page numbers reach; a cursor goes on to the end."""

SUM_SECONDS: Final = 10.0
"""What counting and summing up one filter may take."""
WAIT_SECONDS: Final = 1.0
"""How long a mail that is not there yet is waited for, so that a caller can read what it just wrote."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.1
_SHOWN: Final = {str(field.alias): 1 for field in EmailLog.model_fields.values()}
_LATEST_FIRST: Final = [("createdAt", -1), ("_id", -1)]
_TOO_LONG: Final = 50  # MaxTimeMSExpired

ActiveCollection = Callable[[], Awaitable[Collection | None]]
"""The collection of the active generation; None before there is one."""
KnownEvents = Callable[[str], Awaitable[Sequence[KnownEvent]]]
"""Every event known of one message, in no order: those of its document and those outside it; () for none."""


class BucketSums(Protocol):
    """The statistics' sums over whole days."""

    async def __call__(
        self, since: datetime | None, before: datetime | None, category: str | None
    ) -> tuple[Counts, str | None] | None:
        """(sums, currency) of the cohorts of these days; None where they are not at hand."""
        ...


@dataclass(frozen=True, slots=True)
class Sums:
    """What all mails of a filter add up to."""

    counts: Counts
    cost: Money


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


class EmailQueries:
    """Reads; changes nothing. Every call raises Unavailable when MongoDB cannot be asked."""

    def __init__(
        self, active: ActiveCollection, known: KnownEvents, clock: Clock, *, buckets: BucketSums | None = None
    ) -> None:
        self._active = active
        self._known = known
        self._clock = clock
        self._buckets = buckets

    async def page(
        self, where: EmailFilter, *, limit: int, number: int | None = None, cursor: str | None = None
    ) -> EmailPage:
        """The page `number` (from 1), or the one that `cursor` begins, and the sums of all that match.

        Raises:
            InvalidRequest: a cursor that is not ours, a page too deep, or a filter that cannot be summed up in time.
        """
        collection = await self._active()
        if collection is None:
            return EmailPage((), None, _as_sums(None))
        query = where.query()
        after = None if cursor is None else decode(cursor)
        skip = 0 if number is None else (number - 1) * limit
        if skip + limit > DEEPEST:
            message = f"pages reach {DEEPEST} mails: go on with nextCursor, or narrow the filter"
            raise InvalidRequest(details=[{"field": "page", "message": message, "in": "query"}])
        with foreign_errors():
            found = await _sorted(collection, query, after, skip, limit + 1)
            counted = await self._sums(collection, where, query)
        emails = tuple(map(_shown, found[:limit]))
        last = found[limit - 1] if len(found) > limit else None
        return EmailPage(emails, None if last is None else encode(Place(last["createdAt"], last["_id"])), counted)

    async def find(self, message_id: str, owner: str | None) -> EmailLog | None:
        """One mail, None when there is none that `owner` may see (None = anybody's)."""
        collection = await self._active()
        if collection is None:
            return None
        query: Query = {"_id": message_id, "_visible": {"$ne": False}}
        if owner is not None:
            query["userId"] = owner
        with foreign_errors():
            document = await collection.find_one(query, _SHOWN)
        return None if document is None else _shown(document)

    async def wait_for(self, message_id: str, owner: str | None, seconds: float = WAIT_SECONDS) -> EmailLog | None:
        """`find`, again and again for `seconds` while there is nothing. Another's mail takes as long as none at all."""
        until = self._clock.monotonic() + seconds
        pause = _FIRST_PAUSE
        while (found := await self.find(message_id, owner)) is None:
            left = until - self._clock.monotonic()
            if left <= 0:
                return None
            await self._clock.sleep(min(pause, left))
            pause = min(2 * pause, _LONGEST_PAUSE)
        return found

    async def history(self, message_id: str) -> list[HistoryEntry]:
        """Every event known of a message, in the order in which they are folded. Who may see it is the caller's to say.

        What is retracted is there and says so; a type that this build does not know is there with its data as it came.
        """
        events = sorted(await self._known(message_id))
        withdrawn = retractions(events)
        return [
            HistoryEntry(
                event_from_wire(read_json(event.raw)),
                TOPIC,
                event.partition,
                event.offset,
                is_retracted(event, withdrawn),
            )
            for event in events
        ]

    async def _sums(self, collection: Collection, where: EmailFilter, query: Query) -> Sums:
        if self._buckets is not None and where.is_of_buckets:
            told = await self._buckets(where.since, where.before, where.category)
            if told is not None:
                return Sums(told[0], Money(amount=told[0].cost, currency=told[1] or "USD"))
        try:
            rows = await collection.aggregate(
                [{"$match": query}, sums()], maxTimeMS=int(SUM_SECONDS * 1000), allowDiskUse=False
            ).to_list(1)
        except PyMongoError as error:
            if getattr(error, "code", None) != _TOO_LONG:
                raise
            message = (
                f"matches more mails than can be summed up in {SUM_SECONDS:g} s: narrow it by startDate and endDate"
            )
            raise InvalidRequest(details=[{"field": "startDate", "message": message, "in": "query"}]) from None
        return _as_sums(rows[0] if rows else None)


def _as_sums(row: dict[str, Any] | None) -> Sums:
    if row is None:
        return Sums(Counts(), Money(amount=0, currency="USD"))
    counts = counts_of(row)
    return Sums(counts, Money(amount=counts.cost, currency=row[CURRENCY] or "USD"))


async def _sorted(
    collection: Collection, query: Query, after: Place | None, skip: int, count: int
) -> list[dict[str, Any]]:
    """`count` documents from the place on, in the order (createdAt, _id), latest first.

    The indexes end with createdAt. So one walk along an index finds how far back the page goes, and only what lies in
    that span (the page and those of its last millisecond) is sorted by id too.
    """
    conditions: list[Query] = [query]
    if after is not None:
        conditions.append({"createdAt": {"$lte": after.created_at}})
        conditions.append({"$or": [{"createdAt": {"$lt": after.created_at}}, {"_id": {"$lt": after.id}}]})
    walk = collection.find({"$and": conditions}, {"_id": 0, "createdAt": 1}).sort("createdAt", -1)
    ends = await walk.skip(skip + count - 1).limit(1).to_list(1)
    if ends:
        conditions.append({"createdAt": {"$gte": ends[0]["createdAt"]}})
    return (
        await collection.find({"$and": conditions}, _SHOWN).sort(_LATEST_FIRST).skip(skip).limit(count).to_list(count)
    )


def _shown(document: dict[str, Any]) -> EmailLog:
    return EmailLog.model_validate(document)
