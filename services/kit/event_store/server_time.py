"""The database server's clock, as read by a process whose own clock may be wrong.

All leases are judged by this one clock, so two processes agree on who holds what, however far their own clocks stand
apart. Between two looks at the server only the monotonic clock counts, so a step of the local clock changes nothing.
"""

import asyncio
from dataclasses import dataclass
from datetime import UTC

from contracts.base import to_micros
from services.kit.clock import Clock
from services.kit.errors import Unavailable
from services.kit.mongo import Collection, foreign_errors

REFRESH_SECONDS = 10.0
STALE_SECONDS = 300.0
"""How long an old reading serves while the server does not answer; drift in that time is milliseconds."""

_TRIES = 3
_GOOD_ROUND_TRIP = 0.05


@dataclass(frozen=True, slots=True)
class _Reading:
    micros: int
    at: float
    round_trip: float


class ServerTime:
    """Microseconds since the epoch on the primary, exact to half a round trip (and never finer than 1 ms)."""

    def __init__(self, collection: Collection, clock: Clock) -> None:
        self._admin = collection.database.client.admin
        self._clock = clock
        self._reading: _Reading | None = None
        self._looking = asyncio.Lock()

    async def micros(self) -> int:
        """Now, in the server's time. Asks the server only every `REFRESH_SECONDS`.

        Raises:
            Unavailable: no server answers, and the last reading is too old to be trusted.
        """
        reading = self._fresh(REFRESH_SECONDS)
        if reading is None:
            async with self._looking:
                reading = self._fresh(REFRESH_SECONDS) or await self._look()
        return reading.micros + int((self._clock.monotonic() - reading.at) * 1_000_000)

    def _fresh(self, age: float) -> _Reading | None:
        reading = self._reading
        return reading if reading is not None and self._clock.monotonic() - reading.at < age else None

    async def _look(self) -> _Reading:
        best: _Reading | None = None
        try:
            for _ in range(_TRIES):
                reading = await self._ask()
                if best is None or reading.round_trip < best.round_trip:
                    best = reading
                if best.round_trip <= _GOOD_ROUND_TRIP:
                    break
        except Unavailable:
            best = best or self._fresh(STALE_SECONDS)
            if best is None:
                raise
            return best
        self._reading = best
        assert best is not None  # noqa: S101  the loop ran or raised
        return best

    async def _ask(self) -> _Reading:
        before = self._clock.monotonic()
        with foreign_errors():
            hello = await self._admin.command("hello")
        after = self._clock.monotonic()
        local_time = hello["localTime"].replace(tzinfo=UTC)  # commands come back without the client's codec options
        return _Reading(to_micros(local_time), (before + after) / 2, after - before)
