"""The files service's ports in memory."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count

from services.files.adapters.sniffing import GZIP_BYTES, HEAD_BYTES, sniff, sniff_gzip
from services.files.domain.parts import is_of_parts
from services.files.domain.quotas import OpenUpload, Over, Quota, Usage
from services.files.domain.seen import Inspected, ObjectVersion
from services.files.ports import ChecksumOf, Listed, Multipart, Part, PartWanted, Put, SignedPost, SignedUrl
from services.kit.errors import Unavailable
from services.kit.testing import FakeClock
from tests.unit.files_service.bucket import Key


@dataclass
class Dead(Exception):
    """The process was killed here."""

    where: str


@dataclass
class Kills:
    """`Checkpoints` that kill once at a place."""

    at: str | None = None

    def reach(self, name: str) -> None:
        if name == self.at:
            self.at = None
            raise Dead(name)


@dataclass
class MemoryQuotas:
    """`QuotaStore`."""

    clock: FakeClock
    usages: dict[str, Usage] = field(default_factory=dict)
    away: bool = False

    async def reserve(self, holder: str, quota: Quota, upload: OpenUpload) -> Over | None:
        now = self.clock.now()
        usage = self.usages.get(holder, Usage(now)).later(quota, now)
        over = None if usage.holds(upload.file_id) else usage.over(quota, upload.size)
        if over is None and not usage.holds(upload.file_id):
            usage = usage.begun(upload, quota)
        self.usages[holder] = usage
        return over

    async def release(self, holder: str, file_id: str, stored: int) -> None:
        if self.away:
            raise Unavailable("MongoDB", "away")
        if holder in self.usages:
            self.usages[holder] = self.usages[holder].ended(file_id, stored)


@dataclass
class MemoryObjects:
    """`Objects`: any number of keys, and uploads in parts.

    Attributes:
        unanswered: how many of the next creations of an upload succeed without an answer.
        retries: how often the client repeats each of them under the same key before it gives up.
        listings: the prefix of every listing of uploads.
    """

    keys: dict[str, Key] = field(default_factory=dict)
    uploads: dict[str, tuple[Put, dict[int, tuple[str, bytes]]]] = field(default_factory=dict)
    away: bool = False
    bucket: str = "b"
    refused: frozenset[str] = frozenset()
    newest_at: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    unanswered: int = 0
    retries: int = 0
    listings: list[str] = field(default_factory=list)
    _numbers: count[int] = field(default_factory=count)

    def key(self, key: str) -> Key:
        return self.keys.setdefault(key, Key())

    def store(self, put: Put, data: bytes) -> str:
        """As a browser stores it."""
        found = Inspected(
            version_id="",
            etag=hashlib.md5(data, usedforsecurity=False).hexdigest(),
            size=len(data),
            content_type=put.content_type,
            file_id=put.metadata.get("file-id"),
            checksum=base64.b64encode(hashlib.sha256(data).digest()).decode(),
            sniffed=sniff(data[:HEAD_BYTES])
            if put.content_encoding is None
            else sniff_gzip(data[:GZIP_BYTES], data[-4:], is_all=len(data) <= GZIP_BYTES),
            content_encoding=put.content_encoding,
        )
        return self.key(put.key).put(found)

    async def versions(self, key: str) -> tuple[ObjectVersion, ...]:
        self._there()
        if key in self.refused:
            raise Unavailable("S3", "refuses us")
        return tuple(self.key(key).stack)

    async def everything(self) -> AsyncIterator[Listed]:
        self._there()
        for name in sorted(self.keys):
            if self.keys[name].stack:
                yield Listed(name, tuple(self.keys[name].stack), self.newest_at)

    async def multiparts(self, prefix: str = "") -> AsyncIterator[Multipart]:
        self._there()
        self.listings.append(prefix)
        for upload_id, (put, _) in list(self.uploads.items()):
            if put.key.startswith(prefix):
                yield Multipart(put.key, upload_id, self.newest_at)

    async def inspect(self, key: str, version_id: str, *, sniff: bool, checksum: ChecksumOf | None) -> Inspected | None:
        self._there()
        there = any(each.version_id == version_id for each in self.key(key).stack)
        return self.key(key).what[version_id] if there else None

    async def delete(self, key: str, version_ids: Sequence[str]) -> None:
        self._there()
        self.key(key).delete(version_ids)

    async def mark(self, key: str) -> None:
        self._there()
        self.key(key).mark()

    async def mark_all(self, keys: Sequence[str]) -> frozenset[str]:
        self._there()
        for key in keys:
            if key not in self.refused:
                self.key(key).mark()
        return frozenset(keys) & self.refused

    async def tag_public(self, key: str, version_id: str, is_public: bool) -> None:
        self._there()
        self.key(key).tag(version_id, is_public)

    async def tag_verified(self, key: str, version_id: str) -> None:
        self._there()
        self.key(key).verify(version_id)

    async def begin_multipart(self, put: Put) -> str:
        self._there()
        for _ in range(1 + self.retries):
            upload = f"upload-{next(self._numbers)}"
            self.uploads[upload] = (put, {})
            if not self.unanswered:
                return upload
            self.unanswered -= 1
        raise Unavailable("S3", "does not answer")

    async def parts(self, key: str, upload_id: str) -> list[Part] | None:
        self._there()
        if upload_id not in self.uploads:
            return None
        return [Part(n, etag, len(data)) for n, (etag, data) in sorted(self.uploads[upload_id][1].items())]

    async def complete_multipart(self, key: str, upload_id: str, parts: Sequence[Part]) -> bool:
        self._there()
        found = self.uploads.pop(upload_id, None)
        if found is None:
            return False
        put, stored = found
        pieces = [stored[each.number][1] for each in parts]
        version = self.store(put, b"".join(pieces))
        if is_of_parts(put.checksum):
            digests = hashlib.sha256(b"".join(hashlib.sha256(each).digest() for each in pieces)).digest()
            what = self.key(put.key).what
            what[version] = replace(what[version], checksum=f"{base64.b64encode(digests).decode()}-{len(pieces)}")
        return True

    async def abort_multipart(self, key: str, upload_id: str) -> None:
        self._there()
        self.uploads.pop(upload_id, None)

    def put_part(self, upload_id: str, number: int, data: bytes) -> str:
        """As a browser stores it; its ETag."""
        etag = f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'
        self.uploads[upload_id][1][number] = (etag, data)
        return etag

    def _there(self) -> None:
        if self.away:
            raise Unavailable("S3", "is away")


@dataclass
class PlainSigner:
    """`Signer` whose addresses say what they are for. `end`: when its credentials run out."""

    puts: list[Put] = field(default_factory=list)
    end: datetime | None = None

    async def post(self, put: Put, *, least: int, most: int, expires_at: datetime) -> SignedPost:
        self.puts.append(put)
        return SignedPost("https://s3.example/b", {"key": put.key, "range": f"{least}-{most}"}, expires_at)

    async def part(self, key: str, upload_id: str, part: PartWanted, *, expires_at: datetime) -> SignedUrl:
        url = f"https://s3.example/b/{key}?upload={upload_id}&part={part.number}&size={part.size}"
        return SignedUrl(url, expires_at, {} if part.checksum is None else {"x-amz-checksum-sha256": part.checksum})

    async def download(
        self, key: str, version_id: str, *, content_type: str, disposition: str, expires_at: datetime
    ) -> SignedUrl:
        ends = expires_at if self.end is None else min(expires_at, self.end)
        return SignedUrl(f"https://s3.example/b/{key}?versionId={version_id}&d={disposition}", ends)
