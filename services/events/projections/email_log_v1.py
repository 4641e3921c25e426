"""Version 1 of the fold, until no release that has nothing newer is in use: it knows no scans of links."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from services.events.projections.email_log import Body, document_of
from services.events.projections.known import NO_OVERFLOW, KnownEvent, Overflow, effective

VERSION: Final = 1


def fold(events: Iterable[KnownEvent], overflow: Overflow = NO_OVERFLOW) -> Body | None:
    """As `email_log.fold`."""
    return document_of(effective(events), overflow)
