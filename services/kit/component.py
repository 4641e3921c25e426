"""The parts that a process is made of, and the usual way to make one: a loop that runs until it is told to stop."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from services.kit.health import Progress, Report
from services.kit.logs import get_logger

log = get_logger(__name__)

Run = Callable[[asyncio.Event], Awaitable[None]]
"""A loop's body: runs until the event is set, then finishes what it has in hand and returns."""


class Component(Protocol):
    """One part of a process: it can be started and stopped once."""

    async def start(self) -> None:
        """Begin, and return as soon as it runs. Raises when it cannot; it is then stopped all the same."""
        ...

    async def stop(self, timeout: float) -> None:
        """Finish what is in hand and end, within `timeout` seconds, after which it is cut off. Harmless when not
        started.
        """
        ...

    def health(self) -> Report:
        """How it is doing. `Report.died` when it ended by itself."""
        ...


class LoopComponent:
    """A `Component` made of one coroutine that runs until told to stop.

    The coroutine reports its turns to the `Progress` given. If it raises or returns before it was told to stop, the
    component has died, and `lifecycle.Process` ends the process.
    """

    def __init__(
        self,
        name: str,
        run: Run,
        progress: Progress,
        *,
        detail: Callable[[], Mapping[str, object]] = dict,
    ) -> None:
        """`detail` adds to the health report."""
        self._name = name
        self._run = run
        self._progress = progress
        self._detail = detail
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._until_stopped(), name=self._name)

    async def stop(self, timeout: float) -> None:
        self._stopping.set()
        if self._task is None:
            return
        done, _ = await asyncio.wait([self._task], timeout=timeout)
        if not done:
            log.warning("component did not finish in time and is cut off", component=self._name, seconds=timeout)
            self._task.cancel()
            await asyncio.wait([self._task], timeout=1.0)

    def health(self) -> Report:
        return self._progress.report(self._detail(), died=self._died())

    async def _until_stopped(self) -> None:
        await self._run(self._stopping)

    def _died(self) -> str | None:
        if self._task is None or not self._task.done() or self._stopping.is_set():
            return None
        if self._task.cancelled():
            return "cancelled from inside"
        error = self._task.exception()
        return f"{type(error).__name__}: {error}" if error else "returned although nobody told it to stop"


@dataclass(frozen=True, slots=True)
class Part:
    """A `Component` made of three functions; `report` translates what tells its health in a shape of its own."""

    starting: Callable[[], Awaitable[None]]
    stopping: Callable[[float], Awaitable[None]]
    report: Callable[[], Report]

    async def start(self) -> None:
        """Begin."""
        await self.starting()

    async def stop(self, timeout: float) -> None:
        """End within `timeout` seconds."""
        await self.stopping(timeout)

    def health(self) -> Report:
        """How it is doing."""
        return self.report()


class Closing:
    """A `Component` of something that only has to be closed at the end: a client, an exporter of traces."""

    def __init__(self, close: Callable[[], Awaitable[None] | None]) -> None:
        self._close = close

    async def start(self) -> None:
        """Nothing to start."""

    async def stop(self, timeout: float) -> None:
        async with asyncio.timeout(timeout):
            closing = self._close()
            if closing is not None:
                await closing

    def health(self) -> Report:
        return Report(live=True)
