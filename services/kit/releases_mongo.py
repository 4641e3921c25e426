"""Releases in MongoDB: `releases`, `discarded` and `breakers` of a service's own database."""

from __future__ import annotations

from asyncio import gather
from collections.abc import Collection as AnyOf
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from pymongo import ASCENDING, DESCENDING
from pymongo.errors import PyMongoError

from services.kit.errors import TransientError
from services.kit.kafka.records import Partition, Record
from services.kit.mongo import Collection, Database, Document, foreign_errors, is_duplicate
from services.kit.parking_mongo import COLLECTION as PARKED
from services.kit.releases import Bound, BreakerReport, DiscardedRange, Release, offsets_in

FRESH_SECONDS: Final = 30.0
"""A report older than this is of a process that is gone."""
_KEPT_SECONDS: Final = 3600
_ROUNDS: Final = 8

_Place = tuple[str, str, int]  # consumer, topic, partition


class _Tail(NamedTuple):
    """The number of a place's latest range, and the highest offset in any of them."""

    number: int
    last: int


class MongoReleases:
    """`services.kit.releases.Releases`, and what operators do beside: give orders and look at them."""

    def __init__(self, database: Database) -> None:
        self._orders: Collection = database["releases"]
        self._ranges: Collection = database["discarded"]
        self._breakers: Collection = database["breakers"]
        self._parked: Collection = database[PARKED]
        self._tails: dict[_Place, _Tail] = {}
        """The latest range of each place that this process added itself: what lies behind it needs no look."""

    async def ensure_indexes(self) -> None:
        """Create what the queries need; does nothing when it stands."""
        place = [("consumer", ASCENDING), ("topic", ASCENDING), ("partition", ASCENDING)]
        with foreign_errors():
            await self._orders.create_index([("consumer", ASCENDING), ("closedAt", ASCENDING), ("_id", ASCENDING)])
            await self._ranges.create_index([*place, ("last", ASCENDING)])
            await self._ranges.create_index([*place, ("number", ASCENDING)], unique=True)
            await self._ranges.create_index([("release", ASCENDING)])
            await self._breakers.create_index([("at", ASCENDING)], expireAfterSeconds=_KEPT_SECONDS)

    # --- of consumers ---

    async def in_force(self, consumer: str) -> Sequence[Release]:
        with foreign_errors():
            found = await self._orders.find({"consumer": consumer, "closedAt": None}).sort("_id", ASCENDING).to_list()
        return [_release(each) for each in found]

    async def passed(self, release_id: str, partitions: AnyOf[Partition], at: datetime) -> None:
        wire = [[each.topic, each.partition] for each in partitions]
        behind = {"$setUnion": ["$passed", wire]}
        bounds = {"$map": {"input": "$bounds", "in": ["$$this.topic", "$$this.partition"]}}
        change: list[Document] = [
            {"$set": {"passed": behind}},
            {"$set": {"closedAt": {"$cond": [{"$setIsSubset": [bounds, "$passed"]}, at, None]}}},
        ]
        with foreign_errors():
            await self._orders.update_one({"_id": release_id, "closedAt": None}, change)

    async def discard(self, release: Release, records: Sequence[Record], at: datetime) -> int:
        by_partition: dict[Partition, list[Record]] = {}
        for record in records:
            by_partition.setdefault(Partition(record.topic, record.partition), []).append(record)
        return sum(await gather(*(self._discard(release, each, at) for each in by_partition.values())))

    async def discarded(self, consumer: str, topic: str, offsets: Mapping[int, AnyOf[int]]) -> set[tuple[int, int]]:
        places: list[Document] = [
            {"partition": partition, "last": {"$gte": min(wanted)}, "first": {"$lte": max(wanted)}}
            for partition, wanted in offsets.items()
            if wanted
        ]
        if not places:
            return set()
        query = {"consumer": consumer, "topic": topic, "$or": places}
        runs: dict[int, list[Sequence[int]]] = {}
        with foreign_errors():
            async for each in self._ranges.find(query, {"partition": 1, "runs": 1}):
                runs.setdefault(each["partition"], []).extend(each["runs"])
        return {
            (partition, offset) for partition, found in runs.items() for offset in offsets_in(found, offsets[partition])
        }

    async def any_from(self, consumer: str, topic: str, offsets: Mapping[int, int]) -> bool:
        if not offsets:
            return False
        places = [{"partition": partition, "last": {"$gte": first}} for partition, first in offsets.items()]
        with foreign_errors():
            found = await self._ranges.find_one({"consumer": consumer, "topic": topic, "$or": places}, {"_id": 1})
        return found is not None

    async def report(self, report: BreakerReport) -> None:
        document = {
            "consumer": report.consumer,
            "member": report.member,
            "state": report.state,
            "topics": list(report.topics),
            "since": report.since,
            "at": report.at,
            "topic": report.topic,
            "partition": report.partition,
            "offset": report.offset,
            "reason": report.reason,
            "source": report.source,
        }
        with foreign_errors():
            await self._breakers.replace_one({"_id": f"{report.consumer}|{report.member}"}, document, upsert=True)

    async def withdraw(self, consumer: str, member: str) -> None:
        with foreign_errors():
            await self._breakers.delete_one({"_id": f"{consumer}|{member}"})

    # --- of operators ---

    async def order(self, release: Release) -> None:
        """Give an order; durable when this returns. Given twice it is one."""
        with foreign_errors():
            await self._orders.update_one({"_id": release.id}, {"$setOnInsert": _document(release)}, upsert=True)

    async def orders(self, limit: int) -> Sequence[Release]:
        """The latest ones first, closed or not."""
        with foreign_errors():
            found = await self._orders.find().sort("_id", DESCENDING).limit(limit).to_list()
        return [_release(each) for each in found]

    async def show(self, release_id: str) -> Release | None:
        """One order; None when there is none."""
        with foreign_errors():
            found: Document | None = await self._orders.find_one({"_id": release_id})
        return None if found is None else _release(found)

    async def breakers(self, now: datetime) -> Sequence[BreakerReport]:
        """What is said now of breakers that are not closed, by consumer and member."""
        fresh = {"at": {"$gte": now - timedelta(seconds=FRESH_SECONDS)}}
        with foreign_errors():
            found = await self._breakers.find(fresh, {"_id": 0}).sort("_id", ASCENDING).to_list()
        return [BreakerReport(**{**each, "topics": tuple(each["topics"])}) for each in found]

    async def totals(self, release_id: str) -> tuple[int, int]:
        """How many records were parked by an order, and how many discarded."""
        sums: list[Document] = [
            {"$match": {"release": release_id}},
            {"$group": {"_id": None, "count": {"$sum": "$count"}}},
        ]
        with foreign_errors():
            parked = await self._parked.count_documents({"release": release_id})
            rows = await (await self._ranges.aggregate(sums)).to_list()
        return parked, rows[0]["count"] if rows else 0

    async def ranges(self, release_id: str) -> Sequence[DiscardedRange]:
        """What was discarded by an order, by partition and in order."""
        with foreign_errors():
            found = await self._ranges.find({"release": release_id}).to_list()
        made = [_range(each) for each in found]
        return sorted(made, key=lambda each: (each.topic, each.partition, each.number))

    # --- discarding ---

    async def _discard(self, release: Release, records: Sequence[Record], at: datetime) -> int:
        """Of one partition. Ranges are numbered, and whoever adds one has seen all before it: of two processes that
        discard at the same time one is refused by the index, and looks again.
        """
        where = Partition(records[0].topic, records[0].partition)
        place = (release.consumer, *where)
        for _ in range(_ROUNDS):
            tail = self._tails.pop(place, None)
            known: set[int] = set()
            if tail is None or tail.last >= min(record.offset for record in records):
                tail = await self._tail(place)
                known = await self._recorded(where, release.consumer, [record.offset for record in records])
            fresh = [each for each in records if each.offset not in known]
            if not fresh:
                return 0
            fresh.sort(key=lambda each: each.offset)
            try:
                with foreign_errors():
                    added = DiscardedRange.of(release, tail.number + 1, fresh, at)
                    await self._ranges.insert_one(_range_document(added))
            except PyMongoError as error:
                if not is_duplicate(error):
                    raise
            else:
                self._tails[place] = _Tail(added.number, max(tail.last, added.runs[-1][1]))
                return len(fresh)
        raise TransientError("others keep discarding records of this partition", retry_after=0.5)

    async def _tail(self, place: _Place) -> _Tail:
        query = dict(zip(("consumer", "topic", "partition"), place, strict=True))
        with foreign_errors():
            latest = await self._ranges.find_one(query, {"number": 1}, sort=[("number", DESCENDING)])
            furthest = await self._ranges.find_one(query, {"last": 1}, sort=[("last", DESCENDING)])
        return _Tail(latest["number"] if latest else 0, furthest["last"] if furthest else -1)

    async def _recorded(self, where: Partition, consumer: str, offsets: AnyOf[int]) -> set[int]:
        query: Document = {
            "consumer": consumer,
            "topic": where.topic,
            "partition": where.partition,
            "last": {"$gte": min(offsets)},
            "first": {"$lte": max(offsets)},
        }
        with foreign_errors():
            found = await self._ranges.find(query, {"runs": 1}).to_list()
        return offsets_in([run for each in found for run in each["runs"]], offsets)


def _document(release: Release) -> Document:
    return {
        "consumer": release.consumer,
        "action": release.action,
        "reason": release.reason,
        "by": release.by,
        "at": release.at,
        "source": release.source,
        "bounds": [asdict(each) for each in release.bounds],
        "passed": [[each.topic, each.partition] for each in release.passed],
        "closedAt": release.closed_at,
    }


def _release(document: Document) -> Release:
    fields: dict[str, Any] = {name: document[name] for name in ("consumer", "action", "reason", "by", "at", "source")}
    return Release(
        id=document["_id"],
        bounds=tuple(Bound(**each) for each in document["bounds"]),
        passed=frozenset(Partition(*each) for each in document["passed"]),
        closed_at=document["closedAt"],
        **fields,
    )


def _range_document(found: DiscardedRange) -> Document:
    return {
        "_id": f"{found.consumer}|{found.topic}|{found.partition}|{found.number}",
        "consumer": found.consumer,
        "topic": found.topic,
        "partition": found.partition,
        "number": found.number,
        "first": found.runs[0][0],
        "last": found.runs[-1][1],
        "runs": [list(run) for run in found.runs],
        "count": found.count,
        "size": found.size,
        "sha256": found.sha256,
        "release": found.release,
        "reason": found.reason,
        "by": found.by,
        "at": found.at,
    }


def _range(document: Document) -> DiscardedRange:
    names = ("consumer", "topic", "partition", "number", "size", "sha256", "release", "reason", "by", "at")
    fields: dict[str, Any] = {name: document[name] for name in names}
    return DiscardedRange(runs=tuple((first, last) for first, last in document["runs"]), **fields)
