"""What would a provider's raw notification become? For people at a terminal and for tests; touches nothing."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic_core import from_json, to_json

from services.email.adapters import dsn
from services.email.adapters.mailgun_notifications import MailgunNotifications
from services.email.adapters.sendgrid_notifications import SendGridNotifications
from services.email.adapters.ses_notifications import SesNotifications
from services.email.domain.correlation import Correlation
from services.email.domain.delayed_bounces import WINDOWS
from services.email.domain.notifications import Json
from services.email.ports import NotificationFormat
from services.kit.errors import PermanentError
from services.kit.explanation import Explanation


def explain_ses(raw: bytes, correlation: Correlation | None = None) -> Explanation:
    """Explain one notification: bare, in an SNS envelope, or an SQS message with `Body`.

    Args:
        raw: JSON bytes as they came.
        correlation: the message and attempt to use where the notification carries none.
    """
    return _explain(SesNotifications(), raw, correlation, "SES message id", "neither our tags nor our headers")


def explain_sendgrid(raw: bytes, correlation: Correlation | None = None) -> Explanation:
    """Explain what SendGrid's Event Webhook posted: an array of events, or one of them.

    Args:
        raw: JSON bytes as they came.
        correlation: the message and attempt to use for events that carry none.
    """
    try:
        value = from_json(raw)
    except ValueError as error:
        return Explanation((), f"it would be refused: it is no JSON: {error}", refused=True)
    if not isinstance(value, list | dict):
        return Explanation((), "it would be refused: SendGrid posts an array of events", refused=True)
    events = value if isinstance(value, list) else [value]
    if not events:
        return Explanation((), "it holds no event: an empty array")
    form = SendGridNotifications()
    return _together(
        [
            _explain(form, to_json(event), correlation, "sg_message_id", "none of our custom arguments")
            for event in events
        ]
    )


def explain_mailgun(raw: bytes, correlation: Correlation | None = None) -> Explanation:
    """Explain one event of Mailgun's: the body of a webhook, its `event-data`, or an item of the events API.

    Args:
        raw: JSON bytes as they came.
        correlation: the message and attempt to use where the event carries none.
    """
    return _explain(MailgunNotifications(), raw, correlation, "message-id", "none of our variables")


def _explain(
    form: NotificationFormat, raw: bytes, correlation: Correlation | None, their_id: str, ours: str
) -> Explanation:
    try:
        delivered = form.unwrap(raw)
        notification = delivered.notification
        why = delivered.why_none if notification is None else form.without_message(notification)
        if notification is None or why is not None:
            return Explanation((), why)
        if form.inbound_mail(notification) is not None:
            return Explanation(
                (),
                "a mail to us: the running service makes it an email.unsubscribed if the subject holds a valid token",
            )
        found = form.correlate(notification) or correlation
        if found is None:
            return Explanation((), _whose(form, notification, their_id, ours), refused=True)
        translation = form.translate(delivered, found)
    except PermanentError as error:
        return Explanation((), f"it would be parked: {error}", refused=True)
    return Explanation(tuple(fact.to_bytes().decode() for fact in translation.facts), translation.why_none)


def _whose(form: NotificationFormat, notification: Json, their_id: str, ours: str) -> str:
    provider_id = form.provider_message_id(notification)
    bounce = form.delayed_bounce(notification) if provider_id is None else None
    if bounce is not None:
        return (
            f"it carries {ours} and no {their_id}: the running service takes it for the one mail that {form.provider} "
            f"accepted for the address within {WINDOWS[form.provider].days} days before, or parks it as uncorrelated "
            "where that is not certain. Give --correlation messageId,attemptId to see what it becomes"
        )
    if provider_id is None:
        return (
            f"it carries {ours} and no {their_id}: the running service would park it as uncorrelated. "
            "Give --correlation messageId,attemptId to see what it becomes"
        )
    return (
        f"it carries {ours} ({their_id} {provider_id}); the running service would look the id up in the "
        "streams. Give --correlation messageId,attemptId to see what it becomes"
    )


def _together(explained: Sequence[Explanation]) -> Explanation:
    """Of several events, each by its number."""
    if len(explained) == 1:
        return explained[0]
    said = [
        f"event {n} of {len(explained)}: {each.why_none}"
        for n, each in enumerate(explained, 1)
        if each.why_none is not None
    ]
    lines = tuple(line for each in explained for line in each.lines)
    return Explanation(lines, "; ".join(said) or None, refused=any(each.refused for each in explained))


def explain_dsn(raw: bytes, correlation: Correlation | None = None) -> Explanation:
    """Explain one mail to the mailbox of bounces. The running service looks the attempt up and takes its recipient;
    here it is the one that the report names.

    Args:
        raw: the mail as it came.
        correlation: the message and attempt to use instead of those that it names.
    """
    try:
        delivered = dsn.unwrap(raw)
        if delivered.notification is None:
            return Explanation((), f"it would be dropped: {delivered.why_none}")
        found = correlation or dsn.correlate(delivered.notification)
        if found is None:
            return Explanation((), "it would be dropped: it names no mail of ours")
        translation = dsn.translate_dsn(delivered, found)
    except PermanentError as error:
        return Explanation((), f"it would be parked: {error}", refused=True)
    return Explanation(tuple(fact.to_bytes().decode() for fact in translation.facts), translation.why_none)
