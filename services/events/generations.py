"""The life of generations: the first one, the swap, the way back, and the end.

created → backfilling → catchingUp → verified → active → grace → retired; or abandoned before the swap. The pointer
alone decides what is read; stages say what is to be done.
"""

from __future__ import annotations

from typing import Final

from services.events.ports import Generation, GenerationStore, LeaseStore, Log
from services.events.projections.projection import Projection
from services.kit.errors import PermanentError
from services.kit.logs import get_logger

log = get_logger(__name__)

GRACE_SECONDS: Final = 86_400.0
"""How long the generation before is kept up to date after a swap, so that a rollback loses nothing."""

UNFINISHED: Final = frozenset({"created", "backfilling", "catchingUp", "verified"})
"""Stages of a rebuild in progress (`verified`: unless it was swapped in and rolled back)."""
PROJECTED: Final = frozenset({"active", "grace", "catchingUp", "verified"})
"""Stages in which every projector process works on a generation. `backfilling` is the rebuild's own workers'."""


async def ensure_first(projection: Projection, store: GenerationStore, leases: LeaseStore, reader: Log) -> int:
    """The active generation's number; makes generation 1 where there is none. Many processes may do this at once.

    Args:
        projection: what is projected.
        store: its generations.
        leases: those of generation 1.
        reader: a connected log.
    """
    pointer = await store.pointer()
    if pointer.active is not None:
        return pointer.active
    await store.create(projection.version, number=1)
    begins = {partition: first for partition, (first, _) in (await reader.bounds()).items()}
    await leases.seed(begins)
    await store.ensure_indexes(1)
    await store.move(1, "active")
    await store.swap(None, 1)
    active = (await store.pointer()).active
    if active is None:
        raise PermanentError("noActiveGeneration", f"{projection.name} has no active generation after it was made")
    return active


async def swap(store: GenerationStore, new: int, *, expected: int | None, grace: float = GRACE_SECONDS) -> None:
    """Read `new` from now on, and keep the one before up to date for `grace` seconds.

    Raises:
        PermanentError: `pointerMoved`: another generation than `expected` is active; nothing was changed.
    """
    if not await store.swap(expected, new):
        active = (await store.pointer()).active
        if active != new:
            raise PermanentError("pointerMoved", f"generation {active} is active, not {expected}: nothing was swapped")
    await store.move(new, "active")
    if expected is not None:
        await store.move(expected, "grace", grace=grace)
    await store.follow()
    log.info("generation swapped in", active=new, previous=expected)


async def rollback(store: GenerationStore, *, grace: float = GRACE_SECONDS) -> int:
    """Read the generation before the active one again; its number.

    Raises:
        PermanentError: `nothingToRollBack`: there is none that is still kept up to date.
    """
    pointer = await store.pointer()
    previous = None if pointer.previous is None else await store.get(pointer.previous)
    if previous is None or previous.stage not in ("grace", "verified"):
        raise PermanentError("nothingToRollBack", "no earlier generation is kept up to date any more: rebuild instead")
    await swap(store, previous.number, expected=pointer.active, grace=grace)
    return previous.number


async def retire(store: GenerationStore, number: int) -> None:
    """Drop a generation that nobody reads.

    Raises:
        PermanentError: `generationActive`, or `noGeneration`.
    """
    generation = await store.get(number)
    if generation is None:
        raise PermanentError("noGeneration", f"there is no generation {number}")
    if (await store.pointer()).active == number:
        raise PermanentError("generationActive", f"generation {number} is what is read: swap first")
    await store.move(number, "abandoned" if generation.stage in UNFINISHED else "retired")  # who projects it stops
    await store.drop(number)
    log.info("generation dropped", generation=number)


def to_project(generations: list[Generation]) -> list[Generation]:
    """Those that every projector process keeps up to date."""
    return [each for each in generations if each.stage in PROJECTED]
