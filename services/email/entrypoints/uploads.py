"""A file in a request: its name and type are held to what mail servers take and mail programs show honestly."""

from __future__ import annotations

import re

from pydantic import field_validator

from contracts.email.commands import InlineAttachment
from contracts.email.content_types import parse_media_type
from services.email.domain.unsafe_files import is_unsafe_name, is_unsafe_type

_UNSAFE_IN_NAMES = re.compile(r'[/\\:*?"<>|\u200e\u200f\u202a-\u202e\u2066-\u2069]')
"""Paths, what Windows has no files for, and marks that turn the direction of reading (`gpj.exe` shown as `exe.jpg`)."""


class UploadedAttachment(InlineAttachment):
    """A file in the request, base64."""

    @field_validator("filename")
    @classmethod
    def _safe_name(cls, name: str) -> str:
        return _safe_name(name)

    @field_validator("content_type")
    @classmethod
    def _safe_type(cls, value: str) -> str:
        if value.startswith(("multipart/", "message/")):
            raise ValueError("must be the type of a single file")
        if is_unsafe_type(value):
            raise ValueError("is of a type that mail servers refuse: send it as a link or in an archive")
        named = parse_media_type(value).get("name")
        if named is not None:
            try:
                _safe_name(named)
            except ValueError as error:
                raise ValueError(f"has a name that {error}") from None
        return value


def _safe_name(name: str) -> str:
    if _UNSAFE_IN_NAMES.search(name) or not name.strip(" ."):
        raise ValueError("is a file's name, not a path, and without characters that file names do not have")
    if is_unsafe_name(name):
        raise ValueError("is of a type that mail servers refuse: send it as a link or in an archive")
    return name
