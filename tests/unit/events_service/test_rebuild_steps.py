"""A rebuild between its stages, with what operators do meanwhile; and what their verbs say is true."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from services.events.generations import end_grace, retire, rollback, swap
from services.events.operating import ProjectionOperator
from services.events.ports import Stage, Stored, Verdict
from services.events.projections.projection import EMAIL_LOG
from services.kit.errors import PermanentError
from tests.unit.events_service import reading_world
from tests.unit.events_service.reading_world import NothingDiffers, Process, World


@pytest.fixture
def world() -> Iterator[World]:
    """A projector process, and the first generation."""
    world = World()
    process = Process(world, "p1")
    world.processes.append(process)
    process.start(process.service().start)
    world.run(2.0)
    yield world
    world.close()


def run(world: World, work: Callable[[Process], Coroutine[Any, Any, Any]]) -> Any:
    """Do something in a process of an operator."""
    operator = Process(world, "operator")
    world.processes.append(operator)
    return world.loop.run_until_complete(operator.start(lambda: work(operator)))


def stages(world: World) -> dict[int, Stage]:
    return {number: each.stage for number, each in world.generations.generations.items()}


def operator(process: Process) -> ProjectionOperator:
    return ProjectionOperator(EMAIL_LOG, process.store, process.leases, process.log, process.rebuild().create)


class MeanwhileRolledBack(NothingDiffers):
    """While it compares for the first time, the generation before is read again."""

    seen: list[tuple[int, int]] = []  # noqa: RUF012 - one for the whole test, which empties it

    async def compare(self, old: int, new: int, *, same_version: bool) -> Verdict:
        self.seen.append((old, new))
        if len(self.seen) == 1:
            await rollback(self.world.generations, grace=40.0)
        return await super().compare(old, new, same_version=same_version)

    world: World


def test_a_generation_is_swapped_for_the_one_that_it_was_compared_with(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one that is read by then has not been compared: the rebuild compares anew."""
    run(world, lambda process: process.rebuild().create())
    world.run(10.0)
    assert stages(world) == {1: "grace", 2: "active"}
    MeanwhileRolledBack.seen, MeanwhileRolledBack.world = [], world
    monkeypatch.setattr(reading_world, "NothingDiffers", MeanwhileRolledBack)
    run(world, lambda process: process.rebuild().create())
    world.run(10.0)
    assert MeanwhileRolledBack.seen == [(2, 3), (1, 3)]
    assert stages(world) == {1: "grace", 2: "grace", 3: "active"}


def test_what_is_given_up_between_comparison_and_swap_is_not_swapped_in(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    class GivenUp(NothingDiffers):
        async def compare(self, old: int, new: int, *, same_version: bool) -> Verdict:
            await retire(world.generations, new)
            return await super().compare(old, new, same_version=same_version)

    monkeypatch.setattr(reading_world, "NothingDiffers", GivenUp)
    run(world, lambda process: process.rebuild().create())
    world.run(10.0)
    assert stages(world) == {1: "active", 2: "abandoned"}
    assert world.generations.pointed.active == 1


def test_a_paused_rebuild_rests_until_it_is_resumed_though_it_has_read_everything(world: World) -> None:
    run(world, lambda process: process.rebuild().create())
    assert run(world, lambda process: operator(process).pause()).rests
    world.run(30.0)
    assert stages(world) == {1: "active", 2: "backfilling"}
    run(world, lambda process: operator(process).resume())
    world.run(10.0)
    assert stages(world) == {1: "grace", 2: "active"}


def test_what_cannot_rest_is_not_said_to(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless(NothingDiffers):
        async def compare(self, old: int, new: int, *, same_version: bool) -> Verdict:
            await asyncio.sleep(1000)
            raise AssertionError

    monkeypatch.setattr(reading_world, "NothingDiffers", Endless)
    run(world, lambda process: process.rebuild().create())
    world.run(10.0)
    assert stages(world)[2] == "catchingUp"
    with pytest.raises(PermanentError, match="filledAlready"):
        run(world, lambda process: operator(process).pause())
    assert not world.generations.generations[2].paused


@pytest.mark.parametrize("accept", [False, True])
def test_what_was_read_before_or_is_gone_cannot_be_accepted(world: World, accept: bool) -> None:
    """It ended without a word, and the terminal said that the generation was read now."""
    run(world, lambda process: process.rebuild().create())
    world.run(10.0)
    with pytest.raises(PermanentError, match="wrongStage: generation 1 is grace"):
        run(world, lambda process: process.rebuild().run(1, accept_differences=accept))
    run(world, lambda process: retire(process.store, 1))
    with pytest.raises(PermanentError, match="wrongStage: generation 1 is retired"):
        run(world, lambda process: process.rebuild().run(1, accept_differences=accept))
    assert run(world, lambda process: process.rebuild().run(2, accept_differences=accept)) is None


def test_a_grace_that_was_given_anew_is_not_ended_by_who_saw_the_old_one(world: World) -> None:
    """It was rolled back to and left again since the projector had looked."""
    run(world, lambda process: process.rebuild().create())
    world.run(10.0)
    seen = world.clock.now()
    run(world, lambda process: rollback(process.store, grace=40.0))
    run(world, lambda process: swap(process.store, 2, expected=1, grace=40.0))
    run(world, lambda process: end_grace(process.store, 1, seen))
    assert stages(world) == {1: "grace", 2: "active"}


def test_what_a_late_writer_makes_of_a_dropped_generation_is_dropped_again(world: World) -> None:
    """It had the write in hand when the generation was dropped; the next process to start looks for such things."""
    run(world, lambda process: process.rebuild().create())
    world.run(10.0)
    run(world, lambda process: retire(process.store, 1))
    world.models(1).stored["late"] = Stored(1)
    process = Process(world, "p2")
    world.processes.append(process)
    process.start(process.service().start)
    world.run(2.0)
    assert world.models(1).stored == {}
    assert world.generations.pointed.active == 2
