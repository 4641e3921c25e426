"""Reading what providers report: fields that may be missing or of another type, times, and the recipient's spelling."""

from __future__ import annotations

import math
from datetime import datetime
from email.utils import parseaddr

from contracts.addresses import normalise_address
from contracts.base import from_micros
from services.kit.errors import PermanentError

_YEAR_10000 = 253_402_300_800
"""In seconds since the epoch: the first that no `datetime` holds."""


def text(value: object) -> str | None:
    """The value if it is text that is not empty."""
    return value if isinstance(value, str) and value else None


def integer(value: object) -> int | None:
    """The value if it is a whole number."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def from_epoch(seconds: object) -> datetime:
    """The time that a provider gives in seconds since the epoch, whole ones or with a fraction.

    Raises:
        PermanentError: `badTime`.
    """
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        raise PermanentError("badTime", f"expected seconds since the epoch, found {type(seconds).__name__}")
    if not (math.isfinite(seconds) and 0 < seconds < _YEAR_10000):
        raise PermanentError("badTime", "a time is not in the years 1970 to 9999")
    return from_micros(min(round(seconds * 1_000_000), _YEAR_10000 * 1_000_000 - 1))


def normal_form(address: object) -> str:
    """The normal form of an address; one that we would not send to is kept as reported, without a display name."""
    _, plain = parseaddr(str(address))
    try:
        return normalise_address(plain or str(address))
    except ValueError:
        return (plain or str(address)).strip()
