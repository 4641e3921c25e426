"""`mailroom lag`: how far everybody who reads from Kafka is behind."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.cli.environment import MONGO, database, kafka, run
from services.cli.output import Json, console, print_json, say, span, table

if TYPE_CHECKING:
    from services.events.ports import LeaseStore
    from services.events.projections.projection import Projection
    from services.kit.kafka.connection import Connection
    from services.kit.mongo import Database


@dataclass(frozen=True, slots=True)
class Reader:
    """Somebody in one partition. `reader` is a consumer group, or a projection's generation."""

    kind: str
    reader: str
    topic: str
    partition: int
    position: int
    end: int
    owner: str | None

    @property
    def lag(self) -> int:
        return max(0, self.end - self.position)

    @property
    def key(self) -> tuple[str, str, str, int]:
        return (self.kind, self.reader, self.topic, self.partition)


@dataclass(frozen=True, slots=True)
class Moving:
    """A reader and its pace in records a second; None where it was not measured."""

    now: Reader
    rate: float | None

    @property
    def eta(self) -> float | None:
        """Seconds until it has caught up at this pace, None = never or not known."""
        if self.now.lag == 0:
            return 0.0
        return self.now.lag / self.rate if self.rate else None


def lag(
    partitions: Annotated[bool, typer.Option("--partitions", "-p", help="Each partition, not sums by topic.")] = False,
    seconds: Annotated[float, typer.Option(min=0, max=60, help="Measure the pace over so long; 0 = not at all.")] = 1.0,
    json: Json = False,
) -> None:
    """Position, end, lag and pace of every consumer group and of every generation of a projection, in records."""
    found = run(_measure(seconds))
    if json:
        print_json([_as_json(each) for each in found])
        return
    if not found:
        say("nobody has read anything yet")
        return
    if partitions:
        rows = table("reader", "topic", "part", "position", "end", "lag", "/s", "owner", right=_NUMBERS)
        for each in found:
            at = each.now
            rows.add_row(at.reader, at.topic, str(at.partition), *_numbers(each), (at.owner or "")[-8:])
    else:
        rows = table("reader", "topic", "done", "end", "lag", "/s", "ready in", right=_NUMBERS)
        for whole in _by_topic(found):
            at = whole.now
            rows.add_row(at.reader, at.topic, *_numbers(whole), "now" if at.lag == 0 else span(whole.eta))
    console().print(rows)


_NUMBERS = ("part", "position", "done", "end", "lag", "/s")


async def _measure(seconds: float) -> list[Moving]:
    first = await _readers()
    if not seconds:
        return [Moving(each, None) for each in first]
    loop = asyncio.get_running_loop()
    began = loop.time()
    await asyncio.sleep(seconds)
    second = await _readers()
    passed = loop.time() - began
    before = {each.key: each.position for each in first}
    return [Moving(each, max(0, each.position - before.get(each.key, each.position)) / passed) for each in second]


async def _readers() -> list[Reader]:
    from services.events.projections.projection import PROJECTIONS
    from services.kit.kafka.group_lags import group_lags

    connection = kafka(MONGO).kafka
    groups = await group_lags(connection)
    found = [Reader("group", g.group, g.topic, g.partition, g.position, g.end, None) for g in groups]
    async with database("events") as own:
        for projection in PROJECTIONS:
            found += await _generations(own, connection, projection)
    return found


async def _generations(own: Database, connection: Connection, projection: Projection) -> list[Reader]:
    from services.events.adapters.kafka_log import KafkaLog
    from services.events.adapters.mongo_generations import MongoGenerations
    from services.events.adapters.mongo_leases import MongoLeases
    from services.events.watching import projection_state

    def leases(number: int) -> LeaseStore:
        return MongoLeases(own, projection.name, number, projection.topic)

    log = KafkaLog(connection, projection.topic, client_id="mailroom-lag")
    await log.start()
    try:
        state = await projection_state(projection, MongoGenerations(own, projection), leases, log)
    finally:
        await log.stop()
    stages = {each.number: each.stage for each in state.generations}
    return [
        Reader(
            "projection",
            f"{state.name} g{p.generation} ({stages[p.generation]})",
            state.topic,
            p.partition,
            p.position,
            p.end,
            p.owner,
        )
        for p in state.partitions
    ]


def _by_topic(found: Sequence[Moving]) -> list[Moving]:
    """Sums over partitions."""
    gathered: dict[tuple[str, str, str], list[Moving]] = {}
    for each in found:
        gathered.setdefault(each.now.key[:3], []).append(each)
    sums: list[Moving] = []
    for (kind, reader, topic), members in gathered.items():
        end = sum(each.now.end for each in members)
        behind = sum(each.now.lag for each in members)
        rates = [each.rate for each in members if each.rate is not None]
        whole = Reader(kind, reader, topic, -1, end - behind, end, None)
        sums.append(Moving(whole, sum(rates) if rates else None))
    return sums


def _numbers(each: Moving) -> tuple[str, str, str, str]:
    pace = "" if each.rate is None else f"{each.rate:.0f}"
    return str(each.now.position), str(each.now.end), str(each.now.lag), pace


def _as_json(each: Moving) -> dict[str, Any]:
    at = each.now
    return {
        "kind": at.kind,
        "reader": at.reader,
        "topic": at.topic,
        "partition": at.partition,
        "position": at.position,
        "end": at.end,
        "lag": at.lag,
        "rate": each.rate,
        "owner": at.owner,
    }
