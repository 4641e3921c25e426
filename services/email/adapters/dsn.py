"""Delivery status notifications as facts: what mail servers say of mail that went out by SMTP. Pure.

Sources: RFC 3464 (the report), RFC 3461 §4.4 (the envelope id), RFC 3463 (status codes), RFC 6522 (multipart/report),
RFC 6533 (the same with addresses beyond ASCII). No live server was tried.

Anybody can write to a mailbox. So nothing that comes is refused, which would park it or, in numbers, stop everything:
what is no report of a mail of ours becomes nothing, with a sentence why. And what a report says of a recipient counts
for the attempt's own recipient alone, whom the caller looks up (`Correlation.forgeable`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from email.parser import BytesParser, HeaderParser
from email.policy import compat32
from email.utils import parsedate_to_datetime
from typing import Literal

from contracts.addresses import normalise_address
from contracts.base import EventData, format_time, from_micros
from contracts.email import events as facts
from contracts.envelope import Envelope
from contracts.ids import fact_id, millis_text
from contracts.registry import NAMES
from services.email.domain.correlation import (
    ATTEMPT_HEADER,
    MESSAGE_HEADER,
    Correlation,
    from_envelope_id,
    from_return_address,
)
from services.email.domain.delayed_bounces import DelayedBounce
from services.email.domain.notifications import Delivered, InboundMail, Json, Translation
from services.kit.errors import PermanentError
from services.kit.notifications import parse_time

REVISION = 1
"""Of this translator. Raise it when the facts made of a report change: the newer fact then replaces the older."""

SOURCE = "/mailroom/email/smtp"
PROVIDER = "smtp"

MOST_BYTES = 200_000
"""Of a report that is read; what lies behind, the end of the mail that came back, is not looked at."""

MOST_BOUNDARIES = 20
"""Multiparts within a report. The parser holds each line against the boundary of each part around it, so that a mail
could be written that keeps it busy for minutes. A report has one, the mail that came back may have a few.
"""

MOST_RECIPIENTS = 100
"""Blocks of recipients that are read. A mail of ours has one recipient, and an alias a few."""

MOST_CHARACTERS = 1_000
"""Of any text that is kept."""

_LAST_YEAR = 9000

BounceType = Literal["permanent", "transient", "undetermined"]

_TO = ("to", "delivered-to", "x-original-to", "envelope-to", "x-envelope-to")
"""Where a mailbox notes to which address a mail came."""

_BOUNDARY = re.compile(rb"(?i)boundary[*0-9\s]*=")
_STATUS = re.compile(r"([245])\.(\d{1,3})\.(\d{1,3})")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]+")


# --- out of its wrapping -----------------------------------------------------------------------------------------


def unwrap(raw: bytes, *, sqs_message_id: str | None = None, sqs_sent: str | None = None) -> Delivered:
    """What a mail to the mailbox of bounces says: a JSON object of a report's fields, or why it is none of ours.

    Args:
        raw: the mail as it came, MIME.
        sqs_message_id: of the SQS message that it came in, if any.
        sqs_sent: when it was sent, milliseconds since the epoch in decimal: the time of a report that has none.

    Never raises.
    """
    received = (
        from_micros(int(sqs_sent) * 1000) if sqs_sent is not None and re.fullmatch("[0-9]{1,14}", sqs_sent) else None
    )
    try:
        found = _read(raw[:MOST_BYTES])
    except Exception as error:  # noqa: BLE001 - strangers write these, and the parser raises many things
        found = f"a mail that cannot be read ({type(error).__name__})"
    if isinstance(found, str):
        return Delivered(None, sqs_message_id, received, found)
    return Delivered(found, sqs_message_id, received)


def _read(raw: bytes) -> Json | str:
    if len(_BOUNDARY.findall(raw)) > MOST_BOUNDARIES:
        return "a mail of too many parts"
    mail = BytesParser(policy=compat32).parsebytes(raw)
    if mail.get_content_type() != "multipart/report":
        return "a mail that is no report"
    status = returned = None
    for part in _parts(mail):
        kind = part.get_content_type()
        if kind in ("message/delivery-status", "message/global-delivery-status"):
            status = status or _blocks(part)
        elif kind in ("message/rfc822", "text/rfc822-headers", "message/global", "message/global-headers"):
            returned = returned or _returned(part)
    if not status:
        return "a report of another kind than delivery status"
    of_message, *of_recipients = status
    ids = _ids(mail, of_message, returned)
    if ids is None:
        return "a report that names no mail of ours"
    return {
        "messageId": ids.message_id,
        "attemptId": ids.attempt_id,
        "reportId": _field(mail, "message-id"),
        "date": _time(_field(mail, "date")),
        "reportingMta": _typed(_field(of_message, "reporting-mta")),
        "recipients": [_recipient(block) for block in of_recipients[:MOST_RECIPIENTS]],
    }


def _parts(mail: Message) -> list[Message]:
    """The parts of a report. A report that somebody wrapped further is not looked into."""
    found = mail.get_payload()
    return [part for part in found if isinstance(part, Message)] if isinstance(found, list) else []


def _blocks(part: Message) -> list[Message]:
    """The groups of fields of a delivery status (RFC 3464 §2.1): of the message first, then of each recipient."""
    inner = part.get_payload()
    if part.get_content_type() == "message/delivery-status" and isinstance(inner, list):
        return [block for block in inner if isinstance(block, Message) and block.keys()]
    if isinstance(inner, list) and inner and isinstance(inner[0], Message):
        first, rest = inner[0], inner[0].get_payload()  # the parser takes the first group for a message's header
        groups = re.split(r"\n\s*\n", rest.replace("\r\n", "\n")) if isinstance(rest, str) else []
        return [first, *(block for group in groups if (block := HeaderParser().parsestr(group.strip())).keys())]
    return []


def _returned(part: Message) -> Message | None:
    """The header of the mail that came back."""
    inner = part.get_payload()
    if isinstance(inner, list):
        return next((each for each in inner if isinstance(each, Message)), None)
    body = part.get_payload(decode=True)
    return HeaderParser().parsestr(body.decode("utf-8", "replace")) if isinstance(body, bytes) else None


def _ids(mail: Message, of_message: Message, returned: Message | None) -> Correlation | None:
    """By the envelope id that came back, else by the address that the report was sent to, else by our header fields."""
    if found := from_envelope_id(_field(of_message, "original-envelope-id") or ""):
        return found
    for name in _TO:
        for value in mail.get_all(name, []):
            if found := from_return_address(str(value)):
                return found
    if returned is None:
        return None
    message_id, attempt_id = _field(returned, MESSAGE_HEADER) or "", _field(returned, ATTEMPT_HEADER) or ""
    if _UUID.fullmatch(message_id) and _UUID.fullmatch(attempt_id):
        return Correlation(message_id.lower(), attempt_id.lower(), forgeable=True)
    return None


def _recipient(block: Message) -> Json:
    return {
        "action": (_field(block, "action") or "").partition(" ")[0].lower(),
        "finalRecipient": _typed(_field(block, "final-recipient")),
        "originalRecipient": _typed(_field(block, "original-recipient")),
        "status": _status(block),
        "diagnosticCode": _typed(_field(block, "diagnostic-code")),
        "remoteMta": _typed(_field(block, "remote-mta")),
        "lastAttemptDate": _time(_field(block, "last-attempt-date")),
        "willRetryUntil": _time(_field(block, "will-retry-until")),
    }


def _status(block: Message) -> str | None:
    """Its status code; where a server gives only the general 5.0.0 or none, the one that its diagnostic begins with."""
    given = _STATUS.search(_field(block, "status") or "")
    if given is not None and given[2] != "0":
        return given[0]
    said = _typed(_field(block, "diagnostic-code")) or ""
    better = re.search(r"(?:^|[ -])([45]\.\d{1,3}\.\d{1,3})\b", said[:200])
    if better is not None and (given is None or better[1][0] == given[1]):
        return better[1]
    if given is not None:
        return given[0]
    plain = re.search(r"\b([45])\d\d\b", said[:200])
    return None if plain is None else f"{plain[1]}.0.0"


def _field(block: Message, name: str) -> str | None:
    """A field's text: on one line, short, nothing that cannot be stored. None where it is absent or empty."""
    value = block.get(name)
    if value is None:
        return None
    return _UNSAFE.sub(" ", re.sub(r"\s+", " ", str(value))).strip()[:MOST_CHARACTERS].strip() or None


def _typed(value: str | None) -> str | None:
    """What follows the type in `rfc822; jane@example.com`, without angle brackets around it."""
    if value is None:
        return None
    kind, semicolon, rest = value.partition(";")
    text = rest.strip() if semicolon and re.fullmatch(r"[A-Za-z0-9-]+\s*", kind) else value
    return (text[1:-1] if text.startswith("<") and text.endswith(">") else text) or None


def _time(value: str | None) -> str | None:
    """A date of RFC 5322 as our own JSON has it; None for what is none, or lies outside of all times that we handle."""
    if value is None:
        return None
    try:
        at = parsedate_to_datetime(value)
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
    return format_time(at) if 1970 <= at.year <= _LAST_YEAR else None


# --- what it is about --------------------------------------------------------------------------------------------


def correlate(notification: Json) -> Correlation | None:
    """The message and attempt that a report names; whoever wrote it may have read them in a mail of ours."""
    message_id, attempt_id = notification.get("messageId"), notification.get("attemptId")
    if isinstance(message_id, str) and isinstance(attempt_id, str):
        return Correlation(message_id, attempt_id, forgeable=True)
    return None


def provider_message_id(notification: Json) -> str | None:
    """None: a report is found by our ids or not at all."""
    return None


def without_message(notification: Json) -> str | None:
    """None: what is about no message of ours never became a notification."""
    return None


def delayed_bounce(_notification: Json) -> DelayedBounce | None:
    """None: it names our ids, or is about no mail of ours."""
    return None


def inbound_mail(notification: Json) -> InboundMail | None:
    """None: it is about a mail of ours."""
    return None


# --- what it becomes ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Fact:
    data: EventData
    at: datetime
    distinct: tuple[str, ...]


def translate_dsn(delivered: Delivered, correlation: Correlation) -> Translation:
    """Turn a report into facts about one recipient of one message.

    Args:
        delivered: what `unwrap` made.
        correlation: the message and attempt that it is about. Where its `recipient` was looked up, the facts are about
            that one, whatever the report says; else about whom the report names.

    Returns:
        At most one bounce, one delay and one delivery, or a sentence that says why there are none.

    Raises:
        PermanentError: `malformed`, `badTime`, `noRecipient`.
    """
    report = delivered.notification
    if report is None:
        return Translation((), delivered.why_none)
    blocks = report.get("recipients")
    if not isinstance(blocks, list):
        raise PermanentError("malformed", "`recipients` is not a list")
    chosen: dict[tuple[type[EventData], str], _Fact] = {}
    for block in blocks:
        for fact, recipient in _facts(block, report, delivered, correlation):
            known = chosen.get((type(fact.data), recipient))
            if known is None or _severity(fact.data) < _severity(known.data):
                chosen[type(fact.data), recipient] = fact
    found = tuple(_envelope(fact, recipient, correlation) for (_, recipient), fact in chosen.items())
    return Translation(found, None if found else "a report that changes nothing that Mailroom keeps")


def _facts(block: object, report: Json, delivered: Delivered, correlation: Correlation) -> Iterator[tuple[_Fact, str]]:
    if not isinstance(block, dict):
        raise PermanentError("malformed", "a recipient is not an object")
    action = block.get("action")
    if action not in ("failed", "delayed", "delivered"):
        return  # relayed, expanded: what becomes of it is told by others, or by nobody
    reported = _text(block.get("originalRecipient")) or _text(block.get("finalRecipient"))
    final = _text(block.get("finalRecipient")) or reported
    recipient = correlation.recipient or (None if reported is None else _normal(reported))
    if recipient is None:
        raise PermanentError("noRecipient", "the report names no recipient")
    at = _when(block, report, delivered)
    common: Json = {
        "recipient": recipient,
        "provider": PROVIDER,
        "attempt_id": correlation.attempt_id,
        "reported_address": None if final is None or _normal(final) == recipient else final,
    }
    diagnostic, status = _text(block.get("diagnosticCode")), _text(block.get("status"))
    millis = millis_text(at)
    if action == "delivered":
        yield _Fact(facts.EmailDelivered(**common, smtp_response=diagnostic), at, (millis,)), recipient
    elif action == "delayed":
        until = _text(block.get("willRetryUntil"))
        data = facts.EmailDeliveryDelayed(
            **common,
            delay_type=_delay_type(status),
            diagnostic_code=diagnostic,
            expires_at=None if until is None else parse_time(until),
        )
        yield _Fact(data, at, (millis,)), recipient
    else:
        bounce_type, sub_type = _bounce(status)
        report_id = _text(report.get("reportId"))
        bounced = facts.EmailBounced(
            **common,
            bounce_type=bounce_type,
            bounce_sub_type=sub_type,
            status=status,
            diagnostic_code=diagnostic,
            feedback_id=report_id,
        )
        yield _Fact(bounced, at, (report_id or millis,)), recipient


def _bounce(status: str | None) -> tuple[BounceType, str]:
    """By the class of a status code, in the words of SES's types. A failure for good that is about this one mail (its
    size, its content, a policy against us) or a full mailbox says nothing against the address: it is transient, so that
    nobody is suppressed for it.
    """
    found = None if status is None else _STATUS.fullmatch(status)
    if found is None:
        return "undetermined", "Undetermined"
    kind, subject, detail = found[1], int(found[2]), int(found[3])
    sub_type = "General"
    if (subject, detail) == (2, 2):
        sub_type = "MailboxFull"
    elif (subject, detail) in ((2, 3), (3, 4)):
        sub_type = "MessageTooLarge"
    elif subject in (6, 7):
        sub_type = "ContentRejected"
    elif subject == 1 and kind == "5":
        sub_type = "NoEmail"
    lasting = kind == "5" and sub_type in ("General", "NoEmail")
    return ("permanent" if lasting else "transient"), sub_type


def _delay_type(status: str | None) -> str:
    _, sub_type = _bounce(status)
    return sub_type if sub_type in ("MailboxFull", "General") else "Undetermined"


def _when(block: Json, report: Json, delivered: Delivered) -> datetime:
    for value in (block.get("lastAttemptDate"), report.get("date")):
        if value is not None:
            return parse_time(value)
    if delivered.received_at is None:
        raise PermanentError("badTime", "neither the report nor its transport tells when this was")
    return delivered.received_at


_SEVERITY = {"permanent": 0, "undetermined": 1, "transient": 2}


def _severity(data: EventData) -> int:
    return _SEVERITY[data.bounce_type] if isinstance(data, facts.EmailBounced) else 9


def _envelope(fact: _Fact, recipient: str, correlation: Correlation) -> Envelope:
    """A report does not know the server's own id of the mail: in a fact's id stands the attempt's."""
    name = NAMES[type(fact.data)]
    return Envelope(
        id=fact_id(PROVIDER, correlation.attempt_id or correlation.message_id, name, recipient, *fact.distinct),
        source=SOURCE,
        type=name,
        subject=correlation.message_id,
        time=fact.at,
        correlationid=correlation.message_id,
        causationid=correlation.attempt_id,
        revision=REVISION,
        data=fact.data,
    )


def _normal(address: str) -> str:
    try:
        return normalise_address(address)
    except ValueError:
        return address.strip()


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


class DsnNotifications:
    """The `NotificationFormat` of mail by SMTP: records whose header `source` is `smtp`, each one mail as it came."""

    provider = PROVIDER
    respells = False
    unwrap = staticmethod(unwrap)
    correlate = staticmethod(correlate)
    provider_message_id = staticmethod(provider_message_id)
    without_message = staticmethod(without_message)
    delayed_bounce = staticmethod(delayed_bounce)
    inbound_mail = staticmethod(inbound_mail)
    translate = staticmethod(translate_dsn)
