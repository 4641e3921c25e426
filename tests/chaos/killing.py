"""kill -9 of a service, again and again, each time at another gap between two effects. Seeded.

What a dead process still holds in Kafka and of the projector's leases would only be waited for (10 s a time), so it is
taken from it at once. The leases of streams and the time limits of attempts run out by themselves.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from deploy.local import children
from deploy.local.parts import PARTS, plain_environment
from deploy.local.site import ROOT
from deploy.local.stack import Stack
from tests.chaos.crashing import EMAIL, FILES, NTH, OF_A_LANE, POINT, PROJECTOR, effect_of, points
from tests.e2e.evidence import Observer
from tests.integration.kafka.harness import Cluster

PATIENCE = 8.0
"""Seconds after it has begun to serve after which a process that has not come by its point is killed from outside."""

STARTING = 180.0
"""Seconds that a process may take until it serves; it may die before."""

EFFECTS = {"email": EMAIL, "email-urgent": OF_A_LANE, "files": FILES, "events": PROJECTOR}
"""What each part does to the world outside."""

URGENT_INTAKE = "email-intake-urgent"


@dataclass
class Killer:
    """Kills one part of a stack.

    Attributes:
        kills: how often it was killed, at its point or by the clock.
        fatal: at which points, and how often.
        by_clock: points that were waited for in vain.
    """

    stack: Stack
    observer: Observer
    part: str
    seed: int
    patience: float = PATIENCE
    kills: int = 0
    fatal: Counter[str] = field(default_factory=Counter)
    by_clock: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._random = random.Random(f"{self.seed} {self.part}")
        self._points = points(EFFECTS[self.part])
        self._random.shuffle(self._points)

    async def kill(self, times: int) -> None:
        """Kill it so often, then start it as it should be and wait until it is ready."""
        await asyncio.to_thread(self.stack.stop, [self.part])
        for number in range(times):
            point = self._points[(self.kills + number) % len(self._points)]
            await self._one_life(point)
            await self._bury()
        self.kills += times
        await asyncio.to_thread(self.stack.start, [self.part], with_needs=False)

    async def _one_life(self, point: str) -> None:
        nth = self._random.randint(1, 1 if effect_of(point)[1].rare else 6)
        said_before = len(self.stack.logs(self.part))
        child = self._launch({POINT: point, NTH: str(nth)})
        limit = self.patience * self._random.uniform(0.8, 1.2)
        if not (await self._dies(child, STARTING, until_it_serves=True) or await self._dies(child, limit)):
            await asyncio.to_thread(self.stack.kill, self.part)
            self.by_clock[point] += 1
            return
        said = self.stack.logs(self.part)[said_before:]
        assert f"killed {point}" in said, f"{self.part} ended by itself, waiting for '{point}':\n{said[-3000:]}"
        self.fatal[point] += 1

    async def _dies(self, child: children.Child, seconds: float, *, until_it_serves: bool = False) -> bool:
        """Whether it dies within these seconds, or before it serves."""
        deadline = asyncio.get_running_loop().time() + seconds
        while child.alive():
            if asyncio.get_running_loop().time() > deadline:
                return False
            if until_it_serves and children.listens(self.stack.site.ports[self.part]):
                return False
            await asyncio.sleep(0.05)
        return True

    def _launch(self, env: dict[str, str]) -> children.Child:
        part, site = PARTS[self.part], self.stack.site
        assert part.launch is not None
        launch = part.launch(site, {**plain_environment(), **self.stack.env()}, lambda line: None)
        python, flag, *module = launch.command
        command = [python, flag, "tests.chaos.crashing", *module]
        record, log = site.run_dir / f"{self.part}.json", site.log_file(self.part)
        return children.start(record, log, command, {**launch.env, **env}, ROOT, part.cpu_shares)

    async def _bury(self) -> None:
        async with asyncio.timeout(20):  # its last threads may keep the port for a moment
            while not children.port_is_free(self.stack.site.ports[self.part]):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
        if self.part != "events":
            cluster = Cluster(self.stack.env()["MAILROOM_KAFKA_BOOTSTRAP"])
            for group in await self.observer.groups():
                if _part_of(group) == self.part:
                    await cluster.expel(group)
        else:
            past: list[dict[str, Any]] = [{"$set": {"until": {"$subtract": ["$$NOW", 1]}}}]
            await self.observer.events["leases"].update_many({}, past)
            await self.observer.events["workers"].delete_many({})

    def report(self) -> str:
        """One paragraph for people."""
        missed = Counter(self.by_clock)
        lines = [f"{self.part}: {self.kills} kills, {self.fatal.total()} at their point, {missed.total()} by the clock"]
        if missed:
            lines.append(f"  by the clock: {', '.join(f'{point} ({n})' for point, n in sorted(missed.items()))}")
        return "\n".join(lines)


def _part_of(group: str) -> str:
    """Whose consumers a group holds."""
    return "email-urgent" if group == URGENT_INTAKE else group.partition("-")[0]
