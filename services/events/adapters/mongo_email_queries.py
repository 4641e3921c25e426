"""Asking MongoDB for mails: always the active generation, by the indexes that there are, without any bookkeeping."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Final, get_args

from pymongo.errors import PyMongoError

from contracts.addresses import normalise_address
from contracts.base import Money
from contracts.email.values import Category
from contracts.views import EmailLog, EmailStatus
from services.events.adapters.mongo_generations import MongoGenerations
from services.events.adapters.mongo_read_models import MongoReadModels, collection_name
from services.events.adapters.mongo_statistics import MongoStatistics
from services.events.analytics import CURRENCY, counts_of, sums
from services.events.cursors import Place
from services.events.projections.known import KnownEvent
from services.events.projections.projection import EMAIL_LOG
from services.events.queries import NO_SUMS, SUM_SECONDS, EmailFilter, Sums, TooMuch
from services.kit.mongo import Collection, Database, Document, foreign_errors

Query = dict[str, Any]

_CATEGORIES: Final = list(get_args(Category))
_STATUSES: Final = list(get_args(EmailStatus))
_SHOWN: Final = {str(field.alias): 1 for field in EmailLog.model_fields.values()}
_LATEST_FIRST: Final = [("createdAt", -1), ("_id", -1)]
_TOO_LONG: Final = 50  # MaxTimeMSExpired


class MongoEmailDocuments:
    """An `EmailDocuments`. The pointer is read with every question, so that a swap shows at once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._generations = MongoGenerations(database, EMAIL_LOG)

    async def page(self, where: EmailFilter, after: Place | None, skip: int, count: int) -> list[EmailLog]:
        collection = await self._active()
        if collection is None:
            return []
        with foreign_errors():
            found = await sorted_documents(collection, query_of(where), after, skip, count)
        return [EmailLog.model_validate(document) for document in found]

    async def sums(self, where: EmailFilter) -> Sums:
        active = (await self._generations.pointer()).active
        if active is None:
            return NO_SUMS
        if _is_of_buckets(where):
            statistics = MongoStatistics(self._database, EMAIL_LOG.name, active)
            told = await statistics.sums(where.since, where.before, where.category)
            if told is not None:
                return Sums(told[0], Money(amount=told[0].cost, currency=told[1] or "USD"))
        collection = self._database[collection_name(EMAIL_LOG.name, active)]
        try:
            with foreign_errors():
                pipeline = [{"$match": query_of(where)}, sums()]
                found = await collection.aggregate(pipeline, maxTimeMS=int(SUM_SECONDS * 1000))
                rows = await found.to_list(1)
        except Exception as error:
            cause = error if isinstance(error, PyMongoError) else error.__cause__
            if getattr(cause, "code", None) == _TOO_LONG:
                raise TooMuch(f"not summed up within {SUM_SECONDS:g} s") from None
            raise
        if not rows:
            return NO_SUMS
        counts = counts_of(rows[0])
        return Sums(counts, Money(amount=counts.cost, currency=rows[0][CURRENCY] or "USD"))

    async def find(self, message_id: str, owner: str | None) -> EmailLog | None:
        collection = await self._active()
        if collection is None:
            return None
        query: Query = {"_id": message_id, "_visible": {"$ne": False}}
        if owner is not None:
            query["userId"] = owner
        with foreign_errors():
            document = await collection.find_one(query, _SHOWN)
        return None if document is None else EmailLog.model_validate(document)

    async def known(self, message_id: str) -> list[KnownEvent]:
        active = (await self._generations.pointer()).active
        if active is None:
            return []
        return await MongoReadModels(self._database, EMAIL_LOG.name, active).known(message_id)

    async def _active(self) -> Collection | None:
        active = (await self._generations.pointer()).active
        return None if active is None else self._database[collection_name(EMAIL_LOG.name, active)]


def query_of(where: EmailFilter) -> Query:
    """The filter in MongoDB's words. It never matches what is not to be seen: such documents have no category.

    Naming every category and status where none is asked for lets {category, status, createdAt} give the order by
    createdAt (MongoDB merges the index's ranges), so that lists of all users need no index of their own.
    """
    query: Query = {
        "category": where.category or {"$in": _CATEGORIES},
        "status": where.status or {"$in": _STATUSES},
    }
    if where.user_id is not None:
        query["userId"] = where.user_id
    if where.client_id is not None:
        query["clientId"] = where.client_id
    if where.to is not None:
        query["to"] = {"$in": _spellings(where.to)}
    created = {"$gte": where.since, "$lt": where.before}
    if any(created.values()):
        query["createdAt"] = {name: value for name, value in created.items() if value is not None}
    if where.subject is not None:
        query["subject"] = {"$regex": re.escape(where.subject), "$options": "i"}
    return query


def _is_of_buckets(where: EmailFilter) -> bool:
    """Whether it names whole days and a category at most, so that the statistics' buckets tell its sums."""
    asks_more = (where.user_id, where.client_id, where.status, where.to, where.subject)
    return all(each is None for each in asks_more) and _is_midnight(where.since) and _is_midnight(where.before)


def _is_midnight(time: datetime | None) -> bool:
    return time is None or time.timestamp() % 86_400 == 0


async def sorted_documents(
    collection: Collection, query: Query, after: Place | None, skip: int, count: int
) -> list[Document]:
    """`count` documents from the place on, in the order (createdAt, _id), latest first.

    The indexes end with createdAt. So one walk along an index finds how far back the page goes, and only what lies in
    that span (the page and those of its last millisecond) is sorted by id too.
    """
    conditions: list[Query] = [query]
    if after is not None:
        conditions.append({"createdAt": {"$lte": after.created_at}})
        conditions.append({"$or": [{"createdAt": {"$lt": after.created_at}}, {"_id": {"$lt": after.id}}]})
    walk = collection.find({"$and": conditions}, {"_id": 0, "createdAt": 1}).sort("createdAt", -1)
    ends = await walk.skip(skip + count - 1).limit(1).to_list(1)
    if ends:
        conditions.append({"createdAt": {"$gte": ends[0]["createdAt"]}})
    return (
        await collection.find({"$and": conditions}, _SHOWN).sort(_LATEST_FIRST).skip(skip).limit(count).to_list(count)
    )


def _spellings(address: str) -> list[str]:
    try:
        return list(dict.fromkeys((normalise_address(address), address)))
    except ValueError:
        return [address]
