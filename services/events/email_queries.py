"""What is asked of the read model `email_log`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from contracts.base import Money
from contracts.email.values import Category
from contracts.views import EmailLog, EmailStatus
from services.events.cursors import Place
from services.events.projections.email_log import TOPIC
from services.events.projections.statistics import Counts
from services.events.queries import WAIT_SECONDS, Documents, Page, Queries
from services.kit.clock import Clock


@dataclass(frozen=True, slots=True)
class EmailFilter:
    """Which mails; all conditions hold, None = any.

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


@dataclass(frozen=True, slots=True)
class Sums:
    """What all mails of a filter add up to."""

    counts: Counts
    cost: Money


NO_SUMS: Final = Sums(Counts(), Money(amount=0, currency="USD"))

EmailDocuments = Documents[EmailFilter, EmailLog, Sums]
EmailPage = Page[EmailLog, Sums]


class EmailQueries(Queries[EmailFilter, EmailLog, Sums]):
    """Reads mails."""

    def __init__(
        self, documents: EmailDocuments, clock: Clock, *, topic: str = TOPIC, wait_seconds: float = WAIT_SECONDS
    ) -> None:
        super().__init__(documents, clock, topic=topic, place=_place, wait_seconds=wait_seconds)


def _place(email: EmailLog) -> Place:
    return Place(email.created_at, email.message_id)
