"""Three brokers and a replica set of three: each is killed in turn under load, and nothing is lost or falsely said."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from contracts.topics import TOPICS
from deploy.local.site import HOST
from deploy.local.stack import Stack
from services.kit.kafka.topics_admin import verify
from tests.e2e.evidence import Observer, observing
from tests.e2e.judge import assert_fair
from tests.e2e.live import EMAIL, PLENTY, always_alive
from tests.e2e.traffic import Traffic, traffic
from tests.integration.nodes import KafkaCluster, Node, place, until
from tests.suite.shared import EXTRA

PER_SECOND = 6.0
MEANWHILE = 40
"""Mails taken on while a node is away."""

SETTLING = 240.0
PARTS = ("aws", "resources", "simulator", "topics", *EMAIL, "files", "events")


@pytest.fixture
def cluster() -> Iterator[tuple[Stack, KafkaCluster, Sequence[Node]]]:
    """The whole stack of mail on three nodes of each."""
    with place(24) as here:
        mongo = here.mongo(3)
        replica_set = initiated(mongo)
        kafka = here.kafka(3)
        extra = {**EXTRA, "MAILROOM_KAFKA_BOOTSTRAP": kafka.bootstrap, "MAILROOM_MONGO_URL": replica_set}
        stack = Stack(here.site, extra=extra)
        try:
            stack.start(PARTS, with_needs=False)
            yield stack, kafka, mongo
        finally:
            stack.stop()


def initiated(nodes: Sequence[Node]) -> str:
    """A replica set of these servers; its URL."""
    members = [{"_id": n, "host": f"{HOST}:{node.port}"} for n, node in enumerate(nodes)]
    with MongoClient[dict[str, Any]](f"mongodb://{members[0]['host']}/?directConnection=true") as client:
        client.admin.command("replSetInitiate", {"_id": "rs0", "members": members})
    url = f"mongodb://{','.join(str(member['host']) for member in members)}/?replicaSet=rs0"
    with MongoClient[dict[str, Any]](url, serverSelectionTimeoutMS=2000) as client:
        until(lambda: bool(client.admin.command("hello")["isWritablePrimary"]), "a primary", PyMongoError)
    return url


def in_sync(bootstrap: str) -> bool:
    """Whether every partition has all of its copies in sync."""

    async def ask() -> bool:
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        await admin.start()
        try:
            described = await admin.describe_topics([topic.name for topic in TOPICS])
        finally:
            await admin.close()
        return all(len(p["isr"]) == len(p["replicas"]) == 3 for topic in described for p in topic["partitions"])

    return asyncio.run(ask())


def all_members(url: str) -> bool:
    """Whether every member of the set is primary or secondary."""
    with MongoClient[dict[str, Any]](url, serverSelectionTimeoutMS=2000) as client:
        states = [member["stateStr"] for member in client.admin.command("replSetGetStatus")["members"]]
    return sorted(states) == ["PRIMARY", "SECONDARY", "SECONDARY"]


def taken_on(load: Traffic, count: int) -> bool:
    """Whether so many mails were acknowledged."""
    return len(load.requested) >= count


async def nothing_left(observer: Observer, message_ids: Collection[str]) -> None:
    """Wait until there is nothing more to come. Some minutes after a broker has come back leaders go back to it, and
    whoever asks a coordinator in that moment is told to ask again.
    """
    deadline, left = asyncio.get_running_loop().time() + SETTLING, "?"
    while left:
        assert asyncio.get_running_loop().time() < deadline, f"{left} left: {await observer.lag()}"
        await asyncio.sleep(0.3)
        with suppress(KafkaError):
            left = await observer.unfinished(message_ids)


@pytest.mark.long
@pytest.mark.timeout(1500)
async def test_each_node_killed_in_turn_loses_nothing(
    cluster: tuple[Stack, KafkaCluster, Sequence[Node]],
) -> None:
    stack, kafka, mongo = cluster
    found = await verify(kafka.bootstrap)
    assert (found.brokers, found.replication, found.differs, found.warning) == (3, 3, (), "")
    url = stack.env()["MAILROOM_MONGO_URL"]
    seed = int(os.environ.get("MAILROOM_CHAOS_SEED", "1"))
    async with observing(stack) as observer:
        await observer.simulator.settings(maxSendRate=PLENTY, stepMs=20)
        await asyncio.to_thread(stack.restart, *EMAIL)  # the service asks for its quota at its start
        since = await observer.now()
        enough = asyncio.Event()
        async with traffic(stack, seed) as load:
            async with asyncio.TaskGroup() as group:
                group.create_task(load.flow(PER_SECOND, enough))
                group.create_task(always_alive(stack, enough, *EMAIL, "events"))
                for node in (*kafka.nodes, *mongo):
                    before = len(load.requested)
                    await asyncio.to_thread(node.kill)
                    enough_taken = partial(taken_on, load, before + MEANWHILE)
                    await asyncio.to_thread(until, enough_taken, f"{MEANWHILE} mails taken on without {node.name}")
                    await asyncio.to_thread(node.start)
                    await asyncio.to_thread(node.listening)
                    await asyncio.to_thread(until, lambda: in_sync(kafka.bootstrap), "copies in sync", Exception)
                    await asyncio.to_thread(until, lambda: all_members(url), "members in sync", Exception)
                    print(f"{node.name} was away: {len(load.requested)} taken on so far, {load.refusals} refused")
                enough.set()
            await nothing_left(observer, load.ids)
            evidence = await observer.gather(since, load.ids)
        print(f"{len(load.requested)} messages, {len(evidence.acceptances)} acceptances, {load.refusals} refused")
        assert_fair(evidence, load.expected())
