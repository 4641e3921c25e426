"""What operators see of the providers' days and of domains that are being warmed up."""

from __future__ import annotations

from datetime import timedelta

from services.email.domain.warm_up import Ramp, domain_key, provider_key
from services.email.provider_orders import DayView, ProviderOrders, RampView, held_by_ramp
from services.kit.daily import MemoryDailyCounts
from services.kit.testing import FakeClock
from tests.unit.email_service.fakes import MemoryProviderBoard


async def test_operators_see_what_of_today_is_used() -> None:
    clock = FakeClock()
    counts, today = MemoryDailyCounts(clock), clock.now().date()
    ramps = {
        "new.example": Ramp(today, (50, 100)),
        "done.example": Ramp(today - timedelta(days=2), (50, 100)),
        "next.example": Ramp(today + timedelta(days=1), (10,)),
    }
    orders = ProviderOrders(MemoryProviderBoard(clock), ["ses", "mailgun"], [], counts, {"mailgun": 5}, ramps)
    assert [(each.provider, each.today) for each in await orders.show()] == [
        ("ses", None),
        ("mailgun", DayView(used=0, limit=5)),
    ]
    await counts.take(domain_key("new.example"), 20, lambda _: 50)
    await counts.take(provider_key("mailgun"), 5, lambda _: 5)
    assert await orders.warming_up() == [
        RampView(domain="new.example", used=20, limit=50),
        RampView(domain="next.example", used=0, limit=10),
    ]
    ses, mailgun = await orders.show()
    assert (ses.takes_mail, mailgun.takes_mail) == ("yes", "no: what it may send today is used up")
    clock.move(86_400)
    assert [each.limit for each in await orders.warming_up()] == [100, 10]
    assert (await orders.show())[1].takes_mail == "yes"


async def test_a_mail_that_waits_for_a_ramp_says_so() -> None:
    clock = FakeClock()
    counts, ramps = MemoryDailyCounts(clock), {"new.example": Ramp(clock.now().date(), (50, 100))}
    sender = "CRM <crm@New.example>"
    assert await held_by_ramp(sender, "marketing", ramps, counts) is None
    await counts.take(domain_key("new.example"), 50, lambda _: 50)
    assert await held_by_ramp(sender, "marketing", ramps, counts) == RampView(domain="new.example", used=50, limit=50)
    assert await held_by_ramp(sender, "auth", ramps, counts) is None, "it is never held"
    assert await held_by_ramp("crm@old.example", "marketing", ramps, counts) is None
    clock.move(86_400)
    assert await held_by_ramp(sender, "marketing", ramps, counts) is None
