"""Values that commands and events of mail share."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from contracts.base import MOST_WRONG, CommandData, EventData, UtcDateTime
from contracts.invisible import shows_nothing

Category = Literal["auth", "notification", "marketing", "system", "client-portal"]
Priority = Literal["low", "normal", "high", "urgent"]
ProviderName = Annotated[str, Field(min_length=1, max_length=64)]
"""In events a provider is any name, so that an older reader survives a new one. Today: `ses`, `sendgrid`, `mailgun` and
`smtp`.
"""

MAX_RECIPIENTS = 50
MAX_INLINE_ATTACHMENT_BYTES = 200_000
MAX_FREE_DATA_BYTES = 64_000
MAX_FREE_DATA_DEPTH = 32
_LAST_YEAR = 9000
_INT64 = range(-(2**63), 2**63)

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LIST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_CONTENT_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,64}/[A-Za-z0-9!#$&^_.+-]{1,64}")


def single_line(text: str) -> str:
    """Refuse control characters, C0 and C1, and halves of surrogate pairs: in a header they would start another one.

    The rule of every field of one line, at the doors and in the MIME writer, so that nothing is taken on that cannot be
    written.
    """
    if _CONTROL.search(text):
        raise ValueError("must not hold line breaks or other control characters")
    return text


def whole_text(text: str) -> str:
    """Refuse halves of surrogate pairs, which are no text and cannot be written as any."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("holds half of a surrogate pair, which is no text") from None
    return text


def blank_is_absent(text: str | None) -> str | None:
    """None for a body of nothing but white space and what is not shown, a byte order mark for instance: mail programs
    would show it as a blank mail.
    """
    return None if text is None or shows_nothing(text) else text


def _sha256(text: str) -> str:
    if not _SHA256.fullmatch(text):
        raise ValueError("a SHA-256 is 64 lower-case hexadecimal digits")
    return text


def _list_id(text: str) -> str:
    if not _LIST_ID.fullmatch(text):
        raise ValueError("a listId has 1 to 128 letters, digits, dots, underscores or hyphens")
    return text


def content_type(text: str) -> str:
    """Refuse what is no media type, or has parameters; lower-case."""
    if not _CONTENT_TYPE.fullmatch(text):
        raise ValueError("a contentType looks like application/pdf, without parameters")
    return text.lower()


def _free_data(value: dict[str, Any]) -> dict[str, Any]:
    """Refuse what the read model's database cannot hold, so that it is refused to whoever sends it. No recursion."""
    waiting: list[tuple[Any, int]] = [(value, 1)]
    while waiting:
        item, depth = waiting.pop()
        if isinstance(item, dict):
            if any("\x00" in name for name in item):
                raise ValueError("names must not hold NUL characters")
            waiting += [(inner, depth + 1) for inner in item.values()]
        elif isinstance(item, list):
            waiting += [(inner, depth + 1) for inner in item]
        elif isinstance(item, int) and item not in _INT64:
            raise ValueError("whole numbers must fit into 64 bits, signed: send larger ones as text")
        if depth > MAX_FREE_DATA_DEPTH:
            raise ValueError(f"must be nested at most {MAX_FREE_DATA_DEPTH} deep")
    return value


def _mostly_text(value: Any) -> Any:
    """Many wrong values are one error."""
    wrong = sum(not isinstance(each, str) for each in value.values()) if isinstance(value, dict) else 0
    if wrong > MOST_WRONG:
        raise ValueError(f"must hold nothing but text: {wrong} values are none")
    return value


def _plannable(value: datetime) -> datetime:
    if not 1970 <= value.year <= _LAST_YEAR:
        raise ValueError(f"must lie in the years 1970 to {_LAST_YEAR}")
    return value


SingleLine = Annotated[str, AfterValidator(single_line)]
Subject = Annotated[SingleLine, Field(min_length=1, max_length=200)]
Sha256 = Annotated[str, AfterValidator(_sha256)]
ListId = Annotated[str, AfterValidator(_list_id)]
ContentType = Annotated[str, AfterValidator(content_type)]
BodyText = Annotated[str, AfterValidator(whole_text)]
"""html or text of any number of lines."""

FileName = Annotated[SingleLine, Field(min_length=1, max_length=255)]
FreeData = Annotated[dict[str, Any], AfterValidator(_free_data)]
"""JSON of the caller's own making."""

Tags = Annotated[dict[str, str], BeforeValidator(_mostly_text), AfterValidator(_free_data)]

PlannedTime = Annotated[UtcDateTime, AfterValidator(_plannable)]
"""A time to which our own periods can be added."""

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
