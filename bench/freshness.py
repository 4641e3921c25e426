"""How soon something can be seen in `GET /api/email/{id}`: a notification on SQS, an event on Kafka.

Times begin before the call that puts it there and end when the answer that shows it is read (`bench.sight`). The
baselines do the least that makes the same thing visible (`bench.baselines.bare_receivers`), watched in the same way,
alone on the machine after Mailroom has stopped.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import Any

import aioboto3
import aiohttp
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from pymongo import AsyncMongoClient, MongoClient

from bench import mails
from bench.acceptances import Acceptances
from bench.arrivals import KAFKA_RATE, SQS_RATE, notify, play
from bench.baselines.bare_receivers import COLLECTION, DATABASE
from bench.contenders import BESIDE, publish
from bench.generate import records
from bench.ground import Program, ground, roots, running, start_service, wait_ready, wait_until
from bench.measure import Meter, Usage, as_data, machine
from bench.results import Aim, Result, Table, percentile
from bench.sends import set_simulator
from bench.sight import Look, Sight, times_of
from contracts.ids import uuid7
from contracts.topics import EMAIL_EVENTS
from deploy.local.site import HOST
from deploy.local.stack import Stack
from deploy.processes import aws_environment
from services.events.adapters.mongo_read_models import collection_name
from services.events.projections.projection import EMAIL_LOG
from services.kit.auth import mint_token

GENERATOR = "generator"
"""The benchmark itself: what it puts there, the change stream, the looks."""

BARE_TOPIC, BARE_QUEUE = "bench.bare", "bench-bare"

Put = Callable[[Sight], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen on one way. Seconds; `things` arrived."""

    name: str
    things: int
    seconds: Sequence[float]
    looks: int
    usage: Mapping[str, Usage]
    own: Sequence[str]
    elsewhere: float
    wall: float

    def ms(self, hundredths: int) -> float:
        """A percentile in milliseconds."""
        return round(percentile(self.seconds, hundredths) * 1000, 1)

    def cpu_ms(self, names: Sequence[str]) -> float:
        """CPU milliseconds of these for each thing that arrived."""
        return sum(self.usage[name].cpu_seconds for name in names if name in self.usage) * 1000 / self.things


def run(quick: bool) -> Result:
    """Measure; see the module."""
    seconds = 5 if quick else 60
    found_on = machine()
    story = list(islice(records(KAFKA_RATE * seconds), KAFKA_RATE * seconds))
    with ground(("mongo", "topics", "resources", "simulator")) as stack:
        set_simulator(stack, notifications=False)
        events = start_service(stack, sys.executable, ("services.events", "all"), "MAILROOM_EVENTS_PORT")
        email = start_service(stack, sys.executable, ("services.email", "all"), "MAILROOM_EMAIL_PORT")
        try:
            wait_ready(events)
            wait_ready(email)
            sent = _send_mails(stack, SQS_RATE * seconds, email)
            queue = stack.resources().queue_url
            seen = [
                _mailroom(
                    "from SQS", stack, len(sent), {"email": email}, events, lambda s: notify(stack, queue, sent, s)
                )
            ]
            email.stop()
            seen.append(
                _mailroom(
                    "from Kafka", stack, len(story), {}, events, lambda s: play(stack, EMAIL_EVENTS.name, story, s)
                )
            )
        finally:
            email.stop()
            events.stop()
        queue = asyncio.run(_make_queue(stack))
        bare = [
            _bare("SQS, bare", stack, len(sent), ("sqs", queue), lambda s: notify(stack, queue, sent, s)),
            _bare("Kafka, bare", stack, len(story), _topic(stack), lambda s: play(stack, BARE_TOPIC, story, s)),
        ]
    return _result(found_on, seen, bare)


def _send_mails(stack: Stack, count: int, email: Program) -> list[dict[str, Any]]:
    """Send mails and wait until EmailLog has them; what the provider said of each."""
    print(f"  sending {count} mails that notifications will be about", flush=True)
    taken = Acceptances(stack)
    ids = [uuid7() for _ in range(count)]
    asyncio.run(publish(stack, [(each.encode(), mails.command(n, each)) for n, each in enumerate(ids)]))
    taken.wait(count, email.check)
    client: MongoClient[dict[str, Any]] = MongoClient(stack.site.addresses().mongo_url)
    with client:
        shown = client[stack.env()["MAILROOM_EVENTS_DATABASE"]][_email_log(stack)]
        wait_until(lambda: shown.count_documents({"status": "sent"}) >= count, "EmailLog to hold the mails", 120)
    return taken.entries()


# --- who makes it visible, and how it is looked at -------------------------------------------------------------------


def _mailroom(name: str, stack: Stack, things: int, others: Mapping[str, Program], events: Program, put: Put) -> Seen:
    """Mailroom's own processes, looked at through the API."""
    groups = {label: [each.pid] for label, each in {**others, "events": events}.items()}
    database = stack.env()["MAILROOM_EVENTS_DATABASE"]

    async def measure() -> Sight:
        async with (
            _api(stack, events) as look,
            Sight(stack.site.addresses().mongo_url, database, _email_log(stack), look) as sight,
        ):
            await put(sight)
            await sight.all_seen()
            return sight

    return _metered(name, stack, things, groups, measure)


def _bare(name: str, stack: Stack, things: int, what: tuple[str, str], put: Put) -> Seen:
    """A baseline, looked at through MongoDB."""
    url = stack.site.addresses().mongo_url
    kind, place = what
    where = [place] if kind == "sqs" else [stack.site.addresses().kafka_bootstrap, place]
    command = [sys.executable, "-m", "bench.baselines.bare_receivers", kind, url, *where]
    MongoClient(url)[DATABASE].drop_collection(COLLECTION)

    async def measure() -> Sight:
        client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(url)

        async def look(document: str) -> set[Any]:
            found = await client[DATABASE][COLLECTION].find_one({"_id": document})
            return times_of(found) if found else set()

        async with Sight(url, DATABASE, COLLECTION, look) as sight:
            await put(sight)
            await sight.all_seen()
            return sight

    with running(stack, f"bare-{kind}", command, aws_environment(stack.site.url("aws"))) as program:

        def ready() -> bool:
            program.check()
            return "ready" in program.log.read_text()

        wait_until(ready, f"the bare receiver of {kind}", 30)
        return _metered(name, stack, things, {"receiver": [program.pid]}, measure)


def _metered(
    name: str, stack: Stack, things: int, groups: Mapping[str, list[int]], measure: Callable[[], Awaitable[Sight]]
) -> Seen:
    async def run_it() -> Sight:
        return await measure()

    before = time.process_time()
    with Meter({**groups, **roots(stack, *BESIDE)}) as meter:
        sight = asyncio.run(run_it())
    generator = Usage(time.process_time() - before, 0.0, 1)
    seen = Seen(
        name,
        things,
        sight.seconds,
        sight.looks,
        {**meter.usage, GENERATOR: generator},
        tuple(groups),
        max(0.0, meter.elsewhere_seconds - generator.cpu_seconds),
        meter.wall_seconds,
    )
    print(
        f"  {name}: p50 {seen.ms(50)} ms, p99 {seen.ms(99)} ms of {len(seen.seconds)} looked for, "
        f"own CPU {seen.cpu_ms(seen.own):.2f} ms each",
        flush=True,
    )
    return seen


@asynccontextmanager
async def _api(stack: Stack, events: Program) -> AsyncIterator[Look]:
    """Looks through `GET /api/email/{id}`, as an admin."""
    token = mint_token(stack.env()["MAILROOM_JWT_SECRET"], "bench", ["email:read"], "admin", timedelta(hours=2))
    base = f"http://{HOST}:{events.port}/api/email"
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=64)) as session:

        async def look(document: str) -> set[Any]:
            async with session.get(f"{base}/{document}") as answer:
                if answer.status == 404:
                    return set()
                answer.raise_for_status()
                return times_of((await answer.json())["data"])

        yield look


def _email_log(stack: Stack) -> str:
    """The collection of the active generation."""
    client: MongoClient[dict[str, Any]] = MongoClient(stack.site.addresses().mongo_url)
    with client:
        pointer = client[stack.env()["MAILROOM_EVENTS_DATABASE"]]["projections"].find_one({"_id": EMAIL_LOG.name})
    assert pointer is not None
    return collection_name(EMAIL_LOG.name, pointer["active"])


async def _make_queue(stack: Stack) -> str:
    """A queue that nobody but the baseline reads: its URL."""
    env = aws_environment(stack.site.url("aws"))
    session = aioboto3.Session(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], region_name=env["AWS_REGION"])
    async with session.client("sqs", endpoint_url=env["AWS_ENDPOINT_URL"]) as sqs:
        made = await sqs.create_queue(QueueName=BARE_QUEUE)
        return str(made["QueueUrl"])


def _topic(stack: Stack) -> tuple[str, str]:
    """A topic with as many partitions as `email.events`, that nobody but the baseline reads."""

    async def make() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=stack.site.addresses().kafka_bootstrap)
        await admin.start()
        try:
            await admin.create_topics([NewTopic(BARE_TOPIC, EMAIL_EVENTS.partitions, 1)])
        finally:
            await admin.close()

    asyncio.run(make())
    return "kafka", BARE_TOPIC


# --- the figures -----------------------------------------------------------------------------------------------------


def _result(found_on: dict[str, Any], seen: Sequence[Seen], bare: Sequence[Seen]) -> Result:
    from_sqs, from_kafka = seen
    aims = [
        Aim(f"p99 from SQS at {SQS_RATE} notifications/s to the API", from_sqs.ms(99), 250, " ms", at_most=True),
        Aim(f"p99 from Kafka at {KAFKA_RATE} events/s to the API", from_kafka.ms(99), 100, " ms", at_most=True),
    ]
    ways: list[Seen] = [way for pair in zip(seen, bare, strict=True) for way in pair]
    times = Table(
        "Milliseconds until visible; the ratio is to the bare receiver of the same source",
        ("way", "p50", "p90", "p99", "worst", "looked for", "p50, ratio", "p99, ratio"),
        [
            (
                way.name,
                way.ms(50),
                way.ms(90),
                way.ms(99),
                round(max(way.seconds) * 1000, 1),
                len(way.seconds),
                way.ms(50) / bare[number // 2].ms(50),
                way.ms(99) / bare[number // 2].ms(99),
            )
            for number, way in enumerate(ways)
        ],
    )
    labels = ("email", "events", "receiver", *BESIDE)
    cpu = Table(
        "CPU milliseconds for each notification or event (looks included: they are asked of the events service)",
        ("way", "its own", *labels, GENERATOR, "all else", "looks"),
        [
            (
                way.name,
                way.cpu_ms(way.own),
                *(way.cpu_ms([label]) for label in (*labels, GENERATOR)),
                way.elsewhere * 1000 / way.things,
                way.looks,
            )
            for way in ways
        ],
    )
    memory = Table(
        "Peak memory, MB",
        ("way", *labels),
        [(way.name, *(way.usage[label].peak_mb if label in way.usage else "" for label in labels)) for way in ways],
    )
    strangers = max(way.elsewhere / way.wall for way in ways)
    notes = [
        f"The machine was {'quiet' if strangers < 0.25 else 'NOT quiet'}: other programs and the kernel used at most "
        f"{strangers:.0%} of one core."
    ]
    data = {
        way.name: {
            "things": way.things,
            "lookedFor": len(way.seconds),
            "p50Ms": way.ms(50),
            "p90Ms": way.ms(90),
            "p99Ms": way.ms(99),
            "worstMs": round(max(way.seconds) * 1000, 1),
            "wallSeconds": round(way.wall, 1),
            "usage": as_data(way.usage),
            "elsewhereCpuSeconds": way.elsewhere,
        }
        for way in ways
    }
    return Result("freshness", found_on, aims, [times, cpu, memory], notes, {"ways": data})
