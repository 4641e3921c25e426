"""Events as SendGrid's Event Webhook posts them, for tests; made by us after the fields in SendGrid's documentation."""

from __future__ import annotations

from typing import Any

from tests.unit.email_service.ses_examples import ATTEMPT_ID, MESSAGE_ID, RECIPIENT

CALL_ID = "Xq3vT0mPRk6w7yZ2Lr9abc"
"""The X-Message-Id of the call."""

COMMON: dict[str, Any] = {
    "email": RECIPIENT,
    "timestamp": 1795514400,
    "smtp-id": "<Xq3vT0mPRk6w7yZ2Lr9abc@geopod-ismtpd-1>",
    "category": ["notification"],
    "sg_event_id": "ZGVsaXZlcmVkLTA",
    "sg_message_id": f"{CALL_ID}.recvd-5c4d-1-654321-12.0",
    "mailroom_message_id": MESSAGE_ID,
    "mailroom_attempt_id": ATTEMPT_ID,
}
BROWSER = "Mozilla/5.0 (X11; Linux x86_64) Firefox/130.0"

EVENTS: dict[str, dict[str, Any]] = {
    "processed": {"pool": {"name": "main", "id": 210}, "send_at": 1487700692.41447},
    "deferred": {"response": "451 4.7.1 greylisted, come back", "attempt": "5"},
    "delivered": {"response": "250 2.0.0 OK", "ip": "192.0.2.9", "tls": 1},
    "bounce": {
        "type": "bounce",
        "status": "5.1.1",
        "reason": "550 5.1.1 user unknown",
        "bounce_classification": "Invalid Address",
    },
    "dropped": {"reason": "Spam Content"},
    "open": {"useragent": BROWSER, "ip": "192.0.2.1", "sg_machine_open": False, "sg_content_type": "html"},
    "click": {
        "url": "https://example.com/",
        "url_offset": {"index": 0, "type": "html"},
        "useragent": BROWSER,
        "ip": "192.0.2.1",
    },
    "spamreport": {},
    "unsubscribe": {},
    "group_unsubscribe": {
        "asm_group_id": 10,
        "url": "https://example.com/asm",
        "ip": "192.0.2.1",
        "useragent": BROWSER,
    },
}


def event(kind: str, **changes: Any) -> dict[str, Any]:
    """One event of a type, some fields changed; None takes a field away."""
    value = {**COMMON, "event": kind, **EVENTS.get(kind, {}), **changes}
    return {name: each for name, each in value.items() if each is not None}


def delayed_bounce(sg_message_id: str | None) -> dict[str, Any]:
    """A bounce that came long after the delivery: it names nothing but the address."""
    found = event("bounce", mailroom_message_id=None, mailroom_attempt_id=None, category=None)
    return {**found, "sg_message_id": sg_message_id}
