"""Sums over the documents of a generation, made by MongoDB: what is measured of each projection.

Mail is summed as contracts.md §2 "Rates" defines. Unit = recipients. A recipient counts once, by its status: whoever
complained had the mail, so a complaint is counted as sent and delivered too. Opened and clicked count recipients of
whom a person, not a machine, did it at least once. Files are summed by status, with the bytes of those that are there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, get_args

from contracts.views import EmailStatus, FileStatus
from services.events.projections import email_log, file
from services.events.projections.statistics import DELIVERED, SENT

Stage = dict[str, Any]
Row = dict[str, Any]
"""What documents add up to: `sums` by name, what is kept beside them, and what the documents were split by."""

CURRENCY: Final = "currency"
"""Beside the sums of mail: the currency of `cost`."""


@dataclass(frozen=True, slots=True)
class Measures:
    """What is summed up of the documents of a projection. Values are MongoDB's expressions.

    Attributes:
        version: raised with every change of the others, so that what was summed up before is summed up anew.
        statuses: all that a document can have. Naming them lets the indexes that begin with the status be used, and
            leaves out what is not to be seen: such documents have none.
        sums: name → its value for one document.
        beside: name → the accumulator of what is no sum.
        by: what the documents of one bucket are split by.
    """

    version: int
    statuses: tuple[str, ...]
    sums: Mapping[str, Any]
    beside: Mapping[str, Any] = field(default_factory=dict)
    by: Mapping[str, str] = field(default_factory=dict)

    def stage(self, *, split: bool = False) -> Stage:
        """The `$group` stage that sums documents up, all together or split. `row` reads what it makes."""
        summed = {name: {"$sum": value} for name, value in self.sums.items()}
        return {"$group": {"_id": dict(self.by) or None if split else None, **summed, **self.beside}}

    def row(self, found: Mapping[str, Any]) -> Row:
        """What one group adds up to."""
        by = {name: value for name, value in (found["_id"] or {}).items() if value is not None}
        beside = {name: found.get(name) for name in self.beside}
        return {**by, "sums": {name: int(found[name]) for name in self.sums}, **beside}


def _recipients(condition: Any) -> Stage:
    return {"$size": {"$filter": {"input": "$recipients", "as": "r", "cond": condition}}}


def _with_status(*statuses: str) -> Stage:
    return _recipients({"$in": ["$$r.status", list(statuses)]})


EMAIL_MEASURES: Final = Measures(
    version=1,
    statuses=get_args(EmailStatus),
    sums={
        "messages": 1,
        "recipients": {"$size": "$recipients"},
        "queued": _with_status("queued"),
        "sent": _with_status(*SENT),
        "delivered": _with_status(*DELIVERED),
        "bounced": _with_status("bounced"),
        "permanent_bounces": {"$size": {"$ifNull": ["$_permanent", []]}},
        "complained": _with_status("complaint"),
        "failed": _with_status("failed"),
        "opened": _recipients({"$gt": ["$$r.opens", 0]}),
        "clicked": _recipients({"$gt": ["$$r.clicks", 0]}),
        "cost": "$cost.amount",
        "size": "$size",
    },
    beside={CURRENCY: {"$max": "$cost.currency"}},
    by={"provider": "$provider", "templateId": "$templateId"},
)
"""`sums` are the fields of `Counts`."""


def _if(name: str, value: str, then: Any = 1) -> Stage:
    return {"$cond": [{"$eq": [f"${name}", value]}, then, 0]}


FILE_MEASURES: Final = Measures(
    version=1,
    statuses=get_args(FileStatus),
    sums={
        "files": 1,
        **{status: _if("status", status) for status in get_args(FileStatus)},
        "infected": _if("scanStatus", "infected"),
        "size": _if("status", "completed", {"$ifNull": ["$size", 0]}),
        "downloads": "$access.downloadCount",
    },
)

MEASURES: Final[Mapping[str, Measures]] = {email_log.NAME: EMAIL_MEASURES, file.NAME: FILE_MEASURES}
"""By the projection's name."""
