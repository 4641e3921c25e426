"""Values that commands and events of mail share."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from contracts.base import CommandData, EventData

Category = Literal["auth", "notification", "marketing", "system", "client-portal"]
Priority = Literal["low", "normal", "high", "urgent"]
Provider = Literal["ses", "sendgrid", "mailgun"]
ProviderName = Annotated[str, Field(min_length=1, max_length=64)]
"""In events a provider is any name, so that an older reader survives a new one."""

MAX_RECIPIENTS = 50
MAX_INLINE_ATTACHMENT_BYTES = 200_000
MAX_FREE_DATA_BYTES = 64_000

_CONTROL = re.compile(r"[\x00-\x1f\x7f\u2028\u2029]")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LIST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_CONTENT_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,64}/[A-Za-z0-9!#$&^_.+-]{1,64}")


def single_line(text: str) -> str:
    """Refuse control characters: in a header they would start another one."""
    if _CONTROL.search(text):
        raise ValueError("must not hold line breaks or other control characters")
    return text


def _sha256(text: str) -> str:
    if not _SHA256.fullmatch(text):
        raise ValueError("a SHA-256 is 64 lower-case hexadecimal digits")
    return text


def _list_id(text: str) -> str:
    if not _LIST_ID.fullmatch(text):
        raise ValueError("a listId has 1 to 128 letters, digits, dots, underscores or hyphens")
    return text


def _content_type(text: str) -> str:
    if not _CONTENT_TYPE.fullmatch(text):
        raise ValueError("a contentType looks like application/pdf, without parameters")
    return text.lower()


SingleLine = Annotated[str, AfterValidator(single_line)]
Subject = Annotated[SingleLine, Field(min_length=1, max_length=200)]
Sha256 = Annotated[str, AfterValidator(_sha256)]
ListId = Annotated[str, AfterValidator(_list_id)]
ContentType = Annotated[str, AfterValidator(_content_type)]
FileName = Annotated[SingleLine, Field(min_length=1, max_length=255)]
UserId = Annotated[SingleLine, Field(min_length=1, max_length=128)]


def json_size(*values: Any) -> int:
    """Bytes of the values as compact UTF-8 JSON, absent ones not counted."""
    return sum(
        len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())
        for value in values
        if value is not None
    )


class SealedRef(CommandData):
    """Where the HTTP door stored bodies and template data. A ref is valid only under its own messageId."""

    ref: Annotated[str, Field(min_length=1, max_length=512)]
    sha256: Sha256


class ContentRef(EventData):
    """Where the rendered content lies. `size` is the bytes of the raw message as stored, before encryption."""

    ref: Annotated[str, Field(min_length=1, max_length=512)]
    sha256: Sha256
    size: Annotated[int, Field(ge=0)]
    template_version: str | None = None


class AttachmentInfo(EventData):
    """An attachment as the log and the read model know it: never its bytes."""

    filename: str
    content_type: str
    size: Annotated[int, Field(ge=0)] | None = None
    file_id: str | None = None
    ref: str | None = None
    sha256: str | None = None
