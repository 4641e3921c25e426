"""Time and ids that a test controls."""

import asyncio
import heapq
from datetime import UTC, datetime, timedelta
from typing import Literal
from uuid import UUID

START = datetime(2026, 1, 1, tzinfo=UTC)


class FakeClock:
    """A `Clock` that stands still until told.

    `sleeping="advance"` (default): `sleep(n)` moves this clock by n and returns, so a loop with backoff runs
    at once.
    `sleeping="wait"`: `sleep(n)` blocks until `advance` has passed its end, for tests with several tasks.
    Wall clock and monotonic clock move together; `jump` moves the wall clock alone, as an NTP step does.
    `slept` lists every duration asked for.
    """

    def __init__(self, start: datetime = START, *, sleeping: Literal["advance", "wait"] = "advance") -> None:
        if start.tzinfo is None:
            raise ValueError("a clock starts at an aware datetime")
        self._now = start.astimezone(UTC)
        self._monotonic = 0.0
        self._sleeping = sleeping
        self._order = 0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self.slept: list[float] = []

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if self._sleeping == "advance" or seconds <= 0:
            self.move(max(0.0, seconds))
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._order += 1
        heapq.heappush(self._sleepers, (self._monotonic + seconds, self._order, woken))
        await woken

    def move(self, seconds: float) -> None:
        """Let `seconds` pass and wake whoever's time has come, in the order of their ends; they run at the
        next await.
        """
        self._monotonic += seconds
        self._now += timedelta(seconds=seconds)
        while self._sleepers and self._sleepers[0][0] <= self._monotonic:
            _, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                woken.set_result(None)

    async def advance(self, seconds: float) -> None:
        """`move`, then give the woken tasks a few turns of the event loop."""
        self.move(seconds)
        for _ in range(5):
            await asyncio.sleep(0)

    def jump(self, seconds: float) -> None:
        """Step the wall clock only."""
        self._now += timedelta(seconds=seconds)


class FakeIds:
    """Ids in a known order: valid UUIDv7 that count up from 1, so that `FakeIds.nth(3)` names the third."""

    def __init__(self) -> None:
        self._count = 0

    def new(self) -> str:
        self._count += 1
        return self.nth(self._count)

    @staticmethod
    def nth(n: int) -> str:
        """The n-th id (from 1) that any `FakeIds` gives."""
        milliseconds = int(START.timestamp() * 1000)
        value = (milliseconds << 80) | (0x7 << 76) | (0b10 << 62) | n
        return str(UUID(int=value))
