"""How a stream lies in MongoDB, and the one guarded write that appends to it.

    {_id, version, events: [wire strings], published, pending?, pendingSince?, dueAt?, lane?, owner?, leasedUntil?,
     lookup?: [strings], userId?}

Times are int64 microseconds. `pending` and `pendingSince` exist while an event is not known to be on the log;
`pendingSince` is the server's time of the oldest append since the last complete mark. `owner` and `leasedUntil` exist
while there is a lease, and are in the server's time (`server_time.py`).

How a lost race shows: the first append of a stream is a plain insert (a bulk of them costs MongoDB a fraction of as
many upserts), which meets the `_id` that stands already (E11000). A bulk of guarded updates reports only counts, so
every later append is an upsert whose insert must fail: it may not insert at all, not even for a stream that is absent,
so `$setOnInsert` contradicts the filter's `_id` (code 66). Both name their index.
"""

from collections.abc import Sequence
from typing import Any

from pymongo import ASCENDING, IndexModel, InsertOne, UpdateOne

from contracts.base import from_micros, to_micros
from services.kit.event_store.port import Append, Stream, StreamIndex
from services.kit.mongo import Document

GUARD_FAILED = frozenset({11000, 66})

INDEXES = (
    IndexModel(
        [("lane", ASCENDING), ("dueAt", ASCENDING), ("leasedUntil", ASCENDING)],
        name="due",
        partialFilterExpression={"dueAt": {"$exists": True}},
    ),
    IndexModel(
        [("pendingSince", ASCENDING)], name="unpublished", partialFilterExpression={"pendingSince": {"$exists": True}}
    ),
    IndexModel([("lookup", ASCENDING)], name="lookup", sparse=True),
)


def read_stream(document: Document) -> Stream:
    """The stream that a document holds."""
    due, leased = document.get("dueAt"), document.get("leasedUntil")
    return Stream(
        stream_id=document["_id"],
        version=document["version"],
        wire=tuple(document["events"]),
        published=document["published"],
        index=StreamIndex(
            due_at=None if due is None else from_micros(due),
            lane=document.get("lane"),
            lookup=tuple(document.get("lookup", ())),
            owner_user=document.get("userId"),
        ),
        leased_by=document.get("owner"),
        leased_until=None if leased is None else from_micros(leased),
    )


def append_operation(append: Append, wire: Sequence[str], server_micros: int) -> InsertOne[Document] | UpdateOne:
    """The compare-and-set of one append; what its failures mean is at the top of this file."""
    new = {name: value for name, value in _index_fields(append.index).items() if value is not None}
    lease: Document = {}
    if append.lease is not None:
        until = server_micros + int(append.lease.lasts.total_seconds() * 1_000_000)
        lease = {"owner": append.lease.owner, "leasedUntil": until}
    before = append.stream
    if before.version:
        return _update(append, wire, server_micros, new | lease)
    return InsertOne(
        {
            "_id": before.stream_id,
            "version": len(wire),
            "events": list(wire),
            "published": 0,
            "pending": True,
            "pendingSince": server_micros,
            **new,
            **lease,
        }
    )


def _update(append: Append, wire: Sequence[str], server_micros: int, new: Document) -> UpdateOne:
    before = append.stream
    old = {name: value for name, value in _index_fields(before.index).items() if value is not None}
    changes: Document = {"version": before.version + len(wire), "pending": True}
    changes |= {name: value for name, value in new.items() if value != old.get(name)}
    gone: Document = dict.fromkeys(old.keys() - new.keys(), "")
    if append.lease is None and not append.keep_lease:
        gone |= {"owner": "", "leasedUntil": ""}
    update: Document = {
        "$set": changes,
        "$push": {"events": {"$each": list(wire)}},
        "$min": {"pendingSince": server_micros},
        "$setOnInsert": {"_id": None},
    }
    if gone:
        update["$unset"] = gone
    return UpdateOne({"_id": before.stream_id, "version": before.version}, update, upsert=True)


def _index_fields(index: StreamIndex) -> dict[str, Any]:
    return {
        "dueAt": None if index.due_at is None else to_micros(index.due_at),
        "lane": index.lane,
        "lookup": list(index.lookup) or None,
        "userId": index.owner_user,
    }
