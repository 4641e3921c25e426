"""What is known of one aggregate: a set of events, each with its origin, that grows by union alone.

Union is commutative, associative and idempotent, so neither order nor repetition of what is read can change the
result; everything that a projection shows is a function of the set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from contracts.registry import EVENTS

INLINE_PLACES = 500
"""How many engagement facts of an aggregate lie in its document; the others are rows beside it."""

RETRACTED = "event.retracted"


class KnownEvent(NamedTuple):
    """One event and where it was read. Sorts by (time, rank, id), the order inside an aggregate.

    Attributes:
        time: when it happened, `2026-11-24T10:25:00.123456Z`: this form sorts as the time does.
        rank: the type's rank among events of one microsecond.
        id: the event's id; one id, one content, corrected only by a higher `revision`.
        type: wire name.
        revision: the translator's revision of a fact; 0 for decisions.
        data: data on the wire, current version, absent instead of null.
        partition, offset: its origin in the projection's topic.
        place: the lowest (partition, offset) at which the id was seen in any revision.
        raw: the record's value as read.
    """

    time: str
    rank: int
    id: str
    type: str
    revision: int
    data: dict[str, Any]
    partition: int
    offset: int
    place: tuple[int, int]
    raw: bytes


Known = dict[str, KnownEvent]
"""Event id → the winner among everything read under that id."""


def add(known: Known, event: KnownEvent) -> bool:
    """Take `event` into `known`; whether that changed anything."""
    old = known.get(event.id)
    if old is None:
        known[event.id] = event
        return True
    both = union(old, event)
    if both is old:
        return False
    known[event.id] = both
    return True


def union(one: KnownEvent, other: KnownEvent) -> KnownEvent:
    """The winner of two readings of one id: highest revision, then lowest origin; the lowest place is kept."""
    if (-other.revision, other.partition, other.offset) < (-one.revision, one.partition, one.offset):
        winner, loser = other, one
    else:
        winner, loser = one, other
    return winner._replace(place=loser.place) if loser.place < winner.place else winner


def retractions(events: Iterable[KnownEvent]) -> dict[str, int]:
    """Event id → the revision up to which it is withdrawn."""
    found: dict[str, int] = {}
    for event in events:
        if event.type == RETRACTED:
            target, revision = event.data["eventId"], event.data["upToRevision"]
            found[target] = max(revision, found.get(target, revision))
    return found


def is_retracted(event: KnownEvent, withdrawn: dict[str, int]) -> bool:
    """Whether a retraction covers this reading. Only facts can be withdrawn, and a retraction itself cannot."""
    revision = withdrawn.get(event.id)
    if revision is None or event.revision > revision or event.type == RETRACTED:
        return False
    known_type = EVENTS.get(event.type)
    return known_type is None or known_type.kind == "fact"


def effective(events: Iterable[KnownEvent]) -> list[KnownEvent]:
    """The events that count, in the aggregate's order: what is retracted is left out. One per id is expected."""
    ordered = sorted(events)
    withdrawn = retractions(ordered)
    if withdrawn:
        return [event for event in ordered if not is_retracted(event, withdrawn)]
    return ordered


class Counted(NamedTuple):
    """What is kept of an engagement fact outside its document.

    Attributes:
        recipient: whose it is; "" where facts have no recipient.
        machine: whether a proxy or scanner did it.
        until: a time of which the latest is kept; "" where facts have none.
    """

    recipient: str = ""
    machine: bool = False
    until: str = ""


@dataclass(frozen=True, slots=True)
class Engagement:
    """The facts that one aggregate may gather without end: all but the lowest places lie outside its document.

    Attributes:
        types: their wire names.
        counted: what one of them counts as.
    """

    types: frozenset[str]
    counted: Callable[[KnownEvent], Counted]


class Tally(NamedTuple):
    """Engagement facts outside the document that count alike: how many, the time of the first and the last, and the
    latest `until` that any of them has, "" for none.
    """

    recipient: str
    type: str
    machine: bool
    facts: int
    first: str
    last: str
    until: str = ""


Overflow = tuple[Tally, ...]
"""All rows of an aggregate that are not retracted, in the order of (recipient, type, machine)."""

NO_OVERFLOW: Overflow = ()


def tally(events: Iterable[KnownEvent], engagement: Engagement) -> Overflow:
    """Count engagement facts by recipient, type and machine."""
    found: dict[tuple[str, str, bool], Tally] = {}
    for event in events:
        recipient, machine, until = engagement.counted(event)
        key = (recipient, event.type, machine)
        found[key] = _plus(found.get(key), Tally(*key, 1, event.time, event.time, until))
    return tuple(sorted(found.values()))


def add_tallies(one: Overflow, other: Overflow) -> Overflow:
    """The tally of two disjoint sets of facts."""
    found = {each[:3]: each for each in one}
    for each in other:
        found[each[:3]] = _plus(found.get(each[:3]), each)
    return tuple(sorted(found.values()))


def _plus(one: Tally | None, other: Tally) -> Tally:
    if one is None:
        return other
    first, last = min(one.first, other.first), max(one.last, other.last)
    until = max(one.until, other.until)
    return one._replace(facts=one.facts + other.facts, first=first, last=last, until=until)


def spill(known: Known, engagement: Engagement, inline: int = INLINE_PLACES) -> list[KnownEvent]:
    """Take out of `known` and return the engagement facts that belong in rows: all but the `inline` lowest places."""
    facts = [event for event in known.values() if event.type in engagement.types]
    if len(facts) <= inline:
        return []
    facts.sort(key=_place)
    outside = facts[inline:]
    for event in outside:
        del known[event.id]
    return outside


def _place(event: KnownEvent) -> tuple[int, int]:
    return event.place
