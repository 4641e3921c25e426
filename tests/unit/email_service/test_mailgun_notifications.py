"""Every event type of Mailgun's, and every trap: what an event becomes, and what it does not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.base import format_time
from contracts.registry import event_from_wire, read_json
from services.email.adapters.mailgun_notifications import (
    MailgunNotifications,
    correlate,
    provider_message_id,
    translate_mailgun,
    unwrap,
    without_message,
)
from services.email.domain.correlation import Correlation
from services.email.domain.notifications import Delivered, Translation
from services.email.explain import explain_mailgun
from services.kit.errors import PermanentError

from .mailgun_examples import BROWSER, EVENTS, THEIR_ID, event, failure, posted
from .ses_examples import ATTEMPT_ID, MESSAGE_ID, RECIPIENT

OURS = Correlation(MESSAGE_ID, ATTEMPT_ID)
EXPECTED = {
    "accepted": "email.sendConfirmed",
    "rejected": "email.rejected",
    "delivered": "email.delivered",
    "failed": "email.bounced",
    "opened": "email.opened",
    "clicked": "email.clicked",
    "unsubscribed": "email.unsubscribed",
    "complained": "email.complained",
}


def translate(value: dict[str, Any], correlation: Correlation = OURS) -> Translation:
    return translate_mailgun(unwrap(json.dumps(posted(value))), correlation)


def only(value: dict[str, Any], correlation: Correlation = OURS) -> Any:
    (fact,) = translate(value, correlation).facts
    return fact


def data(value: dict[str, Any], correlation: Correlation = OURS) -> dict[str, Any]:
    wire: dict[str, Any] = only(value, correlation).data.to_wire()
    return wire


@pytest.mark.parametrize("kind", EVENTS)
def test_each_type_becomes_its_fact(kind: str) -> None:
    fact = only(event(kind))
    assert (fact.type, format_time(fact.time)) == (EXPECTED[kind], "2026-11-24T10:00:00.873109Z")
    assert (fact.subject, fact.causationid, fact.revision) == (MESSAGE_ID, ATTEMPT_ID, 1)
    wire = fact.data.to_wire()
    assert (wire["recipient"], wire["provider"]) == (RECIPIENT, "mailgun")
    assert (wire["attemptId"], wire["providerMessageId"]) == (ATTEMPT_ID, THEIR_ID)
    assert event_from_wire(read_json(fact.to_bytes())) == fact


@pytest.mark.parametrize("kind", EVENTS)
def test_a_webhook_s_body_and_an_item_of_the_events_api_are_one_fact(kind: str) -> None:
    bare = unwrap(json.dumps(event(kind)))
    assert translate_mailgun(bare, OURS) == translate(event(kind))
    assert bare.transport_id == unwrap(json.dumps(posted(event(kind)))).transport_id


@pytest.mark.parametrize("kind", ["OPENED", "CLICKED"])
def test_names_of_types_may_come_in_capitals(kind: str) -> None:
    assert only(event(kind)) == only(event(kind.lower()))


def test_an_id_counts_for_its_day() -> None:
    first, later, tomorrow = (only(event("opened", timestamp=1795514400.5 + s)).id for s in (0, 60, 86_400))
    assert first == later
    assert first != tomorrow
    assert first != only(event("opened", id="another")).id
    assert len({only(event(kind)).id for kind in EVENTS}) == len(EVENTS)


def test_an_event_without_an_id_of_its_own_is_known_by_what_it_says() -> None:
    clicks = [event("clicked", id=None, url=f"https://example.com/{n}") for n in (1, 1, 2)]
    assert len({only(each).id for each in clicks}) == 2


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"mailroom_message_id": MESSAGE_ID, "mailroom_attempt_id": ATTEMPT_ID, "a": {"b": ["c"]}}, OURS),
        ({"mailroom_message_id": MESSAGE_ID}, Correlation(MESSAGE_ID)),
        ({"mailroom_message_id": {"nested": MESSAGE_ID}}, None),
        ("Could not load user-variables: they are gone", None),
        ({}, None),
        ([], None),
        (None, None),
    ],
)
def test_our_variables_whatever_stands_in_their_place(variables: Any, expected: Correlation | None) -> None:
    assert correlate(event("delivered", user_variables=variables)) == expected


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"headers": {"message-id": THEIR_ID}}, THEIR_ID),
        ({"headers": {"message-id": f"<{THEIR_ID}>"}}, THEIR_ID),
        ({"headers": {}}, None),
        ({}, None),
        ("gone", None),
    ],
)
def test_mailgun_s_id_of_the_message(message: Any, expected: str | None) -> None:
    assert provider_message_id(event("delivered", message=message)) == expected


@pytest.mark.parametrize(
    ("given_failure", "expected"),
    [
        (event("failed"), ("permanent", "bounce", "5.1.1")),
        (failure(code=550, bounce_type="hard"), ("permanent", "Undetermined", None)),
        (failure(code=552, bounce_type="soft", enhanced_code="5.2.2"), ("transient", "Undetermined", "5.2.2")),
        (failure(code=421, message="try later"), ("transient", "Undetermined", None)),
        (failure(code=550, enhanced_code="4.7.0", bounce_type="hard"), ("transient", "Undetermined", "4.7.0")),
        (failure(code=602, message="too old"), ("undetermined", "Undetermined", None)),
        (failure(code=550, bounce_code="5.0.0"), ("undetermined", "Undetermined", "5.0.0")),
        (event("failed", reason="generic", delivery_status=None), ("undetermined", "generic", None)),
        (event("failed", reason="bounce", delivery_status=None), ("permanent", "bounce", None)),
        (event("failed", severity="PERMANENT"), ("permanent", "bounce", "5.1.1")),
    ],
)
def test_a_permanent_failure_is_a_bounce_for_good_only_of_the_address(
    given_failure: dict[str, Any], expected: tuple[str, str, str | None]
) -> None:
    wire = data(given_failure)
    assert (wire["bounceType"], wire["bounceSubType"], wire.get("status")) == expected


def test_a_delayed_bounce_has_no_envelope_and_may_name_no_message() -> None:
    flags = {"is-delayed-bounce": True}
    assert only(event("failed", flags=flags, envelope={})) == only(event("failed"))
    nameless = event("failed", flags=flags, envelope={}, message={"headers": {}}, user_variables=None)
    assert (correlate(nameless), provider_message_id(nameless), without_message(nameless)) == (None, None, None)


@pytest.mark.parametrize("status", [{"code": 451, "message": "greylisted", "retry-seconds": 600}, None])
def test_a_temporary_failure_is_a_delay(status: dict[str, Any] | None) -> None:
    fact = only(event("failed", severity="temporary", reason="greylisted", delivery_status=status))
    assert (fact.type, fact.data.delay_type) == ("email.deliveryDelayed", "greylisted")
    assert fact.data.diagnostic_code == ("451 greylisted" if status else None)


@pytest.mark.parametrize(
    ("reason", "code", "suppressed_for"),
    [
        ("suppress-bounce", 605, "bounce"),
        ("suppress-complaint", 607, "complaint"),
        ("suppress-unsubscribe", 606, "unsubscribe"),
        ("suppress-bounce", None, "bounce"),
        ("bounce", 605, "bounce"),
        (None, 607, "complaint"),
    ],
)
def test_who_is_on_a_list_of_mailgun_s_was_not_tried_and_did_not_bounce(
    reason: str | None, code: int | None, suppressed_for: str
) -> None:
    status = {"code": code, "message": "Not delivering to a previously bounced address"}
    fact = only(event("failed", reason=reason, delivery_status=status))
    assert (fact.type, fact.data.reason, fact.data.suppressed_for) == ("email.rejected", "suppressed", suppressed_for)
    assert "Not delivering" in fact.data.detail


def test_a_delivery_tells_the_server_s_answer() -> None:
    assert data(event("delivered"))["smtpResponse"] == "250 OK"
    assert "smtpResponse" not in data(event("delivered", delivery_status=None))
    assert "smtpResponse" not in data(event("delivered", delivery_status={"code": 0, "message": ""}))


@pytest.mark.parametrize(
    ("client", "machine"),
    [
        (BROWSER, False),
        ({**BROWSER, "bot": "apple"}, True),
        ({**BROWSER, "bot": "generic"}, True),
        ({**BROWSER, "user-agent": "Mozilla/5.0"}, True),
        ({}, True),
        (None, True),
    ],
)
@pytest.mark.parametrize("kind", ["opened", "clicked"])
def test_machines_are_told_from_people(kind: str, client: dict[str, str] | None, machine: bool) -> None:
    assert data(event(kind, client_info=client))["machine"] is machine


@pytest.mark.parametrize(("kind", "changes"), [("stored", {"recipients": [RECIPIENT]}), ("teleported", {})])
def test_what_changes_nothing_says_why_and_asks_nobody_whose_it_is(kind: str, changes: dict[str, Any]) -> None:
    value = event(kind, user_variables=None, message=None, **changes)
    assert without_message(value)
    assert translate(value) == Translation((), without_message(value))


def test_the_attempt_s_spelling_of_the_recipient_counts_since_mailgun_writes_small_letters() -> None:
    looked_up = Correlation(MESSAGE_ID, ATTEMPT_ID, "Jane@example.com")
    wire = data(event("delivered"), looked_up)
    assert (wire["recipient"], wire["reportedAddress"]) == ("Jane@example.com", RECIPIENT)
    assert only(event("delivered"), looked_up).id == only(event("delivered")).id


def test_a_rejection_names_nobody_and_is_the_attempt_s_recipient_s() -> None:
    several = event("rejected", message={"headers": {"to": f"{RECIPIENT}, joe@example.com", "message-id": THEIR_ID}})
    looked_up = Correlation(MESSAGE_ID, ATTEMPT_ID, "cc@example.com")
    assert data(several, looked_up)["recipient"] == data(event("rejected"), looked_up)["recipient"] == "cc@example.com"
    assert data(event("rejected"))["recipient"] == RECIPIENT
    assert only(event("rejected"), looked_up).id == only(event("rejected")).id
    with pytest.raises(PermanentError, match="noRecipient"):
        translate(several)


@pytest.mark.parametrize(
    "broken",
    [
        {"recipient": RECIPIENT, "body-plain": "x"},  # the flat form of before 2018, an inbound mail
        event("delivered", event=5),
        event("delivered", timestamp=None),  # the test hook
        event("delivered", timestamp="1795514400"),
        event("delivered", timestamp=-1),
        event("delivered", timestamp=253402300800.0),
        event("failed", severity="grave"),
        event("failed", severity=None),
        event("opened", recipient=None, message={"headers": {}}),
    ],
)
def test_what_contradicts_the_documentation_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(PermanentError):
        translate(broken)


@pytest.mark.parametrize("raw", [b"[]", b"5", b"{", b'{"event-data": []}', b'{"event-data": null}'])
def test_what_is_no_event_is_refused(raw: bytes) -> None:
    with pytest.raises(PermanentError):
        unwrap(raw)


def test_explain_prints_cloudevents_or_the_reason() -> None:
    explained = explain_mailgun(json.dumps(posted(event("delivered"))).encode())
    assert [json.loads(line)["type"] for line in explained.lines] == ["email.delivered"]
    without = json.dumps(event("delivered", user_variables=None)).encode()
    assert (explain_mailgun(without).refused, THEIR_ID in (explain_mailgun(without).why_none or "")) == (True, True)
    assert explain_mailgun(without, OURS).lines == explained.lines
    nameless = json.dumps(event("delivered", user_variables=None, message=None)).encode()
    assert "uncorrelated" in (explain_mailgun(nameless).why_none or "")
    assert "would be parked" in (explain_mailgun(b"[]").why_none or "")
    assert explain_mailgun(json.dumps(event("stored")).encode()).refused is False


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = sorted({name for kind in EVENTS for name in event(kind)})
STATUS = ["code", "message", "description", "enhanced-code", "bounce-type"]


@given(
    st.dictionaries(st.text(max_size=5), json_values, max_size=3)
    | st.builds(
        lambda kind, changes, status: {**event(kind), **({"delivery-status": status} if status else {}), **changes},
        st.sampled_from([*EVENTS, "stored", "x"]),
        st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=4),
        st.dictionaries(st.sampled_from(STATUS), json_values, max_size=3),
    )
)
def test_hostile_events_are_translated_or_refused_and_the_same_each_time(value: dict[str, Any]) -> None:
    form = MailgunNotifications()
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
