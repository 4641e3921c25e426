"""A command is let go when its effect stands in its stream, and at no other time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import pytest

from services.email.domain.content import MessageContent
from services.email.entrypoints.intake import Intake
from services.email.ports import NoCheckpoints
from services.email.streams import Held
from services.kit.clock import Clock
from services.kit.errors import Unavailable
from services.kit.event_store.memory import MemoryEventStore
from services.kit.event_store.port import Append, AppendResult, Lease
from services.kit.kafka.records import DONE, Outcome, Record, Retry
from tests.unit.email_service import test_intake


class ReadOnlyStore(MemoryEventStore):
    """Reads as ever; while `refusing`, nothing is written, and it says so."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.refusing = True

    async def append_many(self, appends: Sequence[Append]) -> list[AppendResult]:
        if self.refusing:
            return [Unavailable("memory", "nothing was written") for _ in appends]
        return await super().append_many(appends)


class Slots:
    """`FreshMail` that counts: so many slots are given away and not handed back."""

    def __init__(self) -> None:
        self.out = 0

    def lease(self, lane: str) -> Lease | None:
        self.out += 1
        return Lease("sender-1", timedelta(seconds=15))

    def give(self, held: Held, content: MessageContent, lane: str) -> None:
        self.out -= 1

    def forfeit(self, lane: str) -> None:
        self.out -= 1


class EndsBadly(MemoryEventStore):
    """An append never ends, or a bug ends it; `begun` says that it has begun."""

    def __init__(self, clock: Clock, *, bug: bool) -> None:
        super().__init__(clock)
        self.bug, self.begun = bug, asyncio.Event()

    async def append_many(self, appends: Sequence[Append]) -> list[AppendResult]:
        self.begun.set()
        if self.bug:
            raise RuntimeError("a bug")
        await asyncio.Event().wait()
        raise AssertionError


@pytest.mark.parametrize("bug", [False, True], ids=["cancelled", "bug"])
async def test_however_a_batch_ends_its_slots_are_handed_back(bug: bool) -> None:
    door = test_intake.Door()
    slots = Slots()
    store = EndsBadly(door.post.clock, bug=bug)
    door.post.store = door.post.streams.store = store
    handler = door.process(NoCheckpoints(), slots)
    batch = asyncio.ensure_future(_outcomes(handler, [door.send(test_intake.IDS[n]) for n in range(5)]))
    await store.begun.wait()
    if not bug:
        assert slots.out == 5
        batch.cancel()
    with pytest.raises((asyncio.CancelledError, RuntimeError)):
        await batch
    assert slots.out == 0


async def _outcomes(handler: Intake, records: Sequence[Record]) -> Sequence[Outcome]:
    return await handler(records)


async def test_an_append_that_was_refused_hands_the_command_back() -> None:
    door = test_intake.Door()
    store = ReadOnlyStore(door.post.clock)
    door.post.store = door.post.streams.store = store
    records = [door.send(test_intake.IDS[n]) for n in range(3)]
    assert [type(outcome) for outcome in await door.handle(*records)] == [Retry] * 3
    store.refusing = False
    assert await door.handle(*records) == [DONE] * 3
    assert await door.post.types(test_intake.IDS[0]) == ["requested"]
