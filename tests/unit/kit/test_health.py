"""Alive is who makes progress; a dependency that is away makes unready and never dead."""

import asyncio

import pytest

from services.kit.errors import Unavailable
from services.kit.health import Health, Progress, Report
from services.kit.testing import FakeClock


async def _fine() -> None:
    return


async def _away() -> None:
    raise Unavailable("Kafka", "no broker answers")


async def _endless() -> None:
    await asyncio.Event().wait()


async def _odd() -> None:
    raise ValueError("mongodb://user:secret@host")


def test_a_loop_that_turns_is_live_and_one_that_is_silent_is_dead() -> None:
    clock = FakeClock()
    progress = Progress(clock, stuck_after=60)
    assert (progress.report().live, progress.report().ready) == (True, False)
    progress.progressed()
    clock.move(60)
    assert (progress.report().live, progress.report().ready) == (True, True)
    clock.move(0.1)
    assert (progress.report().live, progress.report().ready) == (False, False)
    progress.idle()
    assert progress.report({"lag": 0}) == Report(True, True, {"state": "idle", "secondsSinceProgress": 0.0, "lag": 0})


def test_waiting_is_live_and_not_ready() -> None:
    progress = Progress(FakeClock())
    progress.waiting("Kafka is away")
    report = progress.report()
    assert (report.live, report.ready, report.detail["state"]) == (True, False, "waiting: Kafka is away")


def test_idle_once_does_not_mean_live_for_ever() -> None:
    clock = FakeClock()
    progress = Progress(clock, stuck_after=60)
    progress.idle()
    clock.move(61)
    assert not progress.report().live


async def test_both_answers_when_all_is_well() -> None:
    health = Health(FakeClock())
    health.watch("sender", lambda: Report(True, detail={"open": 3}))
    health.depends_on("MongoDB", _fine)
    assert health.liveness() == (
        True,
        {"live": True, "components": {"sender": {"live": True, "ready": True, "open": 3}}},
    )
    fine, detail = await health.readiness()
    assert fine
    assert detail["dependencies"] == {"MongoDB": "reachable"}


@pytest.mark.parametrize(
    ("check", "told"),
    [(_away, "Kafka: no broker answers"), (_endless, "no answer within 0.05 s"), (_odd, "ValueError")],
)
async def test_a_dependency_away_is_unready_and_alive(check: object, told: str) -> None:
    health = Health(FakeClock(), check_limit=0.05)
    health.watch("sender", lambda: Report(True))
    health.depends_on("it", check)  # type: ignore[arg-type]
    fine, detail = await health.readiness()
    assert (fine, detail["dependencies"]) == (False, {"it": told})
    assert health.liveness()[0]


async def test_one_stuck_component_is_enough() -> None:
    health = Health(FakeClock())
    health.watch("good", lambda: Report(True))
    health.watch("stuck", lambda: Report(False, False, died="ValueError: x"))
    assert not health.liveness()[0]
    assert not (await health.readiness())[0]


def test_a_component_that_cannot_report_is_dead() -> None:
    def broken() -> Report:
        raise KeyError("x")

    health = Health(FakeClock())
    health.watch("broken", broken)
    assert not health.liveness()[0]


async def test_draining_is_unready_and_alive() -> None:
    health = Health(FakeClock())
    health.drain()
    assert not (await health.readiness())[0]
    assert health.liveness()[0]


async def test_dependencies_are_not_asked_by_every_probe() -> None:
    clock, asked = FakeClock(), []

    async def check() -> None:
        asked.append(1)

    health = Health(clock, keep=1)
    health.depends_on("it", check)
    await asyncio.gather(*(health.readiness() for _ in range(10)))
    assert len(asked) == 1
    clock.move(1)
    await health.readiness()
    assert len(asked) == 2


def test_two_components_of_one_name_are_a_mistake() -> None:
    health = Health(FakeClock())
    health.watch("a", lambda: Report(True))
    with pytest.raises(ValueError, match="two components"):
        health.watch("a", lambda: Report(True))
