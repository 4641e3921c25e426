"""Translate Mailgun's events into facts: pure, total over what Mailgun documents, strict about the rest. From Mailgun's
documentation, not tried live.

A webhook posts one event as `event-data` beside its `signature`; the events API gives the same object bare. The flat
form of before 2018 is not read. Source: Mailgun's documentation, "Webhooks" and "Events".
"""

from __future__ import annotations

from collections.abc import Callable
from email.utils import getaddresses
from typing import Final

from contracts.base import EventData
from contracts.email import events as facts
from services.email.adapters.reading import from_epoch, integer, text
from services.email.adapters.reports import Report, by_what_it_says
from services.email.domain.correlation import ATTEMPT_VARIABLE, MESSAGE_VARIABLE, Correlation
from services.email.domain.delayed_bounces import DelayedBounce
from services.email.domain.engagement import is_machine
from services.email.domain.notifications import Delivered, InboundMail, Json, Translation
from services.kit.errors import PermanentError
from services.kit.notifications import read_object

REVISION = 1
"""Of this translator. Raise it when the facts made of an event change: the newer fact then replaces the older."""

PROVIDER = "mailgun"


def unwrap(raw: bytes | str, *, sqs_message_id: str | None = None, sqs_sent: str | None = None) -> Delivered:
    """The event of a webhook's body, or a bare one; SQS has no part in it. Raises PermanentError: `notJson`,
    `notAnObject`, `malformed`.
    """
    value = read_object(raw)
    event = value.get("event-data", value)
    if not isinstance(event, dict):
        raise PermanentError("malformed", "`event-data` is not an object")
    return Delivered(event, text(event.get("id")) or sqs_message_id)


def correlate(event: Json) -> Correlation | None:
    """The message and attempt that our variables name. Mailgun may give a sentence in place of all variables, which
    says that it could not load them.
    """
    variables = _part(event, "user-variables")
    message_id = text(variables.get(MESSAGE_VARIABLE))
    return None if message_id is None else Correlation(message_id, text(variables.get(ATTEMPT_VARIABLE)))


def provider_message_id(event: Json) -> str | None:
    """What the call's answer said, without angle brackets. A delayed bounce may have none."""
    found = text(_headers(event).get("message-id"))
    return None if found is None else text(found.strip().removeprefix("<").removesuffix(">"))


def without_message(event: Json) -> str | None:
    """Why nothing that Mailroom keeps follows, whichever message it is about; None where it is one of the types that
    become facts. Raises PermanentError `malformed`: it has no type, so it is no event of Mailgun's.
    """
    kind = _kind(event)
    if kind in _READERS:
        return None
    if kind == "stored":
        return "Mailgun stored a message that came in"
    return f"Mailgun event type {kind[:40]!r} is not known here: it is kept raw"


def delayed_bounce(_event: Json) -> DelayedBounce | None:
    """None: no event is documented to come without Mailgun's id of the message, so none is looked for by address."""
    return None


def inbound_mail(_event: Json) -> InboundMail | None:
    """None: what Mailgun receives comes through routes of its own."""
    return None


def translate_mailgun(delivered: Delivered, correlation: Correlation) -> Translation:
    """Turn one event into its fact.

    Args:
        delivered: the event.
        correlation: the message and attempt it is about; found by the caller.

    Returns:
        One fact, or a sentence that says why there is none.

    Raises:
        PermanentError: `malformed`, `badTime`, `noRecipient`: the event contradicts Mailgun's documentation.
    """
    event = delivered.notification
    if event is None:
        return Translation((), delivered.why_none)
    why = without_message(event)
    if why is not None:
        return Translation((), why)
    at = from_epoch(event.get("timestamp"))
    event_id = text(event.get("id"))
    said = (text(event.get("url")), _ip(event), _client(event)[0])
    report = Report(
        provider=PROVIDER,
        revision=REVISION,
        at=at,
        reported=text(event.get("recipient")),
        provider_message_id=provider_message_id(event),
        # An id is unique within a day only.
        distinct=(event_id, at.date().isoformat()) if event_id else by_what_it_says(at, *said),
        correlation=correlation,
        addressed=_only_recipient(event),
    )
    kind = _kind(event)
    try:
        return Translation((report.fact(_READERS[kind](report, event)),))
    except ValueError as error:
        raise PermanentError("malformed", f"{kind}: {type(error).__name__}") from error


class MailgunNotifications:
    """The `NotificationFormat` of Mailgun's webhooks and events."""

    provider = PROVIDER
    respells = True
    unwrap = staticmethod(unwrap)
    correlate = staticmethod(correlate)
    provider_message_id = staticmethod(provider_message_id)
    without_message = staticmethod(without_message)
    delayed_bounce = staticmethod(delayed_bounce)
    inbound_mail = staticmethod(inbound_mail)
    translate = staticmethod(translate_mailgun)


# --- the types that become facts ----------------------------------------------------------------------------------


def _accepted(report: Report, _: Json) -> EventData:
    return facts.EmailSendConfirmed(**report.common())


def _rejected(report: Report, event: Json) -> EventData:
    reject = _part(event, "reject")
    return facts.EmailRejected(
        **report.common(),
        reason=text(reject.get("reason")) or text(event.get("reason")) or "rejected",
        detail=text(reject.get("description")),
    )


def _delivered(report: Report, event: Json) -> EventData:
    return facts.EmailDelivered(**report.common(), smtp_response=_answer(event))


def _failed(report: Report, event: Json) -> EventData:
    severity, reason = (text(event.get("severity")) or "").lower(), text(event.get("reason"))
    status = _part(event, "delivery-status")
    suppressed_for = _suppressed_for(reason, status)
    if suppressed_for is not None:
        return facts.EmailRejected(
            **report.common(),
            reason=facts.SUPPRESSED,
            detail=": ".join(each for each in (reason, _answer(event)) if each) or None,
            suppressed_for=suppressed_for,
        )
    if severity == "temporary":
        return facts.EmailDeliveryDelayed(
            **report.common(), delay_type=reason or "Undetermined", diagnostic_code=_answer(event)
        )
    if severity != "permanent":
        raise PermanentError("malformed", "`severity` of a failure is neither permanent nor temporary")
    enhanced = text(status.get("enhanced-code")) or text(status.get("bounce-code"))
    return facts.EmailBounced(
        **report.common(),
        bounce_type=_bounce_type(reason, enhanced, status),
        bounce_sub_type=reason or "Undetermined",
        status=enhanced,
        diagnostic_code=_answer(event),
    )


def _opened(report: Report, event: Json) -> EventData:
    agent, machine = _client(event)
    return facts.EmailOpened(**report.common(), user_agent=agent, ip_address=_ip(event), machine=machine)


def _clicked(report: Report, event: Json) -> EventData:
    agent, machine = _client(event)
    return facts.EmailClicked(
        **report.common(), link=text(event.get("url")), user_agent=agent, ip_address=_ip(event), machine=machine
    )


def _unsubscribed(report: Report, _: Json) -> EventData:
    return facts.EmailUnsubscribed(**report.common(), source="provider")


def _complained(report: Report, _: Json) -> EventData:
    return facts.EmailComplained(**report.common())


_READERS: Final[dict[str, Callable[[Report, Json], EventData]]] = {
    "accepted": _accepted,
    "rejected": _rejected,
    "delivered": _delivered,
    "failed": _failed,
    "opened": _opened,
    "clicked": _clicked,
    "unsubscribed": _unsubscribed,
    "complained": _complained,
}
_BY_REASON: Final[dict[str, facts.SuppressedFor]] = {
    "suppress-bounce": "bounce",
    "suppress-complaint": "complaint",
    "suppress-unsubscribe": "unsubscribe",
}
_BY_CODE: Final[dict[int, facts.SuppressedFor]] = {605: "bounce", 606: "unsubscribe", 607: "complaint"}
"""Mailgun's own codes, outside of SMTP: it did not try, since of the recipient it had heard that before."""


def _suppressed_for(reason: str | None, status: Json) -> facts.SuppressedFor | None:
    return _BY_REASON.get((reason or "").lower()) or _BY_CODE.get(integer(status.get("code")) or 0)


def _bounce_type(reason: str | None, enhanced: str | None, status: Json) -> facts.BounceType:
    """Permanent only where Mailgun says so of the address: its permanent failures hold those of mail that it tried for
    too long, and of mail that somebody did not want, as well.
    """
    said = (text(status.get("bounce-type")) or "").lower()
    code = integer(status.get("code")) or 0
    if said == "soft" or (enhanced or "").startswith("4.") or 400 <= code < 500:
        return "transient"
    return "permanent" if said == "hard" or (reason or "").lower() == "bounce" else "undetermined"


# --- reading ------------------------------------------------------------------------------------------------------


def _kind(event: Json) -> str:
    kind = text(event.get("event"))
    if kind is None:
        raise PermanentError("malformed", "`event` is missing: neither an event of Mailgun's nor one in event-data")
    return kind.lower()  # some come in capitals


def _part(value: Json, name: str) -> Json:
    """An object inside the event; empty where it is missing, null or something else."""
    found = value.get(name)
    return found if isinstance(found, dict) else {}


def _headers(event: Json) -> Json:
    return _part(_part(event, "message"), "headers")


def _only_recipient(event: Json) -> str | None:
    """Whom the To header names, if it is one alone: a `rejected` event has no recipient."""
    found = [address for _, address in getaddresses([text(_headers(event).get("to")) or ""]) if address]
    return found[0] if len(found) == 1 else None


def _answer(event: Json) -> str | None:
    """What the receiving server said, with its code; Mailgun's own words where it said nothing."""
    status = _part(event, "delivery-status")
    code, said = integer(status.get("code")), text(status.get("message")) or text(status.get("description"))
    return " ".join(each for each in (str(code) if code else None, said) if each) or None


def _client(event: Json) -> tuple[str | None, bool]:
    """The user agent, and whether a program it is: Mailgun names those that it knows in `bot`."""
    client = _part(event, "client-info")
    agent = text(client.get("user-agent"))
    return agent, text(client.get("bot")) is not None or is_machine(agent)


def _ip(event: Json) -> str | None:
    return text(event.get("ip")) or text(_part(event, "client-info").get("ip"))
