"""Every SES type, both forms and every trap: what a notification becomes, and what it does not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.base import format_time
from contracts.envelope import Envelope
from contracts.registry import event_from_wire, read_json
from services.email.adapters.ses_notifications import correlate, translate_ses
from services.email.adapters.ses_transport import unwrap
from services.email.domain.correlation import Correlation
from services.email.domain.notifications import Delivered, Translation
from services.email.explain import explain_ses
from services.kit.errors import PermanentError
from services.kit.notifications import parse_time

from .ses_examples import ATTEMPT_ID, MESSAGE_ID, PARTS, PROVIDER_ID, RECIPIENT, example, sns

OURS = Correlation(MESSAGE_ID, ATTEMPT_ID)
EXPECTED = {
    "Send": ("email.sendConfirmed", "2026-11-24T10:00:00.000000Z"),
    "Delivery": ("email.delivered", "2026-11-24T10:00:01.500000Z"),
    "Bounce": ("email.bounced", "2026-11-24T10:00:02.000000Z"),
    "Complaint": ("email.complained", "2026-11-24T10:05:00.000000Z"),
    "Reject": ("email.rejected", "2026-11-24T10:00:03.250000Z"),
    "Rendering Failure": ("email.rejected", "2026-11-24T10:00:03.250000Z"),
    "Open": ("email.opened", "2026-11-24T10:10:00.000000Z"),
    "Click": ("email.clicked", "2026-11-24T10:11:00.000000Z"),
    "DeliveryDelay": ("email.deliveryDelayed", "2026-11-24T10:00:30.000000Z"),
    "Subscription": ("email.unsubscribed", "2026-11-24T10:12:00.000000Z"),
}


def translate(value: dict[str, Any], correlation: Correlation = OURS) -> Translation:
    return translate_ses(unwrap(json.dumps(sns(value))), correlation)


def only(value: dict[str, Any]) -> Envelope:
    translation = translate(value)
    assert len(translation.facts) == 1, translation
    return translation.facts[0]


def data(value: dict[str, Any]) -> dict[str, Any]:
    return only(value).data.to_wire()


@pytest.mark.parametrize("kind", PARTS)
def test_each_type_becomes_its_fact_at_its_own_time(kind: str) -> None:
    fact = only(example(kind))
    assert (fact.type, format_time(fact.time)) == EXPECTED[kind]
    assert fact.subject == MESSAGE_ID
    assert fact.revision == 1
    assert fact.streamversion is None
    wire = fact.data.to_wire()
    assert wire["recipient"] == RECIPIENT
    assert wire["attemptId"] == ATTEMPT_ID
    assert wire["providerMessageId"] == PROVIDER_ID
    assert event_from_wire(read_json(fact.to_bytes())) == fact


@pytest.mark.parametrize("kind", PARTS)
def test_both_forms_make_the_same_fact(kind: str) -> None:
    assert only(example(kind)) == only(example(kind, form="notificationType", tags=None))


def test_types_have_ids_of_their_own() -> None:
    # Reject and Rendering Failure are one fact: both say that SES dropped the message after accepting it.
    assert len({only(example(kind)).id for kind in PARTS}) == len(PARTS) - 1


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("Delivery", {"timestamp": "2026-11-24T10:00:01.501Z"}),
        ("Bounce", {"feedbackId": "another"}),
        ("Complaint", {"feedbackId": "another"}),
        ("Open", {"ipAddress": "192.0.2.2"}),
        ("Click", {"link": "https://example.com/other"}),
        ("DeliveryDelay", {"timestamp": "2026-11-24T10:00:31.000Z"}),
    ],
)
def test_another_happening_has_another_id(kind: str, changes: dict[str, Any]) -> None:
    assert only(example(kind)).id != only(example(kind, changes=changes)).id


def test_a_redelivery_under_another_sns_id_is_the_same_fact() -> None:
    first = translate_ses(unwrap(json.dumps(sns(example("Bounce")))), OURS)
    again = translate_ses(
        unwrap(json.dumps(sns(example("Bounce"), MessageId="sns-2", Timestamp="2026-11-24T11:00:00Z"))), OURS
    )
    assert first == again


def test_a_permanent_bounce_decides_per_recipient() -> None:
    other = {"emailAddress": "joe@example.com", "status": "4.2.2"}
    value = example(
        "Bounce",
        changes={"bouncedRecipients": [{"emailAddress": RECIPIENT, "status": "5.1.1"}, other]},
        destination=[RECIPIENT, "joe@example.com"],
    )
    kinds = {fact.data.to_wire()["recipient"]: fact.data.to_wire()["bounceType"] for fact in translate(value).facts}
    assert kinds == {RECIPIENT: "permanent", "joe@example.com": "transient"}


def test_an_alias_that_fans_out_is_one_fact_with_the_most_severe_bounce() -> None:
    reports = [
        {"emailAddress": "a@inner.example", "status": "4.2.2"},
        {"emailAddress": "b@inner.example", "status": "5.1.1"},
    ]
    wire = data(example("Bounce", changes={"bouncedRecipients": reports}))
    assert (wire["recipient"], wire["bounceType"], wire["reportedAddress"]) == (
        RECIPIENT,
        "permanent",
        "b@inner.example",
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [("Permanent", "permanent"), ("Transient", "transient"), ("Undetermined", "undetermined"), ("New", "undetermined")],
)
def test_bounce_types(given: str, expected: str) -> None:
    assert data(example("Bounce", changes={"bounceType": given}))["bounceType"] == expected


def test_the_suppression_list_bounce_keeps_its_sub_type() -> None:
    assert (
        data(example("Bounce", changes={"bounceSubType": "OnAccountSuppressionList"}))["bounceSubType"]
        == "OnAccountSuppressionList"
    )


def test_not_spam_withdraws_a_complaint() -> None:
    assert only(example("Complaint", changes={"complaintFeedbackType": "not-spam"})).type == "email.complaintWithdrawn"


@pytest.mark.parametrize("missing", ["complaintFeedbackType", "complaintSubType"])
def test_a_complaint_may_lack_its_types(missing: str) -> None:
    assert only(example("Complaint", changes={missing: None})).type == "email.complained"


def test_a_bounce_may_lack_what_the_server_said() -> None:
    wire = data(example("Bounce", changes={"bouncedRecipients": [{"emailAddress": RECIPIENT}]}))
    assert (wire["bounceType"], "diagnosticCode" in wire, "status" in wire) == ("permanent", False, False)


def test_a_complaint_that_lists_a_whole_domain_is_about_the_one_we_wrote_to() -> None:
    reported = [{"emailAddress": f"u{n}@example.com"} for n in range(5)]
    assert data(example("Complaint", changes={"complainedRecipients": reported}))["recipient"] == RECIPIENT


def test_the_providers_spelling_is_kept_beside_ours() -> None:
    wire = data(example("Delivery", changes={"recipients": ["Jane@EXAMPLE.com"]}))
    assert (wire["recipient"], wire["reportedAddress"]) == (RECIPIENT, "Jane@EXAMPLE.com")
    assert "reportedAddress" not in data(example("Delivery", changes={"recipients": ["jane@EXAMPLE.com"]}))


def test_unsubscribe_from_everything_names_no_list() -> None:
    assert "listId" not in data(example("Subscription", changes={"newTopicPreferences": {"unsubscribeAll": True}}))


def test_subscribing_again_is_no_fact() -> None:
    new = {"unsubscribeAll": False, "topicSubscriptionStatus": [{"topicName": "news", "subscriptionStatus": "OptIn"}]}
    translation = translate(example("Subscription", changes={"newTopicPreferences": new}))
    assert translation.facts == ()
    assert translation.why_none


@pytest.mark.parametrize(
    ("agent", "machine"),
    [
        ("Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)", True),
        ("Mozilla/5.0", True),
        (None, True),
        ("python-requests/2.32", True),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15", False),
    ],
)
def test_machines_are_told_from_people(agent: str | None, machine: bool) -> None:
    assert data(example("Open", changes={"userAgent": agent}))["machine"] is machine


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2017-08-05T00:41:02.669Z", "2017-08-05T00:41:02.669000Z"),
        ("2018-10-08T14:05:45 +0000", "2018-10-08T14:05:45.000000Z"),
        ("2018-10-08T14:05:45-07:00", "2018-10-08T21:05:45.000000Z"),
        ("2018-10-08T14:05:45", "2018-10-08T14:05:45.000000Z"),
    ],
)
def test_every_form_of_a_time(text: str, expected: str) -> None:
    assert format_time(parse_time(text)) == expected


@pytest.mark.parametrize("absent", ["headers", "commonHeaders", "headersTruncated", "source", "sendingAccountId"])
def test_optional_parts_of_mail_may_be_absent(absent: str) -> None:
    absences: dict[str, Any] = {absent: None}
    assert only(example("Delivery", **absences)).type == "email.delivered"


def test_truncated_may_be_a_string() -> None:
    assert (
        only(example("Delivery", headersTruncated="false", source='"A, B" <x@example.org>')).type == "email.delivered"
    )


def test_reject_without_sns_takes_the_time_from_sqs() -> None:
    delivered = unwrap(json.dumps(example("Reject")), sqs_message_id="q", sqs_sent="1795514400000")
    (fact,) = translate_ses(delivered, OURS).facts
    assert format_time(fact.time) == "2026-11-24T10:00:00.000000Z"


def test_an_unknown_type_is_kept_raw_and_said_so() -> None:
    value = example("Send")
    value["eventType"] = "Teleport"
    translation = translate(value)
    assert translation.facts == ()
    assert "Teleport" in (translation.why_none or "")


def test_unknown_fields_change_nothing() -> None:
    assert only(example("Delivery", changes={"brandNew": {"a": [1]}})) == only(example("Delivery"))


@pytest.mark.parametrize(
    "broken",
    [
        {"eventType": "Delivery"},
        {"eventType": "Delivery", "mail": []},
        {"eventType": "Delivery", "mail": {"messageId": 5}, "delivery": {}},
        example("Delivery", messageId=""),
        example("Delivery", destination=[]),
        example("Delivery", changes={"timestamp": "yesterday"}),
        example("Bounce", changes={"timestamp": None}),
        {**example("Bounce"), "bounce": "no"},
        example("Subscription", changes={"newTopicPreferences": [1]}),
    ],
)
def test_what_contradicts_the_documentation_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(PermanentError):
        translate(broken)


def test_correlation_by_tags_then_by_headers() -> None:
    headers = [
        {"name": "x-mailroom-message-id", "value": MESSAGE_ID},
        {"name": "X-Mailroom-Attempt-Id", "value": ATTEMPT_ID},
    ]
    assert correlate(example("Send")) == OURS
    assert correlate(example("Send", tags=None, headers=headers)) == OURS
    assert correlate(example("Send", tags=None)) is None


def test_the_wrappings() -> None:
    bare = example("Delivery")
    body = json.dumps(sns(bare))
    sqs = {"MessageId": "sqs-1", "ReceiptHandle": "r", "Body": body, "Attributes": {"SentTimestamp": "1795514400000"}}
    assert unwrap(json.dumps(bare)).notification == bare
    assert unwrap(body).notification == unwrap(json.dumps(sqs)).notification == bare
    assert unwrap(body).transport_id == "sns-1"
    raw_delivery = unwrap(json.dumps({**sqs, "Body": json.dumps(bare)}))
    assert (raw_delivery.notification, raw_delivery.transport_id) == (bare, "sqs-1")


@pytest.mark.parametrize(
    "envelope",
    [
        sns("Successfully validated SNS topic for Amazon SES event publishing."),
        {**sns("x"), "Type": "SubscriptionConfirmation", "SubscribeURL": "https://sns.us-east-1.amazonaws.com/"},
        {**sns("x"), "Type": "UnsubscribeConfirmation"},
    ],
)
def test_what_is_no_notification_says_why(envelope: dict[str, Any]) -> None:
    delivered = unwrap(json.dumps(envelope))
    assert delivered.notification is None
    assert delivered.why_none
    assert explain_ses(json.dumps(envelope).encode()).why_none == delivered.why_none


def test_explain_prints_cloudevents_or_the_reason() -> None:
    lines = explain_ses(json.dumps(sns(example("Bounce"))).encode()).lines
    assert json.loads(lines[0])["type"] == "email.bounced"
    without = json.dumps(example("Bounce", tags=None)).encode()
    assert explain_ses(without).refused
    assert explain_ses(without, OURS).lines == lines
    assert explain_ses(b"{").refused
    hello = {"notificationType": "AmazonSnsSubscriptionSucceeded", "message": "hello"}
    assert "topic" in (explain_ses(json.dumps(hello).encode(), OURS).why_none or "")


@pytest.mark.parametrize("headers", [-5, True, "x", {"name": "x"}, [1, None, {"name": 1, "value": []}]])
def test_what_is_no_list_of_headers_names_no_message(headers: object) -> None:
    value = example("Delivery", tags=None)
    value["mail"]["headers"] = headers
    assert correlate(value) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.sampled_from(sorted(PARTS)),
    st.dictionaries(
        st.sampled_from(
            [
                "timestamp",
                "recipients",
                "bouncedRecipients",
                "complainedRecipients",
                "delayedRecipients",
                "userAgent",
                "newTopicPreferences",
                "feedbackId",
                "bounceType",
                "reason",
            ]
        ),
        json_values,
        max_size=4,
    ),
    st.dictionaries(
        st.sampled_from(["destination", "timestamp", "messageId", "headers", "tags"]), json_values, max_size=2
    ),
)
def test_hostile_content_is_translated_or_refused_and_never_breaks(
    kind: str, changes: dict[str, Any], mail_changes: dict[str, Any]
) -> None:
    value = example(kind, changes=changes)
    value["mail"].update(mail_changes)
    try:
        correlate(value)
        for fact in translate_ses(Delivered(value, None, parse_time("2026-01-01T00:00:00Z")), OURS).facts:
            assert event_from_wire(read_json(fact.to_bytes())) == fact
    except PermanentError:
        pass
