"""Behaviour by address, and the events in SES's published shapes."""

from base64 import b64encode
from datetime import UTC, datetime
from typing import Any, get_args

import orjson
import pytest

from deploy.local.simulator.behaviours import BEHAVIOURS, EVENT_TYPES, Kind, Step, timeline
from deploy.local.simulator.events import Mail, mail_of, received, render
from deploy.local.simulator.submission import read_send_email

SENT = datetime(2026, 11, 24, 10, 0, 0, 123456, tzinfo=UTC)
NOW = datetime(2026, 11, 24, 10, 0, 1, 500999, tzinfo=UTC)


def mail(raw: bytes = b"From: A <a@mailroom.example>\r\nSubject: s\r\n\r\nhttps://x.example/l") -> Mail:
    request = {
        "FromEmailAddress": "A <a@mailroom.example>",
        "Destination": {"ToAddresses": ["b@example.com"]},
        "Content": {"Raw": {"Data": b64encode(raw).decode()}},
        "ConfigurationSetName": "set",
        "EmailTags": [{"Name": "attemptId", "Value": "a-1"}],
    }
    return mail_of(read_send_email(orjson.dumps(request)), "provider-1", SENT, "us-east-1", "192.0.2.1")


def event(step: Step) -> dict[str, Any]:
    message = render(step, mail(), "b@example.com", NOW)
    assert message.endswith(b"\n")
    found: dict[str, Any] = orjson.loads(message)
    return found


def test_every_event_type_of_ses_has_a_behaviour() -> None:
    made = {"Send"} | {step.kind for steps in BEHAVIOURS.values() for step in steps}
    assert made == set(get_args(Kind)) == set(EVENT_TYPES.values())
    assert len(made) == 10


@pytest.mark.parametrize(
    ("address", "kinds"),
    [
        ("success@x.example", ["Send", "Delivery"]),
        ("anyone@x.example", ["Send", "Delivery"]),
        ("Bounce+label@simulator.amazonses.com", ["Send", "Bounce"]),
        ("softbounce@x.example", ["Send", "Bounce"]),
        ("ooto@x.example", ["Send", "Delivery", "Bounce"]),
        ("complaint@x.example", ["Send", "Delivery", "Complaint"]),
        ("suppressionlist@x.example", ["Send", "Bounce"]),
        ("delay@x.example", ["Send", "DeliveryDelay", "Delivery"]),
        ("click@x.example", ["Send", "Delivery", "Open", "Click"]),
        ("machine-open@x.example", ["Send", "Delivery", "Open"]),
        ("unsubscribe@x.example", ["Send", "Delivery", "Subscription"]),
        ("reject@x.example", ["Reject"]),
        ("renderfail@x.example", ["Rendering Failure"]),
        ("blackhole@x.example", []),
        ("noevents@x.example", []),
    ],
)
def test_the_address_chooses(address: str, kinds: list[str]) -> None:
    assert [step.kind for step, _ in timeline((address,), frozenset())] == kinds


def test_a_suppressed_recipient_is_accepted_and_never_tried() -> None:
    planned = timeline(("success@x.example", "open@x.example"), frozenset(["open@x.example"]))
    assert [(step.kind, step.variant, to) for step, to in planned] == [
        ("Send", "", None),
        ("Delivery", "", "success@x.example"),
        ("Bounce", "suppressed", "open@x.example"),
    ]


def test_the_mail_object() -> None:
    found = event(Step("Send"))
    assert set(found) == {"eventType", "mail", "send"}
    assert found["send"] == {}
    assert found["mail"] == {
        "timestamp": "2026-11-24T10:00:00.123Z",
        "source": "A <a@mailroom.example>",
        "sourceArn": "arn:aws:ses:us-east-1:000000000000:identity/mailroom.example",
        "sendingAccountId": "000000000000",
        "messageId": "provider-1",
        "destination": ["b@example.com"],
        "headersTruncated": False,
        "headers": [{"name": "From", "value": "A <a@mailroom.example>"}, {"name": "Subject", "value": "s"}],
        "commonHeaders": {
            "returnPath": "a@mailroom.example",
            "from": ["A <a@mailroom.example>"],
            "subject": "s",
            "messageId": "provider-1",
        },
        "tags": {
            "ses:source-tls-version": ["TLSv1.3"],
            "ses:operation": ["SendEmail"],
            "ses:configuration-set": ["set"],
            "ses:source-ip": ["192.0.2.1"],
            "ses:from-domain": ["mailroom.example"],
            "ses:caller-identity": ["mailroom"],
            "attemptId": ["a-1"],
        },
    }


def test_long_headers_are_cut_and_that_is_said() -> None:
    raw = b"From: a@mailroom.example\r\n" + b"".join(b"X-%d: %s\r\n" % (n, b"v" * 900) for n in range(20)) + b"\r\n"
    found = orjson.loads(render(Step("Send"), mail(raw), None, NOW))["mail"]
    assert found["headersTruncated"] is True
    assert len(found["headers"]) < 20


@pytest.mark.parametrize(
    ("step", "name", "expected"),
    [
        (Step("Delivery"), "delivery", {"processingTimeMillis": 1377, "recipients": ["b@example.com"]}),
        (Step("Bounce", "permanent"), "bounce", {"bounceType": "Permanent", "bounceSubType": "General"}),
        (Step("Bounce", "transient"), "bounce", {"bounceType": "Transient", "bounceSubType": "MailboxFull"}),
        (Step("Bounce", "outOfOffice"), "bounce", {"bouncedRecipients": [{"emailAddress": "b@example.com"}]}),
        (Step("Bounce", "suppressed"), "bounce", {"bounceSubType": "OnAccountSuppressionList"}),
        (Step("Complaint", "abuse"), "complaint", {"complaintFeedbackType": "abuse", "complaintSubType": None}),
        (Step("Complaint", "not-spam"), "complaint", {"complaintFeedbackType": "not-spam"}),
        (Step("Reject"), "reject", {"reason": "Bad content"}),
        (Step("Open", "person"), "open", {"ipAddress": "198.51.100.7"}),
        (Step("Click", "person"), "click", {"link": "https://x.example/l"}),
        (Step("Rendering Failure"), "failure", {"templateName": "simulated"}),
        (Step("DeliveryDelay"), "deliveryDelay", {"delayType": "TransientCommunicationFailure"}),
        (Step("Subscription"), "subscription", {"contactList": "mailroom", "source": "UnsubscribeHeader"}),
    ],
)
def test_each_type_has_its_object(step: Step, name: str, expected: dict[str, Any]) -> None:
    found = event(step)
    assert found["eventType"] == step.kind
    assert set(found) == {"eventType", "mail", name}
    assert {key: found[name].get(key) for key in expected} == expected
    timeless = ("Reject", "Rendering Failure")
    assert found[name].get("timestamp") == (None if step.kind in timeless else "2026-11-24T10:00:01.500Z")


def test_only_a_delivery_knows_the_outgoing_ip() -> None:
    assert event(Step("Delivery"))["mail"]["tags"]["ses:outgoing-ip"] == ["192.0.2.10"]
    assert "ses:outgoing-ip" not in event(Step("Reject"))["mail"]["tags"]


def test_machine_opens_show_a_proxy() -> None:
    assert "GoogleImageProxy" in event(Step("Open", "proxy"))["open"]["userAgent"]


def test_each_bounce_has_a_feedback_id_of_its_own() -> None:
    ids = {event(Step("Bounce", "permanent"))["bounce"]["feedbackId"] for _ in range(5)}
    assert len(ids) == 5


def test_a_mail_to_us_is_told_of_without_its_content() -> None:
    raw = b"From: P <p@inbox.example>\r\nTo: leave@mailroom.example\r\nSubject: =?utf-8?q?gr=C3=BC=C3=9Fe?=\r\n\r\nbody"
    found = orjson.loads(received(raw, "p@inbox.example", ["leave@mailroom.example"], NOW))
    assert found["notificationType"] == "Received"
    assert set(found) == {"notificationType", "mail", "receipt"}
    assert found["receipt"]["action"] == {"type": "Stop"}
    assert found["mail"]["timestamp"] == "2026-11-24T10:00:01.500Z"
    assert found["mail"]["destination"] == found["receipt"]["recipients"] == ["leave@mailroom.example"]
    assert found["mail"]["commonHeaders"]["subject"] == "grüße"
    assert {"name": "Subject", "value": "=?utf-8?q?gr=C3=BC=C3=9Fe?="} in found["mail"]["headers"]
