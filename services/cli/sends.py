"""`mailroom sends`: attempts of which nobody knows what came."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from services.cli.environment import actor, run
from services.cli.output import Json, confirm, console, moment, print_json, say, table

if TYPE_CHECKING:
    from services.email.handlers import UnknownAttempt

app = typer.Typer(no_args_is_help=True, help="Sends that need somebody's word.")
unknown = typer.Typer(no_args_is_help=True, help="Attempts without an answer: never sent again by themselves.")
app.add_typer(unknown, name="unknown")


@unknown.command("list")
def list_unknown(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Of at most so many messages.")] = 1000,
    json: Json = False,
) -> None:
    """Every attempt that got no answer and that nothing has settled yet."""
    found = run(_list(limit))
    if json:
        print_json([_as_json(each) for each in found])
        return
    if not found:
        say("no attempt is without an answer")
        return
    rows = table("message", "attempt", "recipient", "provider", "category", "begun (UTC)", "settle from (UTC)")
    for each in found:
        rows.add_row(
            each.message_id,
            each.attempt_id,
            each.recipient,
            each.provider,
            each.category,
            moment(each.begun_at),
            moment(each.can_be_settled_from),
        )
    console().print(rows)
    say("Next: look at the provider, then: mailroom sends unknown resolve MESSAGE ATTEMPT accepted|notAccepted")


@unknown.command("resolve")
def resolve_unknown(
    message_id: Annotated[str, typer.Argument(metavar="MESSAGE")],
    attempt_id: Annotated[str, typer.Argument(metavar="ATTEMPT")],
    outcome: Annotated[
        Literal["accepted", "notAccepted"],
        typer.Argument(help="notAccepted lets it be sent again: be sure, or somebody gets it twice."),
    ],
    evidence: Annotated[str, typer.Option(help="How you know; kept in the log.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Settle one attempt by what you found out at the provider."""
    if outcome == "notAccepted":
        confirm(f"Attempt {attempt_id} may then be made again. Is it certain that the provider has it not?", yes=yes)
    run(_resolve(message_id, attempt_id, outcome, evidence))
    if json:
        print_json({"messageId": message_id, "attemptId": attempt_id, "outcome": outcome})
    else:
        say(f"{attempt_id}: settled as {outcome}; the service publishes it within seconds")


async def _list(limit: int) -> list[UnknownAttempt]:
    from services.cli.email_service import email_service
    from services.email.handlers import list_unknown

    found: list[UnknownAttempt] = []
    after: str | None = None
    async with email_service("settler") as email:
        while len(found) < limit:
            some, after = await list_unknown(email.streams, after, limit - len(found))
            found += some
            if after is None:
                break
    return found


async def _resolve(
    message_id: str, attempt_id: str, outcome: Literal["accepted", "notAccepted"], evidence: str
) -> None:
    from services.cli.email_service import email_service
    from services.email.handlers import resolve_unknown

    async with email_service("settler") as email:
        await resolve_unknown(email.streams, message_id, attempt_id, outcome, evidence=evidence, actor=actor())


def _as_json(attempt: UnknownAttempt) -> dict[str, object]:
    return {
        "messageId": attempt.message_id,
        "attemptId": attempt.attempt_id,
        "recipient": attempt.recipient,
        "provider": attempt.provider,
        "category": attempt.category,
        "begunAt": attempt.begun_at,
        "canBeSettledFrom": attempt.can_be_settled_from,
    }
