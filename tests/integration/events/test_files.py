"""The projection `file` on real Kafka and MongoDB: live, busy, beside `email_log` in one process, and rebuilt."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import bson
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from contracts.views import File
from services.events.composing import ReadingSide
from services.events.entrypoints.projector import ProjectorService
from services.events.projections.known import INLINE_PLACES
from services.events.projections.projection import EMAIL_LOG, FILE, Projection
from services.events.rebuild import Workers
from services.kit.parking import ParkedFilter
from tests.integration.events.conftest import HANG, PARTITIONS, Entry, Write
from tests.integration.events.judge import assert_equal_to_the_log, stored, wait_until_projected
from tests.integration.events.mails import mails
from tests.integration.events.test_generations import parts
from tests.integration.events.test_live import first_generation, projecting
from tests.integration.events.test_rebuild import rebuilt, workers
from tests.integration.events.uploads import file_name, uploads
from tests.unit.events_service.file_events import file_log, scan_settled, upload_requested, uploaded

__all__ = ["workers"]

LARGEST = 32_768
"""Of a document in BSON, however many links were given out."""


@pytest.fixture
def projection() -> Projection:
    return FILE


@pytest.mark.parametrize(
    ("downloads", "batch"),
    [(3_500, 700), pytest.param(100_000, 10_000, marks=[pytest.mark.long, pytest.mark.timeout(1800)])],
)
async def test_a_file_with_thousands_of_downloads_is_small_right_and_the_same_after_a_rebuild(
    side: ReadingSide, write: Write, workers: Workers, downloads: int, batch: int
) -> None:
    first = await first_generation(side)
    log = uploads(60, downloads=downloads)
    async with projecting(side, first):
        for start in range(0, len(log), batch):  # batch after batch, as days go by
            await write(log[start : start + batch])
            await wait_until_projected(side, first, seconds=300)
        again: list[Entry] = random.Random(7).sample(log, 200)
        await write(again)
        await wait_until_projected(side, first)
    assert await assert_equal_to_the_log(side, first) == 60

    busy = await side.database[f"file__g{first}"].find_one({"_id": file_name(0)})
    assert busy is not None
    shown = File.model_validate({name: value for name, value in busy.items() if not name.startswith("_")})
    assert shown.access is not None
    assert shown.access.download_count == downloads
    assert len(bson.encode(busy)) <= LARGEST
    assert shown.status == "completed"
    assert len(busy["_events"]["length"]) < INLINE_PLACES + 10
    assert sum(tally[3] for tally in busy["_overflow"]) == downloads - INLINE_PLACES
    assert len(busy["_overflow"]) == 1
    rows = side.database[f"file__g{first}__facts"]
    assert await rows.count_documents({"aggregate": file_name(0)}) >= downloads - INLINE_PLACES

    generation = await rebuilt(side, side.rebuild(workers))  # refuses to be swapped in if anything differs
    assert (await side.generations.pointer()).active == generation
    assert await assert_equal_to_the_log(side, generation) == 60
    assert await side.database["file"].count_documents({}) == 60
    indexes = await side.database[f"file__g{generation}"].index_information()
    assert len(indexes) == 1 + len(FILE.indexes) + len(FILE.unique)
    assert [index["key"] for index in indexes.values() if index.get("unique")] == [[("key", 1)]]
    statistics = side.statistics(generation)
    assert await statistics.dirty() == []
    summed = await statistics.rows(None, None, None)
    assert summed is not None
    assert sum(row["sums"]["files"] for row in summed) == 60
    assert sum(row["sums"]["downloads"] for row in summed) >= downloads


async def test_two_files_that_claim_one_key_are_shown_alike_after_a_rebuild(
    side: ReadingSide, write: Write, workers: Workers
) -> None:
    """The higher id comes first and is shown, until the lower one comes: the key is taken away from it."""
    log: list[Entry] = []
    for name in ("file-b", "file-a", "file-c"):
        values = file_log(name)
        story = (upload_requested(name, key="one/key"), uploaded(), scan_settled())
        log += [(name.encode(), values.raw(each)) for each in story]
    first = await first_generation(side)
    async with projecting(side, first):
        for entry in log:
            await write([entry])
            await wait_until_projected(side, first)
    generation = await rebuilt(side, side.rebuild(workers))  # refuses to be swapped in if anything differs
    shown = [each["_id"] async for each in side.database["file"].find({}, {"_id": 1})]
    assert shown == ["file-a"]
    assert await stored(side, generation) == await stored(side, first)
    parked = (await side.parking.list(ParkedFilter())).records
    assert {(each.key, each.reason, each.kept) for each in parked} == {
        (b"file-b", "unwritable", True),
        (b"file-c", "unwritable", True),
    }
    statistics = side.statistics(generation)
    summed = await statistics.rows(None, None, None)
    assert summed is not None
    assert sum(row["sums"]["files"] for row in summed) == 1


async def test_processes_that_come_and_go_project_files_once(side: ReadingSide, write: Write) -> None:
    first = await first_generation(side)
    await write(uploads(80, downloads=900))
    async with projecting(side, first, processes=3):
        await asyncio.sleep(0.3)
    await write(uploads(40, seed=2))
    async with projecting(side, first, processes=2):
        await wait_until_projected(side, first)
    assert await assert_equal_to_the_log(side, first) == 120


async def test_one_process_projects_mails_and_files_each_from_its_own_topic(
    side: ReadingSide, write: Write, kafka_bootstrap: str
) -> None:
    topic = f"{side.projection.topic}.mail"
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    await admin.start()
    mail_side = replace(side, projection=replace(EMAIL_LOG, topic=topic))
    sides = (side, mail_side)
    services = [ProjectorService(parts(each), each.clock) for each in sides]
    try:
        await admin.create_topics([NewTopic(topic, PARTITIONS, 1)])
        await asyncio.gather(*(service.start() for service in services))
        await write(uploads(50, downloads=600))
        await _write_to(kafka_bootstrap, topic, mails(50))
        for each in sides:
            await _until_there(each)
            await wait_until_projected(each, 1)
    finally:
        await asyncio.gather(*(service.stop(8.0) for service in services))
        await admin.delete_topics([topic])
        await admin.close()
    assert await side.database["file"].count_documents({}) == 50
    assert await side.database["email_log"].count_documents({}) == 50
    leases = await side.database["leases"].distinct("generation")
    assert set(leases) == {"file/1", "email_log/1"}


async def _until_there(side: ReadingSide) -> None:
    async with asyncio.timeout(HANG):
        while (await side.generations.pointer()).active is None:  # noqa: ASYNC110 - it lies in MongoDB
            await asyncio.sleep(0.1)


async def _write_to(bootstrap: str, topic: str, records: list[Entry]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")
    await producer.start()
    try:
        sent = [await producer.send(topic, value, key=key) for key, value in records]
        await asyncio.gather(*sent)
    finally:
        await producer.stop()
