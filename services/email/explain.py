"""What would a raw SES notification become? For people at a terminal and for tests; touches nothing."""

from __future__ import annotations

from services.email.adapters.ses_notifications import correlate, inbound_mail, provider_message_id, translate_ses
from services.email.adapters.ses_transport import unwrap
from services.email.domain.correlation import Correlation
from services.kit.errors import PermanentError
from services.kit.explanation import Explanation


def explain_ses(raw: bytes, correlation: Correlation | None = None) -> Explanation:
    """Explain one notification: bare, in an SNS envelope, or an SQS message with `Body`.

    Args:
        raw: JSON bytes as they came.
        correlation: the message and attempt to use where the notification carries none.
    """
    try:
        delivered = unwrap(raw)
        if delivered.notification is None:
            return Explanation((), delivered.why_none)
        if inbound_mail(delivered.notification) is not None:
            return Explanation(
                (),
                "a mail to us: the running service makes it an email.unsubscribed if the subject holds a valid token",
            )
        found = correlate(delivered.notification) or correlation
        if found is None:
            provider_id = provider_message_id(delivered.notification)
            known = f"SES message id {provider_id}" if provider_id else "no SES message id either"
            return Explanation(
                (),
                f"it carries neither our tags nor our headers ({known}); the running service would look the id up in "
                "the streams. Give --correlation messageId,attemptId to see what it becomes",
                refused=True,
            )
        translation = translate_ses(delivered, found)
    except PermanentError as error:
        return Explanation((), f"it would be parked: {error}", refused=True)
    return Explanation(tuple(fact.to_bytes().decode() for fact in translation.facts), translation.why_none)
