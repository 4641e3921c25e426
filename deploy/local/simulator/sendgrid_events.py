"""SendGrid's Event Webhook: its events, its batches, its signature.

Sources: SendGrid's documentation, "Event Webhook Reference"; sendgrid-python `test_eventwebhook.py` for what is signed.
A bounce after a delivery names the address alone, as the documentation says of delayed ones.
"""

from base64 import b64encode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from deploy.local.simulator import behaviours
from deploy.local.simulator.behaviours import SEND, Step
from deploy.local.simulator.events import PERSON, PROXY
from deploy.local.simulator.mime import first_link
from deploy.local.simulator.webhooks import Post, Reported

MOST_EVENTS = 1000

_INSTEAD_OF_PROCESSED = ("Reject", "Rendering Failure")
_BOUNCES = {
    "permanent": ("bounce", "5.1.1", "550 5.1.1 user unknown", "Invalid Address"),
    "transient": ("blocked", "4.2.2", "452 4.2.2 mailbox full", "Mailbox Unavailable"),
    "undetermined": ("bounce", "5.0.0", "550 5.0.0 something went wrong", "Unclassified"),
}


class SendGridEvents:
    """See `webhooks.Reports`."""

    most_events = MOST_EVENTS
    stops = frozenset[int]()

    def __init__(self, key: str) -> None:
        """`key`: an EC private key on P-256, in PEM. Raises ValueError for what is none."""
        try:
            read = serialization.load_pem_private_key(key.encode(), None)
        except (TypeError, UnsupportedAlgorithm) as error:
            raise ValueError(f"not a private key in PEM: {error}") from None
        if not isinstance(read, ec.EllipticCurvePrivateKey) or not isinstance(read.curve, ec.SECP256R1):
            raise ValueError("SendGrid signs with an EC key on P-256")  # noqa: TRY004 - the key is text to its giver
        self._key = read

    def steps(self, recipient: str) -> tuple[Step, ...]:
        if behaviours.local_name(recipient) in behaviours.SILENT:
            return ()
        planned = behaviours.steps(recipient)
        dropped = planned[0].kind in _INSTEAD_OF_PROCESSED or planned[0].variant == "suppressed"
        return planned if dropped else (SEND, *planned)

    def event(self, step: Step, mail: Reported, recipient: str, now: float, *, late: bool) -> bytes | None:
        own = _event(step, mail)
        if own is None:
            return None
        common: dict[str, Any] = {"email": recipient, "timestamp": int(now), "sg_event_id": _id()}
        if late:
            return orjson.dumps({**common, **own, "sg_message_id": None})
        tags = dict(mail.submission.tags)
        category = tags.pop("category", None)
        if step.kind not in ("Open", "Click"):
            common["smtp-id"] = f"<{mail.provider_message_id}@geopod-ismtpd-1>"
        if category is not None:
            common["category"] = category
        common["sg_message_id"] = f"{mail.provider_message_id}.recvd-5f7c-1-0"
        arguments = {name.replace("-", "_"): value for name, value in tags.items()}
        # Names that SendGrid itself uses win.
        return orjson.dumps({**arguments, **common, **own})

    def post(self, events: Sequence[bytes], now: float) -> Post:
        body = b"[" + b",\r\n".join(events) + b"]\r\n"
        timestamp = str(int(now))
        signature = self._key.sign(timestamp.encode() + body, ec.ECDSA(hashes.SHA256()))
        headers = {
            "Content-Type": "application/json",
            "X-Twilio-Email-Event-Webhook-Signature": b64encode(signature).decode(),
            "X-Twilio-Email-Event-Webhook-Timestamp": timestamp,
        }
        return Post(headers, body)


def _event(step: Step, mail: Reported) -> dict[str, Any] | None:
    """What an event has beside the common fields; None where SendGrid has none of this kind."""
    match step:
        case Step("Send"):
            return {"event": "processed"}
        case Step("Delivery"):
            return {"event": "delivered", "response": "250 2.0.0 OK", "ip": "192.0.2.10", "tls": 1}
        case Step("DeliveryDelay"):
            return {"event": "deferred", "response": "421 4.4.1 unable to connect", "attempt": "1"}
        case Step("Bounce", "suppressed"):
            return {"event": "dropped", "reason": "Bounced Address", "status": "5.0.0"}
        case Step("Bounce", variant) if variant in _BOUNCES:
            kind, status, reason, classification = _BOUNCES[variant]
            more = {"type": kind, "status": status, "reason": reason, "bounce_classification": classification}
            return {"event": "bounce", **more}
        case Step("Reject"):
            return {"event": "dropped", "reason": "Spam Content"}
        case Step("Rendering Failure"):
            return {"event": "dropped", "reason": "Invalid SMTPAPI header"}
        case Step("Complaint", "abuse"):
            return {"event": "spamreport"}
        case Step("Open", variant):
            ip, agent = PROXY if variant == "proxy" else PERSON
            return {
                "event": "open",
                "useragent": agent,
                "ip": ip,
                "sg_machine_open": variant == "proxy",
                "sg_content_type": "html",
            }
        case Step("Click"):
            ip, agent = PERSON
            more = {"url": first_link(mail.submission.raw), "useragent": agent, "ip": ip}
            return {"event": "click", **more, "url_offset": {"index": 0, "type": "html"}}
        case Step("Subscription"):
            return {"event": "unsubscribe"}
        case _:
            return None


def _id() -> str:
    return urlsafe_b64encode(uuid4().bytes).decode().rstrip("=")
