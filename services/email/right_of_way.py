"""Within one process urgent mail goes first: while it is on its way to its call, other work steps aside for a moment.

One event loop, its threads and one MongoDB serve all lanes, so without this an urgent mail would queue for each of its
dozen steps behind a campaign's bulks. Others wait for a tenth of a second at most before each piece of their work, and
then do it whatever comes, so no stream of urgent mail can stop them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

from services.kit.clock import Clock

LONGEST_CLAIM = 0.5
"""Seconds after which an urgent mail that was not called is no reason to wait any more: it waits for something else."""

LONGEST_WAIT = 0.1
"""Seconds that others step aside at a time."""

RECENT = 2.0
"""Seconds after an urgent mail in which others go in small steps, since the next one may come at any moment."""


LONGEST_REST = 0.5

REST = 2.0
"""Seconds of rest for each second of work of those that nobody waits for, while urgent mail keeps coming."""


class RightOfWay:
    """Who has it: messages, by id. In memory, for one process; a claim that nobody ends runs out by itself."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._claims: dict[str, float] = {}
        self._free = asyncio.Event()
        self._free.set()
        self._small_until = 0.0

    def claim(self, message_ids: Iterable[str]) -> None:
        """These are urgent and have just come in."""
        now = self._clock.monotonic()
        for message_id in message_ids:
            self._claims[message_id] = now + LONGEST_CLAIM
            self._small_until = now + RECENT
            self._free.clear()

    def end(self, message_id: str) -> None:
        """It is called now, or need not be."""
        if self._claims.pop(message_id, None) is not None and not self._claims:
            self._free.set()

    def at_once(self, usual: int, small: int) -> int:
        """How much other work may be done in one piece: as much as usual, or less where urgent mail has come lately."""
        return min(usual, small) if self._clock.monotonic() < self._small_until else usual

    async def step_aside(self) -> None:
        """Wait until nobody has the right of way, for `LONGEST_WAIT` at most."""
        if self._free.is_set():
            return
        now = self._clock.monotonic()
        for message_id in [each for each, until in self._claims.items() if until <= now]:
            self.end(message_id)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_WAIT):
                await self._free.wait()

    async def rest(self, worked: float) -> None:
        """After a piece of work that nobody waits for and that took so many seconds: leave the machine to others for a
        while, if urgent mail has come lately. Intake would else fill the store with a campaign as fast as it can.
        """
        if self._clock.monotonic() < self._small_until:
            await self._clock.sleep(min(worked * REST, LONGEST_REST))
