"""A breaker that stops a flood of failures instead of letting it empty a topic into the parking lot."""

from collections.abc import Hashable
from typing import Literal

from services.kit.clock import Clock

BreakerState = Literal["closed", "open", "halfOpen"]

LONGEST_COOLDOWN = 600.0


class Breaker:
    """Admits at most `limit` different failures in any `window` seconds; the next one opens it.

    Open, it admits nothing new for `cooldown` seconds. Then it is half open: work goes on, one more failure opens
    it again (for twice as long, at most ten minutes), and work that succeeds closes it. A failure that was
    admitted before may come again without being counted twice, since a crash repeats it. Kept in memory: a
    restarted process, which may hold the mended code, begins closed.
    """

    def __init__(self, limit: int, window: float, clock: Clock, *, cooldown: float = 60.0) -> None:
        if limit < 0 or window <= 0 or cooldown <= 0:
            raise ValueError("a breaker needs limit >= 0, window > 0 and cooldown > 0")
        self.limit = limit
        self.window = window
        self._clock = clock
        self._first_cooldown = cooldown
        self._cooldown = cooldown
        self._opened_at: float | None = None
        self._half_open = False
        self._admitted: dict[Hashable, float] = {}

    @property
    def state(self) -> BreakerState:
        """Where it stands now; time alone turns open into half open."""
        if self._opened_at is not None and self._clock.monotonic() >= self._opened_at + self._cooldown:
            self._opened_at = None
            self._half_open = True
        if self._opened_at is not None:
            return "open"
        return "halfOpen" if self._half_open else "closed"

    def admit(self, failure: Hashable) -> bool:
        """Whether this failure may be set aside. False = it is one too many; the breaker is open now."""
        state = self.state
        if failure in self._admitted:
            return True
        if state == "open":
            return False
        if state == "halfOpen":
            self._open(min(self._cooldown * 2, LONGEST_COOLDOWN))
            return False
        now = self._clock.monotonic()
        self._admitted = {key: at for key, at in self._admitted.items() if at > now - self.window}
        if len(self._admitted) >= self.limit:
            self._open(self._first_cooldown)
            return False
        self._admitted[failure] = now
        return True

    def succeeded(self) -> None:
        """Work went through without a failure: half open becomes closed."""
        if self.state == "halfOpen":
            self.reset()

    def reset(self) -> None:
        """The operator's word that the cause is mended, or that the flood is to be set aside: closed, from
        zero.
        """
        self._opened_at = None
        self._half_open = False
        self._cooldown = self._first_cooldown
        self._admitted = {}

    def _open(self, cooldown: float) -> None:
        self._cooldown = cooldown
        self._opened_at = self._clock.monotonic()
        self._half_open = False
