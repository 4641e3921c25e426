"""Which mails: the filter of `GET /api/email`, and how MongoDB is asked for it with the indexes that there are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, get_args

from contracts.addresses import normalise_address
from contracts.email.values import Category
from contracts.views import EmailStatus

Query = dict[str, Any]

_CATEGORIES: Final = list(get_args(Category))
_STATUSES: Final = list(get_args(EmailStatus))
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class EmailFilter:
    """All conditions hold; None = any.

    Attributes:
        user_id: whose mails.
        since, before: of createdAt, `since` included and `before` not; aware.
        to: an address among the message's `to`, in any spelling of its domain.
        subject: text that the subject holds, upper and lower case alike.
    """

    user_id: str | None = None
    client_id: str | None = None
    category: Category | None = None
    status: EmailStatus | None = None
    since: datetime | None = None
    before: datetime | None = None
    to: str | None = None
    subject: str | None = None

    def query(self) -> Query:
        """The filter in MongoDB's words. It never matches what is not to be seen: such documents have no category."""
        query: Query = {}
        if self.user_id is not None:
            query["userId"] = self.user_id
        if self.client_id is not None:
            query["clientId"] = self.client_id
        if self.to is not None:
            query["to"] = {"$in": _spellings(self.to)}
        # Naming every value where none is asked for lets {category, status, createdAt} give the order by createdAt.
        query["category"] = self.category or {"$in": _CATEGORIES}
        query["status"] = self.status or {"$in": _STATUSES}
        if self.since is not None or self.before is not None:
            created = {"$gte": self.since, "$lt": self.before}
            query["createdAt"] = {name: value for name, value in created.items() if value is not None}
        if self.subject is not None:
            query["subject"] = {"$regex": re.escape(self.subject), "$options": "i"}
        return query

    @property
    def is_of_buckets(self) -> bool:
        """Whether it names whole days and a category at most, so that the statistics' buckets tell its sums."""
        asks_more = (self.user_id, self.client_id, self.status, self.to, self.subject)
        return all(each is None for each in asks_more) and _is_midnight(self.since) and _is_midnight(self.before)


def _is_midnight(time: datetime | None) -> bool:
    return time is None or time.timestamp() % _DAY.total_seconds() == 0


def _spellings(address: str) -> list[str]:
    try:
        return list(dict.fromkeys((normalise_address(address), address)))
    except ValueError:
        return [address]
