"""How an SES notification comes: bare, inside an SNS envelope, or inside an SQS message whose body is either.

Nothing here judges the notification itself; `ses_notifications` does.
"""

from __future__ import annotations

from datetime import datetime

from contracts.base import from_micros
from services.email.domain.notifications import Delivered, Json
from services.kit.notifications import is_sns_envelope, parse_time, read_object


def unwrap(raw: bytes | str, *, sqs_message_id: str | None = None, sqs_sent: str | None = None) -> Delivered:
    """Take a notification out of its wrappings.

    Args:
        raw: a bare notification, an SNS envelope, or an SQS message with `Body` and `Attributes`, as JSON.
        sqs_message_id: MessageId of the SQS message, where `raw` is its body.
        sqs_sent: its SentTimestamp, milliseconds since the epoch in decimal.

    Raises:
        PermanentError: `notJson` or `notAnObject`.
    """
    value = read_object(raw)
    if "Body" in value and isinstance(value["Body"], str) and "eventType" not in value:
        attributes = value.get("Attributes") or {}
        return unwrap(value["Body"], sqs_message_id=value.get("MessageId"), sqs_sent=attributes.get("SentTimestamp"))
    received = _sent_timestamp(sqs_sent)
    if is_sns_envelope(value):
        return _from_sns(value, sqs_message_id, received)
    return Delivered(value, sqs_message_id, received)


def _from_sns(envelope: Json, sqs_message_id: str | None, received: datetime | None) -> Delivered:
    transport_id = envelope.get("MessageId") or sqs_message_id
    if "Timestamp" in envelope:
        received = parse_time(envelope["Timestamp"])
    kind = envelope["Type"]
    if kind != "Notification":
        return Delivered(None, transport_id, received, f"an SNS {kind}, not a notification")
    message: str = envelope["Message"]
    if not message.lstrip().startswith("{"):
        return Delivered(None, transport_id, received, "SES validating the topic with a plain sentence")
    return Delivered(read_object(message), transport_id, received)


def _sent_timestamp(millis: str | None) -> datetime | None:
    if millis is None or not millis.isdigit():
        return None
    return from_micros(int(millis) * 1000)
