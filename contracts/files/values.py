"""Values that commands and events of files share."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from contracts.base import EventData

FileCategory = Literal["email", "document", "avatar", "contract", "invoice", "backup", "general"]
UploadMethod = Literal["post", "multipart"]
ScanResult = Literal["clean", "infected", "unsupported", "error"]
UploadFailureReason = Literal[
    "tooLarge", "typeMismatch", "checksumMismatch", "expired", "aborted", "empty", "sizeMismatch", "notOurs"
]
RemovalReason = Literal["user", "lifecycle", "admin", "infected"]
"""`lifecycle`: its lifetime was over, or S3 deleted it by a rule of the bucket."""

ContentEncoding = Literal["gzip"]
"""How the object is stored, beside its type: `Content-Encoding` of RFC 9110."""


MAX_NAME_LENGTH = 255
MAX_TAGS = 50
MAX_TAG_LENGTH = 128

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_SHA_256 = re.compile(r"[A-Za-z0-9+/]{43}=")
_CHECKSUM = re.compile(_SHA_256.pattern + "(-[1-9][0-9]{0,4})?")


def _name(text: str) -> str:
    if _CONTROL.search(text):
        raise ValueError("a file name must not hold line breaks or other control characters")
    if _SURROGATE.search(text):
        raise ValueError("a file name must be valid Unicode: it holds half of a surrogate pair")
    if not text.strip():
        raise ValueError("a file name must hold more than blanks")
    return text


def _tag(text: str) -> str:
    if _CONTROL.search(text):
        raise ValueError("a tag must not hold line breaks or other control characters")
    if text != text.strip():
        raise ValueError("a tag must not begin or end with a blank")
    return text


def _tags(found: list[str]) -> list[str]:
    if len(set(found)) != len(found):
        raise ValueError("a tag is given twice")
    return found


def _checksum(text: str) -> str:
    if not _CHECKSUM.fullmatch(text):
        raise ValueError("a checksum is the SHA-256 of the whole file in base64, or of its parts' with -N after it")
    return text


def _part_checksum(text: str) -> str:
    if not _SHA_256.fullmatch(text):
        raise ValueError("a part's checksum is its SHA-256 in base64: 44 characters")
    return text


OriginalName = Annotated[str, Field(min_length=1, max_length=MAX_NAME_LENGTH), AfterValidator(_name)]
"""A name as a person gave it: any Unicode but control characters, kept exactly."""

Tag = Annotated[str, Field(min_length=1, max_length=MAX_TAG_LENGTH), AfterValidator(_tag)]
FileTags = Annotated[list[Tag], Field(max_length=MAX_TAGS), AfterValidator(_tags)]
Checksum = Annotated[str, AfterValidator(_checksum)]
"""SHA-256 of the whole object, base64, as S3 spells it. With `-N` of an upload in N parts: SHA-256 of the parts'
SHA-256 one after the other (Amazon S3 User Guide, "Checking object integrity", composite checksums).
"""

PartChecksum = Annotated[str, AfterValidator(_part_checksum)]
"""SHA-256 of one part, base64."""


class UploadMetadata(EventData):
    """Who uploads, from where, and what is known of the bytes beforehand."""

    uploaded_by: str
    ip_address: str | None = None
    user_agent: str | None = None
    checksum: str | None = None
    tags: list[str] | None = None
