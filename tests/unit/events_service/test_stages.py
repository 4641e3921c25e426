"""Which step follows which, for every pair of stages, and what each leaves of pointer and stages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest

from services.events.ports import GONE, Generation, Pointer, Stage, Standing
from services.events.stages import FOLLOWING, UNFINISHED, expired, given_up, moved, rolled_back, settled, swapped
from services.kit.errors import PermanentError

NOW = datetime(2026, 12, 1, tzinfo=UTC)
STAGES: tuple[Stage, ...] = get_args(Stage)


def standing(active: int | None, previous: int | None, *stages: Stage) -> Standing:
    """Generations 1, 2, … in these stages."""
    made = {
        number: Generation("email_log", number, 1, stage, NOW, grace_until=NOW if stage == "grace" else None)
        for number, stage in enumerate(stages, 1)
    }
    return Standing(Pointer(active, previous, len(stages)), made)


def told(found: Standing) -> tuple[int | None, int | None, list[Stage]]:
    return found.pointer.active, found.pointer.previous, [each.stage for each in found.generations.values()]


@pytest.mark.parametrize("before", [each for each in STAGES if each != "active"])
@pytest.mark.parametrize("to", ["backfilling", "catchingUp", "verified"])
def test_a_rebuild_gets_on_by_declared_steps_only(before: Stage, to: Stage) -> None:
    start = standing(1, None, "active", before)
    if to == before or to in FOLLOWING[before]:
        assert told(moved(start, 2, to)) == (1, None, ["active", to])
    else:
        reason = "abandoned" if before == "abandoned" else "wrongStage"
        with pytest.raises(PermanentError, match=f"{reason}: generation 2 is {before}: it cannot become {to}"):
            moved(start, 2, to)


@pytest.mark.parametrize("before", [each for each in STAGES if each != "active"])
def test_only_what_is_kept_up_to_date_is_swapped_in(before: Stage) -> None:
    start = standing(1, None, "active", before)
    if before in ("verified", "grace"):
        assert told(swapped(start, 1, 2)) == (2, 1, ["grace", "active"])
    else:
        with pytest.raises(PermanentError, match=r"wrongStage|abandoned"):
            swapped(start, 1, 2)


def test_the_first_generation_is_read_as_it_is_made() -> None:
    assert told(swapped(standing(None, None, "created"), None, 1)) == (1, None, ["active"])
    assert told(swapped(standing(None, None, "active"), None, 1)) == (1, None, ["active"])
    with pytest.raises(PermanentError, match="abandoned"):
        swapped(standing(None, None, "abandoned"), None, 1)


def test_a_swap_is_for_the_generation_that_was_expected() -> None:
    start = standing(2, 1, "grace", "active", "verified")
    with pytest.raises(PermanentError, match="pointerMoved: generation 2 is active, not 1"):
        swapped(start, 1, 3)
    assert swapped(start, 1, 2) == start, "the same swap once more"
    with pytest.raises(PermanentError, match="noGeneration"):
        swapped(start, 2, 9)


def test_a_roll_back_goes_to_and_fro() -> None:
    start = standing(2, 1, "grace", "active")
    back = rolled_back(start)
    assert told(back) == (1, 2, ["active", "grace"])
    assert told(rolled_back(back)) == told(start)


@pytest.mark.parametrize("previous", [each for each in STAGES if each not in ("active", "grace", *UNFINISHED)])
def test_a_roll_back_goes_to_nothing_that_is_gone(previous: Stage) -> None:
    with pytest.raises(PermanentError, match="nothingToRollBack"):
        rolled_back(standing(2, 1, previous, "active"))
    with pytest.raises(PermanentError, match="nothingToRollBack"):
        rolled_back(standing(1, None, "active"))
    with pytest.raises(PermanentError, match="nothingToRollBack"):
        rolled_back(standing(None, None))


@pytest.mark.parametrize("stage", [each for each in STAGES if each != "active"])
def test_what_is_given_up_is_for_ever(stage: Stage) -> None:
    found = given_up(standing(2, 1, stage, "active"), 1)
    expected: Stage = stage if stage in GONE else "retired"  # it is `previous`, so it has been read
    assert told(found) == (2, 1 if stage in GONE else None, [expected, "active"])
    alone = given_up(standing(2, None, stage, "active"), 1)
    assert told(alone)[2][0] == ("abandoned" if stage in UNFINISHED else expected)
    assert FOLLOWING[told(alone)[2][0]] == frozenset()


def test_what_is_read_is_not_given_up() -> None:
    with pytest.raises(PermanentError, match="generationActive"):
        given_up(standing(2, 1, "grace", "active"), 2)
    with pytest.raises(PermanentError, match="noGeneration"):
        given_up(standing(2, 1, "grace", "active"), 3)
    with pytest.raises(PermanentError, match="generationActive"):
        given_up(standing(1, 2, "grace", "active"), 1)  # as an earlier release left a roll back


def test_a_grace_ends_when_it_is_over() -> None:
    start = standing(2, 1, "grace", "active")
    second = timedelta(seconds=1)
    assert expired(start, 1, NOW - second) == start
    assert told(expired(start, 1, NOW + second)) == (2, None, ["retired", "active"])
    assert expired(start, 2, NOW + second) == start
    back = standing(1, 2, "grace", "active")
    assert told(expired(back, 1, NOW + second)) == (1, 2, ["active", "grace"])


def test_what_rests_is_not_caught_up() -> None:
    start = standing(1, None, "active", "backfilling")
    paused = {**start.generations, 2: replace(start.generations[2], paused=True)}
    with pytest.raises(PermanentError, match="paused"):
        moved(replace(start, generations=paused), 2, "catchingUp")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("active_stage", STAGES)
def test_the_pointer_decides_what_is_active(stage: Stage, active_stage: Stage) -> None:
    """Whatever was written before a process was killed; every step begins with it, and twice is as good as once."""
    found = settled(standing(2, 1, stage, active_stage))
    assert found.generations[2].stage == "active"
    assert found.generations[1].stage == (stage if stage in GONE else "grace")
    assert settled(found) == found


STEPS: list[Callable[[Standing], Standing]] = [
    lambda at: swapped(at, at.pointer.active, 3),
    rolled_back,
    lambda at: given_up(at, 1),
    lambda at: moved(at, 3, "verified"),
    lambda at: expired(at, 1, NOW + timedelta(days=1)),
]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("active", [1, 2])
@pytest.mark.parametrize("stage", STAGES)
def test_each_step_leaves_one_active_generation_which_the_pointer_names(
    step: Callable[[Standing], Standing], active: int, stage: Stage
) -> None:
    start = standing(active, 3 - active, stage, "active", "catchingUp")
    try:
        found = step(start)
    except PermanentError:
        return
    assert [number for number, each in found.generations.items() if each.stage == "active"] == [found.pointer.active]
