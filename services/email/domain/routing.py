"""Which provider gets the next attempt, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from contracts.email.events import AttemptReason


@dataclass(frozen=True, slots=True)
class Offer:
    """A provider that takes mail now, and what one recipient costs there in micro-units of one currency."""

    provider: str
    amount: int


def choose(offers: Sequence[Offer], tried: Sequence[str]) -> tuple[str, AttemptReason] | None:
    """The cheapest of the providers that take mail (of equals the first); None when none does.

    Args:
        offers: providers whose circuit is closed.
        tried: providers of the delivery's attempts so far, oldest first.
    """
    if not offers:
        return None
    best = min(offers, key=lambda offer: offer.amount).provider
    if not tried:
        return best, "cheapest"
    return best, "retry" if tried[-1] == best else "failover"
