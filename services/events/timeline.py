"""Why a mail's log looks as it does: each event, and what it changed in the document when it came to be known in order.

Pure: the fold of the first n events is compared with that of the first n + 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from services.events.projections.email_log import fold
from services.events.projections.known import KnownEvent, is_retracted, retractions

COMPARED: Final = 400
"""Events up to which every step is compared; in longer histories opens and clicks are told by their own words."""

_ENGAGEMENT: Final = {"email.opened": "opens", "email.clicked": "clicks"}
_COUNTERS: Final = ("opens", "clicks", "machineOpens", "machineClicks")


@dataclass(frozen=True, slots=True)
class TimelineStep:
    """One event; `changes` are words for people, () for an event that changed nothing that is shown."""

    event: KnownEvent
    retracted: bool
    changes: tuple[str, ...]


def timeline(events: Iterable[KnownEvent]) -> list[TimelineStep]:
    """The steps in the order of the fold. What is retracted is among them and changes nothing."""
    ordered = sorted(events)
    withdrawn = retractions(ordered)
    long = len(ordered) > COMPARED
    counted: list[KnownEvent] = []
    before: dict[str, Any] | None = None
    is_old = False  # whether `before` lacks events that were counted since
    steps: list[TimelineStep] = []
    for event in ordered:
        retracted = is_retracted(event, withdrawn)
        changes: tuple[str, ...] = ()
        if not retracted and long and event.type in _ENGAGEMENT:
            changes, is_old = (_engaged(event),), True
            counted.append(event)
        elif not retracted:
            if is_old:
                before, is_old = fold(counted), False
            counted.append(event)
            after = fold(counted)
            changes, before = tuple(_differences(before, after)), after
        steps.append(TimelineStep(event, retracted, changes))
    return steps


def _engaged(event: KnownEvent) -> str:
    name = _ENGAGEMENT[event.type]
    return f"machine {name} + 1" if event.data.get("machine") else f"{name} + 1"


def _differences(before: dict[str, Any] | None, after: dict[str, Any] | None) -> Iterable[str]:
    if after is None:
        return
    if before is None:
        yield f"the log begins: {after['status']}, {len(after['recipients'])} recipient(s)"
        for recipient in after["recipients"]:
            if recipient["status"] != "queued":
                yield f"{recipient['address']}: {recipient['status']}, told before the request was known"
        return
    for old, new in zip(before["recipients"], after["recipients"], strict=True):
        changed = list(_recipient(old, new))
        if changed:
            yield f"{new['address']}: {', '.join(changed)}"
    if before["status"] != after["status"]:
        yield f"mail: {before['status']} → {after['status']}"
    if before["cost"] != after["cost"]:
        yield f"cost {_money(before['cost'])} → {_money(after['cost'])}"


def _recipient(old: dict[str, Any], new: dict[str, Any]) -> Iterable[str]:
    if old["status"] != new["status"]:
        yield f"{old['status']} → {new['status']}"
    if bool(old.get("outcomeUnknown")) != bool(new.get("outcomeUnknown")):
        yield "outcome unknown" if new.get("outcomeUnknown") else "outcome known"
    if old["attempts"] != new["attempts"]:
        yield f"attempt {new['attempts']}"
    for name in _COUNTERS:
        if old[name] != new[name]:
            yield f"{name} {new[name]}"


def _money(cost: dict[str, Any]) -> str:
    return f"{cost['amount'] / 1_000_000:.6f}".rstrip("0").rstrip(".") + f" {cost['currency']}"
