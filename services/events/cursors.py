"""Where a page of mails ended: a place in the order (createdAt, _id), latest first, right whatever is added later."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from services.kit.errors import InvalidRequest

LONGEST = 512
"""Characters of a cursor; more is not one of ours."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_FORM = b"1"
_TIME_BYTES = 8


class Place(NamedTuple):
    """A mail's place: its createdAt, which MongoDB keeps in milliseconds, and its id."""

    created_at: datetime
    id: str


def encode(place: Place) -> str:
    """The cursor that goes on after `place`: opaque, and safe in a URL as it is."""
    millis = (place.created_at - _EPOCH) // _MILLISECOND
    raw = _FORM + millis.to_bytes(_TIME_BYTES, "big", signed=True) + place.id.encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def decode(cursor: str) -> Place:
    """The place that a cursor means.

    It is checked, not signed: it can only name a place in the order, and what is shown is decided by the filter.

    Raises:
        InvalidRequest: `encode` gave no such cursor.
    """
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        millis = int.from_bytes(raw[1 : 1 + _TIME_BYTES], "big", signed=True)
        place = Place(_EPOCH + millis * _MILLISECOND, raw[1 + _TIME_BYTES :].decode())
    except (ValueError, binascii.Error, OverflowError):
        raise _not_ours() from None
    if not place.id or len(cursor) > LONGEST or encode(place) != cursor:
        raise _not_ours()
    return place


def _not_ours() -> InvalidRequest:
    message = "is not a nextCursor that a list gave: start again without it"
    return InvalidRequest(details=[{"field": "cursor", "message": message, "in": "query"}])
