"""How a projection stands: its generations, and how far each partition of each of them is. Reads only, and tells it by
metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from services.events.ports import Generation, GenerationStore, LeaseStore, Log, Pointer
from services.events.projections.projection import Projection
from services.kit.errors import TransientError
from services.kit.metrics import PROJECTION_LAG, Metrics

_KEPT: Final = frozenset({"created", "backfilling", "catchingUp", "verified", "active", "grace"})
"""Stages in which a generation has leases that mean something."""


@dataclass(frozen=True, slots=True)
class PartitionState:
    """A partition in one generation. `position`: the checkpoint; `owner`: who holds the lease, None = nobody does."""

    generation: int
    partition: int
    position: int
    end: int
    owner: str | None

    @property
    def lag(self) -> int:
        """Records (about: offsets have gaps) that are not projected yet."""
        return max(0, self.end - self.position)


@dataclass(frozen=True, slots=True)
class ProjectionState:
    """A projection: its pointer, every generation (oldest first), and the partitions of those that are kept up."""

    name: str
    version: int
    topic: str
    pointer: Pointer
    generations: tuple[Generation, ...]
    partitions: tuple[PartitionState, ...]

    def lag(self, generation: int) -> int | None:
        """Of all partitions of a generation together; None where it has none."""
        lags = [each.lag for each in self.partitions if each.generation == generation]
        return sum(lags) if lags else None


async def projection_state(
    projection: Projection, store: GenerationStore, leases_of: Callable[[int], LeaseStore], log: Log
) -> ProjectionState:
    """How `projection` stands now.

    Args:
        projection: which.
        store: its generations.
        leases_of: the leases of a generation, by its number.
        log: its topic, connected.

    Raises:
        Unavailable: one of them is away.
    """
    generations = await store.list()
    bounds = await log.bounds()
    partitions: list[PartitionState] = []
    for generation in generations:
        if generation.stage in _KEPT:
            partitions += await _partitions(generation.number, leases_of(generation.number), bounds)
    return ProjectionState(
        projection.name,
        projection.version,
        projection.topic,
        await store.pointer(),
        tuple(generations),
        tuple(partitions),
    )


async def _partitions(
    generation: int, leases: LeaseStore, bounds: Mapping[int, tuple[int, int]]
) -> list[PartitionState]:
    states: dict[int, PartitionState] = {}
    for at in await leases.view():
        _, end = bounds.get(at.partition, (at.begin, at.next))
        states[at.partition] = PartitionState(generation, at.partition, at.next, end, at.owner if at.held else None)
    if states:
        for partition, (first, end) in bounds.items():  # one that was added to the topic has no lease yet
            states.setdefault(partition, PartitionState(generation, partition, first, end, None))
    return [states[each] for each in sorted(states)]


class LagGauge:
    """Sets the lag of each partition of the active generation, of those that other processes project too."""

    def __init__(
        self,
        projection: Projection,
        store: GenerationStore,
        leases_of: Callable[[int], LeaseStore],
        log: Log,
        metrics: Metrics,
    ) -> None:
        """`log`: not connected yet, and used by nobody else."""
        self._projection = projection
        self._store = store
        self._leases_of = leases_of
        self._log = log
        self._metrics = metrics
        self._connected = False

    async def look(self) -> None:
        """Look once. Raises Unavailable when Kafka or MongoDB is away; the next look connects anew."""
        try:
            if not self._connected:
                await self._log.start()
                self._connected = True
            state = await projection_state(self._projection, self._store, self._leases_of, self._log)
        except TransientError:
            await self.close()
            raise
        for each in state.partitions:
            if each.generation == state.pointer.active:
                labels = {"projection": state.name, "partition": str(each.partition)}
                self._metrics.set(PROJECTION_LAG, each.lag, **labels)

    async def close(self) -> None:
        """Disconnect."""
        self._connected = False
        await self._log.stop()
