"""The read models as analytics and the API see them. Stored in MongoDB under the same names, times as BSON dates."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from contracts.base import Model, Money
from contracts.email.values import AttachmentInfo, Category, ContentRef, Priority
from contracts.files.values import ContentEncoding, FileCategory, UploadFailureReason

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


FileStatus = Literal["uploading", "completed", "failed", "deleted"]
ScanStatus = Literal["pending", "clean", "infected", "unsupported", "error"]


class FileMetadata(Model):
    """Who uploaded a file, from where, and what is noted with it."""

    uploaded_by: str
    ip_address: str | None = None
    user_agent: str | None = None
    checksum: str | None = None
    tags: list[str] = Field(default_factory=list)


class S3Info(Model):
    """Where a file's bytes lie. `versionId` is the verified version, the only one that is ever served."""

    bucket: str
    region: str
    etag: str | None = None
    version_id: str | None = None
    storage_class: str | None = None


class FileAccess(Model):
    """Links given out: S3 notifies no reads. Only the read model counts them: answers to changes are without."""

    download_count: int = 0
    last_accessed: datetime | None = None
    expires_at: datetime | None = None


class FileFailure(Model):
    """Why an upload came to nothing."""

    reason: UploadFailureReason
    detail: str | None = None


class File(Model):
    """`file`: one file and what became of it. In MongoDB `_id` = fileId."""

    file_id: str
    key: str
    file_name: str
    original_name: str
    content_type: str
    size: int | None = None
    """Bytes as they are stored."""
    content_encoding: ContentEncoding | None = None
    original_size: int | None = None
    """Bytes of the decoded file, where it is stored encoded."""
    category: FileCategory
    status: FileStatus
    scan_status: ScanStatus
    is_public: bool
    user_id: str
    client_id: str | None = None
    metadata: FileMetadata
    s3_info: S3Info
    access: FileAccess | None = None
    recoverable: bool | None = None
    kept_until: datetime | None = None
    """When its lifetime is over, and it is deleted."""
    failure: FileFailure | None = None
    created_at: datetime
    updated_at: datetime
