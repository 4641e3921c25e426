"""`mailroom skip`: past a record batch that cannot be read, after its bytes were put into the parking lot."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from services.cli.environment import KAFKA, actor, database, key_ring, need, run
from services.cli.output import Json, confirm, print_json, refuse, say

if TYPE_CHECKING:
    from services.kit.kafka.records import Partition
    from services.kit.kafka.stepping_over import RawBatch
    from services.kit.mongo import Database

FOLLOW_SECONDS: Final = 30.0
LOOK_SECONDS: Final = 0.5

_PROJECTION: Final = "events.email_log"


def skip(
    reader: Annotated[str, typer.Argument(help="A consumer group, or events.email_log.")],
    topic: Annotated[str, typer.Argument()],
    partition: Annotated[int, typer.Argument(min=0)],
    offset: Annotated[int, typer.Argument(min=0, help="The one it is blocked at, as /readyz and the log tell.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Let a blocked reader step over the batch that it cannot read. The batch is parked first; nobody handles it."""
    from services.kit.kafka.records import Partition

    where = Partition(topic, partition)
    batch, why = run(_look(reader, where, offset))
    span = f"offset {offset}" if offset == batch.last else f"offsets {offset} to {batch.last}"
    confirm(
        f"{topic}/{partition} cannot be read at {offset} ({why}). Park the batch and let {reader} step over {span}, "
        "which it will not handle?",
        yes=yes,
    )
    parked_id, passed = run(_step_over(reader, where, offset, batch))
    service = _service(reader)
    if json:
        print_json({"parked": parked_id, "service": service, "goesOnAt": batch.last + 1, "passed": passed})
        return
    say(f"parked: mailroom parked show --service {service} '{parked_id}'")
    went = f"went on at {batch.last + 1}" if passed else f"goes on at {batch.last + 1} as soon as it runs"
    say(f"{reader} {went}")


def _service(reader: str) -> Literal["email", "events"]:
    """Whose reader it is. Raises PermanentError for one that nobody knows."""
    from services.cli.email_service import role_of

    if reader == _PROJECTION:
        return "events"
    role_of(reader)
    return "email"


async def _look(reader: str, where: Partition, offset: int) -> tuple[RawBatch, str]:
    """The batch in the way, and why it cannot be read. Ends the command unless this is what blocks the reader."""
    from services.kit.kafka.stepping_over import fetch_batch, why_unreadable

    bootstrap = need(KAFKA, "MAILROOM_MONGO_URL", "FILE_ENCRYPTION_KEY")[KAFKA]
    stands = await _stands(reader, where)
    if offset not in stands:
        told = ", ".join(map(str, sorted(stands))) or "nowhere"
        raise refuse(f"{reader} is not at {offset} of {where.topic}/{where.partition}: it stands at {told}")
    batch = await fetch_batch(bootstrap, where, offset)
    why = await why_unreadable(bootstrap, where, offset)
    if not why:
        raise refuse(f"{where.topic}/{where.partition} can be read at {offset}: nothing is in its way")
    return batch, why


async def _step_over(reader: str, where: Partition, offset: int, batch: RawBatch) -> tuple[str, bool]:
    """Park, then let the reader go on: the parked record's id, and whether it was seen to have gone on."""
    from services.kit.kafka.stepping_over import ordered_offset, step_over_order
    from services.kit.parking_mongo import MongoParkingLot

    order = step_over_order(reader, where, offset, batch, actor(), datetime.now(UTC))
    async with database(_service(reader)) as own:
        lot = MongoParkingLot(own, key_ring())
        await lot.park([order])
        if ordered_offset(await lot.show(order.id)) != batch.last + 1:
            raise refuse(f"something else is parked as {order.id}: discarding it does not help, look at it")
        if _service(reader) == "events":
            await _move_leases(own, where, offset, batch)
    loop = asyncio.get_running_loop()
    until = loop.time() + FOLLOW_SECONDS
    while offset in await _stands(reader, where):
        if loop.time() > until:
            return order.id, False
        await asyncio.sleep(LOOK_SECONDS)
    return order.id, True


async def _stands(reader: str, where: Partition) -> set[int]:
    """Where the reader is in this partition: one offset, or of a projection one for each generation."""
    from services.kit.kafka.stepping_over import standing

    if _service(reader) == "events":
        async with database("events") as own:
            return {at for _, at in await _checkpoints(own, where)}
    return {await standing(need(KAFKA)[KAFKA], reader, where)}


async def _checkpoints(own: Database, where: Partition) -> list[tuple[int, int]]:
    """(generation, checkpoint) of all that read this partition."""
    from services.events.adapters.mongo_generations import MongoGenerations
    from services.events.adapters.mongo_leases import MongoLeases
    from services.events.generations import PROJECTED
    from services.events.projections.projection import EMAIL_LOG

    if where.topic != EMAIL_LOG.topic:
        return []
    found: list[tuple[int, int]] = []
    for each in await MongoGenerations(own, EMAIL_LOG).list():
        if each.stage in PROJECTED or each.stage == "backfilling":
            leases = await MongoLeases(own, EMAIL_LOG.name, each.number, where.topic).view()
            found += [(each.number, lease.next) for lease in leases if lease.partition == where.partition]
    return found


async def _move_leases(own: Database, where: Partition, offset: int, batch: RawBatch) -> None:
    from services.events.adapters.mongo_leases import MongoLeases
    from services.events.projections.projection import EMAIL_LOG

    for generation, at in await _checkpoints(own, where):
        if at == offset:
            leases = MongoLeases(own, EMAIL_LOG.name, generation, where.topic)
            await leases.step_over(where.partition, batch.last + 1)
