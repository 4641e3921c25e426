"""What providers charge: tiers, included volume, dates, plans; and every way in which a file of prices can be wrong."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kit.price_settings import PriceSettings
from services.kit.prices import SHIPPED, Price, Prices, Tier, load

DAY = date(2026, 12, 1)


def price(**more: Any) -> Price:
    given: dict[str, Any] = {
        "provider": "ses", "plan": "p", "version": "v1", "since": date(2026, 1, 1), "tiers": (Tier(each=100),),
        "source": "a test",
    }  # fmt: skip
    return Price(**(given | more))


def test_what_ships_knows_the_published_bills_of_a_month() -> None:
    """Dollars by hand from the providers' pages: SES 0.10 per 1,000, SendGrid 19.95 with 50,000 and 0.00133 beyond,
    Mailgun Flex 2.00 per 1,000; SES Essentials 10M at 0.00016 and the next 10M at 0.00014.
    """
    prices = load()
    bills = {
        (provider, mails): found.bill(mails).total
        for provider in ("ses", "sendgrid", "mailgun")
        for mails in (2_000, 50_000, 200_000)
        if (found := prices.in_force(provider, DAY))
    }
    assert bills == {
        ("ses", 2_000): 200_000, ("ses", 50_000): 5_000_000, ("ses", 200_000): 20_000_000,
        ("sendgrid", 2_000): 19_950_000, ("sendgrid", 50_000): 19_950_000, ("sendgrid", 200_000): 219_450_000,
        ("mailgun", 2_000): 4_000_000, ("mailgun", 50_000): 100_000_000, ("mailgun", 200_000): 400_000_000,
    }  # fmt: skip
    essentials = prices.of_plan("ses", "essentials", DAY)
    assert essentials is not None
    assert essentials.bill(20_000_000).total == 10_000_000 * 160 + 10_000_000 * 140


def test_every_entry_that_ships_says_where_it_is_from() -> None:
    entries = json.loads(SHIPPED.read_text())["prices"]
    assert entries
    assert all(len(entry["source"]) > 20 for entry in entries)


tiers = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 50)), min_size=0, max_size=3).map(
    lambda found: tuple(
        Tier(up_to=sum(width for width, _ in found[: n + 1]), each=each) for n, (_, each) in enumerate(found)
    )
)


@given(
    tiers=tiers, last=st.integers(0, 50), included=st.integers(0, 60), fee=st.integers(0, 10), mails=st.integers(0, 150)
)
def test_a_bill_is_the_fee_and_what_each_mail_added(
    tiers: tuple[Tier, ...], last: int, included: int, fee: int, mails: int
) -> None:
    """So choosing by what one more mail costs adds up to the bill."""
    found = price(tiers=(*tiers, Tier(each=last)), included=included, monthly_fee=fee)
    assert found.bill(mails).total == fee + sum(found.next_mail(used) for used in range(mails))


def test_attachments_are_rounded_up_and_dedicated_ips_are_by_the_piece() -> None:
    found = price(attachments_per_gigabyte=120_000, dedicated_ip=5)
    assert [found.attachments(size) for size in (0, 1, 10**9, 10**9 + 1)] == [0, 1, 120_000, 120_001]
    bill = found.bill(10, 10**9, dedicated_ips=2)
    assert (bill.mails, bill.attachments, bill.dedicated_ips, bill.total) == (1_000, 120_000, 10, 121_010)
    with pytest.raises(ValueError, match="no dedicated IPs"):
        price().bill(1, dedicated_ips=1)


def test_the_latest_price_that_has_begun_counts_and_the_next_ones_are_seen_ahead() -> None:
    later = price(version="v2", since=date(2027, 3, 1), tiers=(Tier(each=140),))
    prices = Prices([later, price()], {"ses": "p"})
    in_force = [prices.in_force("ses", each) for each in (date(2025, 12, 31), date(2026, 1, 1), date(2027, 3, 1))]
    assert [each and each.version for each in in_force] == [None, "v1", "v2"]
    assert [each.version for each in prices.upcoming("ses", DAY)] == ["v2"]
    assert prices.in_force("mailgun", DAY) is None


def test_a_price_of_the_region_comes_before_that_of_everywhere() -> None:
    of_region = price(version="v-eu", region="eu-west-1", tiers=(Tier(each=110),))
    assert Prices([price(), of_region], {"ses": "p"}).in_force("ses", DAY) == price()
    assert Prices([price(), of_region], {"ses": "p"}, {"ses": "eu-west-1"}).in_force("ses", DAY) == of_region


GOOD = {
    "provider": "ses", "plan": "p", "version": "v1", "since": "2026-01-01", "tiers": [{"each": 100}],
    "source": "a test",
}  # fmt: skip


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"tiers": []}, "prices.0.tiers"),
        ({"tiers": [{"upTo": 5, "each": 1}]}, "the last tier has none"),
        ({"tiers": [{"upTo": 5, "each": 1}, {"upTo": 5, "each": 2}, {"each": 3}]}, "upTo must grow"),
        ({"tiers": [{"each": 1}, {"each": 2}]}, "upTo must grow"),
        ({"tiers": [{"each": -1}]}, "prices.0.tiers.0.each"),
        ({"tiers": [{"each": 0.1}]}, "prices.0.tiers.0.each"),
        ({"since": "soon"}, "prices.0.since"),
        ({"currency": "dollars"}, "prices.0.currency"),
        ({"perRecipient": 100}, "prices.0.perRecipient"),
        ({"source": ""}, "prices.0.source"),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_its_place(tmp_path: Path, entry: dict[str, Any], told: str) -> None:
    file = tmp_path / "prices.json"
    file.write_text(json.dumps({"plans": {"ses": "p"}, "prices": [GOOD | entry]}))
    with pytest.raises(ValueError, match="is no list of prices") as caught:
        load(file)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "is no list of prices"),
        (json.dumps({"plans": {"ses": "p"}, "prices": [GOOD, GOOD]}), "used twice: v1"),
        (json.dumps({"plans": {"ses": "p"}, "prices": [GOOD, GOOD | {"version": "v2"}]}), "from the same day on"),
        (json.dumps({"plans": {"ses": "q"}, "prices": [GOOD]}), r"no prices of ses q \(there is p\)"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "prices.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=told):
        load(file)


def test_settings_name_the_plan_of_an_account_and_a_file_of_ones_own(tmp_path: Path) -> None:
    found = PriceSettings.model_validate({"MAILROOM_PLANS": '{"ses": "essentials"}'}).prices.in_force("ses", DAY)
    assert found is not None
    assert found.plan == "essentials"
    file = tmp_path / "ours.json"
    file.write_text(json.dumps({"plans": {"ses": "p"}, "prices": [GOOD]}))
    own = PriceSettings.model_validate({"MAILROOM_PRICES_FILE": str(file)}).prices.in_force("ses", DAY)
    assert own == price()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"MAILROOM_PLANS": '{"ses": "gold"}'}, "a-la-carte, essentials"),
        ({"MAILROOM_PLANS": "gold"}, "not JSON"),
        ({"MAILROOM_PLANS": '{"ses": 1}'}, "the name of its plan"),
        ({"MAILROOM_PRICES_FILE": "/nowhere/prices.json"}, "MAILROOM_PRICES_FILE"),
    ],
)
def test_settings_that_are_wrong_are_told(settings: dict[str, str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        PriceSettings.model_validate(settings)
