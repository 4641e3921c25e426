"""Limits of a day in MongoDB: one document a key, each count one update that reads the server's clock.

{_id: key, day: "2026-12-01", used, granted, at}
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import date, timedelta
from typing import Any, Final

from pymongo import ReturnDocument

from services.kit.clock import Clock
from services.kit.daily import Count, DailyLimit, Used, until_next_day
from services.kit.mongo import Collection as MongoCollection
from services.kit.mongo import Document, foreign_errors

COLLECTION: Final = "daily_counts"
_TODAY = {"$dateToString": {"date": "$$NOW", "format": "%Y-%m-%d"}}


class MongoDailyCounts:
    """`DailyCounts` on one collection.

    The server's day decides. The limits of three days are sent along, the second of which is today by this process's
    clock. A clock that is wrong by more than a day grants nothing.
    """

    def __init__(self, collection: MongoCollection, clock: Clock) -> None:
        self._collection, self._clock = collection, clock

    async def take(self, key: str, wanted: int, limit: DailyLimit, *, exempt: bool = False) -> Count:
        granted: Any = wanted if exempt else {"$max": [0, {"$min": [wanted, self._left(wanted, limit)]}]}
        stages: list[Document] = [
            *_TO_TODAY,
            {"$set": {"granted": granted}},
            {"$set": {"used": {"$add": ["$used", "$granted"]}}},
        ]
        with foreign_errors():
            found: Any = await self._collection.find_one_and_update(
                {"_id": key}, stages, upsert=True, return_document=ReturnDocument.AFTER
            )
        return Count(found["granted"], date.fromisoformat(found["day"]), until_next_day(found["at"]))

    async def give_back(self, key: str, day: date, count: int) -> None:
        left = {"$max": [0, {"$subtract": ["$used", count]}]}
        with foreign_errors():
            await self._collection.update_one({"_id": key, "day": day.isoformat()}, [{"$set": {"used": left}}])

    async def used(self, keys: Collection[str]) -> Mapping[str, Used]:
        stages: list[Document] = [{"$match": {"_id": {"$in": list(keys)}}}, *_TO_TODAY]
        with foreign_errors():
            found = {each["_id"]: each for each in await (await self._collection.aggregate(stages)).to_list(None)}
        today = self._clock.now().date()  # of a key that was never counted
        return {
            key: Used(date.fromisoformat(found[key]["day"]), found[key]["used"]) if key in found else Used(today, 0)
            for key in keys
        }

    def _left(self, wanted: int, limit: DailyLimit) -> Document:
        """What the server's day leaves."""
        today = self._clock.now().date()
        branches: list[Document] = []
        for day in (today + timedelta(days=offset) for offset in (-1, 0, 1)):
            most = limit(day)
            left: Any = wanted if most is None else {"$subtract": [most, "$used"]}
            branches.append({"case": {"$eq": ["$day", day.isoformat()]}, "then": left})
        return {"$switch": {"branches": branches, "default": 0}}


_TO_TODAY: list[Document] = [
    # A server whose clock is behind that of the one before it does not begin the former day anew.
    {"$set": {"at": "$$NOW", "today": {"$max": ["$day", _TODAY]}}},
    {"$set": {"day": "$today", "used": {"$cond": [{"$eq": ["$day", "$today"]}, "$used", 0]}}},
    {"$unset": "today"},
]
