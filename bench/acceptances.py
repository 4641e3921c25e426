"""What the simulator accepted and when: its fsynced log is the judge of every contender."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx

from bench.ground import wait_until
from bench.results import BenchFailed
from deploy.local.simulator.client import SimulatorClient
from deploy.local.stack import Stack
from services.email.domain.correlation import MESSAGE_TAG

_STALLED_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Accepted:
    """Mails accepted in one round. Times in seconds since the epoch, to the millisecond."""

    mails: int
    first: float
    last: float

    @property
    def per_second(self) -> float:
        """Mails a second from the first acceptance to the last."""
        return (self.mails - 1) / max(self.last - self.first, 0.001)

    def since(self, began: float) -> float:
        """Mails a second from `began` to the last acceptance."""
        return self.mails / max(self.last - began, 0.001)


class Acceptances:
    """The acceptances from now on."""

    def __init__(self, stack: Stack) -> None:
        self._url = stack.site.url("simulator")
        health = self._health()
        self._position: int = health["positions"]["acceptances"]
        self._before: int = health["accepted"]

    def count(self) -> int:
        """How many there are so far."""
        return int(self._health()["accepted"]) - self._before

    def wait(self, mails: int, alive: Callable[[], None]) -> None:
        """Until `mails` are accepted; BenchFailed when nothing comes for 30 s, or from `alive`."""
        seen, waited = -1, 0.0

        def enough() -> bool:
            nonlocal seen, waited
            alive()
            now = self.count()
            waited = 0.0 if now != seen else waited + 0.1
            seen = now
            if waited > _STALLED_SECONDS:
                raise BenchFailed(f"{now} of {mails} mails were accepted, then none for {_STALLED_SECONDS:.0f} s")
            return now >= mails

        wait_until(enough, f"{mails} mails to be accepted", 3600)

    def judge(self, mails: int) -> Accepted:
        """BenchFailed unless exactly `mails` different messages were accepted, each once."""
        found = self.entries()
        messages = Counter(entry["tags"].get(MESSAGE_TAG) for entry in found)
        if len(found) != mails or len(messages) != mails:
            raise BenchFailed(f"{mails} mails were to be accepted; {len(messages)} were, in {len(found)} acceptances")
        times = sorted(datetime.fromisoformat(entry["at"]).timestamp() for entry in found)
        return Accepted(len(found), times[0], times[-1])

    def entries(self) -> list[dict[str, Any]]:
        """Every acceptance as the simulator logged it."""
        return asyncio.run(self._read())

    async def _read(self) -> list[dict[str, Any]]:
        async with SimulatorClient(self._url) as client:
            return await client.acceptances(self._position)

    def _health(self) -> dict[str, Any]:
        answer = httpx.get(f"{self._url}/_sim/health", timeout=10, trust_env=False)
        found: dict[str, Any] = answer.raise_for_status().json()
        return found
