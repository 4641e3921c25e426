"""A file's state, folded from its stream.

    Absent ──uploadRequested──▶ uploading ──uploaded──▶ completed ──deleted──▶ deleted
                                   │                        ▲                    │
                                   └──uploadFailed──▶ failed └─────restored──────┘

`verified` is the one version of the object that was looked at and found right. It never changes once it is set, and
nothing but it is ever served. Pure: no clock, no ids, no I/O. Facts are not in a stream: they only make the service
look.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import reduce
from typing import Literal, Protocol

from contracts.base import EventData
from contracts.files.events import (
    FileDeleted,
    FileRestored,
    FileScanSettled,
    FileUpdated,
    FileUploadClosed,
    FileUploaded,
    FileUploadFailed,
    FileUploadRequested,
)
from contracts.files.values import ContentEncoding, RemovalReason, ScanResult, UploadFailureReason

Phase = Literal["uploading", "completed", "failed", "deleted"]


class Recorded(Protocol):
    """What folding needs of an event: an envelope has it, and so has a draft that is only being tried out."""

    @property
    def data(self) -> EventData:
        """What was decided."""
        ...

    @property
    def time(self) -> datetime:
        """When."""
        ...


@dataclass(frozen=True, slots=True)
class Policy:
    """How long.

    Attributes:
        upload_grace: after an upload's expiry, until it is closed: a transfer that S3 let begin in time may still be
            under way. Longer than the slowest upload that is to succeed.
    """

    upload_grace: timedelta = timedelta(minutes=60)


@dataclass(frozen=True, slots=True)
class Verified:
    """The version that was looked at and found right. `size` and `checksum` are of the bytes as they are stored,
    `original_size` of the decoded ones where they are stored encoded. `recognised`: its bytes are of its type; what is
    not recognised is never public, and never shown by a browser.
    """

    version_id: str
    etag: str
    size: int
    content_type: str
    checksum: str | None
    at: datetime
    storage_class: str | None = None
    content_encoding: ContentEncoding | None = None
    original_size: int | None = None
    recognised: bool = True


@dataclass(frozen=True, slots=True)
class Absent:
    """Nobody has asked for this upload."""


@dataclass(frozen=True, slots=True)
class File:
    """A file that was asked for.

    Attributes:
        request: what was asked for, for ever.
        verified: see the module; None before an upload was verified, and where none ever was.
        failure: why an upload came to nothing.
        removal: why a file is deleted; `recoverable`: whether its verified version still lies in S3.
        scan: what the malware scan said of the verified version; None = nothing yet.
        file_name, original_name, is_public, tags: as they are now.
        kept_until: when its lifetime is over; None = it has none, or somebody brought it back after its end.
        closed: nothing can be stored under the key any more.
    """

    request: FileUploadRequested
    requested_at: datetime
    phase: Phase
    file_name: str
    original_name: str
    is_public: bool
    tags: tuple[str, ...]
    kept_until: datetime | None = None
    verified: Verified | None = None
    failure: UploadFailureReason | None = None
    failure_detail: str | None = None
    removal: RemovalReason | None = None
    recoverable: bool = False
    scan: ScanResult | None = None
    closed: bool = False
    updated_at: datetime | None = None

    def may_go_out(self, scan: ScanResult | None) -> bool:
        """Whether the malware scan, saying this, stands in nobody's way: what was agreed at the request counts."""
        return not self.request.scan_needed or scan == "clean"

    def is_open(self, scan: ScanResult | None) -> bool:
        """Whether anybody may read the verified version in S3, with the scan saying this."""
        return self.is_public and self.may_go_out(scan)


State = Absent | File


def evolve(state: State, event: Recorded) -> State:
    """The state after an event. What makes no sense in a state changes nothing: a fold is total."""
    data = event.data
    if isinstance(state, Absent):
        return _begun(data, event.time) if isinstance(data, FileUploadRequested) else state
    changed = _changed(state, data, event.time)
    return changed if isinstance(data, FileUploadClosed) else replace(changed, updated_at=event.time)


def fold(events: Iterable[Recorded], state: State | None = None) -> State:
    """The state after all events, in their order."""
    return reduce(evolve, events, Absent() if state is None else state)


def due_at(state: State, policy: Policy) -> datetime | None:
    """When the file wants to be looked at, whatever S3 tells or does not; None = it waits for nothing.

    Every file is looked at once its upload cannot go on: one that was never told of is completed or ended, and what a
    crash or a form that was used twice left under the key is deleted. And a file with a lifetime, when that is over.
    """
    if isinstance(state, Absent):
        return None
    closing = None if state.closed else state.request.expires_at + policy.upload_grace
    ending = state.kept_until if state.phase == "completed" else None
    return min((each for each in (closing, ending) if each is not None), default=None)


def _begun(request: FileUploadRequested, at: datetime) -> File:
    return File(
        request=request,
        requested_at=at,
        phase="uploading",
        file_name=request.file_name,
        original_name=request.original_name,
        is_public=request.is_public,
        tags=tuple(request.metadata.tags or ()),
        kept_until=request.kept_until,
        updated_at=at,
    )


def _changed(state: File, data: EventData, at: datetime) -> File:
    match data:
        case FileUploaded():
            verified = Verified(
                version_id=data.version_id,
                etag=data.etag,
                size=data.size,
                content_type=data.content_type,
                checksum=data.checksum,
                at=at,
                storage_class=data.storage_class,
                content_encoding=data.content_encoding,
                original_size=data.original_size,
                recognised=data.recognised is not False,  # earlier versions completed nothing else
            )
            is_public = state.is_public and verified.recognised
            return replace(
                state, phase="completed", verified=verified, is_public=is_public, failure=None, failure_detail=None
            )
        case FileUploadFailed():
            return replace(state, phase="failed", failure=data.reason, failure_detail=data.detail)
        case FileDeleted():
            return replace(state, phase="deleted", removal=data.reason, recoverable=data.recoverable)
        case FileRestored():
            lifted = state.kept_until is None or at >= state.kept_until
            kept_until = None if lifted else state.kept_until
            return replace(state, phase="completed", removal=None, recoverable=False, kept_until=kept_until)
        case FileUploadClosed():
            return replace(state, closed=True)
        case FileScanSettled():
            return replace(state, scan=data.result)
        case FileUpdated():
            return replace(
                state,
                file_name=state.file_name if data.file_name is None else data.file_name,
                original_name=state.original_name if data.original_name is None else data.original_name,
                is_public=state.is_public if data.is_public is None else data.is_public,
                tags=state.tags if data.tags is None else tuple(data.tags),
            )
    return state
