"""The settler: facts settle attempts and suppress recipients, once, and our own decisions are never decided upon."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from contracts.base import EventData
from contracts.email.events import (
    EmailBounced,
    EmailComplained,
    EmailComplaintWithdrawn,
    EmailDelivered,
    EmailRejected,
    EmailSendConfirmed,
    EmailUnsubscribed,
    EventRetracted,
)
from contracts.envelope import Envelope
from contracts.registry import NAMES
from services.email.domain import recipient
from services.email.domain.commands import PlanAttempts, PlannedAttempt, RecordOutcome
from services.email.domain.correlation import Correlation
from services.email.domain.message import Message
from services.email.domain.outcomes import Accepted, Cost, Unknown
from services.email.domain.unsubscribe import UnsubscribeClaims
from services.email.entrypoints.settler import Settler
from services.email.handlers import (
    SUPPRESSED,
    RecipientStreams,
    StreamLookup,
    list_unknown,
    resolve_unknown,
    suppress,
    suppressions_of,
    unsubscribe,
    unsuppress,
)
from services.email.ports import Checkpoints, NoCheckpoints
from services.kit.addresses import RecipientKeys
from services.kit.errors import PermanentError, TransientError
from services.kit.event_store.memory import MemoryEventStore
from services.kit.event_store.port import Stream, StreamIndex
from services.kit.kafka.codec import encode
from services.kit.kafka.records import DONE, Outcome, Park, Record, Retry
from services.kit.metrics import Metrics
from services.kit.testing import FakeClock
from tests.unit.email_service.fakes import Crash, CrashAt, Post
from tests.unit.email_service.mail import COST

A = "a@example.com"
START = datetime(2026, 11, 24, 12, tzinfo=UTC)


class FixedPrices:
    def cost(self, provider: str, size: int, at: datetime) -> Cost:
        return COST


class World:
    """A settler on stores in memory."""

    def __init__(self) -> None:
        self.clock = FakeClock(START)
        self.post = Post(clock=self.clock)
        self.recipient_store = MemoryEventStore(self.clock)
        self.keys = RecipientKeys(b"k" * 32)
        self.recipients = RecipientStreams(
            self.recipient_store, self.keys, self.clock, self.post.ids, self.post._publish
        )
        self.settler = self.process(NoCheckpoints())

    def process(self, checkpoints: Checkpoints) -> Settler:
        return Settler(self.post.streams, self.recipients, FixedPrices(), self.clock, Metrics(), checkpoints)

    async def attempted(self, attempt_id: str = "t1", outcome: Any = None) -> str:
        (message_id,) = await self.post.queue()
        self.clock.move(1)
        await self.post.do(message_id, PlanAttempts([PlannedAttempt(A, attempt_id, "ses", "cheapest")]))
        if outcome is not None:
            self.clock.move(1)
            await self.post.do(message_id, RecordOutcome(attempt_id, outcome))
        return message_id

    def fact(self, data: EventData, message_id: str, fact_id: str = "f1") -> Record:
        name = NAMES[type(data)]
        envelope = Envelope(
            id=fact_id, source="ses", type=name, subject=message_id, time=self.clock.now(), correlationid="c",
            revision=1, data=data,
        )  # fmt: skip
        return as_record(envelope)

    async def hear(self, *records: Record) -> list[Outcome]:
        return list(await self.settler(records))

    async def phase(self, message_id: str) -> str:
        return (await self.post.phases([message_id]))[0]

    async def blocked(self, address: str = A, category: Any = "notification", list_id: str | None = None) -> str | None:
        key = self.keys.key(address)
        state = (await self.recipients.load_many([key]))[key]
        return state.blocks(category, list_id, self.clock.now())


def as_record(envelope: Envelope, offset: int = 1) -> Record:
    out = encode(envelope)
    return Record(out.topic, 0, offset, 0, out.key, out.value, ())


def delivered(attempt_id: str | None = "t1", **fields: Any) -> EmailDelivered:
    return EmailDelivered(recipient=A, provider="ses", attempt_id=attempt_id, provider_message_id="ses-9", **fields)


@pytest.mark.parametrize("outcome", [None, Unknown("lost")])
async def test_a_fact_settles_an_attempt_without_answer_once(outcome: Any) -> None:
    world = World()
    message_id = await world.attempted(outcome=outcome)
    record = world.fact(delivered(), message_id)
    assert await world.hear(record, record) == [DONE, DONE]
    assert await world.hear(record) == [DONE]
    assert (await world.post.types(message_id))[-1] == "attemptSettled"
    assert (await world.post.types(message_id)).count("attemptSettled") == 1
    assert await world.phase(message_id) == "Sent"
    assert world.post.published[message_id].version == len(await world.post.types(message_id))


async def test_a_fact_that_names_no_attempt_settles_by_its_recipient() -> None:
    world = World()
    message_id = await world.attempted(outcome=Unknown("lost"))
    await world.hear(world.fact(delivered(None), message_id))
    assert await world.phase(message_id) == "Sent"


async def test_our_own_decisions_are_never_decided_upon() -> None:
    world = World()
    message_id = await world.attempted(outcome=Accepted("ses-1", 10, COST))
    stream = await world.post.store.load(message_id)
    assert await world.hear(*(as_record(event, n) for n, event in enumerate(stream.events))) == [DONE] * 3
    assert (await world.post.store.load(message_id)).version == stream.version


async def test_facts_about_attempts_whose_answer_went_by_cost_no_look_at_the_stream() -> None:
    world = World()
    message_id = await world.attempted(outcome=Accepted("ses-1", 10, COST))
    stream = await world.post.store.load(message_id)
    await world.hear(*(as_record(event, n) for n, event in enumerate(stream.events)))
    world.post.store.away = True
    confirmed = EmailSendConfirmed(recipient=A, provider="ses", attempt_id="t1", provider_message_id="ses-1")
    assert await world.hear(world.fact(confirmed, message_id), world.fact(delivered(), message_id)) == [DONE, DONE]


async def test_facts_about_strangers_and_retractions_change_nothing() -> None:
    world = World()
    stranger = "0192f0c1-2b7a-7d3e-9c1a-000000000077"
    retracted = EventRetracted(event_id="f1", up_to_revision=1, reason="a bug")
    assert await world.hear(world.fact(delivered(), stranger), world.fact(retracted, stranger)) == [DONE, DONE]
    assert (await world.post.store.load(stranger)).version == 0


async def test_what_cannot_be_read_is_parked_and_the_rest_goes_on() -> None:
    world = World()
    message_id = await world.attempted()
    good = world.fact(delivered(), message_id)
    outcomes = await world.hear(
        Record("email.events", 0, 1, 0, b"k", b"nonsense"),
        Record("email.events", 0, 2, 0, b"k", None),
        Record("email.events", 0, 3, 0, b"other", good.value),
        Record("email.events", 0, 4, 0, b"k", b'{"type": ["email.delivered"]}'),
        Record("email.events", 0, 5, 0, b"k", b'{"type": "email.delivered", "data": {"attemptId": ["t1"]}}'),
        good,
    )
    parked = [outcome.reason if isinstance(outcome, Park) else "" for outcome in outcomes]
    assert parked == ["notJson", "nullValue", "wrongKey", "", "invalid", ""]
    assert await world.phase(message_id) == "Sent"


async def test_a_store_that_is_away_hands_the_facts_back() -> None:
    world = World()
    message_id = await world.attempted()
    world.post.store.away = True
    assert [type(each) for each in await world.hear(world.fact(delivered(), message_id))] == [Retry]
    world.post.store.away = False
    assert await world.hear(world.fact(delivered(), message_id)) == [DONE]


async def test_a_recipient_who_cannot_be_read_is_parked_and_the_others_are_suppressed() -> None:
    world = World()
    message_id = await world.attempted(outcome=Accepted("ses-1", 10, COST))
    wire = ('{"type": "recipient.suppressed", "dataversion": 99}',)
    strange = Stream(world.keys.key(A), 1, wire, index=StreamIndex(lookup=(SUPPRESSED,)))
    kept: Any = type("Kept", (), {"stream": strange, "pending_since": None})()
    world.recipient_store._kept[strange.stream_id] = kept
    complaints = [
        world.fact(EmailComplained(recipient=who, provider="ses"), message_id, who) for who in (A, "b@example.com")
    ]
    parked, done = await world.hear(*complaints)
    assert isinstance(parked, Park)
    assert (parked.reason, parked.kind, done) == ("unreadableStream", "bug", DONE)
    assert await world.blocked("b@example.com") == "complaint"
    listed, _ = await world.recipients.suppressed(None, 10, world.clock.now())
    assert [address for address, _ in listed] == ["b@example.com"], "and the list shows all others"


async def test_bounces_complaints_and_unsubscribes_suppress_and_a_withdrawal_lifts() -> None:
    world = World()
    message_id = await world.attempted(outcome=Accepted("ses-1", 10, COST))
    base: dict[str, Any] = {"recipient": A, "provider": "ses", "attempt_id": "t1"}
    complaint = world.fact(EmailComplained(**base), message_id, "c1")
    assert await world.hear(complaint, complaint) == [DONE, DONE]
    assert await world.blocked() == await world.blocked("A@EXAMPLE.com") == "complaint"
    world.clock.move(60)
    await world.hear(world.fact(EmailComplaintWithdrawn(**base), message_id, "w1"))
    assert await world.blocked() is None
    await world.hear(world.fact(EmailUnsubscribed(recipient=A, list_id="news", source="provider"), message_id, "u1"))
    assert await world.blocked(category="marketing", list_id="news") == "unsubscribed"
    await world.hear(
        world.fact(EmailBounced(**base, bounce_type="permanent", bounce_sub_type="General"), message_id, "b1")
    )
    assert await world.blocked(category="auth") == "hardBounce"
    key = world.keys.key(A)
    assert world.post.published[key].version == 4
    assert A not in key


@pytest.mark.parametrize("point", ["settler.settle", "settler.settled", "settler.suppress", "settler.suppressed"])
async def test_a_crash_between_two_effects_is_made_good_by_the_next_try(point: str) -> None:
    world = World()
    message_id = await world.attempted(outcome=Unknown("lost"))
    bounce = EmailBounced(
        recipient=A, provider="ses", attempt_id="t1", bounce_type="permanent", bounce_sub_type="General"
    )
    record = world.fact(bounce, message_id)
    with pytest.raises(Crash):
        await world.process(CrashAt(point))([record])
    assert await world.hear(record) == [DONE]
    assert (await world.post.types(message_id)).count("attemptSettled") == 1
    assert (await world.recipient_store.load(world.keys.key(A))).version == 1
    assert await world.blocked() == "hardBounce"


# --- operators and people ----------------------------------------------------------------------------------------


async def test_an_operator_lists_and_settles_unknown_attempts() -> None:
    world = World()
    message_id = await world.attempted(outcome=Unknown("lost"))
    streams = world.post.streams
    (found,), _ = await list_unknown(streams)
    assert (found.message_id, found.attempt_id, found.recipient) == (message_id, "t1", A)
    with pytest.raises(PermanentError, match="callMayBeUnderWay"):
        await resolve_unknown(streams, message_id, "t1", "notAccepted", evidence="console", actor="admin:ops")
    world.clock.move(31)
    held = await resolve_unknown(streams, message_id, "t1", "notAccepted", evidence="console", actor="admin:ops")
    assert isinstance(held.state, Message)
    assert await world.phase(message_id) == "Queued"
    assert await list_unknown(streams) == ([], None)
    assert (await world.post.store.load(message_id)).events[-1].actor == "admin:ops"
    with pytest.raises(PermanentError, match="notUnknown"):
        await resolve_unknown(streams, message_id, "t1", "notAccepted", evidence="console", actor="admin:ops")
    with pytest.raises(PermanentError, match="notUnknown"):
        await resolve_unknown(streams, world.post.ids.new(), "t1", "accepted", evidence="x", actor="admin:ops")


@pytest.mark.parametrize(
    ("suppressed_for", "category", "reason"),
    [
        ("bounce", "auth", "providerList"),
        ("complaint", "auth", "providerList"),
        ("unsubscribe", "marketing", "unsubscribed"),
    ],
)
async def test_whom_a_provider_does_not_write_to_any_more_no_provider_writes_to(
    suppressed_for: Any, category: Any, reason: str
) -> None:
    world = World()
    message_id = await world.attempted(outcome=Accepted("ses-1", 10, COST))
    stream = await world.post.store.load(message_id)
    dropped = EmailRejected(
        recipient=A, provider="ses", attempt_id="t1", reason="suppressed", suppressed_for=suppressed_for
    )
    record = world.fact(dropped, message_id)
    # The answer went by before, so that only the suppression is left to be decided.
    answers = [as_record(event, n) for n, event in enumerate(stream.events)]
    assert await world.hear(*answers, record) == [DONE] * (len(answers) + 1)
    assert await world.blocked(category=category) == reason
    assert await world.hear(record) == [DONE]
    assert (await world.recipient_store.load(world.keys.key(A))).version == 1


async def test_a_provider_s_id_leads_to_its_attempt() -> None:
    world = World()
    message_id = await world.attempted(outcome=Accepted("ses-1", 10, COST))
    lookup = StreamLookup(world.post.streams)
    found = await lookup.by_provider_message_id("ses", "ses-1")
    assert found is not None
    assert (found.message_id, found.attempt_id, found.recipient) == (message_id, "t1", A)
    assert await lookup.by_provider_message_id("ses", "other") is None


async def test_attempts_lead_to_their_recipients_and_strangers_to_nobody() -> None:
    world = World()
    message_id, stranger = await world.attempted(), world.post.ids.new()
    ours, lost = Correlation(message_id, "t1"), Correlation(message_id, "t9")
    strange = Correlation(stranger, "t1")
    found = await StreamLookup(world.post.streams).recipients([ours, lost, Correlation(message_id), strange])
    assert found == {ours: A}
    world.post.store.away = True
    with pytest.raises(TransientError):
        await StreamLookup(world.post.streams).recipients([ours])


async def test_ids_lead_to_the_attempt_and_its_recipient_at_that_provider_alone() -> None:
    world = World()
    message_id = await world.attempted()
    lookup = StreamLookup(world.post.streams)
    named = Correlation(message_id, "t1", forgeable=True)
    assert await lookup.attempt("ses", named) == Correlation(message_id, "t1", recipient=A)
    assert await lookup.attempt("smtp", named) is None
    assert await lookup.attempt("ses", Correlation(message_id, "t2", forgeable=True)) is None
    assert await lookup.attempt("ses", Correlation(world.post.ids.new(), "t1", forgeable=True)) is None


async def test_operators_suppress_and_lift() -> None:
    world = World()
    for _ in range(2):
        await suppress(world.recipients, A, recipient.ALL, cause="ticket-1", now=START, actor="admin:ops")
    (holding,) = await suppressions_of(world.recipients, A, START)
    assert (holding.scope, holding.reason) == ("all", "manual")
    world.clock.move(1)
    await unsuppress(world.recipients, A, recipient.ALL, reason="done", actor="admin:ops")
    assert await suppressions_of(world.recipients, A, START) == []


async def test_what_a_process_that_is_behind_is_told_after_a_lift_stands() -> None:
    """One process lifts; another one, whose clock is 2 s behind, hears an operator and a recipient right after."""
    world = World()
    message_id = await world.attempted(outcome=Accepted("ses-1", 10, COST))
    claims = UnsubscribeClaims(world.keys.key(A), "list:news", message_id, START)
    for scope in (recipient.ALL, "list:news"):
        await suppress(world.recipients, A, scope, cause="ticket-1", now=world.clock.now(), actor="admin:ops")
        await unsuppress(world.recipients, A, scope, reason="a mistake", actor="admin:ops")
    world.clock.jump(-2)
    await suppress(world.recipients, A, recipient.ALL, cause="ticket-2", now=world.clock.now(), actor="admin:ops")
    assert await world.blocked() == "manual"
    await unsubscribe(world.post.streams, world.recipients, claims, "oneClick", world.clock.now())
    assert [each.scope for each in await suppressions_of(world.recipients, A, world.clock.now())] == [
        "all",
        "list:news",
    ]


async def test_pressing_unsubscribe_suppresses_before_it_answers_and_once() -> None:
    world = World()
    message_id = await world.attempted(outcome=Accepted("ses-1", 10, COST))
    claims = UnsubscribeClaims(world.keys.key(A), "list:news", message_id, START)
    fact = await unsubscribe(world.post.streams, world.recipients, claims, "oneClick", world.clock.now())
    assert fact is not None
    assert await world.blocked(category="marketing", list_id="news") == "unsubscribed"
    assert await world.hear(as_record(fact)) == [DONE]
    assert (await world.recipient_store.load(world.keys.key(A))).version == 1
    stranger = UnsubscribeClaims("x" * 64, "list:news", message_id, START)
    assert await unsubscribe(world.post.streams, world.recipients, stranger, "page", world.clock.now()) is None
