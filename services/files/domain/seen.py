"""What S3 shows of one key, as the rules need it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from contracts.files.values import ScanResult
from services.files.domain.file import Absent, File, State


@dataclass(frozen=True, slots=True)
class ObjectVersion:
    """One version of the object under a key, or a delete marker."""

    version_id: str
    is_marker: bool = False


TOLD_MODULO: Final = 1 << 32
"""A gzip stream tells the size of its contents modulo this (RFC 1952, ISIZE)."""


@dataclass(frozen=True, slots=True)
class Sniffed:
    """What the first bytes of an object look like, decoded where it is stored encoded.

    Attributes:
        types: media types whose signature stands where it must, long enough to be no accident; none = nothing that is
            known for certain.
        detected: the detector's one answer, which may be a guess; None = it knows none.
        is_text: they decode as text.
        has_markup: they hold, at any place, what a browser or a web server runs: `<script>`, `<html>`, `<?php`.
        told_size: of an encoded object, the size of its contents that the stream ends with, modulo `TOLD_MODULO`; None
            where its bytes are not of the encoding that it is stored with.
    """

    types: frozenset[str] = frozenset()
    detected: str | None = None
    is_text: bool = False
    has_markup: bool = False
    told_size: int | None = None


@dataclass(frozen=True, slots=True)
class Inspected:
    """What one version is.

    Attributes:
        file_id: what its metadata says whose it is.
        content_encoding: what it is stored with; None for none.
        checksum: SHA-256 of the whole object in base64, by S3's word or by reading it; None where nobody asked for it.
        sniffed: None where it was not looked into.
        scan: what the malware scan has tagged it with.
        is_public: whether it is tagged as public.
        is_verified: what its tag `verified` says, which uploads bring along where the bucket is copied; None where it
            has none.
    """

    version_id: str
    etag: str
    size: int
    content_type: str
    file_id: str | None
    checksum: str | None = None
    sniffed: Sniffed | None = None
    scan: ScanResult | None = None
    is_public: bool = False
    is_verified: bool | None = None
    storage_class: str | None = None
    content_encoding: str | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """All versions and markers of a key, newest first, and what the one that matters (`wanted`) is."""

    versions: tuple[ObjectVersion, ...] = ()
    inspected: Inspected | None = None

    def has(self, version_id: str) -> bool:
        """Whether the version still lies there."""
        return any(each.version_id == version_id and not each.is_marker for each in self.versions)

    def is_hidden(self, version_id: str) -> bool:
        """Whether a delete marker is newer than the version."""
        return any(each.is_marker for each in self.newer_than(version_id))

    def newer_than(self, version_id: str) -> tuple[ObjectVersion, ...]:
        """What came to lie on top of the version."""
        ids = [each.version_id for each in self.versions]
        return self.versions[: ids.index(version_id)] if version_id in ids else self.versions


def as_told(file: File) -> Seen:
    """What S3 shows of a file's key where nothing happened behind the stream's back: its verified version alone."""
    return Seen(() if file.verified is None else (ObjectVersion(file.verified.version_id),))


def wanted(state: State, versions: tuple[ObjectVersion, ...]) -> str | None:
    """The version to be inspected: the verified one if there is one, else the oldest, unless something was deleted.

    The oldest, since it stays the oldest: whoever looks at the same time looks at the same one, and an upload that
    comes on top of it through a form that was used twice is foreign to all of them.
    """
    if isinstance(state, Absent) or not versions:
        return None
    if state.verified is not None:
        verified = state.verified.version_id
        return verified if any(each.version_id == verified for each in versions) else None
    if state.phase != "uploading" or any(each.is_marker for each in versions):
        return None
    return versions[-1].version_id
