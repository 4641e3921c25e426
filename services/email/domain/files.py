"""What email knows of a file, folded from the decisions on `files.events`, and whether a mail may carry it.

The log repeats itself and may bring decisions late, so that a file is not a state but a set of values, each with the
stream version of the decision that said it last. A newer word replaces an older one, an older one changes nothing: any
order and repetition of the same decisions gives the same file. Facts and what the files service makes of them are none
of our business. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from contracts.base import EventData
from contracts.files.events import (
    FileDeleted,
    FileRestored,
    FileScanSettled,
    FileUpdated,
    FileUploaded,
    FileUploadFailed,
    FileUploadRequested,
)
from contracts.files.values import ContentEncoding, FileCategory, ScanResult
from services.email.domain.actors import may_attach
from services.email.domain.unsafe_files import is_unsafe_name, is_unsafe_type

Status = Literal["uploading", "completed", "failed", "deleted"]

ASPECTS = ("request", "name", "status", "verified", "scan")
"""What decisions speak of, each by itself."""

NO_SUCH_FILE = "there is no such file"
"""Said of what is not there, and of what belongs to others: the two are never told apart."""


@dataclass(frozen=True, slots=True)
class KnownFile:
    """A file as far as it was heard of.

    Attributes:
        version: the highest stream version that was heard.
        since: aspect → the stream version of the decision that said it last.
        owner, bucket, key, category, scan_needed: of the request; None while it was not heard.
        version_id, size, content_type, content_encoding, original_size: of the verified version, which never changes.
            `size` is of the bytes as they are stored, `original_size` of the decoded ones where they are encoded.
        scan: what the malware scan said of it; None = nothing yet.
    """

    file_id: str
    version: int = 0
    since: Mapping[str, int] = field(default_factory=dict)
    owner: str | None = None
    bucket: str | None = None
    key: str | None = None
    category: FileCategory | None = None
    scan_needed: bool | None = None
    original_name: str | None = None
    status: Status | None = None
    version_id: str | None = None
    size: int | None = None
    content_type: str | None = None
    content_encoding: ContentEncoding | None = None
    original_size: int | None = None
    scan: ScanResult | None = None


def evolve(known: KnownFile, data: EventData, version: int) -> KnownFile:
    """The file after a decision of its stream, whichever were heard before."""
    values: dict[str, Any] = {}
    since = dict(known.since)
    for aspect, said in _said(data).items():
        if version > since.get(aspect, 0):
            values |= said
            since[aspect] = version
    return replace(known, version=max(known.version, version), since=since, **values)


def _said(data: EventData) -> Mapping[str, Mapping[str, object]]:
    match data:
        case FileUploadRequested():
            request = {
                "owner": data.user_id,
                "bucket": data.bucket,
                "key": data.key,
                "category": data.category,
                "scan_needed": data.scan_needed,
            }
            return {"request": request, "name": {"original_name": data.original_name}, "status": _is("uploading")}
        case FileUploaded():
            verified = {
                "version_id": data.version_id,
                "size": data.size,
                "content_type": data.content_type,
                "content_encoding": data.content_encoding,
                "original_size": data.original_size,
            }
            return {"verified": verified, "status": _is("completed")}
        case FileUploadFailed():
            return {"status": _is("failed")}
        case FileDeleted():
            return {"status": _is("deleted")}
        case FileRestored():
            return {"status": _is("completed")}
        case FileScanSettled():
            return {"scan": {"scan": data.result}}
        case FileUpdated() if data.original_name is not None:
            return {"name": {"original_name": data.original_name}}
    return {}


def _is(status: Status) -> Mapping[str, object]:
    return {"status": status}


# --- whether a mail may carry it ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Usable:
    """These bytes, under this name: exactly this version, whatever lies under the key now.

    Attributes:
        size: bytes as they are stored.
        content_encoding, original_size: how they are stored encoded, and how many they are once decoded; None where
            they are stored as they are.
    """

    file_id: str
    bucket: str
    key: str
    version_id: str
    size: int
    content_type: str
    name: str
    content_encoding: ContentEncoding | None = None
    original_size: int | None = None

    @property
    def carried(self) -> int:
        """Bytes that a mail carries."""
        return self.size if self.original_size is None else self.original_size


@dataclass(frozen=True, slots=True)
class NotYet:
    """It may become usable; `why` is for people."""

    why: str


@dataclass(frozen=True, slots=True)
class Never:
    """It cannot be used by this mail; `why` is for people."""

    why: str


def judge(known: KnownFile, user_id: str, asked_by: str | None) -> Usable | NotYet | Never:
    """Whether a mail of `user_id`, asked for by the actor `asked_by`, may carry the file now."""
    match known:
        case KnownFile(owner=None) | KnownFile(bucket=None) | KnownFile(key=None):
            return NotYet(NO_SUCH_FILE)
        case KnownFile(owner=str(owner)) if not may_attach(asked_by, user_id, owner):
            return Never(NO_SUCH_FILE)
        case KnownFile(scan="infected"):
            return Never("it is infected")
        case KnownFile(status="deleted"):
            return Never("it was deleted")
        case KnownFile(status="failed"):
            return Never("its upload failed")
        case KnownFile(scan="error", scan_needed=True):
            return Never("its malware scan failed, and it has to be clean")
        case KnownFile(scan="unsupported", scan_needed=True):
            return Never("it cannot be scanned for malware, and has to be")
    return _usable(known)


def _usable(known: KnownFile) -> Usable | NotYet | Never:
    match known:
        case KnownFile(
            status="completed",
            bucket=str(bucket),
            key=str(key),
            version_id=str(version_id),
            size=int(size),
            content_type=str(content_type),
            original_name=str(name),
        ):
            if is_unsafe_name(name) or is_unsafe_type(content_type):
                return Never("mail servers refuse files of its type: send a link to it, or an archive")
            if known.scan_needed and known.scan is None:
                return NotYet("its malware scan is not over")
            return Usable(
                file_id=known.file_id,
                bucket=bucket,
                key=key,
                version_id=version_id,
                size=size,
                content_type=content_type,
                name=name,
                content_encoding=known.content_encoding,
                original_size=known.original_size,
            )
    return NotYet("its upload is not over")
