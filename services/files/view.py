"""A file as people see it, from its stream: what a change is answered with. The read model says the same a moment
later, and knows besides what the stream does not: links given out (`access`), and moves to another storage class.
"""

from __future__ import annotations

from contracts.views import File as FileView
from contracts.views import FileFailure, FileMetadata, S3Info
from services.files.domain.file import File


def shown(file_id: str, file: File) -> FileView:
    """The File of `contracts.views`."""
    request, verified = file.request, file.verified
    metadata = request.metadata
    return FileView(
        file_id=file_id,
        key=request.key,
        file_name=file.file_name,
        original_name=file.original_name,
        content_type=request.content_type if verified is None else verified.content_type,
        size=None if verified is None else verified.size,
        content_encoding=None if verified is None else verified.content_encoding,
        original_size=None if verified is None else verified.original_size,
        category=request.category,
        status=file.phase,
        scan_status=file.scan or "pending",
        is_public=file.is_public,
        user_id=request.user_id,
        client_id=request.client_id,
        metadata=FileMetadata(
            uploaded_by=metadata.uploaded_by,
            ip_address=metadata.ip_address,
            user_agent=metadata.user_agent,
            checksum=metadata.checksum if verified is None or verified.checksum is None else verified.checksum,
            tags=list(file.tags),
        ),
        s3_info=S3Info(
            bucket=request.bucket,
            region=request.region,
            etag=None if verified is None else verified.etag,
            version_id=None if verified is None else verified.version_id,
            storage_class=None if verified is None else verified.storage_class,
        ),
        recoverable=file.recoverable if file.phase == "deleted" else None,
        kept_until=file.kept_until,
        failure=None if file.failure is None else FileFailure(reason=file.failure, detail=file.failure_detail),
        created_at=file.requested_at,
        updated_at=file.updated_at or file.requested_at,
    )
