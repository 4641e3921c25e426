"""A parked record of the reading side once more: with its own origin, into every generation that is kept up to date.

Nothing is published again. What fails again is told to whoever retries, and the record stays parked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from services.events.aggregates import Aggregates
from services.events.generations import to_project
from services.events.ports import GenerationStore
from services.events.setting_aside import Refused
from services.kit.kafka.records import DONE, Outcome, Park, Record


class Remembering:
    """Stands where records are set aside, and only remembers why."""

    def __init__(self) -> None:
        self.why: Park | None = None

    async def park(self, refused: Sequence[Refused]) -> None:
        """Remember."""
        for _, why in refused:
            self.why = why

    async def went_through(self) -> None:
        """Nothing to remember."""


@dataclass(frozen=True, slots=True)
class _AsRead:
    """A parked record as the log gave it."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


class ParkedHandler:
    """The handler of `kit.parking_retry.ParkedRetries` for one projection."""

    def __init__(self, generations: GenerationStore, aggregates: Callable[[int, Remembering], Aggregates]) -> None:
        """`aggregates` makes the engine on a generation, with the given place for what fails."""
        self._generations = generations
        self._aggregates = aggregates

    async def __call__(self, records: Sequence[Record]) -> Sequence[Outcome]:
        """Outcomes by index. Raises Unavailable when nothing can be read or written now."""
        numbers = [each.number for each in to_project(await self._generations.list())]
        return [await self._once_more(record, numbers) for record in records]

    async def _once_more(self, record: Record, numbers: Sequence[int]) -> Outcome:
        read = _AsRead(record.partition, record.offset, record.timestamp_ms, record.key, record.value, record.headers)
        for number in numbers:
            aside = Remembering()
            await self._aggregates(number, aside).apply([read])
            if aside.why is not None:
                return aside.why
        return DONE
