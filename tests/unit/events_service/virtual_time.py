"""An event loop whose time passes at once whenever everything waits: minutes of many tasks in a moment, and the same
each time.
"""

from __future__ import annotations

import asyncio
import selectors
from datetime import datetime, timedelta

from services.kit.testing.clock import START


class VirtualLoop(asyncio.SelectorEventLoop):
    """For what does no input or output and has no threads. RuntimeError where everything waits for ever."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self.now


class _Selector(selectors.SelectSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everything waits for ever")
        self._loop.now += max(0.0, timeout)
        return []


class LoopClock:
    """A `Clock` that shows the loop's time."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def now(self) -> datetime:
        return START + timedelta(seconds=self._loop.now)

    def monotonic(self) -> float:
        return self._loop.now

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
