"""Statistics of mail: what a bucket is, what is counted in it, and the rates of contracts.md §2. Unit = recipients.

A bucket is a cohort: the UTC day of `email.requested` × category. Its key is a function of that event alone, so that a
message never changes its bucket, whatever becomes of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

NAME: Final = "statistics"


@dataclass(frozen=True, slots=True)
class Counts:
    """Sums over recipients (messages, cost and size: over messages; cost in micro-units of its currency)."""

    messages: int = 0
    recipients: int = 0
    queued: int = 0
    sent: int = 0
    delivered: int = 0
    bounced: int = 0
    permanent_bounces: int = 0
    complained: int = 0
    failed: int = 0
    opened: int = 0
    clicked: int = 0
    cost: int = 0
    size: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(Counts)))


def total(counts: Iterable[Counts]) -> Counts:
    """The sum of all."""
    found = Counts()
    for each in counts:
        found = found + each
    return found


@dataclass(frozen=True, slots=True)
class Rates:
    """Shares between 0 and 1; None where nothing was sent or delivered, since no rate is not a rate of zero."""

    delivery_rate: float | None
    bounce_rate: float | None
    complaint_rate: float | None
    open_rate: float | None
    click_rate: float | None


def rates(counts: Counts) -> Rates:
    """deliveryRate = delivered / sent, bounceRate = permanent bounces / sent; the others = … / delivered."""
    return Rates(
        delivery_rate=_share(counts.delivered, counts.sent),
        bounce_rate=_share(counts.permanent_bounces, counts.sent),
        complaint_rate=_share(counts.complained, counts.delivered),
        open_rate=_share(counts.opened, counts.delivered),
        click_rate=_share(counts.clicked, counts.delivered),
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def bucket_of(body: Mapping[str, Any] | None) -> str | None:
    """The key of a document's bucket, `2026-11-24/marketing`; None when it shows nothing yet."""
    if body is None:
        return None
    return f"{body['createdAt'].date().isoformat()}/{body['category']}"


def bucket_parts(bucket: str) -> tuple[str, str]:
    """The day, `2026-11-24`, and the category of a bucket."""
    day, _, category = bucket.partition("/")
    return day, category


# What the statuses mean for the sums. A complaint is counted as sent and delivered too: who complains had the mail.
SENT: Final = ("sent", "delivered", "bounced", "complaint")
DELIVERED: Final = ("delivered", "complaint")
