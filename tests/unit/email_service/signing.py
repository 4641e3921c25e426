"""Providers that sign what they POST, as each documents it."""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from contracts.base import format_time
from services.kit.errors import Unavailable

NOW = datetime(2026, 11, 24, 10, 25, tzinfo=UTC)
DAY = timedelta(days=1)

TOPIC = "arn:aws:sns:eu-central-1:123456789012:mailroom-production"
CERTIFICATE_URL = (
    "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem"
)

SIGNED = ("Message", "MessageId", "Subject", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")
"""Of a notification and of a confirmation together, in the order in which SNS signs them."""


@cache
def rsa_key(_which: str) -> rsa.RSAPrivateKey:
    """One of SNS's keys, by any name."""
    return rsa.generate_private_key(65537, 2048)


@cache
def certificate(which: str = "sns", days: int = 365) -> x509.Certificate:
    """A certificate of that key, valid from a day before `NOW`."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
    key = rsa_key(which)
    built = x509.CertificateBuilder(name, name, key.public_key(), 1, NOW - DAY, NOW - DAY + timedelta(days=days))
    return built.sign(key, SHA256())


def sns_envelope(message: Any = '{"eventType": "Bounce"}\n', **changes: Any) -> dict[str, Any]:
    """A notification as SNS writes it, not signed; None takes a field out."""
    envelope = {
        "Type": "Notification",
        "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
        "TopicArn": TOPIC,
        "Message": message,
        "Timestamp": "2026-11-24T10:24:58.123Z",
        "UnsubscribeURL": "https://sns.eu-central-1.amazonaws.com/?Action=Unsubscribe",
        "SigningCertURL": CERTIFICATE_URL,
    } | changes
    return {name: value for name, value in envelope.items() if value is not None}


def confirmation(kind: str = "SubscriptionConfirmation", **changes: Any) -> dict[str, Any]:
    """What SNS sends before it sends anything else."""
    url = f"https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn={TOPIC}"
    return sns_envelope("You have chosen to subscribe …", Type=kind, Token="t" * 64, SubscribeURL=url, **changes)


def sns_signed(envelope: Mapping[str, Any], version: str = "2", which: str = "sns", **after: Any) -> bytes:
    """The POST's body; `after`: what is changed once it was signed."""
    text = "".join(f"{name}\n{envelope[name]}\n" for name in SIGNED if name in envelope)
    signature = rsa_key(which).sign(text.encode(), padding.PKCS1v15(), SHA1() if version == "1" else SHA256())  # noqa: S303
    signed = {**envelope, "SignatureVersion": version, "Signature": b64encode(signature).decode()} | after
    return json.dumps({name: value for name, value in signed.items() if value is not None}).encode()


@cache
def sendgrid_key(_which: str) -> ec.EllipticCurvePrivateKey:
    """The key of one of SendGrid's webhooks, by any name."""
    return ec.generate_private_key(ec.SECP256R1())


def sendgrid_public(which: str) -> str:
    """Its public half as SendGrid shows it."""
    public = sendgrid_key(which).public_key()
    return b64encode(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()


def sendgrid_signed(body: bytes, at: datetime = NOW, which: str = "first") -> dict[str, str]:
    """The headers of a POST of SendGrid."""
    timestamp = str(int(at.timestamp()))
    signature = sendgrid_key(which).sign(timestamp.encode() + body, ec.ECDSA(SHA256()))
    return {
        "X-Twilio-Email-Event-Webhook-Signature": b64encode(signature).decode(),
        "X-Twilio-Email-Event-Webhook-Timestamp": timestamp,
    }


MAILGUN_KEY = "0123456789abcdef0123456789abcdef"
MAILGUN_TOKEN = "5f" * 25


def mailgun_signature(token: str = MAILGUN_TOKEN, at: datetime = NOW, key: str = MAILGUN_KEY) -> dict[str, str]:
    """The `signature` of a POST of Mailgun."""
    timestamp = str(int(at.timestamp()))
    signature = hmac.new(key.encode(), (timestamp + token).encode(), hashlib.sha256).hexdigest()
    return {"timestamp": timestamp, "token": token, "signature": signature}


def mailgun_body(signature: Mapping[str, str] | None = None, **event: Any) -> bytes:
    """A POST's body with one event."""
    found = {"event": "delivered", "id": "CPgfbmQMTCKtHW6uIWtuVe", "timestamp": 1764000000.123, **event}
    return json.dumps({"signature": signature or mailgun_signature(), "event-data": found}).encode()


def timestamp(at: datetime) -> str:
    """As SNS writes it."""
    return format_time(at)


class Certificates:
    """SNS's certificates by URL; remembers what was asked for."""

    def __init__(self, which: str = "sns") -> None:
        self.asked: list[str] = []
        self.found: dict[str, x509.Certificate] = {CERTIFICATE_URL: certificate(which)}
        self.away = False

    async def __call__(self, url: str) -> x509.Certificate:
        self.asked.append(url)
        if self.away or url not in self.found:
            raise Unavailable("SNS", "its certificate cannot be fetched")
        return self.found[url]
