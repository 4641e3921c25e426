"""A rebuild and the statistics beside traffic: what is marked again at once keeps nobody waiting."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from services.events.entrypoints.projector import SUM_TURN_SECONDS, ProjectorService
from services.events.ports import Generation, LeaseView
from services.events.rebuild import Rebuild
from services.kit.clock import SystemClock
from services.kit.metrics import Metrics
from services.kit.testing import FakeClock

BUCKETS = [f"2026-11-{day:02d}/{category}" for day in range(30, 0, -1) for category in ("auth", "marketing")]


class Busy:
    """Statistics that traffic makes dirty again as soon as they are summed up."""

    def __init__(self, clock: FakeClock | None = None) -> None:
        self.summed: list[str] = []
        self._clock = clock

    async def dirty(self, limit: int = 1_000) -> list[str]:
        return BUCKETS[:limit]

    async def refresh(self, bucket: str) -> bool:
        self.summed.append(bucket)
        assert len(self.summed) < 10 * len(BUCKETS), "it never ends"
        if self._clock is not None:
            self._clock.move(SUM_TURN_SECONDS / 4)
        return True


class Known:
    """A generation that is built, and its leases."""

    generation = Generation("email_log", 2, 1, "catchingUp", SystemClock().now())

    async def get(self, number: int) -> Generation:
        return replace(self.generation, number=number)

    async def view(self) -> list[LeaseView]:
        return [LeaseView(0, None, 1, 5, 0, held=False)]

    async def note(self, number: int, **told: Any) -> None: ...


async def test_a_rebuild_sums_up_what_is_dirty_once() -> None:
    statistics, known = Busy(), Known()
    parts: Any = SimpleNamespace(
        statistics=lambda _: statistics,
        store=known,
        leases=lambda _: known,
        metrics=Metrics(),
        projection=SimpleNamespace(name="email_log"),
    )
    await Rebuild(parts, FakeClock(), "owner")._sum_up(2)
    assert statistics.summed == BUCKETS


async def test_old_buckets_are_summed_up_though_new_ones_are_dirty_all_the_time() -> None:
    clock = FakeClock()
    statistics = {1: Busy(clock), 2: Busy(clock)}
    parts: Any = SimpleNamespace(statistics=statistics.__getitem__)
    service = ProjectorService(parts, clock)
    service._running = {1: None, 2: None}  # type: ignore[dict-item]  # only their numbers are looked at
    turns = 0
    while not all(set(each.summed) == set(BUCKETS) for each in statistics.values()):
        rest = await service._sum_up()
        assert rest <= 9 * 2 * SUM_TURN_SECONDS * 1.01, "one turn is short, however much there is to do"
        turns += 1
        assert turns < 100
    assert statistics[1].summed[: len(BUCKETS)] == BUCKETS, "each in its turn, the latest day first"
