"""`mailroom skip`: past a record batch that cannot be read, after its bytes were put into the parking lot."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from services.cli.environment import ENCRYPTION, MONGO, actor, database, kafka, key_ring, run
from services.cli.output import Json, confirm, print_json, refuse, say

if TYPE_CHECKING:
    from services.events.app import Foundation
    from services.events.composing import ReadingSide
    from services.kit.kafka.records import Partition
    from services.kit.kafka.stepping_over import RawBatch
    from services.kit.parking import ParkingLot

FOLLOW_SECONDS: Final = 30.0
LOOK_SECONDS: Final = 0.5

_PROJECTION: Final = "events."
_SERVICES: Final[dict[str, Literal["email", "files", "events"]]] = {
    "email-": "email",
    "files-": "files",
    _PROJECTION: "events",
}
"""What the names of the projectors' readers begin with; the projection's name follows."""


@dataclass(frozen=True, slots=True)
class _InTheWay:
    """What a reader cannot read: why, where it may go on, and the batch; None = retention has deleted it."""

    why: str
    to: int
    batch: RawBatch | None


def skip(
    reader: Annotated[str, typer.Argument(help="A consumer group, events.email_log or events.file.")],
    topic: Annotated[str, typer.Argument()],
    partition: Annotated[int, typer.Argument(min=0)],
    offset: Annotated[int, typer.Argument(min=0, help="The one it is blocked at, as /readyz and the log tell.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Let a blocked reader step over the batch that it cannot read. The batch is parked first; nobody handles it."""
    from services.kit.kafka.records import Partition

    where = Partition(topic, partition)
    found = run(_look(reader, where, offset))
    kept = "Park the batch and let" if found.batch else "Nothing is left to be kept. Let"
    confirm(
        f"{topic}/{partition} cannot be read at {offset} ({found.why}). {kept} {reader} go on at {found.to}, "
        f"without offsets {offset} to {found.to - 1}?",
        yes=yes,
    )
    parked_id, passed = run(_step_over(reader, where, offset, found))
    service = service_of(reader)
    if json:
        print_json({"parked": parked_id, "service": service, "goesOnAt": found.to, "passed": passed})
        return
    if parked_id is not None:
        say(f"parked: mailroom parked show --service {service} '{parked_id}'")
    say(f"{reader} {'went' if passed else 'goes'} on at {found.to}{'' if passed else ' as soon as it runs'}")


def service_of(reader: str) -> Literal["email", "files", "events"]:
    """Whose reader it is, by its name. Raises PermanentError for one that is no service's."""
    from services.kit.errors import PermanentError

    for prefix, service in _SERVICES.items():
        if reader.startswith(prefix):
            return service
    raise PermanentError("noReader", f"{reader} is no service's: names begin with {', '.join(_SERVICES)}")


async def _look(reader: str, where: Partition, offset: int) -> _InTheWay:
    """What is in the way. Ends the command unless it is this that blocks the reader."""
    from services.kit.kafka.stepping_over import fetch_batch, first_offset, why_unreadable

    connection = kafka(MONGO, ENCRYPTION).kafka
    stands = await _stands(reader, where)
    if offset not in stands:
        told = ", ".join(map(str, sorted(stands))) or "nowhere"
        raise refuse(f"{reader} is not at {offset} of {where.topic}/{where.partition}: it stands at {told}")
    first = await first_offset(connection, where)
    if offset < first:
        return _InTheWay(f"the log begins at {first}", first, None)
    batch = await fetch_batch(connection, where, offset)
    why = await why_unreadable(connection, where, offset)
    if not why:
        raise refuse(f"{where.topic}/{where.partition} can be read at {offset}: nothing is in its way")
    return _InTheWay(why, batch.last + 1, batch)


async def _step_over(reader: str, where: Partition, offset: int, found: _InTheWay) -> tuple[str | None, bool]:
    """Park, then let the reader go on: the parked record's id, and whether it was seen to have gone on."""
    from services.cli.events_service import events_service
    from services.kit.parking_mongo import MongoParkingLot

    if service_of(reader) == "events":
        async with events_service() as base:
            parked_id = await _park(base.parking, reader, where, offset, found)
            side = _side(base, reader)
            for generation, at in await _checkpoints(side, where):
                if at == offset:
                    await side.leases(generation).step_over(where.partition, found.to)
    else:
        async with database(service_of(reader)) as own:
            parked_id = await _park(MongoParkingLot(own, key_ring()), reader, where, offset, found)
    loop = asyncio.get_running_loop()
    until = loop.time() + FOLLOW_SECONDS
    while offset in await _stands(reader, where):
        if loop.time() > until:
            return parked_id, False
        await asyncio.sleep(LOOK_SECONDS)
    return parked_id, True


async def _park(lot: ParkingLot, reader: str, where: Partition, offset: int, found: _InTheWay) -> str | None:
    from services.kit.kafka.stepping_over import ordered_offset, step_over_order

    if found.batch is None:
        return None
    order = step_over_order(reader, where, offset, found.batch, actor(), datetime.now(UTC))
    await lot.park([order])
    if ordered_offset(await lot.find(order.id)) != found.to:
        raise refuse(f"something else is parked already as {order.id}: look at it")
    return order.id


async def _stands(reader: str, where: Partition) -> set[int]:
    """Where the reader is in this partition: one offset, or of a projection one for each generation."""
    from services.cli.events_service import events_service
    from services.kit.kafka.stepping_over import standing

    if service_of(reader) == "events":
        async with events_service() as base:
            return {at for _, at in await _checkpoints(_side(base, reader), where)}
    return {await standing(kafka().kafka, reader, where)}


def _side(base: Foundation, reader: str) -> ReadingSide:
    from services.events.foundation import side_of

    return side_of(base, reader.removeprefix(_PROJECTION))


async def _checkpoints(side: ReadingSide, where: Partition) -> list[tuple[int, int]]:
    """(generation, checkpoint) of all that read this partition."""
    from services.events.stages import PROJECTED

    if where.topic != side.projection.topic:
        return []
    found: list[tuple[int, int]] = []
    for each in await side.generations.list():
        if each.stage in PROJECTED or each.stage == "backfilling":
            leases = await side.leases(each.number).view()
            found += [(each.number, lease.next) for lease in leases if lease.partition == where.partition]
    return found
