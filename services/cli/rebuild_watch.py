"""A rebuild as a person at a terminal sees it: a bar until it is over, and one line."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from services.cli.environment import run
from services.cli.output import console, moment, print_json, refuse, say, span

if TYPE_CHECKING:
    from services.events.app import Foundation
    from services.events.ports import Generation

LOOK_SECONDS: Final = 0.25
IDLE_LOOKS: Final = 40
"""Looks after which a rebuild that stands still and that nobody has taken is told to be so."""


def watch_to_end(projection: str, number: int, json: bool) -> None:
    """Watch a generation until it is read, or nobody goes on with it; exit status 1 then."""
    try:
        ended = run(_watched(projection, number, silent=json))
    except KeyboardInterrupt:
        say(f"\nit goes on in the events service; watch it: mailroom rebuild status --follow {projection}")
        raise
    if json:
        print_json(as_json(ended))
    elif ended.stage == "active":
        say(f"generation {number} is read now{_compared(ended)}; back: mailroom rebuild rollback {projection}")
    if ended.stage != "active":
        if _differs(ended):
            hint = f"look at them, then: mailroom rebuild accept|abandon {projection} {number}"
            raise refuse(f"generation {number} differs from the live one{_compared(ended)}; {hint}")
        if _stopped(ended):
            raise refuse(f"generation {number} stands{_trouble(ended)}; mend it and restart the events service")
        raise refuse(f"generation {number} ended as {ended.stage}")


async def _watched(projection: str, number: int, *, silent: bool) -> Generation:
    from services.cli.events_service import events_service

    async with events_service() as base:
        return await _watch(base, projection, number, silent=silent)


async def _watch(base: Foundation, projection: str, number: int, *, silent: bool) -> Generation:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[pace]}"),
    )
    still, before = 0, ""
    with Progress(*columns, console=console(), disable=silent, expand=True) as bar:
        task = bar.add_task("asked for", total=None, pace="")
        while True:
            found = await get_generation(base, projection, number)
            still = still + 1 if repr(found) == before else 0
            before = repr(found)
            _show(bar, task, found, waiting=still > IDLE_LOOKS and not await _is_worked_on(base, projection, number))
            if found.stage not in _ON_THE_WAY or _stopped(found) or (_differs(found) and still > IDLE_LOOKS):
                return found
            await asyncio.sleep(LOOK_SECONDS)


async def _is_worked_on(base: Foundation, projection: str, number: int) -> bool:
    """Whether a process coordinates the rebuild: indexes and comparisons of many documents show no progress."""
    return any(lease.held for lease in await base.sides[projection].coordination(number).view())


_ON_THE_WAY: Final = ("created", "backfilling", "catchingUp", "verified")


def _show(bar: Any, task: Any, found: Generation, *, waiting: bool) -> None:
    progress = found.progress
    stage = "paused" if found.rests else "asked for" if progress is None else progress.stage
    if waiting and not found.rests and found.trouble is None:
        stage = f"{stage}, nobody works on it: does the events service run?"
    stage += _trouble(found)
    if progress is None:
        bar.update(task, description=stage)
        return
    pace = f"{progress.rate:,.0f}/s, {span(progress.eta)} left" if progress.rate else ""
    bar.update(task, description=stage, completed=progress.done, total=max(1, progress.total), pace=pace)


def in_words(generation: Generation) -> str:
    """How it is, in one line."""
    return (_progress(generation) or _note(generation)) + _trouble(generation)


def _stopped(generation: Generation) -> bool:
    """Whether it has failed for good."""
    return generation.trouble is not None and generation.trouble.again_at is None


def _trouble(generation: Generation) -> str:
    trouble = generation.trouble
    if trouble is None or generation.stage not in _ON_THE_WAY:
        return ""
    again = "an operator must look" if trouble.again_at is None else f"again {moment(trouble.again_at)}"
    return f", failed {trouble.failures} times, last {moment(trouble.at)}: {trouble.error} ({again})"


def _differs(generation: Generation) -> bool:
    return generation.stage != "active" and bool((generation.report or {}).get("differing"))


def _compared(generation: Generation) -> str:
    report = generation.report
    if report is None:
        return ""
    told = f": {report.get('documents')} documents compared, {report.get('differing')} differ"
    reshaped, moving = report.get("reshaped"), report.get("moving")
    told += f", {reshaped} have the new version's shape" if reshaped else ""
    return told + (f", {moving} changed at each look" if moving else "")


def _progress(generation: Generation) -> str:
    progress = generation.progress
    if progress is None or generation.stage not in _ON_THE_WAY:
        return ""
    share = f"{100 * progress.done / progress.total:.0f} %" if progress.total else ""
    return f"{progress.stage} {share} {progress.rate:,.0f}/s, {span(progress.eta)} left"


def _note(generation: Generation) -> str:
    if generation.grace_until is not None and generation.stage == "grace":
        return f"kept up to date until {moment(generation.grace_until)}"
    return _compared(generation).removeprefix(": ")


def as_json(generation: Generation) -> dict[str, Any]:
    """It, as the API tells it."""
    from services.events.entrypoints.http_projections import GenerationView

    return GenerationView.of(generation, None).to_wire()


async def get_generation(base: Foundation, projection: str, number: int) -> Generation:
    """One that there is; the command ends where there is none."""
    found = await base.sides[projection].generations.get(number)
    if found is None:
        raise refuse(f"{projection} has no generation {number}")
    return found
