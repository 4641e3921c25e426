"""Commands of files, version 1, on `files.commands`. Uploads are asked for over HTTP only: a signed URL is a secret,
and does not belong in a log.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from contracts.base import CommandData
from contracts.email.commands import canonical_uuid
from contracts.files.values import FileTags, OriginalName

_UUID = r"^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$"

FileId = Annotated[str, Field(pattern=_UUID), AfterValidator(canonical_uuid)]


class DeleteFile(CommandData):
    """`file.delete` v1: hide the file; its bytes stay recoverable while the bucket keeps old versions."""

    file_id: FileId


class RestoreFile(CommandData):
    """`file.restore` v1: undo a deletion whose bytes are still there."""

    file_id: FileId


class UpdateFile(CommandData):
    """`file.update` v1: change what people see of a file. What is absent stays."""

    file_id: FileId
    name: OriginalName | None = None
    is_public: bool | None = None
    tags: FileTags | None = None

    @model_validator(mode="after")
    def _changes_something(self) -> UpdateFile:
        if self.name is None and self.is_public is None and self.tags is None:
            raise ValueError("one of name, isPublic or tags is needed")
        return self
