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
from services.kit.prices import Prices
from services.kit.prices import load as load_prices
from tests.unit.email_service.test_sender_large import Taking, mail

AT = datetime(2026, 12, 1, tzinfo=UTC)


def test_a_mail_costs_what_is_said_beyond_the_plan_and_ses_counts_attachments() -> None:
    prices = DatedPrices(load_prices())
    assert [prices.cost("ses", size, AT).money.amount for size in (0, 1, 1_000_000_000)] == [100, 101, 120_100]
    for size in (0, 10_000_000):
        amounts = [prices.cost(name, size, AT).money.amount for name in ("sendgrid", "mailgun", "smtp")]
        assert amounts == [1330, 2000, 0]


def test_what_the_ledger_says_can_be_made_anew_from_what_it_says() -> None:
    prices = load_prices()
    cost, price = DatedPrices(prices).cost("ses", 5_000_000, AT), prices.in_force("ses", AT.date())
    assert price is not None
    assert (cost.price_version, price.mail(cost.attachment_bytes)) == (price.version, cost.money)


def _asked(request: httpx.Request) -> httpx.Response:
    raise AssertionError("it was called")


@pytest.mark.parametrize("name", ["ses", "sendgrid", "mailgun"])
async def test_without_a_price_nothing_is_called_and_the_account_is_refused_not_the_mail(name: str) -> None:
    writer = MailWriter(
        keys=RecipientKeys(b"r" * 32), tokens=UnsubscribeTokens(b"k" * 32), public_url="https://mail.example.org"
    )
    client = Taking()
    common = {"prices": DatedPrices(Prices([], {})), "writer": writer, "now": lambda: datetime.now(UTC)}
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
