"""Where a page ended, as an opaque text: a place in an order, and so right whatever is added before or behind it.

A cursor is checked, not signed: it can only name a place, and what is shown is decided by the filter and the caller.
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from pydantic import TypeAdapter
from pydantic_core import to_json

from services.events.projections.known import KnownEvent
from services.kit.errors import InvalidRequest

LONGEST = 1024
"""Characters of a cursor; more is not one of ours."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


class Place(NamedTuple):
    """A mail's place in a list: its createdAt, which MongoDB keeps in milliseconds, and its id."""

    created_at: datetime
    id: str


class Step(NamedTuple):
    """An event's place in a history: the order in which events are folded."""

    time: str
    rank: int
    id: str

    @classmethod
    def of(cls, event: KnownEvent) -> Step:
        """The place of this event."""
        return cls(event.time, event.rank, event.id)


_place: TypeAdapter[tuple[int, str]] = TypeAdapter(tuple[int, str])
_step: TypeAdapter[tuple[str, int, str]] = TypeAdapter(tuple[str, int, str])


def encode(place: Place) -> str:
    """The cursor that goes on behind `place`; safe in a URL as it is."""
    return _pack(((place.created_at - _EPOCH) // _MILLISECOND, place.id))


def decode(cursor: str) -> Place:
    """The place that a cursor means. Raises InvalidRequest for one that `encode` did not give."""
    try:
        millis, message_id = _place.validate_json(_unpack(cursor), strict=True)
        place = Place(_EPOCH + millis * _MILLISECOND, message_id)
    except (ValueError, OverflowError):
        raise _not_ours() from None
    return place


def encode_step(step: Step) -> str:
    """The cursor that goes on behind `step`."""
    return _pack(tuple(step))


def decode_step(cursor: str) -> Step:
    """The step that a cursor means. Raises InvalidRequest for one that `encode_step` did not give."""
    try:
        return Step(*_step.validate_json(_unpack(cursor), strict=True))
    except ValueError:
        raise _not_ours() from None


def _pack(values: tuple[object, ...]) -> str:
    return base64.urlsafe_b64encode(to_json(values)).decode().rstrip("=")


def _unpack(cursor: str) -> bytes:
    """Raises ValueError."""
    if len(cursor) > LONGEST:
        raise ValueError("longer than ours")
    return base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)


def _not_ours() -> InvalidRequest:
    message = "is not a nextCursor that this list gave: start again without it"
    return InvalidRequest(details=[{"field": "cursor", "message": message, "in": "query"}])
