"""What the files service needs from outside. Adapters implement these; tests use the fakes beside them.

Every method may raise `TransientError` (again later) unless its docstring says that it never raises.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, Protocol

from contracts.files.events import FileUploadRequested
from services.files.domain.notifications import Translation
from services.files.domain.quotas import OpenUpload, Over, Quota
from services.files.domain.seen import Inspected, ObjectVersion

Json = dict[str, Any]
ChecksumOf = Literal["whole", "parts"]

REFUSED_SECONDS: Final = 20.0
"""How soon whoever was refused by S3 may come again."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a multipart upload that S3 has. `etag` with its quotes, as S3 wants it back; `checksum`: its SHA-256,
    where the upload was begun with a checksum of parts.
    """

    number: int
    etag: str
    size: int
    checksum: str | None = None


@dataclass(frozen=True, slots=True)
class PartWanted:
    """A part that is to come: how many bytes, and their SHA-256 in base64 where it is known."""

    number: int
    size: int
    checksum: str | None = None


@dataclass(frozen=True, slots=True)
class SignedPost:
    """A form to be posted: all `fields` first, the file last."""

    url: str
    fields: Mapping[str, str]
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class SignedUrl:
    """An address that works until `expires_at`, with these headers sent exactly."""

    url: str
    expires_at: datetime
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Put:
    """How an object is to be stored: the same for a form and for parts.

    `metadata` as `x-amz-meta-…`; `storage` and `kms_key` by the category's rules; `content_encoding` is kept with the
    object and sent with it.
    """

    key: str
    content_type: str
    metadata: Mapping[str, str]
    storage: str = "STANDARD"
    kms_key: str | None = None
    checksum: str | None = None
    content_encoding: str | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """Everything under one key: versions and delete markers, newest first, and when the newest came."""

    key: str
    versions: tuple[ObjectVersion, ...]
    newest_at: datetime


@dataclass(frozen=True, slots=True)
class Multipart:
    """An upload in parts that is neither complete nor given up."""

    key: str
    upload_id: str
    begun_at: datetime


class Objects(Protocol):
    """One versioned bucket."""

    @property
    def bucket(self) -> str:
        """Its name."""
        ...

    def everything(self) -> AsyncIterator[Listed]:
        """Every key of the bucket, in the order of keys. May take long; what is stored meanwhile may be missing."""
        ...

    def multiparts(self, prefix: str = "") -> AsyncIterator[Multipart]:
        """Every upload in parts that is under way, to keys that begin with `prefix`."""
        ...

    async def versions(self, key: str) -> tuple[ObjectVersion, ...]:
        """All versions and delete markers of exactly this key, newest first."""
        ...

    async def inspect(self, key: str, version_id: str, *, sniff: bool, checksum: ChecksumOf | None) -> Inspected | None:
        """What one version is; None where it is not there (any more). `sniff`: look into its first bytes, and through
        the encoding that it is stored with. `checksum`: the SHA-256 of the stored bytes is wanted: by S3's word where
        it has the whole object's, else by reading it all; or S3's own word of the `parts`' checksums.
        """
        ...

    async def delete(self, key: str, version_ids: Sequence[str]) -> None:
        """Delete versions and markers for good; what is not there is fine."""
        ...

    async def mark(self, key: str) -> None:
        """Put a delete marker on top."""
        ...

    async def mark_all(self, keys: Sequence[str]) -> frozenset[str]:
        """Put a delete marker on top of each of these keys, a thousand a call; those that S3 refuses."""
        ...

    async def tag_public(self, key: str, version_id: str, is_public: bool) -> None:
        """Tag a version as public or not, its other tags kept; one that is not there is fine."""
        ...

    async def tag_verified(self, key: str, version_id: str) -> None:
        """Tag a version as verified, its other tags kept; one that is not there is fine."""
        ...

    async def begin_multipart(self, put: Put) -> str:
        """Begin an upload in parts; its id."""
        ...

    async def parts(self, key: str, upload_id: str) -> list[Part] | None:
        """The parts that S3 has, by number; None where there is no such upload (any more)."""
        ...

    async def complete_multipart(self, key: str, upload_id: str, parts: Sequence[Part]) -> bool:
        """Make one object of the parts; False where there is no such upload (any more). PermanentError `badParts` where
        S3 refuses them.
        """
        ...

    async def abort_multipart(self, key: str, upload_id: str) -> None:
        """Give an upload in parts up, with all that came; one that is not there is fine."""
        ...


class Signer(Protocol):
    """Makes addresses for browsers. No call is made, but credentials may have to be fetched."""

    async def post(self, put: Put, *, least: int, most: int, expires_at: datetime) -> SignedPost:
        """A form that lets exactly this object be stored, of `least` to `most` bytes."""
        ...

    async def part(self, key: str, upload_id: str, part: PartWanted, *, expires_at: datetime) -> SignedUrl:
        """An address for PUT of exactly these bytes."""
        ...

    async def download(
        self, key: str, version_id: str, *, content_type: str, disposition: str, expires_at: datetime
    ) -> SignedUrl:
        """An address for GET of exactly this version, answered with this type and Content-Disposition."""
        ...


class NotificationFormat(Protocol):
    """How notifications are read. Pure."""

    def translate(self, raw: bytes) -> Translation:
        """The facts of one record of `files.notifications`; none where it tells of nothing that happened to a file.

        Raises PermanentError: `notJson`, `notAnObject`, `malformed`, `badTime`, `wrongBucket`, `orphan` (a key that is
        none of ours).
        """
        ...


class QuotaStore(Protocol):
    """What users and clients have of their quotas. `holder`: any text that names one of them."""

    async def reserve(self, holder: str, quota: Quota, upload: OpenUpload) -> Over | None:
        """Count one more open upload and its bytes, at once and only if both fit; else, counting nothing, why not. An
        upload that is counted already is counted once.
        """
        ...

    async def release(self, holder: str, file_id: str, stored: int) -> None:
        """Count an upload no more, and of its bytes only `stored`. One that is not counted is fine."""
        ...


class NoQuotas:
    """Where nothing is limited."""

    async def reserve(self, holder: str, quota: Quota, upload: OpenUpload) -> Over | None:
        """Everything fits."""

    async def release(self, holder: str, file_id: str, stored: int) -> None:
        """Nothing."""


class Checkpoints(Protocol):
    """Where tests kill a process. In production nothing happens there."""

    def reach(self, name: str) -> None:
        """Called between two effects."""
        ...


class NoCheckpoints:
    """What production uses."""

    def reach(self, name: str) -> None:
        """Nothing."""


@dataclass(frozen=True, slots=True)
class UploadTicket:
    """What an upload token binds."""

    file_id: str
    upload_id: str
    key: str
    owner: str
    expires_at: datetime


def metadata_of(file_id: str, request: FileUploadRequested) -> dict[str, str]:
    """The object's own metadata: whose it is. Header values are ASCII; names of people's making are not among them."""
    return {"file-id": file_id, "category": request.category}
