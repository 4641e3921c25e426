"""Partitions that are added to the topic are read and shown like the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest

from services.events.adapters import kafka_log
from services.events.adapters.kafka_log import KafkaLog
from services.events.entrypoints.projector import ProjectorService
from services.events.ports import Generation, LeaseView, Pointer, Trouble
from services.events.projections.projection import EMAIL_LOG
from services.events.watching import projection_state
from services.kit.clock import SystemClock
from services.kit.testing import FakeClock

NOW = SystemClock().now()


@dataclass
class Topic:
    """A `Log` of which only the bounds are asked."""

    ends: dict[int, int]

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def bounds(self) -> dict[int, tuple[int, int]]:
        return {partition: (0, end) for partition, end in self.ends.items()}


@dataclass
class Leases:
    """Leases by partition, where each stands."""

    at: dict[int, int] = field(default_factory=dict)

    async def view(self) -> list[LeaseView]:
        return [LeaseView(each, "one", 1, at, 0, held=True) for each, at in sorted(self.at.items())]

    async def seed(self, begins: Mapping[int, int]) -> None:
        self.at = {**begins, **self.at}


@dataclass
class Store:
    """Generations in these stages, by number."""

    stages: dict[int, Any]
    troubles: list[Trouble | None] = field(default_factory=list)

    async def pointer(self) -> Pointer:
        return Pointer(1, None, len(self.stages))

    async def list(self) -> list[Generation]:
        return [Generation("email_log", each, 1, stage, NOW) for each, stage in self.stages.items()]

    async def get(self, number: int) -> Generation:
        return replace((await self.list())[0], number=number, stage=self.stages[number])

    async def note_trouble(self, _number: int, trouble: Trouble | None) -> None:
        self.troubles.append(trouble)


async def test_a_partition_that_is_added_gets_a_lease_in_every_generation_that_is_kept() -> None:
    store = Store({1: "active", 2: "backfilling", 3: "created", 4: "retired", 5: "catchingUp"})
    leases = {each: Leases({0: 5} if each not in (3, 4) else {}) for each in store.stages}
    parts: Any = SimpleNamespace(store=store, leases=leases.__getitem__, log=lambda: Topic({0: 9, 1: 4}))
    service = ProjectorService(parts, FakeClock())
    for _ in range(2):
        await service._take_added()
    assert {each: found.at for each, found in leases.items()} == {
        1: {0: 5, 1: 0},
        2: {0: 5, 1: 0},
        3: {},
        4: {},
        5: {0: 5, 1: 0},
    }


async def test_a_partition_that_nobody_has_a_lease_on_is_shown_with_all_that_it_holds() -> None:
    store: Any = Store({1: "active", 2: "created"})
    leases: Any = {1: Leases({0: 5}), 2: Leases()}.__getitem__
    log: Any = Topic({0: 9, 1: 4})
    state = await projection_state(EMAIL_LOG, store, leases, log)
    assert [(each.partition, each.lag, each.owner) for each in state.partitions] == [(0, 4, "one"), (1, 4, None)]
    assert (state.lag(1), state.lag(2)) == (8, None)


async def test_a_reader_learns_of_partitions_that_are_added(monkeypatch: pytest.MonkeyPatch) -> None:
    there = [0, 1]

    class Admin:
        def __init__(self, **_: object) -> None: ...

        async def start(self) -> None: ...

        async def close(self) -> None: ...

        async def describe_topics(self, _: object) -> list[dict[str, Any]]:
            return [{"error_code": 0, "partitions": [{"partition": each} for each in there]}]

    now = 0.0
    monkeypatch.setattr(kafka_log, "AIOKafkaAdminClient", Admin)
    monkeypatch.setattr(kafka_log, "time", SimpleNamespace(monotonic=lambda: now))
    log = KafkaLog("127.0.0.1:9", "t")
    assert len(await log._partitions()) == 2
    there.append(2)
    assert len(await log._partitions()) == 2, "not asked for each time"
    now = 100.0
    assert len(await log._partitions()) == 3
