"""Mail of an unknown outcome is sent once more through another provider where its category asked for that."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest

from contracts.email.events import EmailFailed
from services.email.domain.circuit import FIRST_PAUSE
from services.email.domain.message import Policy
from services.email.domain.outcomes import Unknown
from services.email.domain.routing import Wishes
from services.email.entrypoints import sender_plan
from services.email.entrypoints.sender_work import Limits
from services.email.ports import OutgoingAttempt
from services.kit import metrics as m
from tests.unit.email_service.fakes import Answer, CrashAt, FakeProvider, Post, are, running, until
from tests.unit.email_service.mail import SUSPENDED
from tests.unit.email_service.test_sender_crashes import POINTS, die

RESENDING = Policy(
    call_window=timedelta(seconds=0.6),
    resend=frozenset({"auth"}),
    resend_after=timedelta(seconds=0.1),
    unknown_after_auth=timedelta(seconds=60),
)
LIMITS = Limits(licence=0.25, call=0.25, lease=timedelta(seconds=0.3))


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender_plan, "RESEND_SECONDS", 0.1)
    for kind in FIRST_PAUSE:
        monkeypatch.setitem(FIRST_PAUSE, kind, 3600.0)


def silent_first(policy: Policy = RESENDING, *, taken: bool = False) -> Post:
    """A post with `ses`, which never answers and takes the mail or not, and `mailgun`, which takes all."""
    post = Post(policy=policy)

    async def says_nothing(attempt: OutgoingAttempt) -> Answer:
        if taken:
            post.provider.take(attempt)
        return Unknown("no answer")

    post.provider = FakeProvider(says_nothing)
    post.others = [FakeProvider(name="mailgun")]
    return post


async def send(post: Post, count: int, phase: str, wishes: Wishes | None = None, category: str = "auth") -> list[str]:
    message_ids = await post.queue(count, category=category)
    async with running(post, wishes, limits=LIMITS):
        await are(post, message_ids, phase)
    return message_ids


@pytest.mark.parametrize("taken", [False, True])
async def test_another_provider_gets_it_once_and_the_record_says_why(taken: bool) -> None:
    post = silent_first(taken=taken)
    post.streams._metrics = post.metrics
    message_ids = await send(post, 6, "Sent")
    assert sorted(message_id for message_id, _ in post.others[0].accepted) == sorted(message_ids)
    tried = await post.attempts(message_ids[0])
    assert [(each.provider, each.reason) for each in tried] == [("ses", "pinned"), ("mailgun", "resend")]
    assert tried[1].considered is not None
    assert tried[1].considered[0].why == "the outcome of an attempt with it is unknown"
    assert post.metrics.value(m.RESENDS, provider="mailgun") == 6


async def test_mail_of_another_category_is_held() -> None:
    post = silent_first()
    await send(post, 3, "OutcomeUnknown", category="notification")
    assert post.others[0].calls == []


async def test_no_third_provider_is_asked_where_the_second_is_silent_too() -> None:
    post = silent_first(replace(RESENDING, unknown_after_auth=timedelta(seconds=3)))

    async def says_nothing(attempt: OutgoingAttempt) -> Answer:
        return Unknown("no answer")

    post.others = [FakeProvider(says_nothing, name="mailgun"), FakeProvider(name="sendgrid")]
    message_ids = await send(post, 4, "Failed")
    assert len(post.others[0].calls) == 4
    assert post.others[1].calls == []
    await _failed_as_unknown(post, message_ids)


async def test_what_the_second_provider_refuses_the_third_may_have() -> None:
    post = silent_first()

    async def refuses(attempt: OutgoingAttempt) -> Answer:
        return SUSPENDED

    post.others = [FakeProvider(refuses, name="mailgun"), FakeProvider(name="sendgrid")]
    message_ids = await send(post, 4, "Sent")
    assert Counter(message_id for message_id, _ in post.others[1].accepted) == Counter(message_ids)
    assert {each.reason for name in message_ids for each in (await post.attempts(name))[1:]} == {"resend"}


async def test_where_no_other_provider_may_have_it_it_ends_as_unknown() -> None:
    """Pinned to the one that is silent, suppressed meanwhile, or its content gone: it is not failed for that."""
    for case in ("pinned", "suppressed", "no content"):
        post = silent_first(replace(RESENDING, unknown_after_auth=timedelta(seconds=2)))
        wishes = Wishes({"auth": "ses"}) if case == "pinned" else None

        async def says_nothing(attempt: OutgoingAttempt, post: Post = post, case: str = case) -> Answer:
            if case == "suppressed":
                post.suppressions.reasons[attempt.recipient] = "hardBounce"
            elif case == "no content":
                await post.contents.delete_messages([attempt.mail.message_id])
            return Unknown("no answer")

        post.provider.behaviour = says_nothing
        message_ids = (
            await _over_two_lives(post, wishes) if case == "no content" else await send(post, 2, "Failed", wishes)
        )
        assert post.others[0].calls == [], case
        await _failed_as_unknown(post, message_ids)


async def _over_two_lives(post: Post, wishes: Wishes | None) -> list[str]:
    """Sent by one process, and left to another one, which has to read the content anew."""
    message_ids = await send(post, 2, "OutcomeUnknown", wishes)
    async with running(post, limits=LIMITS):
        await are(post, message_ids, "Failed")
    return message_ids


@pytest.mark.parametrize("nth", [1, 3])
@pytest.mark.parametrize("point", POINTS)
async def test_a_crash_makes_no_third_mail(point: str, nth: int) -> None:
    post = silent_first(taken=True)
    message_ids = await post.queue(8, category="auth")
    crashes = [CrashAt(point, nth), CrashAt(point, nth + 2)]
    for crash in crashes:
        sender = post.sender(limits=LIMITS, checkpoints=crash)
        await sender.start()

        async def crashed(crash: CrashAt = crash) -> bool:
            return crash.crashed or set(await post.phases(message_ids)) == {"Sent"}

        await until(crashed)
        await die(sender)
    last = post.sender(limits=LIMITS)
    await last.start()

    async def ended() -> bool:
        """No attempt is open, and nobody waits for one."""
        phases = set(await post.phases(message_ids))
        done = [await _is_over(post, message_id) for message_id in message_ids]
        return phases <= {"Sent", "OutcomeUnknown"} and all(done)

    await until(ended)
    await last.stop(3)
    for provider in (post.provider, post.others[0]):
        assert max(Counter(provider.accepted).values(), default=0) <= 1
    for message_id in message_ids:
        reasons = [each.reason for each in await post.attempts(message_id)]
        assert post.others[0].accepted.count((message_id, "a@example.com")) <= reasons.count("resend")


async def _is_over(post: Post, message_id: str) -> bool:
    held = await post.streams.load(message_id)
    soon = post.clock.now() + timedelta(seconds=30)
    due = post.streams.index(held.state).due_at
    return due is None or due > soon


async def _failed_as_unknown(post: Post, message_ids: list[str]) -> None:
    for message_id in message_ids:
        events = (await post.streams.load(message_id)).stream.events
        assert [each.data.reason for each in events if isinstance(each.data, EmailFailed)] == ["outcomeUnknown"]


async def test_stopping_between_the_two_leaves_the_second_to_the_next_process() -> None:
    post = silent_first()
    message_ids = await send(post, 3, "OutcomeUnknown")
    async with running(post, limits=LIMITS):
        await are(post, message_ids, "Sent")
    assert len(post.others[0].accepted) == 3
