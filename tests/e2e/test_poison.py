"""Bad records on every topic: set aside or kept as designed; the rest flows and nobody must be restarted."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import pytest

from contracts.topics import EMAIL_EVENTS, EMAIL_NOTIFICATIONS, FILES_EVENTS, FILES_NOTIFICATIONS, LANES
from deploy.local.demo.files import FileCase
from deploy.local.stack import Stack
from tests.e2e import poison, poison_files
from tests.e2e.evidence import Observer, Since
from tests.e2e.files_evidence import FilesObserver
from tests.e2e.judge import assert_fair
from tests.e2e.live import alive, always_alive, live
from tests.e2e.traffic import traffic
from tests.e2e.uploads import Uploads, uploads

FLOOD = 60
"""Bad records: more than the 50 that a group may set aside in a minute, and less than twice as many."""


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
        await has_kept(observer, _kept(records), "email_log")


async def test_every_kind_of_poison_for_files(stack: Stack) -> None:
    async with live(stack) as observer, uploads(stack, 23) as load, traffic(stack, 23) as mail:
        files = FilesObserver(observer)
        since = await observer.now()
        enough = asyncio.Event()
        records = [
            *poison_files.of_commands(file_id := (await one_more(load))),
            *poison_files.of_notifications(files.bucket),
            *poison_files.of_events(),
        ]
        queue = poison_files.on_the_queue(files.bucket)
        stranger = f"somebody/elses-{file_id}"
        async with asyncio.TaskGroup() as group:
            group.create_task(always_alive(stack, enough, "email", "files", "events"))
            published = await poison.publish(mail.producer, records)
            await observer.put_on_queue(*(body for body, _ in queue), files=True)
            await asyncio.to_thread(files.s3.put_object, Bucket=files.bucket, Key=stranger, Body=b"x")
            await asyncio.gather(*(load.one(load.case()) for _ in range(20)))
            parked = [what for record in records for what in record.expected]
            reasons = [*(reason for _, found in queue for reason in found), "orphan"]
            parked += [f"files {FILES_NOTIFICATIONS.name} {reason}" for reason in reasons]
            await files.assert_fair(since, load, 90, parked=parked, strangers=frozenset({stranger}))
            enough.set()
        assert poison.not_as_they_came(published, await observer.parking_lots()) == []
        await has_kept(observer, _kept(records), "file")


async def one_more(load: Uploads) -> str:
    """A completed document."""
    case = FileCase("stays as it is", "completed")
    await load.one(case)
    return case.file_id


async def has_kept(observer: Observer, subjects: list[str], projection: str) -> None:
    """An event that is strange, and not bad, is in the read model's documents."""
    name = await observer.read_model(projection)
    found = [each["_id"] async for each in observer.events[name].find({"_id": {"$in": subjects}})]
    assert sorted(found) == sorted(subjects), "an event of a type that nobody knows yet must be kept"


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


async def until_parked(observer: Observer, since: Since, count: int) -> None:
    async with asyncio.timeout(180):
        while len([what async for what in observer.parked(since)]) < count:  # noqa: ASYNC110 - in another process
            await asyncio.sleep(0.1)


async def settled_but_for_commands(observer: Observer, message_ids: Collection[str]) -> None:
    async with asyncio.timeout(180):
        while await observer.unfinished(message_ids, ignore_commands=True):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.2)


def _kept(records: list[poison.Poison]) -> list[str]:
    """Subjects of the log's records that are strange and not bad."""
    logs = (EMAIL_EVENTS.name, FILES_EVENTS.name)
    return [(each.key or b"").decode() for each in records if each.topic in logs and not each.parked]
