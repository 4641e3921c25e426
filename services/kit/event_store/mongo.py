"""The event store on MongoDB. How a stream lies there: `documents.py`; how an append is followed through:
`mongo_append.py`.
"""

from collections.abc import Collection as Bag
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from contracts.base import to_micros
from services.kit import metrics as m
from services.kit.clock import Clock, SystemClock
from services.kit.errors import AppendOutcomeUnknown, ExpectedVersionConflict, Unavailable
from services.kit.event_store.documents import INDEXES, read_stream
from services.kit.event_store.mongo_append import BulkAppend
from services.kit.event_store.port import DUE_COUNTED, Append, Appended, AppendResult, Stream
from services.kit.event_store.server_time import ServerTime
from services.kit.metrics import Metrics
from services.kit.mongo import Collection, Document, foreign_errors

LEASE_MARGIN = timedelta(seconds=2)
"""How long past its end a lease still keeps others out: covers the skew between one primary's clock and the next's."""


class MongoEventStore:
    """`EventStore` on one collection, which needs `prepare` once and a client from `kit.mongo.connect`.

    `clock` gives durations only: leases and the age of what is unpublished go by the server's clock.
    """

    def __init__(
        self,
        collection: Collection,
        *,
        clock: Clock | None = None,
        metrics: Metrics | None = None,
        lease_margin: timedelta = LEASE_MARGIN,
    ) -> None:
        self._collection = collection
        self._margin = lease_margin
        self._clock = clock or SystemClock()
        self._metrics = metrics
        self._time = ServerTime(collection, self._clock)
        self._last_lease = 0
        self._idle_lanes: frozenset[str] = frozenset()

    async def prepare(self) -> None:
        """Create the indexes that are missing. May be called by every process at each start."""
        with foreign_errors():
            await self._collection.create_indexes(list(INDEXES))

    async def load(self, stream_id: str) -> Stream:
        with foreign_errors():
            document = await self._collection.find_one({"_id": stream_id})
        return Stream.absent(stream_id) if document is None else read_stream(document)

    async def load_many(self, stream_ids: Bag[str]) -> Mapping[str, Stream]:
        streams = {stream_id: Stream.absent(stream_id) for stream_id in stream_ids}
        if streams:
            streams |= {stream.stream_id: stream for stream in await self._find({"_id": {"$in": list(streams)}})}
        return streams

    async def append(self, append: Append) -> AppendResult:
        return (await self.append_many([append]))[0]

    async def append_many(self, appends: Sequence[Append]) -> list[AppendResult]:
        if len({append.stream.stream_id for append in appends}) != len(appends):
            raise ValueError("a stream is named twice in one call: append its events together")
        if not appends:
            return []
        started = self._clock.monotonic()
        results: list[AppendResult]
        try:
            server = await self._time.micros()
        except Unavailable as away:
            results = [away for _ in appends]
        else:
            results = await BulkAppend(self._collection, self._clock, appends, server).run()
        self._count(results, self._clock.monotonic() - started)
        return results

    async def find_by_lookup(self, value: str) -> str | None:
        with foreign_errors():
            document = await self._collection.find_one({"lookup": value}, {"_id": 1})
        return None if document is None else str(document["_id"])

    async def list_by_lookup(self, value: str, after: str | None, limit: int) -> list[Stream]:
        query: Document = {"lookup": value} if after is None else {"lookup": value, "_id": {"$gt": after}}
        return await self._find(query, sort=("_id", limit))

    async def mark_published(self, marks: Sequence[tuple[str, int]]) -> None:
        """One update for all streams of one version where none grew since it was read; a second one for those that
        did. An update of many costs MongoDB half of as many updates of one.
        """
        by_version: dict[int, list[str]] = {}
        for stream_id, version in marks:
            by_version.setdefault(version, []).append(stream_id)
        with foreign_errors():
            for version, names in by_version.items():
                published: Document = {"$max": {"published": version}}
                nothing_left: Document = {"$unset": {"pending": "", "pendingSince": ""}}
                result = await self._collection.update_many(
                    {"_id": {"$in": names}, "version": version}, published | nothing_left
                )
                if result.matched_count < len(names):
                    await self._collection.update_many({"_id": {"$in": names}, "version": {"$gt": version}}, published)

    async def unpublished(self, older_than: timedelta, limit: int) -> list[Stream]:
        before = await self._time.micros() - _micros(older_than)
        return await self._find({"pendingSince": {"$lte": before}}, sort=("pendingSince", limit))

    async def postpone_publishing(self, stream_ids: Bag[str], delay: timedelta) -> None:
        if not stream_ids:
            return
        until = await self._time.micros() + _micros(delay)
        waiting: Document = {"_id": {"$in": list(stream_ids)}, "pendingSince": {"$exists": True}}
        with foreign_errors():
            await self._collection.update_many(waiting, {"$set": {"pendingSince": until}})

    async def lease_due(
        self,
        lanes: Sequence[tuple[str, int]],
        owner: str,
        lease_for: timedelta,
        now: datetime,
        total: int | None = None,
    ) -> list[Stream]:
        """A time-out in the middle may leave streams leased that nobody was told of; they wait for its end."""
        server = await self._time.micros()
        free: Document = {
            "dueAt": {"$lte": to_micros(now)},
            "leasedUntil": {"$not": {"$gte": server - _micros(self._margin)}},
        }
        with foreign_errors():
            wanted = await self._due(lanes, free, sum(limit for _, limit in lanes) if total is None else total)
            if not wanted:
                return []
            until = self._lease_end(server, lease_for)
            lease = {"$set": {"owner": owner, "leasedUntil": until}}
            await self._collection.update_many({"_id": {"$in": wanted}, **free}, lease)
        won = await self._find({"_id": {"$in": wanted}, "owner": owner, "leasedUntil": until})
        order = {stream_id: place for place, stream_id in enumerate(wanted)}
        return sorted(won, key=lambda stream: order[stream.stream_id])

    async def renew(self, stream_ids: Bag[str], owner: str, lease_for: timedelta, *, shorten: bool = False) -> set[str]:
        if not stream_ids:
            return set()
        held: Document = {"_id": {"$in": list(stream_ids)}, "owner": owner}
        until = self._lease_end(await self._time.micros(), lease_for)
        with foreign_errors():
            await self._collection.update_many(held, {"$set" if shorten else "$max": {"leasedUntil": until}})
            return {document["_id"] for document in await self._collection.find(held, {"_id": 1}).to_list(None)}

    async def release(self, stream_ids: Bag[str], owner: str) -> None:
        if not stream_ids:
            return
        with foreign_errors():
            await self._collection.update_many(
                {"_id": {"$in": list(stream_ids)}, "owner": owner}, {"$unset": {"owner": "", "leasedUntil": ""}}
            )

    async def due_counts(self, lanes: Sequence[str], now: datetime) -> dict[str, int]:
        free: Document = {
            "dueAt": {"$lte": to_micros(now)},
            "leasedUntil": {"$not": {"$gte": await self._time.micros() - _micros(self._margin)}},
        }
        with foreign_errors():
            return {
                lane: await self._collection.count_documents({"lane": lane, **free}, limit=DUE_COUNTED)
                for lane in lanes
            }

    async def _due(self, lanes: Sequence[tuple[str, int]], free: Document, total: int) -> list[str]:
        """Ids of streams that seem due. Lanes in which the last look found nothing share one query first."""
        asked = {lane: limit for lane, limit in lanes if limit > 0}
        if not asked or total <= 0:
            return []
        idle = [lane for lane in asked if lane in self._idle_lanes]
        if len(idle) > 1 and await self._collection.find_one({"lane": {"$in": idle}, **free}, {"_id": 1}) is None:
            asked = {lane: limit for lane, limit in asked.items() if lane not in idle}
        found: list[str] = []
        for lane, limit in asked.items():
            room = min(limit, total - len(found))
            if room > 0:
                due = self._collection.find({"lane": lane, **free}, {"_id": 1}).sort("dueAt", 1).limit(room)
                names = [document["_id"] for document in await due.to_list(None)]
                found += names
                self._idle_lanes = self._idle_lanes - {lane} if names else self._idle_lanes | {lane}
        return found

    async def _find(self, query: Document, sort: tuple[str, int] | None = None) -> list[Stream]:
        with foreign_errors():
            cursor = self._collection.find(query)
            if sort is not None:
                cursor = cursor.sort(sort[0], 1).limit(sort[1])
            return [read_stream(document) for document in await cursor.to_list(None)]

    def _lease_end(self, server: int, lease_for: timedelta) -> int:
        """Never the same twice in this process for leases of one length, so that it tells which streams one call has
        won.
        """
        self._last_lease = max(self._last_lease + 1, server)
        return self._last_lease + _micros(lease_for)

    def _count(self, results: Sequence[AppendResult], seconds: float) -> None:
        if self._metrics is None:
            return
        self._metrics.observe(m.APPEND_SECONDS, seconds)
        for outcome in map(_outcome, results):
            self._metrics.inc(m.APPENDS, outcome=outcome)


def _micros(duration: timedelta) -> int:
    return duration // timedelta(microseconds=1)


def _outcome(result: AppendResult) -> str:
    match result:
        case Appended():
            return "appended"
        case ExpectedVersionConflict():
            return "conflict"
        case AppendOutcomeUnknown():
            return "unknown"
        case _:
            return "refused"
