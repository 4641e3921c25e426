"""Projector processes that kill themselves (SIGKILL, so that nothing is tidied up), each around a chosen effect.

`python -m tests.integration.events.dying <bootstrap> <mongo> <database> <topic> <generation>` reads steps from standard
input, one a line. A step is `before|after` and `load|write|write_rows|mark_dirty|checkpoint|commit`, as in
`after:write`. For each step it forks a process, which spares the start of Python, and prints how that one ended.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, cast

from services.events.composing import ReadingSide
from services.events.ports import LeaseStore, Log, ReadModels
from services.events.projections.projection import EMAIL_LOG
from services.kit.metrics import Metrics
from services.kit.mongo import connect
from services.kit.testing.parking import MemoryParkingLot


class Dying:
    """Passes every call on to `real`, and kills the process before or after the first call of the chosen method."""

    def __init__(self, real: object, step: str) -> None:
        self._real = real
        self._when, _, self._method = step.partition(":")

    def __getattr__(self, name: str) -> Any:
        method: Callable[..., Awaitable[Any]] = getattr(self._real, name)
        if name != self._method:
            return method

        async def call(*arguments: Any, **named: Any) -> Any:
            if self._when == "after":
                await method(*arguments, **named)
            os.kill(os.getpid(), signal.SIGKILL)

        return call


@dataclass(frozen=True)
class DyingSide(ReadingSide):
    """A reading side whose ports are deadly."""

    step: str = ""

    def log(self) -> Log:
        return cast("Log", self._dying(super().log()))

    def leases(self, generation: int) -> LeaseStore:
        return cast("LeaseStore", self._dying(super().leases(generation)))

    def models(self, generation: int, *, version: int | None = None) -> ReadModels:
        return cast("ReadModels", self._dying(super().models(generation, version=version)))

    def _dying(self, real: object) -> object:
        return Dying(real, self.step)


async def main(bootstrap: str, mongo: str, database: str, topic: str, generation: str, step: str) -> None:
    """Project until dead."""
    side = DyingSide(
        replace(EMAIL_LOG, topic=topic),
        bootstrap,
        connect(mongo)[database],
        MemoryParkingLot(),
        Metrics(),
        lease_seconds=3.0,
        step=step,
    )
    await side.projector(int(generation), lambda: True).run()


def run_all(bootstrap: str, mongo: str, database: str, topic: str, generation: str) -> None:
    """Run a projector for each step that standard input names."""
    for step in sys.stdin:
        pid = os.fork()
        if pid == 0:
            asyncio.run(main(bootstrap, mongo, database, topic, generation, step.strip()))
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    run_all(*sys.argv[1:])
