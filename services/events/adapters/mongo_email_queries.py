"""Asking MongoDB for mails, by the indexes that there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, get_args

from contracts.addresses import normalise_address
from contracts.base import Money
from contracts.email.values import Category
from contracts.views import EmailLog, EmailStatus
from services.events.adapters.mongo_queries import Cohort, MongoDocuments, Query, created_between, holding
from services.events.analytics import CURRENCY, Row
from services.events.email_queries import EmailFilter, Sums
from services.events.projections.projection import EMAIL_LOG
from services.events.projections.statistics import Counts, total
from services.kit.mongo import Database

_CATEGORIES: Final = list(get_args(Category))
_STATUSES: Final = list(get_args(EmailStatus))


class MongoEmailDocuments(MongoDocuments[EmailFilter, EmailLog, Sums]):
    """An `EmailDocuments`."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, EMAIL_LOG, EmailLog)

    def _query(self, where: EmailFilter) -> Query:
        return query_of(where)

    def _cohort(self, where: EmailFilter) -> Cohort | None:
        asks_more = (where.user_id, where.client_id, where.status, where.to, where.subject)
        if any(each is not None for each in asks_more):
            return None
        return Cohort(where.since, where.before, where.category)

    def _total(self, rows: Sequence[Row]) -> Sums:
        counts = total(Counts(**row["sums"]) for row in rows)
        currencies = {row[CURRENCY] for row in rows if row.get(CURRENCY) is not None}
        return Sums(counts, Money(amount=counts.cost, currency=currencies.pop() if len(currencies) == 1 else "USD"))


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
    if where.subject is not None:
        query["subject"] = holding(where.subject)
    return query | created_between(where.since, where.before)


def _spellings(address: str) -> list[str]:
    try:
        return list(dict.fromkeys((normalise_address(address), address)))
    except ValueError:
        return [address]
