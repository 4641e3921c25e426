"""What a recipient costs, by the table that ships."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from services.email.adapters.mailgun import MailgunProvider
from services.email.adapters.prices import DatedPrices
from services.email.adapters.sendgrid import SendGridProvider
from services.email.adapters.ses import SesProvider
from services.email.adapters.writing import MailWriter
from services.email.domain.unsubscribe import UnsubscribeTokens
from services.email.ports import MailProvider, OutgoingAttempt, Rejected
from services.kit.addresses import RecipientKeys
from tests.unit.email_service.test_sender_large import Taking, mail


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


def _asked(request: httpx.Request) -> httpx.Response:
    raise AssertionError("it was called")


@pytest.mark.parametrize("name", ["ses", "sendgrid", "mailgun"])
async def test_without_a_price_nothing_is_called_and_the_account_is_refused_not_the_mail(name: str) -> None:
    writer = MailWriter(
        keys=RecipientKeys(b"r" * 32), tokens=UnsubscribeTokens(b"k" * 32), public_url="https://mail.example.org"
    )
    client, common = Taking(), {"prices": DatedPrices([]), "writer": writer, "now": lambda: datetime.now(UTC)}
    async with httpx.AsyncClient(transport=httpx.MockTransport(_asked)) as http:
        made: dict[str, Any] = {
            "ses": lambda: SesProvider(client, configuration_set="c", **common),  # type: ignore[arg-type]
            "sendgrid": lambda: SendGridProvider(http, api_key="k", rate=1, **common),  # type: ignore[arg-type]
            "mailgun": lambda: MailgunProvider(http, api_key="k", domain="d.example", rate=1, **common),  # type: ignore[arg-type]
        }
        provider: MailProvider = made[name]()
        outcome = await provider.send(OutgoingAttempt("a1", "b@inbox.example", mail(10)))
    assert isinstance(outcome, Rejected)
    assert (outcome.code, outcome.kind) == ("priceMissing", "account")
    assert client.sizes == []
