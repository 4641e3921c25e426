"""A rebuild beside live traffic: how long each stage takes, and that verification ends though documents keep changing.

A log of `MAILROOM_BENCH_DOCUMENTS` mails (a million unless set, three events each) is projected by two live processes.
Then a backlog of traffic gives the rate that this machine can do: four events of five belong to documents picked at
random, so that each is a write of its own, at a place of its own in every index. The log is rebuilt twice: while
nothing is written, and while such events are written at `MAILROOM_BENCH_SHARE` of that rate (0.25 unless set), so that
every statistics bucket is marked again before it can be summed up. Each event is then written to two generations: at
half of the rate both together are all that the machine does, and nothing is left to fill one with. A quarter is half
of what can be written while there are two. At the end the two generations are compared once
more at rest: they must be equal.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from pymongo import MongoClient

from bench.generate import event, stories
from bench.ground import ground, wait_until
from bench.measure import machine
from bench.projection import PROJECTORS, TOPIC, projector, side_of
from bench.results import Aim, BenchFailed, Result, Table
from contracts.topics import EMAIL_EVENTS
from deploy.local.stack import Stack
from services.events.adapters.backfill_processes import BackfillProcesses
from services.events.composing import ReadingSide
from services.events.generations import retire
from services.events.projections.projection import EMAIL_LOG
from services.kit.errors import TransientError
from services.kit.logs import configure

MILLION, QUICK = 1_000_000, 20_000
EVENTS_EACH = 3
DATABASE = "bench_rebuilding"
LONGEST = 4 * 3600.0
TURN_SECONDS = 0.05
BACKLOG_PART = 10
"""The traffic whose backlog tells the live rate: an event for one document of so many."""

CACHE_GB = 8.0
"""Both generations with their indexes fit: MongoDB's own default on a machine of 24 GiB is 11."""

VERIFYING = ("summing up", "verifying")


@dataclass(frozen=True, slots=True)
class Run:
    """One rebuild. `stages`: seconds in each; `written`: events that were written meanwhile; `report`: its verdict."""

    stages: dict[str, float]
    written: int
    report: dict[str, Any]

    @property
    def seconds(self) -> float:
        """From its beginning to the swap."""
        return sum(self.stages.values())

    @property
    def verification(self) -> float:
        """Seconds in which documents were compared and statistics made."""
        return sum(self.stages.get(each, 0.0) for each in VERIFYING)


def run(quick: bool) -> Result:
    """Fill, project, rebuild at rest, rebuild under traffic, compare."""
    configure("warning", "console")
    about = machine()
    documents = int(os.environ.get("MAILROOM_BENCH_DOCUMENTS", QUICK if quick else MILLION))
    share = float(os.environ.get("MAILROOM_BENCH_SHARE", "0.25"))
    with ground(["kafka", "mongo"], mongo_cache_gb=CACHE_GB) as stack:
        asyncio.run(_fill(stack, documents))
        print(f"  {documents:,} documents' events are on {TOPIC}", flush=True)
        programs = [projector(stack, DATABASE, number) for number in range(PROJECTORS)]
        try:
            first = _project(stack, documents * EVENTS_EACH)
            print(f"  the log of new mails: {first:,.0f} events/s", flush=True)
            backlog = documents // BACKLOG_PART
            asyncio.run(_write(stack, documents, backlog))
            live = _project(stack, documents * EVENTS_EACH + backlog)
            print(f"  live: {live:,.0f} events/s of traffic", flush=True)
            rest = asyncio.run(_rebuild(stack, documents, 0.0))
            print(f"  at rest: {rest.seconds:.1f} s, {rest.verification:.1f} s of them verification", flush=True)
            busy = asyncio.run(_rebuild(stack, documents, share * live))
            print(f"  under traffic: {busy.seconds:.1f} s, {busy.verification:.1f} s of them verification", flush=True)
            judged = asyncio.run(_judge(stack))
            for program in programs:
                program.check()
        finally:
            for program in programs:
                program.stop()
    return _result(about, documents, live, share, {"at rest": rest, "under traffic": busy}, judged)


def _result(
    about: dict[str, Any], documents: int, live: float, share: float, runs: dict[str, Run], judged: dict[str, Any]
) -> Result:
    names = list(dict.fromkeys(name for each in runs.values() for name in each.stages))
    table = Table(
        f"{documents:,} documents, {len(EMAIL_LOG.indexes)} declared indexes; seconds",
        ("", "events/s meanwhile", *names, "in all", "verification"),
        [
            (
                name,
                each.written / each.seconds,
                *(each.stages.get(stage, 0.0) for stage in names),
                each.seconds,
                each.verification,
            )
            for name, each in runs.items()
        ],
    )
    busy, rest = runs["under traffic"], runs["at rest"]
    aims = [
        Aim("documents that differ once all is at rest", judged["differing"], 0, at_most=True),
        Aim("verification under traffic, times that at rest", busy.verification / rest.verification, 10, " ×", True),
    ]
    notes = [
        f"Live projects {live:,.0f} events/s of such traffic when it has a backlog of it; {100 * share:.0f} % of that "
        f"was aimed at, {busy.written / busy.seconds:,.0f} events/s were written.",
        f"Compared under traffic: {busy.report['documents']:,} documents, {busy.report['differing']} differ, "
        f"{busy.report['moving']} changed at each look; at rest afterwards: {judged['documents']:,}, "
        f"{judged['differing']} differ.",
    ]
    data = {
        "documents": documents,
        "liveEventsPerSecond": live,
        "share": share,
        **{
            name: {"stages": each.stages, "written": each.written, "seconds": each.seconds, "report": each.report}
            for name, each in runs.items()
        },
    }
    return Result("rebuilding", about, aims, [table], notes, data)


async def _fill(stack: Stack, documents: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=stack.site.addresses().kafka_bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(TOPIC, EMAIL_EVENTS.partitions, 1, topic_configs=EMAIL_EVENTS.configs)])
    await admin.close()
    async with _producer(stack) as producer:
        for key, value in stories(documents, EVENTS_EACH):
            await producer.send(TOPIC, value, key=key)


@asynccontextmanager
async def _producer(stack: Stack) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(
        bootstrap_servers=stack.site.addresses().kafka_bootstrap, acks="all", linger_ms=20, max_batch_size=1 << 18
    )
    await producer.start()
    try:
        yield producer
        await producer.flush()
    finally:
        await producer.stop()


def _project(stack: Stack, events: int) -> float:
    """Events a second of the live processes, from where they are to so many events."""
    with MongoClient[dict[str, Any]](stack.site.addresses().mongo_url) as client:
        leases = client[DATABASE]["leases"]
        ours = {"generation": f"{EMAIL_LOG.name}/1"}

        def moved() -> int:
            return sum(each["next"] - each["begin"] for each in leases.find(ours))

        at = moved()
        wait_until(lambda: moved() > at, "the live projectors' next checkpoint", 120, every=0.02)
        began, before = time.monotonic(), moved()
        wait_until(lambda: moved() >= events, "the live projectors", LONGEST, every=0.05)
        return (events - before) / (time.monotonic() - began)


async def _rebuild(stack: Stack, documents: int, rate: float) -> Run:
    """A rebuild that the live processes do, while `rate` events a second are written."""
    side = side_of(stack, DATABASE)
    before = (await side.generations.pointer()).previous
    if before is not None:
        await retire(side.generations, before)
    made = await side.rebuild(BackfillProcesses(EMAIL_LOG.name, 0), projects=False).create()
    traffic = _Traffic(documents, rate, seed=made.number)
    writing = asyncio.create_task(traffic.run(stack))
    try:
        stages: dict[str, float] = {}
        at, until = time.monotonic(), time.monotonic() + LONGEST
        while True:
            await asyncio.sleep(TURN_SECONDS)
            try:
                found = await side.generations.get(made.number)
            except TransientError:  # a machine with nothing left may keep MongoDB from answering for a while
                continue
            if found is None or found.stage in ("retired", "abandoned") or time.monotonic() > until:
                raise BenchFailed(f"generation {made.number} did not become active: {found}")
            if found.trouble is not None and found.trouble.failures > 5:
                raise BenchFailed(f"the rebuild failed again and again: {found.trouble.error}")
            if found.stage != "active" and found.report is not None and found.report["differing"]:
                raise BenchFailed(f"the generations differ: {dict(found.report)}")
            now = time.monotonic()
            stage = found.progress.stage if found.progress is not None else "starting"
            stages[stage] = stages.get(stage, 0.0) + now - at
            at = now
            if found.stage == "active":
                stages.pop("active", None)
                return Run(stages, traffic.written, dict(found.report or {}))
            if writing.done():
                await writing
                raise BenchFailed("the traffic ended before the rebuild")
    finally:
        traffic.over.set()
        await writing
        await side.database.client.close()


class _Traffic:
    """Events of new and of old mails at a steady rate, until it is `over`."""

    def __init__(self, documents: int, rate: float, seed: int) -> None:
        self.over = asyncio.Event()
        self.written = 0
        self._rate = rate
        self._events = self._endless(documents, random.Random(seed), seed)

    async def run(self, stack: Stack) -> None:
        if not self._rate:
            await self.over.wait()
            return
        async with _producer(stack) as producer:
            began = time.monotonic()
            while not self.over.is_set():
                due = int((time.monotonic() - began) * self._rate)
                while self.written < due and not self.over.is_set():
                    key, value = next(self._events)
                    await producer.send(TOPIC, value, key=key)
                    self.written += 1
                await asyncio.sleep(TURN_SECONDS)

    async def at_once(self, stack: Stack, count: int) -> None:
        """So many events, as fast as they can be written."""
        async with _producer(stack) as producer:
            for _ in range(count):
                key, value = next(self._events)
                await producer.send(TOPIC, value, key=key)

    @staticmethod
    def _endless(documents: int, rng: random.Random, seed: int) -> Iterator[tuple[bytes, bytes]]:
        fresh = documents + seed * 10_000_000
        while True:
            if rng.random() < 0.2:
                yield event(fresh, 0)
                fresh += 1
            else:
                yield event(rng.randrange(documents), rng.randrange(EVENTS_EACH, 12))


async def _write(stack: Stack, documents: int, count: int) -> None:
    await _Traffic(documents, 0.0, seed=99).at_once(stack, count)


async def _judge(stack: Stack) -> dict[str, Any]:
    """Compare the last two generations once both have read all."""
    side = side_of(stack, DATABASE)
    try:
        pointer = await side.generations.pointer()
        if pointer.active is None or pointer.previous is None:
            raise BenchFailed("nothing was swapped")
        await _until_read(side, pointer.active, pointer.previous)
        verdict = await side.comparison().compare(pointer.previous, pointer.active, same_version=True)
        return {"documents": verdict.documents, "differing": verdict.differing}
    finally:
        await side.database.client.close()


async def _until_read(side: ReadingSide, *generations: int) -> None:
    reader = side.log()
    await reader.start()
    try:
        ends = {partition: end for partition, (_, end) in (await reader.bounds()).items()}
    finally:
        await reader.stop()
    left = set(generations)
    while left:
        for number in sorted(left):
            if all(lease.next >= ends[lease.partition] for lease in await side.leases(number).view()):
                left.remove(number)
        await side.clock.sleep(TURN_SECONDS)
