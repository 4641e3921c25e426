"""Usage of quotas in MongoDB: one document for each user and each client, each change one update.

    {_id: holder, open: [{file, size, until}], used, at, forgetAt, over}

The pipeline does the arithmetic of `domain.quotas.Usage` on the server and by its clock: of any number of uploads that
begin at the same time, in any number of processes, no more are taken than fit. `forgetAt` drops a document by which
nothing is used any more.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from services.files.domain.quotas import WINDOW, OpenUpload, Over, Quota, Usage
from services.kit.mongo import Database, Document, foreign_errors

COLLECTION = "upload_quotas"

_WINDOW_MS = int(WINDOW.total_seconds() * 1000)


class MongoQuotas:
    """A `QuotaStore`."""

    def __init__(self, database: Database) -> None:
        self._usages = database[COLLECTION]

    async def prepare(self) -> None:
        """Make the index by which MongoDB forgets. Needed once; harmless again."""
        with foreign_errors():
            await self._usages.create_index("forgetAt", expireAfterSeconds=0, name="forget")

    async def reserve(self, holder: str, quota: Quota, upload: OpenUpload) -> Over | None:
        change = _reserving(quota, upload)
        try:
            found = await self._changed(holder, change)
        except DuplicateKeyError:  # two began the document at once: by now it is there
            found = await self._changed(holder, change)
        return _usage(found).over(quota, upload.size) if found["over"] else None

    async def release(self, holder: str, file_id: str, stored: int) -> None:
        with foreign_errors():
            await self._usages.update_one({"_id": holder, "open.file": file_id}, _releasing(file_id, stored))

    async def _changed(self, holder: str, change: list[Document]) -> Document:
        with foreign_errors():
            found = await self._usages.find_one_and_update(
                {"_id": holder}, change, upsert=True, return_document=ReturnDocument.AFTER
            )
        assert found is not None  # noqa: S101 - an upsert leaves one
        return found


def _reserving(quota: Quota, upload: OpenUpload) -> list[Document]:
    elapsed = {"$max": [0, {"$subtract": ["$$NOW", {"$ifNull": ["$at", "$$NOW"]}]}]}
    flowed = {"$multiply": [elapsed, (quota.bytes or 0) / _WINDOW_MS]}
    over: list[Any] = []
    if quota.open is not None:
        over.append({"$gte": [{"$size": "$open"}, quota.open]})
    if quota.bytes is not None:
        over.append({"$gt": [{"$add": ["$used", upload.size]}, quota.bytes]})
    entry = {"file": {"$literal": upload.file_id}, "size": upload.size, "until": upload.until}
    begins = {"$not": [{"$or": ["$known", "$over"]}]}
    return [
        {
            "$set": {
                "at": {"$max": ["$at", "$$NOW"]},
                "open": {"$filter": {"input": {"$ifNull": ["$open", []]}, "cond": {"$gt": ["$$this.until", "$$NOW"]}}},
                "used": {"$max": [0, {"$subtract": [{"$ifNull": ["$used", 0]}, flowed]}]},
            }
        },
        {"$set": {"known": {"$in": [{"$literal": upload.file_id}, "$open.file"]}}},
        {"$set": {"over": {"$and": [{"$not": ["$known"]}, {"$or": over}]}}},
        {
            "$set": {
                "open": {"$cond": [begins, {"$concatArrays": ["$open", [entry]]}, "$open"]},
                "used": {"$cond": [begins, {"$add": ["$used", 0 if quota.bytes is None else upload.size]}, "$used"]},
            }
        },
        {"$set": {"forgetAt": {"$max": [{"$add": ["$$NOW", _WINDOW_MS]}, {"$max": "$open.until"}]}}},
        {"$unset": "known"},
    ]


def _releasing(file_id: str, stored: int) -> list[Document]:
    this = {"$filter": {"input": "$open", "cond": {"$eq": ["$$this.file", {"$literal": file_id}]}}}
    others = {"$filter": {"input": "$open", "cond": {"$ne": ["$$this.file", {"$literal": file_id}]}}}
    back = {"$sum": {"$map": {"input": this, "in": {"$subtract": ["$$this.size", stored]}}}}
    return [{"$set": {"used": {"$max": [0, {"$subtract": ["$used", back]}]}, "open": others}}]


def _usage(document: Document) -> Usage:
    at: datetime = document["at"]
    uploads = (OpenUpload(each["file"], each["size"], each["until"]) for each in document["open"])
    return Usage(at, tuple(uploads), document["used"])
