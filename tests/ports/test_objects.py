"""What the files service's bucket and its signer promise, on the emulator's S3, as browsers and the service use it."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio

from deploy.local.stack import Stack
from deploy.processes import REGION, aws_environment
from services.files.adapters.s3_objects import S3Objects
from services.files.adapters.s3_signer import S3Signer
from services.files.domain.commands import Remove
from services.files.domain.file import Policy
from services.files.domain.names import folder_of
from services.files.domain.seen import Sniffed
from services.files.handlers import Files
from services.files.ports import NoCheckpoints, Part, PartWanted, Put, SignedPost
from services.files.streams import FileStreams
from services.kit.aws import AwsAccount, s3_client
from services.kit.errors import PermanentError, SettingsError, Unavailable
from services.kit.event_store.memory import MemoryEventStore
from services.kit.metrics import Metrics
from services.kit.testing import FakeClock, FakeIds
from tests.e2e.aws_fault_proxy import AwsFaultProxy
from tests.e2e.tcp_proxy import running
from tests.unit.files_service.requests import FILE, T0, requested
from tests.unit.files_service.samples import gzip_stream

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = f"document/2026/11/{FILE}/Zm9vYmFyMQ"
KMS_KEY = f"arn:aws:kms:{REGION}:000000000000:key/0192f0c1-2b7a-4d3e-9c1a-5b8f3e2d4f01"
PDF = b"%PDF-1.7\n" + b"x" * 500
MIB = 1 << 20


def now() -> datetime:
    return datetime.now(UTC)


def soon(minutes: float = 5) -> datetime:
    return now() + timedelta(minutes=minutes)


async def lasting() -> datetime | None:
    return None


@dataclass
class Place:
    """A bucket of its own, and a browser."""

    objects: S3Objects
    signer: S3Signer
    s3: Any
    bucket: str
    browser: httpx.AsyncClient
    port: int

    @staticmethod
    def account(url: str) -> AwsAccount:
        keys = aws_environment(url)
        return AwsAccount(REGION, keys["AWS_ACCESS_KEY_ID"], keys["AWS_SECRET_ACCESS_KEY"], endpoint_url=url)

    async def put(self, data: bytes = PDF, key: str = KEY, **more: Any) -> str:
        answer = await self.s3.put_object(
            Bucket=self.bucket, Key=key, Body=data, ContentType="application/pdf", Metadata={"file-id": FILE}, **more
        )
        return str(answer["VersionId"])

    async def post(self, form: SignedPost, data: bytes, **changed: str | None) -> httpx.Response:
        """Post a form with these fields changed; None leaves one out."""
        fields = {name: text for name, text in {**form.fields, **changed}.items() if text is not None}
        return await self.browser.post(form.url, data=fields, files={"file": ("a.pdf", data, "text/plain")})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def clients(test_stack: Stack) -> AsyncIterator[tuple[Any, httpx.AsyncClient]]:
    """S3's client and a browser for all tests: to make them takes longer than most of these."""
    test_stack.start(["aws"])
    async with (
        s3_client(Place.account(test_stack.site.url("aws"))) as s3,
        httpx.AsyncClient(trust_env=False, timeout=60) as browser,
    ):
        yield s3, browser


@pytest_asyncio.fixture(loop_scope="module")
async def place(clients: tuple[Any, httpx.AsyncClient], test_stack: Stack) -> Place:
    s3, browser = clients
    name = f"files-{uuid4().hex[:12]}"
    await s3.create_bucket(Bucket=name)
    await s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    port = test_stack.site.ports["aws"]
    return Place(S3Objects(s3, name), S3Signer(s3, name, now, lasting), s3, name, browser, port)


def put(**changes: Any) -> Put:
    fields: dict[str, Any] = {"key": KEY, "content_type": "application/pdf", "metadata": {"file-id": FILE}}
    return Put(**(fields | changes))


async def test_versions_and_markers_come_in_one_order_newest_first(place: Place) -> None:
    first = await place.put()
    await place.objects.mark(KEY)
    second = await place.put()
    await place.objects.mark(KEY)
    await place.put(key=f"{KEY}x")
    found = await place.objects.versions(KEY)
    assert [each.is_marker for each in found] == [True, False, True, False]
    assert [each.version_id for each in found if not each.is_marker] == [second, first]
    assert await place.objects.versions("document/none") == ()


async def test_many_versions_are_listed_to_the_end(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [await place.put(b"%PDF-" + str(n).encode()) for n in range(7)]
    ask = place.s3.list_object_versions

    async def two_at_a_time(**options: Any) -> Any:
        return await ask(**options, MaxKeys=2)

    monkeypatch.setattr(place.s3, "list_object_versions", two_at_a_time)
    assert [each.version_id for each in await place.objects.versions(KEY)] == made[::-1]


@pytest.mark.parametrize(("many", "at_once"), [(30, 20), pytest.param(1010, 1000, marks=pytest.mark.long)])
async def test_a_bucket_of_more_than_one_page_is_told_to_its_end(
    place: Place, monkeypatch: pytest.MonkeyPatch, many: int, at_once: int
) -> None:
    """S3 tells a thousand at once unless it is asked for fewer, and a key may span two pages."""
    ask, crowded = place.s3.list_object_versions, f"document/2026/11/{FILE}/m"
    if at_once < 1000:
        monkeypatch.setattr(place.s3, "list_object_versions", partial(ask, MaxKeys=at_once))
    keys = [f"document/2026/11/{FILE}/{'a' if n < many - 20 else 'z'}{n:04}" for n in range(many)]
    places = asyncio.Semaphore(16)

    async def store(key: str) -> None:
        async with places:
            await place.put(b"x", key)

    await asyncio.gather(*(store(key) for key in keys))
    versions = [await place.put(str(n).encode(), crowded) for n in range(20)]
    await place.objects.mark(crowded)
    found = [each async for each in place.objects.everything()]
    assert [each.key for each in found] == sorted([*keys, crowded])
    assert {len(each.versions) for each in found if each.key != crowded} == {1}
    (whole,) = [each for each in found if each.key == crowded]
    assert [each.version_id for each in whole.versions if not each.is_marker] == versions[::-1]
    assert [each.is_marker for each in whole.versions] == [True] + [False] * 20


async def test_a_version_is_inspected_whatever_lies_on_top(place: Place) -> None:
    version = await place.put()
    await place.put(b"other")
    await place.objects.mark(KEY)
    found = await place.objects.inspect(KEY, version, sniff=True, checksum="whole")
    assert found is not None
    assert (found.version_id, found.size, found.content_type, found.file_id) == (
        version, len(PDF), "application/pdf", FILE,
    )  # fmt: skip
    assert found.checksum == base64.b64encode(hashlib.sha256(PDF).digest()).decode()
    assert found.sniffed is not None
    assert "application/pdf" in found.sniffed.types
    assert found.etag == hashlib.md5(PDF, usedforsecurity=False).hexdigest()
    assert await place.objects.inspect(KEY, str(uuid4()), sniff=True, checksum=None) is None


async def test_an_empty_object_is_inspected_too(place: Place) -> None:
    version = await place.put(b"")
    found = await place.objects.inspect(KEY, version, sniff=True, checksum=None)
    assert found is not None
    assert (found.size, found.sniffed and found.sniffed.types) == (0, frozenset())


async def test_the_scan_and_public_tags_are_read_and_kept_apart(place: Place) -> None:
    version = await place.put()
    scan = {"Key": "GuardDutyMalwareScanStatus", "Value": "THREATS_FOUND"}
    await place.s3.put_object_tagging(Bucket=place.bucket, Key=KEY, VersionId=version, Tagging={"TagSet": [scan]})
    await place.objects.tag_public(KEY, version, True)
    found = await place.objects.inspect(KEY, version, sniff=False, checksum=None)
    assert found is not None
    assert (found.scan, found.is_public) == ("infected", True)
    await place.objects.tag_public(KEY, version, False)
    found = await place.objects.inspect(KEY, version, sniff=False, checksum=None)
    assert found is not None
    assert (found.scan, found.is_public) == ("infected", False)
    await place.objects.tag_public(KEY, str(uuid4()), True)  # gone: fine


async def test_a_version_is_tagged_as_verified_and_keeps_its_other_tags(place: Place) -> None:
    version = await place.put(Tagging="verified=false&GuardDutyMalwareScanStatus=NO_THREATS_FOUND")
    untagged = await place.put()

    async def told(version: str) -> tuple[bool | None, str | None, bool]:
        found = await place.objects.inspect(KEY, version, sniff=False, checksum=None)
        assert found is not None
        return found.is_verified, found.scan, found.is_public

    assert (await told(version), await told(untagged)) == ((False, "clean", False), (None, None, False))
    await place.objects.tag_public(KEY, version, True)
    await place.objects.tag_verified(KEY, version)
    assert await told(version) == (True, "clean", True)
    await place.objects.tag_verified(KEY, str(uuid4()))  # gone: fine


async def test_uploads_are_tagged_as_not_verified_where_asked(place: Place) -> None:
    """In the form as S3 wants it, which takes it for one of the policy's conditions; the emulator sets no tag of either
    way, so what it is sent is looked at.
    """
    plain = await place.signer.post(put(), least=1, most=1000, expires_at=soon())
    assert "tagging" not in plain.fields
    signer = S3Signer(place.s3, place.bucket, now, lasting, tag_uploads=True)
    form = await signer.post(put(), least=1, most=1000, expires_at=soon())
    assert form.fields["tagging"] == (
        "<Tagging><TagSet><Tag><Key>verified</Key><Value>false</Value></Tag></TagSet></Tagging>"
    )
    assert {"tagging": form.fields["tagging"]} in json.loads(base64.b64decode(form.fields["policy"]))["conditions"]
    assert (await place.post(form, PDF)).status_code == 204
    sent: list[str | None] = []

    def look(params: dict[str, Any], **_: Any) -> None:
        sent.append(params.get("Tagging"))

    place.s3.meta.events.register("provide-client-params.s3.CreateMultipartUpload", look)
    try:
        for tag_uploads in (True, False):
            objects = S3Objects(place.s3, place.bucket, tag_uploads=tag_uploads)
            await objects.abort_multipart(KEY, await objects.begin_multipart(put()))
    finally:
        place.s3.meta.events.unregister("provide-client-params.s3.CreateMultipartUpload", look)
    assert sent == ["verified=false", None]


async def test_deleting_is_for_good_and_may_be_repeated(place: Place) -> None:
    version = await place.put()
    await place.objects.mark(KEY)
    marker = (await place.objects.versions(KEY))[0]
    for _ in range(2):
        await place.objects.delete(KEY, [marker.version_id, version, str(uuid4())])
    assert await place.objects.versions(KEY) == ()


async def test_many_keys_are_marked_by_one_call(place: Place) -> None:
    keys = [f"document/2026/11/{FILE}/{n}" for n in range(3)]
    for key in keys:
        await place.put(key=key)
    assert await place.objects.mark_all(keys) == frozenset()
    for key in keys:
        assert [each.is_marker for each in await place.objects.versions(key)] == [True, False]
    assert await place.objects.mark_all([]) == frozenset()


async def test_a_form_lets_one_object_be_stored_and_no_other(place: Place) -> None:
    form = await place.signer.post(put(), least=1, most=1000, expires_at=soon())
    good = await place.post(form, PDF)
    assert good.status_code == 204
    (stored,) = await place.objects.versions(KEY)
    found = await place.objects.inspect(KEY, stored.version_id, sniff=False, checksum=None)
    assert found is not None
    assert (found.content_type, found.file_id) == ("application/pdf", FILE)
    refused = [
        await place.post(form, b"x" * 1001),
        await place.post(form, b""),
        await place.post(form, PDF, key=f"{KEY}y"),
        await place.post(form, PDF, **{"Content-Type": "text/html"}),
        await place.post(form, PDF, **{"x-amz-meta-file-id": "another"}),
        await place.post(form, PDF, acl="public-read"),
    ]
    assert all(each.status_code in (400, 403) for each in refused)
    assert len(await place.objects.versions(KEY)) == 1


INFREQUENT = {"storage": "STANDARD_IA"}
OWN_KEY = {"storage": "GLACIER_IR", "kms_key": KMS_KEY}
STORED: list[tuple[dict[str, str], dict[str, str]]] = [
    ({}, {"ServerSideEncryption": "AES256"}),
    (INFREQUENT, {"StorageClass": "STANDARD_IA", "ServerSideEncryption": "AES256"}),
    (OWN_KEY, {"StorageClass": "GLACIER_IR", "ServerSideEncryption": "aws:kms", "SSEKMSKeyId": KMS_KEY}),
]
"""What a category may ask for, and what S3 then says of the object; it does not name the usual class."""


async def stored_as(place: Place) -> dict[str, str]:
    """How the newest version lies in S3."""
    head = await place.s3.head_object(Bucket=place.bucket, Key=KEY)
    return {name: head[name] for name in ("StorageClass", "ServerSideEncryption", "SSEKMSKeyId") if name in head}


@pytest.mark.parametrize(("wanted", "told"), STORED)
async def test_a_form_stores_as_its_category_says(place: Place, wanted: dict[str, str], told: dict[str, str]) -> None:
    form = await place.signer.post(put(**wanted), least=1, most=1000, expires_at=soon())
    assert (await place.post(form, PDF)).status_code == 204
    assert await stored_as(place) == told


@pytest.mark.parametrize(("wanted", "told"), STORED)
async def test_parts_are_stored_as_their_category_says(
    place: Place, wanted: dict[str, str], told: dict[str, str]
) -> None:
    upload = await place.objects.begin_multipart(put(**wanted))
    address = await place.signer.part(KEY, upload, PartWanted(1, len(PDF)), expires_at=soon())
    assert (await place.browser.put(address.url, content=PDF, headers=dict(address.headers))).status_code == 200
    parts = await place.objects.parts(KEY, upload)
    assert parts is not None
    assert await place.objects.complete_multipart(KEY, upload, parts)
    assert await stored_as(place) == told


CLASS, ENCRYPTION, KEY_ID = (
    "x-amz-storage-class",
    "x-amz-server-side-encryption",
    "x-amz-server-side-encryption-aws-kms-key-id",
)


@pytest.mark.parametrize(
    ("wanted", "field", "text"),
    [
        ({}, CLASS, "ONEZONE_IA"),
        ({}, ENCRYPTION, "aws:kms:dsse"),
        ({}, ENCRYPTION, None),
        ({}, KEY_ID, KMS_KEY),
        (INFREQUENT, CLASS, "STANDARD"),
        (INFREQUENT, CLASS, None),
        (OWN_KEY, CLASS, None),
        (OWN_KEY, ENCRYPTION, "AES256"),
        (OWN_KEY, ENCRYPTION, None),
        (OWN_KEY, KEY_ID, f"{KMS_KEY[:-1]}2"),
        (OWN_KEY, KEY_ID, None),
    ],
)
async def test_how_an_object_is_stored_is_not_for_the_browser_to_say(
    place: Place, wanted: dict[str, str], field: str, text: str | None
) -> None:
    form = await place.signer.post(put(**wanted), least=1, most=1000, expires_at=soon())
    assert (await place.post(form, PDF, **{field: text})).status_code == 403
    assert await place.objects.versions(KEY) == ()


async def test_every_form_and_address_dies_when_it_says(place: Place) -> None:
    version = await place.put()
    upload = await place.objects.begin_multipart(put())
    past = now() - timedelta(hours=1)
    form = await place.signer.post(put(), least=1, most=1000, expires_at=past)
    assert form.expires_at <= soon(1)
    part = await place.signer.part(KEY, upload, PartWanted(1, 5), expires_at=past)
    link = await place.signer.download(KEY, version, content_type="a/b", disposition="inline", expires_at=past)
    await asyncio.sleep(1.5)  # the shortest life of a signature is a second
    assert (await place.post(form, PDF)).status_code == 403
    assert (await place.browser.put(part.url, content=b"12345", headers=dict(part.headers))).status_code == 403
    assert (await place.browser.get(link.url)).status_code == 403
    assert await place.objects.parts(KEY, upload) == []


async def test_addresses_die_with_the_credentials_that_signed_them(place: Place) -> None:
    end = soon(1)

    async def ending() -> datetime | None:
        return end

    signer = S3Signer(place.s3, place.bucket, now, ending)
    assert (await signer.post(put(), least=1, most=10, expires_at=soon(60))).expires_at <= end
    part = await signer.part(KEY, "u", PartWanted(1, 5), expires_at=soon(60))
    assert part.expires_at <= end


async def test_an_upload_in_parts(place: Place) -> None:
    upload = await place.objects.begin_multipart(put())
    data = [os.urandom(5 * MIB), b"the end"]
    assert await place.objects.parts(KEY, upload) == []
    for number, each in enumerate(data, 1):
        address = await place.signer.part(KEY, upload, PartWanted(number, len(each)), expires_at=soon())
        longer = await place.browser.put(address.url, content=each + b"x", headers=dict(address.headers))
        assert longer.status_code == 403
        answer = await place.browser.put(address.url, content=each, headers=dict(address.headers))
        assert answer.status_code == 200
    parts = await place.objects.parts(KEY, upload)
    assert parts is not None
    assert [(each.number, each.size) for each in parts] == [(1, 5 * MIB), (2, 7)]
    with pytest.raises(PermanentError, match="parts"):
        await place.objects.complete_multipart(KEY, upload, [Part(1, '"0"', 1)])
    assert await place.objects.complete_multipart(KEY, upload, parts)
    (stored,) = await place.objects.versions(KEY)
    found = await place.objects.inspect(KEY, stored.version_id, sniff=True, checksum="whole")
    assert found is not None
    assert (found.size, found.file_id) == (5 * MIB + 7, FILE)
    assert found.checksum == base64.b64encode(hashlib.sha256(b"".join(data)).digest()).decode()
    assert await place.objects.parts(KEY, upload) is None


async def test_parts_with_checksums_are_held_to_them_one_by_one_and_together(place: Place) -> None:
    data = [os.urandom(5 * MIB), b"the end"]
    digests = [hashlib.sha256(each).digest() for each in data]
    checksums = [base64.b64encode(each).decode() for each in digests]
    whole = f"{base64.b64encode(hashlib.sha256(b''.join(digests)).digest()).decode()}-2"
    upload = await place.objects.begin_multipart(put(checksum=whole))
    for number, (each, checksum) in enumerate(zip(data, checksums, strict=True), 1):
        address = await place.signer.part(KEY, upload, PartWanted(number, len(each), checksum), expires_at=soon())
        other = bytes([each[0] ^ 1]) + each[1:]
        assert (await place.browser.put(address.url, content=other, headers=dict(address.headers))).status_code == 400
        assert (await place.browser.put(address.url, content=each)).status_code in (400, 403), "the checksum is signed"
        assert (await place.browser.put(address.url, content=each, headers=dict(address.headers))).status_code == 200
    parts = await place.objects.parts(KEY, upload)
    assert parts is not None
    assert [each.checksum for each in parts] == checksums
    assert await place.objects.complete_multipart(KEY, upload, parts)
    (stored,) = await place.objects.versions(KEY)
    found = await place.objects.inspect(KEY, stored.version_id, sniff=True, checksum="parts")
    assert found is not None
    assert found.checksum == whole
    read = await place.objects.inspect(KEY, stored.version_id, sniff=True, checksum="whole")
    assert read is not None
    assert read.checksum == base64.b64encode(hashlib.sha256(b"".join(data)).digest()).decode()


CSV = b"name;amount\r\n" + b"Ann;100\r\n" * 5000
PACKED = gzip.compress(CSV, mtime=0)


def packed(**changes: Any) -> Put:
    return put(content_type="text/csv", content_encoding="gzip", **changes)


async def test_a_form_for_a_stream_takes_it_as_one_and_nothing_else(place: Place) -> None:
    checksum = base64.b64encode(hashlib.sha256(PACKED).digest()).decode()
    form = await place.signer.post(packed(checksum=checksum), least=1, most=len(PACKED), expires_at=soon())
    for encoding in ("", "br"):
        assert (await place.post(form, PACKED, **{"Content-Encoding": encoding})).status_code in (400, 403)
    assert (await place.post(form, PACKED)).status_code == 204
    (stored,) = await place.objects.versions(KEY)
    found = await place.objects.inspect(KEY, stored.version_id, sniff=True, checksum="whole")
    assert found is not None
    assert (found.size, found.checksum, found.content_encoding) == (len(PACKED), checksum, "gzip"), "as it is stored"
    assert found.sniffed is not None
    assert (found.sniffed.is_text, found.sniffed.told_size) == (True, len(CSV)), "as it was"
    link = await place.signer.download(
        KEY, stored.version_id, content_type="text/csv", disposition="attachment", expires_at=soon()
    )
    answer = await place.browser.get(link.url)
    assert (answer.headers["content-encoding"], answer.content) == ("gzip", CSV), "browsers decode by themselves"
    async with place.browser.stream("GET", link.url) as raw:
        assert b"".join([each async for each in raw.aiter_raw()]) == PACKED


async def test_a_stream_in_parts_is_stored_as_one(place: Place) -> None:
    stream = gzip.compress(os.urandom(5 * MIB), 1, mtime=0)
    upload = await place.objects.begin_multipart(packed())
    for number, each in enumerate((stream[: 5 * MIB], stream[5 * MIB :]), 1):
        address = await place.signer.part(KEY, upload, PartWanted(number, len(each)), expires_at=soon())
        assert (await place.browser.put(address.url, content=each, headers=dict(address.headers))).status_code == 200
    assert await place.objects.complete_multipart(KEY, upload, await place.objects.parts(KEY, upload) or [])
    (stored,) = await place.objects.versions(KEY)
    found = await place.objects.inspect(KEY, stored.version_id, sniff=True, checksum=None)
    assert found is not None
    assert found.sniffed is not None
    assert (found.content_encoding, found.sniffed.told_size) == ("gzip", 5 * MIB)


@pytest.mark.parametrize("data", [b"no stream", b"x", PACKED[:-200] + b"", b"\x1f\x8b" + b"\0" * 30])
async def test_what_is_said_to_be_a_stream_and_is_none_is_seen(place: Place, data: bytes) -> None:
    version = await place.put(data, ContentEncoding="gzip")
    found = await place.objects.inspect(KEY, version, sniff=True, checksum=None)
    assert found is not None
    assert found.content_encoding == "gzip"
    assert found.sniffed is not None
    assert found.sniffed.told_size != len(CSV)


async def test_a_stream_whose_contents_begin_late_is_read_on(place: Place) -> None:
    for how in ({"extra": 65_535}, {"name": 300_000}, {"empty_members": 20_000}):
        version = await place.put(gzip_stream(PDF.ljust(20_000), **how), ContentEncoding="gzip")
        for checksum in (None, "whole"):
            found = await place.objects.inspect(KEY, version, sniff=True, checksum=checksum)
            assert found is not None
            assert found.sniffed is not None
            assert (found.sniffed.types, found.sniffed.told_size) == (frozenset({"application/pdf"}), 20_000)
    version = await place.put(gzip_stream(CSV, name=1 << 20), ContentEncoding="gzip")
    found = await place.objects.inspect(KEY, version, sniff=True, checksum=None)
    assert found is not None
    assert found.sniffed == Sniffed()


async def test_an_encoding_that_nobody_knows_is_looked_into_no_further(place: Place) -> None:
    version = await place.put(PDF, ContentEncoding="br")
    found = await place.objects.inspect(KEY, version, sniff=True, checksum=None)
    assert found is not None
    assert (found.content_encoding, found.sniffed) == ("br", Sniffed())


async def test_an_upload_in_parts_that_is_given_up(place: Place) -> None:
    upload = await place.objects.begin_multipart(put())
    for _ in range(2):
        await place.objects.abort_multipart(KEY, upload)
    assert await place.objects.parts(KEY, upload) is None
    assert not await place.objects.complete_multipart(KEY, upload, [Part(1, '"0"', 1)])


async def test_uploads_in_parts_are_listed_by_prefix_to_the_end(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, other = f"document/2026/11/{FILE}/", f"document/2026/11/{FILE[:-1]}f/"
    begun = [(key, await place.objects.begin_multipart(put(key=key))) for key in [KEY] * 3 + [f"{folder}b"] * 2]
    strange = (f"{other}a", await place.objects.begin_multipart(put(key=f"{other}a")))
    ask = place.s3.list_multipart_uploads

    async def two_at_a_time(**options: Any) -> Any:
        return await ask(**options, MaxUploads=2)

    monkeypatch.setattr(place.s3, "list_multipart_uploads", two_at_a_time)
    found = [each async for each in place.objects.multiparts(folder)]
    assert sorted((each.key, each.upload_id) for each in found) == sorted(begun)
    for each in found:
        assert abs(now() - each.begun_at) < timedelta(minutes=5)
        await place.objects.abort_multipart(each.key, each.upload_id)
    assert [each async for each in place.objects.multiparts(folder)] == []
    assert [(each.key, each.upload_id) async for each in place.objects.multiparts()] == [strange]


async def test_a_creation_without_an_answer_leaves_uploads_that_end_with_the_file(place: Place) -> None:
    """With the client's own repetitions, and the caller's under another nonce."""
    async with running(AwsFaultProxy(place.port)) as proxy, s3_client(place.account(proxy.url)) as s3:
        proxy.faults["s3"] = "unanswered"
        with pytest.raises(Unavailable):
            await S3Objects(s3, place.bucket).begin_multipart(put(key=f"{KEY}1st"))
    upload = await place.objects.begin_multipart(put())
    begun = [each async for each in place.objects.multiparts(folder_of(KEY))]
    assert sorted(each.key for each in begun) == [KEY, *[f"{KEY}1st"] * 3]
    clock = FakeClock(T0)
    streams = FileStreams(MemoryEventStore(clock=clock), clock, FakeIds(), Policy(), lambda _: None)
    files = Files(streams, place.objects, clock, Metrics(), NoCheckpoints())
    asked = requested(bucket=place.bucket, method="multipart", upload_id=upload)
    await files.request(FILE, asked, actor=None)
    held = await files.look(FILE, lambda seen: Remove(seen, "user"))
    assert held.file.phase == "failed"
    assert [each async for each in place.objects.multiparts(folder_of(KEY))] == []


async def test_a_download_names_exactly_one_version(place: Place) -> None:
    version = await place.put()
    other = await place.put(b"swapped")
    link = await place.signer.download(
        KEY, version, content_type="application/pdf", disposition='attachment; filename="a.pdf"', expires_at=soon()
    )
    answer = await place.browser.get(link.url)
    assert (answer.status_code, answer.content) == (200, PDF)
    assert "response-content-disposition=attachment" in link.url
    swapped = await place.browser.get(link.url.replace(version, other))
    assert swapped.status_code == 403


async def test_a_bucket_without_versions_is_refused_with_the_command_that_mends_it(place: Place) -> None:
    await place.objects.check()
    plain = f"plain-{uuid4().hex[:12]}"
    await place.s3.create_bucket(Bucket=plain)
    with pytest.raises(SettingsError, match=f"put-bucket-versioning --bucket {plain}"):
        await S3Objects(place.s3, plain).check()
    await place.s3.put_bucket_versioning(Bucket=place.bucket, VersioningConfiguration={"Status": "Suspended"})
    with pytest.raises(SettingsError, match=f"put-bucket-versioning --bucket {place.bucket}"):
        await place.objects.check()


async def test_a_store_that_is_away_is_unavailable() -> None:
    account = AwsAccount(REGION, "test", "test", endpoint_url="http://127.0.0.1:1")
    async with s3_client(account) as s3:
        objects = S3Objects(s3, "any")
        with pytest.raises(Unavailable):
            await objects.versions(KEY)
        with pytest.raises(Unavailable):
            await objects.check()
