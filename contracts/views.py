"""The read models as analytics and the API see them. Stored in MongoDB under the same names, times as BSON dates."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from contracts.base import Model, Money
from contracts.email.values import AttachmentInfo, Category, ContentRef, Priority

EmailStatus = Literal["queued", "sent", "delivered", "bounced", "complaint", "failed"]
LogEventType = Literal[
    "send",
    "delivery",
    "bounce",
    "complaint",
    "open",
    "click",
    "request",
    "attempt",
    "reject",
    "unknown",
    "settle",
    "confirm",
    "delay",
    "fail",
    "cancel",
    "unsubscribe",
]

WORST_FIRST: tuple[EmailStatus, ...] = ("complaint", "bounced", "failed", "queued", "sent", "delivered")
"""A message's status is the worst of its recipients': the first of these that any of them has."""


class LogEvent(Model):
    """One thing that happened to a message, as shown to people."""

    type: LogEventType
    timestamp: datetime
    recipient: str | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)


class RecipientLog(Model):
    """What is known of one delivery."""

    address: str
    status: EmailStatus
    outcome_unknown: bool | None = None
    provider: str | None = None
    provider_message_id: str | None = None
    attempts: int = 0
    last_event_at: datetime | None = None
    opens: int = 0
    clicks: int = 0
    machine_opens: int = 0
    machine_clicks: int = 0


class EmailLog(Model):
    """`email_log`: one message and what became of it. In MongoDB `_id` = messageId."""

    message_id: str
    to: list[str]
    cc: list[str] | None = None
    bcc: list[str] | None = None
    from_: str = Field(alias="from")
    reply_to: str | None = None
    subject: str
    content: ContentRef | None = None
    category: Category
    status: EmailStatus
    priority: Priority
    events: list[LogEvent]
    events_truncated: bool | None = None
    recipients: list[RecipientLog]
    user_id: str
    client_id: str | None = None
    template_id: str | None = None
    cost: Money
    size: int
    tags: dict[str, str] | None = None
    custom_data: dict[str, Any] | None = None
    attachments: list[AttachmentInfo] | None = None
    provider: str | None = None
    created_at: datetime
    updated_at: datetime
