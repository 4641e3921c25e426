"""From the command to `email.requested`: defaults, the hash that tells a repeat from another request, the attachments.

Pure: no clock, no I/O; rendering is a port's.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from contracts.addresses import normalise_address
from contracts.email.commands import FileAttachment, InlineAttachment, SendEmail, StoredAttachment
from contracts.email.events import EmailRequested
from contracts.email.values import AttachmentInfo, ContentRef, single_line
from services.email.domain.content import MessageContent, SealedBody, StoredFile
from services.kit.errors import PermanentError

AUTH_LIFETIME = timedelta(minutes=15)
LIFETIME = timedelta(days=3)


@dataclass(frozen=True, slots=True)
class SenderIdentity:
    """Whom mail comes from.

    `default` may carry a display name. `verified`: the addresses that a command may name as `from`, in normal form,
    the default's among them.
    """

    default: str
    reply_to: str | None = None
    verified: frozenset[str] = field(default_factory=frozenset)

    @classmethod
    def of(cls, default: str, reply_to: str | None, others: Collection[str]) -> SenderIdentity:
        """From settings. Raises ValueError for what is no address, or a name that no header can hold."""
        single_line(default)
        bare = default.rpartition("<")[2].rstrip("> ") if default.rstrip().endswith(">") else default
        return cls(default, reply_to or None, frozenset(map(normalise_address, (bare, *others))))


def request_hash(command: SendEmail) -> str:
    """SHA-256 of what is asked for, in hexadecimal: equal for a repeat, whichever door it came through.

    Bodies and template data count by the hash of their sealed form, attachments by that of their bytes, whether they
    travel in the command or were stored before; where they were stored does not count.
    """
    wire = command.to_wire()
    bodies = SealedBody(html=command.html, text=command.text, template_data=command.template_data)
    for name in ("html", "text", "templateData"):
        wire.pop(name, None)
    if command.sealed is not None:
        wire["sealed"] = command.sealed.sha256
    elif bodies != SealedBody():
        wire["sealed"] = hashlib.sha256(bodies.to_bytes()).hexdigest()
    wire["attachments"] = [_attachment_identity(each) for each in command.attachments or ()]
    canonical = json.dumps(wire, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


def content_of(command: SendEmail, html: str | None, text: str | None) -> MessageContent:
    """What recipients get, of bodies already rendered. Files by `fileId` are only named: each attempt looks them up."""
    files: list[StoredFile] = []
    for attachment in command.attachments or ():
        match attachment:
            case InlineAttachment():
                data = attachment.decoded()
                files.append(_file(attachment, size=len(data), content=data))
            case StoredAttachment():
                files.append(_file(attachment, size=attachment.size, ref=attachment.ref))
            case FileAttachment():
                named = _info(attachment)
                files.append(
                    StoredFile(
                        filename=named.filename, content_type=named.content_type, size=0, file_id=attachment.file_id
                    )
                )
    return MessageContent(html=html, text=text, attachments=tuple(files))


def requested(
    command: SendEmail, identity: SenderIdentity, content: ContentRef | None, hashed: str, published_at: datetime
) -> EmailRequested:
    """The event for a command that Kafka has had since `published_at`.

    `expiresAt` defaults to 15 minutes after `sendAt` or `published_at` for auth, else to three days after it.
    """
    lifetime = AUTH_LIFETIME if command.category == "auth" else LIFETIME
    return EmailRequested(
        message_id=command.message_id,
        to=command.to,
        cc=command.cc or None,
        bcc=command.bcc or None,
        from_=command.from_ or identity.default,
        reply_to=command.reply_to or identity.reply_to,
        subject=command.subject,
        template_id=command.template_id,
        category=command.category,
        priority=command.priority,
        user_id=command.user_id,
        client_id=command.client_id,
        tags=command.tags,
        custom_data=command.custom_data,
        attachments=[_info(each) for each in command.attachments or ()] or None,
        send_at=command.send_at,
        expires_at=command.expires_at or (command.send_at or published_at) + lifetime,
        list_id=command.list_id,
        content=content,
        request_hash=hashed,
    )


def check_sender(command: SendEmail, identity: SenderIdentity) -> None:
    """Raises PermanentError `invalid` where `from` is not on the verified list."""
    if command.from_ is not None and command.from_ not in identity.verified:
        raise PermanentError("invalid", "from is not among the verified sender addresses (MAILROOM_SENDER_ADDRESSES)")


def _file(
    attachment: InlineAttachment | StoredAttachment, size: int, content: bytes | None = None, ref: str | None = None
) -> StoredFile:
    return StoredFile(
        filename=attachment.filename, content_type=attachment.content_type, size=size, content=content, ref=ref
    )


def _attachment_identity(attachment: InlineAttachment | StoredAttachment | FileAttachment) -> list[Any]:
    match attachment:
        case InlineAttachment():
            return [attachment.filename, attachment.content_type, _sha256(attachment)]
        case StoredAttachment():
            return [attachment.filename, attachment.content_type, attachment.sha256]
        case FileAttachment():
            return [attachment.file_id]


def _info(attachment: InlineAttachment | StoredAttachment | FileAttachment) -> AttachmentInfo:
    match attachment:
        case InlineAttachment():
            return AttachmentInfo(
                filename=attachment.filename,
                content_type=attachment.content_type,
                size=len(attachment.decoded()),
                sha256=_sha256(attachment),
            )
        case StoredAttachment():
            return AttachmentInfo(
                filename=attachment.filename,
                content_type=attachment.content_type,
                size=attachment.size,
                ref=attachment.ref,
                sha256=attachment.sha256,
            )
        case FileAttachment():
            return AttachmentInfo(
                filename=attachment.file_id, content_type="application/octet-stream", file_id=attachment.file_id
            )


def _sha256(attachment: InlineAttachment) -> str:
    return hashlib.sha256(base64.b64decode(attachment.content)).hexdigest()
