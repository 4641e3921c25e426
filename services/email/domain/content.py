"""The rendered content of a message as it is stored, and how it becomes bytes: one form for intake, sender and API."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import ConfigDict, ValidationError

from contracts.base import Model
from services.kit.errors import PermanentError

ContentKind = Literal["message", "sealed", "attachment"]
"""`message`: rendered by the intake, named by `email.requested`. `sealed`: bodies and template data as the HTTP door
got them. `attachment`: bytes of one attachment, stored by the HTTP door."""

UNSUBSCRIBE_PLACEHOLDER = "{{unsubscribeUrl}}"
"""In the html or text of a marketing mail this becomes the recipient's own link: CAN-SPAM (15 U.S.C. §7704(a)(5)) wants
a way out that people can see, and the headers alone are seen by few."""


class StoredFile(Model):
    """An attachment with its bytes here (`content`), stored under the message's id (`ref`), or kept by the files
    service (`file_id`): then name, type and size are looked up before each attempt, and those here say nothing.
    """

    filename: str
    content_type: str
    size: int
    content: bytes | None = None
    ref: str | None = None
    file_id: str | None = None

    model_config = ConfigDict(val_json_bytes="base64")


class MessageContent(Model):
    """What recipients get: at least one of `html` and `text`, and attachments in their order."""

    html: str | None = None
    text: str | None = None
    attachments: tuple[StoredFile, ...] = ()

    def to_bytes(self) -> bytes:
        """UTF-8 JSON; the same content gives the same bytes, so the same sha256 and the same ref."""
        return self.model_dump_json(by_alias=True, exclude_none=True).encode()

    @classmethod
    def from_bytes(cls, raw: bytes) -> MessageContent:
        """Read what `to_bytes` wrote. Raises PermanentError `contentBroken`."""
        try:
            return cls.model_validate_json(raw)
        except ValidationError as error:
            raise PermanentError(
                "contentBroken", f"stored content cannot be read ({error.error_count()} errors)"
            ) from None


class SealedBody(Model):
    """What the HTTP door keeps out of the command: exactly the fields that `sealed` stands for."""

    html: str | None = None
    text: str | None = None
    template_data: dict[str, Any] | None = None

    def to_bytes(self) -> bytes:
        """UTF-8 JSON with sorted keys: equal bodies give equal bytes."""
        return json.dumps(self.to_wire(), sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, raw: bytes) -> SealedBody:
        """Read what `to_bytes` wrote. Raises PermanentError `contentBroken`."""
        try:
            return cls.model_validate_json(raw)
        except ValidationError as error:
            raise PermanentError(
                "contentBroken", f"a sealed body cannot be read ({error.error_count()} errors)"
            ) from None
