"""Warming up a domain: how many recipients mail from it may have on each of its first days. Pure.

Receivers keep a reputation for each sending domain, whichever provider it sends through, and throttle or block one that
sends much before they know it. So the ramp is counted over all providers.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from contracts.addresses import LONGEST_EVER, normalise_address
from contracts.email.values import Category

DEFAULT_DAILY: Final = tuple(50 * 2**day for day in range(11))
"""50 recipients on the first day, twice as many each day, 51,200 on the eleventh.

Senders' guides agree on the step: at most twice the volume of the day before (for instance Customer.io, "Safely warm up
your sending domain"). Where they begin differs, from 10 to 1,000. 51,200 is ten times the 5,000 a day from which on
Gmail demands more of a domain (its guidelines for senders, 2024).
"""

NEVER_HELD: Final[frozenset[Category]] = frozenset({"auth"})
"""Mail that counts and is never held: a password reset that waits a day is worth nothing, and there is little of it."""


@dataclass(frozen=True, slots=True)
class Ramp:
    """A domain's first days.

    Attributes:
        first: the first day, UTC.
        daily: how many recipients each day allows, from the first day on; afterwards there is no limit.
    """

    first: date
    daily: tuple[int, ...] = DEFAULT_DAILY

    def limit_on(self, day: date) -> int | None:
        """What that day allows; None for no limit. Before the first day, what the first one does."""
        number = max(0, (day - self.first).days)
        return self.daily[number] if number < len(self.daily) else None

    def is_over(self, day: date) -> bool:
        """Whether the day and the one before it have no limit: nobody's clock says otherwise any more."""
        return self.limit_on(day - timedelta(days=1)) is None


def sending_domain(from_: str) -> str:
    """The domain of a From address, with or without a display name, in the form in which settings name it."""
    address = from_.rpartition("<")[2].rstrip("> ")
    try:
        return normalise_address(address, longest=LONGEST_EVER).rpartition("@")[2]
    except ValueError:
        return address.rpartition("@")[2].lower()


def domain_key(domain: str) -> str:
    """The key under which the recipients of mail from a domain are counted."""
    return f"domain/{domain}"


def provider_key(name: str) -> str:
    """The key under which a provider's recipients are counted."""
    return f"provider/{name}"
