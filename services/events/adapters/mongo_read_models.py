"""The documents of one generation in MongoDB.

A guarded replace is an upsert: where its guard fails it becomes an insert of an `_id` that is there, and E11000 tells
by index which one lost (a bulk of plain guarded updates reports counts only). An E11000 of another index is not a lost
guard: two aggregates claim what only one may have, and redoing it would never end.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection as Bag
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import bson
from bson.errors import InvalidDocument
from pymongo import InsertOne, ReplaceOne, UpdateOne
from pymongo.errors import BulkWriteError, DocumentTooLarge, OperationFailure, PyMongoError

from contracts.registry import UNKNOWN_RANK, rank_of
from services.events.adapters.mongo_documents import Document, from_document, from_row, row_id, to_document, to_row
from services.events.cursors import Step
from services.events.ports import Outcome, Row, Stored, Write
from services.events.projections.known import Engagement, KnownEvent, Overflow, Tally, retractions
from services.events.projections.projection import Projection
from services.kit.cancellation import cancellation_kept
from services.kit.errors import Unavailable
from services.kit.mongo import DUPLICATE_KEY, OF_THE_DOCUMENT, Collection, Database, classify_bulk, foreign_errors
from services.kit.mongo_time import READ_SECONDS, milliseconds

Operation = InsertOne[Document] | ReplaceOne[Document]

_UNWRITABLE: Final = (InvalidDocument, DocumentTooLarge, OverflowError, UnicodeEncodeError)
"""What the driver raises for a value that BSON cannot hold: before anything is sent, and for the whole bulk."""
_LARGEST: Final = 16 * 1024 * 1024
"""Bytes of a document that MongoDB takes (`maxBsonObjectSize` of every version there is)."""
_BY_ID: Final = {"_id": 1}
_STORED: Final = {"_id": 1, "_rev": 1, "_events": 1, "_overflow": 1}
_OUTCOMES: Final[dict[str, Outcome]] = {"done": "done", "duplicate": "conflict", "failed": "failed"}


def collection_name(projection: str, generation: int) -> str:
    """Where the documents of a generation lie; its rows and statistics have this name and a suffix."""
    return f"{projection}__g{generation}"


FACTS: Final = "__facts"
STATISTICS: Final = "__statistics"


class MongoReadModels:
    """A `ReadModels`."""

    def __init__(self, database: Database, projection: Projection, generation: int) -> None:
        name = collection_name(projection.name, generation)
        self._engagement = projection.engagement
        self._unique = projection.unique
        self._documents: Collection = database[name]
        self._facts: Collection = database[name + FACTS]
        self._statistics: Collection = database[name + STATISTICS]

    async def load(self, ids: Sequence[str]) -> dict[str, Stored]:
        with foreign_errors():
            found = await self._documents.find({"_id": {"$in": list(ids)}}, _STORED, batch_size=len(ids) + 1).to_list()
        return {document["_id"]: from_document(document) for document in found}

    async def write(self, writes: Sequence[Write]) -> list[Outcome]:
        return await _bulk(self._documents, [_write(write) for write in writes])

    def takes(self, write: Write) -> bool:
        try:
            return len(bson.encode(to_document(write))) <= _LARGEST
        except _UNWRITABLE:
            return False

    async def claimants(self, write: Write) -> list[str]:
        body = write.body or {}
        claims = [{name: body.get(name) for name, _ in index} for index in self._unique if index[0][0] in body]
        if not claims:
            return []
        with foreign_errors():
            found = await self._documents.find({"$or": claims}, {"_id": 1}).to_list()
        return [document["_id"] for document in found]

    async def load_rows(self, aggregate: str, event_ids: Bag[str]) -> dict[str, Row]:
        if not event_ids:
            return {}
        ids = [row_id(aggregate, event_id) for event_id in event_ids]
        with foreign_errors():
            found = await self._facts.find({"_id": {"$in": ids}}).to_list()
        return {document["event"]: from_row(document) for document in found}

    async def write_rows(self, aggregate: str, rows: Sequence[Row]) -> list[Outcome]:
        return await _bulk(self._facts, [_row(aggregate, row, self._engagement) for row in rows])

    async def tally_rows(self, aggregate: str, inline: Bag[str], withdrawn: Mapping[str, int]) -> Overflow:
        pipeline: list[Document] = [
            {"$match": {"_id": _of(aggregate), "aggregate": aggregate, "event": {"$nin": list(inline)}}}
        ]
        if withdrawn:
            covered = [{"event": event_id, "revision": {"$lte": upto}} for event_id, upto in withdrawn.items()]
            pipeline.append({"$match": {"$nor": covered}})
        pipeline.append(
            {
                "$group": {
                    "_id": {"recipient": "$recipient", "type": "$type", "machine": "$machine"},
                    "facts": {"$sum": 1},
                    "first": {"$min": "$time"},
                    "last": {"$max": "$time"},
                    "until": {"$max": "$until"},
                }
            }
        )
        with foreign_errors():
            groups = await (await self._facts.aggregate(pipeline)).to_list()
        return tuple(sorted(_tally(group) for group in groups))

    async def mark_dirty(self, buckets: Iterable[str]) -> None:
        marks = [UpdateOne({"_id": bucket}, {"$inc": {"dirty": 1}}, upsert=True) for bucket in buckets]
        if marks:
            with foreign_errors():
                await self._statistics.bulk_write(marks, ordered=False)

    async def history(self, aggregate: str, after: Step | None, count: int) -> tuple[list[KnownEvent], dict[str, int]]:
        """The first `count` events of an aggregate behind a step, rows included, in the order of the fold,
        and what of all its events is withdrawn. Reads its document, and no more rows than `count`.
        """
        within = milliseconds(READ_SECONDS)
        with foreign_errors():
            document = await self._documents.find_one({"_id": aggregate}, _STORED, max_time_ms=within)
            if document is None:
                return [], {}
            stored = from_document(document)
            inside = sorted(stored.known.values())
            start = 0 if after is None else bisect_right(inside, after, key=Step.of)
            found = inside[start : start + count]
            if stored.has_rows:
                pipeline = self._rows_behind(aggregate, list(stored.known), after, count)
                rows = await self._facts.aggregate(pipeline, maxTimeMS=within)
                found = sorted([*found, *[from_row(row).event async for row in rows]])[:count]
        return found, retractions(inside)

    def _rows_behind(self, aggregate: str, inline: list[str], after: Step | None, count: int) -> list[Document]:
        """The pipeline that finds an aggregate's rows behind a step, in that order."""
        match: Document = {"_id": _of(aggregate), "aggregate": aggregate, "event": {"$nin": inline}}
        ranks = [{"case": {"$eq": ["$type", each]}, "then": rank_of(each)} for each in sorted(self._engagement.types)]
        pipeline: list[Document] = [
            {"$match": match},
            {"$set": {"rank": {"$switch": {"branches": ranks, "default": UNKNOWN_RANK}}}},
        ]
        if after is not None:
            time, rank, event_id = after
            match["time"] = {"$gte": time}
            later: list[Document] = [{"rank": {"$gt": rank}}, {"rank": rank, "event": {"$gt": event_id}}]
            pipeline.append({"$match": {"$or": [{"time": {"$gt": time}}, *later]}})
        return [*pipeline, {"$sort": {"time": 1, "rank": 1, "event": 1}}, {"$limit": count}]

    async def known(self, aggregate: str) -> list[KnownEvent]:
        """Every event known of an aggregate, rows included, unordered; [] when there is none."""
        within = milliseconds(READ_SECONDS)
        with foreign_errors():
            document = await self._documents.find_one({"_id": aggregate}, _STORED, max_time_ms=within)
            if document is None:
                return []
            stored = from_document(document)
            rows = self._facts.find({"_id": _of(aggregate), "aggregate": aggregate}, max_time_ms=within)
            if stored.has_rows:
                async for row in rows:
                    stored.known.setdefault(row["event"], from_row(row).event)
        return list(stored.known.values())


def _of(aggregate: str) -> Document:
    first = row_id(aggregate, "")
    return {"$gte": first, "$lt": first[:-1] + "\x0b"}


def _write(write: Write) -> Operation:
    document = to_document(write)
    if write.expected == 0:
        return InsertOne(document)
    return ReplaceOne({"_id": write.id, "_rev": write.expected}, document, upsert=True)


def _tally(group: Document) -> Tally:
    by, facts, until = group["_id"], int(group["facts"]), group["until"] or ""
    return Tally(by["recipient"], by["type"], by["machine"], facts, group["first"], group["last"], until)


def _row(aggregate: str, row: Row, engagement: Engagement) -> Operation:
    document = to_row(aggregate, row, engagement)
    if row.rev == 0:
        return InsertOne(document)
    return ReplaceOne({"_id": document["_id"], "_rev": row.rev}, document, upsert=True)


async def _bulk(collection: Collection, operations: Sequence[Operation]) -> list[Outcome]:
    """Run an unordered bulk; outcomes by index. Where one document cannot even be encoded, each goes alone."""
    error: PyMongoError | None = None
    unfit = False
    try:
        with cancellation_kept():
            await collection.bulk_write(operations, ordered=False)
    except _UNWRITABLE:
        unfit = True
    except BulkWriteError as failure:
        error = failure
    except OperationFailure as failure:
        unfit, error = failure.code in OF_THE_DOCUMENT, failure
    except PyMongoError as failure:
        error = failure
    if unfit and len(operations) == 1:
        return ["failed"]
    if unfit:
        return [outcome for operation in operations for outcome in await _bulk(collection, [operation])]
    found = classify_bulk(error, len(operations))
    if found.where("unknown"):
        raise Unavailable("MongoDB", f"a bulk got no answer from a majority: {found.detail}")
    if found.where("failed") and not _blames_documents(error):
        raise Unavailable("MongoDB", f"does not take writes to {collection.name}: {found.detail}")
    outcomes = [_OUTCOMES[item] for item in found.items]
    for index in _claimed_by_others(error):
        outcomes[index] = "failed"
    return outcomes


def _claimed_by_others(error: PyMongoError | None) -> Iterable[int]:
    """The operations, by index, whose document has a unique key that another document has already."""
    if isinstance(error, BulkWriteError):
        for failure in (error.details or {}).get("writeErrors", ()):
            if failure.get("code") == DUPLICATE_KEY and failure.get("keyPattern", _BY_ID) != _BY_ID:
                yield failure["index"]


def _blames_documents(error: PyMongoError | None) -> bool:
    """Whether everything that went wrong in a bulk is the fault of single documents, or of their guards."""
    if not isinstance(error, BulkWriteError):
        return False
    codes = {failure.get("code") for failure in (error.details or {}).get("writeErrors", ())}
    return codes <= OF_THE_DOCUMENT | {DUPLICATE_KEY}
