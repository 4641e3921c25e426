"""Mail with files by `fileId` on the real components: what `files.events` says decides, S3 gives that very version."""

from __future__ import annotations

import email
import email.policy
import gzip
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from contracts.base import EventData
from contracts.email.events import EmailFailed
from contracts.files.events import FileDeleted, FileRestored, FileScanSettled, FileUploadFailed
from deploy.local.simulator.faults import Fault
from services.email.adapters.file_bytes import S3FileBytes
from services.email.adapters.known_files import MongoKnownFiles
from services.email.domain.files import KnownFile, Usable, evolve
from services.kit import metrics as m
from services.kit.aws import s3_client
from services.kit.clock import SystemClock
from services.kit.errors import Unavailable
from services.kit.parking import ParkedFilter
from tests.integration.email.conftest import Running, until
from tests.unit.email_service.files import BUCKET, key_of, record, upload, uploaded

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass
class Files:
    """Stands where the files service stands: puts objects into a versioned bucket and publishes decisions."""

    mail: Running
    s3: Any
    bucket: str
    versions: dict[str, int] = field(default_factory=dict)

    async def put(self, file_id: str, data: bytes, **how: str) -> str:
        """Store an object under the file's key; the id of the version that came of it."""
        answer = await self.s3.put_object(Bucket=self.bucket, Key=key_of(file_id), Body=data, **how)
        version: str = answer["VersionId"]
        return version

    async def says(self, file_id: str, *decisions: EventData) -> None:
        """Publish what was decided next."""
        for data in decisions:
            self.versions[file_id] = self.versions.get(file_id, 0) + 1
            await self.publish(file_id, data, self.versions[file_id])

    async def publish(self, file_id: str, data: EventData, version: int | None) -> None:
        made = record(data, version, file_id=file_id)
        await self.mail.producer.send_and_wait(made.topic, made.value, made.key)

    async def known(self, file_id: str, version: int) -> None:
        """Wait until that much was heard."""

        async def heard() -> bool:
            return (await self.mail.email.files.load_many([file_id]))[file_id].version >= version

        await until(heard)


@pytest_asyncio.fixture(loop_scope="module")
async def files(mail: Running) -> AsyncIterator[Files]:
    bucket = f"{BUCKET}-{uuid4().hex[:8]}"
    async with s3_client(mail.email.settings.account) as s3:
        await s3.create_bucket(Bucket=bucket)
        await s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        yield Files(mail, s3, bucket)


def address() -> str:
    return f"success+{uuid4().hex[:12]}@simulator.amazonses.com"


async def received(mail: Running, message_id: str) -> EmailMessage:
    """What the provider got."""
    (accepted,) = await mail.accepted(message_id)
    raw = await mail.simulator.raw(accepted["providerMessageId"])
    parsed = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(parsed, EmailMessage)
    return parsed


async def why_failed(mail: Running, message_id: str) -> set[tuple[str, str | None]]:
    events = (await mail.email.store.load(message_id)).events
    return {(e.data.reason, e.data.detail) for e in events if isinstance(e.data, EmailFailed)}


async def test_a_mail_waits_for_its_file_and_carries_the_version_that_was_verified(files: Files) -> None:
    mail, file_id = files.mail, str(uuid4())
    message_id = await mail.send(address(), attachments=[{"fileId": file_id}])
    await mail.ends(message_id, "Queued")
    other = await mail.send(address())
    await mail.ends(other, "Sent")
    await files.says(file_id, upload(file_id, bucket=files.bucket, scan_needed=True))
    data = b"%PDF-1.7 the one that was looked at " * 1000
    version = await files.put(file_id, data)
    await files.says(file_id, uploaded(len(data), version))
    await files.put(file_id, b"MZ something else, put there after it was looked at")
    await files.known(file_id, 2)
    waits = mail.email.metrics.value(m.FILE_WAITS)

    async def looked() -> bool:
        return mail.email.metrics.value(m.FILE_WAITS) > waits + 1

    await until(looked)
    assert await mail.types(message_id) == ["requested"], "its scan is not over"
    await files.says(file_id, FileScanSettled(version_id=version, result="clean"))
    await mail.ends(message_id, "Sent")
    (part,) = (await received(mail, message_id)).iter_attachments()
    assert part.get_filename() == "Vertrag „2026“.pdf"
    assert part.get_content_type() == "application/pdf"
    assert part.get_content() == data
    stream = "".join((await mail.email.store.load(message_id)).wire)
    assert "the one that was looked at" not in stream


async def test_a_file_that_is_stored_compressed_is_attached_as_it_was(files: Files) -> None:
    data = b"name;amount\r\n" + b"Ann;100\r\n" * 5000
    packed = gzip.compress(data, mtime=0)
    sent: dict[str, str] = {}
    for said in (len(data), len(data) - 1):
        file_id = str(uuid4())
        version = await files.put(file_id, packed, ContentEncoding="gzip")
        verified = uploaded(len(packed), version).model_copy(
            update={"content_encoding": "gzip", "original_size": said, "content_type": "text/csv"}
        )
        await files.says(file_id, upload(file_id, bucket=files.bucket, content_type="text/csv"), verified)
        await files.known(file_id, 2)
        sent[file_id] = await files.mail.send(address(), attachments=[{"fileId": file_id}])
    (good, one), (lie, other) = sent.items()
    await files.mail.ends(one, "Sent")
    (part,) = (await received(files.mail, one)).iter_attachments()
    assert part.get_payload(decode=True) == data, good
    await files.mail.ends(other, "Failed")
    detail = f"the file {lie} cannot be attached: its bytes are not there any more, or are not what was declared"
    assert await why_failed(files.mail, other) == {("invalid", detail)}


async def test_over_http_anothers_file_is_none_and_ones_own_is_sent(files: Files) -> None:
    mail, mine, yours = files.mail, str(uuid4()), str(uuid4())
    for file_id, owner in ((mine, "u1"), (yours, "u2")):
        version = await files.put(file_id, b"%PDF")
        await files.says(file_id, upload(file_id, bucket=files.bucket, user_id=owner), uploaded(4, version))
        await files.known(file_id, 2)
    sent: dict[str, str] = {}
    for file_id in (mine, yours):
        body = {
            "to": address(), "subject": "Hi", "textContent": "see attached", "category": "notification",
            "attachments": [{"fileId": file_id}],
        }  # fmt: skip
        answer = await mail.http.post("/api/email", json=body, headers={"Authorization": f"Bearer {mail.token()}"})
        assert answer.status_code == 202, answer.text
        sent[file_id] = answer.json()["data"]["messageId"]
    await mail.ends(sent[mine], "Sent")
    await mail.ends(sent[yours], "Failed")
    detail = f"the file {yours} cannot be attached: there is no such file"
    assert await why_failed(mail, sent[yours]) == {("invalid", detail)}
    assert len(list((await received(mail, sent[mine])).iter_attachments())) == 1
    wrong = await mail.http.post(
        "/api/email", json=body | {"attachments": [{"fileId": "x"}, {"fileId": mine, "filename": "y"}]},
        headers={"Authorization": f"Bearer {mail.token()}"},
    )  # fmt: skip
    assert wrong.status_code == 400
    assert {each["field"] for each in wrong.json()["details"]} == {"attachments[0].fileId", "attachments[1].filename"}


async def test_deleted_restored_and_gone(files: Files) -> None:
    mail, file_id = files.mail, str(uuid4())
    version = await files.put(file_id, b"%PDF")
    deleted = FileDeleted(version_id=version, recoverable=True, reason="user")
    await files.says(file_id, upload(file_id, bucket=files.bucket), uploaded(4, version), deleted)
    await files.known(file_id, 3)
    refused = await mail.send(address(), attachments=[{"fileId": file_id}])
    await mail.ends(refused, "Failed")
    await files.says(file_id, FileRestored(version_id=version))
    await files.known(file_id, 4)
    await files.publish(file_id, deleted, 3)  # an old record comes once more
    await files.publish(file_id, upload(file_id, bucket=files.bucket), 1)
    again = await mail.send(address(), attachments=[{"fileId": file_id}])
    await mail.ends(again, "Sent")
    await files.s3.delete_object(Bucket=files.bucket, Key=key_of(file_id), VersionId=version)
    gone = await mail.send(address(), attachments=[{"fileId": file_id}])
    await mail.ends(gone, "Failed")
    detail = f"the file {file_id} cannot be attached: its bytes are not there any more, or are not what was declared"
    assert await why_failed(mail, gone) == {("invalid", detail)}


@pytest.mark.parametrize(
    ("last", "why"),
    [
        (FileUploadFailed(reason="typeMismatch"), "its upload failed"),
        (FileScanSettled(version_id="v", result="infected"), "it is infected"),
        (FileScanSettled(version_id="v", result="error"), "its malware scan failed, and it has to be clean"),
        (
            FileScanSettled(version_id="v", result="unsupported"),
            "it cannot be scanned for malware, and has to be",
        ),
    ],
)
async def test_what_is_not_right_is_not_sent_and_the_reason_is_told(files: Files, last: EventData, why: str) -> None:
    mail, file_id = files.mail, str(uuid4())
    version = await files.put(file_id, b"%PDF")
    came = [] if isinstance(last, FileUploadFailed) else [uploaded(4, version)]
    await files.says(file_id, upload(file_id, bucket=files.bucket, scan_needed=True), *came, last)
    await files.known(file_id, 2 + len(came))
    message_id = await mail.send(address(), address(), attachments=[{"fileId": file_id}])
    await mail.ends(message_id, "Failed", "Failed")
    assert await why_failed(mail, message_id) == {("invalid", f"the file {file_id} cannot be attached: {why}")}
    assert await mail.types(message_id) == ["requested", "failed", "failed"]


async def test_a_file_that_is_deleted_between_two_attempts_is_not_sent(files: Files) -> None:
    mail, file_id, to = files.mail, str(uuid4()), address()
    version = await files.put(file_id, b"%PDF")
    await files.says(file_id, upload(file_id, bucket=files.bucket), uploaded(4, version))
    await files.known(file_id, 2)
    # Refused as often as it takes until the file is known to be deleted: only the look at it ends the mail.
    await mail.simulator.faults(Fault(kind="throttle", match=re.escape(to)))
    message_id = await mail.send(to, attachments=[{"fileId": file_id}])

    async def attempted() -> bool:
        return "sendRejected" in await mail.types(message_id)

    await until(attempted)
    await files.says(file_id, FileDeleted(version_id=version, recoverable=True, reason="user"))
    await files.known(file_id, 3)
    await mail.simulator.faults()
    await mail.ends(message_id, "Failed")
    detail = f"the file {file_id} cannot be attached: it was deleted"
    assert await why_failed(mail, message_id) == {("invalid", detail)}
    assert await mail.accepted(message_id) == []


async def test_a_record_that_cannot_be_read_is_parked_and_the_next_is_heard(files: Files) -> None:
    mail, file_id = files.mail, str(uuid4())
    await mail.producer.send_and_wait("files.events", b"\xff\xfe", file_id.encode())
    await files.says(file_id, upload(file_id, bucket=files.bucket))
    await files.known(file_id, 1)

    async def parked() -> bool:
        page = await mail.email.parking.list(ParkedFilter(consumer="email-files"))
        return [each.reason for each in page.records] == ["notJson"]

    await until(parked)
    assert "email-files" in mail.email.handlers


async def test_of_two_writers_one_wins_and_the_other_folds_again(mail: Running) -> None:
    known, file_id = MongoKnownFiles(mail.email.database), str(uuid4())
    nothing = KnownFile(file_id)
    first, second = evolve(nothing, upload(file_id), 1), evolve(nothing, uploaded(), 2)
    assert await known.save_many([(nothing, first)]) == set()
    assert await known.save_many([(nothing, second)]) == {file_id}
    found = (await known.load_many([file_id]))[file_id]
    assert found == first
    both = evolve(found, uploaded(), 2)
    renamed = evolve(both, upload(file_id), 3)
    other = str(uuid4())
    assert (
        await known.save_many([(found, both), (KnownFile(other), evolve(KnownFile(other), upload(other), 1))]) == set()
    )
    assert await known.save_many([(found, renamed)]) == {file_id}
    assert (await known.load_many([file_id, other]))[file_id] == both
    assert await known.load_many([]) == {}


async def test_bytes_are_those_of_one_version_and_of_its_size_or_none(files: Files) -> None:
    file_id = str(uuid4())
    reader = S3FileBytes(files.s3, SystemClock())
    version = await files.put(file_id, b"first")
    await files.put(file_id, b"second")

    def usable(**changes: Any) -> Usable:
        fields = {"bucket": files.bucket, "key": key_of(file_id), "version_id": version, "size": 5}
        return Usable(file_id=file_id, content_type="a/b", name="n", **{**fields, **changes})

    assert await reader.read_many([usable()]) == {file_id: b"first"}
    assert await reader.read_many([usable(size=6)]) == {}
    assert await reader.read_many([usable(content_encoding="gzip", original_size=5)]) == {}, "it is no stream"
    assert await reader.read_many([usable(version_id="nothing-like-it")]) == {}
    assert await reader.read_many([usable(key="document/none")]) == {}
    refused = await reader.read_many([usable(bucket="a-bucket-that-nobody-made")])
    assert isinstance(refused[file_id], Unavailable)
    assert await reader.read_many([usable()]) == {file_id: b"first"}
