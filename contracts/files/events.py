"""Events of files, version 1 each. Subject = fileId.

Decisions come from the file's stream, after a look at what S3 holds; facts from S3's notifications, the malware scan,
and (`file.downloadIssued` alone) from the API. A file's status comes from decisions; facts only make the service look.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from contracts.base import EventData, UtcDateTime
from contracts.files.values import (
    ContentEncoding,
    FileCategory,
    RemovalReason,
    ScanResult,
    UploadFailureReason,
    UploadMetadata,
    UploadMethod,
)

Bytes = Annotated[int, Field(ge=0)]


# --- decisions ---------------------------------------------------------------------------------------------------


class FileUploadRequested(EventData):
    """Somebody may upload one object under one key until `expiresAt`."""

    key: str
    bucket: str
    region: str
    file_name: str
    """A form of `originalName` that is safe on every system."""
    original_name: str
    content_type: str
    declared_size: Bytes | None = None
    max_size_bytes: Bytes
    content_encoding: ContentEncoding | None = None
    """Where it is given, sizes and checksum are of the encoded bytes, as they are stored."""
    original_size: Bytes | None = None
    """The bytes of an encoded file once it is decoded, by the word of who uploads it."""
    category: FileCategory
    is_public: bool
    scan_needed: bool | None = None
    """Whether its category demands a malware scan: then it may be used only once the scan has found it clean."""
    user_id: str
    client_id: str | None = None
    metadata: UploadMetadata
    method: UploadMethod
    upload_id: str | None = None
    """S3's id of the multipart upload, so that it can be aborted."""
    expires_at: UtcDateTime
    kept_until: UtcDateTime | None = None
    """When the file is deleted, by its category's lifetime; absent: never. A restore after that time lifts it."""
    request_hash: str


class FileUploaded(EventData):
    """The object was looked at, and is what was asked for. Downloads name this version for ever."""

    version_id: str
    etag: str
    size: Bytes
    content_type: str
    checksum: str | None = None
    storage_class: str | None = None
    """Where it lay when it was looked at: S3 tells of moves alone."""
    content_encoding: ContentEncoding | None = None
    """Where it is given, `size` and `checksum` are of the encoded bytes, and `originalSize` of the decoded ones."""
    original_size: Bytes | None = None
    detected_type: str | None = None
    """What the bytes look like, whatever was declared; absent where nobody knows."""
    recognised: bool | None = None
    """Whether they were recognised as `contentType`. False: the file is not public, and given out as an attachment
    only. Absent: by an earlier version, which completed only what it recognised.
    """
    by: Literal["client", "notification", "sweeper"]


class FileUploadFailed(EventData):
    """Nothing fit for use came; what lay under the key was deleted."""

    reason: UploadFailureReason
    detail: str | None = None


class FileUploadClosed(EventData):
    """Nothing can be stored under the key any more, and nothing lies there that does not belong there."""


class FileDeleted(EventData):
    """The file is not shown any more. `recoverable`: its verified version still lies in S3."""

    version_id: str | None = None
    recoverable: bool
    reason: RemovalReason
    by: str | None = None


class FileRestored(EventData):
    """The verified version is the current one again."""

    version_id: str | None = None
    by: str | None = None


class FileUpdated(EventData):
    """What people see of the file has changed. What is absent stayed."""

    is_public: bool | None = None
    tags: list[str] | None = None
    file_name: str | None = None
    original_name: str | None = None


class FileScanSettled(EventData):
    """What the malware scan says of the verified version."""

    version_id: str
    result: ScanResult


# --- facts -------------------------------------------------------------------------------------------------------


class ObjectFact(EventData):
    """What every notification about an object says."""

    bucket: str
    key: str
    version_id: str | None = None
    sequencer: str | None = None
    """Orders what happened to one key, as a hexadecimal number; absent on tagging and moves."""
    size: Bytes | None = None
    etag: str | None = None
    storage_class: str | None = None
    event_name: str


class FileObjectCreated(ObjectFact):
    """An object, or a new version of it, came to lie under the key."""


class FileObjectRemoved(ObjectFact):
    """A version, or a delete marker, is gone for good."""


class FileDeleteMarkerCreated(ObjectFact):
    """The key was deleted; its versions are still there."""


class FileObjectExpired(ObjectFact):
    """A lifecycle rule deleted the object, or marked it as deleted."""


class FileObjectTagged(ObjectFact):
    """The tags of a version were set or removed; the notification does not say to what."""


class FileObjectMoved(ObjectFact):
    """The object went to another storage class, or came back from one."""


class FileScanned(EventData):
    """A malware scan ended."""

    bucket: str
    key: str
    version_id: str
    result: ScanResult
    detail: str | None = None


class FileDownloadIssued(EventData):
    """A link was given to somebody who is signed in; S3 reports no reads. Views of public files are no facts, but those
    of earlier versions are in the log, without `userId`.
    """

    user_id: str | None = None
    expires_at: UtcDateTime
    ip_address: str | None = None
