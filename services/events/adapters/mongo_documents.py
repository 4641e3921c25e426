"""How an aggregate lies in MongoDB: the body's fields, and beside them what it was folded from.

`_rev` guards. `_events` holds the records' values as they were read, with their origins, in the aggregate's order, as
parallel lists (cheaper than a list of objects): the ith has `length[i]` bytes and was read at partition `partition[i]`,
offset `offset[i]`; `raw` is all values one after the other as one LZ4 block, since events of one aggregate repeat each
other (to a quarter, at a tenth of what storing the rest costs); `place` lists [i, partition, offset] for those whose id
was seen lower, in another reading. `_overflow` is the tally of the rows. Times inside the values keep their
microseconds; the body's dates hold milliseconds, as BSON does.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import Any, Final

from bson import Int64
from cramjam import lz4

from services.events.ports import Row, Stored, Write
from services.events.projections.known import Engagement, KnownEvent, Tally
from services.events.reader import read_event

Document = dict[str, Any]

BOOKKEEPING: Final = ("_rev", "_visible", "_events", "_overflow", "_permanent")
"""What views and people do not see."""


def to_document(write: Write) -> Document:
    """What is stored of an aggregate after a write. Equal aggregates at equal `rev` give equal bytes."""
    document: Document = {"_id": write.id, "_rev": Int64(write.expected + 1)}
    if write.body is None:
        document["_visible"] = False
    else:
        document |= write.body
    document["_events"] = _events(write.ordered)
    if write.has_rows:
        document["_overflow"] = [_of_tally(tally) for tally in write.overflow]
    return document


def from_document(document: Document) -> Stored:
    """The aggregate that was stored."""
    overflow = document.get("_overflow")
    return Stored(
        rev=int(document["_rev"]),
        known={event.id: event for event in events_of(document["_events"])},
        overflow=() if overflow is None else tuple(Tally(*tally) for tally in overflow),
        has_rows=overflow is not None,
    )


def events_of(events: Document) -> list[KnownEvent]:
    """The events in a document, in the aggregate's order."""
    found = [
        read_event(raw, partition, offset)
        for raw, partition, offset in zip(values_of(events), events["partition"], events["offset"], strict=True)
    ]
    for index, partition, offset in events.get("place", ()):
        found[index] = found[index]._replace(place=(partition, offset))
    return found


def values_of(events: Document) -> list[bytes]:
    """The records' values in a document, in the aggregate's order."""
    whole = bytes(lz4.decompress_block(events["raw"]))
    ends = list(accumulate(events["length"], initial=0))
    return [whole[start:end] for start, end in pairwise(ends)]


def row_id(aggregate: str, event_id: str) -> str:
    """The `_id` of a row: all rows of an aggregate lie side by side."""
    return f"{aggregate}\n{event_id}"


def to_row(aggregate: str, row: Row, engagement: Engagement) -> Document:
    """What is stored of an engagement fact outside its document."""
    event = row.event
    counted = engagement.counted(event)
    document: Document = {
        "_id": row_id(aggregate, event.id),
        "_rev": Int64(row.rev + 1),
        "aggregate": aggregate,
        "event": event.id,
        "recipient": counted.recipient,
        "type": event.type,
        "machine": counted.machine,
        "time": event.time,
        "revision": event.revision,
        "raw": event.raw,
        "partition": event.partition,
        "offset": Int64(event.offset),
        "place": list(event.place),
    }
    if counted.until:
        document["until"] = counted.until
    return document


def from_row(document: Document) -> Row:
    """The row that was stored."""
    event = read_event(document["raw"], document["partition"], int(document["offset"]))
    partition, offset = document["place"]
    return Row(event._replace(place=(partition, offset)), int(document["_rev"]))


def _of_tally(tally: Tally) -> list[Any]:
    return list(tally if tally.until else tally[:-1])


def _events(ordered: list[KnownEvent]) -> Document:
    events: Document = {
        "raw": bytes(lz4.compress_block(b"".join([event.raw for event in ordered]))),
        "length": [len(event.raw) for event in ordered],
        "partition": [event.partition for event in ordered],
        "offset": [event.offset for event in ordered],
    }
    places = [
        [index, *event.place] for index, event in enumerate(ordered) if event.place != (event.partition, event.offset)
    ]
    if places:
        events["place"] = places
    return events
