"""Backoff grows, stays in bounds, and only what may work later is tried again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kit.errors import PermanentError, TransientError
from services.kit.retry import Backoff, retrying
from services.kit.testing import FakeClock


class Failing:
    """Fails with the errors given, then returns 42."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    async def __call__(self) -> int:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return 42


@given(failures=st.integers(1, 10**6), draw=st.floats(0, 1, exclude_max=True))
def test_delays_stay_in_bounds(failures: int, draw: float) -> None:
    backoff = Backoff(first=0.1, most=10, factor=2, jitter=0.5)
    delay = backoff.delay(failures, draw=lambda: draw)
    assert 0.05 <= delay <= 10
    assert delay <= backoff.delay(failures + 1, draw=lambda: draw)


async def test_tries_until_it_succeeds() -> None:
    clock, call, told = FakeClock(), Failing(TransientError("a"), TransientError("b")), []
    backoff = Backoff(first=1, most=10, jitter=0)
    result = await retrying(
        call, clock=clock, within=60, backoff=backoff, on_failure=lambda error, pause: told.append((str(error), pause))
    )
    assert result == 42
    assert clock.slept == [1, 2]
    assert told == [("a", 1), ("b", 2)]


async def test_a_permanent_error_is_never_tried_again() -> None:
    call = Failing(PermanentError("bad"))
    with pytest.raises(PermanentError):
        await retrying(call, clock=FakeClock(), within=60)
    assert call.calls == 1


async def test_gives_up_in_time_with_the_last_error() -> None:
    clock, call = FakeClock(), Failing(*(TransientError(str(n)) for n in range(100)))
    with pytest.raises(TransientError):
        await retrying(call, clock=clock, within=10, backoff=Backoff(first=1, most=4, jitter=0))
    assert clock.monotonic() <= 10
    assert call.calls == 4


async def test_waits_as_long_as_the_error_asks() -> None:
    clock = FakeClock()
    await retrying(Failing(TransientError("busy", retry_after=7)), clock=clock, within=60)
    assert clock.slept == [7]
