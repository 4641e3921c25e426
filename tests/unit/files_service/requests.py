"""Requests and objects for tests of the files domain."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from contracts.files.events import FileUploadRequested
from contracts.files.values import UploadMetadata
from services.files.domain.seen import Inspected, Sniffed

FILE = "0192f0c1-2b7a-7d3e-9c1a-5b8f3e2d4f00"
KEY = f"document/2026/11/{FILE}/Zm9vYmFyMQ"
T0 = datetime(2026, 11, 29, 10, tzinfo=UTC)
EXPIRES = T0 + timedelta(minutes=15)
SHA = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
PDF = Sniffed(frozenset({"application/pdf"}))


def requested(**changes: Any) -> FileUploadRequested:
    """An upload of a PDF of at most 1,000 bytes."""
    fields: dict[str, Any] = {
        "key": KEY, "bucket": "b", "region": "eu-central-1", "file_name": "a.pdf", "original_name": "a.pdf",
        "content_type": "application/pdf", "max_size_bytes": 1000, "category": "document", "is_public": False,
        "user_id": "u1", "metadata": UploadMetadata(uploaded_by="u1"), "method": "post", "expires_at": EXPIRES,
        "request_hash": "h",
    }  # fmt: skip
    return FileUploadRequested(**(fields | changes))


def stored(**changes: Any) -> Inspected:
    """What was asked for, as it lies in S3."""
    fields: dict[str, Any] = {
        "version_id": "", "etag": "e", "size": 10, "content_type": "application/pdf", "file_id": FILE,
        "checksum": None, "sniffed": PDF,
    }  # fmt: skip
    return Inspected(**(fields | changes))
