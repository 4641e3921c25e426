"""Every event type of SendGrid's, and every trap: what an event becomes, and what it does not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.base import format_time
from contracts.registry import event_from_wire, read_json
from services.email.adapters.sendgrid_notifications import (
    SendGridNotifications,
    correlate,
    provider_message_id,
    translate_sendgrid,
    unwrap,
    without_message,
)
from services.email.domain.correlation import Correlation
from services.email.domain.notifications import Delivered, Translation
from services.email.explain import explain_sendgrid
from services.kit.errors import PermanentError

from .sendgrid_examples import CALL_ID, EVENTS, delayed_bounce, event
from .ses_examples import ATTEMPT_ID, MESSAGE_ID, RECIPIENT

OURS = Correlation(MESSAGE_ID, ATTEMPT_ID)
EXPECTED = {
    "processed": "email.sendConfirmed",
    "deferred": "email.deliveryDelayed",
    "delivered": "email.delivered",
    "bounce": "email.bounced",
    "dropped": "email.rejected",
    "open": "email.opened",
    "click": "email.clicked",
    "spamreport": "email.complained",
    "unsubscribe": "email.unsubscribed",
    "group_unsubscribe": "email.unsubscribed",
}


def translate(value: dict[str, Any], correlation: Correlation = OURS) -> Translation:
    return translate_sendgrid(unwrap(json.dumps(value)), correlation)


def only(value: dict[str, Any], correlation: Correlation = OURS) -> Any:
    (fact,) = translate(value, correlation).facts
    return fact


def data(value: dict[str, Any], correlation: Correlation = OURS) -> dict[str, Any]:
    wire: dict[str, Any] = only(value, correlation).data.to_wire()
    return wire


@pytest.mark.parametrize("kind", EVENTS)
def test_each_type_becomes_its_fact(kind: str) -> None:
    fact = only(event(kind))
    assert (fact.type, format_time(fact.time)) == (EXPECTED[kind], "2026-11-24T10:00:00.000000Z")
    assert (fact.subject, fact.causationid, fact.revision) == (MESSAGE_ID, ATTEMPT_ID, 1)
    wire = fact.data.to_wire()
    assert (wire["recipient"], wire["provider"]) == (RECIPIENT, "sendgrid")
    assert (wire["attemptId"], wire["providerMessageId"]) == (ATTEMPT_ID, CALL_ID)
    assert event_from_wire(read_json(fact.to_bytes())) == fact


def test_another_event_of_a_type_has_another_id_and_a_copy_of_one_has_not() -> None:
    assert only(event("open")).id == only(event("open")).id
    assert only(event("open")).id != only(event("open", sg_event_id="another")).id
    assert len({only(event(kind)).id for kind in EVENTS}) == len(set(EXPECTED.values()))


def test_an_event_without_an_id_of_its_own_is_known_by_what_it_says() -> None:
    clicks = [event("click", sg_event_id=None, url=f"https://example.com/{n}") for n in (1, 1, 2)]
    assert len({only(each).id for each in clicks}) == 2


def test_our_ids_come_back_as_fields_beside_sendgrid_s_own() -> None:
    assert correlate(event("delivered")) == OURS
    assert correlate(event("delivered", mailroom_message_id=None)) is None
    # Arguments of other names, which somebody else of this account sends, are none of ours, whatever they hold.
    assert only(event("delivered", order={"event": "bounce"}, reason=["x"], category="one")) == only(event("delivered"))


def test_the_id_of_the_call_is_the_beginning_of_the_message_s() -> None:
    assert provider_message_id(event("delivered")) == CALL_ID
    assert provider_message_id(event("delivered", sg_message_id="abc")) == "abc"


@pytest.mark.parametrize("sg_message_id", [None, ""])
def test_a_delayed_bounce_names_no_message(sg_message_id: str | None) -> None:
    bounce = delayed_bounce(sg_message_id)
    assert (correlate(bounce), provider_message_id(bounce), without_message(bounce)) == (None, None, None)
    assert data(bounce)["bounceType"] == "permanent"
    assert "providerMessageId" not in data(bounce)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("permanent", "Invalid Address")),
        ({"type": "blocked", "bounce_classification": "Reputation"}, ("transient", "Reputation")),
        ({"type": "blocked", "bounce_classification": None}, ("transient", "blocked")),
        ({"status": "4.2.2", "bounce_classification": "Mailbox Unavailable"}, ("transient", "Mailbox Unavailable")),
        ({"type": "expired", "bounce_classification": None}, ("undetermined", "expired")),
        ({"type": None, "bounce_classification": "Technical Failure"}, ("undetermined", "Technical Failure")),
    ],
)
def test_bounces(changes: dict[str, Any], expected: tuple[str, str]) -> None:
    wire = data(event("bounce", **changes))
    assert (wire["bounceType"], wire["bounceSubType"]) == expected


@pytest.mark.parametrize(
    ("reason", "suppressed_for"),
    [
        ("Bounced Address", "bounce"),
        ("Spam Reporting Address", "complaint"),
        ("Unsubscribed Address", "unsubscribe"),
        ("unsubscribed address", "unsubscribe"),
    ],
)
def test_who_is_on_a_list_of_sendgrid_s_was_not_tried_and_did_not_bounce(reason: str, suppressed_for: str) -> None:
    fact = only(event("dropped", reason=reason))
    wire = fact.data.to_wire()
    assert (fact.type, wire["reason"], wire["detail"]) == ("email.rejected", "suppressed", reason)
    assert wire["suppressedFor"] == suppressed_for


@pytest.mark.parametrize(
    "reason", ["Invalid SMTPAPI header", "Spam Content", "Invalid", "Recipient List over Package Quota", None]
)
def test_other_drops_suppress_nobody(reason: str | None) -> None:
    wire = data(event("dropped", reason=reason))
    assert (wire["reason"], "suppressedFor" in wire) == (reason or "dropped", False)


def test_a_delay_tells_the_server_s_answer_in_whichever_field_it_is() -> None:
    assert data(event("deferred"))["diagnosticCode"].startswith("451")
    assert data(event("deferred", response=None, reason="452 full"))["diagnosticCode"] == "452 full"


@pytest.mark.parametrize(
    ("changes", "machine"),
    [
        ({}, False),
        ({"sg_machine_open": True}, True),
        ({"sg_machine_open": None}, False),
        ({"useragent": "Mozilla/5.0"}, True),
        ({"useragent": None}, True),
    ],
)
def test_machines_are_told_from_people(changes: dict[str, Any], machine: bool) -> None:
    assert data(event("open", **changes))["machine"] is machine


def test_leaving_a_group_is_leaving_all_marketing() -> None:
    assert "listId" not in data(event("group_unsubscribe"))
    assert data(event("group_unsubscribe"))["source"] == "provider"


@pytest.mark.parametrize("kind", ["group_resubscribe", "account_status_change", "teleported"])
def test_what_changes_nothing_says_why_and_asks_nobody_whose_it_is(kind: str) -> None:
    value = event(kind, mailroom_message_id=None, sg_message_id=None)
    assert without_message(value)
    assert translate(value) == Translation((), without_message(value))


def test_the_attempt_s_spelling_of_the_recipient_counts() -> None:
    looked_up = Correlation(MESSAGE_ID, ATTEMPT_ID, "Jane@example.com")
    wire = data(event("delivered"), looked_up)
    assert (wire["recipient"], wire["reportedAddress"]) == ("Jane@example.com", RECIPIENT)
    assert only(event("delivered"), looked_up).id == only(event("delivered")).id


def test_a_copy_that_sendgrid_sent_to_somebody_else_is_not_the_recipient_s() -> None:
    copy = only(event("bounce", email="archive@example.org"), Correlation(MESSAGE_ID, ATTEMPT_ID, RECIPIENT))
    assert copy.data.recipient == "archive@example.org"


@pytest.mark.parametrize("send_at", [0, 1487700692.41447, None])
def test_when_it_was_to_be_sent_changes_nothing(send_at: float | None) -> None:
    assert only(event("processed", send_at=send_at)) == only(event("processed"))


@pytest.mark.parametrize(
    "broken",
    [
        {"Key": "email", "Value": "jane@example.com"},  # what some test posts hold
        event("delivered", event=5),
        event("delivered", event=""),
        event("delivered", timestamp=None),
        event("delivered", timestamp="1795514400"),
        event("delivered", timestamp=True),
        event("delivered", timestamp=0),
        event("delivered", timestamp=1e300),
        event("delivered", email=None),
        event("delivered", email={"x": 1}),
    ],
)
def test_what_contradicts_the_documentation_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(PermanentError):
        translate(broken)


@pytest.mark.parametrize("raw", [b"[]", b"[[]]", b"5", b"{", b'"x"', b"null"])
def test_an_element_that_is_no_object_is_refused(raw: bytes) -> None:
    with pytest.raises(PermanentError):
        unwrap(raw)


def test_explain_takes_an_array_or_one_event() -> None:
    one, both = event("delivered"), [event("delivered"), event("open", sg_event_id="2")]
    assert explain_sendgrid(json.dumps(one).encode()) == explain_sendgrid(json.dumps([one]).encode())
    explained = explain_sendgrid(json.dumps(both).encode())
    assert [json.loads(line)["type"] for line in explained.lines] == ["email.delivered", "email.opened"]
    assert (explained.why_none, explained.refused) == (None, False)


def test_explain_says_what_becomes_of_each_bad_one_and_prints_the_good_ones() -> None:
    events = [5, event("delivered"), event("teleported"), delayed_bounce("")]
    explained = explain_sendgrid(json.dumps(events).encode())
    assert len(explained.lines) == 1
    assert explained.refused
    said = (explained.why_none or "").split("; ")
    assert [each[:13] for each in said] == ["event 1 of 4:", "event 3 of 4:", "event 4 of 4:"]
    assert "notAnObject" in said[0]
    assert "uncorrelated" in said[2]
    assert len(explain_sendgrid(json.dumps(events).encode(), OURS).lines) == 2


@pytest.mark.parametrize(("raw", "word"), [(b"{", "JSON"), (b"5", "array"), (b"[]", "empty")])
def test_explain_says_what_is_no_post_of_sendgrid_s(raw: bytes, word: str) -> None:
    explained = explain_sendgrid(raw)
    assert (explained.lines, word in (explained.why_none or "")) == ((), True)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = sorted({name for kind in EVENTS for name in event(kind)} | {"bounce_classification", "type"})


@given(
    st.dictionaries(st.text(max_size=5), json_values, max_size=3)
    | st.builds(
        lambda kind, changes: event(kind, **changes),
        st.sampled_from([*EVENTS, "group_resubscribe", "x"]),
        st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=4),
    )
)
def test_hostile_events_are_translated_or_refused_and_the_same_each_time(value: dict[str, Any]) -> None:
    form = SendGridNotifications()
    told: list[object] = []
    for _ in range(2):
        try:
            correlation = form.correlate(value) or OURS
            form.provider_message_id(value)
            form.without_message(value)
            found = form.translate(Delivered(value), correlation)
            for fact in found.facts:
                assert event_from_wire(read_json(fact.to_bytes())) == fact
            told.append(found)
        except PermanentError as error:
            told.append((error.reason, error.detail))
    assert told[0] == told[1]
