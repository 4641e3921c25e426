"""Events as Mailgun's webhooks post them, for tests; made by us after the fields in Mailgun's documentation."""

from __future__ import annotations

from typing import Any

from tests.unit.email_service.ses_examples import ATTEMPT_ID, MESSAGE_ID, RECIPIENT

THEIR_ID = "20261124100000.1.AB12CD34@mg.example.org"
BROWSER = {"client-type": "browser", "user-agent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/130.0", "bot": ""}

COMMON: dict[str, Any] = {
    "id": "Ase7i2zsRYeDXztHGENqRA",
    "timestamp": 1795514400.873109,
    "log-level": "info",
    "recipient": RECIPIENT,
    "tags": ["notification"],
    "message": {"headers": {"to": RECIPIENT, "message-id": THEIR_ID, "from": "noreply@example.org", "subject": "Hi"}},
    "user-variables": {"mailroom_message_id": MESSAGE_ID, "mailroom_attempt_id": ATTEMPT_ID},
    "flags": {"is-test-mode": False},
}

EVENTS: dict[str, dict[str, Any]] = {
    "accepted": {"method": "HTTP", "delivery-status": None},
    "rejected": {"reject": {"reason": "Virus found", "description": "Eicar"}, "recipient": None},
    "delivered": {"delivery-status": {"code": 250, "message": "OK", "description": "", "attempt-no": 1, "tls": True}},
    "failed": {
        "severity": "permanent",
        "reason": "bounce",
        "delivery-status": {
            "code": 550,
            "message": "5.1.1 user unknown",
            "enhanced-code": "5.1.1",
            "bounce-type": "hard",
            "attempt-no": 1,
        },
    },
    "opened": {"ip": "192.0.2.1", "client-info": BROWSER, "geolocation": {"country": "AT"}},
    "clicked": {"ip": "192.0.2.1", "client-info": BROWSER, "url": "https://example.com/"},
    "unsubscribed": {"ip": "192.0.2.1", "client-info": BROWSER},
    "complained": {},
}


def event(kind: str, **changes: Any) -> dict[str, Any]:
    """One event of a type, some fields changed (`_` for `-`); None takes a field away unless it is null there."""
    value = {**COMMON, "event": kind, **EVENTS.get(kind.lower(), {})}
    value |= {name.replace("_", "-"): each for name, each in changes.items()}
    return {name: each for name, each in value.items() if each is not None or name == "delivery-status"}


def failure(**status: Any) -> dict[str, Any]:
    """A permanent failure without a reason, with this `delivery-status` (`_` for `-`)."""
    return event("failed", reason=None, delivery_status={name.replace("_", "-"): each for name, each in status.items()})


def posted(value: dict[str, Any]) -> dict[str, Any]:
    """The body of a webhook."""
    return {"signature": {"timestamp": "1795514401", "token": "t" * 50, "signature": "0" * 64}, "event-data": value}
