"""Mail with files by `fileId`: waits for them, carries exactly the verified version, and looks before each attempt."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest

from contracts.email.events import EmailFailed
from contracts.files.events import FileDeleted, FileScanSettled, FileUploadFailed
from services.email.domain.content import MessageContent, StoredFile
from services.email.domain.message import Policy
from services.email.domain.outcomes import Accepted
from services.email.entrypoints import sender_content, sender_files
from services.email.entrypoints.sender_work import Limits
from services.email.ports import NewContent, OutgoingAttempt
from services.kit import metrics as m
from tests.unit.email_service.fakes import Answer, Post, until
from tests.unit.email_service.files import BUCKET, FILE, OTHER, key_of, upload, uploaded
from tests.unit.email_service.mail import THROTTLED

DELETED = FileDeleted(version_id="v1", recoverable=True, reason="user")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mail that waits is looked at again after 0.1 s."""
    monkeypatch.setattr(sender_files, "WAITS", (0.1, 0.2))
    monkeypatch.setattr(sender_content, "SHORTEST_WAIT", 0.1)


def by_id(*file_ids: str) -> MessageContent:
    """A mail with these attachments."""
    return MessageContent(
        text="see attached",
        attachments=tuple(
            StoredFile(filename=each, content_type="application/octet-stream", size=0, file_id=each)
            for each in file_ids
        ),
    )


def there(post: Post, file_id: str = FILE, data: bytes = b"%PDF", **request: Any) -> None:
    """A file that is uploaded and right."""
    post.files.hear(file_id, upload(file_id, **request), uploaded(len(data)))
    post.file_bytes.stored[(BUCKET, key_of(file_id), "v1")] = data


async def ends(post: Post, message_ids: Sequence[str], phase: str, seconds: float = 60.0) -> None:
    async def there() -> bool:
        return set(await post.phases(message_ids)) == {phase}

    await until(there, seconds)


async def why_failed(post: Post, message_id: str) -> set[tuple[str, str | None]]:
    events = (await post.store.load(message_id)).events
    return {(e.data.reason, e.data.detail) for e in events if isinstance(e.data, EmailFailed)}


async def test_the_file_goes_under_its_own_name_and_type_in_its_place() -> None:
    post = Post()
    there(post)
    inline = StoredFile(filename="a.txt", content_type="text/plain", size=1, content=b"a")
    body = by_id(FILE)
    (message_id,) = await post.queue(1, body.model_copy(update={"attachments": (*body.attachments, inline)}))
    sender = post.sender()
    await sender.start()
    await ends(post, [message_id], "Sent")
    await sender.stop(3.0)
    assert post.provider.calls[0].mail.files == (
        ("Vertrag „2026“.pdf", "application/pdf", b"%PDF"),
        ("a.txt", "text/plain", b"a"),
    )


async def test_a_mail_waits_for_its_file_and_no_other_mail_waits_with_it() -> None:
    post = Post()
    unknown, uploading = await post.queue(1, by_id(FILE)), await post.queue(1, by_id(OTHER), priority="urgent")
    post.files.hear(OTHER, upload(OTHER, scan_needed=True))
    waiting = [*unknown, *uploading]
    sender = post.sender()
    await sender.start()
    others = [*await post.queue(20), *await post.queue(5, priority="urgent")]
    await ends(post, others, "Sent")
    await asyncio.sleep(0.5)
    assert [await post.types(each) for each in waiting] == [["requested"]] * 2
    assert 2 <= post.files.looks.count(FILE) <= 12, "looked at in a hot loop"
    assert post.metrics.value(m.FILE_WAITS) >= 4
    assert sender.health().ready
    there(post)
    await ends(post, unknown, "Sent")
    post.files.hear(OTHER, uploaded())
    post.file_bytes.stored[(BUCKET, key_of(OTHER), "v1")] = b"%PDF"
    await asyncio.sleep(0.5)
    assert await post.types(uploading[0]) == ["requested"], "its scan is not over"
    post.files.hear(OTHER, FileScanSettled(version_id="v1", result="clean"))
    await ends(post, uploading, "Sent")
    await sender.stop(3.0)


async def test_of_those_that_are_loaded_together_only_one_whose_file_is_not_ready_waits() -> None:
    post = Post()
    late, good = *await post.queue(1, by_id(FILE)), *await post.queue(1)
    works, unready = await post.loaded(late, good)
    assert [work for waiting in unready.later.values() for work in waiting] == [works[late]]
    assert unready.never == {}
    assert works[late].mail is None
    assert works[good].mail is not None


async def test_after_two_minutes_everybody_fails_with_the_reason() -> None:
    post = Post(policy=Policy(files_within=timedelta(seconds=1)))
    post.files.hear(OTHER, upload(OTHER))
    (unknown,) = await post.queue(1, by_id(FILE), to=["a@example.com", "b@example.com"])
    (uploading,) = await post.queue(1, by_id(OTHER))
    begun = asyncio.get_running_loop().time()
    sender = post.sender()
    await sender.start()
    await ends(post, [unknown, uploading], "Failed")
    assert 0.9 <= asyncio.get_running_loop().time() - begun <= 2.0
    await sender.stop(3.0)
    assert await post.types(unknown) == ["requested", "failed", "failed"]
    assert await why_failed(post, unknown) == {
        ("invalid", f"the file {FILE} cannot be attached: there is no such file")
    }
    assert await why_failed(post, uploading) == {
        ("invalid", f"the file {OTHER} cannot be attached: its upload is not over")
    }
    assert post.provider.calls == []


async def test_the_time_counts_from_send_at_and_no_restart_begins_it_anew() -> None:
    post = Post(policy=Policy(files_within=timedelta(seconds=1)))
    (now,) = await post.queue(1, by_id(FILE))
    (later,) = await post.queue(1, by_id(FILE), send_at=post.clock.now() + timedelta(seconds=1.5))
    first = post.sender(limits=Limits(lease=timedelta(seconds=0.2)))
    await first.start()
    await asyncio.sleep(0.7)
    await first.stop(2.0)
    second = post.sender()
    await second.start()
    await ends(post, [now], "Failed", seconds=1.5)
    assert await post.phases([later]) == ["Queued"]
    await asyncio.sleep(1.0)
    there(post)
    await ends(post, [later], "Sent")
    await second.stop(3.0)


@pytest.mark.parametrize(
    ("stream", "why"),
    [
        ([upload(), FileUploadFailed(reason="expired")], "its upload failed"),
        ([upload(), uploaded(), DELETED], "it was deleted"),
        ([upload(), uploaded(), FileScanSettled(version_id="v1", result="infected"), DELETED], "it is infected"),
        ([upload(user_id="u2"), uploaded()], "there is no such file"),
        (
            [upload(original_name="Rechnung.pdf.exe"), uploaded()],
            "mail servers refuse files of its type: send a link to it, or an archive",
        ),
        (
            [upload(), uploaded().model_copy(update={"content_type": "application/x-msdownload"})],
            "mail servers refuse files of its type: send a link to it, or an archive",
        ),
        ([upload(), uploaded()], "its bytes are not there any more, or are not what was declared"),
    ],
)
async def test_what_can_never_be_used_fails_at_once(stream: list[Any], why: str) -> None:
    post = Post()
    post.files.hear(FILE, *stream)
    (message_id,) = await post.queue(1, by_id(FILE), actor="user:u1")
    sender = post.sender()
    await sender.start()
    await ends(post, [message_id], "Failed", seconds=2.0)
    await sender.stop(3.0)
    assert await why_failed(post, message_id) == {("invalid", f"the file {FILE} cannot be attached: {why}")}
    assert post.provider.calls == []


async def test_a_service_may_attach_anybodys_file() -> None:
    post = Post()
    there(post, user_id="u2")
    (message_id,) = await post.queue(1, by_id(FILE), actor="service:crm")
    sender = post.sender()
    await sender.start()
    await ends(post, [message_id], "Sent")
    await sender.stop(3.0)


async def test_too_much_is_not_even_read() -> None:
    post = Post()
    there(post, data=b"x" * 60)
    there(post, OTHER, b"y" * 41)
    inline = StoredFile(filename="a.txt", content_type="text/plain", size=40, content=b"a" * 40)
    one, two = by_id(FILE), by_id(FILE, OTHER)
    (fits,) = await post.queue(1, one.model_copy(update={"attachments": (*one.attachments, inline)}))
    (too_large,) = await post.queue(1, two)
    sender = post.sender(limits=Limits(attachment_bytes=100))
    await sender.start()
    await ends(post, [fits], "Sent")
    await ends(post, [too_large], "Failed")
    await sender.stop(3.0)
    ((reason, detail),) = await why_failed(post, too_large)
    assert reason == "invalid"
    assert detail == "the attachments have 101 bytes together; at most 100 are sent"
    assert post.file_bytes.reads == [FILE]


async def test_a_file_deleted_between_two_attempts_is_not_sent() -> None:
    post = Post(policy=Policy(first_backoff=timedelta(seconds=0.1)))
    there(post)

    async def refuse_once(attempt: OutgoingAttempt) -> Answer:
        post.files.hear(FILE, DELETED)
        return THROTTLED

    post.provider.behaviour = refuse_once
    (message_id,) = await post.queue(1, by_id(FILE))
    sender = post.sender()
    await sender.start()
    await ends(post, [message_id], "Failed")
    await sender.stop(3.0)
    assert len(post.provider.calls) == 1
    assert await post.types(message_id) == ["requested", "sendAttempted", "sendRejected", "failed"]


async def test_a_file_deleted_between_two_waves_reaches_nobody_more() -> None:
    """The second wave's mail was made for the first: its file is looked up all the same."""
    post = Post()
    there(post)

    async def delete(attempt: OutgoingAttempt) -> Accepted:
        if post.files.known[FILE].status == "completed":
            post.files.hear(FILE, DELETED)
        return post.provider.take(attempt)

    post.provider.behaviour = delete
    (message_id,) = await post.queue(1, by_id(FILE), to=[f"{n}@example.com" for n in range(15)])
    sender = post.sender()
    await sender.start()

    async def over() -> bool:
        return "Queued" not in await post.phases([message_id]) and "Open" not in await post.phases([message_id])

    await until(over)
    await sender.stop(3.0)
    phases = await post.phases([message_id])
    assert (phases.count("Sent"), phases.count("Failed")) == (10, 5)
    assert len(post.file_bytes.reads) == 1


async def test_bytes_that_cannot_be_had_now_are_waited_for_as_long_as_the_mail_lives() -> None:
    post = Post(policy=Policy(files_within=timedelta(seconds=0.2)))
    there(post)
    post.file_bytes.away = True
    (message_id,) = await post.queue(1, by_id(FILE))
    others = await post.queue(10)
    sender = post.sender()
    await sender.start()
    await ends(post, others, "Sent")
    await asyncio.sleep(0.6)
    assert await post.types(message_id) == ["requested"]
    assert post.metrics.value(m.CONTENT_WAITS) >= 2
    post.file_bytes.away = False
    await ends(post, [message_id], "Sent")
    await sender.stop(3.0)


async def test_nothing_is_sent_while_files_cannot_be_looked_up() -> None:
    post = Post()
    there(post)
    post.files.away = True
    (message_id,) = await post.queue(1, by_id(FILE))
    sender = post.sender()
    await sender.start()
    await asyncio.sleep(0.5)
    assert await post.types(message_id) == ["requested"]
    post.files.away = False
    await ends(post, [message_id], "Sent")
    await sender.stop(3.0)


async def test_an_expired_mail_ends_as_expired_while_it_waits() -> None:
    post = Post()
    expires: datetime = post.clock.now() + timedelta(seconds=0.5)
    (message_id,) = await post.queue(1, by_id(FILE), expires_at=expires)
    await post.contents.put_many([NewContent(message_id, "notification", "attachment", b"")])
    sender = post.sender()
    await sender.start()
    await ends(post, [message_id], "Failed")
    await sender.stop(3.0)
    assert await why_failed(post, message_id) == {("expired", None)}
