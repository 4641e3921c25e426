"""Statistics buckets of one generation: what is dirty is summed up anew from the documents.

`<collection>__statistics`: {_id: "2026-11-24/marketing", dirty, clean, day, category, rows: [{provider?, templateId?,
sums}]}; `analytics.MEASURES` says what the rows of a projection hold. `dirty` counts marks; a bucket is clean when
`clean` has reached it. A mark that comes while the sums are made leaves it dirty, and a slower worker's older sums
never overwrite newer ones.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from services.events.adapters.mongo_read_models import STATISTICS, collection_name
from services.events.analytics import MEASURES, Row
from services.kit.mongo import Database, Document, foreign_errors
from services.kit.mongo_time import READ_SECONDS, milliseconds

_DIRTY: Final = {"$expr": {"$gt": ["$dirty", {"$ifNull": ["$clean", 0]}]}}


class MongoStatistics:
    """The statistics of one generation."""

    def __init__(self, database: Database, projection: str, generation: int) -> None:
        name = collection_name(projection, generation)
        self._documents = database[name]
        self._buckets = database[name + STATISTICS]
        self._measures = MEASURES[projection]

    async def dirty(self, limit: int = 20) -> list[str]:
        """Buckets whose sums are old, latest day first."""
        with foreign_errors():
            found = await self._buckets.find(_DIRTY, {"_id": 1}).sort("_id", -1).limit(limit).to_list(limit)
        return [each["_id"] for each in found]

    async def refresh(self, bucket: str) -> bool:
        """Sum up one bucket; False when it was clean, or somebody else was faster."""
        day, _, category = bucket.partition("/")
        since = datetime.fromisoformat(f"{day}T00:00:00+00:00")
        with foreign_errors():
            before = await self._buckets.find_one({"_id": bucket, **_DIRTY}, {"dirty": 1})
            if before is None:
                return False
            cohort = {
                "category": category,
                "status": {"$in": list(self._measures.statuses)},
                "createdAt": {"$gte": since, "$lt": since + timedelta(days=1)},
            }
            pipeline = [{"$match": cohort}, self._measures.stage(split=True)]
            rows = await (await self._documents.aggregate(pipeline)).to_list(None)
            result = await self._buckets.update_one(
                {"_id": bucket, "$or": [{"clean": {"$lt": before["dirty"]}}, {"clean": None}]},
                {
                    "$set": {
                        "day": since,
                        "category": category,
                        "clean": before["dirty"],
                        "rows": [self._measures.row(row) for row in rows],
                    }
                },
            )
        return bool(result.matched_count)

    async def rows(self, since: datetime | None, before: datetime | None, category: str | None) -> list[Row] | None:
        """What the cohorts of these days add up to; None when one of them is not summed up yet."""
        keys: Document = {}
        if since is not None:
            keys["$gte"] = since.date().isoformat()
        if before is not None:
            keys["$lt"] = before.date().isoformat()
        query: Document = {"_id": keys} if keys else {}
        with foreign_errors():
            found = await self._buckets.find(query).max_time_ms(milliseconds(READ_SECONDS)).to_list(None)
        wanted = [each for each in found if category is None or each["_id"].endswith(f"/{category}")]
        if not wanted or any(each.get("clean", 0) < each["dirty"] for each in wanted):
            return None
        return [row for each in wanted for row in each.get("rows", ())]
