"""Settings of the files service, on top of the kit's."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from contracts.files.values import FileCategory
from services.files.domain.categories import Rules, with_changes
from services.files.domain.file import Policy
from services.files.domain.quotas import Quota
from services.kit.aws_settings import AwsSettings
from services.kit.command_roles import MEANING, CommandRoles
from services.kit.request_limits import Limit
from services.kit.settings import RequestLimit, Words

INLINE = ("image/png", "image/jpeg", "image/gif", "image/webp", "application/pdf", "text/plain")


class FilesSettings(AwsSettings):
    """Everything the files service reads from its environment."""

    http_port: int = Field(8082, alias="MAILROOM_FILES_PORT", ge=0, le=65535, description="the port to listen on")
    database: str = Field(
        "mailroom_files", alias="MAILROOM_FILES_DATABASE", min_length=1, description="its MongoDB database"
    )
    bucket: str = Field(alias="AWS_S3_BUCKET", min_length=3, description="the bucket of files, versioned")
    s3_public_endpoint: str | None = Field(
        None,
        alias="MAILROOM_S3_PUBLIC_ENDPOINT",
        description="where browsers reach S3, if not where the service does (an emulator in a container)",
    )
    queue_url: str = Field(
        alias="MAILROOM_FILES_QUEUE_URL", min_length=1, description="the SQS queue of S3's notifications"
    )
    queue_visibility_seconds: int = Field(
        60,
        alias="MAILROOM_QUEUE_VISIBILITY_SECONDS",
        ge=15,
        le=3600,
        description="seconds until a notification comes again whose receiver was killed; longer than a publish takes",
    )
    command_roles: CommandRoles = Field(default_factory=dict, alias="MAILROOM_COMMAND_ROLES", description=MEANING)
    categories: dict[FileCategory, Rules] = Field(
        default_factory=lambda: with_changes({}),
        alias="MAILROOM_FILE_CATEGORIES",
        description=(
            'what categories allow where it differs, as JSON: {"contract": {"scan": true, "maxBytes": 1000000}}'
        ),
    )
    inline_types: Words = Field(
        INLINE,
        alias="MAILROOM_INLINE_TYPES",
        description="types that browsers may show; all others are given out as attachments",
    )
    tag_uploads: bool = Field(
        False,
        alias="MAILROOM_TAG_UPLOADS",
        description="tag uploads as not verified until they are: where the bucket is copied (ReplicaBucketArn)",
    )
    upload_minutes: float = Field(
        15, alias="MAILROOM_UPLOAD_MINUTES", gt=0, le=10_000, description="minutes in which an upload by form may begin"
    )
    multipart_hours: float = Field(
        24, alias="MAILROOM_MULTIPART_HOURS", gt=0, le=168, description="hours in which an upload in parts must end"
    )
    upload_grace_minutes: float = Field(
        60,
        alias="MAILROOM_UPLOAD_GRACE_MINUTES",
        gt=0,
        description="minutes after that, until an upload is looked at for the last time",
    )
    download_minutes: float = Field(
        5, alias="MAILROOM_DOWNLOAD_MINUTES", gt=0, le=1440, description="minutes that a download link works"
    )
    cloudfront_domain: str | None = Field(
        None, alias="CLOUDFRONT_DOMAIN", description="the distribution that downloads go through; unset: S3 itself"
    )
    cloudfront_key_pair_id: str | None = Field(
        None, alias="MAILROOM_CLOUDFRONT_KEY_PAIR_ID", description="the id of the public key that CloudFront knows"
    )
    cloudfront_private_key: SecretStr | None = Field(
        None, alias="MAILROOM_CLOUDFRONT_PRIVATE_KEY", description="that key's private half, RSA, in PEM"
    )

    uploads_open_user: int = Field(
        1_000,
        alias="MAILROOM_UPLOADS_OPEN_PER_USER",
        ge=0,
        le=10_000,
        description="uploads of one user that may be open at once; 0 for no limit",
    )
    uploads_open_client: int = Field(
        5_000,
        alias="MAILROOM_UPLOADS_OPEN_PER_CLIENT",
        ge=0,
        le=10_000,
        description="likewise, for one clientId",
    )
    upload_bytes_user: int = Field(
        1_000_000_000_000,
        alias="MAILROOM_UPLOAD_BYTES_PER_USER",
        ge=0,
        description="bytes that one user may ask to upload in 24 hours; 0 for no limit",
    )
    upload_bytes_client: int = Field(
        5_000_000_000_000,
        alias="MAILROOM_UPLOAD_BYTES_PER_CLIENT",
        ge=0,
        description="likewise, for one clientId",
    )
    limit_upload: RequestLimit = Field(
        Limit(6000, 60),
        alias="MAILROOM_LIMIT_UPLOAD",
        description="requests in seconds by which a user may upload, change and delete, in each process; or off",
    )

    @field_validator("categories", mode="before")
    @classmethod
    def _are_rules(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            changes = json.loads(value)
        except ValueError:
            raise ValueError("not JSON") from None
        if not isinstance(changes, dict) or not all(isinstance(each, dict) for each in changes.values()):
            raise ValueError("must be an object of objects, by category")
        return with_changes(changes)

    @model_validator(mode="after")
    def _cloudfront_is_whole(self) -> Self:
        given = (self.cloudfront_key_pair_id, self.cloudfront_private_key)
        if self.cloudfront_domain is not None and None in given:
            raise ValueError(
                "CLOUDFRONT_DOMAIN needs MAILROOM_CLOUDFRONT_KEY_PAIR_ID and MAILROOM_CLOUDFRONT_PRIVATE_KEY"
            )
        return self

    def limits(self) -> dict[str, Limit | None]:
        return super().limits() | {"upload": self.limit_upload}

    def user_quota(self) -> Quota:
        """What one user may have open, and ask for."""
        return Quota(self.uploads_open_user or None, self.upload_bytes_user or None)

    def client_quota(self) -> Quota:
        """Likewise for one clientId."""
        return Quota(self.uploads_open_client or None, self.upload_bytes_client or None)

    @property
    def policy(self) -> Policy:
        """How long."""
        return Policy(upload_grace=timedelta(minutes=self.upload_grace_minutes))
