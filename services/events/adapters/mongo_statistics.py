"""The statistics buckets of one generation: what is dirty is summed up anew from the documents.

`<collection>__statistics`: {_id: "2026-11-24/marketing", dirty, clean, measures, day, category, rows: [{provider?,
templateId?, sums}]}; `analytics.MEASURES` says what the rows of a projection hold, and `measures` which version of that
(absent: 1). `dirty` counts marks; a bucket is clean when `clean` has reached it. A mark that comes while the sums are
made leaves it dirty, and a slower worker's older sums never overwrite newer ones. A bucket that a later version has
summed up is left to the processes that have it.
"""

from __future__ import annotations

from collections.abc import Collection as Bag
from datetime import datetime, timedelta
from typing import Any, Final

from services.events.adapters.mongo_read_models import STATISTICS, collection_name
from services.events.analytics import MEASURES, Row
from services.events.projections.statistics import bucket_parts
from services.events.queries import SUM_SECONDS
from services.kit.errors import TooMuch
from services.kit.mongo import Database, Document, foreign_errors
from services.kit.mongo_time import READ_SECONDS, in_time, milliseconds

FRESH_SECONDS: Final = 2.0
"""How long an answer waits for the sums of dirty buckets; the ones that they had before are told then."""
MOST_DIRTY: Final = 200
"""Dirty buckets that are summed up for one answer; where there are more, all documents of the filter are."""

_CLEAN: Final[Document] = {"$ifNull": ["$clean", 0]}
_VERSION: Final[Document] = {"$ifNull": ["$measures", 1]}


class MongoStatistics:
    """The statistics of one generation."""

    def __init__(
        self, database: Database, projection: str, generation: int, *, patient: Database | None = None
    ) -> None:
        """`patient`: the same database for what takes longer than a request may."""
        name = collection_name(projection, generation)
        self._documents = database[name]
        self._whole = (database if patient is None else patient)[name]
        self._buckets = database[name + STATISTICS]
        self._measures = MEASURES[projection]
        version = self._measures.version
        self._dirty: Document = {
            "$expr": {
                "$and": [
                    {"$lte": [_VERSION, version]},
                    {"$or": [{"$gt": ["$dirty", _CLEAN]}, {"$lt": [_VERSION, version]}]},
                ]
            }
        }

    async def dirty(self) -> list[str]:
        """Buckets whose sums are old, latest day first."""
        with foreign_errors():
            found = await self._buckets.find(self._dirty, {"_id": 1}).sort("_id", -1).to_list(None)
        return [each["_id"] for each in found]

    async def refresh(self, bucket: str) -> bool:
        """Sum up one bucket; False when it was clean, or somebody else was faster."""
        day, category = bucket_parts(bucket)
        version = self._measures.version
        with foreign_errors():
            before = await self._buckets.find_one({"_id": bucket, **self._dirty}, {"dirty": 1})
            if before is None:
                return False
            pipeline = [{"$match": self._cohorts([bucket])}, self._measures.stage(split=True)]
            rows = await (await self._whole.aggregate(pipeline)).to_list(None)
            older = {"$or": [{"$lt": [_CLEAN, before["dirty"]]}, {"$lt": [_VERSION, version]}]}
            result = await self._buckets.update_one(
                {"_id": bucket, "$expr": {"$and": [{"$lte": [_VERSION, version]}, older]}},
                {
                    "$set": {
                        "day": _midnight(day),
                        "category": category,
                        "clean": before["dirty"],
                        "measures": version,
                        "rows": [self._measures.row(row) for row in rows],
                    }
                },
            )
        return bool(result.matched_count)

    async def rows(self, since: datetime | None, before: datetime | None, category: str | None) -> list[Row] | None:
        """What the cohorts of these days add up to; None when the documents can tell it as well.

        What is not clean is summed up for this answer. Where that takes longer than `FRESH_SECONDS`, the sums that a
        bucket had before are told.

        Raises:
            TooMuch: buckets that were never summed up cannot be in `SUM_SECONDS`.
        """
        keys: Document = {}
        if since is not None:
            keys["$gte"] = since.date().isoformat()
        if before is not None:
            keys["$lt"] = before.date().isoformat()
        query: Document = {"_id": keys} if keys else {}
        with foreign_errors():
            found = await self._buckets.find(query).max_time_ms(milliseconds(READ_SECONDS)).to_list(None)
        wanted = [each for each in found if category is None or each["_id"].endswith(f"/{category}")]
        ours = {each["_id"]: each for each in wanted if each.get("measures", 1) == self._measures.version}
        clean = {name for name, each in ours.items() if each.get("clean", 0) >= each["dirty"]}
        dirty = [each["_id"] for each in wanted if each["_id"] not in clean]
        if not wanted or len(dirty) > MOST_DIRTY:
            return None
        told = [row for name in clean for row in ours[name].get("rows", ())]
        if not dirty:
            return told
        try:
            return told + await self._summed(dirty, FRESH_SECONDS)
        except TooMuch:
            never = [name for name in dirty if "rows" not in ours.get(name, {})]
            told += [row for name in dirty if name not in never for row in ours[name]["rows"]]
            return told + (await self._summed(never, SUM_SECONDS) if never else [])

    async def _summed(self, buckets: Bag[str], seconds: float) -> list[Row]:
        """The documents of some buckets added up. Raises TooMuch."""
        pipeline = [{"$match": self._cohorts(buckets)}, self._measures.stage()]
        with in_time("what is needed for the sums", seconds):
            found = await self._documents.aggregate(pipeline, maxTimeMS=milliseconds(seconds))
            return [self._measures.row(row) for row in await found.to_list(1)]

    def _cohorts(self, buckets: Bag[str]) -> Document:
        """The documents of some buckets, by day, as the indexes that end with createdAt find them."""
        days: dict[str, list[str]] = {}
        for bucket in buckets:
            day, category = bucket_parts(bucket)
            days.setdefault(day, []).append(category)
        cohorts: list[dict[str, Any]] = [
            {
                "category": {"$in": categories},
                "status": {"$in": list(self._measures.statuses)},
                "createdAt": {"$gte": _midnight(day), "$lt": _midnight(day) + timedelta(days=1)},
            }
            for day, categories in days.items()
        ]
        return cohorts[0] if len(cohorts) == 1 else {"$or": cohorts}


def _midnight(day: str) -> datetime:
    return datetime.fromisoformat(f"{day}T00:00:00+00:00")
