"""Whether a provider has signed a POST: on the bytes that came, pure, for each provider as it documents it.

    SNS         RSA over named fields, SHA-1 (version 1) or SHA-256 (version 2), by the certificate that the message
                names ("Verifying the signatures of Amazon SNS messages" in the Amazon SNS Developer Guide)
    SendGrid    ECDSA P-256 with SHA-256 over the timestamp and the body ("Event Webhook Security Features")
    Mailgun     HMAC-SHA256 over timestamp and token, **not over the body** ("Securing Webhooks")

Two keys may be good at a time, so that one can replace the other. None of this was tried against a live account.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import re
from base64 import b64decode
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, HashAlgorithm

from services.email.domain.notifications import Json
from services.email.domain.webhooks import TOPIC_ARN, Forged, Genuine, Post, Undecided, Verdict, of_age
from services.kit.errors import PermanentError
from services.kit.notifications import parse_time, read_object

SENDGRID_SIGNATURE = "x-twilio-email-event-webhook-signature"
SENDGRID_TIMESTAMP = "x-twilio-email-event-webhook-timestamp"

RAW_DELIVERY = "x-amz-sns-rawdelivery"

CONFIRMATIONS = frozenset({"SubscriptionConfirmation", "UnsubscribeConfirmation"})

_SIGNED = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    **dict.fromkeys(CONFIRMATIONS, ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")),
}
_OPTIONAL = frozenset({"Subject"})
_CERTIFICATE = ("SigningCertURL", "SigningCertUrl")
_HASHES: dict[str, HashAlgorithm] = {"1": SHA1(), "2": SHA256()}  # noqa: S303 - topics sign with SHA-1 unless told otherwise
_CERTIFICATE_PATH = r"/SimpleNotificationService-[0-9A-Za-z]+\.pem"
_UNIX_SECONDS = re.compile(r"[0-9]{10}")


# --- SNS -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SnsMessage:
    """A message that looks as SNS's do and is of a topic of ours; whether SNS signed it is still to be seen.

    Attributes:
        fields: those that its signature covers, and no others.
        at: its Timestamp.
        version: of its signature.
        certificate_url: where SNS has the certificate that it names: of the topic's own region, over https.
    """

    fields: dict[str, str]
    at: datetime
    version: str
    signature: bytes
    certificate_url: str

    @property
    def kind(self) -> str:
        """`Notification`, `SubscriptionConfirmation` or `UnsubscribeConfirmation`."""
        return self.fields["Type"]

    @property
    def signed_text(self) -> bytes:
        """What SNS has signed: name and value of each field, each with a newline behind it, the last one too."""
        return "".join(f"{name}\n{self.fields[name]}\n" for name in _SIGNED[self.kind] if name in self.fields).encode()


def read_sns(post: Post, topics: Collection[str], now: datetime, max_age: timedelta) -> SnsMessage | Forged | Undecided:
    """All that can be said without the certificate; nothing is to be fetched for what is refused here.

    A good signature proves only that some AWS account has sent it, so the topic comes first.
    """
    if post.headers.get(RAW_DELIVERY, "").lower() == "true":
        return Forged("rawDelivery", "raw message delivery has no signature: switch it off for this subscription")
    try:
        value = read_object(post.body)
    except PermanentError as error:
        return Forged(error.reason, "it is not a JSON object, as SNS's messages are")
    fields = _signed_fields(value)
    if isinstance(fields, Forged):
        return fields
    topic = fields["TopicArn"]
    if topic not in topics:
        return Forged("unknownTopic", "its topic is none of MAILROOM_SNS_TOPICS")
    url = next((value[name] for name in _CERTIFICATE if isinstance(value.get(name), str)), "")
    if not _is_certificate_url(url, topic):
        return Forged("strangeCertificate", "its certificate is not where SNS has those of the topic's region")
    version = value.get("SignatureVersion")
    if not isinstance(version, str) or version not in _HASHES:
        return Undecided("unknownVersion", f"signatures of versions {' and '.join(_HASHES)} can be verified here")
    signature = _base64(value.get("Signature"))
    if signature is None:
        return Forged("unsigned", "it has no signature in base64")
    try:
        at = parse_time(fields["Timestamp"])
    except PermanentError as error:
        return Forged(error.reason, "its Timestamp is no time")
    return of_age(at, now, max_age) or SnsMessage(fields, at, version, signature, url)


def verify_sns(message: SnsMessage, certificate: x509.Certificate) -> Verdict:
    """Whether the holder of `certificate`, which came from where the message says, has signed it."""
    key = certificate.public_key()
    if not isinstance(key, RSAPublicKey):
        return Undecided("certificate", "the certificate holds no RSA key")
    if not certificate.not_valid_before_utc <= message.at <= certificate.not_valid_after_utc:
        return Forged("certificateExpired", "it was signed at a time at which its certificate was not valid")
    try:
        key.verify(message.signature, message.signed_text, PKCS1v15(), _HASHES[message.version])
    except InvalidSignature:
        return Forged("badSignature", "its signature does not fit")
    return Genuine(f"sns-signature-{message.version}", message.at)


def _signed_fields(value: Json) -> dict[str, str] | Forged:
    kind = value.get("Type")
    names = _SIGNED.get(kind) if isinstance(kind, str) else None
    if names is None:
        return Forged("notSns", "its Type is none of SNS's")
    fields: dict[str, str] = {}
    for name in names:
        found = value.get(name)
        if isinstance(found, str):
            fields[name] = found
        elif found is not None or name not in _OPTIONAL:
            return Forged("notSns", f"{name} is not a text")
    return fields


def _is_certificate_url(url: str, topic: str) -> bool:
    found = TOPIC_ARN.fullmatch(topic)
    if found is None:
        return False
    partition, region = found.groups()
    host = f"sns.{region}.amazonaws.com{'.cn' if partition == 'aws-cn' else ''}"
    return re.fullmatch(f"https://{re.escape(host)}{_CERTIFICATE_PATH}", url) is not None


# --- SendGrid ------------------------------------------------------------------------------------------------------


def verify_sendgrid(post: Post, keys: Sequence[EllipticCurvePublicKey], now: datetime, max_age: timedelta) -> Verdict:
    """Whether the holder of one of `keys` has signed it. Every byte of the body counts, a newline at its end too."""
    timestamp, signature = post.headers.get(SENDGRID_TIMESTAMP), _base64(post.headers.get(SENDGRID_SIGNATURE))
    if timestamp is None or signature is None:
        return Forged("unsigned", "it has not both of SendGrid's headers: signature (in base64) and timestamp")
    signed = timestamp.encode() + post.body
    if not any(_fits(key, signature, signed) for key in keys):
        return Forged("badSignature", "its signature fits none of MAILROOM_SENDGRID_WEBHOOK_KEYS")
    at = _unix_time(timestamp)
    if at is None:
        return Forged("badTime", "its timestamp is not in seconds since 1970")
    return of_age(at, now, max_age) or Genuine("ecdsa-p256-sha256", at)


def _fits(key: EllipticCurvePublicKey, signature: bytes, signed: bytes) -> bool:
    try:
        key.verify(signature, signed, ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


# --- Mailgun -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MailgunSignature:
    """The `signature` of a POST of Mailgun. It says nothing of the rest of the body."""

    timestamp: str
    token: str
    signature: str

    @property
    def signed_text(self) -> str:
        """What Mailgun has signed, and what may be used once."""
        return self.timestamp + self.token


def read_mailgun(value: Json) -> MailgunSignature | None:
    """The signature in a body; None where it has none."""
    found = value.get("signature")
    if not isinstance(found, dict):
        return None
    timestamp, token, signature = (found.get(name) for name in ("timestamp", "token", "signature"))
    if not (isinstance(timestamp, str) and isinstance(token, str) and isinstance(signature, str) and token):
        return None
    return MailgunSignature(timestamp, token, signature)


def verify_mailgun(given: MailgunSignature, keys: Sequence[bytes], now: datetime, max_age: timedelta) -> Verdict:
    """Whether the holder of one of `keys` has signed timestamp and token.

    The two are signed without anything between them, so the timestamp has exactly ten digits: else digits could be
    moved from one to the other, and one signature would be good for several tokens.
    """
    signed, claimed = given.signed_text.encode(), given.signature.lower().encode()
    if not any(hmac.compare_digest(_hmac(key, signed), claimed) for key in keys):
        return Forged("badSignature", "its signature fits none of MAILROOM_MAILGUN_WEBHOOK_KEYS")
    at = _unix_time(given.timestamp)
    if at is None:
        return Forged("badTime", "its timestamp is not in seconds since 1970")
    return of_age(at, now, max_age) or Genuine("hmac-sha256-of-token", at)


def _hmac(key: bytes, signed: bytes) -> bytes:
    return hmac.new(key, signed, hashlib.sha256).hexdigest().encode()


# --- reading -------------------------------------------------------------------------------------------------------


def _base64(text: object) -> bytes | None:
    if not isinstance(text, str) or not text:
        return None
    try:
        return b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def _unix_time(text: str) -> datetime | None:
    return datetime.fromtimestamp(int(text), UTC) if _UNIX_SECONDS.fullmatch(text) else None
