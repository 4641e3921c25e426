"""Limits of a day in the sender: what is over them waits and holds nothing up, and nothing is counted in vain."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

import pytest

from contracts.email.events import EmailSendAttempted
from services.email.domain.circuit import FIRST_PAUSE
from services.email.domain.outcomes import Rejected
from services.email.domain.routing import Wishes
from services.email.domain.warm_up import Ramp, domain_key, provider_key
from services.email.entrypoints.sender_daily import LONGEST_HELD_SECONDS, daily_use
from services.email.entrypoints.sender_work import Work
from services.email.ports import OutgoingAttempt
from services.kit import metrics as m
from services.kit.daily import DailyLimit
from services.kit.errors import Unavailable
from services.kit.metrics import Metrics
from services.kit.testing import FakeClock
from tests.unit.email_service.fakes import Answer, FakeProvider, Post, are, running, until
from tests.unit.email_service.mail import NOW, SILENCE

NEW, OLD = "crm@new.example", "crm@old.example"
UNREACHABLE = Rejected("connectionFailed", "refused", "unreachable")


def warming(daily: int, clock: FakeClock | None = None) -> Post:
    """A post whose `new.example` may have so many recipients, today and for days to come."""
    post = Post(clock=clock)
    post.ramps = {"new.example": Ramp(post.clock.now().date(), (daily,) * 10)}
    return post


async def sent(post: Post, message_ids: Sequence[str], count: int) -> None:
    """Wait until so many are sent and all others are put off."""

    async def done() -> bool:
        phases = await post.phases(message_ids)
        return phases.count("Sent") == count and len(await put_off(post, message_ids)) == len(message_ids) - count

    await until(done)


async def put_off(post: Post, message_ids: Sequence[str]) -> list[datetime]:
    """Until when mails are left alone that are, for longer than any work in hand is leased."""
    found = [(await post.store.load(message_id)).leased_until for message_id in message_ids]
    soon = post.clock.now() + timedelta(seconds=30)
    return [until_ for until_ in found if until_ is not None and until_ > soon]


async def used(post: Post, key: str) -> int:
    return (await post.daily.used([key]))[key].used


async def counted(post: Post, key: str, count: int) -> None:
    async def there() -> bool:
        return await used(post, key) == count

    await until(there)


# --- the ramp of a domain ---


async def test_what_is_over_the_ramp_waits_and_other_mail_goes_past_it() -> None:
    post = warming(3)
    held = await post.queue(120, from_=NEW)  # more than a process has slots for
    others = await post.queue(40, from_=OLD)
    async with running(post) as sender:
        await are(post, others, "Sent")
        await sent(post, held, 3)
        assert len(sender._planner) == 0, "none of it is at hand"
        assert sender._places.free == sender._places.limit
    assert await used(post, domain_key("new.example")) == 3
    assert await put_off(post, held), "leases of what is put off are kept over the end of the process"


async def test_mail_of_category_auth_counts_and_is_never_held() -> None:
    post = warming(3)
    urgent = await post.queue(5, from_=NEW, category="auth", priority="urgent")
    async with running(post):
        await are(post, urgent, "Sent")
        others = await post.queue(2, from_=NEW)
        await sent(post, others, 0)
        more = await post.queue(2, from_=NEW, category="auth", priority="urgent")
        await are(post, more, "Sent")
    assert await used(post, domain_key("new.example")) == 7


async def test_recipients_count_and_not_mails() -> None:
    post = warming(5)
    (message_id,) = await post.queue(from_=NEW, to=[f"{n}@example.com" for n in range(8)])
    async with running(post):

        async def done() -> bool:
            return sorted(await post.phases([message_id])) == ["Queued"] * 3 + ["Sent"] * 5

        await until(done)
    assert len(post.provider.accepted) == 5


async def test_who_is_suppressed_does_not_count() -> None:
    post = warming(3)
    post.suppressions.reasons = {f"{n}@example.com": "hardBounce" for n in range(5)}
    blocked = [(await post.queue(from_=NEW, to=[f"{n}@example.com"]))[0] for n in range(5)]
    async with running(post):
        await are(post, blocked, "Failed")
        await counted(post, domain_key("new.example"), 0)
        others = await post.queue(3, from_=NEW)
        await are(post, others, "Sent")


async def test_attempts_that_a_provider_refused_do_not_use_up_the_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FIRST_PAUSE, "unreachable", 0.01)
    post = warming(3)
    refusals = 6

    async def comes_back(attempt: OutgoingAttempt) -> Answer:
        nonlocal refusals
        refusals -= 1
        return UNREACHABLE if refusals >= 0 else post.provider.take(attempt)

    post.provider = FakeProvider(comes_back)
    (message_id,) = await post.queue(from_=NEW)
    async with running(post):
        await are(post, [message_id], "Sent")
        await counted(post, domain_key("new.example"), 1)
    assert len(post.provider.calls) == 7


async def test_silence_counts() -> None:
    post = warming(1)
    first = await post.queue(from_=NEW)

    async def hears_nothing(attempt: OutgoingAttempt) -> Answer:
        return SILENCE

    post.provider = FakeProvider(hears_nothing)
    async with running(post):
        await are(post, first, "OutcomeUnknown")
        second = await post.queue(from_=NEW)
        await sent(post, second, 0)
    assert len(post.provider.calls) == 1


class NotThere:
    """`DailyCounts` that nobody reaches."""

    async def take(self, key: str, wanted: int, limit: DailyLimit, *, exempt: bool = False) -> object:
        raise Unavailable("daily counts", "switched away")

    async def give_back(self, key: str, day: object, count: int) -> None:
        raise Unavailable("daily counts", "switched away")

    async def used(self, keys: Collection[str]) -> object:
        raise Unavailable("daily counts", "switched away")


async def test_recipients_are_counted_before_an_attempt_is_recorded() -> None:
    """What cannot be counted is not sent."""
    clock = FakeClock(NOW)
    post = warming(100, clock)
    there, post.daily = post.daily, NotThere()  # type: ignore[assignment]
    message_ids = await post.queue(3, from_=NEW)
    sender = post.sender()
    sender._planner.lanes.add([Work(await post.streams.load(message_id), "normal") for message_id in message_ids])
    clock.move(1)
    turn = await sender._planner.turn(urgent=False)
    assert turn.waves == []
    assert "switched away" in turn.waiting
    assert {tuple(await post.types(message_id)) for message_id in message_ids} == {("requested",)}
    sender._daily._counts = post.daily = there
    clock.move(1)
    turn = await sender._planner.turn(urgent=False)
    assert sum(len(wave.attempts) for wave in turn.waves) == 3
    assert await used(post, domain_key("new.example")) == 3


async def test_held_mail_is_looked_at_within_an_hour_or_once_expired_and_the_next_day_has_its_own_limit() -> None:
    clock = FakeClock(NOW.replace(hour=23, minute=30))
    post = warming(1, clock)
    (first,) = await post.queue(from_=NEW)
    (tomorrow,) = await post.queue(from_=NEW)
    (expiring,) = await post.queue(from_=NEW, expires_at=clock.now() + timedelta(seconds=300))
    sender = post.sender()
    clock.move(1)
    held = {
        message_id: Work(await post.streams.load(message_id), "normal") for message_id in (first, tomorrow, expiring)
    }
    sender._planner.lanes.add(held.values())
    turn = await sender._planner.turn(urgent=False)
    assert [wave.work for wave in turn.waves] == [held[first]]
    seconds = {work: left for left, works in turn.put_off.items() for work in works}
    assert LONGEST_HELD_SECONDS / 2 <= seconds[held[tomorrow]] <= LONGEST_HELD_SECONDS
    assert 0 <= seconds[held[expiring]] - 299 <= 10, "when it has expired, and not before it"
    clock.move(1799)
    sender._planner.lanes.add([held[tomorrow]])
    turn = await sender._planner.turn(urgent=False)
    assert [wave.work for wave in turn.waves] == [held[tomorrow]]


async def test_mail_held_at_one_moment_is_looked_at_together_and_not_with_all_that_was_held_before() -> None:
    clock = FakeClock(NOW)
    post = warming(1, clock)
    message_ids = await post.queue(60, from_=NEW)
    sender = post.sender()
    clock.move(1)
    works = [Work(await post.streams.load(message_id), "normal") for message_id in message_ids]
    times: set[float] = set()
    for number in range(0, 60, 20):
        sender._planner.lanes.add(works[number : number + 20])
        turn = await sender._planner.turn(urgent=False)
        (left,) = turn.put_off
        times.add(clock.monotonic() + left)
        clock.move(5)
    assert len(times) == 3
    assert max(times) - min(times) > 60


async def test_a_domain_that_is_not_named_and_a_ramp_that_is_over_have_no_limit() -> None:
    post = Post()
    today = post.clock.now().date()
    post.ramps = {"new.example": Ramp(today - timedelta(days=5), (1, 1)), "other.example": Ramp(today, (1,))}
    message_ids = [*await post.queue(20, from_=NEW), *await post.queue(20, from_=OLD)]
    async with running(post):
        await are(post, message_ids, "Sent")
    assert await used(post, domain_key("new.example")) == 0


async def test_a_used_up_day_is_asked_for_once_a_minute_and_not_for_each_mail() -> None:
    clock = FakeClock(NOW)
    post = warming(1, clock)
    asked = 0
    take = post.daily.take

    async def counting(key: str, wanted: int, limit: DailyLimit, *, exempt: bool = False) -> object:
        nonlocal asked
        asked += 1
        return await take(key, wanted, limit, exempt=exempt)

    post.daily.take = counting  # type: ignore[method-assign, assignment]
    sender = post.sender()
    message_ids = await post.queue(50, from_=NEW)
    clock.move(1)
    for message_id in message_ids:
        sender._planner.lanes.add([Work(await post.streams.load(message_id), "normal")])
        await sender._planner.turn(urgent=False)
    assert asked == 2


# --- the day of a provider ---


async def test_when_a_provider_s_day_is_used_up_mail_goes_to_the_next_and_says_why() -> None:
    post = Post()
    post.others = [FakeProvider(name="mailgun")]
    post.daily_limits = {"ses": 5}
    message_ids = await post.queue(40)
    async with running(post):
        await are(post, message_ids, "Sent")
    assert (len(post.provider.accepted), len(post.others[0].accepted)) == (5, 35)
    assert await used(post, provider_key("ses")) == 5
    elsewhere = {message_id for message_id, _ in post.others[0].accepted}
    reasons = set()
    for message_id in elsewhere:
        events = (await post.streams.load(message_id)).stream.events
        for event in events:
            if isinstance(event.data, EmailSendAttempted) and event.data.considered is not None:
                reasons.add(event.data.considered[0].why)
    assert reasons == {"what it may send in a day is used up"}


async def test_when_the_24_hours_that_a_provider_tells_are_used_up_mail_says_so_too() -> None:
    post = Post()
    post.others = [FakeProvider(name="mailgun")]
    message_ids = await post.queue(10)
    await post.rates.set_limit("ses", 1000, day_left=0)
    async with running(post):
        await are(post, message_ids, "Sent")
    assert len(post.others[0].accepted) == 10
    events = (await post.streams.load(message_ids[-1])).stream.events
    (attempted,) = [each.data for each in events if isinstance(each.data, EmailSendAttempted)]
    assert attempted.considered is not None
    assert attempted.considered[0].why == "what it may send in a day is used up"


async def test_mail_pinned_to_a_provider_whose_day_is_used_up_is_put_off_and_other_mail_goes_past_it() -> None:
    post = Post()
    post.others = [FakeProvider(name="mailgun")]
    post.daily_limits = {"ses": 2}
    pinned = await post.queue(120, category="marketing", list_id="news")
    others = await post.queue(30)
    async with running(post, Wishes({"marketing": "ses"})) as sender:
        await are(post, others, "Sent")
        await sent(post, pinned, 2)
        assert len(sender._planner) == 0
    assert len(post.provider.accepted) == 2


async def test_when_the_day_of_every_provider_is_used_up_all_mail_is_put_off_and_keeps_no_slot() -> None:
    post = Post()
    post.daily_limits = {"ses": 2}
    first = await post.queue(2)
    async with running(post) as sender:
        await are(post, first, "Sent")
        held = await post.queue(120)
        urgent = await post.queue(5, category="auth", priority="urgent")
        await sent(post, [*held, *urgent], 0)
        assert len(sender._planner) == 0
    assert len(post.provider.calls) == 2


async def test_a_mail_over_the_ramp_does_not_use_up_the_provider_s_day() -> None:
    post = warming(1)
    post.daily_limits = {"ses": 10}
    held = await post.queue(9, from_=NEW)
    async with running(post):
        await sent(post, held, 1)
        await counted(post, provider_key("ses"), 1)
        others = await post.queue(9, from_=OLD)
        await are(post, others, "Sent")


# --- what operators see ---


async def test_metrics_say_how_much_of_today_is_used() -> None:
    post = warming(50)
    metrics = Metrics()
    today = post.clock.now().date()
    post.ramps["done.example"] = Ramp(today - timedelta(days=30), (1,))
    await post.daily.take(domain_key("new.example"), 20, lambda _: 50)
    await post.daily.take(provider_key("mailgun"), 30, lambda _: 100)
    await daily_use(post.daily, post.ramps, {"mailgun": 100}, post.clock, metrics)()
    assert metrics.value(m.WARM_UP_USED, domain="new.example") == 20
    assert metrics.value(m.WARM_UP_LIMIT, domain="new.example") == 50
    assert metrics.value(m.QUOTA_REMAINING, provider="mailgun") == 70
