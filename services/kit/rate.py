"""A provider account's rate limit, shared by all processes: tokens, counted in recipients, from one document.

The document holds three pots that refill together at exactly the account's rate: one token in ten goes to the pot
`urgent`, one in ten to the pot `others`, the rest to the pot `common`; what a full pot cannot hold flows over into
`common`, so that no rate is lost while one side is quiet. Urgent mail draws from `urgent`, then `common`; all else
from `others`, then `common`. So neither can starve the other, and a campaign leaves urgent mail its tokens.

However many processes draw, over any time they are granted at most rate × elapsed + burst. All times are the store's.
"""

import asyncio
import math
from dataclasses import dataclass, field, replace
from typing import Protocol

from services.kit import metrics as m
from services.kit.clock import Clock
from services.kit.errors import Unavailable
from services.kit.metrics import Metrics

KEPT_SHARE = 0.1
AHEAD_SECONDS = 0.2
"""A process takes tokens for at most this long ahead; what it has not used by then is lost, never used late."""

PACE_SECONDS = 0.1
"""After an empty pot, a process asks again for what is not urgent only this much later."""

_BURST_SECONDS = 0.25
_LEAST_BURST = 4.0
_REFUSED_SECONDS = 1.0
_ASKS_AGAIN_SECONDS = 1.0  # whoever still wants tokens does so within this after the wait it was told


def burst(per_second: float) -> float:
    """How many tokens all pots hold together: a quarter of a second's, at least 4."""
    return max(_LEAST_BURST, per_second * _BURST_SECONDS)


def kept(per_second: float) -> float:
    """How many tokens each of the pots `urgent` and `others` holds."""
    return max(1.0, burst(per_second) * KEPT_SHARE)


@dataclass(frozen=True, slots=True)
class Draw:
    """What the shared document gave.

    Attributes:
        granted: tokens given, 0 to what was wanted.
        wait: seconds after which another token can be there, when fewer were granted than wanted; else 0.
        per_second: the account's rate now.
        exhausted: the account's 24 hours are used up: circuit, not backoff.
    """

    granted: int
    wait: float
    per_second: float
    exhausted: bool = False


class RateLimits(Protocol):
    """The limits of provider accounts, one shared document each."""

    async def set_limit(self, account: str, per_second: float, day_left: int | None = None) -> None:
        """What the provider says now: recipients a second, and how many are left of its 24 hours (None: no limit).

        Any process may say so at any time; it holds from the next draw on, everywhere. A `per_second` of 0 stops.
        """
        ...

    async def draw(self, account: str, wanted: int, *, urgent: bool) -> Draw:
        """Take up to `wanted` tokens.

        Raises:
            Unavailable: the store does not answer (tokens may be lost, never doubled), or nobody has set a limit.
        """
        ...


@dataclass(frozen=True, slots=True)
class Pots:
    """The shared document's arithmetic. Times in seconds."""

    per_second: float
    at: float
    urgent: float = 0.0
    others: float = 0.0
    common: float = 0.0
    day_left: int | None = None

    def refilled(self, now: float) -> "Pots":
        """The pots at `now`; a `now` before the last one counts as no time passed."""
        gained = max(0.0, now - self.at) * self.per_second
        full = kept(self.per_second)
        urgent, others = self.urgent + gained * KEPT_SHARE, self.others + gained * KEPT_SHARE
        over = max(0.0, urgent - full) + max(0.0, others - full)
        common = self.common + gained * (1 - 2 * KEPT_SHARE) + over
        return replace(
            self,
            at=max(now, self.at),
            urgent=min(urgent, full),
            others=min(others, full),
            common=min(common, burst(self.per_second) - 2 * full),
        )

    def draw(self, wanted: int, *, urgent: bool) -> tuple["Pots", int]:
        """Take up to `wanted` whole tokens; what is left and how many were taken."""
        own = self.urgent if urgent else self.others
        most = wanted if self.day_left is None else min(wanted, self.day_left)
        taken = max(0, min(most, math.floor(own + self.common)))
        from_own = min(own, taken)
        left = replace(
            self,
            common=max(0.0, self.common - (taken - from_own)),
            day_left=None if self.day_left is None else self.day_left - taken,
        )
        own -= from_own
        return (replace(left, urgent=own) if urgent else replace(left, others=own)), taken


def answer(pots: Pots, wanted: int, taken: int, *, urgent: bool) -> Draw:
    """What to tell whoever wanted `wanted` and got `taken`, leaving `pots`."""
    if taken == wanted:
        return Draw(taken, 0.0, pots.per_second)
    if pots.day_left is not None and pots.day_left <= 0:
        return Draw(taken, _REFUSED_SECONDS, pots.per_second, exhausted=True)
    if pots.per_second <= 0:
        return Draw(taken, _REFUSED_SECONDS, pots.per_second)
    missing = 1 - (pots.urgent if urgent else pots.others) - pots.common
    return Draw(taken, max(0.001, missing / (pots.per_second * (1 - KEPT_SHARE))), pots.per_second)


class MemoryRateLimits:
    """`RateLimits` within one process. For tests."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._pots: dict[str, Pots] = {}

    async def set_limit(self, account: str, per_second: float, day_left: int | None = None) -> None:
        now = self._clock.now().timestamp()
        pots = self._pots.get(account, Pots(0.0, now)).refilled(now)
        self._pots[account] = replace(pots, per_second=per_second, day_left=day_left)

    async def draw(self, account: str, wanted: int, *, urgent: bool) -> Draw:
        if account not in self._pots:
            raise no_limit(account)
        pots, taken = self._pots[account].refilled(self._clock.now().timestamp()).draw(wanted, urgent=urgent)
        self._pots[account] = pots
        return answer(pots, wanted, taken, urgent=urgent)


def no_limit(account: str) -> Unavailable:
    """The error of a draw on an account whose limit nobody has set: nothing is sent on a guess."""
    return Unavailable("rate limit", f"no limit is set for account {account}: ask the provider for its quota first")


@dataclass(slots=True)
class _Waiting:
    """Somebody asked in vain: `since` then, and `until` then it counts as still wanting."""

    since: float
    until: float


@dataclass(slots=True)
class _Purse:
    """What this process holds of one account's tokens, and when it may ask for more."""

    tokens: int = 0
    expires: float = 0.0
    ask: int = 1
    asked: float = -math.inf
    not_before: dict[bool, float] = field(default_factory=lambda: {False: -math.inf, True: -math.inf})
    exhausted: bool = False
    waits: dict[bool, "_Waiting"] = field(default_factory=dict)
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(frozen=True, slots=True)
class Grant:
    """What `take` gave: `granted` recipients may be attempted now; if that is fewer than wanted, ask again after
    `wait` seconds. `exhausted`: the account's 24 hours are used up.
    """

    granted: int
    wait: float = 0.0
    exhausted: bool = False


class RateBudget:
    """This process's way to the tokens: few updates of the shared document, nothing held when idle."""

    def __init__(self, limits: RateLimits, clock: Clock, *, metrics: Metrics | None = None) -> None:
        self._limits = limits
        self._clock = clock
        self._metrics = metrics
        self._purses: dict[str, _Purse] = {}

    async def take(self, account: str, wanted: int, *, urgent: bool = False) -> Grant:
        """Take up to `wanted` (≥ 1) tokens at once, without waiting for any to come.

        A token is for now: use it within a fraction of a second, or let it go.

        Raises:
            Unavailable: the shared document cannot be reached, or nobody has set the account's limit.
        """
        if wanted < 1:
            raise ValueError("take at least one token")
        purse = self._purses.setdefault(account, _Purse())
        grant = self._from_purse(purse, wanted, urgent=urgent)
        if grant is None:
            async with purse.asking:
                grant = self._from_purse(purse, wanted, urgent=urgent)
                if grant is None:
                    grant = await self._ask(account, purse, wanted, urgent=urgent)
        waited = self._waited(purse, grant, urgent=urgent)
        if self._metrics is not None and grant.granted:
            self._metrics.inc(m.TOKENS_GRANTED, grant.granted, provider=account)
            labels = {"provider": account, "urgent": "yes" if urgent else "no"}
            self._metrics.observe(m.TOKENS_WAITED_SECONDS, waited, **labels)
        return grant

    def _waited(self, purse: _Purse, grant: Grant, *, urgent: bool) -> float:
        """Seconds since this side of the account began to ask in vain; 0 when it did not."""
        now = self._clock.monotonic()
        waiting = purse.waits.pop(urgent, None)
        if waiting is None or now > waiting.until:
            waiting = _Waiting(now, now)
        if not grant.granted:
            purse.waits[urgent] = _Waiting(waiting.since, now + grant.wait + _ASKS_AGAIN_SECONDS)
        return now - waiting.since

    def _from_purse(self, purse: _Purse, wanted: int, *, urgent: bool) -> Grant | None:
        """An answer without asking the document; None where only that can tell."""
        now = self._clock.monotonic()
        if purse.tokens and now < purse.expires:
            granted = min(wanted, purse.tokens)
            purse.tokens -= granted
            return Grant(granted)
        purse.tokens = 0
        wait = purse.not_before[urgent] - now
        return Grant(0, wait, purse.exhausted) if wait > 0 else None

    async def _ask(self, account: str, purse: _Purse, wanted: int, *, urgent: bool) -> Grant:
        begun = self._clock.monotonic()
        ask = wanted if urgent else max(wanted, purse.ask)
        draw = await self._limits.draw(account, ask, urgent=urgent)
        granted = min(wanted, draw.granted)
        purse.exhausted = draw.exhausted
        wait = draw.wait
        if not urgent:
            purse.tokens, purse.expires = draw.granted - granted, begun + AHEAD_SECONDS
            most_ahead = max(1, int(draw.per_second * AHEAD_SECONDS))
            in_a_row = begun - purse.asked < AHEAD_SECONDS
            purse.ask = min(most_ahead, max(1, ask * 2)) if in_a_row else 1
            purse.asked = begun
            if draw.granted < ask:
                wait = max(wait, PACE_SECONDS)
        purse.not_before[urgent] = begun + wait
        return Grant(granted, 0.0 if granted == wanted else wait, draw.exhausted)
