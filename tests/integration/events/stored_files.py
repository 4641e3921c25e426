"""Files in a read model for tests of the HTTP API: folded by the real projection, stored in a real MongoDB."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from contracts.base import EventData
from services.events.adapters.mongo_generations import MongoGenerations
from services.events.adapters.mongo_read_models import MongoReadModels
from services.events.adapters.mongo_statistics import MongoStatistics
from services.events.generations import swap
from services.events.ports import Row, Write
from services.events.projections.known import KnownEvent, spill, tally
from services.events.projections.projection import FILE
from services.kit.mongo import Collection, Database
from tests.integration.events.stored_mails import message_id
from tests.unit.events_service.events import START
from tests.unit.events_service.file_events import file_log, upload_requested

_numbers = itertools.count(1)


class Files:
    """A read model whose files a test writes as the projector does."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.generations = MongoGenerations(database, FILE)
        self._models = MongoReadModels(database, FILE, 1)

    async def begin(self) -> None:
        """Make the first generation and let it be read."""
        generation = await self.generations.create(FILE.version)
        await self.generations.ensure_indexes(generation.number)
        await swap(self.generations, generation.number, expected=None)

    @property
    def collection(self) -> Collection:
        return self.database["file__g1"]

    async def add(self, *events: EventData, at: float | datetime = 0.0, **said: Any) -> str:
        """Store a file asked for at `at` (seconds after the start, or a time) and what became of it. Its id."""
        number = next(_numbers)
        file_id = str(said.pop("file_id", message_id(number)))
        seconds = (at - START) / timedelta(seconds=1) if isinstance(at, datetime) else at
        log = file_log(file_id, partition=number % 24)
        story = [log.event(upload_requested(file_id, **said), at=seconds)]
        story += [log.event(each, at=seconds + step) for step, each in enumerate(events, 1)]
        await self._store(file_id, story)
        return file_id

    async def add_facts_alone(self, *facts: EventData) -> str:
        """Store what the log holds of a file whose request is not known yet."""
        file_id = message_id(next(_numbers))
        log = file_log(file_id)
        await self._store(file_id, [log.event(each) for each in facts])
        return file_id

    async def mark(self, buckets: Sequence[str]) -> None:
        """Say that the documents of these statistics buckets changed."""
        await self._models.mark_dirty(buckets)

    async def refresh(self, buckets: Sequence[str]) -> None:
        """Sum these up anew."""
        for bucket in buckets:
            assert await self.statistics.refresh(bucket)

    @property
    def statistics(self) -> MongoStatistics:
        return MongoStatistics(self.database, FILE.name, 1)

    async def _store(self, file_id: str, events: list[KnownEvent]) -> None:
        known = {event.id: event for event in events}
        outside = spill(known, FILE.engagement)
        if outside:
            assert set(await self._models.write_rows(file_id, [Row(event) for event in outside])) == {"done"}
        ordered, overflow = sorted(known.values()), tally(outside, FILE.engagement)
        write = Write(file_id, 0, ordered, overflow, has_rows=bool(outside), body=FILE.fold(ordered, overflow))
        assert await self._models.write([write]) == ["done"]
