"""Sums over mails as contracts.md §2 "Rates" defines them, made by MongoDB from a generation's documents.

Unit = recipients. A recipient counts once, by its status: whoever complained had the mail, so a complaint is counted as
sent and delivered too. Opened and clicked count recipients of whom a person, not a machine, did it at least once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from services.events.projections.statistics import DELIVERED, SENT, Counts

Stage = dict[str, Any]

CURRENCY: Final = "currency"
"""Beside the sums: the currency of `cost`."""


def _recipients(condition: Any) -> Stage:
    return {"$size": {"$filter": {"input": "$recipients", "as": "r", "cond": condition}}}


def _with_status(*statuses: str) -> Stage:
    return _recipients({"$in": ["$$r.status", list(statuses)]})


_PER_MESSAGE: Final[dict[str, Any]] = {
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
}
"""Field of `Counts` → its value for one document."""


def sums(by: Any = None) -> Stage:
    """The `$group` stage that sums documents up under `_id` = `by`; None = all together. `counts_of` reads its rows."""
    return {
        "$group": {
            "_id": by,
            **{name: {"$sum": value} for name, value in _PER_MESSAGE.items()},
            CURRENCY: {"$max": "$cost.currency"},
        }
    }


def counts_of(row: Mapping[str, Any]) -> Counts:
    """The sums in one row that `sums` made."""
    return Counts(**{name: int(row[name]) for name in _PER_MESSAGE})
