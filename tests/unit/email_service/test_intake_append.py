"""A command is let go when its effect stands in its stream, and at no other time."""

from __future__ import annotations

from collections.abc import Sequence

from services.kit.clock import Clock
from services.kit.errors import Unavailable
from services.kit.event_store.memory import MemoryEventStore
from services.kit.event_store.port import Append, AppendResult
from services.kit.kafka.records import DONE, Retry
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


async def test_an_append_that_was_refused_hands_the_command_back() -> None:
    door = test_intake.Door()
    store = ReadOnlyStore(door.post.clock)
    door.post.store = door.post.streams.store = store
    records = [door.send(test_intake.IDS[n]) for n in range(3)]
    assert [type(outcome) for outcome in await door.handle(*records)] == [Retry] * 3
    store.refusing = False
    assert await door.handle(*records) == [DONE] * 3
    assert await door.post.types(test_intake.IDS[0]) == ["requested"]
