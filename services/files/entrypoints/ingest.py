"""S3's and GuardDuty's notifications from SQS onto `files.notifications`: one record for each of S3's `Records`.

They come in four ways (Amazon S3 User Guide, "Event message structure" and "EventBridge event message structure"):
`Records` as S3 sends them to SQS, the same in an SNS envelope or delivered raw by SNS, and as an EventBridge event.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json, to_json

from contracts.topics import FILES_NOTIFICATIONS
from services.kit.ingest import SqsMessage, how_it_came
from services.kit.kafka.publisher import Outgoing
from services.kit.notifications import is_sns_envelope


def split(message: SqsMessage) -> tuple[Outgoing, ...]:
    """The records of a message, keyed by their transport's id: SNS's MessageId, which a redelivery repeats, else SQS's;
    with `#n` where there are several; an EventBridge event's own id.

    Each of S3's `Records` is one, so that a bad one does not sink the rest. S3's greeting (`s3:TestEvent`) and an empty
    list become none. What cannot be split is one record as it came, so that the translator parks it and it is not lost.
    """
    body: str = message["Body"]
    transport_id = message.get("MessageId")
    value = _json(body)
    if isinstance(value, dict) and is_sns_envelope(value):
        transport_id = _text(value.get("MessageId")) or transport_id
        value = _json(value["Message"]) if value["Type"] == "Notification" else None
    if isinstance(value, dict):
        if isinstance(value.get("Records"), list):
            return _each(message, value["Records"], transport_id)
        if value.get("Event") == "s3:TestEvent":
            return ()
        if "detail-type" in value:
            key = _text(value.get("id")) or transport_id
            return (_outgoing(message, key, to_json(value), _source(value)),)
    return (_outgoing(message, transport_id, body.encode(errors="surrogatepass"), "s3"),)


def _each(message: SqsMessage, records: list[Any], transport_id: str | None) -> tuple[Outgoing, ...]:
    several = len(records) > 1
    return tuple(
        _outgoing(message, f"{transport_id}#{n}" if several and transport_id else transport_id, to_json(record), "s3")
        for n, record in enumerate(records, 1)
    )


def _outgoing(message: SqsMessage, key: str | None, value: bytes, source: str) -> Outgoing:
    return Outgoing(FILES_NOTIFICATIONS.name, key.encode() if key else None, value, how_it_came(message, source))


def _source(event: Mapping[str, Any]) -> str:
    return "guardduty" if event.get("source") == "aws.guardduty" else "s3"


def _json(text: str) -> Any:
    """The value, None where it is not JSON: `Infinity` and `NaN` are not, and could not be written again."""
    try:
        return from_json(text, allow_inf_nan=False)
    except ValueError:
        return None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
