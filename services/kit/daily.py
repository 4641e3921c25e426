"""Limits of a day, shared by all processes and counted exactly: how much of each was used today.

A token of `rate` that is not used at once is lost. That would be too much to lose of a day that allows 50: here nothing
is taken ahead, and what was taken and not used is given back. Days are UTC days by the store's clock.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Protocol

from services.kit.clock import Clock

DailyLimit = Callable[[date], int | None]
"""What a day allows; None for no limit."""


@dataclass(frozen=True, slots=True)
class Count:
    """What `take` counted.

    Attributes:
        granted: how many, 0 to what was wanted.
        day: the day in which they count, to be named when they are given back.
        next_day: seconds until the next day begins.
    """

    granted: int
    day: date
    next_day: float


@dataclass(frozen=True, slots=True)
class Used:
    """How many were counted on `day`."""

    day: date
    used: int


class DailyCounts(Protocol):
    """What was used of today's limits, by key."""

    async def take(self, key: str, wanted: int, limit: DailyLimit, *, exempt: bool = False) -> Count:
        """Count up to `wanted`, as many as the limit of the store's day leaves. `exempt`: count them all, over it too.

        Raises:
            Unavailable: the store does not answer. What it counted all the same stays counted: fewer are used than the
                day allows, never more.
        """
        ...

    async def give_back(self, key: str, day: date, count: int) -> None:
        """These were counted on that day and not used. A day that is over is left alone. Raises Unavailable."""
        ...

    async def used(self, keys: Collection[str]) -> Mapping[str, Used]:
        """What was counted today, for each of the keys. Raises Unavailable."""
        ...


def until_next_day(now: datetime) -> float:
    """Seconds until the UTC day of `now` is over."""
    return (datetime.combine(now.date() + timedelta(days=1), time(), UTC) - now).total_seconds()


class MemoryDailyCounts:
    """`DailyCounts` within one process. For tests."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._used: dict[str, Used] = {}

    async def take(self, key: str, wanted: int, limit: DailyLimit, *, exempt: bool = False) -> Count:
        now = self._clock.now()
        used, most = self._today(key), limit(now.date())
        granted = wanted if exempt or most is None else max(0, min(wanted, most - used.used))
        self._used[key] = Used(used.day, used.used + granted)
        return Count(granted, used.day, until_next_day(now))

    async def give_back(self, key: str, day: date, count: int) -> None:
        used = self._today(key)
        if used.day == day:
            self._used[key] = Used(day, max(0, used.used - count))

    async def used(self, keys: Collection[str]) -> Mapping[str, Used]:
        return {key: self._today(key) for key in keys}

    def _today(self, key: str) -> Used:
        today = self._clock.now().date()
        used = self._used.get(key)
        return used if used is not None and used.day >= today else Used(today, 0)
