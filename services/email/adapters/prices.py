"""Dated prices, kept as data in `prices.json` beside this file: a new price is a new entry and changes no old cost."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from contracts.base import Money
from services.email.domain.outcomes import Cost
from services.kit.errors import PermanentError

SHIPPED = Path(__file__).with_name("prices.json")
GIGABYTE = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Price:
    """What one provider takes from a day (UTC) on. Amounts are micro-units of `currency`."""

    provider: str
    version: str
    since: date
    currency: str
    per_recipient: int
    per_gigabyte: int


class DatedPrices:
    """A `PriceTable` over entries; for each provider the latest one not after the day counts."""

    def __init__(self, prices: list[Price]) -> None:
        self._prices: dict[str, list[Price]] = {}
        for price in sorted(prices, key=lambda each: each.since, reverse=True):
            self._prices.setdefault(price.provider, []).append(price)

    @classmethod
    def load(cls, path: Path = SHIPPED) -> DatedPrices:
        """Read the table. Raises ValueError or KeyError for one that is malformed: it ships with the code."""
        entries = json.loads(path.read_text())["prices"]
        return cls(
            [
                Price(
                    entry["provider"],
                    entry["version"],
                    date.fromisoformat(entry["from"]),
                    entry["currency"],
                    entry["perRecipient"],
                    entry["perGigabyte"],
                )
                for entry in entries
            ]
        )

    def cost(self, provider: str, size: int, at: datetime) -> Cost:
        """One recipient of `size` bytes, rounded up to a whole micro-unit. PermanentError `priceMissing`."""
        day = at.astimezone(UTC).date()
        for price in self._prices.get(provider, ()):
            if price.since <= day:
                amount = price.per_recipient + -(-size * price.per_gigabyte // GIGABYTE)
                return Cost(Money(amount=amount, currency=price.currency), price.version)
        raise PermanentError("priceMissing", f"no price for {provider} on {day}: add one to the price table")
