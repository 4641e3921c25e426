"""What a recipient costs, by the table that ships."""

from __future__ import annotations

from datetime import UTC, datetime

from services.email.adapters.prices import DatedPrices


def test_prices_are_dated_and_round_up() -> None:
    prices = DatedPrices.load()
    at = datetime(2026, 11, 24, tzinfo=UTC)
    assert prices.cost("ses", 0, at).money.amount == 100
    assert prices.cost("ses", 1_000_000_000, at).money.amount == 120_100
    assert prices.cost("ses", 1, at).money.amount == 101


def test_every_provider_has_a_price_and_only_ses_counts_bytes() -> None:
    prices = DatedPrices.load()
    at = datetime(2026, 12, 1, tzinfo=UTC)
    for size in (0, 10_000_000):
        amounts = [prices.cost(name, size, at).money.amount for name in ("sendgrid", "mailgun", "smtp")]
        assert amounts == [1330, 2000, 0]
