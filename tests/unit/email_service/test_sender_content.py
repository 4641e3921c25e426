"""A mail whose content cannot be had waits by itself: nothing is recorded for it, and no other mail waits with it."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import timedelta

import pytest

from services.email.domain.content import MessageContent, StoredFile
from services.email.entrypoints import sender_content
from services.email.ports import NewContent
from services.kit import metrics as m
from services.kit.errors import PermanentError
from services.kit.rate import Grant, RateBudget
from services.kit.testing import captured_logs
from tests.unit.email_service.fakes import MemoryContents, Post, until

LARGE = MessageContent(html="x" * MemoryContents.LARGE)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A late mail is tried again after 0.3 s."""
    monkeypatch.setattr(sender_content, "SHORTEST_WAIT", 0.3)


async def all_sent(post: Post, message_ids: list[str], seconds: float = 60.0) -> None:
    async def there() -> bool:
        return set(await post.phases(message_ids)) == {"Sent"}

    await until(there, seconds)


async def test_one_waits_and_all_others_are_sent_urgent_ones_too() -> None:
    post = Post()
    post.contents.large_away = True
    late = [*await post.queue(1, LARGE), *await post.queue(1, LARGE, priority="urgent")]
    sender = post.sender()
    with captured_logs() as captured:
        await sender.start()
        small = await post.queue(50)
        urgent = await post.queue(5, priority="urgent")
        await all_sent(post, [*small, *urgent])
        await asyncio.sleep(1.0)
        assert sender.health().ready, "the provider and the other mails are fine"
        assert sender.health().detail["circuits"] == {}
        assert [await post.types(each) for each in late] == [["requested"]] * 2
        assert 2 <= len([key for key in post.contents.reads if key.message_id in late]) <= 12, "tried in a hot loop"
        post.contents.large_away = False
        await all_sent(post, late)
    await sender.stop(3.0)
    assert sorted(m for m, _ in post.provider.accepted) == sorted([*late, *small, *urgent])
    waits = captured.named("mail waits for its content")
    assert 1 <= len(waits) <= 2


async def test_of_those_that_are_loaded_together_only_one_without_content_waits() -> None:
    post = Post()
    post.contents.large_away = True
    late, good = *await post.queue(1, LARGE), *await post.queue(1)
    works, unready = await post.loaded(late, good)
    assert [work for waiting in unready.later.values() for work in waiting] == [works[late]]
    assert unready.never == {}
    assert works[late].mail is None
    assert works[good].mail is not None


async def test_a_mail_waits_for_an_attachment_and_costs_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    post = Post()
    data = b"x" * (MemoryContents.LARGE + 1)
    ref = f"attachment:{hashlib.sha256(data).hexdigest()}"
    stored = StoredFile(filename="a.bin", content_type="application/x", size=len(data), ref=ref)
    (message_id,) = await post.queue(1, MessageContent(text="see attached", attachments=(stored,)))
    await post.contents.put_many([NewContent(message_id, "notification", "attachment", data)])
    post.contents.large_away = True
    taken: list[int] = []
    take = RateBudget.take

    async def counted(budget: RateBudget, account: str, wanted: int, *, urgent: bool = False) -> Grant:
        taken.append(wanted)
        return await take(budget, account, wanted, urgent=urgent)

    monkeypatch.setattr(RateBudget, "take", counted)
    sender = post.sender()
    await sender.start()

    async def read_twice() -> bool:
        return sum(key.ref == ref for key in post.contents.reads) >= 2

    await until(read_twice)
    assert (taken, await post.types(message_id)) == ([], ["requested"])
    assert post.metrics.value(m.CONTENT_WAITS) >= 1
    post.contents.large_away = False
    await all_sent(post, [message_id])
    await sender.stop(3.0)
    assert post.provider.calls[0].mail.files[0][2] == data


async def test_the_store_says_when_to_come_again_and_an_expired_mail_still_ends() -> None:
    post = Post()
    post.contents.large_away, post.contents.retry_after = True, 1.0
    (late,) = await post.queue(1, LARGE, expires_at=post.clock.now() + timedelta(seconds=0.5))
    sender = post.sender()
    await sender.start()
    await asyncio.sleep(0.8)
    assert len(post.contents.reads) == 1

    async def failed() -> bool:
        return await post.phases([late]) == ["Failed"]

    await until(failed, 3.0)
    await sender.stop(3.0)
    assert post.provider.calls == []


async def test_a_store_that_refuses_for_good_ends_no_loop() -> None:
    post = Post()
    post.contents.broken = PermanentError("awsRefused", "S3 answered AccessDenied")
    message_ids = [*await post.queue(3), *await post.queue(3, priority="urgent")]
    sender = post.sender()
    await sender.start()
    await asyncio.sleep(0.5)
    assert sender.health().died is None
    assert not sender.health().ready
    assert {tuple(await post.types(each)) for each in message_ids} == {("requested",)}
    post.contents.broken = None
    await all_sent(post, message_ids)
    await sender.stop(3.0)
