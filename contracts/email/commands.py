"""Commands of mail, version 1. A command may be refused; one handler takes it: the intake of the email service."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from contracts.addresses import Address
from contracts.base import CommandData
from contracts.email.content_types import AttachmentType
from contracts.email.values import (
    MAX_FREE_DATA_BYTES,
    MAX_INLINE_ATTACHMENT_BYTES,
    MAX_RECIPIENTS,
    BodyText,
    Category,
    FileName,
    FreeData,
    ListId,
    PlannedTime,
    Priority,
    SealedRef,
    Sha256,
    SingleLine,
    Subject,
    Tags,
    UserId,
    blank_is_absent,
    json_size,
)


def canonical_uuid(text: str) -> str:
    """The canonical lower-case form of a UUID.

    Raises:
        ValueError: not a UUID.
    """
    try:
        return str(UUID(text))
    except (ValueError, AttributeError, TypeError):
        raise ValueError("must be a UUID such as 0192f0c1-2b7a-7d3e-9c1a-5b8f3e2d1c0b") from None


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


MessageId = Annotated[str, AfterValidator(canonical_uuid)]
Recipients = Annotated[list[Address], Field(min_length=1, max_length=MAX_RECIPIENTS)]
Addresses = Annotated[Recipients, BeforeValidator(_as_list, json_schema_input_type=Address | Recipients)]


class InlineAttachment(CommandData):
    """An attachment in the command itself, base64 (RFC 4648 §4); all of a command together up to 200 kB decoded."""

    filename: FileName
    content_type: AttachmentType
    content: str

    @field_validator("content")
    @classmethod
    def _is_base64(cls, value: str) -> str:
        try:
            base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("must be base64 (RFC 4648 §4, with padding, without line breaks)") from None
        return value

    def decoded(self) -> bytes:
        """The bytes of the attachment."""
        return base64.b64decode(self.content)


class FileAttachment(CommandData):
    """An attachment that the files service keeps: the version that it verified, under the file's own name and type.

    The file belongs to the mail's user, unless a service or an admin asks. One that is not uploaded yet, or whose
    malware scan is not over, is waited for: 2 minutes from the request or `sendAt`; then the mail fails as `invalid`.
    """

    file_id: Annotated[str, AfterValidator(canonical_uuid)]


class StoredAttachment(CommandData):
    """An attachment that the HTTP door has stored, encrypted, under this message's id."""

    filename: FileName
    content_type: AttachmentType
    ref: Annotated[str, Field(min_length=1, max_length=512)]
    sha256: Sha256
    size: Annotated[int, Field(ge=0)]


Attachment = InlineAttachment | StoredAttachment | FileAttachment


class SendEmail(CommandData):
    """`email.send` v1: send one message to 1 to 50 recipients."""

    message_id: MessageId
    to: Addresses
    cc: list[Address] | None = None
    bcc: list[Address] | None = None
    from_: Annotated[Address | None, Field(alias="from")] = None
    reply_to: Address | None = None
    subject: Subject
    html: BodyText | None = None
    text: BodyText | None = None
    template_id: Annotated[SingleLine, Field(min_length=1, max_length=128)] | None = None
    template_data: FreeData | None = None
    category: Category
    priority: Priority = "normal"
    user_id: UserId
    client_id: UserId | None = None
    tags: Tags | None = None
    custom_data: FreeData | None = None
    attachments: list[Attachment] | None = None
    sealed: SealedRef | None = None
    send_at: PlannedTime | None = None
    expires_at: PlannedTime | None = None
    list_id: ListId | None = None

    @property
    def recipients(self) -> tuple[str, ...]:
        """Every recipient once, in the order to, cc, bcc."""
        return tuple(dict.fromkeys((*self.to, *(self.cc or ()), *(self.bcc or ()))))

    @model_validator(mode="after")
    def _whole(self) -> SendEmail:
        problems: list[str] = []
        if len(self.recipients) > MAX_RECIPIENTS:
            problems.append(f"to, cc and bcc together name {len(self.recipients)} recipients; at most {MAX_RECIPIENTS}")
        bodies = blank_is_absent(self.html) or blank_is_absent(self.text)
        if not (bodies or self.template_id or self.sealed):
            problems.append("one of html, text or templateId is needed")
        if self.sealed and (self.html or self.text or self.template_data):
            problems.append("sealed stands for html, text and templateData: give one or the other")
        if self.category == "marketing" and self.list_id is None:
            problems.append("listId is needed for category marketing: it is what a recipient unsubscribes from")
        if json_size(self.custom_data, self.tags, self.template_data) > MAX_FREE_DATA_BYTES:
            problems.append(f"customData, tags and templateData may have {MAX_FREE_DATA_BYTES} bytes of JSON together")
        inline = sum(len(a.content) * 3 // 4 for a in self.attachments or () if isinstance(a, InlineAttachment))
        if inline > MAX_INLINE_ATTACHMENT_BYTES:
            problems.append(
                f"attachments in a command may have {MAX_INLINE_ATTACHMENT_BYTES} bytes in all; "
                "larger ones go through POST /api/email or by fileId"
            )
        if self.expires_at is not None and self.send_at is not None and self.expires_at <= self.send_at:
            problems.append("expiresAt must be after sendAt")
        if problems:
            raise ValueError("; ".join(problems))
        return self


class CancelEmail(CommandData):
    """`email.cancel` v1: stop every recipient with no attempt open, unknown or accepted."""

    message_id: MessageId
    reason: Annotated[SingleLine, Field(max_length=500)] | None = None


CommandName = Literal["email.send", "email.cancel"]
