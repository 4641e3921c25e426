"""Translate events of SendGrid's Event Webhook into facts: pure, total over what SendGrid documents, strict about the
rest. From SendGrid's documentation, not tried live.

A webhook posts an array; a notification is one of its elements. Our custom arguments are top-level fields of it, beside
SendGrid's own, which win where names are equal. Source: Twilio SendGrid's documentation, "Event Webhook Reference".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from contracts.base import EventData
from contracts.email import events as facts
from services.email.adapters.reading import from_epoch, text
from services.email.adapters.reports import Report, by_what_it_says
from services.email.domain.correlation import ATTEMPT_VARIABLE, MESSAGE_VARIABLE, Correlation
from services.email.domain.delayed_bounces import DelayedBounce
from services.email.domain.engagement import is_machine
from services.email.domain.notifications import Delivered, InboundMail, Json, Translation
from services.kit.errors import PermanentError
from services.kit.notifications import read_object

REVISION = 1
"""Of this translator. Raise it when the facts made of an event change: the newer fact then replaces the older."""

PROVIDER = "sendgrid"


def unwrap(raw: bytes | str, *, sqs_message_id: str | None = None, sqs_sent: str | None = None) -> Delivered:
    """One element of the array that SendGrid posts; SQS has no part in it. Raises PermanentError: `notJson`,
    `notAnObject`.
    """
    event = read_object(raw)
    return Delivered(event, text(event.get("sg_event_id")) or sqs_message_id)


def correlate(event: Json) -> Correlation | None:
    """The message and attempt that our custom arguments name. A delayed bounce has none."""
    message_id = text(event.get(MESSAGE_VARIABLE))
    return None if message_id is None else Correlation(message_id, text(event.get(ATTEMPT_VARIABLE)))


def provider_message_id(event: Json) -> str | None:
    """What the call's X-Message-Id was: `sg_message_id` up to its first dot. A delayed bounce has none (null or "")."""
    found = text(event.get("sg_message_id"))
    return None if found is None else text(found.partition(".")[0])


def without_message(event: Json) -> str | None:
    """Why nothing that Mailroom keeps follows, whichever message it is about; None where it is one of the types that
    become facts. Raises PermanentError `malformed`: it has no type, so it is no event of SendGrid's.
    """
    kind = _kind(event)
    if kind in _READERS:
        return None
    if kind == "group_resubscribe":
        return "somebody came back to a group of SendGrid's; Mailroom lifts no suppression for that"
    return f"SendGrid event type {kind[:40]!r} is not known here: it is kept raw"


def delayed_bounce(event: Json) -> DelayedBounce | None:
    """A bounce that SendGrid hears of long after the delivery: of all that could tell whose it is, it has the address
    alone. Raises PermanentError `badTime`.
    """
    address = text(event.get("email"))
    if _kind(event) != "bounce" or address is None:
        return None
    return DelayedBounce(address, from_epoch(event.get("timestamp")))


def inbound_mail(_event: Json) -> InboundMail | None:
    """None: what SendGrid receives comes through another webhook of its own."""
    return None


def translate_sendgrid(delivered: Delivered, correlation: Correlation) -> Translation:
    """Turn one event into its fact.

    Args:
        delivered: the event.
        correlation: the message and attempt it is about; found by the caller.

    Returns:
        One fact, or a sentence that says why there is none.

    Raises:
        PermanentError: `malformed`, `badTime`, `noRecipient`: the event contradicts SendGrid's documentation.
    """
    event = delivered.notification
    if event is None:
        return Translation((), delivered.why_none)
    why = without_message(event)
    if why is not None:
        return Translation((), why)
    at = from_epoch(event.get("timestamp"))
    event_id = text(event.get("sg_event_id"))
    said = (text(event.get(name)) for name in ("url", "ip", "useragent"))
    report = Report(
        provider=PROVIDER,
        revision=REVISION,
        at=at,
        reported=text(event.get("email")),
        provider_message_id=provider_message_id(event),
        distinct=(event_id,) if event_id else by_what_it_says(at, *said),
        correlation=correlation,
    )
    kind = _kind(event)
    try:
        return Translation((report.fact(_READERS[kind](report, event)),))
    except ValueError as error:
        raise PermanentError("malformed", f"{kind}: {type(error).__name__}") from error


class SendGridNotifications:
    """The `NotificationFormat` of SendGrid's Event Webhook."""

    provider = PROVIDER
    respells = True
    unwrap = staticmethod(unwrap)
    correlate = staticmethod(correlate)
    provider_message_id = staticmethod(provider_message_id)
    without_message = staticmethod(without_message)
    delayed_bounce = staticmethod(delayed_bounce)
    inbound_mail = staticmethod(inbound_mail)
    translate = staticmethod(translate_sendgrid)


# --- the types that become facts ----------------------------------------------------------------------------------


def _processed(report: Report, _: Json) -> EventData:
    return facts.EmailSendConfirmed(**report.common())


def _deferred(report: Report, event: Json) -> EventData:
    return facts.EmailDeliveryDelayed(
        **report.common(),
        delay_type=text(event.get("bounce_classification")) or "Undetermined",
        # The documentation contradicts itself: the server's answer is in the one or in the other.
        diagnostic_code=text(event.get("response")) or text(event.get("reason")),
    )


def _delivered(report: Report, event: Json) -> EventData:
    return facts.EmailDelivered(**report.common(), smtp_response=text(event.get("response")))


def _bounce(report: Report, event: Json) -> EventData:
    said = text(event.get("type"))
    kind: facts.BounceType = _BOUNCES.get((said or "").lower(), "undetermined")
    status = text(event.get("status"))
    if kind == "permanent" and status is not None and status.startswith("4."):  # RFC 3463: for now only
        kind = "transient"
    return facts.EmailBounced(
        **report.common(),
        bounce_type=kind,
        bounce_sub_type=text(event.get("bounce_classification")) or said or "Undetermined",
        status=status,
        diagnostic_code=text(event.get("reason")),
    )


def _dropped(report: Report, event: Json) -> EventData:
    reason = text(event.get("reason"))
    suppressed_for = _SUPPRESSIONS.get((reason or "").strip().lower())
    if suppressed_for is None:
        return facts.EmailRejected(**report.common(), reason=reason or "dropped")
    return facts.EmailRejected(**report.common(), reason=facts.SUPPRESSED, detail=reason, suppressed_for=suppressed_for)


def _open(report: Report, event: Json) -> EventData:
    agent = text(event.get("useragent"))
    return facts.EmailOpened(
        **report.common(),
        user_agent=agent,
        ip_address=text(event.get("ip")),
        machine=event.get("sg_machine_open") is True or is_machine(agent),
    )


def _click(report: Report, event: Json) -> EventData:
    agent = text(event.get("useragent"))
    return facts.EmailClicked(
        **report.common(),
        link=text(event.get("url")),
        user_agent=agent,
        ip_address=text(event.get("ip")),
        machine=is_machine(agent),
    )


def _spam_report(report: Report, _: Json) -> EventData:
    return facts.EmailComplained(**report.common())


def _unsubscribe(report: Report, _: Json) -> EventData:
    # Which of our lists a group of SendGrid's stands for is not known here, so who leaves one leaves all marketing.
    return facts.EmailUnsubscribed(**report.common(), source="provider")


_READERS: Final[dict[str, Callable[[Report, Json], EventData]]] = {
    "processed": _processed,
    "deferred": _deferred,
    "delivered": _delivered,
    "bounce": _bounce,
    "dropped": _dropped,
    "open": _open,
    "click": _click,
    "spamreport": _spam_report,
    "unsubscribe": _unsubscribe,
    "group_unsubscribe": _unsubscribe,
}
_BOUNCES: Final[dict[str, facts.BounceType]] = {"bounce": "permanent", "blocked": "transient"}
_SUPPRESSIONS: Final[dict[str, facts.SuppressedFor]] = {
    "bounced address": "bounce",
    "spam reporting address": "complaint",
    "unsubscribed address": "unsubscribe",
}


def _kind(event: Json) -> str:
    kind = text(event.get("event"))
    if kind is None:
        raise PermanentError("malformed", "`event` is missing: not an event of SendGrid's")
    return kind.lower()
