"""Leases, checkpoints and heartbeats of one generation in MongoDB, by the server's clock alone.

`leases`: {_id: "<projection>/<generation>/<partition>", generation, topic, partition, owner, epoch, until, next,
begin}; `next` is the checkpoint, `begin` where the generation's first one lay.
`workers`: {_id: "<projection>/<generation>/<owner>", generation, at}.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pymongo import ReturnDocument, UpdateOne

from services.events.ports import Lease, LeaseView
from services.kit.mongo import Database, Document, foreign_errors
from services.kit.mongo_time import READ_SECONDS, milliseconds

LEASES: Final = "leases"
WORKERS: Final = "workers"
LEASE_MS: Final = 10_000
_EXPIRED: Final = {"$lt": ["$until", "$$NOW"]}


class MongoLeases:
    """A `LeaseStore`."""

    def __init__(
        self, database: Database, projection: str, generation: int, topic: str, *, lease_ms: int = LEASE_MS
    ) -> None:
        self._leases = database[LEASES]
        self._workers = database[WORKERS]
        self._key = f"{projection}/{generation}"
        self._topic = topic
        self._lease_ms = lease_ms

    async def seed(self, begins: Mapping[int, int]) -> None:
        for partition, begin in begins.items():
            first: Document = {
                "generation": self._key,
                "topic": self._topic,
                "partition": partition,
                "owner": None,
                "epoch": 0,
                "next": begin,
                "begin": begin,
            }
            with foreign_errors():
                await self._leases.update_one(
                    {"_id": self._id(partition)},
                    [{"$replaceWith": {"$mergeObjects": [{**first, "until": _ago()}, "$$ROOT"]}}],
                    upsert=True,
                )

    async def beat(self, owner: str) -> int:
        with foreign_errors():
            await self._workers.update_one(
                {"_id": f"{self._key}/{owner}"},
                [{"$set": {"generation": self._key, "at": "$$NOW"}}],
                upsert=True,
            )
            alive = {"$gt": ["$at", {"$subtract": ["$$NOW", self._lease_ms]}]}
            return await self._workers.count_documents({"generation": self._key, "$expr": alive})

    async def leave(self, owner: str) -> None:
        with foreign_errors():
            await self._leases.update_many({"generation": self._key, "owner": owner}, _freed())
            await self._workers.delete_one({"_id": f"{self._key}/{owner}"})

    async def acquire(self, owner: str, partition: int) -> Lease | None:
        with foreign_errors():
            found: Document | None = await self._leases.find_one_and_update(
                {
                    "_id": self._id(partition),
                    "$expr": {"$or": [{"$lt": ["$until", "$$NOW"]}, {"$eq": ["$owner", owner]}]},
                },
                [{"$set": {"owner": owner, "epoch": {"$add": ["$epoch", 1]}, "until": self._until()}}],
                return_document=ReturnDocument.AFTER,
            )
        return None if found is None else Lease(partition, found["epoch"], found["next"])

    async def renew(self, owner: str, leases: Sequence[Lease]) -> set[int]:
        if not leases:
            return set()
        with foreign_errors():
            held = {"$or": [self._held(owner, lease) for lease in leases]}
            result = await self._leases.update_many(held, [{"$set": {"until": self._until()}}])
            return set() if result.matched_count == len(leases) else await self._lost(owner, leases)

    async def checkpoint(self, owner: str, leases: Sequence[Lease]) -> set[int]:
        updates = [
            UpdateOne(self._held(owner, lease), [{"$set": {"next": lease.next, "until": self._until()}}])
            for lease in leases
        ]
        if not updates:
            return set()
        with foreign_errors():
            result = await self._leases.bulk_write(updates, ordered=False)
            if result.matched_count == len(updates):
                return set()
            return await self._lost(owner, leases)

    async def release(self, owner: str, leases: Sequence[Lease]) -> None:
        with foreign_errors():
            for lease in leases:
                await self._leases.update_one(self._held(owner, lease), _freed())

    async def step_over(self, partition: int, to: int) -> bool:
        with foreign_errors():
            result = await self._leases.update_one(
                {"_id": self._id(partition), "next": {"$lt": to}},
                [{"$set": {"next": to, "owner": None, "until": _ago(), "epoch": {"$add": ["$epoch", 1]}}}],
            )
        return bool(result.matched_count)

    async def view(self) -> list[LeaseView]:
        pipeline: list[Document] = [
            {"$match": {"generation": self._key}},
            {"$set": {"held": {"$gte": ["$until", "$$NOW"]}}},
            {"$sort": {"partition": 1}},
        ]
        with foreign_errors():
            found = await (await self._leases.aggregate(pipeline, maxTimeMS=milliseconds(READ_SECONDS))).to_list(None)
        return [
            LeaseView(each["partition"], each["owner"], each["epoch"], each["next"], each["begin"], each["held"])
            for each in found
        ]

    async def _lost(self, owner: str, leases: Sequence[Lease]) -> set[int]:
        return {lease.partition for lease in leases if not await self._leases.find_one(self._held(owner, lease))}

    def _id(self, partition: int) -> str:
        return f"{self._key}/{partition}"

    def _held(self, owner: str, lease: Lease) -> Document:
        return {"_id": self._id(lease.partition), "owner": owner, "epoch": lease.epoch}

    def _until(self) -> Document:
        return {"$add": ["$$NOW", self._lease_ms]}


def _ago() -> Document:
    return {"$subtract": ["$$NOW", 1]}


def _freed() -> list[dict[str, Any]]:
    return [{"$set": {"owner": None, "until": _ago()}}]
