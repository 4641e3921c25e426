"""Asking MongoDB for files, by the indexes that there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, get_args

from contracts.files.values import FileCategory
from contracts.views import File, FileStatus
from services.events.adapters.mongo_queries import Cohort, MongoDocuments, Query, created_between, holding
from services.events.analytics import Row
from services.events.file_queries import FileFilter
from services.events.projections.projection import FILE
from services.kit.mongo import Database

_CATEGORIES: Final = list(get_args(FileCategory))
_STATUSES: Final = list(get_args(FileStatus))


class MongoFileDocuments(MongoDocuments[FileFilter, File, int]):
    """A `FileDocuments`."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, FILE, File)

    def _query(self, where: FileFilter) -> Query:
        return query_of(where)

    def _cohort(self, where: FileFilter) -> Cohort | None:
        asks_more = (where.user_id, where.client_id, where.status, where.tag, where.name)
        if any(each is not None for each in asks_more):
            return None
        return Cohort(where.since, where.before, where.category)

    def _total(self, rows: Sequence[Row]) -> int:
        return sum(row["sums"]["files"] for row in rows)


def query_of(where: FileFilter) -> Query:
    """The filter in MongoDB's words. It never matches what is not to be seen: such documents have no status.

    Every status, and of one user every category, is named where none is asked for: so {status, createdAt} and {userId,
    category, status, createdAt} give the order by createdAt, as MongoDB merges an index's ranges.
    """
    query: Query = {"status": where.status or {"$in": _STATUSES}}
    if where.category is not None or where.user_id is not None:
        query["category"] = where.category or {"$in": _CATEGORIES}
    if where.user_id is not None:
        query["userId"] = where.user_id
    if where.client_id is not None:
        query["clientId"] = where.client_id
    if where.tag is not None:
        query["metadata.tags"] = where.tag
    if where.name is not None:
        query["$or"] = [{"originalName": holding(where.name)}, {"fileName": holding(where.name)}]
    return query | created_between(where.since, where.before)
