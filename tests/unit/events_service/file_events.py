"""Making events of one file for tests. `events.Log` writes them: its subject is the file's id."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from contracts.files import events as files
from contracts.files.values import UploadMetadata
from tests.unit.events_service.events import START, Log

FILE_ID = "0192f0c1-2b7a-7d3e-9c1a-5b8f3e2d4f00"
BUCKET = "mailroom-files"
VERSION = "version-1"


def key_of(file_id: str = FILE_ID, category: str = "document") -> str:
    return f"{category}/2026/11/{file_id}/nonce"


def file_log(file_id: str = FILE_ID, partition: int = 3) -> Log:
    return Log(file_id, partition)


def upload_requested(file_id: str = FILE_ID, **more: Any) -> files.FileUploadRequested:
    category = more.pop("category", "document")
    tags = more.pop("tags", None)
    fields: dict[str, Any] = {
        "key": key_of(file_id, category), "bucket": BUCKET, "region": "eu-central-1", "file_name": "report.pdf",
        "original_name": "Report.pdf", "content_type": "application/pdf", "declared_size": 1000,
        "max_size_bytes": 10_000, "category": category, "is_public": False, "user_id": "user-1",
        "metadata": UploadMetadata(uploaded_by="user-1", tags=tags), "method": "post",
        "expires_at": START + timedelta(hours=1), "request_hash": "0" * 64,
    }  # fmt: skip
    return files.FileUploadRequested(**(fields | more))


def uploaded(version: str = VERSION, **more: Any) -> files.FileUploaded:
    fields: dict[str, Any] = {"etag": "e1", "size": 900, "content_type": "application/pdf", "by": "client"}
    return files.FileUploaded(version_id=version, **(fields | more))


def upload_failed(reason: str = "tooLarge", detail: str | None = "10001 bytes") -> files.FileUploadFailed:
    return files.FileUploadFailed(reason=reason, detail=detail)  # type: ignore[arg-type]  # checked by the model


def deleted(*, recoverable: bool = True, reason: str = "user") -> files.FileDeleted:
    return files.FileDeleted(
        version_id=VERSION,
        recoverable=recoverable,
        reason=reason,  # type: ignore[arg-type]  # checked by the model
    )


def restored() -> files.FileRestored:
    return files.FileRestored(version_id=VERSION, by="user-1")


def scan_settled(result: str = "clean", version: str = VERSION) -> files.FileScanSettled:
    return files.FileScanSettled(version_id=version, result=result)  # type: ignore[arg-type]  # checked by the model


def scanned(result: str = "clean", version: str = VERSION) -> files.FileScanned:
    return files.FileScanned(
        bucket=BUCKET,
        key=key_of(),
        version_id=version,
        result=result,  # type: ignore[arg-type]  # checked by the model
    )


def object_fact(model: type[files.ObjectFact], version: str | None = VERSION, **more: Any) -> files.ObjectFact:
    return model(bucket=BUCKET, key=key_of(), version_id=version, event_name="ObjectCreated:Post", **more)


def download(minutes: float = 5, user: str | None = "user-1") -> files.FileDownloadIssued:
    """A link that is good until `minutes` after the start."""
    return files.FileDownloadIssued(user_id=user, expires_at=START + timedelta(minutes=minutes), ip_address="192.0.2.1")
