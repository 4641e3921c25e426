"""`mailroom parked`: records that consumers set aside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from services.cli.environment import actor, database, key_ring, run
from services.cli.output import Json, confirm, console, moment, print_json, refuse, say, table

if TYPE_CHECKING:
    from services.kit.kafka.records import ParkKind
    from services.kit.parked_view import Bytes, ParkedDetail, ParkedSummary
    from services.kit.parking import ParkStatus

app = typer.Typer(no_args_is_help=True, help="Records that a consumer could not handle and set aside.")

Service = Literal["email", "files", "events"]
OfService = Annotated[Service, typer.Option("--service", help="Whose records.")]
ParkedId = Annotated[str, typer.Argument(metavar="ID", help="consumer|topic|partition|offset, in quotes.")]

PAGE: Final = 200
SHOWN: Final = 4000
"""Characters of a value that are printed; --json has all."""


@app.command("list")
def list_parked(
    service: OfService,
    status: Annotated[
        Literal["parked", "retried", "discarded", "any"], typer.Option(help="What became of them.")
    ] = "parked",
    kind: Annotated[
        Literal["poison", "bug", "uncorrelated", "conflictingRepeat", "orphan"] | None,
        typer.Option(help="Why they were parked."),
    ] = None,
    consumer: Annotated[str | None, typer.Option(help="Of this consumer.")] = None,
    topic: Annotated[str | None, typer.Option(help="Of this topic.")] = None,
    reason: Annotated[str | None, typer.Option(help="With this reason.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 50,
    json: Json = False,
) -> None:
    """The latest ones first, without their values."""
    found, more = run(_list(service, None if status == "any" else status, kind, consumer, topic, reason, limit))
    if json:
        print_json({"records": [record.to_wire() for record in found], "more": more})
        return
    if not found:
        say(f"the {service} service has no such record")
        return
    rows = table("id", "why", "parked", "tries", "status", right=("tries",), whole=("id", "parked", "status"))
    for record in found:
        why = record.reason if record.reason == record.kind else f"{record.kind}: {record.reason}"
        rows.add_row(record.id, why, moment(record.at)[5:16], str(record.tries), record.status)
    out = console()
    out.print(rows)
    more_there = ", there are more (--limit)" if more else ""
    out.print(f"{len(found)} shown{more_there}. Next: mailroom parked show --service {service} 'ID'", style="dim")


@app.command("show")
def show(parked_id: ParkedId, service: OfService, json: Json = False) -> None:
    """All of one record that may be shown: where it is from, why it was parked, its headers, value and stack."""
    found = run(_show(service, parked_id))
    if json:
        print_json(found.to_wire())
        return
    out = console()
    facts = {
        "id": found.id,
        "status": found.status + (f" by {found.closed_by} at {moment(found.closed_at)}" if found.closed_at else ""),
        "why": f"{found.kind}: {found.reason}" + (f": {found.detail}" if found.detail else ""),
        "parked": moment(found.at),
        "written": moment(found.timestamp),
        "tries": f"{found.tries}" + (f", next {moment(found.next_try_at)}" if found.next_try_at else ""),
        "last error": found.last_error or "",
        "closed for": found.closed_reason or "",
        "decision": found.decision or "",
        "key": _text(found.key),
        "headers": "\n".join(f"{each.name}: {_text(each.value)}" for each in found.headers),
    }
    rows = table("", "")
    rows.show_header = False
    for name, value in facts.items():
        if value:
            rows.add_row(name, _plain(value))
    out.print(rows)
    if found.value_hidden:
        out.print(f"value: {found.size} bytes, not shown: it may hold a login code or link")
    elif found.value is None:
        out.print("value: null")
    else:
        value = _text(found.value)
        out.print(f"value ({found.size} bytes):", style="bold")
        out.print(_plain(value[:SHOWN] + (" …" if len(value) > SHOWN else "")))
    if found.stack:
        out.print("stack:", style="bold")
        out.print(_plain(found.stack))


@app.command("retry")
def retry(parked_id: ParkedId, service: OfService, json: Json = False) -> None:
    """Hand one record to its consumer's handler again, with its own origin. Exit status 1 when it fails again."""
    found = run(_retry(service, parked_id))
    if json:
        print_json(found.to_wire())
    elif found.status == "retried":
        say(f"{found.id}: handled")
    else:
        say(f"{found.id}: still parked: {found.last_error or found.reason}")
    raise typer.Exit(0 if found.status == "retried" else 1)


@app.command("discard")
def discard(
    parked_id: ParkedId,
    service: OfService,
    reason: Annotated[str, typer.Option(help="Why it is given up; kept with it.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Give one record up: it is kept for the audit and not handled any more."""
    confirm(f"Give up {parked_id}?", yes=yes)
    found = run(_discard(service, parked_id, reason))
    if json:
        print_json(found.to_wire())
    else:
        say(f"{found.id}: discarded")


async def _list(
    service: Service,
    status: ParkStatus | None,
    kind: ParkKind | None,
    consumer: str | None,
    topic: str | None,
    reason: str | None,
    limit: int,
) -> tuple[list[ParkedSummary], bool]:
    from services.kit.parked_view import summary_of
    from services.kit.parking import ParkedFilter
    from services.kit.parking_mongo import MongoParkingLot

    where = ParkedFilter(consumer=consumer, topic=topic, kind=kind, reason=reason, status=status)
    found: list[ParkedSummary] = []
    cursor: str | None = None
    async with database(service) as own:
        lot = MongoParkingLot(own, key_ring())
        while True:
            page = await lot.list(where, limit=min(PAGE, limit - len(found)), cursor=cursor)
            found += [summary_of(record) for record in page.records]
            cursor = page.cursor
            if cursor is None or len(found) >= limit:
                return found, cursor is not None


async def _show(service: Service, parked_id: str) -> ParkedDetail:
    from services.kit.parked_view import detail_of
    from services.kit.parking_mongo import MongoParkingLot

    async with database(service) as own:
        record = await MongoParkingLot(own, key_ring()).show(parked_id)
    if record is None:
        raise _none(service, parked_id)
    return detail_of(record)


async def _retry(service: Service, parked_id: str) -> ParkedDetail:
    from services.kit.parking_mongo import MongoParkingLot

    async with database(service) as own:
        record = await MongoParkingLot(own, key_ring()).find(parked_id)
    if record is None:
        raise _none(service, parked_id)
    consumer = record.consumer
    if service == "events":
        await _retry_events(parked_id)
    elif service == "files":
        await _retry_files(parked_id, consumer)
    else:
        await _retry_email(parked_id, consumer)
    return await _show(service, parked_id)


async def _retry_events(parked_id: str) -> None:
    from services.cli.events_service import events_service
    from services.events.serving import parked_retries

    async with events_service() as base:
        await parked_retries(base.sides.values(), base.parking, base.clock).retry(parked_id, by=actor())


async def _retry_email(parked_id: str, consumer: str) -> None:
    from services.cli.email_service import email_service, role_of

    async with email_service(role_of(consumer), publishing=True) as email:
        await email.retries.retry(parked_id, by=actor())


async def _retry_files(parked_id: str, consumer: str) -> None:
    from services.cli.files_service import files_service, role_of

    async with files_service(role_of(consumer), publishing=True) as files:
        await files.retries.retry(parked_id, by=actor())


async def _discard(service: Service, parked_id: str, reason: str) -> ParkedSummary:
    """Opens nothing of it: what was sealed with a key that is lost can be given up, too."""
    from services.kit.clock import SystemClock
    from services.kit.parked_view import summary_of
    from services.kit.parking_mongo import MongoParkingLot

    async with database(service) as own:
        lot = MongoParkingLot(own, key_ring())
        discarded = await lot.discard(parked_id, reason=reason, by=actor(), at=SystemClock().now())
        record = await lot.find(parked_id)
    if record is None:
        raise _none(service, parked_id)
    if not discarded:
        raise refuse(f"{parked_id} is not open any more: retried or discarded already")
    return summary_of(record)


def _none(service: Service, parked_id: str) -> typer.Exit:
    return refuse(f"the {service} service has no parked record {parked_id}")


def _text(value: Bytes | None) -> str:
    if value is None:
        return "null"
    if value.text is not None:
        return value.text
    import base64

    return f"base64 {base64.b64encode(value.base64 or b'').decode()}"


def _plain(value: str) -> Any:
    """Text as it is: nothing in it is markup, and control characters do not reach the terminal."""
    from rich.text import Text

    return Text("".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in value))
