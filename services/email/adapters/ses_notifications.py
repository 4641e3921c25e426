"""Translate Amazon SES notifications into facts: pure, total over what SES documents, strict about the rest.

Source: Amazon SES Developer Guide, "Contents of event data that Amazon SES publishes to Amazon SNS" (`eventType`,
with tags) and "Amazon SNS notification contents for Amazon SES" (`notificationType`, without). Both forms of one
happening become the same fact with the same id. A fact's envelope is a function of its notification and of the ids
that the notification is about; no clock, no chance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from email.header import decode_header, make_header

from contracts.base import EventData
from contracts.email import events as facts
from contracts.envelope import Envelope
from contracts.ids import fact_id, millis_text
from contracts.registry import NAMES
from services.email.adapters.reading import integer, normal_form, text
from services.email.adapters.ses_transport import unwrap
from services.email.domain.correlation import ATTEMPT_HEADER, ATTEMPT_TAG, MESSAGE_HEADER, MESSAGE_TAG, Correlation
from services.email.domain.delayed_bounces import DelayedBounce
from services.email.domain.engagement import is_machine
from services.email.domain.notifications import Delivered, InboundMail, Json, Translation
from services.kit.errors import PermanentError
from services.kit.notifications import parse_time

REVISION = 1
"""Of this translator. Raise it when the facts made of a notification change: the newer fact then replaces the older."""

SOURCE = "/mailroom/email/ses"
PROVIDER = "ses"


@dataclass(frozen=True, slots=True)
class _Fact:
    """A fact before its envelope: what it says, when, and what tells it apart from others of its type."""

    data: EventData
    recipient: str
    at: datetime
    distinct: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Mail:
    """What every SES notification says of the message it is about."""

    provider_message_id: str
    sent_at: datetime | None
    destination: tuple[str, ...]
    attempt_id: str | None
    received_at: datetime | None

    def recipient(self, reported: object) -> tuple[str, str | None]:
        """The recipient whom a reported address stands for, and the reported spelling where it differs.

        We send with one envelope recipient, so whatever the receiving side reports is about that one.
        """
        address = normal_form(reported) if reported is not None else None
        if len(self.destination) == 1:
            only = self.destination[0]
            return only, None if address in (None, only) else str(reported).strip()
        if address is None:
            raise PermanentError("noRecipient", "the notification names no recipient")
        for known in self.destination:
            if known.lower() == address.lower():
                return known, None if known == address else str(reported).strip()
        return address, None

    def common(self, recipient: str, reported: str | None = None) -> Json:
        """The fields that every delivery fact has."""
        return {
            "recipient": recipient,
            "provider": PROVIDER,
            "provider_message_id": self.provider_message_id,
            "attempt_id": self.attempt_id,
            "reported_address": reported,
        }


def correlate(notification: Json) -> Correlation | None:
    """The message and attempt that a notification names by itself: by our tags, else by our headers."""
    mail = notification.get("mail")
    if not isinstance(mail, dict):
        return None
    tags = mail.get("tags")
    if isinstance(tags, dict) and (message_id := _first(tags.get(MESSAGE_TAG))):
        return Correlation(message_id, _first(tags.get(ATTEMPT_TAG)))
    listed = mail.get("headers")
    headers = {
        str(header.get("name", "")).lower(): header.get("value")
        for header in (listed if isinstance(listed, list) else ())
        if isinstance(header, dict)
    }
    if message_id := _first(headers.get(MESSAGE_HEADER.lower())):
        return Correlation(message_id, _first(headers.get(ATTEMPT_HEADER.lower())))
    return None


def provider_message_id(notification: Json) -> str:
    """SES's id of the message, by which a notification without our ids is looked up. Raises PermanentError `malformed`:
    SES always gives one.
    """
    mail = notification.get("mail")
    found = _first(mail.get("messageId")) if isinstance(mail, dict) else None
    if found is None:
        raise PermanentError("malformed", "it names no message id of SES's: not about a message")
    return found


def without_message(notification: Json) -> str | None:
    """Why a notification is about no message at all (SES says hello to a new topic), or None."""
    if _kind(notification) == "AmazonSnsSubscriptionSucceeded":
        return "SES confirming that it may publish to the topic"
    return None


def delayed_bounce(_notification: Json) -> DelayedBounce | None:
    """None: SES names its message always."""
    return None


def inbound_mail(notification: Json) -> InboundMail | None:
    """The mail that a receipt rule tells of, whatever its action; None for a notification of another type.

    Source: Amazon SES Developer Guide, "Contents of notifications for Amazon SES email receiving". Headers alone are
    read, never `content`, which only an SNS action sends along.

    Raises:
        PermanentError: `malformed`, `badTime`: it contradicts SES's documentation.
    """
    if _kind(notification) != "Received":
        return None
    mail = notification.get("mail")
    if not isinstance(mail, dict):
        raise PermanentError("malformed", "`mail` is missing")
    common = mail.get("commonHeaders")
    subject = text(common.get("subject")) if isinstance(common, dict) else None
    return InboundMail(parse_time(mail.get("timestamp")), _decoded(subject or ""))


def translate_ses(delivered: Delivered, correlation: Correlation) -> Translation:
    """Turn one notification into facts about one message.

    Args:
        delivered: the notification with what its transport knows.
        correlation: the message (and attempt) it is about; found by the caller.

    Returns:
        The facts, one per recipient (or per list left), or a sentence that says why there are none.

    Raises:
        PermanentError: `malformed…`, `badTime`, `noRecipient`: the notification contradicts SES's documentation.
    """
    notification = delivered.notification
    if notification is None:
        return Translation((), delivered.why_none)
    why = without_message(notification)
    if why is not None:
        return Translation((), why)
    kind = _kind(notification)
    read = _READERS.get(kind or "")
    if kind is None or read is None:
        return Translation((), f"SES notification type {kind!r} is not known here; kept raw" if kind else _NO_KIND)
    mail = _mail(notification, correlation, delivered.received_at)
    part = notification.get(_OBJECTS[kind])
    if part is None:
        part = {}
    if not isinstance(part, dict):
        raise PermanentError("malformed", f"`{_OBJECTS[kind]}` is not an object")
    try:
        found = tuple(_envelope(fact, mail, correlation) for fact in _distinct(read(mail, part)))
    except ValueError as error:
        raise PermanentError("malformed", f"{kind}: {type(error).__name__}") from error
    return Translation(found, None if found else f"a {kind} that changes nothing that Mailroom keeps")


class SesNotifications:
    """The `NotificationFormat` of Amazon SES."""

    provider = PROVIDER
    respells = False
    unwrap = staticmethod(unwrap)
    correlate = staticmethod(correlate)
    provider_message_id = staticmethod(provider_message_id)
    without_message = staticmethod(without_message)
    delayed_bounce = staticmethod(delayed_bounce)
    inbound_mail = staticmethod(inbound_mail)
    translate = staticmethod(translate_ses)


# --- the ten types ------------------------------------------------------------------------------------------------


def _send(mail: _Mail, _: Json) -> Iterator[_Fact]:
    if mail.sent_at is None:
        raise PermanentError("badTime", "a Send has no time but mail.timestamp, and that is missing")
    for recipient in mail.destination:
        yield _Fact(facts.EmailSendConfirmed(**mail.common(recipient)), recipient, mail.sent_at)


def _delivery(mail: _Mail, part: Json) -> Iterator[_Fact]:
    at = parse_time(part.get("timestamp"))
    for reported in _strings(part.get("recipients")) or mail.destination:
        recipient, spelling = mail.recipient(reported)
        data = facts.EmailDelivered(
            **mail.common(recipient, spelling),
            smtp_response=text(part.get("smtpResponse")),
            processing_time_ms=integer(part.get("processingTimeMillis")),
        )
        yield _Fact(data, recipient, at, (millis_text(at),))


def _bounce(mail: _Mail, part: Json) -> Iterator[_Fact]:
    at = parse_time(part.get("timestamp"))
    feedback = text(part.get("feedbackId"))
    overall = _BOUNCES.get(str(part.get("bounceType")).lower(), "undetermined")
    for entry in _objects(part.get("bouncedRecipients")) or [{}]:
        recipient, spelling = mail.recipient(entry.get("emailAddress"))
        status = text(entry.get("status"))
        # One permanent bounce can hold recipients with a 4.x.x status (RFC 3463): those come back for now only.
        kind = "transient" if overall == "permanent" and status and status.startswith("4.") else overall
        data = facts.EmailBounced(
            **mail.common(recipient, spelling),
            bounce_type=kind,  # type: ignore[arg-type]
            bounce_sub_type=text(part.get("bounceSubType")) or "Undetermined",
            status=status,
            diagnostic_code=text(entry.get("diagnosticCode")),
            feedback_id=feedback,
        )
        yield _Fact(data, recipient, at, (feedback or millis_text(at),))


def _complaint(mail: _Mail, part: Json) -> Iterator[_Fact]:
    at = parse_time(part.get("timestamp"))
    feedback, kind = text(part.get("feedbackId")), text(part.get("complaintFeedbackType"))
    model = facts.EmailComplaintWithdrawn if kind == "not-spam" else facts.EmailComplained
    reported = [entry.get("emailAddress") for entry in _objects(part.get("complainedRecipients"))]
    # SES lists everyone at the domain who may have complained; the call had one recipient, so it is that one.
    for address in reported or [None]:
        recipient, spelling = mail.recipient(address)
        data = model(
            **mail.common(recipient, spelling),
            feedback_type=kind,
            complaint_sub_type=text(part.get("complaintSubType")),
            feedback_id=feedback,
        )
        yield _Fact(data, recipient, at, (feedback or millis_text(at),))


def _reject(mail: _Mail, part: Json) -> Iterator[_Fact]:
    yield from _dropped(mail, text(part.get("reason")) or "rejected", None)


def _rendering_failure(mail: _Mail, part: Json) -> Iterator[_Fact]:
    yield from _dropped(mail, "renderingFailure", text(part.get("errorMessage")))


def _dropped(mail: _Mail, reason: str, detail: str | None) -> Iterator[_Fact]:
    at = mail.received_at or mail.sent_at
    if at is None:
        raise PermanentError("badTime", "neither SNS, SQS nor mail.timestamp tells when this was")
    for recipient in mail.destination:
        data = facts.EmailRejected(**mail.common(recipient), reason=reason, detail=detail)
        yield _Fact(data, recipient, at)


def _open(mail: _Mail, part: Json) -> Iterator[_Fact]:
    at = parse_time(part.get("timestamp"))
    agent, ip = text(part.get("userAgent")), text(part.get("ipAddress"))
    for recipient in mail.destination:
        data = facts.EmailOpened(**mail.common(recipient), user_agent=agent, ip_address=ip, machine=is_machine(agent))
        yield _Fact(data, recipient, at, (millis_text(at), ip or "", agent or ""))


def _click(mail: _Mail, part: Json) -> Iterator[_Fact]:
    at = parse_time(part.get("timestamp"))
    agent, ip, link = text(part.get("userAgent")), text(part.get("ipAddress")), text(part.get("link"))
    for recipient in mail.destination:
        data = facts.EmailClicked(
            **mail.common(recipient), link=link, user_agent=agent, ip_address=ip, machine=is_machine(agent)
        )
        yield _Fact(data, recipient, at, (millis_text(at), link or "", ip or "", agent or ""))


def _delay(mail: _Mail, part: Json) -> Iterator[_Fact]:
    at = parse_time(part.get("timestamp"))
    expires = part.get("expirationTime")
    for entry in _objects(part.get("delayedRecipients")) or [{}]:
        recipient, spelling = mail.recipient(entry.get("emailAddress"))
        data = facts.EmailDeliveryDelayed(
            **mail.common(recipient, spelling),
            delay_type=text(part.get("delayType")) or "Undetermined",
            diagnostic_code=text(entry.get("diagnosticCode")),
            expires_at=None if expires is None else parse_time(expires),
        )
        yield _Fact(data, recipient, at, (millis_text(at),))


def _subscription(mail: _Mail, part: Json) -> Iterator[_Fact]:
    at = parse_time(part.get("timestamp"))
    new = part.get("newTopicPreferences") or {}
    if not isinstance(new, dict):
        raise PermanentError("malformed", "`newTopicPreferences` is not an object")
    lists: list[str | None] = []
    if new.get("unsubscribeAll") is True:
        lists = [None]
    else:
        lists = [
            text(topic.get("topicName"))
            for topic in _objects(new.get("topicSubscriptionStatus"))
            if topic.get("subscriptionStatus") == "OptOut"
        ]
    for recipient in mail.destination:
        for list_id in lists:
            common = mail.common(recipient)
            data = facts.EmailUnsubscribed(**common, list_id=list_id, source="provider")
            yield _Fact(data, recipient, at, (list_id or "marketing", millis_text(at)))


_READERS: dict[str, Callable[[_Mail, Json], Iterator[_Fact]]] = {
    "Send": _send,
    "Delivery": _delivery,
    "Bounce": _bounce,
    "Complaint": _complaint,
    "Reject": _reject,
    "Rendering Failure": _rendering_failure,
    "Open": _open,
    "Click": _click,
    "DeliveryDelay": _delay,
    "Subscription": _subscription,
}
_OBJECTS = {
    "Send": "send",
    "Delivery": "delivery",
    "Bounce": "bounce",
    "Complaint": "complaint",
    "Reject": "reject",
    "Rendering Failure": "failure",
    "Open": "open",
    "Click": "click",
    "DeliveryDelay": "deliveryDelay",
    "Subscription": "subscription",
}
_BOUNCES = {"permanent": "permanent", "transient": "transient", "undetermined": "undetermined"}
_SEVERITY = {"permanent": 0, "undetermined": 1, "transient": 2}
_NO_KIND = "neither eventType nor notificationType: not an SES notification"


# --- reading ------------------------------------------------------------------------------------------------------


def _kind(notification: Json) -> str | None:
    return text(notification.get("eventType")) or text(notification.get("notificationType"))


def _mail(notification: Json, correlation: Correlation, received_at: datetime | None) -> _Mail:
    mail = notification.get("mail")
    if not isinstance(mail, dict):
        raise PermanentError("malformed", "`mail` is missing")
    message_id = text(mail.get("messageId"))
    if message_id is None:
        raise PermanentError("malformed", "`mail.messageId` is missing")
    destination = tuple(dict.fromkeys(normal_form(address) for address in _strings(mail.get("destination"))))
    if not destination:
        raise PermanentError("noRecipient", "`mail.destination` is empty")
    sent_at = mail.get("timestamp")
    return _Mail(
        message_id,
        None if sent_at is None else parse_time(sent_at),
        destination,
        correlation.attempt_id,
        received_at,
    )


def _distinct(found: Iterator[_Fact]) -> Iterator[_Fact]:
    """One fact per id: of several reports about one recipient (an alias that fans out) the most severe bounce."""
    by_id: dict[tuple[type, str, tuple[str, ...]], _Fact] = {}
    for fact in found:
        key = (type(fact.data), fact.recipient, fact.distinct)
        known = by_id.get(key)
        if known is None or _severity(fact.data) < _severity(known.data):
            by_id[key] = fact
    yield from by_id.values()


def _severity(data: EventData) -> int:
    return _SEVERITY[data.bounce_type] if isinstance(data, facts.EmailBounced) else 9


def _envelope(fact: _Fact, mail: _Mail, correlation: Correlation) -> Envelope:
    name = NAMES[type(fact.data)]
    return Envelope(
        id=fact_id(PROVIDER, mail.provider_message_id, name, fact.recipient, *fact.distinct),
        source=SOURCE,
        type=name,
        subject=correlation.message_id,
        time=fact.at,
        correlationid=correlation.message_id,
        causationid=correlation.attempt_id,
        revision=REVISION,
        data=fact.data,
    )


def _decoded(subject: str) -> str:
    """A header's value with encoded words (RFC 2047) decoded; as it is where they are broken."""
    if "=?" not in subject:
        return subject
    try:
        return str(make_header(decode_header(subject)))
    except (LookupError, ValueError):
        return subject


def _first(value: object) -> str | None:
    """SES gives tags as lists of one string; a bare string is taken as well."""
    if isinstance(value, list):
        value = value[0] if value else None
    return text(value)


def _strings(value: object) -> list[str]:
    return [item for item in value if isinstance(item, str) and item] if isinstance(value, list) else []


def _objects(value: object) -> list[Json]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
