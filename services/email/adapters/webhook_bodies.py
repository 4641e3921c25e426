"""What lies in a webhook's body: one raw record for each notification. Pure; raises nothing, loses nothing.

What cannot be taken apart is one record as it came, so that it is parked where records are read, and told of there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from json import JSONDecoder
from typing import Any

import orjson

from services.email.adapters.signatures import SnsMessage
from services.email.domain.notifications import Json
from services.email.domain.webhooks import RawRecord

_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = JSONDecoder(parse_int=str, parse_float=str)  # numbers are not read here, however long they are


def sns_record(message: SnsMessage) -> RawRecord:
    """The SNS envelope, as it lies in an SQS message, of the fields that SNS has signed and of nothing else.

    Other fields may be anybody's: whoever has seen a signed message could add some, and be read in its place.
    """
    return RawRecord(message.fields["MessageId"], orjson.dumps(message.fields))


def sendgrid_records(body: bytes) -> tuple[RawRecord, ...]:
    """Each element of the array as it is written there, keyed by its `sg_event_id`."""
    try:
        return tuple(RawRecord(_text(value, "sg_event_id"), raw.encode()) for raw, value in _elements(body.decode()))
    except (ValueError, RecursionError):
        return (RawRecord(None, body),)


def mailgun_record(value: Json, body: bytes) -> RawRecord:
    """The body as it came, keyed by the `id` of its `event-data`."""
    return RawRecord(_text(value.get("event-data"), "id"), body)


def _elements(text: str) -> Iterator[tuple[str, Any]]:
    """Each element of a JSON array: its text and its value. Raises ValueError where `text` is none."""
    position = _behind(text, _after_space(text, 0), "[")
    end = position
    while not text.startswith("]", end):
        if end != position:
            position = _behind(text, end, ",")
        value, end = _DECODER.raw_decode(text, position)
        yield text[position:end], value
        end = _after_space(text, end)
    if _after_space(text, end + 1) != len(text):
        raise ValueError("something stands behind the array")


def _behind(text: str, position: int, wanted: str) -> int:
    """Where what follows `wanted` begins. Raises ValueError unless that stands at `position`."""
    if not text.startswith(wanted, position):
        raise ValueError(f"no {wanted} where one has to be")
    return _after_space(text, position + 1)


def _after_space(text: str, position: int) -> int:
    found = _SPACE.match(text, position)
    return found.end() if found else position


def _text(value: object, name: str) -> str | None:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, str) and found else None
