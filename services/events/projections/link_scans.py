"""Clicks of a scanner that calls itself a browser: it follows the links of a mail within seconds, a person does not.

One click does not tell, so this is decided where all clicks of a mail are known, and by their own times.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from services.events.projections.known import KnownEvent

LINKS: Final = 3
"""So many different links, followed for one recipient within `WITHIN`, are a scan. With fewer links nobody can tell: a
person follows one, or both, as quickly.
"""

WITHIN: Final = timedelta(seconds=5)

_CLICKED: Final = "email.clicked"


def with_scans_marked(ordered: Sequence[KnownEvent]) -> Sequence[KnownEvent]:
    """The same events, with every click that belongs to a scan marked `machine`.

    Args:
        ordered: the events that count, of one message, in their order.
    """
    clicks: dict[str, list[KnownEvent]] = {}
    for event in ordered:
        if event.type == _CLICKED and event.data.get("link") is not None:
            clicks.setdefault(event.data["recipient"], []).append(event)
    scanned = {event.id for found in clicks.values() if len(found) >= LINKS for event in _of_a_scan(found)}
    if not scanned:
        return ordered
    return [event._replace(data={**event.data, "machine": True}) if event.id in scanned else event for event in ordered]


def _of_a_scan(clicks: Sequence[KnownEvent]) -> list[KnownEvent]:
    """Those of one recipient's clicks that lie in a stretch of `WITHIN` with at least `LINKS` different links."""
    times = [datetime.fromisoformat(event.time) for event in clicks]
    links: Counter[str] = Counter()
    found: list[KnownEvent] = []
    begin = taken = 0  # of the stretch that ends with this click; up to which click they are taken already
    for end, event in enumerate(clicks):
        links[event.data["link"]] += 1
        while times[end] - times[begin] > WITHIN:
            gone = clicks[begin].data["link"]
            links[gone] -= 1
            if not links[gone]:
                del links[gone]
            begin += 1
        if len(links) >= LINKS:
            found += clicks[max(begin, taken) : end + 1]
            taken = end + 1
    return found
