"""`mailroom breaker`: floods that consumers hold back, and the order to let go of one."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from services.cli.environment import DATABASES, MONGO, actor, database_name, kafka, mongo, run
from services.cli.output import Json, confirm, console, moment, print_json, refuse, say, table
from services.cli.skip import service_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.kit.kafka.records import Partition
    from services.kit.releases import Bound, BreakerReport, Release

app = typer.Typer(no_args_is_help=True, help="Floods of bad records that consumers hold back.")

SHOWN: Final = 20
FOLLOW_SECONDS: Final = 120.0
LOOK_SECONDS: Final = 0.5

Service = Literal["email", "files", "events"]


@dataclass(frozen=True, slots=True)
class _Progress:
    """How far an order is: records (about: offsets have gaps) that lie ahead, and what became of those it set aside."""

    ahead: int
    parked: int
    discarded: int

    def to_wire(self) -> dict[str, int]:
        return {"ahead": self.ahead, "parked": self.parked, "discarded": self.discarded}


@app.command("list")
def list_breakers(
    service: Annotated[Service | None, typer.Option("--service", help="Of this service only.")] = None,
    json: Json = False,
) -> None:
    """Breakers that are not closed, with the last record they did not admit; and the latest orders."""
    breakers, orders = run(_list(service))
    if json:
        print_json({"breakers": [_breaker_wire(each) for each in breakers], "releases": orders})
        return
    out = console()
    if not breakers:
        say("every breaker is closed")
    else:
        rows = table("consumer", "process", "state", "since (UTC)", "why", "at", "source", whole=("consumer", "state"))
        for each in breakers:
            where = f"{each.topic}/{each.partition} {each.offset}" if each.topic else ""
            rows.add_row(
                each.consumer, each.member, each.state, moment(each.since)[5:], each.reason, where, each.source or ""
            )
        out.print(rows)
        out.print(
            "Next: mailroom parked list --service … --consumer CONSUMER; then mend the cause and restart, or "
            "mailroom breaker release CONSUMER --reason … --park | --discard",
            style="dim",
        )
    if orders:
        whole = ("release", "consumer", "given (UTC)")
        rows = table("release", "consumer", "given (UTC)", "does", "state", "parked", "discarded", "for", whole=whole)
        for order in orders:
            ahead = f"{order['ahead']} ahead" if order["ahead"] is not None else "under way"
            does = order["action"] + (f" {order['source']}" if order["source"] else "")
            rows.add_row(
                order["id"],
                order["consumer"],
                moment(order["at"])[5:],
                does,
                "done" if order["closedAt"] else ahead,
                str(order["parked"]),
                str(order["discarded"]),
                order["reason"],
            )
        out.print(rows)


@app.command("release")
def release(
    consumer: Annotated[str, typer.Argument(help="A consumer group, events.email_log or events.file.")],
    reason: Annotated[str, typer.Option(help="Why; kept with the order and with what is discarded.")],
    park: Annotated[bool, typer.Option("--park", help="Put each record into the parking lot.")] = False,
    discard: Annotated[
        bool, typer.Option("--discard", help="Keep only which they were, how many, and a hash of their bytes.")
    ] = False,
    source: Annotated[str | None, typer.Option(help="Only records with this CloudEvents `source`.")] = None,
    until: Annotated[
        list[str] | None,
        typer.Option(metavar="PARTITION:OFFSET", help="Only there, and before this offset; may be repeated."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Let go of a flood: what the consumer's handler refuses is parked or discarded without asking the breaker.

    What the handler takes is handled as ever. The order holds for what is on the topic now, or before the offsets of
    --until. The consumer carries it out by itself; this command watches for two minutes.
    """
    if park == discard:
        raise typer.BadParameter("give --park or --discard, and not both")
    if not reason.strip():
        raise typer.BadParameter("say why: --reason is kept for those who ask later")
    wanted = dict(_offset(each) for each in until or ())
    order = run(_prepare(consumer, "park" if park else "discard", reason.strip(), source, wanted))
    records = sum(each.until - each.first for each in order.bounds)
    of = f" of {source}" if source else ""
    fate = "put into the parking lot" if park else "discarded: of them only offsets, count, hash and reason are kept"
    confirm(
        f"{consumer} is about to go through up to {records} records. Those{of} that it refuses are {fate}. Go on?",
        yes=yes,
    )
    found, progress = run(_carry_out(order))
    done = found.closed_at is not None
    if json:
        print_json({**_release_wire(found), **progress.to_wire()})
        return
    say(f"release {found.id}: parked {progress.parked}, discarded {progress.discarded}")
    if done:
        say(f"{consumer} is past everything that the order names")
    else:
        say(f"{consumer} has {progress.ahead} records ahead and goes on by itself: mailroom breaker list")


def _offset(text: str) -> tuple[int, int]:
    partition, _, offset = text.partition(":")
    if not (partition.isdecimal() and offset.isdecimal()):
        raise typer.BadParameter(f"--until {text}: give PARTITION:OFFSET, for instance 3:35000")
    return int(partition), int(offset)


async def _list(service: Service | None) -> tuple[list[BreakerReport], list[dict[str, Any]]]:
    from services.kit.clock import SystemClock
    from services.kit.releases_mongo import MongoReleases

    now = SystemClock().now()
    breakers: list[BreakerReport] = []
    orders: list[dict[str, Any]] = []
    async with mongo() as client:
        for name in (service,) if service else tuple(DATABASES):
            releases = MongoReleases(client[database_name(name)])
            breakers += await releases.breakers(now)
            for each in await releases.orders(SHOWN):
                parked, discarded = await releases.totals(each.id)
                wire = {**_release_wire(each), "parked": parked, "discarded": discarded, "ahead": None}
                if each.closed_at is None:
                    wire["ahead"] = _ahead(each, await _spans(each.consumer, {one.topic for one in each.bounds}))
                orders.append(wire)
    return breakers, sorted(orders, key=lambda each: str(each["id"]), reverse=True)[:SHOWN]


async def _prepare(
    consumer: str, action: Literal["park", "discard"], reason: str, source: str | None, until: Mapping[int, int]
) -> Release:
    """The order as it is to be given. Ends the command where nothing is held back, or an offset is none."""
    from services.kit.clock import SystemClock, SystemIds
    from services.kit.releases import Release
    from services.kit.releases_mongo import MongoReleases

    kafka(MONGO)
    service = service_of(consumer)
    now = SystemClock().now()
    async with mongo() as client:
        told = await MongoReleases(client[database_name(service)]).breakers(now)
    topics = {topic for each in told if each.consumer == consumer for topic in each.topics}
    if not topics:
        raise refuse(f"no process says that the breaker of {consumer} is open: nothing is held back")
    bounds = _bounds(await _spans(consumer, topics), until)
    if not bounds:
        raise refuse(f"{consumer} is past all of that: nothing is held back there")
    return Release(SystemIds().new(), consumer, action, reason, actor(), now, bounds, source)


def _bounds(spans: Mapping[Partition, tuple[int, int]], until: Mapping[int, int]) -> tuple[Bound, ...]:
    """From where the consumer stands to the end, or to the offsets of --until. PermanentError for one that is none."""
    from services.kit.errors import PermanentError
    from services.kit.releases import Bound

    strange = until.keys() - {where.partition for where in spans}
    if strange:
        raise PermanentError("noPartition", f"--until: there is no partition {', '.join(map(str, sorted(strange)))}")
    bounds: list[Bound] = []
    for where, (position, end) in spans.items():
        last = until.get(where.partition) if until else end
        if last is not None and last > end:
            told = f"--until {where.partition}:{last}: {where.topic}/{where.partition} ends at {end}"
            raise PermanentError("badOffset", f"{told}; an order is about what is there")
        if last is not None and last > position:
            bounds.append(Bound(*where, position, last))
    return tuple(bounds)


async def _carry_out(order: Release) -> tuple[Release, _Progress]:
    """Give the order and watch; how it is when it is done, or when nobody waits any longer."""
    from services.kit.releases_mongo import MongoReleases

    async with mongo() as client:
        releases = MongoReleases(client[database_name(service_of(order.consumer))])
        await releases.order(order)
        loop = asyncio.get_running_loop()
        give_up = loop.time() + FOLLOW_SECONDS
        while True:
            found = await releases.show(order.id) or order
            if found.closed_at is not None or loop.time() > give_up:
                ahead = _ahead(found, await _spans(order.consumer, {each.topic for each in order.bounds}))
                return found, _Progress(ahead, *await releases.totals(order.id))
            await asyncio.sleep(LOOK_SECONDS)


def _ahead(order: Release, spans: Mapping[Partition, tuple[int, int]]) -> int:
    return sum(max(0, each.until - max(each.first, spans.get(each.where, (each.until, 0))[0])) for each in order.bounds)


async def _spans(consumer: str, topics: set[str]) -> dict[Partition, tuple[int, int]]:
    """(position, end) of each partition that the consumer reads. Of a projection, the position is that of the furthest
    behind of the generations that are kept up to date.
    """
    from services.kit.kafka.positions import positions

    if service_of(consumer) != "events":
        return await positions(kafka().kafka, consumer, topics)
    return await _projection_spans(consumer)


async def _projection_spans(consumer: str) -> dict[Partition, tuple[int, int]]:
    from services.cli.events_service import events_service
    from services.events.foundation import side_of
    from services.events.generations import to_project
    from services.kit.kafka.records import Partition

    async with events_service() as base:
        side = side_of(base, consumer.removeprefix("events."))
        at: dict[int, int] = {}
        for each in to_project(await side.generations.list()):
            for lease in await side.leases(each.number).view():
                at[lease.partition] = min(lease.next, at.get(lease.partition, lease.next))
        log = side.log()
        await log.start()
        try:
            bounds = await log.bounds()
        finally:
            await log.stop()
    return {Partition(side.projection.topic, n): (at.get(n, first), end) for n, (first, end) in bounds.items()}


def _breaker_wire(found: BreakerReport) -> dict[str, Any]:
    last = None
    if found.topic:
        last = {
            "topic": found.topic,
            "partition": found.partition,
            "offset": found.offset,
            "reason": found.reason,
            "source": found.source,
        }
    return {
        "consumer": found.consumer,
        "process": found.member,
        "state": found.state,
        "topics": list(found.topics),
        "since": found.since,
        "at": found.at,
        "lastRefused": last,
    }


def _release_wire(found: Release) -> dict[str, Any]:
    return {
        "id": found.id,
        "consumer": found.consumer,
        "action": found.action,
        "reason": found.reason,
        "by": found.by,
        "at": found.at,
        "source": found.source,
        "bounds": [asdict(each) for each in found.bounds],
        "closedAt": found.closed_at,
    }
