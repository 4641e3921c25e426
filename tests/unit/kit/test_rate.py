"""Rate tokens: never more than the limit over any interleaving; few questions; nothing held when idle."""

import asyncio
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.kit.metrics import TOKENS_GRANTED, TOKENS_WAITED_SECONDS, Metrics
from services.kit.rate import AHEAD_SECONDS, Draw, Grant, MemoryRateLimits, Pots, RateBudget, burst
from services.kit.testing.clock import FakeClock

TINY = 1e-6


class CountingLimits(MemoryRateLimits):
    """Counts the draws and what they granted."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.draws = 0
        self.drawn = 0

    async def draw(self, account: str, wanted: int, *, urgent: bool) -> Draw:
        draw = await super().draw(account, wanted, urgent=urgent)
        self.draws += 1
        self.drawn += draw.granted
        return draw


@dataclass(frozen=True)
class Step:
    """Time passes, then one process takes."""

    pause: float
    process: int
    wanted: int
    urgent: bool


steps = st.builds(
    Step,
    pause=st.sampled_from([0.0, 0.0, 0.001, 0.01, 0.07, 0.2, 1.0, 3.0]),
    process=st.integers(0, 2),
    wanted=st.integers(1, 40),
    urgent=st.booleans(),
)


@given(st.sampled_from([0.5, 1.0, 14.0, 200.0]), st.lists(steps, max_size=60))
@settings(deadline=None, max_examples=150)
def test_over_any_interleaving_the_grants_stay_within_the_limit(rate: float, plan: list[Step]) -> None:
    async def play() -> None:
        clock = FakeClock()
        limits = CountingLimits(clock)
        await limits.set_limit("a", rate)
        budgets = [RateBudget(limits, clock) for _ in range(3)]
        granted: list[tuple[float, int]] = []
        for step in plan:
            clock.move(step.pause)
            grant = await budgets[step.process].take("a", step.wanted, urgent=step.urgent)
            assert 0 <= grant.granted <= step.wanted
            assert (grant.wait > 0) == (grant.granted < step.wanted) or grant.granted > 0
            granted.append((clock.monotonic(), grant.granted))
        for index, (start, _) in enumerate(granted):  # any window, what was held at its start included
            total = 0
            for end, count in granted[index:]:
                total += count
                assert total <= rate * (end - start) + burst(rate) + rate * AHEAD_SECONDS + TINY
        assert sum(count for _, count in granted) <= rate * clock.monotonic() + burst(rate) + TINY

    asyncio.run(play())


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("draw"), st.integers(1, 60), st.booleans()),
            st.tuples(st.just("time"), st.floats(-5, 5), st.booleans()),
            st.tuples(st.just("rate"), st.sampled_from([0.0, 1.0, 14.0, 200.0]), st.booleans()),
        ),
        max_size=60,
    )
)
def test_pots_never_hold_more_than_the_burst_whatever_clock_and_limit_do(
    plan: list[tuple[str, float, bool]],
) -> None:
    pots, now, passed, granted, start = Pots(14.0, 1_000.0), 1_000.0, 0.0, 0, 0.0
    fastest = 14.0
    for kind, value, urgent in plan:
        if kind == "time":
            now += value
        before = pots.at
        pots = pots.refilled(now)
        passed += pots.at - before
        if kind == "rate":
            pots = Pots(value, pots.at, pots.urgent, pots.others, pots.common)
            fastest = max(fastest, value)
        elif kind == "draw":
            pots, taken = pots.draw(int(value), urgent=urgent)
            granted += taken
        assert min(pots.urgent, pots.others, pots.common) >= -TINY
        held = pots.urgent + pots.others + pots.common
        assert held <= burst(fastest) + TINY
        assert granted + held <= start + fastest * passed + TINY


async def test_a_busy_process_asks_a_few_times_a_second() -> None:
    clock = FakeClock()
    limits = CountingLimits(clock)
    await limits.set_limit("a", 200)
    clock.move(1)
    budget, granted = RateBudget(limits, clock), 0
    for _ in range(2_000):  # 10 s of 200 single takes a second
        clock.move(0.005)
        granted += (await budget.take("a", 1)).granted
    assert granted >= 1_850
    assert limits.draws <= 10 * 11


async def test_more_demand_than_the_rate_still_gets_the_rate() -> None:
    clock = FakeClock()
    limits = CountingLimits(clock)
    for rate in (1, 14, 200):
        await limits.set_limit("a", rate)
        budget, granted, began = RateBudget(limits, clock), 0, clock.monotonic()
        while clock.monotonic() - began < 30:
            grant = await budget.take("a", 10)
            granted += grant.granted
            clock.move(max(0.001, grant.wait))
        assert granted >= 0.93 * 30 * rate - 1


async def test_an_occasional_one_takes_no_more_than_it_wants() -> None:
    clock = FakeClock()
    limits = CountingLimits(clock)
    await limits.set_limit("a", 200)
    budget = RateBudget(limits, clock)
    for _ in range(10):
        clock.move(1)
        assert await budget.take("a", 2) == Grant(2)
    assert limits.drawn == 20


async def test_tokens_taken_ahead_are_lost_after_200_ms() -> None:
    clock = FakeClock()
    limits = CountingLimits(clock)
    await limits.set_limit("a", 200)
    clock.move(1)
    budget = RateBudget(limits, clock)
    for _ in range(9):
        await budget.take("a", 1)
        clock.move(0.001)
    ahead = limits.drawn - 9
    assert ahead > 0
    draws = limits.draws
    clock.move(AHEAD_SECONDS)
    await budget.take("a", 1)
    assert limits.draws == draws + 1


async def test_urgent_has_tokens_while_a_campaign_drains_the_rest() -> None:
    clock = FakeClock()
    limits = CountingLimits(clock)
    await limits.set_limit("a", 200)
    clock.move(1)
    campaign, urgent = RateBudget(limits, clock), RateBudget(limits, clock)
    waits = []
    for turn in range(2_000):
        clock.move(0.001)
        await campaign.take("a", 10)
        if turn % 100 == 0:
            grant = await urgent.take("a", 1, urgent=True)
            waits.append(grant.wait)
    assert max(waits) == 0


async def test_a_flood_of_urgent_does_not_starve_the_rest() -> None:
    clock = FakeClock()
    limits = CountingLimits(clock)
    await limits.set_limit("a", 200)
    flood, rest, granted = RateBudget(limits, clock), RateBudget(limits, clock), 0
    for _ in range(5_000):
        clock.move(0.001)
        await flood.take("a", 10, urgent=True)
        granted += (await rest.take("a", 10)).granted
    assert granted >= 0.9 * 0.1 * 200 * 5


async def test_while_the_pots_are_empty_nobody_asks() -> None:
    clock = FakeClock()
    limits = CountingLimits(clock)
    await limits.set_limit("a", 10)
    budget = RateBudget(limits, clock)
    waits = [(await budget.take("a", 1)).wait for _ in range(50)]
    assert limits.draws == 1
    assert all(0 < wait <= 0.12 for wait in waits)


async def test_many_tasks_at_once_share_one_question() -> None:
    clock = FakeClock()
    limits = CountingLimits(clock)
    await limits.set_limit("a", 200)
    clock.move(1)
    budget = RateBudget(limits, clock)
    grants = await asyncio.gather(*(budget.take("a", 1) for _ in range(32)))
    assert sum(grant.granted for grant in grants) == 32
    assert limits.draws <= 6


async def test_exhaustion_is_told_also_between_questions() -> None:
    clock = FakeClock()
    limits = CountingLimits(clock)
    await limits.set_limit("a", 200, day_left=1)
    clock.move(1)
    metrics = Metrics()
    budget = RateBudget(limits, clock, metrics=metrics)
    assert (await budget.take("a", 2)).granted == 1
    assert (await budget.take("a", 2)).exhausted
    assert metrics.value(TOKENS_GRANTED, provider="a") == 1


async def test_at_least_one_must_be_wanted() -> None:
    clock = FakeClock()
    with pytest.raises(ValueError, match="at least one"):
        await RateBudget(MemoryRateLimits(clock), clock).take("a", 0)


async def test_how_long_was_waited_for_tokens_is_told_apart_for_urgent_mail() -> None:
    clock, metrics = FakeClock(), Metrics()
    limits = MemoryRateLimits(clock)
    await limits.set_limit("a", 0)
    budget = RateBudget(limits, clock, metrics=metrics)
    for _ in range(5):
        clock.move((await budget.take("a", 1)).wait)
    await limits.set_limit("a", 100)
    clock.move(1)
    assert (await budget.take("a", 1)).granted
    assert (await budget.take("a", 1, urgent=True)).granted
    assert waited(metrics, urgent="no") == pytest.approx((1, 6.0), abs=0.01)
    assert waited(metrics, urgent="yes") == (1, 0.0)


async def test_who_gave_up_waiting_does_not_make_the_next_one_look_late() -> None:
    clock, metrics = FakeClock(), Metrics()
    limits = MemoryRateLimits(clock)
    await limits.set_limit("a", 0)
    budget = RateBudget(limits, clock, metrics=metrics)
    await budget.take("a", 1)
    await limits.set_limit("a", 100)
    clock.move(600)
    await budget.take("a", 1)
    assert waited(metrics, urgent="no") == (1, 0.0)


def waited(metrics: Metrics, *, urgent: str) -> tuple[float, float]:
    """How often, and how long in all."""
    labels = {"provider": "a", "urgent": urgent}
    total = metrics.registry.get_sample_value(f"{TOKENS_WAITED_SECONDS.name}_sum", labels)
    return metrics.count(TOKENS_WAITED_SECONDS, **labels), total or 0.0
