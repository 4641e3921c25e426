"""What the simulator reports as SendGrid and as Mailgun, and how it signs."""

from __future__ import annotations

import hmac
from base64 import b64decode
from typing import Any

import orjson
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from deploy.local.simulator import mime
from deploy.local.simulator.behaviours import BEHAVIOURS, Step
from deploy.local.simulator.mailgun_events import MailgunEvents
from deploy.local.simulator.sendgrid_events import SendGridEvents
from deploy.local.simulator.submission import Submission
from deploy.local.simulator.webhooks import Reported

RAW = b"From: A <a@mailroom.example>\r\nTo: b@x.example\r\nSubject: s\r\n\r\nhttps://x.example/l\r\n"
TAGS = {"mailroom-message-id": "m-1", "mailroom-attempt-id": "a-1", "category": "notification"}
MAIL = Reported("id-1", Submission("A <a@mailroom.example>", ("b@x.example",), None, TAGS, RAW, mime.parse(RAW)))
KEY = ec.generate_private_key(ec.SECP256R1())
PEM = KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
).decode()
SENDGRID, MAILGUN = SendGridEvents(PEM), MailgunEvents("signing key")
NOW = 1_764_590_000.25


def told(reports: SendGridEvents | MailgunEvents, local: str) -> list[dict[str, Any]]:
    """All events of a mail to somebody."""
    events: list[dict[str, Any]] = []
    delivered = False
    for step in reports.steps(f"{local}@x.example"):
        data = reports.event(step, MAIL, f"{local}@x.example", NOW, late=delivered and step.kind == "Bounce")
        delivered |= step.kind == "Delivery"
        if data is not None:
            events.append(orjson.loads(data))
    return events


@pytest.mark.parametrize(
    ("local", "sendgrid", "mailgun"),
    [
        ("success", ["processed", "delivered"], ["accepted", "delivered"]),
        ("bounce", ["processed", "bounce"], ["accepted", "failed"]),
        ("suppressionlist", ["dropped"], ["accepted", "failed"]),
        ("reject", ["dropped"], ["accepted", "rejected"]),
        ("complaint", ["processed", "delivered", "spamreport"], ["accepted", "delivered", "complained"]),
        ("ooto", ["processed", "delivered"], ["accepted", "delivered"]),
        ("delay", ["processed", "deferred", "delivered"], ["accepted", "failed", "delivered"]),
        ("click", ["processed", "delivered", "open", "click"], ["accepted", "delivered", "opened", "clicked"]),
        ("unsubscribe", ["processed", "delivered", "unsubscribe"], ["accepted", "delivered", "unsubscribed"]),
        ("blackhole", [], []),
    ],
)
def test_the_address_chooses_what_is_told(local: str, sendgrid: list[str], mailgun: list[str]) -> None:
    assert [event["event"] for event in told(SENDGRID, local)] == sendgrid
    assert [event["event"] for event in told(MAILGUN, local)] == mailgun


@pytest.mark.parametrize("local", BEHAVIOURS)
def test_every_event_names_its_message_and_attempt_as_the_provider_returns_them(local: str) -> None:
    for event in told(MAILGUN, local):
        assert event["user-variables"] == {"mailroom_message_id": "m-1", "mailroom_attempt_id": "a-1"}
        assert event["message"]["headers"]["message-id"] == "id-1"
    for event in told(SENDGRID, local):
        if local == "latebounce" and event["event"] == "bounce":
            continue
        assert (event["mailroom_message_id"], event["mailroom_attempt_id"]) == ("m-1", "a-1")
        assert event["sg_message_id"].partition(".")[0] == "id-1"
        assert event["category"] == "notification"


def test_a_delayed_bounce_names_an_address_and_nothing_else_at_sendgrid() -> None:
    late = told(SENDGRID, "latebounce")[-1]
    assert (late["email"], late["sg_message_id"]) == ("latebounce@x.example", None)
    assert "mailroom_message_id" not in late
    assert told(MAILGUN, "latebounce")[-1]["flags"]["is-delayed-bounce"] is True
    assert told(MAILGUN, "latebounce")[-1]["envelope"] == {}


def test_earlier_bounces_and_machine_opens_are_marked_as_each_provider_marks_them() -> None:
    assert told(SENDGRID, "suppressionlist")[0]["reason"] == "Bounced Address"
    assert told(MAILGUN, "suppressionlist")[-1]["delivery-status"]["code"] == 605
    assert [event.get("sg_machine_open") for event in told(SENDGRID, "machine-open")] == [None, None, True]
    assert told(MAILGUN, "machine-open")[-1]["client-info"]["bot"] == "gmail"


def test_sendgrid_signs_the_time_and_every_byte_of_the_batch() -> None:
    event = SENDGRID.event(Step("Delivery"), MAIL, "b@x.example", NOW, late=False)
    assert event is not None
    post = SENDGRID.post([event, event], NOW)
    assert post.body.endswith(b"]\r\n")
    assert b"},\r\n{" in post.body
    assert len(orjson.loads(post.body)) == 2
    signature = b64decode(post.headers["X-Twilio-Email-Event-Webhook-Signature"])
    signed = post.headers["X-Twilio-Email-Event-Webhook-Timestamp"].encode() + post.body
    KEY.public_key().verify(signature, signed, ec.ECDSA(hashes.SHA256()))
    with pytest.raises(InvalidSignature):
        KEY.public_key().verify(signature, signed.rstrip(), ec.ECDSA(hashes.SHA256()))


def test_mailgun_signs_time_and_token_and_not_the_body() -> None:
    event = MAILGUN.event(Step("Delivery"), MAIL, "b@x.example", NOW, late=False)
    assert event is not None
    body = orjson.loads(MAILGUN.post([event], NOW).body)
    assert body["event-data"] == orjson.loads(event)
    block = body["signature"]
    assert len(block["token"]) == 50
    signed = f"{block['timestamp']}{block['token']}".encode()
    assert hmac.new(b"signing key", signed, "sha256").hexdigest() == block["signature"]


@pytest.mark.parametrize("key", ["", "key", PEM.replace("A", "B")])
def test_a_key_that_sendgrid_cannot_sign_with_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        SendGridEvents(key)
