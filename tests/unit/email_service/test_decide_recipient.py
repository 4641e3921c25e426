"""Suppression: scopes, causes known and old, complaints withdrawn, whatever order things are heard in."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from contracts.base import EventData
from contracts.email.events import (
    EmailBounced,
    EmailComplained,
    EmailComplaintWithdrawn,
    EmailDelivered,
    EmailRejected,
    EmailUnsubscribed,
)
from contracts.envelope import Envelope
from contracts.registry import NAMES
from services.email.domain.recipient import ALL, MARKETING, Suppress, Unsuppress, decide, fold, from_fact
from services.kit.event_store.port import Stream, stamp
from services.kit.testing import FakeIds
from tests.unit.email_service.mail import MESSAGE_ID, NOW

KEY = "k" * 64
A = "a@example.com"
PERMANENT = {"bounce_type": "permanent", "bounce_sub_type": "General"}


class RecipientSpec:
    """One recipient's stream; what is heard is decided and appended at `now`."""

    def __init__(self) -> None:
        self.now = NOW
        self.stream = Stream.absent(KEY)
        self._ids = FakeIds()

    def hear(self, *facts: Envelope) -> list[str]:
        return [kind for fact in facts for kind in self.do(from_fact(fact))]

    def do(self, command: Any) -> list[str]:
        self.now += timedelta(seconds=1)
        drafts = () if command is None else decide(KEY, fold(self.stream.events), command, self.now)
        events = stamp(self.stream, drafts, now=self.now, new_id=self._ids.new, source="s", correlation="c")
        self.stream = Stream.of(KEY, (*self.stream.events, *events))
        return [event.type for event in events]

    def blocks(self, category: Any = "notification", list_id: str | None = None) -> str | None:
        return fold(self.stream.events).blocks(category, list_id, self.now)


def fact(data: EventData, at: datetime = NOW, fact_id: str = "f1", message: str = MESSAGE_ID) -> Envelope:
    return Envelope(
        id=fact_id,
        source="ses",
        type=NAMES[type(data)],
        subject=message,
        time=at,
        correlationid="c",
        revision=1,
        data=data,
    )


def about(model: Any, **fields: Any) -> Any:
    return model(recipient=A, provider="ses", **fields)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (about(EmailBounced, **PERMANENT), "hardBounce"),
        (about(EmailBounced, bounce_type="permanent", bounce_sub_type="OnAccountSuppressionList"), "providerList"),
        (about(EmailBounced, bounce_type="transient", bounce_sub_type="MailboxFull"), None),
        (about(EmailBounced, bounce_type="undetermined", bounce_sub_type="Undetermined"), None),
        (about(EmailComplained), "complaint"),
        (about(EmailComplained, complaint_sub_type="OnAccountSuppressionList"), "providerList"),
        (about(EmailDelivered), None),
        (about(EmailRejected, reason="suppressed", suppressed_for="bounce"), "providerList"),
        (about(EmailRejected, reason="suppressed", suppressed_for="complaint"), "providerList"),
        (about(EmailRejected, reason="suppressed", suppressed_for="unsubscribe"), None),
        (about(EmailRejected, reason="Bad content"), None),
    ],
)
def test_what_a_fact_means(data: EventData, reason: str | None) -> None:
    recipient = RecipientSpec()
    recipient.hear(fact(data))
    assert recipient.blocks() == reason
    assert recipient.blocks("auth") == reason


def test_unsubscribing_stops_marketing_alone_or_one_list() -> None:
    from_list, from_all = RecipientSpec(), RecipientSpec()
    from_list.hear(fact(EmailUnsubscribed(recipient=A, list_id="news", source="page")))
    from_all.hear(fact(EmailUnsubscribed(recipient=A, source="page")))
    assert [from_list.blocks("marketing", name) for name in ("news", "offers")] == ["unsubscribed", None]
    assert [from_all.blocks("marketing", name) for name in ("news", "offers")] == ["unsubscribed", "unsubscribed"]
    assert from_list.blocks() is from_all.blocks() is None


def test_who_left_a_provider_s_mail_altogether_gets_no_more_marketing_from_any() -> None:
    recipient = RecipientSpec()
    recipient.hear(fact(about(EmailRejected, reason="suppressed", suppressed_for="unsubscribe")))
    assert (recipient.blocks("marketing"), recipient.blocks("auth")) == ("unsubscribed", None)


def test_a_cause_heard_twice_suppresses_once_under_one_id() -> None:
    recipient = RecipientSpec()
    bounce = fact(about(EmailBounced, **PERMANENT))
    assert recipient.hear(bounce, bounce) == ["recipient.suppressed"]
    again = RecipientSpec()
    again.hear(bounce)
    assert again.stream.events[0].id == recipient.stream.events[0].id


def test_an_old_bounce_heard_again_does_not_undo_an_operator() -> None:
    recipient = RecipientSpec()
    bounce = fact(about(EmailBounced, **PERMANENT))
    older = fact(about(EmailBounced, **PERMANENT), fact_id="f2", at=NOW - timedelta(days=1))
    recipient.hear(bounce)
    assert recipient.do(Unsuppress(A, ALL, "spoke to them", "admin:ops")) == ["recipient.unsuppressed"]
    assert recipient.hear(bounce, older) == []
    assert recipient.blocks() is None
    assert recipient.hear(fact(about(EmailBounced, **PERMANENT), fact_id="f3", at=recipient.now)) != []
    assert recipient.blocks() == "hardBounce"


SAID_NOW = [
    Suppress(A, ALL, "manual", "manual:2", NOW - timedelta(seconds=2)),
    Suppress(A, ALL, "unsubscribed", "m:f", None),
]


@pytest.mark.parametrize("said", SAID_NOW, ids=lambda said: said.reason)
def test_what_is_said_after_a_lift_stands_whatever_the_clocks_say(said: Suppress) -> None:
    recipient = RecipientSpec()
    recipient.do(Suppress(A, ALL, "manual", "manual:1", NOW))
    recipient.do(Unsuppress(A, ALL, "a mistake", "admin:ops"))
    assert recipient.do(said) == ["recipient.suppressed"]
    assert recipient.blocks("marketing") == said.reason
    assert recipient.do(said) == [], "a repetition of the same word is none"


def test_there_is_nothing_to_lift_where_nothing_holds() -> None:
    recipient = RecipientSpec()
    assert recipient.do(Unsuppress(A, ALL, "why not")) == []
    recipient.hear(fact(EmailUnsubscribed(recipient=A, source="page")))
    assert recipient.do(Unsuppress(A, ALL, "why not")) == []
    assert recipient.do(Unsuppress(A, MARKETING, "asked for it")) == ["recipient.unsuppressed"]


def test_unsubscribing_again_says_nothing_until_it_was_lifted() -> None:
    recipient = RecipientSpec()
    leave = [fact(EmailUnsubscribed(recipient=A, source="page"), fact_id=f"f{n}") for n in range(2)]
    assert recipient.hear(*leave) == ["recipient.suppressed"]
    recipient.do(Unsuppress(A, MARKETING, "signed up again"))
    late = fact(EmailUnsubscribed(recipient=A, source="page"), fact_id="f9", at=recipient.now + timedelta(seconds=1))
    assert recipient.hear(late) == ["recipient.suppressed"]


@pytest.mark.parametrize("scope_and_list", [(MARKETING, None), ("list:news", "news")], ids=lambda value: str(value[0]))
def test_an_unsubscribe_outlives_a_suppression_that_ends(scope_and_list: tuple[str, str | None]) -> None:
    scope, list_id = scope_and_list
    recipient = RecipientSpec()
    for n, days in enumerate((1, 30)):
        recipient.do(Suppress(A, scope, "manual", f"manual:{n}", NOW, until=NOW + timedelta(days=days)))
    leave = [EmailUnsubscribed(recipient=A, list_id=list_id, source="oneClick") for _ in range(2)]
    heard = recipient.hear(*(fact(each, fact_id=f"f{n}") for n, each in enumerate(leave)))
    assert heard == ["recipient.suppressed"], "once: the second one finds the first"
    recipient.now += timedelta(days=31)
    assert recipient.blocks("marketing", "news") == "unsubscribed"


def test_an_unsubscribe_beside_a_suppression_without_end_says_nothing_new() -> None:
    recipient = RecipientSpec()
    recipient.do(Suppress(A, MARKETING, "manual", "manual:1", NOW, until=NOW + timedelta(days=1)))
    recipient.do(Suppress(A, MARKETING, "manual", "manual:2", NOW))
    assert recipient.hear(fact(EmailUnsubscribed(recipient=A, source="page"))) == []


COMPLAINT = fact(about(EmailComplained), fact_id="c1", at=NOW)
WITHDRAWN = fact(about(EmailComplaintWithdrawn), fact_id="w1", at=NOW + timedelta(hours=1))


@pytest.mark.parametrize("order", [(COMPLAINT, WITHDRAWN), (WITHDRAWN, COMPLAINT), (WITHDRAWN, COMPLAINT, WITHDRAWN)])
def test_a_withdrawn_complaint_lifts_what_it_caused_in_any_order(order: tuple[Envelope, ...]) -> None:
    recipient = RecipientSpec()
    recipient.hear(*order)
    assert recipient.blocks() is None
    again = fact(about(EmailComplained), fact_id="c2", at=NOW + timedelta(hours=2))
    recipient.hear(again)
    assert recipient.blocks() == "complaint"


def test_a_withdrawn_complaint_lifts_nothing_else() -> None:
    recipient = RecipientSpec()
    other = fact(about(EmailComplained), fact_id="c3", message="0192f0c1-2b7a-7d3e-9c1a-000000000002")
    recipient.hear(fact(about(EmailBounced, **PERMANENT)), COMPLAINT, other, WITHDRAWN)
    assert recipient.blocks() == "hardBounce"
    active = fold(recipient.stream.events).active[ALL]
    assert [each.reason for each in active] == ["hardBounce", "complaint"]


def test_a_suppression_with_an_end_ends() -> None:
    recipient = RecipientSpec()
    recipient.do(Suppress(A, ALL, "manual", "manual:1", NOW, until=NOW + timedelta(hours=1)))
    assert recipient.blocks() == "manual"
    recipient.now += timedelta(hours=1)
    assert recipient.blocks() is None
