"""Mailgun's webhooks: its events, one a call, and its signature, which leaves the body out.

Sources: mailgun/documentation `api-events.rst`, `user_manual.rst` ("Securing Webhooks").
"""

import hmac
import secrets
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import orjson

from deploy.local.simulator import behaviours
from deploy.local.simulator.behaviours import SEND, Step
from deploy.local.simulator.events import PERSON, PROXY
from deploy.local.simulator.mime import bare_address, first_link
from deploy.local.simulator.webhooks import Post, Reported

_FAILURES = {
    "permanent": ("permanent", "bounce", 550, "5.1.1", "5.1.1 user unknown"),
    "transient": ("temporary", "generic", 452, "4.2.2", "4.2.2 mailbox full"),
    "undetermined": ("permanent", "generic", 550, "5.0.0", "5.0.0 something went wrong"),
    "suppressed": ("permanent", "suppress-bounce", 605, "", "Not delivering to previously bounced address"),
}
"""By the variant of a bounce: severity, reason, and of the delivery status code, enhanced code and message."""


class MailgunEvents:
    """See `webhooks.Reports`."""

    most_events = 1
    stops = frozenset({406})

    def __init__(self, key: str) -> None:
        """`key`: the HTTP webhook signing key."""
        self._key = key.encode()

    def steps(self, recipient: str) -> tuple[Step, ...]:
        if behaviours.local_name(recipient) in behaviours.SILENT:
            return ()
        return (SEND, *behaviours.steps(recipient))

    def event(self, step: Step, mail: Reported, recipient: str, now: float, *, late: bool) -> bytes | None:
        own = _event(step, mail)
        if own is None:
            return None
        submission = mail.submission
        variables = {name.replace("-", "_"): value for name, value in submission.tags.items() if name != "category"}
        sender = bare_address(submission.source)
        data: dict[str, Any] = {
            "id": secrets.token_urlsafe(16),
            "timestamp": round(now, 6),
            "log-level": "info",
            "recipient": recipient,
            "recipient-domain": recipient.rpartition("@")[2],
            "tags": [submission.tags["category"]] if "category" in submission.tags else [],
            "campaigns": [],
            "user-variables": variables,
            "flags": {"is-routed": False, "is-authenticated": True, "is-system-test": False, "is-test-mode": False},
            "message": {
                "headers": {
                    "to": submission.parsed.first("to") or recipient,
                    "message-id": mail.provider_message_id,
                    "from": submission.parsed.first("from") or sender,
                    "subject": submission.parsed.first("subject") or "",
                },
                "attachments": [],
                "size": len(submission.raw),
            },
            "envelope": {"transport": "smtp", "sender": sender, "sending-ip": "192.0.2.10", "targets": recipient},
        }
        if step.kind in ("Reject", "Rendering Failure"):
            del data["recipient"]
        if late:
            data["flags"]["is-delayed-bounce"] = True
            data["envelope"] = {}
        return orjson.dumps({**data, **own})

    def post(self, events: Sequence[bytes], now: float) -> Post:
        timestamp, token = str(int(now)), uuid4().hex + secrets.token_hex(9)
        signature = hmac.new(self._key, f"{timestamp}{token}".encode(), "sha256").hexdigest()
        block = orjson.dumps({"timestamp": timestamp, "token": token, "signature": signature})
        body = b'{"signature":' + block + b',"event-data":' + events[0] + b"}"
        return Post({"Content-Type": "application/json"}, body)


def _event(step: Step, mail: Reported) -> dict[str, Any] | None:
    """What an event has beside the common fields; None where Mailgun has none of this kind."""
    match step:
        case Step("Send"):
            return {"event": "accepted", "method": "HTTP", "delivery-status": None}
        case Step("Delivery"):
            return {"event": "delivered", "delivery-status": _status(250, "2.0.0", "OK")}
        case Step("DeliveryDelay"):
            status = {**_status(421, "4.4.1", "unable to connect"), "retry-seconds": 600}
            return {"event": "failed", "severity": "temporary", "reason": "generic", "delivery-status": status}
        case Step("Bounce", variant) if variant in _FAILURES:
            severity, reason, code, enhanced, message = _FAILURES[variant]
            status = _status(code, enhanced, message)
            return {"event": "failed", "severity": severity, "reason": reason, "delivery-status": status}
        case Step("Reject") | Step("Rendering Failure"):
            return {"event": "rejected", "reject": {"reason": "Bad content", "description": ""}}
        case Step("Complaint", "abuse"):
            return {"event": "complained"}
        case Step("Open", variant):
            return {"event": "opened", **_reader(*(PROXY if variant == "proxy" else PERSON), variant)}
        case Step("Click"):
            return {"event": "clicked", "url": first_link(mail.submission.raw), **_reader(*PERSON, "person")}
        case Step("Subscription"):
            return {"event": "unsubscribed", **_reader(*PERSON, "person")}
        case _:
            return None


def _status(code: int, enhanced: str, message: str) -> dict[str, Any]:
    return {
        "code": code,
        "enhanced-code": enhanced,
        "message": message,
        "description": "",
        "attempt-no": 1,
        "mx-host": "mx.mailroom-simulator.example",
        "tls": True,
    }


def _reader(ip: str, agent: str, variant: str) -> dict[str, Any]:
    bot = "gmail" if variant == "proxy" else ""
    return {"ip": ip, "client-info": {"client-type": "browser", "user-agent": agent, "bot": bot}}
