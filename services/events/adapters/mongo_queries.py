"""Asking MongoDB for the documents of a projection: always the active generation, without any bookkeeping."""

from __future__ import annotations

import re
import time
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, Generic, NamedTuple, TypeVar

from contracts.base import Model
from services.events.adapters.mongo_generations import MongoGenerations
from services.events.adapters.mongo_read_models import MongoReadModels, collection_name
from services.events.adapters.mongo_statistics import MongoStatistics
from services.events.analytics import MEASURES, Row
from services.events.cursors import Place, Step
from services.events.projections.known import KnownEvent
from services.events.projections.projection import Projection
from services.events.queries import SUM_SECONDS, HistoryPart
from services.kit.mongo import Collection, Database, Document, foreign_errors
from services.kit.mongo_time import READ_SECONDS, in_time, milliseconds

Query = dict[str, Any]
Where = TypeVar("Where")
Shown = TypeVar("Shown", bound=Model)
Total = TypeVar("Total")

_LATEST_FIRST: Final = [("createdAt", -1), ("_id", -1)]


class Cohort(NamedTuple):
    """A filter that the statistics' buckets may tell: whole days, and a category at most."""

    since: datetime | None
    before: datetime | None
    category: str | None


class MongoDocuments(ABC, Generic[Where, Shown, Total]):
    """A `Documents`, whose filter and sums a subclass knows. The pointer is read with every question, so that a swap
    shows at once.
    """

    def __init__(self, database: Database, projection: Projection, document: type[Shown]) -> None:
        self._database = database
        self._projection = projection
        self._document = document
        self._shown = {str(field.alias): 1 for field in document.model_fields.values()}
        self._generations = MongoGenerations(database, projection)

    @abstractmethod
    def _query(self, where: Where) -> Query:
        """The filter in MongoDB's words. It must never match what is not to be seen: such documents have no status."""

    @abstractmethod
    def _cohort(self, where: Where) -> Cohort | None:
        """What the buckets are asked for; None when the filter asks for more than they know."""

    @abstractmethod
    def _total(self, rows: Sequence[Row]) -> Total:
        """What rows add up to."""

    async def page(self, where: Where, after: Place | None, skip: int, count: int) -> list[Shown]:
        collection = await self._active()
        if collection is None:
            return []
        with in_time("the page", READ_SECONDS):
            found = await sorted_documents(collection, self._query(where), self._shown, after, skip, count)
        return [self._document.model_validate(document) for document in found]

    async def sums(self, where: Where) -> Total:
        active = (await self._generations.pointer()).active
        if active is None:
            return self._total([])
        cohort = self._cohort(where)
        if cohort is not None and is_midnight(cohort.since) and is_midnight(cohort.before):
            told = await MongoStatistics(self._database, self._projection.name, active).rows(*cohort)
            if told is not None:
                return self._total(told)
        collection = self._database[collection_name(self._projection.name, active)]
        return self._total(await _summed(collection, self._projection.name, self._query(where)))

    async def find(self, aggregate: str, owner: str | None) -> Shown | None:
        collection = await self._active()
        if collection is None:
            return None
        query: Query = {"_id": aggregate, "_visible": {"$ne": False}}
        if owner is not None:
            query["userId"] = owner
        with foreign_errors():
            document = await collection.find_one(query, self._shown, max_time_ms=milliseconds(READ_SECONDS))
        return None if document is None else self._document.model_validate(document)

    async def history(self, aggregate: str, after: Step | None, count: int) -> HistoryPart:
        active = (await self._generations.pointer()).active
        if active is None:
            return HistoryPart((), {})
        models = MongoReadModels(self._database, self._projection, active)
        return HistoryPart(*await models.history(aggregate, after, count))

    async def known(self, aggregate: str) -> list[KnownEvent]:
        """Every event known of one aggregate, in no order: those of its document and those outside it."""
        active = (await self._generations.pointer()).active
        if active is None:
            return []
        return await MongoReadModels(self._database, self._projection, active).known(aggregate)

    async def _active(self) -> Collection | None:
        active = (await self._generations.pointer()).active
        return None if active is None else self._database[collection_name(self._projection.name, active)]


async def _summed(collection: Collection, projection: str, query: Query) -> list[Row]:
    measures = MEASURES[projection]
    with in_time("what is needed for the sums", SUM_SECONDS):
        pipeline = [{"$match": query}, measures.stage()]
        found = await collection.aggregate(pipeline, maxTimeMS=milliseconds(SUM_SECONDS))
        return [measures.row(row) for row in await found.to_list(1)]


async def sorted_documents(
    collection: Collection, query: Query, shown: Query, after: Place | None, skip: int, count: int
) -> list[Document]:
    """`count` documents from the place on, in the order (createdAt, _id), latest first.

    The indexes end with createdAt. So one walk along an index finds how far back the page goes, and only what lies in
    that span (the page and those of its last millisecond) is sorted by id too. The two share `READ_SECONDS`.
    """
    begun = time.monotonic()
    conditions: list[Query] = [query]
    if after is not None:
        conditions.append({"createdAt": {"$lte": after.created_at}})
        conditions.append({"$or": [{"createdAt": {"$lt": after.created_at}}, {"_id": {"$lt": after.id}}]})
    walk = collection.find({"$and": conditions}, {"_id": 0, "createdAt": 1}).sort("createdAt", -1)
    ends = await walk.skip(skip + count - 1).limit(1).max_time_ms(milliseconds(READ_SECONDS)).to_list(1)
    if ends:
        conditions.append({"createdAt": {"$gte": ends[0]["createdAt"]}})
    left = milliseconds(READ_SECONDS - (time.monotonic() - begun))
    page = collection.find({"$and": conditions}, shown).sort(_LATEST_FIRST).max_time_ms(left)
    return await page.skip(skip).limit(count).to_list(count)


def created_between(since: datetime | None, before: datetime | None) -> Query:
    """The condition on createdAt; {} for none."""
    created = {"$gte": since, "$lt": before}
    if not any(created.values()):
        return {}
    return {"createdAt": {name: value for name, value in created.items() if value is not None}}


def holding(text: str) -> Query:
    """The condition on a field that it holds a text, in upper or lower case, in either normal form of Unicode: in names
    from a Mac accents are characters of their own.
    """
    forms = dict.fromkeys(unicodedata.normalize(form, text) for form in ("NFC", "NFD"))
    return {"$regex": "|".join(re.escape(form) for form in forms), "$options": "i"}


def is_midnight(time: datetime | None) -> bool:
    """Whether a time, if there is one, begins a UTC day."""
    return time is None or time.timestamp() % 86_400 == 0
