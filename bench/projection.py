"""The reading side against MongoDB's Kafka sink connector: same topic, same machine, same declared indexes, one run.

The peer upserts each event into the document of its subject and knows no order, no repetition and no status. Ours is
measured twice: a rebuild from nothing to the swap, indexes included, and live projectors with the indexes in place.
`MAILROOM_BENCH_EVENTS` sets another size than a million.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from pymongo import IndexModel, MongoClient

from bench.generate import records
from bench.ground import Program, ground, roots, start, wait_until
from bench.guarded_replaces import replaces_per_second
from bench.measure import Meter, Usage, as_data, machine
from bench.results import Aim, BenchFailed, Result, Table
from bench.sink_connector import GROUP, sink_connector
from contracts.topics import EMAIL_EVENTS
from deploy.local.site import HOST, free_ports
from deploy.local.stack import Stack
from services.events.adapters.backfill_processes import BackfillProcesses
from services.events.composing import ReadingSide
from services.events.projections.projection import EMAIL_LOG
from services.kit.logs import configure
from services.kit.metrics import PROJECTED_DOCUMENTS, Metrics
from services.kit.mongo import connect
from services.kit.testing.parking import MemoryParkingLot

TOPIC = EMAIL_EVENTS.name
MILLION, QUICK = 1_000_000, 100_000
LONGEST = 1800.0
PROJECTORS = 2


@dataclass(frozen=True, slots=True)
class Run:
    """One contender over the whole topic. `writes`: documents written, each as often as it was; 0 = not counted."""

    seconds: float
    usage: Mapping[str, Usage]
    documents: int
    writes: int = 0

    def rate(self, events: int) -> float:
        """Events a second."""
        return events / self.seconds


def run(quick: bool) -> Result:
    """Measure peer, rebuild and live one after the other on one stack."""
    configure("warning", "console")
    about = machine()
    wanted = QUICK if quick else int(os.environ.get("MAILROOM_BENCH_EVENTS", MILLION))
    with ground(["kafka", "mongo"]) as stack:
        events, messages = asyncio.run(_fill(stack, wanted))
        print(f"  {events:,} events of {messages:,} messages are on {TOPIC}", flush=True)
        peer = _peer(stack, events)
        print(f"  sink connector: {peer.rate(events):,.0f} events/s", flush=True)
        rebuild, stages = _rebuild(stack, messages)
        print(f"  rebuild: {rebuild.rate(events):,.0f} events/s", flush=True)
        live = _live(stack, messages)
        print(f"  live: {live.rate(events):,.0f} events/s", flush=True)
        replaces = replaces_per_second(stack.site.addresses().mongo_url, "bench_replaces", 3.0 if quick else 10.0)
    return _result(about, events, messages, peer, rebuild, stages, live, replaces)


def _result(
    about: dict[str, Any],
    events: int,
    messages: int,
    peer: Run,
    rebuild: Run,
    stages: Mapping[str, float],
    live: Run,
    replaces: float,
) -> Result:
    base = peer.rate(events)
    memory = max(each.usage["ours"].peak_mb / max(each.usage["ours"].processes, 1) for each in (rebuild, live))
    aims = [
        Aim("rebuild end to end, times the sink connector", rebuild.rate(events) / base, 4.5, " ×"),
        Aim("live, times the sink connector", live.rate(events) / base, 1.5, " ×"),
        Aim("live writes, of bare guarded replaces", 100 * live.writes / live.seconds / replaces, 80, " %"),
        Aim("peak memory of a process", memory, 600, " MB", at_most=True),
    ]
    contenders = {"sink connector": peer, "rebuild": rebuild, "live": live}
    speed = Table(
        f"{events:,} events of {messages:,} messages, {len(EMAIL_LOG.indexes)} declared indexes",
        ("", "seconds", "events/s", "× peer"),
        [(name, each.seconds, each.rate(events), each.rate(events) / base) for name, each in contenders.items()],
    )
    micro = 1e6 / events
    cost = Table(
        "CPU in µs an event, and the sum of the processes' peaks of memory",
        ("", "contender", "MongoDB", "Kafka", "peak MB"),
        [
            (
                name,
                each.usage["ours"].cpu_seconds * micro,
                each.usage["mongo"].cpu_seconds * micro,
                each.usage["kafka"].cpu_seconds * micro,
                each.usage["ours"].peak_mb,
            )
            for name, each in contenders.items()
        ],
    )
    notes = [
        f"Rebuild by stage: {', '.join(f'{name} {seconds:.1f} s' for name, seconds in stages.items())}.",
        f"Bare guarded replaces of such documents with the indexes in place: {replaces:,.0f} a second; live made "
        f"{live.writes / live.seconds:,.0f} a second, {live.writes / live.documents:.2f} a document.",
        "The peer is timed from its first document on, without the start of its JVM; the rebuild from its beginning to "
        "the swap, its workers' start included; live from the first checkpoint that moved.",
    ]
    data = {
        "events": events,
        "messages": messages,
        "stages": dict(stages),
        "guardedReplacesPerSecond": replaces,
        **{
            name: {
                "seconds": each.seconds,
                "documents": each.documents,
                "writes": each.writes,
                "usage": as_data(each.usage),
            }
            for name, each in contenders.items()
        },
    }
    return Result("projection", about, aims, [speed, cost], notes, data)


async def _fill(stack: Stack, wanted: int) -> tuple[int, int]:
    bootstrap = stack.site.addresses().kafka_bootstrap
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(TOPIC, EMAIL_EVENTS.partitions, 1, topic_configs=EMAIL_EVENTS.configs)])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", linger_ms=20, max_batch_size=1 << 18)
    await producer.start()
    events, keys = 0, set()
    for key, value in records(wanted):
        await producer.send(TOPIC, value, key=key)
        keys.add(key)
        events += 1
    await producer.flush()
    await producer.stop()
    return events, len(keys)


@contextmanager
def _database(stack: Stack, name: str) -> Iterator[MongoClient[dict[str, Any]]]:
    """A client; the database is dropped at the end, so that contenders meet the same server."""
    client: MongoClient[dict[str, Any]] = MongoClient(stack.site.addresses().mongo_url)
    try:
        yield client
    finally:
        client.drop_database(name)
        client.close()


def _peer(stack: Stack, events: int) -> Run:
    with _database(stack, "bench_peer") as client:
        collection = client["bench_peer"]["email_log"]
        collection.create_indexes([IndexModel(list(index)) for index in EMAIL_LOG.indexes])
        with sink_connector(stack, TOPIC, "bench_peer", "email_log") as program:

            def begun() -> bool:
                program.check()
                return collection.find_one() is not None

            wait_until(begun, "the sink connector's first document", 120, every=0.02)
            with Meter({"ours": [program.pid], **roots(stack, "kafka", "mongo")}) as meter:
                began = time.monotonic()
                asyncio.run(_until_committed(stack, events))
                seconds = time.monotonic() - began
        return Run(seconds, meter.usage, collection.estimated_document_count())


async def _until_committed(stack: Stack, events: int) -> None:
    """Until the connector's group has committed the end of every partition."""
    bootstrap = stack.site.addresses().kafka_bootstrap
    consumer, admin = AIOKafkaConsumer(bootstrap_servers=bootstrap), AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await consumer.start()
    await admin.start()
    try:
        ends = await consumer.end_offsets([TopicPartition(TOPIC, each) for each in range(EMAIL_EVENTS.partitions)])
        until = time.monotonic() + LONGEST
        while time.monotonic() < until:
            committed = await admin.list_consumer_group_offsets(GROUP)
            if all(each in committed and committed[each].offset >= end for each, end in ends.items() if end):
                return
            await asyncio.sleep(0.1)
    finally:
        await consumer.stop()
        await admin.close()
    raise BenchFailed(f"the sink connector did not take {events} events in {LONGEST:.0f} s")


def environment(stack: Stack, database: str) -> dict[str, str]:
    """The settings of a process of the events service over a database of its own."""
    addresses = stack.site.addresses()
    return {
        "MAILROOM_KAFKA_BOOTSTRAP": addresses.kafka_bootstrap,
        "MAILROOM_MONGO_URL": addresses.mongo_url,
        "MAILROOM_EVENTS_DATABASE": database,
        "MAILROOM_PUBLIC_URL": addresses.public_url,
        "FILE_ENCRYPTION_KEY": "only-for-this-benchmark-" * 2,
        "MAILROOM_JWT_ALGORITHM": "HS256",
        "MAILROOM_JWT_SECRET": "only-for-this-benchmark-" * 2,
        "MAILROOM_LOG_LEVEL": "warning",
    }


def side_of(stack: Stack, database: str) -> ReadingSide:
    """The reading side of mail in this process."""
    addresses = stack.site.addresses()
    client = connect(addresses.mongo_url)
    return ReadingSide(EMAIL_LOG, addresses.kafka_bootstrap, client[database], MemoryParkingLot(), Metrics())


def _rebuild(stack: Stack, messages: int) -> tuple[Run, dict[str, float]]:
    database = "bench_rebuild"
    workers = BackfillProcesses(EMAIL_LOG.name, PROJECTORS, os.environ | environment(stack, database))

    async def rebuild(meter: Meter) -> dict[str, float]:
        side = side_of(stack, database)
        began = time.monotonic()
        work = side.rebuild(workers)
        generation = await work.create()
        running = asyncio.create_task(work.run(generation.number))
        stages: dict[str, float] = {}
        metered: set[int] = set()
        while not running.done():
            for pid in set(workers.pids) - metered:
                meter.add("ours", pid)
                metered.add(pid)
            found = await side.generations.get(generation.number)
            if found is not None and found.progress is not None:
                stages[found.progress.stage] = time.monotonic() - began
            await asyncio.sleep(0.05)
        await running
        return dict(zip(stages, _differences(list(stages.values())), strict=True))

    with _database(stack, database) as client:
        with Meter({"ours": [], **roots(stack, "kafka", "mongo"), "coordinator": [os.getpid()]}) as meter:
            began = time.monotonic()
            stages = asyncio.run(rebuild(meter))
            seconds = time.monotonic() - began
        return Run(seconds, meter.usage, _counted(client[database], messages)), stages


def _differences(values: list[float]) -> list[float]:
    return [value - before for before, value in zip([0.0, *values], values, strict=False)]


def _live(stack: Stack, messages: int) -> Run:
    database = "bench_live"
    with _database(stack, database) as client:
        leases = client[database]["leases"]
        ours = {"generation": f"{EMAIL_LOG.name}/1"}  # the programs project files too: there are none
        programs = [projector(stack, database, number) for number in range(PROJECTORS)]
        try:

            def moved() -> int:
                for program in programs:
                    program.check()
                return sum(each["next"] - each["begin"] for each in leases.find(ours))

            wait_until(
                lambda: leases.count_documents({**ours, "owner": {"$ne": None}}) > 0, "the first lease", 60, every=0.02
            )
            ends = asyncio.run(_ends(stack))
            meter = Meter({"ours": [each.pid for each in programs], **roots(stack, "kafka", "mongo")})
            with meter:
                began = time.monotonic()
                wait_until(lambda: moved() >= ends, "the live projectors", LONGEST, every=0.05)
                seconds = time.monotonic() - began
            writes = sum(map(_written, programs))
        finally:
            for program in programs:
                program.stop()
        return Run(seconds, meter.usage, _counted(client[database], messages), writes)


def _written(program: Program) -> int:
    """Documents that a projector has written, by its own count."""
    text = httpx.get(f"http://{HOST}:{program.port}/metrics", timeout=10, trust_env=False).text
    return sum(
        int(float(line.rpartition(" ")[2]))
        for line in text.splitlines()
        if line.startswith(f"{PROJECTED_DOCUMENTS.name}{{")
    )


def projector(stack: Stack, database: str, number: int) -> Program:
    """Start a process that projects."""
    (port,) = free_ports(1)
    env = environment(stack, database) | {"MAILROOM_EVENTS_PORT": str(port)}
    return start(stack, f"projector-{number}", [sys.executable, "-m", "services.events", "projector"], env, port)


async def _ends(stack: Stack) -> int:
    reader = side_of(stack, "bench_live").log()
    await reader.start()
    try:
        return sum(end - first for first, end in (await reader.bounds()).values())
    finally:
        await reader.stop()


def _counted(database: Any, messages: int) -> int:
    """How many documents the active generation has; BenchFailed unless there is one of each message."""
    active = database["projections"].find_one({"_id": EMAIL_LOG.name})["active"]
    count = int(database[f"{EMAIL_LOG.name}__g{active}"].count_documents({}))
    if count != messages:
        raise BenchFailed(f"{count} documents of {messages} messages: the read model is not the log's")
    return count
