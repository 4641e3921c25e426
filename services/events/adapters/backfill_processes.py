"""Workers of a rebuild as processes of their own: `python -m services.events backfill <projection> <generation>
<how many>`.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from services.kit.errors import PermanentError
from services.kit.logs import get_logger

log = get_logger(__name__)

DEATHS: Final = 5
STOP_SECONDS: Final = 15.0


class BackfillProcesses:
    """`Workers`. Each ends by itself when its standard input is closed, so none outlives whoever started it."""

    def __init__(self, projection: str, count: int, environment: Mapping[str, str] | None = None) -> None:
        """`projection`: its name; `environment`: theirs, this process's own unless given."""
        self._projection = projection
        self._count = count
        self._environment = dict(os.environ if environment is None else environment)
        self._generation = 0
        self._deaths = 0
        self._processes: list[asyncio.subprocess.Process] = []

    @property
    def pids(self) -> list[int]:
        """Those that run, for measurements."""
        return [process.pid for process in self._processes if process.returncode is None]

    async def start(self, generation: int) -> None:
        self._generation, self._deaths = generation, 0
        self._processes = [await self._spawn() for _ in range(self._count)]

    async def revive(self) -> None:
        dead = [process for process in self._processes if process.returncode is not None]
        for process in dead:
            self._deaths += 1
            log.warning("a worker of the rebuild died", pid=process.pid, status=process.returncode)
            if self._deaths > DEATHS:
                raise PermanentError("workersDie", f"{self._deaths} workers died, the last with {process.returncode}")
            self._processes.remove(process)
            self._processes.append(await self._spawn())

    async def stop(self) -> None:
        for process in self._processes:
            if process.stdin is not None:
                process.stdin.close()
        for process in self._processes:
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_SECONDS):
                    await process.wait()
            if process.returncode is None:
                process.kill()
                await process.wait()
        self._processes = []

    async def _spawn(self) -> asyncio.subprocess.Process:
        words = ("backfill", self._projection, str(self._generation), str(self._count))
        command = (sys.executable, "-m", "services.events", *words)
        return await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE, env=self._environment)
