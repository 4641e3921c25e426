"""Mails in a read model for tests of the HTTP API: folded by the real projection, stored in a real MongoDB."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from contracts.base import EventData
from services.events.adapters.mongo_generations import MongoGenerations
from services.events.adapters.mongo_read_models import MongoReadModels
from services.events.adapters.mongo_statistics import MongoStatistics
from services.events.generations import swap
from services.events.ports import Write
from services.events.projections.known import NO_OVERFLOW, KnownEvent
from services.events.projections.projection import EMAIL_LOG
from services.kit.mongo import Collection, Database
from tests.unit.events_service.events import ANN, START, Log, requested

_numbers = itertools.count(1)


def message_id(number: int) -> str:
    """The same id for the same number, growing with it."""
    return str(UUID(int=(0x0192F0C1 << 96) | (7 << 76) | (2 << 62) | number))


class Mails:
    """A read model whose mails a test writes as the projector does."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.generations = MongoGenerations(database, EMAIL_LOG)
        self._models = MongoReadModels(database, EMAIL_LOG, 1)

    async def begin(self) -> None:
        """Make the first generation and let it be read."""
        generation = await self.generations.create(EMAIL_LOG.version)
        await self.generations.ensure_indexes(generation.number)
        await swap(self.generations, generation.number, expected=None)

    @property
    def collection(self) -> Collection:
        return self.database["email_log__g1"]

    async def add(self, *facts: EventData, to: Sequence[str] = (ANN,), at: float | datetime = 0.0, **said: Any) -> str:
        """Store a mail asked for at `at` (seconds after the start, or a time) and what became of it. Its id."""
        number = next(_numbers)
        found_id = str(said.pop("message_id", message_id(number)))
        category = said.pop("category", "notification")
        request = requested(*to, category=category).model_copy(update={"message_id": found_id, **said})
        seconds = (at - START) / timedelta(seconds=1) if isinstance(at, datetime) else at
        log = Log(found_id, partition=number % 24)
        events = [log.event(request, at=seconds)]
        events += [log.event(fact, at=seconds + step) for step, fact in enumerate(facts, 1)]
        await self._store(found_id, events)
        return found_id

    async def add_facts_alone(self, *facts: EventData) -> str:
        """Store what the log holds of a mail whose request is not known yet."""
        found_id = message_id(next(_numbers))
        log = Log(found_id)
        await self._store(found_id, [log.event(fact) for fact in facts])
        return found_id

    async def mark(self, buckets: Sequence[str]) -> None:
        """Say that the documents of these statistics buckets changed."""
        await self._models.mark_dirty(buckets)

    async def refresh(self, buckets: Sequence[str]) -> None:
        """Sum these up anew."""
        statistics = MongoStatistics(self.database, EMAIL_LOG.name, 1)
        for bucket in buckets:
            assert await statistics.refresh(bucket)

    async def _store(self, found_id: str, events: list[KnownEvent]) -> None:
        write = Write(
            found_id, 0, sorted(events), NO_OVERFLOW, has_rows=False, body=EMAIL_LOG.fold(events, NO_OVERFLOW)
        )
        assert await self._models.write([write]) == ["done"]
