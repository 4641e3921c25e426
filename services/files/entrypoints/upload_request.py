"""The body of a request to upload, and what it must hold to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator
from pydantic.alias_generators import to_camel

from contracts.base import CommandData, Model
from contracts.email.values import ContentType, UserId
from contracts.files.values import (
    Checksum,
    ContentEncoding,
    FileCategory,
    FileTags,
    OriginalName,
    UploadMetadata,
    UploadMethod,
)
from services.files.domain.categories import DEFAULT_SIZE, POST_LIMIT, Rules, problems
from services.files.domain.names import better_type, type_of_name
from services.files.domain.parts import is_of_parts, part_count, part_size
from services.kit.errors import Detail, InvalidRequest

MOST_NOTES = 20
_NOTE = Annotated[str, StringConstraints(max_length=1000)]
_OURS = frozenset(UploadMetadata.model_fields) | {to_camel(name) for name in UploadMetadata.model_fields}
"""Who uploads and from where is found out, not told: what a caller says of it is left out."""
_NOTE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_WHICH_NOTES = f"at most {MOST_NOTES} notes, with names of 1 to 64 letters, digits, dots, hyphens"

_ALIASES = {
    "application/x-zip-compressed": "application/zip",
    "application/x-zip": "application/zip",
    "application/x-gzip": "application/gzip",
    "application/x-pdf": "application/pdf",
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/x-png": "image/png",
}
"""What browsers and systems say for a type that has another name."""

_SAYS_NOTHING = frozenset(
    {
        "application/octet-stream",
        "application/download",
        "application/force-download",
        "application/unknown",
        "application/x-download",
        "application/x-unknown",
        "binary/octet-stream",
    }
)
"""What is said of a file whose type nobody knows."""


def _plain_type(value: Any) -> Any:
    """A browser says `text/plain;charset=utf-8`: the type is what comes before."""
    if not isinstance(value, str):
        return value
    plain = value.partition(";")[0].strip().lower()
    return _ALIASES.get(plain, plain)


def _notes(found: dict[str, str]) -> dict[str, str]:
    if len(found) > MOST_NOTES or not all(_NOTE_NAME.fullmatch(name) for name in found):
        raise ValueError(_WHICH_NOTES)
    return found


class UploadMetadataRequest(Model):
    """What is known of the bytes beforehand. Further entries are notes of the caller's own, kept with the file."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, _NOTE] = Field(init=False)

    checksum: Checksum | None = None
    tags: FileTags | None = None

    @model_validator(mode="before")
    @classmethod
    def _not_too_many(cls, value: Any) -> Any:
        if isinstance(value, dict) and len(value.keys() - _OURS) > MOST_NOTES:
            raise ValueError(_WHICH_NOTES)
        return value

    @property
    def notes(self) -> Mapping[str, str]:
        """The further entries, without what is ours to say."""
        return {name: text for name, text in (self.__pydantic_extra__ or {}).items() if name not in _OURS}


def _metadata(found: UploadMetadataRequest) -> UploadMetadataRequest:
    _notes(dict(found.notes))
    return found


class UploadRequest(CommandData):
    """What is to be uploaded."""

    file_name: OriginalName
    content_type: Annotated[ContentType, BeforeValidator(_plain_type, json_schema_input_type=str)]
    category: FileCategory
    max_size_bytes: Annotated[int, Field(ge=1)] | None = None
    """The most that will be taken. Unless said: `size`, else 10 MiB or what the category takes, if that is less."""
    size: Annotated[int, Field(ge=1)] | None = None
    """The bytes of the file, where they are known: another size will fail. Needed for an upload in parts."""
    content_encoding: ContentEncoding | None = None
    """Say `gzip` where what is sent is a gzip stream of the file, and the category takes that for its type. `size`,
    `maxSizeBytes` and the checksum are then of the stream; type and name stay those of the file.
    """
    original_size: Annotated[int, Field(ge=1)] | None = None
    """The bytes of the file that the stream holds. Needed with `contentEncoding`."""
    is_public: bool = False
    client_id: UserId | None = None
    metadata: Annotated[UploadMetadataRequest, AfterValidator(_metadata)] = UploadMetadataRequest()
    method: UploadMethod | None = None
    """`post` up to 100 MiB, else `multipart`, unless said."""

    @model_validator(mode="before")
    @classmethod
    def _has_a_type(cls, body: Any) -> Any:
        """A browser says "" for a type that it does not know: the name may tell."""
        if isinstance(body, dict) and body.get("contentType") == "":
            return {**body, "contentType": type_of_name(str(body.get("fileName", "")))}
        return body

    def typed(self, rules: Rules) -> UploadRequest:
        """With the type that the name stands for, where browsers say wrong ones of such files, and where what was said
        is no type that the category takes and says nothing (`application/octet-stream`).

        A repetition is told by what was said, not by this: else it would be another request to a later version, which
        knows more types, or under other rules.
        """
        kind = better_type(self.file_name, self.content_type)
        if kind in _SAYS_NOTHING and not rules.allows(kind):
            kind = type_of_name(self.file_name)
        return self if kind == self.content_type else self.model_copy(update={"content_type": kind})

    def most(self, rules: Rules) -> int:
        """The most that will be taken: bytes."""
        return self.max_size_bytes or self.size or min(DEFAULT_SIZE, rules.max_bytes)

    def chosen(self, rules: Rules) -> UploadMethod:
        """How it will be uploaded."""
        return self.method or ("post" if self.most(rules) <= POST_LIMIT else "multipart")

    def check(self, rules: Rules) -> None:
        """Raise InvalidRequest with every field that the category's rules, or S3's, do not allow."""
        most, chosen = self.most(rules), self.chosen(rules)
        found: list[Detail] = [
            {"field": field, "message": message}
            for field, message in problems(rules, self.file_name, self.content_type, most, self.is_public)
        ]
        if self.size is not None and self.size > most:
            found.append({"field": "size", "message": "is more than maxSizeBytes"})
        found += self._wrongly_encoded(rules)
        if chosen == "post" and most > POST_LIMIT:
            found.append({"field": "method", "message": f"above {POST_LIMIT} bytes an upload goes in parts: multipart"})
        if chosen == "multipart" and self.size is None:
            found.append({"field": "size", "message": "is needed for an upload in parts: the bytes of the file"})
        if (why := self._wrong_checksum(chosen, most)) is not None:
            found.append({"field": "metadata.checksum", "message": why})
        if found:
            raise InvalidRequest(details=found)

    def _wrong_checksum(self, chosen: UploadMethod, most: int) -> str | None:
        checksum = self.metadata.checksum
        if not is_of_parts(checksum):
            above = checksum is not None and most > POST_LIMIT
            return f"of the whole can be checked up to {POST_LIMIT} bytes: give the one of its parts" if above else None
        if chosen == "post" or self.size is None:
            return "is one of parts, and this is no upload in parts of a known size"
        count = part_count(self.size)
        if not str(checksum).endswith(f"-{count}"):
            return f"must be of {count} parts of {part_size(self.size)} bytes"
        return None

    def _wrongly_encoded(self, rules: Rules) -> list[Detail]:
        if self.content_encoding is None:
            if self.original_size is None:
                return []
            return [{"field": "originalSize", "message": "goes with contentEncoding only"}]
        found: list[Detail] = []
        if not rules.may_compress(self.content_type):
            message = f"{self.content_type} is not stored compressed in this category: send it as it is"
            found.append({"field": "contentEncoding", "message": message})
        if self.original_size is None:
            found.append({"field": "originalSize", "message": "is needed with contentEncoding: the bytes once decoded"})
        elif self.original_size > rules.max_bytes:
            message = f"at most {rules.max_bytes} bytes are taken in this category"
            found.append({"field": "originalSize", "message": message})
        return found
