"""A parked record of the reading side once more: with its own origin, into every generation, those being filled too.

Nothing is published again. What fails again is told to whoever retries, and the record stays parked.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final

from services.events.aggregates import Aggregates
from services.events.ports import Generation, GenerationStore, LogRecord, ReadRecord
from services.events.setting_aside import Aside, At, Refused
from services.events.stages import PROJECTED, UNFINISHED
from services.kit.kafka.records import DONE, Outcome, Park, Record

_WRITTEN: Final = PROJECTED | UNFINISHED
"""Stages of generations that a record may be missing in: one that is being filled may have come past it."""


class Remembering:
    """Stands where records are set aside, and only remembers why the one that is retried would be."""

    def __init__(self, at: At, others: Aside) -> None:
        """`at`: where the record lies that is retried. `others`: where others go that cannot be shown any more beside
        it.
        """
        self.why: Park | None = None
        self._at = at
        self._others = others

    async def left_out(self, records: Sequence[LogRecord]) -> Collection[At]:
        """Nothing: it is parked, and retried all the same."""
        return ()

    async def park(self, refused: Sequence[Refused]) -> None:
        """Remember; set others aside."""
        others: list[Refused] = []
        for record, why in refused:
            if (record.partition, record.offset) == self._at:
                self.why = why
            else:
                others.append((record, why))
        await self._others.park(others)

    async def went_through(self) -> None:
        """Nothing to remember."""


class ParkedHandler:
    """The handler of `kit.parking_retry.ParkedRetries` for one projection."""

    def __init__(
        self, generations: GenerationStore, aggregates: Callable[[Generation, At], tuple[Aggregates, Remembering]]
    ) -> None:
        """`aggregates` makes the engine on a generation and what remembers for it, for the record at that place. It
        raises PermanentError where this build has not the fold of the generation.
        """
        self._generations = generations
        self._aggregates = aggregates

    async def __call__(self, records: Sequence[Record]) -> Sequence[Outcome]:
        """Outcomes by index. Raises Unavailable when nothing can be read or written now, and PermanentError
        `foldMissing` where another build must do it; then nothing was changed.
        """
        return [await self._once_more(record) for record in records]

    async def _once_more(self, record: Record) -> Outcome:
        """Apply it until there is no generation that has not got it. What only fails in one that is kept for a rollback
        is no failure: that one keeps its fold until it ends.
        """
        read = ReadRecord(
            record.partition, record.offset, record.timestamp_ms, record.key, record.value, record.headers
        )
        done: set[int] = set()
        outcome: Outcome = DONE
        while todo := [each for each in await self._listed() if each.number not in done]:
            engines = [(each, *self._aggregates(each, (record.partition, record.offset))) for each in todo]
            for generation, engine, aside in engines:
                await engine.apply([read], anyway=True)
                done.add(generation.number)
                if aside.why is not None and generation.stage != "grace":
                    outcome = aside.why
        return outcome

    async def _listed(self) -> list[Generation]:
        return [each for each in await self._generations.list() if each.stage in _WRITTEN]
