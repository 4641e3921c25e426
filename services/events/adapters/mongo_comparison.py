"""Comparing two generations in MongoDB, document by document, in the order of their ids.

What `to_document` writes is a function of an aggregate's events, so equal aggregates are equal bytes after `_rev`. Only
those that differ in bytes are decoded and judged, at positions that both generations have reached.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, cast

from pydantic_core import from_json

from services.events.adapters.mongo_documents import BOOKKEEPING, Document, values_of
from services.events.adapters.mongo_read_models import FACTS, collection_name
from services.events.ports import LeaseStore, Verdict
from services.kit.clock import Clock
from services.kit.mongo import Collection, Database, foreign_errors

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
        self._database = database
        self._projection = projection
        self._leases = leases
        self._clock = clock

    async def compare(self, old: int, new: int, *, same_version: bool) -> Verdict:
        one, other = self._documents(old), self._documents(new)
        with foreign_errors():
            documents, suspects, busy = await _scan(one, other)
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
                one = await self._known(old, aggregate)
                other = await self._known(new, aggregate)
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

    async def _known(self, generation: int, aggregate: str) -> tuple[Document | None, Origins]:
        """(body, event id → its origin, and 1 where it lies outside) of an aggregate, rows included."""
        document = await self._documents(generation).find_one({"_id": aggregate})
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
            async for row in self._database[name].find({"aggregate": aggregate, "_id": _prefix(aggregate)}, wanted):
                origins.setdefault(row["event"], (row["partition"], int(row["offset"]), 1))
        return body, origins

    def _documents(self, generation: int) -> Collection:
        return self._database[collection_name(self._projection, generation)]


def _lies_ahead(mine: Origins, theirs: Origins, reached: dict[int, int]) -> bool:
    """Whether something that only one side has lies where the other side has not been yet."""
    return any(
        theirs.get(event_id) != origin and origin[1] >= reached.get(origin[0], 0) for event_id, origin in mine.items()
    )


async def _scan(one: Collection, other: Collection) -> tuple[int, list[str], list[str]]:
    """(documents in all, ids whose bytes differ, ids that have rows), by walking both in the order of ids."""
    suspects: list[str] = []
    count = 0
    ours, theirs = _documents(one), _documents(other)
    mine, yours = await anext(ours, None), await anext(theirs, None)
    while mine is not None or yours is not None:
        count += 1
        first = min(each[0] for each in (mine, yours) if each is not None)
        if mine != yours:
            suspects.append(first.decode())
        if mine is not None and mine[0] == first:
            mine = await anext(ours, None)
        if yours is not None and yours[0] == first:
            yours = await anext(theirs, None)
    busy = [each["_id"] async for each in one.find({"_overflow": {"$exists": True}}, {"_id": 1})]
    return count, suspects, sorted(busy)


async def _documents(collection: Collection) -> AsyncIterator[tuple[bytes, bytes]]:
    """(id, all after `_rev`) of each document, in the order of ids."""
    found = collection.find_raw_batches({}, sort=[("_id", 1)], batch_size=1000)
    async for batch in cast("AsyncIterator[bytes]", found):
        at = 0
        while at < len(batch):
            (length,) = _LENGTH.unpack_from(batch, at)
            (id_length,) = _LENGTH.unpack_from(batch, at + _ID_AT - 4)
            id_end = at + _ID_AT + id_length
            yield batch[at + _ID_AT : id_end - 1], batch[id_end + _REV_BYTES : at + length]
            at += length


def _event_id(raw: bytes) -> str:
    event_id: str = from_json(raw)["id"]
    return event_id


def _prefix(aggregate: str) -> dict[str, Any]:
    return {"$gte": f"{aggregate}\n", "$lt": f"{aggregate}\x0b"}
