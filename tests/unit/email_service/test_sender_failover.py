"""Several providers: mail goes on through another one after a definite no, and never after silence."""

from __future__ import annotations

from dataclasses import replace

import pytest

from contracts.email.events import EmailSendRejected
from services.email.domain.capabilities import Capabilities
from services.email.domain.circuit import FIRST_PAUSE
from services.email.domain.outcomes import Rejected, Unknown
from services.email.domain.routing import Wishes
from services.email.ports import OutgoingAttempt
from tests.unit.email_service.fakes import Answer, FakeProvider, Post, are, running, until
from tests.unit.email_service.mail import REFUSED, SUSPENDED, THROTTLED

UNREACHABLE = Rejected("connectionFailed", "refused", "unreachable")


def two(first: Answer | None = None) -> Post:
    """A post with `ses`, which gives that answer to everything, and `mailgun`, which takes all."""
    post = Post()

    async def answers(attempt: OutgoingAttempt) -> Answer:
        return post.provider.take(attempt) if first is None else first

    post.provider = FakeProvider(answers)
    post.others = [FakeProvider(name="mailgun")]
    return post


@pytest.mark.parametrize("refusal", [SUSPENDED, UNREACHABLE, THROTTLED], ids=["account", "unreachable", "throttle"])
async def test_after_a_definite_refusal_another_provider_takes_it_at_once(
    refusal: Rejected, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FIRST_PAUSE, refusal.kind, 3600.0)
    post = two(refusal)
    message_ids = await post.queue(20)
    async with running(post):
        await are(post, message_ids, "Sent")
    assert len(post.others[0].accepted) == 20
    first = {attempt.mail.message_id: attempt for attempt in post.provider.calls}
    assert 1 <= len(first) <= 20
    for message_id in first:
        tried = await post.attempts(message_id)
        assert [(each.provider, each.reason) for each in tried] == [("ses", "pinned"), ("mailgun", "failover")]
        events = (await post.streams.load(message_id)).stream.events
        (rejected,) = [each.data for each in events if isinstance(each.data, EmailSendRejected)]
        assert rejected.next == "failover"
        assert tried[1].considered is not None
        assert [each.provider for each in tried[1].considered] == ["ses", "mailgun"]
        assert "refuses everything" in tried[1].considered[0].why


async def test_after_silence_nobody_else_is_asked() -> None:
    post = two(Unknown("no answer"))
    message_ids = await post.queue(5)
    async with running(post):
        await are(post, message_ids, "OutcomeUnknown")
    assert post.others[0].calls == []
    assert len(post.provider.calls) == 5


async def test_a_refused_mail_is_not_offered_to_others_and_does_not_count_against_the_provider() -> None:
    post = two(REFUSED)
    message_ids = await post.queue(10)
    async with running(post) as sender:
        await are(post, message_ids, "Failed")
        assert not sender.providers.circuits["ses"].is_open
    assert post.others[0].calls == []


async def test_a_mail_that_the_primary_cannot_carry_goes_where_it_can() -> None:
    post = two()
    post.provider.capabilities = Capabilities("mime", -1)
    (message_id,) = await post.queue(1)
    async with running(post):
        await are(post, [message_id], "Sent")
    assert post.provider.calls == []
    (tried,) = await post.attempts(message_id)
    assert tried.considered is not None
    assert [each.why for each in tried.considered] == ["0 bytes, of -1, are too many", "chosen: the first in order"]


async def test_when_one_s_rate_is_used_up_others_carry_on() -> None:
    post = two()
    post.provider.rate = 1.0
    message_ids = await post.queue(40)
    async with running(post):
        await are(post, message_ids, "Sent")
    assert len(post.others[0].accepted) >= 20
    assert len(post.others[0].accepted) + len(post.provider.accepted) == 40


async def test_pinned_mail_waits_for_its_provider_and_other_mail_goes_past_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FIRST_PAUSE, "account", 0.2)
    refusing = True
    post = two()

    async def refuses(attempt: OutgoingAttempt) -> Answer:
        return SUSPENDED if refusing else post.provider.take(attempt)

    post.provider.behaviour = refuses
    pinned = await post.queue(5, category="marketing", list_id="news")
    others = await post.queue(30)
    async with running(post, Wishes({"marketing": "ses"})):
        await are(post, others, "Sent")
        assert set(await post.phases(pinned)) <= {"Queued", "Open"}
        refusing = False
        await are(post, pinned, "Sent")
    assert {message_id for message_id, _ in post.provider.accepted} >= set(pinned)
    assert not {message_id for message_id, _ in post.others[0].accepted} & set(pinned)


async def test_pinned_to_one_that_cannot_carry_it_a_mail_fails_and_says_so() -> None:
    post = two()
    post.provider.capabilities = Capabilities("mime", -1)
    (message_id,) = await post.queue(1)
    async with running(post, Wishes({"notification": "ses"})):
        await are(post, [message_id], "Failed")
    assert post.provider.calls == post.others[0].calls == []


async def test_one_that_is_switched_off_gets_nothing_and_gets_mail_again_when_it_is_on() -> None:
    post = two()
    first = await post.queue(5)
    async with running(post) as sender:
        sender.providers.switched_off = {"ses": "switched off by ops: account review"}
        await are(post, first, "Sent")
        before = len(post.provider.calls)
        second = await post.queue(5)
        await are(post, second, "Sent")
        assert len(post.provider.calls) == before
        sender.providers.switched_off = {}
        third = await post.queue(5)
        await are(post, third, "Sent")
        assert len(post.provider.calls) > before


async def test_who_has_no_mail_is_ready_once_the_pause_is_over() -> None:
    """While it lasts, nothing goes through. Then it may, and whoever has a mail finds out."""
    post = Post()
    async with running(post) as sender:
        circuit = sender.providers.circuits["ses"]
        circuit.shared = True
        circuit.shut(3600.0, "AccountSuspendedException", post.clock.monotonic())

        async def is_not_ready() -> bool:
            return not sender.health().ready

        async def is_ready() -> bool:
            return sender.health().ready

        await until(is_not_ready)
        circuit.shut(0.0, "AccountSuspendedException", post.clock.monotonic())
        await until(is_ready)
        assert circuit.is_open


async def test_one_provider_alone_keeps_no_record_of_choices() -> None:
    post = Post()
    (message_id,) = await post.queue(1)
    async with running(post):
        await are(post, [message_id], "Sent")
    (tried,) = await post.attempts(message_id)
    assert (tried.reason, tried.considered) == ("cheapest", None)


async def test_between_providers_that_all_throttle_the_budget_still_ends_it() -> None:
    post = two(THROTTLED)

    async def throttles(attempt: OutgoingAttempt) -> Answer:
        return THROTTLED

    post.others[0].behaviour = throttles
    post.streams.policy = replace(post.streams.policy, attempts_limit=4)
    (message_id,) = await post.queue(1)
    async with running(post):
        await are(post, [message_id], "Failed")
    assert len(await post.attempts(message_id)) == 4
