"""The sender on stores in memory: what is due goes out once, in waves, within its limits, and waits when it must."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from contracts.email.events import EmailSendRejected
from services.email.domain.circuit import FIRST_PAUSE
from services.email.domain.outcomes import Rejected, Unknown
from services.email.entrypoints.sender import Sender
from services.email.entrypoints.sender_work import Limits
from services.email.ports import OutgoingAttempt
from services.kit.rate import burst
from tests.unit.email_service.fakes import Answer, FakeProvider, Post, until
from tests.unit.email_service.mail import THROTTLED


@asynccontextmanager
async def running(sender: Sender, timeout: float = 5.0) -> AsyncIterator[Sender]:
    await sender.start()
    try:
        yield sender
    finally:
        await sender.stop(timeout)


async def all_in(post: Post, message_ids: list[str], phase: str, seconds: float = 60.0) -> None:
    async def there() -> bool:
        return set(await post.phases(message_ids)) == {phase}

    await until(there, seconds)


async def test_what_is_due_is_sent_once_and_written_down() -> None:
    post = Post()
    message_ids = await post.queue(50)
    async with running(post.sender()) as sender:
        await all_in(post, message_ids, "Sent")
        assert sender.health().ready
    assert sorted(m for m, _ in post.provider.accepted) == sorted(message_ids)
    assert await post.types(message_ids[0]) == ["requested", "sendAttempted", "sent"]
    stream = await post.store.load(message_ids[0])
    assert (stream.index.due_at, stream.leased_by) == (None, None)
    assert stream.index.lookup[0].startswith("ses:ses-")
    assert post.published[message_ids[0]].version == 3


async def test_recipients_go_in_waves_of_ten_with_one_append_each_way() -> None:
    post = Post()
    (message_id,) = await post.queue(to=[f"r{n}@example.com" for n in range(25)])
    async with running(post.sender()):
        await all_in(post, [message_id], "Sent")
    types = await post.types(message_id)
    assert types == ["requested"] + (["sendAttempted"] * 10 + ["sent"] * 10) * 2 + ["sendAttempted"] * 5 + ["sent"] * 5


async def test_no_more_attempts_are_open_than_there_are_places() -> None:
    post = Post()

    async def slow(attempt: OutgoingAttempt) -> Answer:
        await asyncio.sleep(0.02)
        return post.provider.take(attempt)

    post.provider = FakeProvider(slow)
    message_ids = await post.queue(40)
    async with running(post.sender(limits=Limits(concurrency=7))):
        await all_in(post, message_ids, "Sent")
    assert post.provider.most_open <= 7


async def test_silence_is_recorded_and_never_repeated() -> None:
    post = Post()

    async def silent(attempt: OutgoingAttempt) -> Answer:
        post.provider.take(attempt)
        return Unknown("connection lost")

    post.provider = FakeProvider(silent)
    message_ids = await post.queue(3)
    async with running(post.sender()):
        await all_in(post, message_ids, "OutcomeUnknown")
        await asyncio.sleep(0.2)
    assert len(post.provider.calls) == 3


async def test_a_call_beyond_its_time_limit_is_unknown() -> None:
    post = Post()

    async def hangs(attempt: OutgoingAttempt) -> Answer:
        await asyncio.sleep(30)
        return post.provider.take(attempt)

    post.provider = FakeProvider(hangs)
    message_ids = await post.queue(1)
    async with running(post.sender(limits=Limits(call=0.1))):
        await all_in(post, message_ids, "OutcomeUnknown")


async def test_a_cancellation_that_leaks_out_of_a_library_costs_one_outcome_and_no_worker() -> None:
    post = Post()
    leaks = 2

    async def leaky(attempt: OutgoingAttempt) -> Answer:
        nonlocal leaks
        if leaks:
            leaks -= 1
            raise asyncio.CancelledError
        return post.provider.take(attempt)

    post.provider = FakeProvider(leaky)
    async with running(post.sender(limits=Limits(concurrency=1))):
        first = await post.queue(2)
        await all_in(post, first, "OutcomeUnknown")
        later = await post.queue(3)
        await all_in(post, later, "Sent")


async def test_an_adapter_that_raises_leaves_an_unknown_outcome() -> None:
    post = Post()

    async def broken(attempt: OutgoingAttempt) -> Answer:
        raise RuntimeError("bug")

    post.provider = FakeProvider(broken)
    message_ids = await post.queue(1)
    async with running(post.sender()):
        await all_in(post, message_ids, "OutcomeUnknown")


async def test_throttling_pauses_the_provider_and_then_all_is_sent() -> None:
    post = Post()
    refused = 0

    async def throttles(attempt: OutgoingAttempt) -> Answer:
        nonlocal refused
        if refused < 2:
            refused += 1
            return THROTTLED
        return post.provider.take(attempt)

    post.provider = FakeProvider(throttles)
    message_ids = await post.queue(20)
    async with running(post.sender()):
        await all_in(post, message_ids, "Sent")
    assert len(post.provider.accepted) == 20


async def test_an_answer_that_nobody_knows_burns_no_backlog() -> None:
    """A refusal in no list, of every mail: all of it waits, two mails paid a throttle, and all is sent in the end."""
    post = Post()
    refusing = True

    async def refuses(attempt: OutgoingAttempt) -> Answer:
        return Rejected("RequestExpired", "", "throttle", unlisted=True) if refusing else post.provider.take(attempt)

    post.provider = FakeProvider(refuses)
    message_ids = await post.queue(60)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FIRST_PAUSE, "account", 0.3)
        async with running(post.sender()) as sender:

            async def opened() -> bool:
                return "ses" in str(sender.health().detail["circuits"])

            await until(opened, 60)
            refusing = False
            await all_in(post, message_ids, "Sent", 60)
    kinds = [
        event.data.refusal
        for message_id in message_ids
        for event in (await post.store.load(message_id)).events
        if isinstance(event.data, EmailSendRejected)
    ]
    assert kinds.count("throttle") == 2
    assert "mail" not in kinds


async def test_a_suspended_account_stops_everything_and_spends_no_budget() -> None:
    post = Post()
    suspended = Rejected("AccountSuspendedException", "suspended", "account")

    async def refuses(attempt: OutgoingAttempt) -> Answer:
        return suspended

    post.provider = FakeProvider(refuses)
    message_ids = await post.queue(60)
    async with running(post.sender()) as sender:
        await until(_called(post))
        await asyncio.sleep(0.3)
        assert sender.health().detail["circuits"] == {"ses": "AccountSuspendedException"}
        assert sender.health().live
    assert len(post.provider.calls) <= Limits().concurrency
    found = await post.streams.load_many(message_ids)
    for held in found.values():
        (delivery,) = held.message.deliveries.values()  # type: ignore[union-attr]
        assert (type(delivery).__name__, delivery.spent) == ("Queued", 0)


async def test_the_suppressed_fail_and_the_others_are_sent() -> None:
    post = Post()
    post.suppressions.reasons["b@example.com"] = "complaint"
    (message_id,) = await post.queue(to=["a@example.com", "b@example.com"])
    async with running(post.sender()):
        await until(_ended(post, message_id))
    assert sorted(await post.phases([message_id])) == ["Failed", "Sent"]
    assert [recipient for _, recipient in post.provider.accepted] == ["a@example.com"]


async def test_nothing_is_sent_while_suppressions_cannot_be_read() -> None:
    post = Post()
    post.suppressions.away = True
    message_ids = await post.queue(5)
    async with running(post.sender()) as sender:
        await asyncio.sleep(0.3)
        assert post.provider.calls == []
        assert not sender.health().ready
        assert await post.types(message_ids[0]) == ["requested"]
        post.suppressions.away = False
        await all_in(post, message_ids, "Sent")


async def test_a_mail_whose_content_is_gone_fails() -> None:
    post = Post()
    message_ids = await post.queue(2)
    await post.contents.delete_messages(message_ids[:1])
    async with running(post.sender()):
        await until(_ended(post, *message_ids))
    assert await post.phases(message_ids) == ["Failed", "Sent"]


async def test_auth_content_is_deleted_when_all_is_over() -> None:
    post = Post()
    message_ids = await post.queue(2, category="auth")
    kept = await post.queue(1)
    async with running(post.sender()):
        await all_in(post, [*message_ids, *kept], "Sent")

        async def forgotten() -> bool:
            return {key.message_id for key in post.contents.kept} == set(kept)

        await until(forgotten)


async def test_send_at_is_waited_for_and_what_expired_is_not_sent() -> None:
    post = Post()
    now = post.clock.now()
    (later,) = await post.queue(send_at=now + timedelta(seconds=0.5))
    (never,) = await post.queue(expires_at=now - timedelta(seconds=1))
    async with running(post.sender()):
        await until(_ended(post, never))
        assert await post.phases([later, never]) == ["Queued", "Failed"]
        await all_in(post, [later], "Sent")
    assert [m for m, _ in post.provider.accepted] == [later]


async def test_rate_tokens_are_had_before_an_attempt_is_recorded() -> None:
    post = Post()
    post.provider.rate = 20.0
    began = post.clock.monotonic()
    message_ids = await post.queue(40)

    async def attempted() -> int:
        types = [await post.types(message_id) for message_id in message_ids]
        return sum("sendAttempted" in each for each in types)

    async def ten() -> bool:
        return await attempted() >= 10

    async with running(post.sender()):
        await until(ten)
        recorded = await attempted()
        assert recorded <= 20 * (post.clock.monotonic() - began) + burst(20)
        assert 0 < len(post.provider.calls) <= recorded  # some of those recorded may not be called yet


async def test_urgent_mail_passes_a_campaign() -> None:
    post = Post()
    post.provider.rate = 50.0
    await post.queue(200, priority="low")

    async def begun() -> bool:
        return len(post.provider.accepted) >= 20

    async with running(post.sender()):
        await until(begun)
        (urgent,) = await post.queue(priority="urgent")
        before = len(post.provider.accepted)
        await all_in(post, [urgent], "Sent")
        at = [message_id for message_id, _ in post.provider.accepted].index(urgent)
    assert at - before < 100, "it waited for the campaign, of which 180 were left"


async def test_two_senders_share_the_work_and_double_nothing() -> None:
    post = Post()

    async def slow(attempt: OutgoingAttempt) -> Answer:
        await asyncio.sleep(0.01)
        return post.provider.take(attempt)

    post.provider = FakeProvider(slow)
    message_ids = await post.queue(150)
    async with running(post.sender()), running(post.sender()):
        await all_in(post, message_ids, "Sent")
    assert len(post.provider.accepted) == 150


# --- lost answers of the store -----------------------------------------------------------------------------------


@pytest.mark.parametrize("switch", ["lose_answers", "lose_appends"])
async def test_appends_without_answer_lose_and_double_nothing(switch: str) -> None:
    post = Post()
    message_ids = await post.queue(30)
    setattr(post.store, switch, 20)
    async with running(post.sender()):
        await all_in(post, message_ids, "Sent")
    assert sorted(m for m, _ in post.provider.accepted) == sorted(message_ids)


async def test_a_store_that_is_away_for_a_while_stops_and_loses_nothing() -> None:
    post = Post()

    async def takes(attempt: OutgoingAttempt) -> Answer:
        await asyncio.sleep(0.005)
        if len(post.provider.accepted) == 10:
            post.store.away = True
        return post.provider.take(attempt)

    post.provider = FakeProvider(takes)
    message_ids = await post.queue(60)
    async with running(post.sender()):
        await asyncio.sleep(0.5)
        assert len(post.provider.accepted) <= 10 + 32
        post.store.away = False
        await all_in(post, message_ids, "Sent")
    assert len(post.provider.accepted) == 60


# --- stopping ----------------------------------------------------------------------------------------------------


async def test_stopping_waits_for_open_calls_and_gives_the_rest_back() -> None:
    post = Post()

    async def slow(attempt: OutgoingAttempt) -> Answer:
        await asyncio.sleep(0.3)
        return post.provider.take(attempt)

    post.provider = FakeProvider(slow)
    message_ids = await post.queue(100)
    sender = post.sender()
    await sender.start()
    await until(_called(post))
    await sender.stop(5.0)
    phases = await post.phases(message_ids)
    assert set(phases) == {"Sent", "Queued"}
    assert phases.count("Sent") == len(post.provider.accepted)
    leased = [(await post.store.load(message_id)).leased_by for message_id in message_ids]
    assert leased == [None] * 100


async def test_stopping_cuts_off_calls_that_take_too_long_as_unknown() -> None:
    post = Post()

    async def hangs(attempt: OutgoingAttempt) -> Answer:
        await asyncio.sleep(60)
        return post.provider.take(attempt)

    post.provider = FakeProvider(hangs)
    message_ids = await post.queue(3)
    sender = post.sender()
    await sender.start()
    await until(_called(post))
    began = asyncio.get_running_loop().time()
    await sender.stop(3.0)
    assert asyncio.get_running_loop().time() - began < 3.5
    assert await post.phases(message_ids) == ["OutcomeUnknown"] * 3


def _called(post: Post) -> Any:
    async def called() -> bool:
        return bool(post.provider.calls)

    return called


def _ended(post: Post, *message_ids: str) -> Any:
    async def ended() -> bool:
        return set(await post.phases(message_ids)) <= {"Sent", "Failed"}

    return ended
