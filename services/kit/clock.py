"""Time and ids as ports, so that nothing inside reads a clock or makes an id by itself. The fakes are in
`kit/testing`.
"""

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol

from contracts.ids import uuid7


class Clock(Protocol):
    """What time it is, and waiting for it to pass."""

    def now(self) -> datetime:
        """The wall clock: aware, UTC, microseconds. It may jump; never measure a duration with it."""
        ...

    def monotonic(self) -> float:
        """Seconds since some fixed point, never going back. For durations and time limits only."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` (at once, but after yielding, when ≤ 0)."""
        ...


class Ids(Protocol):
    """A source of new ids."""

    def new(self) -> str:
        """A fresh UUIDv7 in its canonical lower-case form."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))


class SystemIds:
    """UUIDv7 by the machine's clock and randomness."""

    def new(self) -> str:
        return uuid7()
