"""`mailroom why`: the history of a document as a timeline, with the origin of each event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from services.cli.environment import database, run
from services.cli.output import Json, console, print_json, refuse

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from contracts.views import EmailLog, File
    from services.events.timeline import TimelineStep

app = typer.Typer(no_args_is_help=True, help="Why a document is as it is: every event with its origin.")

Id = Annotated[str, typer.Argument(metavar="ID")]

_STYLES: Final = {
    "complaint": "red",
    "bounced": "red",
    "failed": "red",
    "deleted": "red",
    "delivered": "green",
    "completed": "green",
    "sent": "cyan",
}
_BAD: Final = frozenset(
    {
        "email.bounced",
        "email.complained",
        "email.rejected",
        "email.failed",
        "email.sendRejected",
        "file.uploadFailed",
        "file.deleted",
    }
)
_GOOD: Final = frozenset(
    {"email.delivered", "email.opened", "email.clicked", "file.uploaded", "file.restored", "file.downloadIssued"}
)
_UNCERTAIN: Final = frozenset({"email.sendOutcomeUnknown", "email.deliveryDelayed"})


@app.callback()
def _group() -> None:
    """Why a document is as it is: every event with its origin."""


@app.command("email_log")
def email_log(message_id: Id, json: Json = False) -> None:
    """The timeline of one mail: when, what, to whom, what it changed in the log, and where it lies on Kafka."""
    email, known = run(_read_email(message_id))
    steps = _steps("email_log", message_id, known)
    held = None if email is None or email.status != "queued" else run(_held(email))
    if json:
        shown = {"messageId": message_id, "emailLog": None if email is None else email.to_wire(), "held": held}
        print_json({**shown, "timeline": _as_json("email_log", steps)})
        return
    out = console()
    out.print(_head("email_log", message_id, email, lambda found: f"{found.priority}, of {found.user_id}"))
    for each in email.recipients if email is not None else ():
        out.print(_line("  ", each.address, "  ", (each.status, _style_of(each.status))))
    if held is not None:
        out.print(_line("  ", (held, "yellow")))
    _print_steps("email_log", steps)


@app.command("file")
def file(file_id: Id, json: Json = False) -> None:
    """The timeline of one file: when, what, what it changed in what is shown, and where it lies on Kafka."""
    found, known = run(_read_file(file_id))
    steps = _steps("file", file_id, known)
    if json:
        shown = {"fileId": file_id, "file": None if found is None else found.to_wire()}
        print_json({**shown, "timeline": _as_json("file", steps)})
        return
    out = console()
    out.print(_head("file", file_id, found, lambda found: f"scan {found.scan_status}, of {found.user_id}"))
    if found is not None:
        out.print(_line("  ", found.original_name, "  ", found.key))
    _print_steps("file", steps)


async def _read_email(message_id: str) -> tuple[EmailLog | None, list[Any]]:
    from services.events.adapters.mongo_email_queries import MongoEmailDocuments

    async with database("events") as events_database:
        documents = MongoEmailDocuments(events_database)
        return await documents.find(message_id, None), await documents.known(message_id)


async def _held(email: EmailLog) -> str | None:
    """Why a mail that is queued waits, where it is a ramp's; by the setting as this command has it."""
    from services.email.provider_orders import held_by_ramp
    from services.email.warm_up_settings import from_environment
    from services.kit.clock import SystemClock
    from services.kit.daily_mongo import COLLECTION, MongoDailyCounts

    ramps = from_environment()
    if not ramps:
        return None
    async with database("email") as email_database:
        counts = MongoDailyCounts(email_database[COLLECTION], SystemClock())
        ramp = await held_by_ramp(email.from_, email.category, ramps, counts)
    if ramp is None:
        return None
    return f"waits for tomorrow: {ramp.domain} is being warmed up; recipients today: {ramp.used} of {ramp.limit}"


async def _read_file(file_id: str) -> tuple[File | None, list[Any]]:
    from services.events.adapters.mongo_file_queries import MongoFileDocuments

    async with database("events") as events_database:
        documents = MongoFileDocuments(events_database)
        return await documents.find(file_id, None), await documents.known(file_id)


def _steps(projection: str, aggregate: str, known: list[Any]) -> list[TimelineStep]:
    from services.events.timeline import STORIES, timeline

    if not known:
        raise refuse(f"no event of {aggregate} is known to the read model")
    return timeline(known, STORIES[projection])


def _head(projection: str, aggregate: str, found: Any, told: Any) -> Text:
    head = _line((f"{projection} ", "bold"), aggregate, "  ")
    if found is None:
        head.append("not shown: its first event is not known", style="yellow")
    else:
        head.append(found.status, style=_style_of(found.status))
        head.append(f"  {found.category}, {told(found)}")
    return head


def _line(*parts: Any) -> Text:
    from rich.text import Text

    return Text.assemble(*parts)


def _style_of(status: str) -> str:
    return _STYLES.get(status, "yellow")


def _print_steps(projection: str, steps: list[TimelineStep]) -> None:
    out = console()
    out.print(_table(steps))
    out.print(_line((f"{len(steps)} events; origin = partition/offset in {_topic(projection)}; times are UTC", "dim")))


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
        if event.data.get("reason") == "resend":
            words.append("resend: the outcome of an earlier attempt is unknown")
        words += [f"{each['provider']}: {each['why']}" for each in event.data.get("considered") or ()]
        changed = "retracted: counts no more" if step.retracted else "\n".join(words) or "nothing"
        name = event.type.removeprefix("email.").removeprefix("file.")
        rows.add_row(
            event.time[11:23],
            Text(name, _struck(step) or _style(event.type), no_wrap=True),
            Text(recipient),
            Text(changed, style="" if step.changes else "dim"),
            f"{event.partition}/{event.offset}",
        )
    return rows


def _struck(step: TimelineStep) -> str:
    return "strike dim" if step.retracted else ""


def _style(name: str) -> str:
    if name in _BAD:
        return "red"
    return "green" if name in _GOOD else "yellow" if name in _UNCERTAIN else ""


def _topic(projection: str) -> str:
    from services.events.timeline import STORIES

    return STORIES[projection].projection.topic


def _as_json(projection: str, steps: list[TimelineStep]) -> list[dict[str, Any]]:
    from contracts.registry import read_json

    topic = _topic(projection)
    return [
        {
            "time": step.event.time,
            "type": step.event.type,
            "recipient": step.event.data.get("recipient"),
            "changes": list(step.changes),
            "retracted": step.retracted,
            "origin": {"topic": topic, "partition": step.event.partition, "offset": step.event.offset},
            "event": read_json(step.event.raw),
        }
        for step in steps
    ]
