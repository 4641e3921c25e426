"""Bad records on every topic of mail: set aside or kept as designed; the rest flows and nobody must be restarted."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
import uuid
from collections.abc import Collection
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from contracts.topics import (
    EMAIL_EVENTS,
    EMAIL_NOTIFICATIONS,
    FILES_COMMANDS,
    FILES_EVENTS,
    FILES_NOTIFICATIONS,
    LANES,
)
from deploy.local.stack import Stack
from tests.e2e import poison
from tests.e2e.evidence import Observer, Since
from tests.e2e.judge import assert_fair
from tests.e2e.live import alive, always_alive, live
from tests.e2e.traffic import Traffic, command, traffic
from tests.e2e.uploads import uploads
from tests.integration.kafka.test_skip_command import mailroom

FLOOD = 60
"""Bad records: more than the 50 that a group may set aside in a minute, and less than twice as many."""

GREAT_FLOOD = 100_000
"""Bad records of a wrong producer that nobody stopped."""


async def test_every_kind_of_poison_on_every_topic(stack: Stack) -> None:
    async with live(stack) as observer, traffic(stack, 21) as load:
        since = await observer.now()
        enough = asyncio.Event()
        records = [
            *(record for lane in LANES for record in poison.of_commands(lane, load)),
            *poison.of_notifications(),
            *poison.of_events(),
            *poison.of_recipients(),
        ]
        async with asyncio.TaskGroup() as group:
            group.create_task(always_alive(stack, enough, "email", "files", "events"))
            published = await poison.publish(load.producer, records)
            await observer.put_on_queue(*poison.ON_THE_QUEUE)
            for _ in range(60):
                load.send()
            await load.sent()
            evidence = await observer.settled(since, load.ids, 180)
            enough.set()
        parked = [f"email {EMAIL_NOTIFICATIONS.name} {reason}" for reason in poison.ON_THE_QUEUE.values()]
        parked += [what for record in records for what in record.expected]
        assert_fair(evidence, load.expected(parked=parked))
        assert poison.not_as_they_came(published, await observer.parking_lots()) == []
        await poison.has_kept(observer, poison.kept(records), "email_log")


@pytest.mark.long
async def test_a_flood_trips_the_breaker_of_its_lane_alone(stack: Stack) -> None:
    async with live(stack) as observer, traffic(stack, 22, http_share=0) as load:
        await asyncio.to_thread(stack.restart, "email")  # a breaker counts what came in the last minute
        since = await observer.now()
        bad = poison.Poison("not JSON", LANES["low"].name, b"k", b"{not JSON", (), (("email", "notJson"),))
        await poison.publish(load.producer, [bad] * FLOOD)
        await until_parked(observer, since, 50)
        for lane in ("urgent", "high", "normal"):
            await load.by_kafka(load.mail(priority=lane))
        others = dict(load.requested)
        await load.by_kafka(load.mail(priority="low"))
        await settled_but_for_commands(observer, others)
        flowing = await observer.gather(since, others)
        assert len(flowing.parked) == 50, "the breaker must keep the rest of the flood on the topic"
        assert set(flowing.lag) <= {name for name in flowing.lag if name.endswith(LANES["low"].name)}
        assert await alive(stack, "email"), "a restart would mend nothing"
        await asyncio.to_thread(stack.restart, "email")  # as somebody does who has mended the cause
        evidence = await observer.settled(since, load.ids, 180)
        assert_fair(evidence, load.expected(parked=[what for what in bad.expected for _ in range(FLOOD)]))


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("action", ["discard", "park"])
async def test_a_flood_of_100_000_is_let_go_of_while_the_other_priorities_flow(stack: Stack, action: str) -> None:
    async with live(stack) as observer, traffic(stack, 24, http_share=0, behaviours=("success",)) as load:
        since = await observer.now()
        topic, group, source = LANES["normal"].name, "email-intake-normal", "/crm/load-test"
        await flood(load.producer, topic, source, GREAT_FLOOD)
        for _ in range(30):
            await load.by_kafka(load.mail(priority="normal"))
        await breaker_is_told(stack, group)
        flowing = [await sent_through(observer, load, lane) for lane in ("urgent", "high", "low")]
        began = time.monotonic()
        ordered = asyncio.create_task(
            breaker(stack, "release", group, "--reason", "a test", f"--{action}", "--source", source, "--yes", "--json")
        )
        meanwhile: list[float] = []
        while not ordered.done():
            meanwhile.append(await sent_through(observer, load, "urgent"))
        found = await ordered
        while found["closedAt"] is None:  # the command does not watch for ever
            (found,) = [
                each for each in (await breaker(stack, "list", "--json"))["releases"] if each["id"] == found["id"]
            ]
            meanwhile.append(await sent_through(observer, load, "urgent"))
        took = time.monotonic() - began
        usual = ", ".join(f"{each:.2f}" for each in flowing)
        print(
            f"{action}: {GREAT_FLOOD} records in {took:.1f} s with the command, {GREAT_FLOOD / took:.0f}/s",
            f"seconds from a command to its acceptance, before: {usual} (urgent, high, low)",
            f"urgent meanwhile: median {statistics.median(meanwhile):.2f}, most {max(meanwhile):.2f}",
            sep="; ",
        )
        evidence = await observer.settled(since, load.ids, 300)
        parked = ["email email.commands.normal unknownType"] * (found["parked"] + 50)
        assert_fair(evidence, load.expected(parked=parked))
        assert found[f"{action}ed"] == GREAT_FLOOD - 50
        ranges = [each async for each in observer.email["discarded"].find({"release": found["id"]})]
        offsets = [(each["partition"], n) for each in ranges for a, b in each["runs"] for n in range(a, b + 1)]
        assert len(set(offsets)) == len(offsets) == found["discarded"]
        await observer.email["parked"].delete_many({"topic": topic, "reason": "unknownType"})


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_every_consumer_carries_out_an_order_about_a_flood(stack: Stack) -> None:
    """All that have a breaker, the two projections among them, at once; behind the floods everything flows on."""
    async with live(stack) as observer, uploads(stack, 25) as files, traffic(stack, 25) as load:
        since = await observer.now()
        flooded = {
            EMAIL_NOTIFICATIONS.name: ("email-translator",),
            EMAIL_EVENTS.name: ("email-settler", "events.email_log"),
            FILES_COMMANDS.name: ("files-commands",),
            FILES_NOTIFICATIONS.name: ("files-translator",),
            FILES_EVENTS.name: ("files-settler", "email-files", "events.file"),
        }
        for topic in flooded:
            sent = [await load.producer.send(topic, b"{not JSON", str(n).encode()) for n in range(2 * FLOOD)]
            await asyncio.gather(*sent)
        consumers = [each for found in flooded.values() for each in found]
        await asyncio.gather(*(breaker_is_told(stack, each) for each in consumers))
        load.send()
        mailed, uploaded = asyncio.create_task(load.sent()), asyncio.create_task(files.one(files.case()))
        words = ("--reason", "a test", "--discard", "--yes", "--json")
        orders = [await breaker(stack, "release", each, *words) for each in consumers]
        async with asyncio.timeout(180):
            while any(order["closedAt"] is None for order in orders):
                known = {each["id"]: each for each in (await breaker(stack, "list", "--json"))["releases"]}
                orders = [known[order["id"]] for order in orders]
        await asyncio.gather(mailed, uploaded)
        parked = [what async for what in observer.parked(since)]
        for topic, readers in flooded.items():
            let_go = sum(order["discarded"] for order in orders if order["consumer"] in readers)
            kept = sum(topic in str(what) for what in parked)
            assert let_go + kept == 2 * FLOOD * len(readers), f"{topic}: {let_go} let go of, {kept} parked"
        evidence = await observer.settled(since, load.ids, 180)
        assert set(evidence.lag) == set()


async def flood(producer: AIOKafkaProducer, topic: str, source: str, count: int) -> None:
    """`count` commands of a type that nobody knows, as a wrong producer writes them."""
    for _ in range(count // 1000):
        keys = [str(uuid.uuid4()) for _ in range(1000)]
        values = [command(key, {"n": 1}, type="email.explode", source=source) for key in keys]
        sent = [await producer.send(topic, value, key.encode()) for key, value in zip(keys, values, strict=True)]
        await asyncio.gather(*sent)


async def breaker(stack: Stack, *words: str) -> Any:
    """What `mailroom breaker` says."""
    status, out, told = await mailroom("breaker", *words, seconds=300, **stack.env())
    assert status == 0, told
    return json.loads(out)


async def breaker_is_told(stack: Stack, group: str) -> None:
    async with asyncio.timeout(90):
        while group not in [each["consumer"] for each in (await breaker(stack, "list", "--json"))["breakers"]]:
            pass


async def sent_through(observer: Observer, load: Traffic, lane: str) -> float:
    """Seconds from a mail's command to its acceptance by the provider."""
    began, before = time.monotonic(), set(load.ids)
    await load.by_kafka(load.mail(priority=lane, recipients=1))
    (message_id,) = load.ids - before
    sent = {"_id": message_id, "version": {"$gte": 3}}
    async with asyncio.timeout(90):
        while not await observer.email["messages"].find_one(sent, {"_id": 1}):  # noqa: ASYNC110 - in another process
            await asyncio.sleep(0.02)
    return time.monotonic() - began


async def until_parked(observer: Observer, since: Since, count: int) -> None:
    async with asyncio.timeout(180):
        while len([what async for what in observer.parked(since)]) < count:  # noqa: ASYNC110 - in another process
            await asyncio.sleep(0.1)


async def settled_but_for_commands(observer: Observer, message_ids: Collection[str]) -> None:
    async with asyncio.timeout(180):
        while await observer.unfinished(message_ids, ignore_commands=True):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.2)
