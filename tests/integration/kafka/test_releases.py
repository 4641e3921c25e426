"""A flood of bad commands, and an operator's order to let go of it: on a real broker and a real MongoDB."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from aiokafka import TopicPartition

from contracts.ids import uuid7
from services.kit.crypto import KeyRing
from services.kit.errors import PermanentError
from services.kit.kafka.codec import decode_command
from services.kit.kafka.consumer_loop import DONE, ConsumerLoop, Outcome, Park, Record
from services.kit.mongo import connect
from services.kit.parking_mongo import MongoParkingLot
from services.kit.releases import Bound, Release, digest, runs_of
from services.kit.releases_mongo import MongoReleases
from tests.integration.kafka.harness import Cluster, Ledger, new_loop, running, until
from tests.integration.kafka.test_skip_command import SECRET, mailroom

WRONG, RIGHT = "/crm/wrong", "/crm/billing"


def command(source: str = RIGHT, **changes: Any) -> tuple[bytes, bytes]:
    """Key and value of a command that cancels a mail, or of what is none."""
    message_id = uuid7()
    wire = {"id": uuid7(), "source": source, "type": "email.cancel", "subject": message_id}
    return message_id.encode(), json.dumps({**wire, "data": {"messageId": message_id}, **changes}).encode()


def bad() -> tuple[bytes, bytes]:
    """What the wrong producer writes."""
    return command(WRONG, type="email.explode")


@dataclass
class Bench:
    """A topic of one partition, a consumer of commands, and a database, all of this test alone."""

    cluster: Cluster
    topic: str
    group: str
    lot: MongoParkingLot
    releases: MongoReleases
    mongo_url: str
    database: str
    ledger: Ledger

    async def write(self, *records: tuple[bytes, bytes]) -> None:
        async with self.cluster.producer() as producer:
            sent = [await producer.send(self.topic, value, key, partition=0) for key, value in records]
            await asyncio.gather(*sent)

    async def handler(self, records: Sequence[Record]) -> Sequence[Outcome]:
        outcomes: list[Outcome] = []
        for record in records:
            try:
                decode_command(record)
            except PermanentError as error:
                outcomes.append(Park(error.reason, "poison", error.detail))
            else:
                self.ledger.note([record])
                outcomes.append(DONE)
        return outcomes

    def loop(self) -> ConsumerLoop:
        return new_loop(
            self.cluster, self.group, [self.topic], self.handler, self.lot, batch=200, releases=self.releases
        )

    async def mailroom(self, *words: str) -> tuple[int, str, str]:
        return await mailroom(
            "breaker",
            *words,
            MAILROOM_KAFKA_BOOTSTRAP=self.cluster.bootstrap,
            MAILROOM_MONGO_URL=self.mongo_url,
            MAILROOM_EMAIL_DATABASE=self.database,
            FILE_ENCRYPTION_KEY=SECRET,
        )

    async def released(self, *words: str) -> dict[str, Any]:
        """What `mailroom breaker release` says; AssertionError unless it was carried out."""
        status, out, told = await self.mailroom("release", self.group, "--reason", "a test", "--yes", "--json", *words)
        assert status == 0, told
        found: dict[str, Any] = json.loads(out)
        assert found["closedAt"] is not None, found
        return found

    async def told_open(self) -> None:
        """Wait until the breaker is open and operators can see it."""
        async with asyncio.timeout(90):
            while True:
                _, out, _ = await self.mailroom("list", "--service", "email", "--json")
                if out and json.loads(out)["breakers"]:
                    return


@pytest.fixture
async def bench(cluster: Cluster, mongo_url: str) -> AsyncIterator[Bench]:
    async with benches(cluster, mongo_url) as made:
        yield made


@asynccontextmanager
async def benches(cluster: Cluster, mongo_url: str) -> AsyncIterator[Bench]:
    client = connect(mongo_url)
    database = client[f"email_{uuid.uuid4().hex[:8]}"]
    lot, releases = MongoParkingLot(database, KeyRing.from_secret(SECRET)), MongoReleases(database)
    await lot.ensure_indexes()
    await releases.ensure_indexes()
    group = f"email-intake-{uuid.uuid4().hex[:8]}"
    try:
        topic = await cluster.topic(1)
        yield Bench(cluster, topic, group, lot, releases, mongo_url, database.name, Ledger())
    finally:
        await client.drop_database(database.name)
        await client.close()


async def test_a_flood_is_let_go_of_and_good_commands_between_and_behind_it_are_handled(bench: Bench) -> None:
    flood = [bad() for _ in range(3000)]
    good = [command() for _ in range(60)]
    await bench.write(*flood[:1000], *good[:20], *flood[1000:], *good[20:40])
    loop = bench.loop()
    async with running(loop):
        await until(lambda: loop.health().breaker == "open")
        assert any(f"mailroom breaker release {bench.group}" in each for each in loop.health().reasons)
        await bench.told_open()
        status, out, _ = await bench.mailroom("list", "--json")
        (said,) = json.loads(out)["breakers"]
        assert (said["consumer"], said["lastRefused"]["source"]) == (bench.group, WRONG)
        assert bench.ledger.handled == 0, "good commands wait behind the flood"
        status, _, told = await bench.mailroom("release", "email-intake-low", "--reason", "x", "--discard", "--yes")
        assert (status, "nothing is held back" in told) == (1, True), told
        found = await bench.released("--discard", "--source", WRONG)
        await until(lambda: bench.ledger.handled == 40)
        await bench.write(*good[40:])
        await until(lambda: bench.ledger.handled == 60)
        await bench.cluster.await_committed(bench.group, bench.topic)
        assert loop.health().healthy
    parked = (await bench.lot.counts())[bench.group, "poison"]
    ranges = await bench.releases.ranges(found["id"])
    assert (found["parked"], found["discarded"], parked) == (0, 2950, 50)
    assert sum(each.count for each in ranges) == 2950
    assert {each.reason for each in ranges} == {"a test"}


async def test_an_order_ends_where_it_says_and_parks_what_is_to_be_kept(bench: Bench) -> None:
    await bench.write(*[bad() for _ in range(700)])
    loop = bench.loop()
    async with running(loop):
        await until(lambda: loop.health().breaker == "open")
        await bench.told_open()
        status, _, told = await bench.mailroom(
            "release", bench.group, "--reason", "x", "--park", "--until", "0:701", "--yes"
        )
        assert (status, "ends at 700" in told) == (1, True), told
        found = await bench.released("--park", "--until", "0:500")
        await until(lambda: loop.health().breaker == "open", what="behind the bound the breaker decides again")
        assert found["parked"] == 450
        assert found["discarded"] == 0
        assert 500 <= (await bench.lot.counts())[bench.group, "poison"] <= 550, "it may admit fifty more by itself"
        committed = (await bench.cluster.committed(bench.group))[TopicPartition(bench.topic, 0)]
        assert 500 <= committed <= 550


async def test_a_crash_between_the_record_of_a_range_and_the_commit_loses_and_doubles_nothing(bench: Bench) -> None:
    flood = [bad() for _ in range(3000)]
    await bench.write(*flood, command())
    bound = Bound(bench.topic, 0, 0, 3001)
    order = Release(uuid7(), bench.group, "discard", "a test", "operator:test", datetime.now(UTC), (bound,))
    await bench.releases.order(order)
    for batch in (170, 230, 110):  # each dies after it has recorded a range, in portions of its own
        await die_while_discarding(bench, batch)
        await bench.cluster.expel(bench.group)
    committed = (await bench.cluster.committed(bench.group)).get(TopicPartition(bench.topic, 0), 0)
    _, recorded = await bench.releases.totals(order.id)
    assert committed < recorded < 3000, "some of what they have recorded comes again"
    async with running(bench.loop()):
        await until(lambda: bench.ledger.handled == 1)
        await bench.cluster.await_committed(bench.group, bench.topic)
        async with asyncio.timeout(90):
            while (await bench.releases.orders(1))[0].closed_at is None:  # noqa: ASYNC110 - in the database
                await asyncio.sleep(0.1)
    ranges = await bench.releases.ranges(order.id)
    assert [each.number for each in ranges] == list(range(1, len(ranges) + 1))
    assert runs_of(n for each in ranges for first, last in each.runs for n in range(first, last + 1)) == ((0, 2999),)
    assert await bench.releases.totals(order.id) == (0, 3000)
    for each in ranges:  # whoever has the topic can prove what was discarded
        ((first, last),) = each.runs
        assert each.sha256 == digest([Record(bench.topic, 0, n, 0, *flood[n]) for n in range(first, last + 1)])


async def die_while_discarding(bench: Bench, batch: int) -> None:
    options = {
        "bootstrap": bench.cluster.bootstrap,
        "group": bench.group,
        "topic": bench.topic,
        "mongo": bench.mongo_url,
        "database": bench.database,
        "batch": batch,
    }
    words = (sys.executable, "-m", "tests.integration.kafka.dying_releaser", json.dumps(options))
    worker = await asyncio.create_subprocess_exec(*words)
    async with asyncio.timeout(90):
        assert await worker.wait() == -signal.SIGKILL
