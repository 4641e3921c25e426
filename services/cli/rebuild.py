"""`mailroom rebuild`: a read model anew from the log, beside the live one, and the way back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

from services.cli.environment import run
from services.cli.output import Json, confirm, console, moment, print_json, say, table
from services.cli.rebuild_watch import as_json, get_generation, in_words, watch_to_end

if TYPE_CHECKING:
    from services.events.app import Foundation
    from services.events.operating import ProjectionOperator
    from services.events.ports import Generation
    from services.events.rebuild import Plan, Rebuild
    from services.events.watching import ProjectionState

T = TypeVar("T")

app = typer.Typer(no_args_is_help=True, help="Build a read model anew from the log, beside the live one.")

Name = Annotated[Literal["email_log", "file"], typer.Argument(metavar="PROJECTION", help="email_log or file")]
Number = Annotated[int, typer.Argument(metavar="GENERATION", min=1)]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@app.command("dry-run")
def dry_run(projection: Name, json: Json = False) -> None:
    """What a rebuild would do; changes nothing."""

    async def look(base: Foundation) -> Plan:
        return await _rebuild(base, projection).plan()

    plan = run(_with_foundation(look))
    if json:
        print_json(
            {
                "projection": plan.projection,
                "version": plan.version,
                "active": plan.active,
                "partitions": plan.partitions,
                "events": plan.events,
                "lostHead": list(plan.lost_head),
            }
        )
        return
    say(f"{plan.projection}, fold version {plan.version}; generation {plan.active or 'none'} is active")
    say(f"it would read about {plan.events} events of {plan.partitions} partitions into a new generation,")
    say("catch up, compare with live, and swap if nothing differs; live goes on meanwhile")
    if plan.lost_head:
        say(
            f"BUT the log has lost the first events of partitions {', '.join(map(str, plan.lost_head))}: --without-head"
        )


@app.command("start")
def start(
    projection: Name,
    detach: Annotated[bool, typer.Option("--detach", help="Only ask for it; do not watch.")] = False,
    without_head: Annotated[
        bool, typer.Option("--without-head", help="Although the log has lost its first events: documents will be lost.")
    ] = False,
    json: Json = False,
) -> None:
    """Ask for a rebuild and watch it. The events service does it; it goes on when you stop watching."""

    async def begin(base: Foundation) -> Generation:
        return await _rebuild(base, projection).create(without_head=without_head)

    made = run(_with_foundation(begin))
    if detach:
        hint = f"watch it: mailroom rebuild status --follow {projection}"
        _tell(made, json, f"generation {made.number} is asked for; {hint}")
        return
    watch_to_end(projection, made.number, json)


@app.command("status")
def status(
    projection: Name,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Watch the rebuild in progress to its end.")] = False,
    json: Json = False,
) -> None:
    """All generations, which one is read, and how far a rebuild is."""
    if follow:

        async def which(base: Foundation) -> Generation:
            return await _operator(base, projection).building()

        watch_to_end(projection, run(_with_foundation(which)).number, json)
        return

    async def look(base: Foundation) -> ProjectionState:
        return await _operator(base, projection).state()

    state = run(_with_foundation(look))
    if json:
        from services.events.entrypoints.http_projections import ProjectionDetail

        print_json(ProjectionDetail.of(state).to_wire())
        return
    rows = table(
        "no.", "stage", "fold", "made (UTC)", "lag", "how it is", right=("no.", "fold", "lag"), whole=("made (UTC)",)
    )
    for each in state.generations:
        lag = state.lag(each.number)
        rows.add_row(
            str(each.number),
            ("paused in " if each.rests else "") + each.stage,
            str(each.version),
            moment(each.created_at),
            "" if lag is None else str(lag),
            in_words(each),
        )
    out = console()
    out.print(rows)
    back = f"; a rollback goes to {state.pointer.previous}" if state.pointer.previous is not None else ""
    out.print(f"{state.name}: generation {state.pointer.active or 'none'} is read{back}", style="dim")


@app.command("pause")
def pause(projection: Name, json: Json = False) -> None:
    """Let the rebuild in progress rest while it is being filled."""
    _verb(projection, lambda operator: operator.pause(), json, f"rests; go on: mailroom rebuild resume {projection}")


@app.command("resume")
def resume(projection: Name, json: Json = False) -> None:
    """Let it go on."""
    hint = f"watch it: mailroom rebuild status --follow {projection}"
    _verb(projection, lambda operator: operator.resume(), json, f"goes on; {hint}")


@app.command("rollback")
def rollback(projection: Name, yes: Yes = False, json: Json = False) -> None:
    """Read the generation before the active one again, at once; both are kept up to date."""
    confirm(f"Read the generation of {projection} before the active one again?", yes=yes)
    _verb(projection, lambda operator: operator.rollback(), json, "is read again")


@app.command("abandon")
def abandon(projection: Name, generation: Number, yes: Yes = False, json: Json = False) -> None:
    """Give up a generation that is not read, and drop its documents."""
    confirm(f"Drop generation {generation} of {projection}?", yes=yes)

    async def give_up(base: Foundation) -> Generation:
        await _rebuild(base, projection).abandon(generation)
        return await get_generation(base, projection, generation)

    ended = run(_with_foundation(give_up))
    _tell(ended, json, f"generation {generation} is {ended.stage}, and its documents are dropped")


@app.command("accept")
def accept(projection: Name, generation: Number, yes: Yes = False, json: Json = False) -> None:
    """Swap a generation in although it differs from the live one. Look at `status` and some of the documents first."""
    confirm(f"Read generation {generation} of {projection} although its documents differ?", yes=yes)

    async def take(base: Foundation) -> Generation:
        await _rebuild(base, projection).run(generation, accept_differences=True)
        return await get_generation(base, projection, generation)

    back = f"mailroom rebuild rollback {projection}"
    _tell(run(_with_foundation(take)), json, f"generation {generation} is read now; back: {back}")


def _verb(projection: str, verb: Callable[[ProjectionOperator], Awaitable[Generation]], json: bool, told: str) -> None:
    async def act(base: Foundation) -> Generation:
        return await verb(_operator(base, projection))

    generation = run(_with_foundation(act))
    _tell(generation, json, f"generation {generation.number} {told}")


def _tell(generation: Generation, json: bool, told: str) -> None:
    if json:
        print_json(as_json(generation))
    else:
        say(told)


def _operator(base: Foundation, projection: str) -> ProjectionOperator:
    from services.events.serving import operator

    return operator(base.settings, base.sides[projection])


def _rebuild(base: Foundation, projection: str) -> Rebuild:
    from services.events.adapters.backfill_processes import BackfillProcesses

    workers = BackfillProcesses(projection, base.settings.rebuild_workers)
    return base.sides[projection].rebuild(workers, grace=base.settings.grace_hours * 3600)


async def _with_foundation(work: Callable[[Foundation], Awaitable[T]]) -> T:
    from services.cli.events_service import events_service

    async with events_service() as base:
        return await work(base)
