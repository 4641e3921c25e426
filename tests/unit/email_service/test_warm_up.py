"""The ramp of a domain: what each of its first days allows, and whose mail counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.base import Money
from contracts.views import EmailLog
from services.cli import why
from services.email.domain.warm_up import DEFAULT_DAILY, Ramp, domain_key, sending_domain
from services.email.settings import EmailSettings
from services.email.warm_up_settings import VARIABLE, from_environment
from services.kit import daily_mongo
from services.kit.clock import SystemClock
from services.kit.daily import MemoryDailyCounts
from services.kit.errors import SettingsError
from services.kit.settings import load
from tests.unit.email_service.test_email_settings import GOOD

FIRST = date(2026, 12, 1)


@given(st.lists(st.integers(1, 10**6), min_size=1).map(sorted).map(tuple), st.integers(-30, 60))
def test_each_day_has_its_limit_and_what_comes_after_has_none(daily: tuple[int, ...], number: int) -> None:
    ramp, day = Ramp(FIRST, daily), FIRST + timedelta(days=number)
    limit = ramp.limit_on(day)
    if number < 0:
        assert limit == daily[0]
    else:
        assert limit == (daily[number] if number < len(daily) else None)
    assert ramp.is_over(day) == (number > len(daily)), "a process whose clock is a day behind still counts"


def test_the_default_at_most_doubles_each_day() -> None:
    assert DEFAULT_DAILY[0] == 50
    assert all(after <= 2 * before for before, after in pairwise(DEFAULT_DAILY))
    assert DEFAULT_DAILY[-1] > 5_000


@pytest.mark.parametrize(
    ("from_", "domain"),
    [
        ("crm@mail.example", "mail.example"),
        ("CRM <crm@Mail.Example>", "mail.example"),
        ('"a <b@c.example>" <crm@mail.example>', "mail.example"),
        ("crm@bücher.example", "xn--bcher-kva.example"),
        ("crm@news.mail.example", "news.mail.example"),
        ("jané@Mail.Example", "mail.example"),
    ],
)
def test_the_domain_is_that_of_the_sender_s_address_in_normal_form(from_: str, domain: str) -> None:
    assert sending_domain(from_) == domain


def test_domains_are_set_with_a_ramp_of_their_own_or_the_default() -> None:
    assert load(EmailSettings, GOOD).ramps == {}
    named = '{"Example.com": {"from": "2026-12-01"}}'
    assert load(EmailSettings, GOOD | {"MAILROOM_WARM_UP": named}).ramps == {"example.com": Ramp(FIRST)}
    daily = '{"example.com": {"from": "2026-12-01", "daily": [10, 20, 20]}}'
    assert load(EmailSettings, GOOD | {"MAILROOM_WARM_UP": daily}).ramps == {"example.com": Ramp(FIRST, (10, 20, 20))}


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("example.com", "not JSON"),
        ("[]", "must be an object"),
        ('{"example.com": {}}', "example.com needs `from`"),
        ('{"example.com": {"from": "2026-12-01", "dayly": [1]}}', "nothing else"),
        ('{"example.com": {"from": "1.12.2026"}}', "the first day as YYYY-MM-DD"),
        ('{"example.com": {"from": "2026-12-01", "daily": []}}', "whole numbers above 0"),
        ('{"example.com": {"from": "2026-12-01", "daily": [0]}}', "whole numbers above 0"),
        ('{"example.com": {"from": "2026-12-01", "daily": [true]}}', "whole numbers above 0"),
        ('{"example.com": {"from": "2026-12-01", "daily": [50, 40]}}', "less on day 2 than on the day before"),
        ('{"a@example.com": {"from": "2026-12-01"}}', "a@example.com is no domain"),
        ('{"exmaple.com": {"from": "2026-12-01"}}', "nobody sends from exmaple.com; senders are from example.com"),
        ('{"example.com": {"from": "2026-12-01"}, "Example.com": {"from": "2026-12-01"}}', "named twice"),
        (
            '{"x": {"from": "2026-12-01"}, "example.com": {"from": 1}}',
            "x is no domain, for instance mail.example; exam",
        ),
    ],
)
def test_what_is_wrong_is_told_at_the_start(said: str, told: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(EmailSettings, GOOD | {"MAILROOM_WARM_UP": said})
    (problem,) = caught.value.problems
    assert problem.startswith("MAILROOM_WARM_UP is wrong: ")
    assert told in problem


def test_days_of_providers_are_limited_by_settings() -> None:
    assert load(EmailSettings, GOOD).daily_limits == {}
    limited = {"MAILROOM_SENDGRID_DAILY_LIMIT": "100", "MAILROOM_SMTP_DAILY_LIMIT": "500"}
    assert load(EmailSettings, GOOD | limited).daily_limits == {}, "nobody sends through them"
    through = {"MAILROOM_PROVIDERS": "smtp,ses", "MAILROOM_SMTP_HOST": "relay.example"}
    assert load(EmailSettings, GOOD | limited | through).daily_limits == {"smtp": 500}
    with pytest.raises(SettingsError, match="MAILROOM_MAILGUN_DAILY_LIMIT"):
        load(EmailSettings, GOOD | {"MAILROOM_MAILGUN_DAILY_LIMIT": "0"})


def test_commands_read_the_ramps_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert from_environment() == {}
    monkeypatch.setenv(VARIABLE, '{"example.com": {"from": "2026-12-01", "daily": [10]}}')
    assert from_environment() == {"example.com": Ramp(FIRST, (10,))}
    monkeypatch.setenv(VARIABLE, '{"example.com": {}}')
    with pytest.raises(SettingsError, match=r"MAILROOM_WARM_UP is wrong: example\.com needs `from`"):
        from_environment()


def test_why_says_that_a_queued_mail_waits_for_a_ramp(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the counts of the email service's database; without a ramp nothing is asked."""
    counts = MemoryDailyCounts(SystemClock())
    today = SystemClock().now().date()
    email = EmailLog(
        message_id="m1", to=["a@example.com"], from_="CRM <crm@example.com>", subject="Hello", category="marketing",
        status="queued", priority="low", events=[], recipients=[], user_id="u1", cost=Money(amount=0, currency="USD"),
        size=0, created_at=SystemClock().now(), updated_at=SystemClock().now(),
    )  # fmt: skip
    monkeypatch.delenv(VARIABLE, raising=False)
    assert asyncio.run(why._held(email)) is None

    @asynccontextmanager
    async def nowhere(_: str) -> AsyncIterator[dict[str, None]]:
        yield {"daily_counts": None}

    monkeypatch.setattr(why, "database", nowhere)
    monkeypatch.setattr(daily_mongo, "MongoDailyCounts", lambda *_: counts)
    monkeypatch.setenv(VARIABLE, f'{{"example.com": {{"from": "{today}", "daily": [10, 10]}}}}')
    assert asyncio.run(why._held(email)) is None
    asyncio.run(counts.take(domain_key("example.com"), 10, lambda _: 10))
    told = asyncio.run(why._held(email))
    assert told == "waits for tomorrow: example.com is being warmed up; recipients today: 10 of 10"
