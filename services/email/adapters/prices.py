"""What a mail costs by the prices in force."""

from __future__ import annotations

from datetime import UTC, datetime

from services.email.domain.outcomes import Cost
from services.kit.errors import PermanentError
from services.kit.prices import Prices


class DatedPrices:
    """A `PriceTable` over a list of prices."""

    def __init__(self, prices: Prices) -> None:
        self._prices = prices

    def cost(self, provider: str, attachment_bytes: int, at: datetime) -> Cost:
        """One recipient's mail with attachments of so many bytes, rounded up. PermanentError `priceMissing`."""
        day = at.astimezone(UTC).date()
        price = self._prices.in_force(provider, day)
        if price is None:
            raise PermanentError("priceMissing", f"no price for {provider} on {day}: add one to the list of prices")
        return Cost(price.mail(attachment_bytes), price.version, attachment_bytes)
