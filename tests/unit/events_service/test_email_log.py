"""The table of contracts.md §2, row by row. Every case is folded as given, twice over, and shuffled."""

from __future__ import annotations

import random
from typing import Any

import pytest

from contracts.base import EventData, Money
from contracts.email import events as mail
from contracts.views import EmailLog
from services.events.projections import email_log
from services.events.projections.known import Known, KnownEvent, Tally, add
from tests.unit.events_service.events import (
    ANN,
    BOB,
    MESSAGE,
    Log,
    attempted,
    bounced,
    fact,
    failed,
    refused,
    requested,
    retracted,
    sent,
    settled,
    unknown,
)

OPENED, CLICKED, DELIVERED = mail.EmailOpened, mail.EmailClicked, mail.EmailDelivered


def known(events: list[KnownEvent]) -> list[KnownEvent]:
    found: Known = {}
    for event in events:
        add(found, event)
    return list(found.values())


def folded(events: list[KnownEvent], overflow: tuple[Tally, ...] = ()) -> dict[str, Any]:
    """The document, after making sure that order and repetition change nothing and that the view takes it."""
    body = email_log.fold(known(events), overflow)
    for seed in range(3):
        again = events * 2
        random.Random(seed).shuffle(again)
        assert email_log.fold(known(again), overflow) == body
    assert body is not None
    EmailLog.model_validate({name: value for name, value in body.items() if name != "_permanent"})
    return body


def fold_of(*data: EventData, to: tuple[str, ...] = (ANN,)) -> dict[str, Any]:
    log = Log()
    return folded([log.event(each) for each in (requested(*to), *data)])


def status_of(*data: EventData) -> str:
    recipient: dict[str, Any] = fold_of(*data)["recipients"][0]
    return str(recipient["status"])


@pytest.mark.parametrize(
    ("data", "status"),
    [
        ([], "queued"),
        ([attempted()], "queued"),
        ([attempted(), unknown()], "queued"),
        ([attempted(), refused()], "queued"),
        ([attempted(), sent()], "sent"),
        ([attempted(), unknown(), settled("accepted")], "sent"),
        ([attempted(), unknown(), settled("notAccepted")], "queued"),
        ([attempted(), sent(), unknown()], "sent"),
        ([fact(mail.EmailSendConfirmed)], "sent"),
        ([fact(mail.EmailDeliveryDelayed, delay_type="MailboxFull")], "sent"),
        ([fact(OPENED)], "sent"),
        ([mail.EmailUnsubscribed(recipient=ANN, source="oneClick")], "sent"),
        ([mail.EmailUnsubscribed(recipient=ANN, source="operator")], "queued"),
        ([attempted(), sent(), fact(DELIVERED)], "delivered"),
        ([fact(DELIVERED), failed("expired")], "delivered"),
        ([failed("suppressed")], "failed"),
        ([failed("cancelled")], "failed"),
        ([attempted(), sent(), fact(mail.EmailRejected, reason="virus")], "failed"),
        ([failed("attemptsExhausted"), fact(mail.EmailSendConfirmed)], "failed"),
        ([attempted(), unknown(), failed("outcomeUnknown")], "failed"),
        ([attempted(), unknown(), failed("outcomeUnknown"), fact(mail.EmailSendConfirmed)], "sent"),
        ([attempted(), unknown(), failed("outcomeUnknown"), settled("accepted")], "sent"),
        ([attempted(), unknown(), failed("outcomeUnknown"), sent()], "sent"),
        ([attempted(), unknown(), failed("outcomeUnknown"), fact(DELIVERED)], "delivered"),
        ([sent(), bounced("permanent")], "bounced"),
        ([sent(), fact(DELIVERED), bounced("permanent")], "bounced"),
        ([sent(), bounced("permanent"), fact(DELIVERED)], "delivered"),
        ([sent(), bounced("permanent"), fact(DELIVERED), bounced("permanent")], "bounced"),
        ([sent(), bounced("transient")], "bounced"),
        ([sent(), bounced("undetermined")], "bounced"),
        ([sent(), bounced("transient"), fact(DELIVERED)], "delivered"),
        ([sent(), fact(DELIVERED), bounced("transient")], "delivered"),
        ([sent(), fact(DELIVERED), bounced("undetermined")], "delivered"),
        ([sent(), bounced("permanent", sub_type="OnAccountSuppressionList")], "failed"),
        ([sent(), fact(mail.EmailComplained, complaint_sub_type="OnAccountSuppressionList")], "failed"),
        ([sent(), fact(mail.EmailRejected, reason="suppressed", suppressed_for="bounce")], "failed"),
        ([sent(), fact(mail.EmailComplained)], "complaint"),
        ([sent(), fact(mail.EmailComplained), fact(DELIVERED)], "complaint"),
        ([sent(), fact(mail.EmailComplained), bounced("permanent")], "complaint"),
        ([sent(), fact(DELIVERED), fact(mail.EmailComplained), fact(mail.EmailComplaintWithdrawn)], "delivered"),
        ([sent(), fact(mail.EmailComplained), fact(mail.EmailComplaintWithdrawn)], "sent"),
        ([fact(mail.EmailComplaintWithdrawn), fact(mail.EmailComplained)], "complaint"),
    ],
)
def test_status_of_one_recipient(data: list[EventData], status: str) -> None:
    assert status_of(*data) == status


def test_two_events_of_one_microsecond_are_ordered_by_rank() -> None:
    log = Log()
    events = [log.event(requested()), log.event(fact(DELIVERED), at=5), log.event(bounced(), at=5)]
    assert folded(events)["status"] == "delivered"  # a bounce ranks before a delivery, so the delivery is later


@pytest.mark.parametrize(
    ("ann", "bob", "status"),
    [
        ([fact(DELIVERED)], [fact(DELIVERED, BOB)], "delivered"),
        ([fact(DELIVERED)], [sent("b1", BOB)], "sent"),
        ([sent()], [], "queued"),
        ([], [failed("expired", BOB)], "failed"),
        ([failed()], [bounced("permanent", BOB)], "bounced"),
        ([bounced()], [fact(mail.EmailComplained, BOB)], "complaint"),
    ],
)
def test_the_message_has_the_worst_status_of_its_recipients(
    ann: list[EventData], bob: list[EventData], status: str
) -> None:
    assert fold_of(*ann, *bob, to=(ANN, BOB))["status"] == status


@pytest.mark.parametrize(
    ("data", "flag"),
    [
        ([attempted()], None),
        ([attempted(), unknown()], True),
        ([attempted(), unknown(), sent()], None),
        ([attempted(), unknown(), refused()], None),
        ([attempted(), unknown(), settled("notAccepted")], None),
        ([attempted(), unknown(), failed("outcomeUnknown")], None),
        ([attempted(), unknown(), fact(OPENED, attempt_id=None)], None),
        ([attempted(), refused(), attempted("a2"), unknown("a2")], True),
        ([attempted(), unknown(), settled("notAccepted"), attempted("a2"), unknown("a2")], True),
    ],
)
def test_outcome_unknown_until_something_tells(data: list[EventData], flag: bool | None) -> None:
    assert fold_of(*data)["recipients"][0].get("outcomeUnknown") is flag


def test_nothing_to_show_before_the_request_is_known() -> None:
    log = Log()
    assert email_log.fold([log.event(sent()), log.event(fact(DELIVERED))]) is None


def test_the_whole_document() -> None:
    body = fold_of(
        attempted(), sent(), fact(DELIVERED, smtp_response="250 ok"), fact(OPENED), fact(OPENED, machine=True),
        fact(CLICKED, link="https://example.com"), fact(OPENED, BOB), to=(ANN, BOB),
    )  # fmt: skip
    assert body["messageId"] == MESSAGE
    assert body["to"] == [ANN, BOB]
    assert body["cost"] == {"amount": 100, "currency": "USD"}
    assert body["size"] == 1000
    assert body["provider"] == "ses"
    assert [each["type"] for each in body["events"]] == [
        "request", "attempt", "send", "delivery", "open", "open", "click", "open",
    ]  # fmt: skip
    ann, bob = body["recipients"]
    assert (ann["opens"], ann["clicks"], ann["machineOpens"], ann["machineClicks"]) == (1, 1, 1, 0)
    assert (ann["status"], ann["provider"], ann["providerMessageId"], ann["attempts"]) == (
        "delivered", "ses", "ses-a1", 1,
    )  # fmt: skip
    assert bob["status"] == "sent"
    assert body["events"][3]["metadata"] == {"provider": "ses", "attemptId": "a1", "smtpResponse": "250 ok"}
    assert body["updatedAt"] == body["events"][-1]["timestamp"] == bob["lastEventAt"]
    assert body["createdAt"] == body["events"][0]["timestamp"]


def test_two_accounts_of_one_attempt_cost_once_and_two_attempts_twice() -> None:
    price = Money(amount=70, currency="USD")
    once = fold_of(attempted(), unknown(), sent(), settled("accepted", size=1000, cost=price))
    assert (once["cost"]["amount"], once["size"]) == (100, 1000)
    twice = fold_of(attempted(), sent(), attempted("b1", BOB), sent("b1", BOB, cost=price), to=(ANN, BOB))
    assert (twice["cost"]["amount"], twice["size"]) == (170, 2000)


def test_a_permanently_bounced_address_is_told_apart_for_the_statistics() -> None:
    assert fold_of(sent(), bounced("permanent"))["_permanent"] == [ANN]
    assert "_permanent" not in fold_of(sent(), bounced("transient"))


def test_a_repeated_recipient_is_one_delivery() -> None:
    body = fold_of(to=(ANN, ANN))
    assert [each["address"] for each in body["recipients"]] == [ANN]


def test_facts_outside_the_document_are_counted_and_say_so() -> None:
    log = Log()
    events = [log.event(requested(ANN, BOB)), log.event(fact(OPENED))]
    late = "2026-11-25T00:00:00.000000Z"
    overflow = (
        Tally(ANN, "email.opened", False, 7, "2026-11-24T11:00:00.000000Z", "2026-11-24T12:00:00.000000Z"),
        Tally(BOB, "email.clicked", True, 2, late, late),
    )
    body = folded(events, overflow)
    ann, bob = body["recipients"]
    assert (ann["opens"], bob["machineClicks"], bob["status"]) == (8, 2, "sent")
    assert body["eventsTruncated"] is True
    assert body["updatedAt"] == bob["lastEventAt"] == email_log.instant(late)


def test_a_retracted_fact_is_as_if_it_had_never_been() -> None:
    log = Log()
    events = [log.event(requested()), log.event(sent())]
    before = folded(events)
    bounce = log.event(bounced(), event_id="wrong")
    assert folded([*events, bounce])["status"] == "bounced"
    assert folded([*events, bounce, log.event(retracted("wrong"))]) == before
    said_again = log.event(bounced(), event_id="wrong", revision=2)
    assert folded([*events, bounce, log.event(retracted("wrong")), said_again])["status"] == "bounced"


def test_a_decision_and_a_retraction_cannot_be_retracted() -> None:
    log = Log()
    events = [log.event(requested(), event_id="r"), log.event(sent(), event_id="s"), log.event(retracted("s"))]
    assert folded(events)["status"] == "sent"
    bounce, away = log.event(bounced(), event_id="b"), log.event(retracted("b"), event_id="away")
    assert folded([*events, bounce, away, log.event(retracted("away"))])["status"] == "sent"


def test_a_higher_revision_corrects_a_fact() -> None:
    log = Log()
    first = log.event(bounced("transient"), event_id="b", at=50)
    better = log.event(bounced("permanent"), event_id="b", at=50, revision=2)
    body = folded([log.event(requested()), first, better])
    assert [each["metadata"]["bounceType"] for each in body["events"] if each["type"] == "bounce"] == ["permanent"]


def test_of_two_readings_of_one_revision_the_lower_origin_counts() -> None:
    log = Log()
    low = log.event(bounced("transient"), event_id="b", at=50)
    high = log.event(bounced("permanent"), event_id="b", at=50)
    (only,) = known([high, low])
    assert (only.offset, only.data["bounceType"]) == (low.offset, "transient")


def test_an_event_of_an_unknown_type_is_ignored() -> None:
    log = Log()
    events = [log.event(requested()), log.event(sent())]
    strange = events[1]._replace(id="new", type="email.teleported", rank=1000, data={"recipient": ANN})
    assert folded([*events, strange]) == folded(events)
