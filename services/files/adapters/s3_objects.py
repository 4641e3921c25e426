"""One versioned bucket of S3. All trouble is Unavailable, refusals too: rights are an operator's business, and whoever
waits goes on by itself once they are mended.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final, NamedTuple
from xml.etree import ElementTree as ET

import aiohttp
from botocore.exceptions import ClientError

from services.files.adapters.sniffing import FIRST_OF_GZIP, GZIP_BYTES, HEAD_BYTES, LEAST_GZIP, sniff, sniff_gzip
from services.files.domain.parts import is_of_parts
from services.files.domain.scans import SCAN_RESULTS
from services.files.domain.seen import Inspected, ObjectVersion, Sniffed
from services.files.ports import REFUSED_SECONDS, ChecksumOf, Listed, Multipart, Part, Put
from services.kit import aws
from services.kit.errors import PermanentError, SettingsError, Unavailable

CALL_SECONDS: Final = 15.0
"""For one call, the client's own repetitions included."""

READ_SECONDS: Final = 120.0
"""For reading a whole object to know its checksum."""

PUBLIC_TAG: Final = "public"
VERIFIED_TAG: Final = "verified"
SCAN_TAG: Final = "GuardDutyMalwareScanStatus"
"""Amazon GuardDuty User Guide, "Using tag-based access control with Malware Protection for S3"."""

_GONE: Final = frozenset({"NoSuchKey", "NoSuchVersion", "NoSuchUpload", "MethodNotAllowed"})
_GONE_WITHOUT_A_WORD: Final = frozenset({"404", "405"})
"""What S3 answers to HEAD, which has no body to name a code in. A proxy on the way says the same, and knows nothing."""
_BAD_PARTS: Final = frozenset({"InvalidPart", "InvalidPartOrder", "EntityTooSmall", "MalformedXML"})
_IN_ORDER: Final = "MailroomInOrder"


class S3Objects:
    """`Objects` of one bucket. `client` is an entered `kit.aws.s3_client`. `tag_uploads`: those in parts are tagged as
    not verified from the start.
    """

    def __init__(self, client: Any, bucket: str, *, tag_uploads: bool = False) -> None:
        self._client, self._bucket, self._tag_uploads = client, bucket, tag_uploads
        client.meta.events.register("before-parse.s3.ListObjectVersions", _keep_order, unique_id="mailroom-order")

    @property
    def bucket(self) -> str:
        return self._bucket

    async def check(self) -> None:
        """Refuse a bucket that does not keep versions. Raises SettingsError, which says what to do; Unavailable."""
        with _s3():
            answer = await self._client.get_bucket_versioning(Bucket=self._bucket)
        if answer.get("Status") != "Enabled":
            command = (
                f"aws s3api put-bucket-versioning --bucket {self._bucket} --versioning-configuration Status=Enabled"
            )
            why = (
                f"the bucket {self._bucket} keeps no versions, so a verified file could be overwritten; run: {command}"
            )
            raise SettingsError([f"AWS_S3_BUCKET: {why}"])

    async def versions(self, key: str) -> tuple[ObjectVersion, ...]:
        found: list[ObjectVersion] = []
        async for page in self._pages(key):
            found += [ObjectVersion(each.version, each.is_marker) for each in page if each.key == key]
            if any(each.key > key for each in page):
                break
        return tuple(found)

    async def everything(self) -> AsyncIterator[Listed]:
        key, held = "", list[_Entry]()
        async for page in self._pages(""):
            for each in page:
                if held and each.key != key:
                    yield _listed(key, held)
                    held = []
                key = each.key
                held.append(each)
        if held:
            yield _listed(key, held)

    async def multiparts(self, prefix: str = "") -> AsyncIterator[Multipart]:
        start: dict[str, str] = {}
        while True:
            with _s3():
                async with asyncio.timeout(CALL_SECONDS):
                    page = await self._client.list_multipart_uploads(Bucket=self._bucket, Prefix=prefix, **start)
            for each in page.get("Uploads", ()):
                yield Multipart(each["Key"], each["UploadId"], each["Initiated"])
            if not page.get("IsTruncated"):
                return
            start = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}

    async def _pages(self, prefix: str) -> AsyncIterator[list[_Entry]]:
        start: dict[str, str] = {}
        while True:
            with _s3():
                async with asyncio.timeout(CALL_SECONDS):
                    page = await self._client.list_object_versions(Bucket=self._bucket, Prefix=prefix, **start)
            yield page.get(_IN_ORDER, [])
            if not page.get("IsTruncated"):
                return
            start = {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page["NextVersionIdMarker"]}

    async def inspect(self, key: str, version_id: str, *, sniff: bool, checksum: ChecksumOf | None) -> Inspected | None:
        try:
            with _s3():
                async with asyncio.timeout(CALL_SECONDS):
                    head = await self._client.head_object(
                        Bucket=self._bucket, Key=key, VersionId=version_id, ChecksumMode="ENABLED"
                    )
                    tags = await self._tags(key, version_id)
            told, size = head.get("ChecksumSHA256"), int(head["ContentLength"])
            unknown = checksum == "whole" and (told is None or is_of_parts(told))
            encoding = encoding_of(head.get("ContentEncoding"))
            looked: Sniffed | None = None
            if sniff or unknown:
                least = HEAD_BYTES if encoding is None else FIRST_OF_GZIP
                first, computed = await self._read(key, version_id, least, whole=unknown)
                told = computed if unknown else told
                looked = await self._sniff(key, version_id, first, size, encoding)
        except _NotThere:
            return None
        return Inspected(
            version_id=version_id,
            etag=str(head.get("ETag", "")).strip('"'),
            size=size,
            content_type=str(head.get("ContentType", "")),
            file_id=head.get("Metadata", {}).get("file-id"),
            checksum=told if checksum else None,
            sniffed=looked,
            scan=SCAN_RESULTS.get(tags.get(SCAN_TAG, "")),
            is_public=tags.get(PUBLIC_TAG) == "true",
            is_verified=None if VERIFIED_TAG not in tags else tags[VERIFIED_TAG] == "true",
            storage_class=str(head.get("StorageClass", "STANDARD")),  # S3 leaves this one out
            content_encoding=encoding,
        )

    async def delete(self, key: str, version_ids: Sequence[str]) -> None:
        for start in range(0, len(version_ids), 1000):
            entries = [{"Key": key, "VersionId": each} for each in version_ids[start : start + 1000]]
            with _s3():
                async with asyncio.timeout(CALL_SECONDS):
                    answer = await self._client.delete_objects(
                        Bucket=self._bucket, Delete={"Objects": entries, "Quiet": True}
                    )
            refused = {str(each.get("Code")) for each in answer.get("Errors", ())} - _GONE
            if refused:
                raise Unavailable("S3", f"did not delete ({', '.join(sorted(refused))})", retry_after=REFUSED_SECONDS)

    async def mark(self, key: str) -> None:
        with _s3():
            async with asyncio.timeout(CALL_SECONDS):
                await self._client.delete_object(Bucket=self._bucket, Key=key)

    async def mark_all(self, keys: Sequence[str]) -> frozenset[str]:
        refused: set[str] = set()
        for start in range(0, len(keys), 1000):
            entries = [{"Key": key} for key in keys[start : start + 1000]]
            with _s3():
                async with asyncio.timeout(CALL_SECONDS):
                    answer = await self._client.delete_objects(
                        Bucket=self._bucket, Delete={"Objects": entries, "Quiet": True}
                    )
            refused |= {str(each.get("Key")) for each in answer.get("Errors", ())}
        return frozenset(refused)

    async def tag_public(self, key: str, version_id: str, is_public: bool) -> None:
        await self._tag(key, version_id, PUBLIC_TAG, "true" if is_public else None)

    async def tag_verified(self, key: str, version_id: str) -> None:
        await self._tag(key, version_id, VERIFIED_TAG, "true")

    async def begin_multipart(self, put: Put) -> str:
        with _s3():
            async with asyncio.timeout(CALL_SECONDS):
                answer = await self._client.create_multipart_upload(
                    Bucket=self._bucket,
                    Key=put.key,
                    ContentType=put.content_type,
                    Metadata=dict(put.metadata),
                    StorageClass=put.storage,
                    **_encryption(put),
                    **({} if put.content_encoding is None else {"ContentEncoding": put.content_encoding}),
                    **({"ChecksumAlgorithm": "SHA256"} if is_of_parts(put.checksum) else {}),
                    **({"Tagging": f"{VERIFIED_TAG}=false"} if self._tag_uploads else {}),
                )
        return str(answer["UploadId"])

    async def parts(self, key: str, upload_id: str) -> list[Part] | None:
        found: list[Part] = []
        start: dict[str, Any] = {}
        try:
            while True:
                with _s3():
                    async with asyncio.timeout(CALL_SECONDS):
                        page = await self._client.list_parts(
                            Bucket=self._bucket, Key=key, UploadId=upload_id, **start
                        )  # fmt: skip
                found += [
                    Part(each["PartNumber"], each["ETag"], each["Size"], each.get("ChecksumSHA256"))
                    for each in page.get("Parts", ())
                ]
                if not page.get("IsTruncated"):
                    return found
                start = {"PartNumberMarker": page["NextPartNumberMarker"]}
        except _NotThere:
            return None

    async def complete_multipart(self, key: str, upload_id: str, parts: Sequence[Part]) -> bool:
        listed = [
            {"PartNumber": each.number, "ETag": each.etag}
            | ({} if each.checksum is None else {"ChecksumSHA256": each.checksum})
            for each in parts
        ]
        try:
            with _s3():
                async with asyncio.timeout(READ_SECONDS):  # S3 may take minutes for thousands of parts
                    await self._client.complete_multipart_upload(
                        Bucket=self._bucket, Key=key, UploadId=upload_id, MultipartUpload={"Parts": listed}
                    )
        except _NotThere:
            return False
        return True

    async def abort_multipart(self, key: str, upload_id: str) -> None:
        try:
            with _s3():
                async with asyncio.timeout(CALL_SECONDS):
                    await self._client.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload_id)
        except _NotThere:
            return

    # --- inside --------------------------------------------------------------------------------------------------

    async def _tags(self, key: str, version_id: str) -> dict[str, str]:
        """The tags of a version; none where S3 cannot tell them (an emulator under a delete marker)."""
        try:
            answer = await self._client.get_object_tagging(Bucket=self._bucket, Key=key, VersionId=version_id)
        except ClientError as error:
            if _is_gone(error):
                return {}
            raise
        return {each["Key"]: each["Value"] for each in answer.get("TagSet", ())}

    async def _tag(self, key: str, version_id: str, name: str, value: str | None) -> None:
        """Set one tag, or take it away; S3 sets all tags at once, so the others are sent back."""
        try:
            with _s3():
                async with asyncio.timeout(CALL_SECONDS):
                    tags = await self._tags(key, version_id)
                    tags.pop(name, None)
                    if value is not None:
                        tags[name] = value
                    await self._client.put_object_tagging(
                        Bucket=self._bucket,
                        Key=key,
                        VersionId=version_id,
                        Tagging={"TagSet": [{"Key": each, "Value": said} for each, said in tags.items()]},
                    )
        except _NotThere:
            return

    async def _sniff(self, key: str, version_id: str, first: bytes, size: int, encoding: str | None) -> Sniffed:
        """What its first bytes look like, through gzip where it is stored so; other encodings are nothing known."""
        if encoding is None:
            return await asyncio.to_thread(sniff, first)
        if encoding != "gzip" or size < LEAST_GZIP:
            return Sniffed()
        end = await self._end(key, version_id, size)
        looked = await asyncio.to_thread(sniff_gzip, first, end, is_all=len(first) >= size)
        if looked is None:
            first, _ = await self._read(key, version_id, GZIP_BYTES, whole=False)
            looked = await asyncio.to_thread(sniff_gzip, first, end, is_all=len(first) >= size)
        return looked or Sniffed()

    async def _end(self, key: str, version_id: str, size: int) -> bytes:
        """The last four bytes."""
        with _s3():
            async with asyncio.timeout(CALL_SECONDS):
                answer = await self._client.get_object(
                    Bucket=self._bucket, Key=key, VersionId=version_id, Range=f"bytes={size - 4}-{size - 1}"
                )
                async with answer["Body"] as body:
                    return bytes(await body.read())[-4:]

    async def _read(self, key: str, version_id: str, least: int, *, whole: bool) -> tuple[bytes, str | None]:
        """The first `least` bytes; and, if asked for, the SHA-256 of all of them, never held at once."""
        wanted = {} if whole else {"Range": f"bytes=0-{least - 1}"}
        digest, first = hashlib.sha256(), b""
        with _s3():
            async with asyncio.timeout(READ_SECONDS if whole else CALL_SECONDS):
                try:
                    answer = await self._client.get_object(
                        Bucket=self._bucket, Key=key, VersionId=version_id, **wanted
                    )  # fmt: skip
                except ClientError as error:
                    if aws.error_code(error) == "InvalidRange":
                        return b"", None  # an empty object has no first byte
                    raise
                async with answer["Body"] as body:
                    async for chunk in body.content.iter_chunked(1 << 20 if whole else least):
                        digest.update(chunk)
                        if len(first) < least:
                            first += chunk[: least - len(first)]
                        if not whole and len(first) >= least:
                            body.close()  # not every store keeps to the range
                            break
        return first, base64.b64encode(digest.digest()).decode() if whole else None


class _Entry(NamedTuple):
    key: str
    version: str
    is_marker: bool
    at: datetime


class _NotThere(Exception):
    """The object, version or upload is not there (any more)."""


@contextmanager
def _s3() -> Iterator[None]:
    """One call. Raises Unavailable, `_NotThere`, PermanentError `badParts`."""
    try:
        with aws.foreign_errors("S3"):
            yield
    except PermanentError as error:
        if isinstance(cause := error.__cause__, ClientError):
            if _is_gone(cause):
                raise _NotThere from error
            if (code := aws.error_code(cause)) in _BAD_PARTS:
                raise PermanentError("badParts", f"S3 does not take these parts ({code})") from error
        raise Unavailable("S3", f"refuses us ({error.detail})", retry_after=REFUSED_SECONDS) from error
    except (aiohttp.ClientError, OSError) as error:  # a body that breaks off
        raise Unavailable("S3", f"broke off ({type(error).__name__})") from error


def _is_gone(error: ClientError) -> bool:
    """Whether S3 says, and nobody else, that it is not there."""
    code = aws.error_code(error)
    return code in _GONE or (code in _GONE_WITHOUT_A_WORD and aws.is_from_aws(error))


def _encryption(put: Put) -> dict[str, Any]:
    if put.kms_key is not None:
        return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": put.kms_key}
    return {"ServerSideEncryption": "AES256"}


def encoding_of(stored: str | None) -> str | None:
    """What the object is encoded with. `aws-chunked` is a way of sending that some stores keep by mistake."""
    words = [each.strip().lower() for each in (stored or "").split(",")]
    return ",".join(each for each in words if each not in ("", "aws-chunked", "identity")) or None


def _keep_order(response_dict: Mapping[str, Any], customized_response_dict: dict[str, Any], **_: Any) -> None:
    """Versions and delete markers in the one order in which S3 tells them, newest first for each key. The client puts
    them into two lists and loses it, and times do not order: they are whole seconds.
    """
    if response_dict.get("status_code") != 200:
        return
    body = response_dict["body"]
    found: list[_Entry] = []
    for each in ET.fromstring(body):  # noqa: S314 - S3's own answer over TLS
        kind = each.tag.rpartition("}")[2]
        if kind in ("Version", "DeleteMarker"):
            texts = {inner.tag.rpartition("}")[2]: inner.text or "" for inner in each}
            at = datetime.fromisoformat(texts["LastModified"])
            found.append(_Entry(texts["Key"], texts["VersionId"], kind == "DeleteMarker", at))
    customized_response_dict[_IN_ORDER] = found


def _listed(key: str, entries: Sequence[_Entry]) -> Listed:
    versions = tuple(ObjectVersion(each.version, each.is_marker) for each in entries)
    return Listed(key, versions, max(each.at for each in entries))
