"""Busy aggregates: the engagement facts beyond the inline places lie in rows beside the document.

Rows are written before the document, each guarded by its own `rev`, and never taken away: one whose id lies inline
(again) is stale and not counted. So a crash between rows and document leaves nothing that counts twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from services.events.ports import ReadModels, Row, Stored
from services.events.projections.known import (
    RETRACTED,
    Engagement,
    Known,
    KnownEvent,
    Overflow,
    add,
    add_tallies,
    is_retracted,
    retractions,
    spill,
    tally,
)


@dataclass(frozen=True, slots=True)
class Settled:
    """The inline events and the tally of the rows, after the rows were written."""

    known: Known
    overflow: Overflow


async def settle_rows(
    models: ReadModels,
    aggregate: str,
    stored: Stored,
    events: Iterable[KnownEvent],
    *,
    engagement: Engagement,
    inline: int,
) -> Settled | None:
    """Take `events` into an aggregate that has, or gets, rows.

    Args:
        models: where the rows lie.
        aggregate: its id.
        stored: as read from there.
        events: what is new.
        engagement: the facts of which only the lowest places lie inline.
        inline: how many places there are.

    Returns:
        None when somebody else wrote one of the rows: read again and redo.
    """
    events = list(events)
    known = dict(stored.known)
    rows = await models.load_rows(aggregate, {event.id for event in events if event.id not in known})
    for row in rows.values():
        add(known, row.event)
    for event in events:
        add(known, event)
    outside = spill(known, engagement, inline)
    rows |= await models.load_rows(aggregate, {event.id for event in outside if event.id not in rows})
    changes = [
        Row(merged.event, rows[event.id].rev if event.id in rows else 0)
        for event in outside
        if (merged := _merged(event, rows.get(event.id))).event != (rows[event.id].event if event.id in rows else None)
    ]
    if changes and any(outcome != "done" for outcome in await models.write_rows(aggregate, changes)):
        return None
    withdrawn = retractions(known.values())
    plain = (  # a redo after a lost guard, or after a crash, finds the rows that the first try inserted
        not rows
        and not any(event.type == RETRACTED for event in events)
        and not any(is_retracted(event, withdrawn) for event in outside)
    )
    if plain:
        return Settled(known, add_tallies(stored.overflow, tally(outside, engagement)))
    inline_ids = [event.id for event in known.values() if event.type in engagement.types]
    return Settled(known, await models.tally_rows(aggregate, inline_ids, withdrawn))


def _merged(event: KnownEvent, row: Row | None) -> Row:
    """What a row should hold: the union of what it holds and the event that belongs there."""
    if row is None:
        return Row(event)
    both: Known = {}
    add(both, row.event)
    add(both, event)
    return Row(both[event.id], row.rev)
