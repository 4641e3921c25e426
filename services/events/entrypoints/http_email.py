"""`GET /api/email…`: mails as their owners and admins see them."""

from __future__ import annotations

from typing import Annotated, Self

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import Field

from contracts.base import Model, Money
from contracts.email.values import Category
from contracts.views import EmailLog, EmailStatus
from services.events.email_queries import EmailFilter, EmailQueries, Sums
from services.events.entrypoints.http_reading import (
    HistoryItem,
    HistoryQuery,
    Listed,
    ListQuery,
    Search,
    json,
    owner_for,
)
from services.events.projections.statistics import rates
from services.kit.auth import Principal, require
from services.kit.errors import NotFound
from services.kit.etag import NOT_MODIFIED, IfNoneMatch, unless_known
from services.kit.http import Answer, router

Reader = Annotated[Principal, Depends(require("email:read"))]
MessageId = Annotated[str, Path(min_length=1, max_length=128, description="messageId, which is emailLogId too")]


class EmailListQuery(ListQuery):
    """What may be asked of the list. Days are UTC."""

    category: Category | None = None
    status: EmailStatus | None = None
    to: Annotated[str | None, Field(min_length=3, max_length=320, description="an address in to")] = None
    q: Annotated[Search | None, Field(description="text that the subject holds")] = None

    def filter_for(self, principal: Principal) -> EmailFilter:
        """The filter, held to what `principal` may see."""
        return EmailFilter(
            user_id=self.whose(principal),
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


class EmailList(Listed):
    """A page of mails, latest first."""

    emails: list[EmailLog]
    analytics: Analytics


class History(Model):
    """Every event of a message, in the order in which they make the mail's log."""

    message_id: str
    events: list[HistoryItem]
    next_cursor: Annotated[str | None, Field(description="goes on after these; absent with the last")] = None


def email_router(queries: EmailQueries) -> APIRouter:
    """The routes, all with the scope `email:read`."""
    routes = router("/api/email", tag="email")

    @routes.get("", response_model=Answer[EmailList], responses=NOT_MODIFIED, summary="Mails, latest first")
    async def list_emails(
        asked: Annotated[EmailListQuery, Query()], principal: Reader, if_none_match: IfNoneMatch = None
    ) -> Response:
        """Non-admins see their own mails. `analytics` covers all mails of the filter, not this page alone."""
        page = await queries.page(
            asked.filter_for(principal), limit=asked.limit, number=asked.number, cursor=asked.cursor
        )
        analytics = Analytics.of(page.sums)
        listed = EmailList(
            emails=list(page.shown),
            page=asked.number,
            limit=asked.limit,
            total=page.sums.counts.messages,
            next_cursor=page.cursor,
            analytics=analytics,
        )
        # A rate of nothing is null, not absent.
        told = {**listed.to_wire(), "analytics": analytics.model_dump(mode="json", by_alias=True)}
        return unless_known(json(told), if_none_match)

    @routes.get("/{message_id}", response_model=Answer[EmailLog], responses=NOT_MODIFIED, summary="One mail")
    async def one_email(message_id: MessageId, principal: Reader, if_none_match: IfNoneMatch = None) -> Response:
        """A mail that was just asked for is waited for, up to a second."""
        return unless_known(json((await _found(queries, message_id, principal)).to_wire()), if_none_match)

    @routes.get(
        "/{message_id}/history",
        response_model=Answer[History],
        responses=NOT_MODIFIED,
        summary="Everything that happened to one mail",
    )
    async def history(
        message_id: MessageId,
        asked: Annotated[HistoryQuery, Query()],
        principal: Reader,
        if_none_match: IfNoneMatch = None,
    ) -> Response:
        """Each event with its origin in the log: topic, partition, offset."""
        await _found(queries, message_id, principal)
        page = await queries.history(message_id, limit=asked.limit, cursor=asked.cursor)
        items = [HistoryItem.of(entry) for entry in page.entries]
        told = History(message_id=message_id, events=items, next_cursor=page.cursor)
        return unless_known(json(told.to_wire()), if_none_match)

    return routes


async def _found(queries: EmailQueries, message_id: str, principal: Principal) -> EmailLog:
    """Raises NotFound for what is not there, and for what is another's."""
    email = await queries.wait_for(message_id, owner_for(principal))
    if email is None:
        raise NotFound("There is no such mail.")
    return email
