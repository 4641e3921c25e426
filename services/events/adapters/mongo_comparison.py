"""Comparing two generations in MongoDB, document by document, in the order of their ids.

What `to_document` writes is a function of an aggregate's events, so equal aggregates are equal bytes after `_rev`. Only
those that differ in bytes are decoded and judged, at positions that both generations have reached.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Iterator
from heapq import merge
from itertools import groupby
from typing import Any, Final, cast

from pydantic_core import from_json
from pymongo.collection import Collection as SyncCollection

from services.events.adapters.mongo_documents import BOOKKEEPING, Document, values_of
from services.events.adapters.mongo_read_models import FACTS, collection_name
from services.events.ports import LeaseStore, Verdict
from services.kit.clock import Clock
from services.kit.mongo import Database, foreign_errors

EXAMPLES: Final = 20
ROUNDS: Final = 50
"""How often what lies ahead of one generation is looked at again, with a pause of `PAUSE` seconds."""
PAUSE: Final = 0.2

_LENGTH = struct.Struct("<i")
_ID_AT, _REV_BYTES = 13, 14
Origins = dict[str, tuple[int, int, int]]


class MongoComparison:
    """A `Comparison`."""

    def __init__(self, database: Database, projection: str, leases: Callable[[int], LeaseStore], clock: Clock) -> None:
        self._database = database.delegate
        self._projection = projection
        self._leases = leases
        self._clock = clock

    async def compare(self, old: int, new: int, *, same_version: bool) -> Verdict:
        one, other = self._documents(old), self._documents(new)
        with foreign_errors():
            documents, suspects, busy = await asyncio.to_thread(_scan, one, other)
        differing: list[str] = []
        reshaped = 0
        for aggregate in [*suspects, *(each for each in busy if each not in suspects)]:
            verdict = await self._judge(aggregate, old, new, same_version=same_version)
            if verdict == "differs":
                differing.append(aggregate)
            reshaped += verdict == "reshaped"
        return Verdict(documents, len(differing), reshaped, tuple(differing[:EXAMPLES]))

    async def _judge(self, aggregate: str, old: int, new: int, *, same_version: bool) -> str:
        for _ in range(ROUNDS):
            reached = [await self._reached(old), await self._reached(new)]  # before the documents are read
            with foreign_errors():
                one = await asyncio.to_thread(self._known, old, aggregate)
                other = await asyncio.to_thread(self._known, new, aggregate)
            if one[1] == other[1]:
                if one[0] == other[0]:
                    return "equal"
                return "differs" if same_version else "reshaped"
            if not (_lies_ahead(one[1], other[1], reached[1]) or _lies_ahead(other[1], one[1], reached[0])):
                return "differs"
            await self._clock.sleep(PAUSE)
        return "differs"

    async def _reached(self, generation: int) -> dict[int, int]:
        return {each.partition: each.next for each in await self._leases(generation).view()}

    def _known(self, generation: int, aggregate: str) -> tuple[Document | None, Origins]:
        """(body, event id → its origin, and 1 where it lies outside) of an aggregate, rows included."""
        document = self._documents(generation).find_one({"_id": aggregate})
        if document is None:
            return None, {}
        body = {name: value for name, value in document.items() if name not in BOOKKEEPING or name == "_permanent"}
        if "_overflow" in document:
            body["_overflow"] = document["_overflow"]
        events = document["_events"]
        origins: Origins = {
            _event_id(raw): (partition, offset, 0)
            for raw, partition, offset in zip(values_of(events), events["partition"], events["offset"], strict=True)
        }
        if "_overflow" in document:
            name = collection_name(self._projection, generation) + FACTS
            wanted = {"event": 1, "partition": 1, "offset": 1}
            for row in self._database[name].find({"aggregate": aggregate, "_id": _prefix(aggregate)}, wanted):
                origins.setdefault(row["event"], (row["partition"], int(row["offset"]), 1))
        return body, origins

    def _documents(self, generation: int) -> SyncCollection[Document]:
        documents: SyncCollection[Document] = self._database[collection_name(self._projection, generation)]
        return documents


def _lies_ahead(mine: Origins, theirs: Origins, reached: dict[int, int]) -> bool:
    """Whether something that only one side has lies where the other side has not been yet."""
    return any(
        theirs.get(event_id) != origin and origin[1] >= reached.get(origin[0], 0) for event_id, origin in mine.items()
    )


def _scan(one: SyncCollection[Document], other: SyncCollection[Document]) -> tuple[int, list[str], list[str]]:
    """(documents in all, ids whose bytes differ, ids that have rows), by walking both in the order of ids."""
    suspects: list[str] = []
    count = 0
    for aggregate, pair in groupby(merge(_documents(one), _documents(other), key=_first), key=_first):
        count += 1
        contents = [content for _, content in pair]
        if len(contents) != 2 or contents[0] != contents[1]:
            suspects.append(aggregate.decode())
    busy = {each["_id"] for each in one.find({"_overflow": {"$exists": True}}, {"_id": 1})}
    return count, suspects, sorted(busy)


def _documents(collection: SyncCollection[Document]) -> Iterator[tuple[bytes, bytes]]:
    """(id, all after `_rev`) of each document, in the order of ids."""
    found = collection.find_raw_batches({}, sort=[("_id", 1)], batch_size=1000)
    for batch in cast("Iterator[bytes]", found):
        at = 0
        while at < len(batch):
            (length,) = _LENGTH.unpack_from(batch, at)
            (id_length,) = _LENGTH.unpack_from(batch, at + _ID_AT - 4)
            id_end = at + _ID_AT + id_length
            yield batch[at + _ID_AT : id_end - 1], batch[id_end + _REV_BYTES : at + length]
            at += length


def _first(document: tuple[bytes, bytes]) -> bytes:
    return document[0]


def _event_id(raw: bytes) -> str:
    event_id: str = from_json(raw)["id"]
    return event_id


def _prefix(aggregate: str) -> dict[str, Any]:
    return {"$gte": f"{aggregate}\n", "$lt": f"{aggregate}\x0b"}
