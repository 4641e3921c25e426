"""Trying again, with the policy written down where it is used."""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from services.kit.clock import Clock
from services.kit.errors import TransientError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait after the nth failure: `first · factor^(n-1)` seconds, at most `most`.

    Of that, between (1 - `jitter`) and all, at random, so that many who failed together do not come back
    together.
    """

    first: float = 0.1
    most: float = 10.0
    factor: float = 2.0
    jitter: float = 0.5

    def delay(self, failures: int, *, draw: Callable[[], float] = random.random) -> float:
        """Seconds to wait after `failures` (≥ 1) failures in a row. `draw` gives 0 ≤ x < 1."""
        exponent = min(failures - 1, 64)  # beyond that the power overflows, long after `most` was reached
        full = min(self.most, self.first * self.factor**exponent)
        return full * (1 - self.jitter * draw())


async def retrying(
    call: Callable[[], Awaitable[T]],
    *,
    clock: Clock,
    within: float,
    backoff: Backoff = Backoff(),
    on_failure: Callable[[TransientError, float], None] | None = None,
) -> T:
    """Await `call()` until it succeeds; only a TransientError is tried again.

    Args:
        call: may be called many times; it must be safe to repeat.
        within: seconds (monotonic) after which the last error is raised instead of waiting for another try. A
        call
            in progress is not cut off: it has a time limit of its own.
        backoff: waits between tries; an error's own `retry_after` is waited for if longer.
        on_failure: told each error and the seconds until the next try.
    """
    end = clock.monotonic() + within
    failures = 0
    while True:
        try:
            return await call()
        except TransientError as error:
            failures += 1
            pause = max(backoff.delay(failures), error.retry_after or 0.0)
            if clock.monotonic() + pause > end:
                raise
            if on_failure is not None:
                on_failure(error, pause)
        await clock.sleep(pause)
