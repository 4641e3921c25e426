"""`GET /api/email…`: mails as their owners and admins see them."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal, Self

import orjson
from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from pydantic import AwareDatetime, ConfigDict, Field, PlainValidator, TypeAdapter, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from contracts.base import Model, Money
from contracts.email.values import Category
from contracts.registry import EVENTS
from contracts.views import EmailLog, EmailStatus
from services.events.cursors import LONGEST
from services.events.projections.statistics import rates
from services.events.queries import LARGEST_PAGE, EmailFilter, EmailPage, EmailQueries, HistoryEntry, Sums
from services.kit.auth import Principal, require
from services.kit.errors import NotFound
from services.kit.http import Answer, router

_REVALIDATE = "private, no-cache"
_DAY_LENGTH = len("2026-11-24")
_moment: TypeAdapter[datetime] = TypeAdapter(AwareDatetime)
_ETAG = re.compile(r'(?:W/)?"[^"]*"|\*')

Reader = Annotated[Principal, Depends(require("email:read"))]
MessageId = Annotated[str, Path(min_length=1, max_length=128, description="messageId, which is emailLogId too")]


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


class EmailListQuery(Model):
    """What may be asked of the list. Days are UTC."""

    model_config = ConfigDict(extra="forbid")

    page: Annotated[int | None, Field(ge=1, le=10_000, description="from 1; not together with cursor")] = None
    limit: Annotated[int, Field(ge=1, le=LARGEST_PAGE)] = 20
    cursor: Annotated[
        str | None, Field(min_length=1, max_length=LONGEST, description="nextCursor of the page before")
    ] = None
    category: Category | None = None
    status: EmailStatus | None = None
    user_id: Annotated[Text | None, Field(description="of admins only; everybody else sees their own")] = None
    client_id: Text | None = None
    start_date: Annotated[
        DayOrMoment | None, Field(description="created from then on: a day (UTC), or a time with its offset")
    ] = None
    end_date: Annotated[DayOrMoment | None, Field(description="created until then, that day or moment included")] = None
    to: Annotated[str | None, Field(min_length=3, max_length=320, description="an address in to")] = None
    q: Annotated[str | None, Field(min_length=1, max_length=100, description="text that the subject holds")] = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.page is not None and self.cursor is not None:
            raise PydanticCustomError("exclusive", "give page or cursor, not both")
        since, before = self.since, self.before
        if since is not None and before is not None and since >= before:
            raise PydanticCustomError("reversed", "startDate must not be after endDate")
        return self

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

    def filter_for(self, principal: Principal) -> EmailFilter:
        """The filter, held to what `principal` may see."""
        return EmailFilter(
            user_id=self.user_id if principal.is_admin else principal.user_id,
            client_id=self.client_id,
            category=self.category,
            status=self.status,
            since=self.since,
            before=self.before,
            to=self.to,
            subject=self.q,
        )


class Analytics(Model):
    """Sums and rates over all mails of the filter; unit = recipients. A rate of nothing is null."""

    sent: int
    delivered: int
    bounced: int
    complained: int
    failed: int
    opened: Annotated[int, Field(description="recipients of whom a person opened it")]
    clicked: Annotated[int, Field(description="recipients of whom a person followed a link")]
    cost: Money
    delivery_rate: Annotated[float | None, Field(description="delivered / sent")]
    bounce_rate: Annotated[float | None, Field(description="permanent bounces / sent")]
    complaint_rate: Annotated[float | None, Field(description="complained / delivered")]
    open_rate: Annotated[float | None, Field(description="opened / delivered")]
    click_rate: Annotated[float | None, Field(description="clicked / delivered")]

    @classmethod
    def of(cls, sums: Sums) -> Self:
        counts, shares = sums.counts, rates(sums.counts)
        return cls(
            sent=counts.sent,
            delivered=counts.delivered,
            bounced=counts.bounced,
            complained=counts.complained,
            failed=counts.failed,
            opened=counts.opened,
            clicked=counts.clicked,
            cost=sums.cost,
            delivery_rate=shares.delivery_rate,
            bounce_rate=shares.bounce_rate,
            complaint_rate=shares.complaint_rate,
            open_rate=shares.open_rate,
            click_rate=shares.click_rate,
        )


class EmailList(Model):
    """A page of mails, latest first."""

    emails: list[EmailLog]
    page: Annotated[int | None, Field(description="absent when a cursor was given")] = None
    limit: int
    total: Annotated[int, Field(description="mails that match, on all pages")]
    next_cursor: Annotated[str | None, Field(description="goes on after this page; absent on the last")] = None
    analytics: Analytics


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


class History(Model):
    """Every event of a message, in the order in which they make the mail's log."""

    message_id: str
    events: list[HistoryItem]
    next_cursor: Annotated[str | None, Field(description="goes on after these; absent with the last")] = None


class HistoryQuery(Model):
    """How much of the history."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, Field(ge=1, le=1000)] = 1000
    cursor: Annotated[
        str | None, Field(min_length=1, max_length=LONGEST, description="nextCursor of the page before")
    ] = None


def email_router(queries: EmailQueries) -> APIRouter:
    """The routes, all with the scope `email:read`."""
    routes = router("/api/email", tag="email")

    @routes.get("", response_model=Answer[EmailList], summary="Mails, latest first")
    async def list_emails(asked: Annotated[EmailListQuery, Query()], principal: Reader) -> Response:
        """Non-admins see their own mails. `analytics` covers all mails of the filter, not this page alone."""
        number = None if asked.cursor is not None else asked.page or 1
        page = await queries.page(asked.filter_for(principal), limit=asked.limit, number=number, cursor=asked.cursor)
        listed = _as_list(page, number, asked.limit)
        return _json({**listed.to_wire(), "analytics": listed.analytics.model_dump(mode="json", by_alias=True)})

    @routes.get(
        "/{message_id}",
        response_model=Answer[EmailLog],
        responses={304: {"description": "It still is what If-None-Match says"}},
        summary="One mail",
    )
    async def one_email(
        message_id: MessageId,
        request: Request,
        principal: Reader,
        if_none_match: Annotated[str | None, Header(max_length=4096)] = None,
    ) -> Response:
        """A mail that was just asked for is waited for, up to a second."""
        email = await queries.wait_for(message_id, None if principal.is_admin else principal.user_id)
        if email is None:
            raise NotFound("There is no such mail.")
        answer = _json(email.to_wire())
        tag = f'"{hashlib.sha256(bytes(answer.body)).hexdigest()[:32]}"'
        answer.headers["etag"] = tag
        answer.headers["cache-control"] = _REVALIDATE
        if if_none_match is not None and _matches(if_none_match, tag):
            return Response(status_code=304, headers={"etag": tag, "cache-control": _REVALIDATE})
        return answer

    @routes.get("/{message_id}/history", response_model=Answer[History], summary="Everything that happened to one mail")
    async def history(message_id: MessageId, asked: Annotated[HistoryQuery, Query()], principal: Reader) -> Response:
        """Each event with its origin in the log: topic, partition, offset."""
        email = await queries.wait_for(message_id, None if principal.is_admin else principal.user_id)
        if email is None:
            raise NotFound("There is no such mail.")
        page = await queries.history(message_id, limit=asked.limit, cursor=asked.cursor)
        items = [_as_item(entry) for entry in page.entries]
        return _json(History(message_id=message_id, events=items, next_cursor=page.cursor).to_wire())

    return routes


def _as_list(page: EmailPage, number: int | None, limit: int) -> EmailList:
    return EmailList(
        emails=list(page.emails),
        page=number,
        limit=limit,
        total=page.sums.counts.messages,
        next_cursor=page.cursor,
        analytics=Analytics.of(page.sums),
    )


def _as_item(entry: HistoryEntry) -> HistoryItem:
    known = EVENTS.get(entry.event.type)
    return HistoryItem(
        event=entry.event.model_dump(mode="json", by_alias=True, exclude_none=True),
        kind="unknown" if known is None else known.kind,
        origin=Origin(topic=entry.topic, partition=entry.partition, offset=entry.offset),
        retracted=entry.retracted,
    )


def _json(data: dict[str, Any]) -> Response:
    """The answer's bytes. What is absent is left out by now, except rates: they are null where there is none."""
    return Response(orjson.dumps({"success": True, "data": data}), media_type="application/json")


def _matches(if_none_match: str, tag: str) -> bool:
    """RFC 9110 §13.1.2: weak comparison with any of the list."""
    given = _ETAG.findall(if_none_match)
    return "*" in given or tag in (each.removeprefix("W/") for each in given)


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
