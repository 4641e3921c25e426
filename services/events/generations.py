"""The life of generations: the first one, the swap, the way back, and the end.

The pointer decides what is read; stages say what is to be done. Each step changes both in one write, by the rules of
`stages`; what comes after it (the view, dropping) is done again by any projector process where a crash left it undone.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from services.events.ports import GONE, Generation, GenerationStore, LeaseStore, Log, Pointer, Stage, Standing
from services.events.projections.projection import Projection
from services.events.stages import PROJECTED, expired, given_up, moved, rolled_back, settled, swapped
from services.kit.errors import PermanentError
from services.kit.logs import get_logger

log = get_logger(__name__)

GRACE_SECONDS: Final = 86_400.0
"""How long the generation before is kept up to date after a swap, so that a rollback loses nothing."""


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
    return _active(await store.change(_with_first, grace=GRACE_SECONDS))


def _with_first(standing: Standing) -> Standing:
    return standing if standing.pointer.active is not None else swapped(standing, None, 1)


def _active(standing: Standing) -> int:
    if standing.pointer.active is None:
        raise PermanentError("noActiveGeneration", "no generation is active")
    return standing.pointer.active


async def move(store: GenerationStore, number: int, to: Stage) -> None:
    """A rebuild gets on. Raises PermanentError `noGeneration`, `abandoned`, `wrongStage`, `paused`."""
    await store.change(lambda standing: moved(standing, number, to), grace=GRACE_SECONDS)


async def settle(store: GenerationStore, *, grace: float = GRACE_SECONDS) -> None:
    """Bring stages that contradict the pointer into agreement with it, as killed processes of earlier releases may have
    left them. Changes nothing otherwise.
    """
    await store.change(settled, grace=grace)


async def swap(store: GenerationStore, new: int, *, expected: int | None, grace: float = GRACE_SECONDS) -> None:
    """Read `new` from now on, and keep the one before up to date for `grace` seconds. Does nothing if `new` is read.

    Raises:
        PermanentError: `pointerMoved`: another generation than `expected` is active; `wrongStage`, `abandoned`: `new`
            cannot be read. Nothing was changed.
    """
    await store.change(lambda standing: swapped(standing, expected, new), grace=grace)
    await store.follow()
    log.info("generation swapped in", active=new, previous=expected)


async def rollback(store: GenerationStore, *, grace: float = GRACE_SECONDS) -> int:
    """Read the generation before the active one again; its number.

    Raises:
        PermanentError: `nothingToRollBack`: there is none that is still kept up to date.
    """
    active = _active(await store.change(rolled_back, grace=grace))
    await store.follow()
    log.info("generation rolled back", active=active)
    return active


async def retire(store: GenerationStore, number: int) -> None:
    """Drop a generation that nobody reads.

    Raises:
        PermanentError: `generationActive`, or `noGeneration`.
    """
    await store.change(lambda standing: given_up(standing, number), grace=GRACE_SECONDS)  # who projects it stops
    await store.drop(number)
    log.info("generation dropped", generation=number)


async def end_grace(store: GenerationStore, number: int, now: datetime) -> None:
    """Drop a generation if its grace is over."""
    standing = await store.change(lambda standing: expired(standing, number, now), grace=GRACE_SECONDS)
    if standing.generations[number].stage == "retired":
        await store.drop(number)
        log.info("grace is over, generation dropped", generation=number)


async def sweep(store: GenerationStore) -> None:
    """Drop once more what belongs to generations that are given up: a process may have been killed before it did so,
    and a writer that did not hear of it in time makes collections anew.
    """
    for each in await store.list():
        if each.stage in GONE:
            await store.drop(each.number)


def is_settled(pointer: Pointer, generations: Iterable[Generation]) -> bool:
    """Whether stages agree with the pointer. Where both were not read in one moment, `settle` looks again."""
    standing = Standing(pointer, {each.number: each for each in generations})
    return settled(standing) == standing


def to_project(generations: list[Generation]) -> list[Generation]:
    """Those that every projector process keeps up to date."""
    return [each for each in generations if each.stage in PROJECTED]
