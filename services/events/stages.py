"""What may become of a generation: the stages, which may follow which, and what each step does to the pointer. Pure.

    created → backfilling → catchingUp → verified → active ⇄ grace → retired
    any of the first four → abandoned; created → active for a projection's first generation

A generation is `active` if and only if the pointer names it: a step changes both, or neither. `retired` and `abandoned`
are for ever, and numbers are never given again, so what is dropped cannot be read once more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final

from services.events.ports import GONE, Generation, Stage, Standing
from services.kit.errors import PermanentError

FOLLOWING: Final[Mapping[Stage, frozenset[Stage]]] = {
    "created": frozenset({"backfilling", "active", "abandoned"}),
    "backfilling": frozenset({"catchingUp", "abandoned"}),
    "catchingUp": frozenset({"verified", "abandoned"}),
    "verified": frozenset({"active", "abandoned"}),
    "active": frozenset({"grace"}),
    "grace": frozenset({"active", "retired"}),
    "retired": frozenset(),
    "abandoned": frozenset(),
}
"""From each stage to those that may come next. All else is refused."""

UNFINISHED: Final = frozenset({"created", "backfilling", "catchingUp", "verified"})
"""Stages of a rebuild in progress."""
PROJECTED: Final = frozenset({"active", "grace", "catchingUp", "verified"})
"""Stages in which every projector process works on a generation. `backfilling` is the rebuild's own workers'."""


def moved(standing: Standing, number: int, to: Stage) -> Standing:
    """A rebuild gets on, to `backfilling`, `catchingUp` or `verified`. Nothing changes if it is there already.

    Raises:
        PermanentError: `noGeneration`, `abandoned`, `wrongStage`; `paused`: what rests is not caught up.
    """
    standing = settled(standing)
    if to == "catchingUp" and _known(standing, number).paused and _known(standing, number).stage != to:
        raise PermanentError("paused", f"generation {number} is paused: resume it first")
    return _with(standing, number, to)


def swapped(standing: Standing, expected: int | None, new: int) -> Standing:
    """`new` is read, and the one before enters its grace. Nothing changes if `new` is read already.

    Raises:
        PermanentError: `pointerMoved`: another generation than `expected` is active. `noGeneration`, `abandoned`,
            `wrongStage`: `new` is not one that can be read.
    """
    standing = settled(standing)
    active = standing.pointer.active
    if active == new:
        return standing
    if active != expected:
        raise PermanentError("pointerMoved", f"generation {active} is active, not {expected}: nothing was swapped")
    if active is not None and _known(standing, new).stage == "created":
        raise PermanentError("wrongStage", f"generation {new} is not built yet: it cannot be read")
    standing = _with(standing, new, "active")
    if active is not None:
        standing = _with(standing, active, "grace")
    return replace(standing, pointer=replace(standing.pointer, active=new, previous=active))


def rolled_back(standing: Standing) -> Standing:
    """The generation before the active one is read again.

    Raises:
        PermanentError: `nothingToRollBack`: there is none that is still kept up to date.
    """
    standing = settled(standing)
    previous = standing.generations.get(standing.pointer.previous or 0)
    if previous is None or previous.stage != "grace":
        raise PermanentError("nothingToRollBack", "no earlier generation is kept up to date any more: rebuild instead")
    return swapped(standing, standing.pointer.active, previous.number)


def given_up(standing: Standing, number: int) -> Standing:
    """A generation that nobody reads is `retired`, or `abandoned` if it never was read: its documents may be dropped.
    Nothing changes if it is one of both already.

    Raises:
        PermanentError: `generationActive`, `noGeneration`.
    """
    standing = settled(standing)
    stage = _known(standing, number).stage
    if stage == "active":
        raise PermanentError("generationActive", f"generation {number} is what is read: swap first")
    if stage in GONE:
        return standing
    pointer = standing.pointer
    if pointer.previous == number:
        standing = replace(standing, pointer=replace(pointer, previous=None))
    return _with(standing, number, "abandoned" if stage in UNFINISHED else "retired")


def expired(standing: Standing, number: int, now: datetime) -> Standing:
    """A generation whose grace is over is `retired`. Nothing changes where it is not in its grace, or that lasts."""
    standing = settled(standing)
    return given_up(standing, number) if is_over(_known(standing, number), now) else standing


def is_over(generation: Generation, now: datetime) -> bool:
    """Whether it is in its grace, and that has ended."""
    return generation.stage == "grace" and generation.grace_until is not None and generation.grace_until < now


def settled(standing: Standing) -> Standing:
    """Pointer and stages in agreement. Every step leaves them so; processes of earlier releases, which wrote one after
    the other, may have been killed in between. The pointer is right: it says what was read.
    """
    pointer = standing.pointer
    if pointer.active is None:
        return standing
    mended: dict[int, Generation] = {}
    for number, generation in standing.generations.items():
        if number == pointer.active:
            mended[number] = replace(generation, stage="active")
        elif generation.stage == "active" or (number == pointer.previous and generation.stage in UNFINISHED):
            mended[number] = replace(generation, stage="grace")
        else:
            mended[number] = generation
    return replace(standing, generations=mended)


def _known(standing: Standing, number: int) -> Generation:
    generation = standing.generations.get(number)
    if generation is None:
        raise PermanentError("noGeneration", f"there is no generation {number}")
    return generation


def _with(standing: Standing, number: int, to: Stage) -> Standing:
    generation = _known(standing, number)
    if generation.stage == to:
        return standing
    if to not in FOLLOWING[generation.stage]:
        reason = "abandoned" if generation.stage == "abandoned" else "wrongStage"
        raise PermanentError(reason, f"generation {number} is {generation.stage}: it cannot become {to}")
    return replace(standing, generations={**standing.generations, number: replace(generation, stage=to)})
