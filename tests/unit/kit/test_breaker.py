"""The breaker: how many failures may be set aside, and how it comes back."""

from hypothesis import given
from hypothesis import strategies as st

from services.kit.breaker import LONGEST_COOLDOWN, Breaker, BreakerState
from services.kit.testing.clock import FakeClock


def make(limit: int = 3) -> tuple[Breaker, FakeClock]:
    clock = FakeClock()
    return Breaker(limit, 60.0, clock, cooldown=30.0), clock


def state_of(breaker: Breaker) -> BreakerState:
    """Its state, which time changes behind a type checker's back."""
    return breaker.state


def test_the_one_failure_too_many_opens_it() -> None:
    breaker, _ = make(limit=3)
    assert [breaker.admit(n) for n in range(3)] == [True, True, True]
    assert state_of(breaker) == "closed"
    assert not breaker.admit(3)
    assert state_of(breaker) == "open"
    assert not breaker.admit(4), "open admits nothing new"
    assert breaker.admit(0), "what was admitted may still be carried out"


def test_a_repeated_failure_counts_once() -> None:
    breaker, _ = make(limit=1)
    assert all(breaker.admit("same") for _ in range(10))
    assert state_of(breaker) == "closed"


def test_old_failures_are_forgotten() -> None:
    breaker, clock = make(limit=1)
    assert breaker.admit("a")
    clock.move(60.1)
    assert breaker.admit("b")


def test_it_half_opens_and_a_success_closes_it() -> None:
    breaker, clock = make(limit=0)
    assert not breaker.admit("a")
    breaker.succeeded()
    assert state_of(breaker) == "open", "what was under way when it opened proves nothing"
    clock.move(30.1)
    assert state_of(breaker) == "halfOpen"
    breaker.succeeded()
    assert state_of(breaker) == "closed"


def test_half_open_one_failure_opens_it_for_twice_as_long() -> None:
    breaker, clock = make(limit=0)
    breaker.admit("a")
    for cooldown in (30.0, 60.0, 120.0, 240.0, 480.0, LONGEST_COOLDOWN, LONGEST_COOLDOWN):
        clock.move(cooldown - 0.1)
        assert state_of(breaker) == "open"
        clock.move(0.2)
        assert state_of(breaker) == "halfOpen"
        assert not breaker.admit("b")


def test_the_operator_resets_it() -> None:
    breaker, _ = make(limit=1)
    breaker.admit("a")
    breaker.admit("b")
    breaker.reset()
    assert state_of(breaker) == "closed"
    assert breaker.admit("b")


@given(st.lists(st.tuples(st.integers(0, 30), st.floats(0, 40)), max_size=80), st.integers(0, 5))
def test_never_more_than_the_limit_in_a_window(steps: list[tuple[int, float]], limit: int) -> None:
    clock = FakeClock()
    breaker = Breaker(limit, 60.0, clock, cooldown=10.0)
    new: dict[int, float] = {}
    for failure, pause in steps:
        clock.move(pause)
        if breaker.admit(failure) and failure not in new:
            new[failure] = clock.monotonic()
        in_window = [at for at in new.values() if at > clock.monotonic() - 60.0]
        assert len(in_window) <= limit
