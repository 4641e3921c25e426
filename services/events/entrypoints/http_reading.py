"""What the routes of all read models share: how lists are asked for, and histories."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal, Self

import orjson
from fastapi import Response
from pydantic import AwareDatetime, Field, PlainValidator, TypeAdapter, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from contracts.base import CommandData, Model
from contracts.registry import EVENTS
from services.events.cursors import LONGEST
from services.events.queries import LARGEST_PAGE, HistoryEntry
from services.kit.auth import Principal

_DAY_LENGTH = len("2026-11-24")
_moment: TypeAdapter[datetime] = TypeAdapter(AwareDatetime)


def _read_day_or_moment(text: object) -> date | datetime:
    """A day as it stands, or an aware time in UTC; of years that MongoDB's dates and days around them can hold."""
    try:
        found = (
            date.fromisoformat(text)
            if isinstance(text, str) and len(text) == _DAY_LENGTH
            else _moment.validate_python(text)
        )
        if 1970 <= found.year < 9999:
            return found.astimezone(UTC) if isinstance(found, datetime) else found
    except (ValueError, OverflowError):
        pass
    raise PydanticCustomError(
        "day_or_moment", "must be a day such as 2026-11-24, or a time with its offset such as 2026-11-24T10:25:00Z"
    )


DayOrMoment = Annotated[
    date | datetime,
    PlainValidator(_read_day_or_moment),
    WithJsonSchema({"anyOf": [{"type": "string", "format": "date"}, {"type": "string", "format": "date-time"}]}),
]
Cursor = Annotated[str | None, Field(min_length=1, max_length=LONGEST, description="nextCursor of the page before")]
Text = Annotated[str, Field(min_length=1, max_length=128)]
Search = Annotated[str, Field(min_length=1, max_length=100)]


class ListQuery(CommandData):
    """What may be asked of every list. Days are UTC."""

    page: Annotated[int | None, Field(ge=1, le=10_000, description="from 1; not together with cursor")] = None
    limit: Annotated[int, Field(ge=1, le=LARGEST_PAGE)] = 20
    cursor: Cursor = None
    user_id: Annotated[Text | None, Field(description="of admins only; everybody else sees their own")] = None
    client_id: Text | None = None
    start_date: Annotated[
        DayOrMoment | None, Field(description="created from then on: a day (UTC), or a time with its offset")
    ] = None
    end_date: Annotated[DayOrMoment | None, Field(description="created until then, that day or moment included")] = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.page is not None and self.cursor is not None:
            raise PydanticCustomError("exclusive", "give page or cursor, not both")
        since, before = self.since, self.before
        if since is not None and before is not None and since >= before:
            raise PydanticCustomError("reversed", "startDate must not be after endDate")
        return self

    @property
    def number(self) -> int | None:
        """The page's number; None when a cursor was given."""
        return None if self.cursor is not None else self.page or 1

    @property
    def since(self) -> datetime | None:
        """The first moment that counts."""
        start = self.start_date
        if start is None:
            return None
        return start if isinstance(start, datetime) else _midnight(start)

    @property
    def before(self) -> datetime | None:
        """The first moment that does not count any more. createdAt has milliseconds."""
        end = self.end_date
        if end is None:
            return None
        if isinstance(end, datetime):
            return end + timedelta(milliseconds=1)
        return _midnight(end + timedelta(days=1))

    def whose(self, principal: Principal) -> str | None:
        """Whose documents `principal` asks for and may see; None = anybody's."""
        return self.user_id if principal.is_admin else principal.user_id


def owner_for(principal: Principal) -> str | None:
    """Whose single documents `principal` may see; None = anybody's."""
    return None if principal.is_admin else principal.user_id


class Listed(Model):
    """What every list tells beside its entries."""

    page: Annotated[int | None, Field(description="absent when a cursor was given")] = None
    limit: int
    total: Annotated[int, Field(description="entries that match, on all pages")]
    next_cursor: Annotated[str | None, Field(description="goes on after this page; absent on the last")] = None


class Origin(Model):
    """Where an event lies in the log."""

    topic: str
    partition: int
    offset: int


class HistoryItem(Model):
    """One event and where it came from."""

    event: Annotated[dict[str, Any], Field(description="the CloudEvent, in its current version")]
    kind: Annotated[
        Literal["decision", "fact", "unknown"],
        Field(description="decided by Mailroom, told by a provider, or of a type that this build does not know"),
    ]
    origin: Origin
    retracted: Annotated[bool, Field(description="taken back by a later event.retracted: it counts no more")]

    @classmethod
    def of(cls, entry: HistoryEntry) -> Self:
        known = EVENTS.get(entry.event.type)
        return cls(
            event=entry.event.model_dump(mode="json", by_alias=True, exclude_none=True),
            kind="unknown" if known is None else known.kind,
            origin=Origin(topic=entry.topic, partition=entry.partition, offset=entry.offset),
            retracted=entry.retracted,
        )


class HistoryQuery(CommandData):
    """How much of the history."""

    limit: Annotated[int, Field(ge=1, le=1000)] = 1000
    cursor: Cursor = None


def json(data: dict[str, Any]) -> Response:
    """The answer's bytes. What is absent is left out by now."""
    return Response(orjson.dumps({"success": True, "data": data}), media_type="application/json")


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
