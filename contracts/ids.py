"""Ids: ours are UUIDv7 (RFC 9562); a fact's is UUIDv5 over what makes it that fact, so equal for the same happening."""

from __future__ import annotations

import os
import threading
import time
import uuid
from datetime import datetime

from contracts.base import from_micros, to_micros

FACTS = uuid.UUID("5d5f3c2e-3d0b-5b39-9c64-6d0f0b7f9a11")
"""Namespace of fact ids. Frozen: another value would give every known fact a second id."""

CAUSES = uuid.UUID("0f4dd0b3-7a0e-5b0c-8a53-0a7a5f5e2b67")
"""Namespace of suppression ids. Frozen, likewise."""

_SEPARATOR = "\x1f"
_lock = threading.Lock()
_last = [0, 0]  # milliseconds and counter of the newest id


def uuid7() -> str:
    """A new UUIDv7: ordered by creation time within this process, unique across processes.

    The 12 bits after the milliseconds are a counter within one millisecond (RFC 9562 §6.2, method 1).
    """
    with _lock:
        millis, counter = time.time_ns() // 1_000_000, 0
        if millis <= _last[0]:
            millis, counter = _last[0], _last[1] + 1
            if counter > 0xFFF:
                millis, counter = millis + 1, 0
        _last[:] = millis, counter
    tail = int.from_bytes(os.urandom(8)) & 0x3FFF_FFFF_FFFF_FFFF
    value = (millis & 0xFFFF_FFFF_FFFF) << 80 | 0x7 << 76 | counter << 64 | 0b10 << 62 | tail
    return str(uuid.UUID(int=value))


def time_of(uuid7_text: str) -> datetime:
    """When a UUIDv7 was made, to the millisecond (RFC 9562 §5.7)."""
    return from_micros((uuid.UUID(uuid7_text).int >> 80) * 1000)


def fact_id(provider: str, provider_message_id: str, event_type: str, recipient: str, *distinct: str) -> str:
    """The id of a fact: equal for the same happening, different for different ones.

    Args:
        provider: `ses`, `sendgrid`, `mailgun` or `s3`.
        provider_message_id: the provider's id of the message (for objects: bucket, key and version id).
        event_type: the wire name, for instance `email.bounced`.
        recipient: the recipient in normal form, "" where a fact has none.
        distinct: what tells two facts of this type apart, in the order of the table in `docs/upstream.md`.
    """
    parts = (provider, provider_message_id, event_type, recipient, *distinct)
    return str(uuid.uuid5(FACTS, _SEPARATOR.join(part.replace(_SEPARATOR, " ") for part in parts)))


def suppression_id(recipient_key: str, scope: str, cause: str) -> str:
    """The id of a suppression: one cause suppresses one recipient in one scope once."""
    return str(uuid.uuid5(CAUSES, _SEPARATOR.join((recipient_key, scope, cause))))


def millis_text(value: datetime) -> str:
    """A time in whole milliseconds since the epoch, as used inside fact ids (providers report milliseconds)."""
    return str(to_micros(value) // 1000)
