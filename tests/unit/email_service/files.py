"""A file's decisions, as the files service publishes them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from contracts.base import EventData
from contracts.envelope import Envelope
from contracts.files.events import FileUploaded, FileUploadRequested
from contracts.files.values import UploadMetadata
from contracts.registry import NAMES
from services.kit.kafka.records import Record

FILE = "0192f0c1-2b7a-7d3e-9c1a-5b8f3e2d4f00"
OTHER = "0192f0c1-2b7a-7d3e-9c1a-5b8f3e2d4f01"
BUCKET = "crm-files"
AT = datetime(2026, 11, 29, 10, tzinfo=UTC)


def key_of(file_id: str) -> str:
    """The key of a file."""
    return f"document/2026/11/{file_id}/Zm9vYmFyMQ"


def upload(file_id: str = FILE, **changes: Any) -> FileUploadRequested:
    """Somebody, `u1` unless told otherwise, may upload a PDF."""
    fields: dict[str, Any] = {
        "key": key_of(file_id), "bucket": BUCKET, "region": "eu-central-1", "file_name": "a.pdf",
        "original_name": "Vertrag „2026“.pdf", "content_type": "application/pdf", "max_size_bytes": 10_000_000,
        "category": "document", "is_public": False, "user_id": "u1", "metadata": UploadMetadata(uploaded_by="u1"),
        "method": "post", "expires_at": AT + timedelta(minutes=15), "request_hash": "h",
    }  # fmt: skip
    return FileUploadRequested(**(fields | changes))


def uploaded(size: int = 4, version_id: str = "v1") -> FileUploaded:
    """What came is right."""
    return FileUploaded(version_id=version_id, etag="e", size=size, content_type="application/pdf", by="client")


def record(data: EventData, version: int | None, *, file_id: str = FILE, offset: int = 0, **changes: Any) -> Record:
    """A record of `files.events`; `version`: the decision's place in its stream."""
    fields: dict[str, Any] = {
        "id": f"{file_id}/{version}", "source": "/mailroom/files", "type": NAMES[type(data)], "subject": file_id,
        "time": AT, "correlationid": file_id, "streamversion": version, "data": data,
    }  # fmt: skip
    envelope = Envelope(**(fields | changes))
    return Record("files.events", 0, offset, 0, file_id.encode(), envelope.to_bytes())
