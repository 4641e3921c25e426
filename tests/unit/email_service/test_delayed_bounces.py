"""A bounce that names an address alone: it counts for the one attempt that it can be about, or for none."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.email.adapters import sendgrid_notifications
from services.email.adapters.sendgrid_notifications import SendGridNotifications
from services.email.domain.commands import PlanAttempts, PlannedAttempt, RecordOutcome, SettleByOperator
from services.email.domain.delayed_bounces import (
    MOST_STREAMS,
    WINDOWS,
    Candidate,
    DelayedBounce,
    lookup_value,
    lookup_values,
    the_one,
    within_window,
)
from services.email.domain.message import UNKNOWN_OUTCOME
from services.email.domain.outcomes import Accepted, Rejected, Unknown
from services.email.domain.unsubscribe import UnsubscribeTokens
from services.email.entrypoints.translator import Translator
from services.email.handlers import MailedUnsubscribes, StreamLookup
from services.kit.errors import PermanentError, TransientError
from services.kit.event_store.port import Stream
from services.kit.facts import TranslatorCounts
from services.kit.kafka.records import DONE, Outcome, Park, Record, Retry
from services.kit.metrics import Metrics
from services.kit.testing import FakeClock
from services.kit.testing.publisher import MemoryPublisher
from tests.unit.email_service.fakes import Post
from tests.unit.email_service.mail import COST
from tests.unit.email_service.sendgrid_examples import delayed_bounce, event

START = datetime(2026, 11, 24, 12, 0, 0, 400_000, UTC)
WINDOW = WINDOWS["sendgrid"]
JANE = "Jane@example.com"
YES, NO, SILENCE = Accepted("call-1", 900, COST), Rejected("400", "no", "mail"), Unknown("lost")


class World:
    """Streams in memory, and a translator that looks into them."""

    def __init__(self) -> None:
        self.clock = FakeClock(START)
        self.post = Post(clock=self.clock)
        self.publisher = MemoryPublisher()
        self.translate = Translator(
            {"sendgrid": SendGridNotifications()},
            self.publisher,
            StreamLookup(self.post.streams),
            MailedUnsubscribes(self.post.streams, self.post.keys, UnsubscribeTokens(b"t" * 32)),
            TranslatorCounts(Metrics(), "sendgrid"),
        )

    async def attempted(
        self, outcome: Any = YES, *, provider: str = "sendgrid", to: str = JANE, attempt_id: str = "t1"
    ) -> str:
        """A mail, attempted now."""
        (message_id,) = await self.post.queue(to=[to])
        await self.post.do(message_id, PlanAttempts([PlannedAttempt(to, attempt_id, provider, "cheapest")]))
        if outcome is not None:
            await self.post.do(message_id, RecordOutcome(attempt_id, outcome))
        return message_id

    async def hear(self, **changes: Any) -> Outcome:
        """A delayed bounce of this moment."""
        bounce = {**delayed_bounce(""), "timestamp": int(self.clock.now().timestamp()), **changes}
        return await self.hear_again(json.dumps(bounce).encode())

    async def hear_again(self, value: bytes) -> Outcome:
        record = Record("email.notifications", 0, 1, 0, None, value, (("source", b"sendgrid"),))
        (outcome,) = await self.translate([record])
        return outcome

    @property
    def about(self) -> list[tuple[str, str, str, str]]:
        """Message, attempt, recipient and address as reported, of each fact."""
        facts = [json.loads(item.value) for item in self.publisher.published]
        return [
            (f["subject"], f["data"]["attemptId"], f["data"]["recipient"], f["data"].get("reportedAddress", ""))
            for f in facts
        ]


def detail(outcome: Outcome) -> str:
    assert isinstance(outcome, Park)
    assert (outcome.reason, outcome.kind) == ("uncorrelated", "uncorrelated")
    return outcome.detail


async def test_the_one_mail_that_sendgrid_accepted_for_the_address_has_bounced() -> None:
    world = World()
    message_id = await world.attempted()
    world.clock.move(3 * 86_400)
    assert await world.hear() == DONE
    assert world.about == [(message_id, "t1", JANE, JANE.lower())]


async def test_of_two_mails_nobody_can_tell_which_has_bounced() -> None:
    world = World()
    one = await world.attempted()
    world.clock.move(3600)
    other = await world.attempted()
    world.clock.move(3600)
    said = detail(await world.hear())
    assert "2 attempts" in said
    assert one in said
    assert other in said
    assert JANE.lower() not in said.lower(), "an address is nothing for a log"
    assert world.about == []


async def test_two_mails_that_two_weeks_of_the_calendar_hold_are_two() -> None:
    world = World()
    await world.attempted()
    world.clock.move(5 * 86_400)  # from a Tuesday to a Sunday
    await world.attempted()
    world.clock.move(86_400)
    assert "2 attempts" in detail(await world.hear())


async def test_mail_before_the_window_and_after_the_bounce_is_not_meant() -> None:
    world = World()
    await world.attempted()
    world.clock.move(WINDOW.total_seconds() + 1)
    meant = await world.attempted()
    at = int(world.clock.now().timestamp())
    world.clock.move(60)
    await world.attempted()
    assert await world.hear(timestamp=at) == DONE
    assert [each[0] for each in world.about] == [meant]


async def test_a_bounce_that_was_parked_is_not_taken_for_one_of_a_younger_mail() -> None:
    world = World()
    at = int(world.clock.now().timestamp())
    detail(await world.hear(timestamp=at))
    world.clock.move(600)
    await world.attempted()
    detail(await world.hear(timestamp=at))
    assert world.about == []


@pytest.mark.parametrize("others", [{"provider": "ses"}, {"to": "john@example.com"}, {"outcome": NO}])
async def test_mail_by_others_to_others_and_refused_is_not_meant(others: dict[str, Any]) -> None:
    world = World()
    await world.attempted(**others)
    assert "no attempt" in detail(await world.hear())
    meant = await world.attempted()
    assert await world.hear() == DONE
    assert [each[0] for each in world.about] == [meant]


@pytest.mark.parametrize("outcome", [SILENCE, None])
async def test_an_attempt_without_answer_may_be_meant_and_proves_nothing(outcome: Any) -> None:
    world = World()
    message_id = await world.attempted(outcome)
    assert "has no answer" in detail(await world.hear())
    await world.attempted()
    assert "2 attempts" in detail(await world.hear())
    assert world.about == []
    assert (await world.post.types(message_id))[-1] in ("sendOutcomeUnknown", "sendAttempted"), "it is not settled"


async def test_what_was_parked_is_taken_up_once_the_other_attempt_is_known_not_to_have_gone() -> None:
    world = World()
    lost = await world.attempted(SILENCE, attempt_id="t0")
    meant = await world.attempted()
    value = json.dumps({**delayed_bounce(None), "timestamp": int(world.clock.now().timestamp())}).encode()
    detail(await world.hear_again(value))
    world.clock.move(60)
    await world.post.do(lost, SettleByOperator("t0", "notAccepted", "looked it up", "admin:ops"))
    assert await world.hear_again(value) == DONE
    assert [each[0] for each in world.about] == [meant]
    await world.attempted()
    assert await world.hear_again(value) == DONE
    first, again = (json.loads(item.value) for item in world.publisher.published)
    assert first == again, "a younger mail changes nothing about what was said"


async def test_only_the_recipient_of_several_whose_address_it_is() -> None:
    world = World()
    (message_id,) = await world.post.queue(to=[JANE, "john@example.com"])
    plans = [
        PlannedAttempt(address, attempt_id, "sendgrid", "cheapest")
        for address, attempt_id in ((JANE, "t1"), ("john@example.com", "t2"))
    ]
    await world.post.do(message_id, PlanAttempts(plans))
    await world.post.do(message_id, RecordOutcome("t1", YES), RecordOutcome("t2", Accepted("call-2", 900, COST)))
    assert await world.hear(email="John@Example.com") == DONE
    assert world.about == [(message_id, "t2", "john@example.com", "John@Example.com")]


async def test_so_many_mails_in_a_week_are_not_all_read() -> None:
    world = World()
    for _ in range(MOST_STREAMS):
        await world.attempted(NO, attempt_id="t0")
    assert "no attempt" in detail(await world.hear()), "what was refused is not found"
    for _ in range(MOST_STREAMS):
        await world.attempted()
    assert f"at least {MOST_STREAMS} mails" in detail(await world.hear())


async def test_a_stream_that_cannot_be_read_keeps_it_from_being_certain() -> None:
    world = World()
    message_id = await world.attempted()
    stream = await world.post.store.load(message_id)
    strange = Stream(world.post.ids.new(), 1, ('{"type": "email.requested", "dataversion": 99}',), 0, stream.index)
    world.post.store._kept[strange.stream_id] = type(world.post.store._kept[message_id])(strange, None)
    assert "cannot be read" in detail(await world.hear())


async def test_it_waits_while_nobody_can_be_asked() -> None:
    world = World()
    await world.attempted()
    world.post.store.away = True
    assert isinstance(await world.hear(), Retry)


@pytest.mark.parametrize("changes", [{"email": "nobody"}, {"email": "@"}, {"email": None}, {"event": "dropped"}])
async def test_what_names_no_address_or_is_no_bounce_is_parked(changes: dict[str, Any]) -> None:
    world = World()
    await world.attempted()
    detail(await world.hear(**changes))
    assert world.about == []


@pytest.mark.parametrize("timestamp", [None, "1795514400", 0, -1, 10**12])
async def test_a_bounce_without_a_time_is_poison(timestamp: object) -> None:
    outcome = await World().hear(timestamp=timestamp)
    assert isinstance(outcome, Park)
    assert (outcome.reason, outcome.kind) == ("badTime", "poison")


async def test_the_last_second_that_there_is_has_a_window_too() -> None:
    assert "no attempt" in detail(await World().hear(timestamp=253_402_300_799))
    assert "no attempt" in detail(await World().hear(timestamp=1))


# --- by what an attempt is found ----------------------------------------------------------------------------------


async def test_messages_are_found_by_the_key_of_their_recipient_and_no_address_is_in_the_index() -> None:
    world = World()
    message_id = await world.attempted(None)
    key = world.post.keys.key(JANE)
    value = lookup_value("sendgrid", key, START)
    lookup = (await world.post.store.load(message_id)).index.lookup
    assert lookup == (value,)
    assert JANE.lower() not in value
    assert key not in value
    await world.post.do(message_id, RecordOutcome("t1", SILENCE))
    assert (await world.post.store.load(message_id)).index.lookup == (UNKNOWN_OUTCOME, value)
    await world.post.do(message_id, RecordOutcome("t1", YES))
    assert (await world.post.store.load(message_id)).index.lookup == ("sendgrid:call-1", value)


@pytest.mark.parametrize("provider", ["ses", "mailgun", "smtp"])
async def test_mail_by_providers_that_name_their_message_is_not_indexed_by_recipient(provider: str) -> None:
    world = World()
    message_id = await world.attempted(None, provider=provider)
    assert (await world.post.store.load(message_id)).index.lookup == ()


moments = st.integers(10**6, 7 * 10**9).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))


@given(moments, st.timedeltas(-WINDOW - timedelta(days=9), timedelta(days=9)))
def test_whatever_may_be_meant_is_looked_for(at: datetime, before: timedelta) -> None:
    begun_at = at + before
    if within_window("sendgrid", begun_at, at):
        assert lookup_value("sendgrid", "k" * 64, begun_at) in lookup_values("sendgrid", "k" * 64, at)
    assert within_window("sendgrid", begun_at, at) == (-WINDOW <= before < timedelta(seconds=1))


@given(st.lists(st.booleans(), max_size=5))
def test_only_one_alone_and_accepted_is_meant(accepted: list[bool]) -> None:
    candidates = [Candidate(f"m{n}", f"t{n}", JANE, each) for n, each in enumerate(accepted)]
    found = the_one(candidates)
    assert isinstance(found, Candidate) == (accepted == [True])


def test_the_report_is_the_address_and_the_time() -> None:
    bounce = delayed_bounce(None)
    assert sendgrid_notifications.delayed_bounce(bounce) == DelayedBounce(
        bounce["email"], datetime.fromtimestamp(bounce["timestamp"], UTC)
    )
    assert sendgrid_notifications.delayed_bounce(event("delivered")) is None
    with pytest.raises(PermanentError, match="malformed"):
        sendgrid_notifications.delayed_bounce({"email": "a@example.com"})


async def test_the_look_up_raises_what_the_translator_retries() -> None:
    world = World()
    world.post.store.away = True
    with pytest.raises(TransientError):
        await StreamLookup(world.post.streams).by_address("sendgrid", DelayedBounce(JANE, START))
