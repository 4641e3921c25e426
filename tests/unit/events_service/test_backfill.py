"""A worker that fills a generation tells what keeps it from doing so."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from services.events.entrypoints import replayer
from services.events.ports import Trouble
from tests.unit.events_service.test_partitions import Leases, Store


async def test_a_backfill_tells_which_partition_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replayer, "LOOK_SECONDS", 0.001)
    store, stopping = Store({2: "backfilling"}), asyncio.Event()
    blocked: dict[int, str] = {}
    working: Any = SimpleNamespace(paused=False, blocked=lambda: blocked, run=stopping.wait, stop=stopping.set)
    generations: Any = store
    leases: Any = Leases({0: 0})
    filling = asyncio.create_task(replayer.backfill(2, generations, leases, lambda _: working, stopping))

    async def told(count: int) -> Trouble | None:
        async with asyncio.timeout(60):
            while len(store.troubles) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        return store.troubles[-1]

    blocked[4] = "CorruptRecordError at offset 17"
    trouble = await told(1)
    assert trouble is not None
    assert trouble.error == "partition 4 cannot be read: CorruptRecordError at offset 17"
    assert trouble.again_at is not None
    blocked[5] = "OffsetOutOfRangeError at offset 0"
    trouble = await told(2)
    assert trouble is not None
    assert "partition 4" in trouble.error
    assert "partition 5" in trouble.error
    blocked.clear()
    assert await told(3) is None, "taken back once it can be read"
    stopping.set()
    await filling
