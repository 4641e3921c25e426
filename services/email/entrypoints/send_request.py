"""The body of `POST /api/email`, in the names that the CRM's pages already use, and the command it becomes."""

from __future__ import annotations

import base64
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator, model_validator

from contracts.addresses import Address
from contracts.base import CommandData, UtcDateTime
from contracts.email.commands import (
    Addresses,
    Attachment,
    FileAttachment,
    InlineAttachment,
    SendEmail,
    StoredAttachment,
)
from contracts.email.values import (
    MAX_FREE_DATA_BYTES,
    MAX_RECIPIENTS,
    Category,
    ListId,
    Priority,
    SealedRef,
    SingleLine,
    Subject,
    UserId,
    json_size,
)

MAX_BODY_CHARACTERS = 5_000_000
"""Of html, and of text: far above what any mail program shows, far below what SES takes (40 MB)."""

# fmt: off
UNSAFE_EXTENSIONS = frozenset(
    [
        "ade", "adp", "app", "asp", "bas", "bat", "cer", "chm", "cmd", "com", "cpl", "crt", "csh", "der", "exe", "fxp",
        "gadget", "hlp", "hta", "inf", "ins", "isp", "its", "js", "jse", "jar", "ksh", "lib", "lnk", "mad", "maf",
        "mag", "mam", "maq", "mar", "mas", "mat", "mau", "mav", "maw", "mda", "mdb", "mde", "mdt", "mdw", "mdz", "msc",
        "msh", "msh1", "msh2", "mshxml", "msh1xml", "msh2xml", "msi", "msp", "mst", "ops", "pcd", "pif", "plg", "prf",
        "prg", "ps1", "ps1xml", "ps2", "ps2xml", "psc1", "psc2", "reg", "scf", "scr", "sct", "shb", "shs", "sys", "tmp",
        "url", "vb", "vbe", "vbs", "vps", "vsmacros", "vss", "vst", "vsw", "vxd", "ws", "wsc", "wsf", "wsh", "xnk",
    ]
)
# fmt: on
"""File types that SES refuses or mail servers drop (Amazon SES Developer Guide, "Unsupported attachment types")."""


def _one_or_many(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class UploadedAttachment(InlineAttachment):
    """A file in the request, base64."""

    @field_validator("filename")
    @classmethod
    def _safe_name(cls, name: str) -> str:
        if "/" in name or "\\" in name or name in (".", ".."):
            raise ValueError("is a file's name, not a path")
        extensions = {suffix.lower().lstrip(".") for suffix in PurePosixPath(name.rstrip(" .")).suffixes[-1:]}
        if extensions & UNSAFE_EXTENSIONS:
            raise ValueError("is of a type that mail servers refuse: send it as a link or in an archive")
        return name

    @field_validator("content_type")
    @classmethod
    def _leaf_type(cls, value: str) -> str:
        if value.startswith(("multipart/", "message/")):
            raise ValueError("must be the type of a single file")
        return value


class SendRequest(CommandData):
    """What to send. At least one of `htmlContent`, `textContent` and `templateId` is needed."""

    to: Addresses
    cc: Annotated[list[Address] | None, BeforeValidator(_one_or_many)] = None
    bcc: Annotated[list[Address] | None, BeforeValidator(_one_or_many)] = None
    reply_to: Address | None = None
    subject: Subject
    html_content: Annotated[str, Field(max_length=MAX_BODY_CHARACTERS)] | None = None
    text_content: Annotated[str, Field(max_length=MAX_BODY_CHARACTERS)] | None = None
    template_id: Annotated[SingleLine, Field(min_length=1, max_length=128)] | None = None
    template_data: dict[str, Any] | None = None
    category: Category
    priority: Priority = "normal"
    attachments: Annotated[list[UploadedAttachment | FileAttachment] | None, Field(max_length=50)] = None
    tags: dict[str, str] | None = None
    client_id: UserId | None = None
    send_at: UtcDateTime | None = None
    expires_at: UtcDateTime | None = None
    list_id: ListId | None = None
    custom_data: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _whole(self) -> SendRequest:
        problems: list[str] = []
        recipients = dict.fromkeys((*self.to, *(self.cc or ()), *(self.bcc or ())))
        if len(recipients) > MAX_RECIPIENTS:
            problems.append(f"to, cc and bcc together name {len(recipients)} recipients; at most {MAX_RECIPIENTS}")
        if not (self.html_content or self.text_content or self.template_id):
            problems.append("one of htmlContent, textContent or templateId is needed")
        if self.template_data is not None and self.template_id is None:
            problems.append("templateData is for a template: name it in templateId")
        if self.category == "marketing" and self.list_id is None:
            problems.append("listId is needed for category marketing: it is what a recipient unsubscribes from")
        if json_size(self.custom_data, self.tags, self.template_data) > MAX_FREE_DATA_BYTES:
            problems.append(f"customData, tags and templateData may have {MAX_FREE_DATA_BYTES} bytes of JSON together")
        if self.expires_at is not None and self.send_at is not None and self.expires_at <= self.send_at:
            problems.append("expiresAt must be after sendAt")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def uploads(self) -> list[tuple[UploadedAttachment, bytes]]:
        """The files in the request, decoded."""
        return [(a, base64.b64decode(a.content)) for a in self.attachments or () if isinstance(a, UploadedAttachment)]

    def command(
        self,
        message_id: str,
        user_id: str,
        sealed: SealedRef | None,
        stored: list[StoredAttachment],
    ) -> SendEmail:
        """The command on Kafka: bodies, template data and files are named by where they were stored.

        `stored` are the request's files in their order.
        """
        files = iter(stored)
        attachments: list[Attachment] = [
            next(files) if isinstance(a, UploadedAttachment) else a for a in self.attachments or ()
        ]
        return SendEmail(
            message_id=message_id,
            to=self.to,
            cc=self.cc,
            bcc=self.bcc,
            reply_to=self.reply_to,
            subject=self.subject,
            template_id=self.template_id,
            category=self.category,
            priority=self.priority,
            user_id=user_id,
            client_id=self.client_id,
            tags=self.tags,
            custom_data=self.custom_data,
            attachments=attachments or None,
            sealed=sealed,
            send_at=self.send_at,
            expires_at=self.expires_at,
            list_id=self.list_id,
        )
