"""`mailroom why`: the history of a document as a timeline, with the origin of each event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.cli.environment import database, run
from services.cli.output import Json, console, print_json, refuse

if TYPE_CHECKING:
    from rich.table import Table

    from contracts.views import EmailLog
    from services.events.timeline import TimelineStep

app = typer.Typer(no_args_is_help=True, help="Why a document is as it is: every event with its origin.")

_STYLES = {"complaint": "red", "bounced": "red", "failed": "red", "delivered": "green", "sent": "cyan"}


@app.callback()
def _group() -> None:
    """Why a document is as it is: every event with its origin."""


@app.command("email_log")
def email_log(message_id: Annotated[str, typer.Argument(metavar="ID")], json: Json = False) -> None:
    """The timeline of one mail: when, what, to whom, what it changed in the log, and where it lies on Kafka."""
    from services.events.timeline import timeline

    email, known = run(_read(message_id))
    if not known:
        raise refuse(f"no event of {message_id} is known to the read model")
    steps = timeline(known)
    if json:
        print_json(_as_json(message_id, email, steps))
    else:
        _print(message_id, email, steps)


async def _read(message_id: str) -> tuple[EmailLog | None, list[Any]]:
    from services.events.adapters.mongo_email_queries import MongoEmailDocuments

    async with database("events") as events_database:
        documents = MongoEmailDocuments(events_database)
        return await documents.find(message_id, None), await documents.known(message_id)


def _print(message_id: str, email: EmailLog | None, steps: list[TimelineStep]) -> None:
    from rich.text import Text

    out = console()
    head = Text.assemble(("email_log ", "bold"), message_id, "  ")
    if email is None:
        head.append("not shown: its email.requested is not known", style="yellow")
    else:
        head.append(email.status, style=_STYLES.get(email.status, "yellow"))
        head.append(f"  {email.category}, {email.priority}, of {email.user_id}")
    out.print(head)
    for each in email.recipients if email is not None else ():
        out.print(Text.assemble("  ", each.address, "  ", (each.status, _STYLES.get(each.status, "yellow"))))
    out.print(_table(steps))
    out.print(Text(f"{len(steps)} events; origin = partition/offset in email.events; times are UTC", style="dim"))


def _table(steps: list[TimelineStep]) -> Table:
    from rich.text import Text

    from services.cli.output import table

    rows = table("time", "event", "recipient", "what it changed", "origin", right=("origin",), whole=("time", "event"))
    day = ""
    for step in steps:
        event = step.event
        if event.time[:10] != day:
            day = event.time[:10]
            rows.add_row(Text(day, style="dim"))
        recipient = event.data.get("recipient", "")
        words = [change.removeprefix(f"{recipient}: ") for change in step.changes]
        changed = "retracted: counts no more" if step.retracted else "\n".join(words) or "nothing"
        rows.add_row(
            event.time[11:23],
            Text(event.type.removeprefix("email."), _struck(step) or _style(event.type), no_wrap=True),
            Text(recipient),
            Text(changed, style="" if step.changes else "dim"),
            f"{event.partition}/{event.offset}",
        )
    return rows


def _struck(step: TimelineStep) -> str:
    return "strike dim" if step.retracted else ""


def _style(name: str) -> str:
    if name in ("email.bounced", "email.complained", "email.rejected", "email.failed", "email.sendRejected"):
        return "red"
    if name in ("email.delivered", "email.opened", "email.clicked"):
        return "green"
    return "yellow" if name in ("email.sendOutcomeUnknown", "email.deliveryDelayed") else ""


def _as_json(message_id: str, email: EmailLog | None, steps: list[TimelineStep]) -> dict[str, Any]:
    from contracts.registry import read_json
    from services.events.projections.email_log import TOPIC

    return {
        "messageId": message_id,
        "emailLog": None if email is None else email.to_wire(),
        "timeline": [
            {
                "time": step.event.time,
                "type": step.event.type,
                "recipient": step.event.data.get("recipient"),
                "changes": list(step.changes),
                "retracted": step.retracted,
                "origin": {"topic": TOPIC, "partition": step.event.partition, "offset": step.event.offset},
                "event": read_json(step.event.raw),
            }
            for step in steps
        ],
    }
