"""SES notifications from SQS onto `email.notifications`: one record a message, its body as it came."""

from __future__ import annotations

from pydantic_core import from_json

from contracts.topics import EMAIL_NOTIFICATIONS
from services.kit.ingest import SqsMessage, how_it_came
from services.kit.kafka.publisher import Outgoing


def split(message: SqsMessage) -> tuple[Outgoing, ...]:
    """The one record of a message, keyed by the SNS MessageId, else by SQS's own."""
    body: str = message["Body"]
    transport_id = _sns_message_id(body) or message.get("MessageId")
    key = transport_id.encode() if transport_id else None
    return (Outgoing(EMAIL_NOTIFICATIONS.name, key, body.encode(), how_it_came(message, "ses")),)


def _sns_message_id(body: str) -> str | None:
    """The SNS MessageId: SNS repeats it on redelivery, SQS makes a new one of its own."""
    try:
        value = from_json(body)  # unlike the standard library's, it takes neither deep nesting nor lone surrogates
    except ValueError:
        return None
    found = value.get("MessageId") if isinstance(value, dict) else None
    return found if isinstance(found, str) else None
