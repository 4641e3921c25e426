"""Rate limits in MongoDB: one document per account, each draw one update that reads the server's clock.

    {_id: account, perSecond, at, urgent, others, common, dayLeft, taken}

The pipeline does the arithmetic of `rate.Pots` on the server, so that no process's clock and no race counts.
"""

from typing import Any

from pymongo import ReturnDocument

from services.kit import rate
from services.kit.mongo import Collection, Document, foreign_errors
from services.kit.rate import KEPT_SHARE, Draw, Pots, answer, no_limit

_FULL = {"$max": [1.0, {"$multiply": ["$t.burst", KEPT_SHARE]}]}
_BURST = {"$max": [rate.burst(0), {"$multiply": ["$perSecond", rate.burst(1_000_000) / 1_000_000]}]}


def _over(pot: str) -> Document:
    return {"$max": [0.0, {"$subtract": [pot, "$t.full"]}]}


def _gained(pot: str, share: float) -> Document:
    return {"$add": [pot, {"$multiply": ["$t.gained", share]}]}


_REFILL: list[Document] = [
    {
        "$set": {
            "at": {"$max": ["$at", "$$NOW"]},
            "t.burst": _BURST,
            "t.gained": {
                "$multiply": [
                    "$perSecond",
                    {"$divide": [{"$max": [0, {"$subtract": ["$$NOW", "$at"]}]}, 1000]},
                ]
            },
        }
    },
    {"$set": {"t.full": _FULL, "urgent": _gained("$urgent", KEPT_SHARE), "others": _gained("$others", KEPT_SHARE)}},
    {
        "$set": {
            "urgent": {"$min": ["$urgent", "$t.full"]},
            "others": {"$min": ["$others", "$t.full"]},
            "common": {
                "$min": [
                    {"$add": [_gained("$common", 1 - 2 * KEPT_SHARE), _over("$urgent"), _over("$others")]},
                    {"$subtract": ["$t.burst", {"$multiply": [2, "$t.full"]}]},
                ]
            },
        }
    },
]


class MongoRateLimits:
    """`RateLimits` on one collection."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection

    async def set_limit(self, account: str, per_second: float, day_left: int | None = None) -> None:
        first: Document = {
            "perSecond": {"$ifNull": ["$perSecond", 0.0]},
            "at": {"$ifNull": ["$at", "$$NOW"]},
            **{pot: {"$ifNull": [f"${pot}", 0.0]} for pot in ("urgent", "others", "common")},
        }
        limit: Document = {"perSecond": float(per_second), "dayLeft": day_left}
        stages = [{"$set": first}, *_REFILL, {"$set": limit}, {"$unset": "t"}]
        with foreign_errors():
            await self._collection.update_one({"_id": account}, stages, upsert=True)

    async def draw(self, account: str, wanted: int, *, urgent: bool) -> Draw:
        own = "urgent" if urgent else "others"
        with foreign_errors():
            document = await self._collection.find_one_and_update(
                {"_id": account}, [*_REFILL, *_take(own, wanted)], return_document=ReturnDocument.AFTER
            )
        if document is None:
            raise no_limit(account)
        pots = Pots(
            per_second=document["perSecond"],
            at=document["at"].timestamp(),
            urgent=document["urgent"],
            others=document["others"],
            common=document["common"],
            day_left=document["dayLeft"],
        )
        return answer(pots, wanted, int(document["taken"]), urgent=urgent)


def _take(own: str, wanted: int) -> list[Document]:
    mine = f"${own}"
    most: Any = {"$min": [wanted, {"$ifNull": ["$dayLeft", wanted]}, {"$floor": {"$add": [mine, "$common"]}}]}
    return [
        {"$set": {"taken": {"$max": [0, most]}}},
        {"$set": {"t.fromOwn": {"$min": [mine, "$taken"]}}},
        {
            "$set": {
                own: {"$subtract": [mine, "$t.fromOwn"]},
                "common": {
                    "$max": [0.0, {"$subtract": ["$common", {"$subtract": ["$taken", "$t.fromOwn"]}]}],
                },
                "dayLeft": {
                    "$cond": [{"$eq": ["$dayLeft", None]}, None, {"$subtract": ["$dayLeft", "$taken"]}],
                },
            }
        },
        {"$unset": "t"},
    ]
