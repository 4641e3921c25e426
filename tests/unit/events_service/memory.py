"""A generation's documents in memory: passes the suite of the real one (`tests/ports/test_read_models.py`)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from services.events.ports import Outcome, Row, Stored, Write
from services.events.projections.known import Overflow, is_retracted, tally
from services.events.projections.projection import EMAIL_LOG, Body, Projection

Hook = Callable[[str], Awaitable[None]]


async def _nothing(_step: str) -> None:
    await asyncio.sleep(0)


@dataclass
class MemoryReadModels:
    """`hook` is awaited before each step that another writer could come between. `unwritable`: ids of which nothing can
    be stored; `unfit`: whether a body cannot.
    """

    stored: dict[str, Stored] = field(default_factory=dict)
    bodies: dict[str, Body | None] = field(default_factory=dict)
    rows: dict[str, dict[str, Row]] = field(default_factory=dict)
    dirty: dict[str, int] = field(default_factory=dict)
    unwritable: set[str] = field(default_factory=set)
    unfit: Callable[[Body], bool] = lambda _body: False
    writes: int = 0
    hook: Hook = _nothing
    projection: Projection = EMAIL_LOG

    async def load(self, ids: Sequence[str]) -> dict[str, Stored]:
        await self.hook("load")
        return {each: self.stored[each] for each in ids if each in self.stored}

    async def write(self, writes: Sequence[Write]) -> list[Outcome]:
        await self.hook("write")
        return [self._write(write) for write in writes]

    def _write(self, write: Write) -> Outcome:
        if write.id in self.unwritable:
            return "failed"
        if self.stored.get(write.id, Stored()).rev != write.expected:
            return "conflict"
        if self._unfit(write) or any(each != write.id for each in self._claimants(write)):
            return "failed"
        known = {event.id: event for event in write.ordered}
        self.stored[write.id] = Stored(write.expected + 1, known, write.overflow, write.has_rows)
        self.bodies[write.id] = write.body
        self.writes += 1
        return "done"

    def takes(self, write: Write) -> bool:
        return write.id not in self.unwritable and not self._unfit(write)

    def _unfit(self, write: Write) -> bool:
        return write.body is not None and self.unfit(write.body)

    async def claimants(self, write: Write) -> list[str]:
        await self.hook("claimants")
        return self._claimants(write)

    def _claimants(self, write: Write) -> list[str]:
        wanted = write.body
        if wanted is None:
            return []
        return [
            each
            for index in self.projection.unique
            for each, body in self.bodies.items()
            if body is not None and index[0][0] in body
            if all(body.get(name) == wanted.get(name) for name, _ in index)
        ]

    async def load_rows(self, aggregate: str, event_ids: Collection[str]) -> dict[str, Row]:
        await self.hook("load_rows")
        rows = self.rows.get(aggregate, {})
        return {each: rows[each] for each in event_ids if each in rows}

    async def write_rows(self, aggregate: str, rows: Sequence[Row]) -> list[Outcome]:
        await self.hook("write_rows")
        there = self.rows.setdefault(aggregate, {})
        outcomes: list[Outcome] = []
        for row in rows:
            before = there.get(row.event.id)
            if (before.rev if before else 0) != row.rev:
                outcomes.append("conflict")
            else:
                there[row.event.id] = Row(row.event, row.rev + 1)
                outcomes.append("done")
        return outcomes

    async def tally_rows(self, aggregate: str, inline: Collection[str], withdrawn: Mapping[str, int]) -> Overflow:
        await self.hook("tally_rows")
        rows = self.rows.get(aggregate, {})
        counted = [
            row.event
            for row in rows.values()
            if row.event.id not in inline and not is_retracted(row.event, dict(withdrawn))
        ]
        return tally(counted, self.projection.engagement)

    async def mark_dirty(self, buckets: Iterable[str]) -> None:
        await self.hook("mark_dirty")
        for bucket in buckets:
            self.dirty[bucket] = self.dirty.get(bucket, 0) + 1
