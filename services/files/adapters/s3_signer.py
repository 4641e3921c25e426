"""Addresses for browsers, signed with the service's credentials (signature version 4)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from services.files.adapters.s3_objects import VERIFIED_TAG
from services.files.ports import PartWanted, Put, SignedPost, SignedUrl

LEAST = timedelta(seconds=1)
_NOT_VERIFIED = f"<Tagging><TagSet><Tag><Key>{VERIFIED_TAG}</Key><Value>false</Value></Tag></TagSet></Tagging>"
"""Amazon S3 API Reference, "POST Object": the form field `tagging` holds the tags as XML."""


class S3Signer:
    """`Signer` for one bucket.

    `client` is an entered `kit.aws.s3_client` whose endpoint browsers can reach. `credentials_end` says when the
    signer's own temporary credentials run out, None for lasting ones: an address dies with them, whatever it says.
    `tag_uploads`: what is stored through a form is tagged as not verified, from the start.
    """

    def __init__(
        self,
        client: Any,
        bucket: str,
        now: Callable[[], datetime],
        credentials_end: Callable[[], Awaitable[datetime | None]],
        *,
        tag_uploads: bool = False,
    ) -> None:
        self._client, self._bucket, self._now, self._credentials_end = client, bucket, now, credentials_end
        self._tag_uploads = tag_uploads

    async def post(self, put: Put, *, least: int, most: int, expires_at: datetime) -> SignedPost:
        fields: dict[str, str] = {
            "Content-Type": put.content_type,
            "success_action_status": "204",
            **{f"x-amz-meta-{name}": value for name, value in put.metadata.items()},
            **_encryption(put),
        }
        if put.storage != "STANDARD":
            fields["x-amz-storage-class"] = put.storage
        if put.content_encoding is not None:
            fields["Content-Encoding"] = put.content_encoding
        if self._tag_uploads:
            fields["tagging"] = _NOT_VERIFIED
        if put.checksum is not None:
            fields |= {"x-amz-checksum-algorithm": "SHA256", "x-amz-checksum-sha256": put.checksum}
        seconds, end = await self._lasts(expires_at)
        made = await self._client.generate_presigned_post(
            Bucket=self._bucket,
            Key=put.key,
            Fields=dict(fields),
            Conditions=[*({name: value} for name, value in fields.items()), ["content-length-range", least, most]],
            ExpiresIn=seconds,
        )
        return SignedPost(made["url"], made["fields"], end)

    async def part(self, key: str, upload_id: str, part: PartWanted, *, expires_at: datetime) -> SignedUrl:
        parameters = {"Key": key, "UploadId": upload_id, "PartNumber": part.number, "ContentLength": part.size}
        if part.checksum is None:
            return await self._url("upload_part", parameters, expires_at)
        signed = await self._url("upload_part", {**parameters, "ChecksumSHA256": part.checksum}, expires_at)
        return replace(signed, headers={"x-amz-checksum-sha256": part.checksum})

    async def download(
        self, key: str, version_id: str, *, content_type: str, disposition: str, expires_at: datetime
    ) -> SignedUrl:
        parameters = {
            "Key": key,
            "VersionId": version_id,
            "ResponseContentType": content_type,
            "ResponseContentDisposition": disposition,
        }
        return await self._url("get_object", parameters, expires_at)

    async def _url(self, operation: str, parameters: dict[str, Any], expires_at: datetime) -> SignedUrl:
        seconds, end = await self._lasts(expires_at)
        url = await self._client.generate_presigned_url(
            operation, Params={"Bucket": self._bucket, **parameters}, ExpiresIn=seconds
        )
        return SignedUrl(url, end)

    async def _lasts(self, expires_at: datetime) -> tuple[int, datetime]:
        end = await self._credentials_end()
        now = self._now()
        lasts = max(LEAST, (expires_at if end is None else min(expires_at, end)) - now)
        seconds = int(lasts.total_seconds())
        return seconds, (now + timedelta(seconds=seconds)).replace(microsecond=0)


def _encryption(put: Put) -> dict[str, str]:
    if put.kms_key is not None:
        return {
            "x-amz-server-side-encryption": "aws:kms",
            "x-amz-server-side-encryption-aws-kms-key-id": put.kms_key,
        }
    return {"x-amz-server-side-encryption": "AES256"}
