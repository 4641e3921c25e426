"""How an SES notification comes: bare, inside an SNS envelope, or inside an SQS message whose body is either.

Nothing here judges the notification itself; `ses_notifications` does.
"""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic_core import from_json

from contracts.base import from_micros
from services.email.domain.notifications import Delivered, Json
from services.kit.errors import PermanentError


def unwrap(raw: bytes | str, *, sqs_message_id: str | None = None, sqs_sent: str | None = None) -> Delivered:
    """Take a notification out of its wrappings.

    Args:
        raw: a bare notification, an SNS envelope, or an SQS message with `Body` and `Attributes`, as JSON.
        sqs_message_id: MessageId of the SQS message, where `raw` is its body.
        sqs_sent: its SentTimestamp, milliseconds since the epoch in decimal.

    Raises:
        PermanentError: `notJson` or `notAnObject`.
    """
    value = _object(raw)
    if "Body" in value and isinstance(value["Body"], str) and "eventType" not in value:
        attributes = value.get("Attributes") or {}
        return unwrap(value["Body"], sqs_message_id=value.get("MessageId"), sqs_sent=attributes.get("SentTimestamp"))
    received = _sent_timestamp(sqs_sent)
    if isinstance(value.get("Message"), str) and "Type" in value:
        return _from_sns(value, sqs_message_id, received)
    return Delivered(value, sqs_message_id, received)


def parse_time(text: object) -> datetime:
    """Read a time as SES and SNS write it: `2017-08-05T00:41:02.669Z`, `2018-10-08T14:05:45 +0000`, `…-07:00`.

    A time without an offset is UTC, as SES documents all of its times to be.

    Raises:
        PermanentError: `badTime`.
    """
    if not isinstance(text, str):
        raise PermanentError("badTime", f"expected a time as text, found {type(text).__name__}")
    try:
        value = datetime.fromisoformat(text.strip().replace(" ", ""))
    except ValueError:
        raise PermanentError("badTime", "a time is not in a form that SES documents") from None
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


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
    return Delivered(_object(message), transport_id, received)


def _object(raw: bytes | str) -> Json:
    try:
        value = from_json(raw)
    except ValueError as error:
        raise PermanentError("notJson", str(error)) from None
    if not isinstance(value, dict):
        raise PermanentError("notAnObject", "a notification is a JSON object")
    return value


def _sent_timestamp(millis: str | None) -> datetime | None:
    if millis is None or not millis.isdigit():
        return None
    return from_micros(int(millis) * 1000)
