"""Mails in a read model for tests of the HTTP API: folded by the real projection, stored in a real MongoDB."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from contracts.base import EventData
from services.events.projections.email_log import fold
from services.events.projections.known import KnownEvent
from services.kit.mongo import Collection
from tests.unit.events_service.events import ANN, START, Log, requested

_numbers = itertools.count(1)


def message_id(number: int) -> str:
    """The same id for the same number, growing with it."""
    return str(UUID(int=(0x0192F0C1 << 96) | (7 << 76) | (2 << 62) | number))


class Mails:
    """Stores mails and keeps what is known of each, as the engine does."""

    def __init__(self, collection: Collection) -> None:
        self.collection = collection
        self._known: dict[str, list[KnownEvent]] = {}
        self.active_collection: Collection | None = collection

    async def active(self) -> Collection | None:
        return self.active_collection

    async def known(self, found_id: str) -> Sequence[KnownEvent]:
        return self._known.get(found_id, ())

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
        """What the log holds of a mail whose request is not known yet."""
        found_id = message_id(next(_numbers))
        log = Log(found_id)
        await self._store(found_id, [log.event(fact) for fact in facts])
        return found_id

    async def _store(self, found_id: str, events: list[KnownEvent]) -> None:
        self._known[found_id] = events
        body = fold(events)
        shown = {"_visible": False} if body is None else body
        kept = [[event.id, event.partition, event.offset, event.raw] for event in events]
        await self.collection.insert_one({"_id": found_id, "_rev": 1, "_events": kept, **shown})
