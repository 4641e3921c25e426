"""Why a document looks as it does: each event, and what it changed in the document when it came to be known in order.

Pure: the fold of the first n events is compared with that of the first n + 1. A `Story` says in which words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from services.events.projections import email_log, file
from services.events.projections.known import KnownEvent, is_retracted, retractions
from services.events.projections.projection import EMAIL_LOG, FILE, Projection

COMPARED: Final = 400
"""Events up to which every step is compared; in longer histories engagement is told by its own words."""

_ENGAGEMENT: Final = {"email.opened": "opens", "email.clicked": "clicks"}
_COUNTERS: Final = ("opens", "clicks", "machineOpens", "machineClicks")

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Story:
    """How a projection's timeline is told.

    Attributes:
        projection: whose documents.
        engaged: what an engagement fact does, in words.
        differences: what is new in a document, in words; the one before is None where it begins.
    """

    projection: Projection
    engaged: Callable[[KnownEvent], str]
    differences: Callable[[Body | None, Body], Iterable[str]]


@dataclass(frozen=True, slots=True)
class TimelineStep:
    """One event; `changes` are words for people, () for an event that changed nothing that is shown."""

    event: KnownEvent
    retracted: bool
    changes: tuple[str, ...]


def timeline(events: Iterable[KnownEvent], story: Story) -> list[TimelineStep]:
    """The steps in the order of the fold. What is retracted is among them and changes nothing."""
    fold, engagement = story.projection.fold, story.projection.engagement.types
    ordered = sorted(events)
    withdrawn = retractions(ordered)
    long = len(ordered) > COMPARED
    counted: list[KnownEvent] = []
    before: Body | None = None
    is_old = False  # whether `before` lacks events that were counted since
    steps: list[TimelineStep] = []
    for event in ordered:
        retracted = is_retracted(event, withdrawn)
        changes: tuple[str, ...] = ()
        if not retracted and long and event.type in engagement:
            changes, is_old = (story.engaged(event),), True
            counted.append(event)
        elif not retracted:
            try:
                if is_old:
                    before, is_old = fold(counted, ()), False
                after = fold([*counted, event], ())
            except Exception as error:  # noqa: BLE001 - the document shows the others (`aggregates`), and so do we
                changes = (f"not shown: {type(error).__name__} in the fold",)
            else:
                counted.append(event)
                changes = () if after is None else tuple(story.differences(before, after))
                before = after
        steps.append(TimelineStep(event, retracted, changes))
    return steps


# --- mail ----------------------------------------------------------------------------------------------------------


def _engaged_mail(event: KnownEvent) -> str:
    name = _ENGAGEMENT[event.type]
    return f"machine {name} + 1" if event.data.get("machine") else f"{name} + 1"


def _mail_differences(before: Body | None, after: Body) -> Iterable[str]:
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


def _recipient(old: Body, new: Body) -> Iterable[str]:
    if old["status"] != new["status"]:
        yield f"{old['status']} → {new['status']}"
    if bool(old.get("outcomeUnknown")) != bool(new.get("outcomeUnknown")):
        yield "outcome unknown" if new.get("outcomeUnknown") else "outcome known"
    if old["attempts"] != new["attempts"]:
        yield f"attempt {new['attempts']}"
    for name in _COUNTERS:
        if old[name] != new[name]:
            yield f"{name} {new[name]}"


def _money(cost: Body) -> str:
    return f"{cost['amount'] / 1_000_000:.6f}".rstrip("0").rstrip(".") + f" {cost['currency']}"


# --- files ---------------------------------------------------------------------------------------------------------


def _file_differences(before: Body | None, after: Body) -> Iterable[str]:
    if before is None:
        yield f"the file begins: {after['status']}"
        return
    for name, words in (("status", ""), ("scanStatus", "scan "), ("originalName", "name "), ("isPublic", "public ")):
        if before[name] != after[name]:
            yield f"{words}{_said(before[name])} → {_said(after[name])}"
    if before.get("originalSize") != after.get("originalSize"):
        yield f"{after['size']} bytes stored of {after.get('originalSize')}"
    if "keptUntil" in before and "keptUntil" not in after:
        yield "no end of its lifetime any more"
    if before["metadata"]["tags"] != after["metadata"]["tags"]:
        yield f"tags {', '.join(after['metadata']['tags']) or 'none'}"
    for name, words in (("versionId", "version"), ("storageClass", "in")):
        if before["s3Info"].get(name) != after["s3Info"].get(name):
            yield f"{words} {after['s3Info'].get(name, 'none')}"
    if "failure" in after and before.get("failure") != after["failure"]:
        yield f"because {after['failure']['reason']}"
    if before.get("recoverable") != after.get("recoverable") and "recoverable" in after:
        yield "recoverable" if after["recoverable"] else "not recoverable"
    if before["access"]["downloadCount"] != after["access"]["downloadCount"]:
        yield f"downloads {after['access']['downloadCount']}"


def _said(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


STORIES: Final = {
    email_log.NAME: Story(EMAIL_LOG, _engaged_mail, _mail_differences),
    file.NAME: Story(FILE, lambda _: "downloads + 1", _file_differences),
}
"""By the projection's name."""
