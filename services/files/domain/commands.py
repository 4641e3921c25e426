"""What a file may be asked to decide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from contracts.files.events import FileUploadRequested
from contracts.files.values import RemovalReason, ScanResult
from services.files.domain.seen import Seen


@dataclass(frozen=True, slots=True)
class Request:
    """Somebody may upload."""

    request: FileUploadRequested
    causation: str | None = None
    actor: str | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """S3 was looked at; decide what it shows.

    Attributes:
        by: what made us look.
        claimed_size: bytes that the client says it has sent.
        removal: why the object is gone, if it is: what the notification that made us look says of it.
        scan: what a notification says of the scan, where the version carries no tag of it.
        cause: id of the fact or command.
        actor: who asked.
    """

    seen: Seen
    by: Literal["client", "notification", "sweeper"]
    claimed_size: int | None = None
    removal: RemovalReason = "admin"
    scan: ScanResult | None = None
    cause: str | None = None
    actor: str | None = None


@dataclass(frozen=True, slots=True)
class Remove:
    """Delete: recoverable where the verified version stays; an upload under way is given up."""

    seen: Seen
    reason: RemovalReason
    actor: str | None = None
    causation: str | None = None


@dataclass(frozen=True, slots=True)
class Restore:
    """Undo a deletion."""

    seen: Seen
    actor: str | None = None
    causation: str | None = None


@dataclass(frozen=True, slots=True)
class Update:
    """Change what people see. What is None stays. `file_name` is the safe form of `original_name`."""

    original_name: str | None = None
    file_name: str | None = None
    is_public: bool | None = None
    tags: tuple[str, ...] | None = None
    actor: str | None = None
    causation: str | None = None


Command = Request | Look | Remove | Restore | Update
