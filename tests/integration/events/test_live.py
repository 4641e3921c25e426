"""The live projector on real Kafka and MongoDB."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import ceil

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from services.events.composing import ReadingSide
from services.events.generations import ensure_first
from tests.integration.events.conftest import HANG, Write, until
from tests.integration.events.judge import assert_equal_to_the_log, wait_until_projected, whole_log
from tests.integration.events.mails import Entry, mails


async def first_generation(side: ReadingSide) -> int:
    reader = side.log()
    await reader.start()
    try:
        return await ensure_first(side.projection, side.generations, side.leases(1), reader)
    finally:
        await reader.stop()


@asynccontextmanager
async def projecting(side: ReadingSide, generation: int, processes: int = 1) -> AsyncIterator[None]:
    """As many projectors as processes would have."""
    projectors = [side.projector(generation) for _ in range(processes)]
    tasks = [asyncio.create_task(projector.run()) for projector in projectors]
    try:
        yield
    finally:
        for projector in projectors:
            projector.stop()
        await asyncio.gather(*tasks)


async def live_generation(side: ReadingSide, write: Write, events: list[Entry]) -> int:
    """The first generation, which has these events; nobody projects it any more."""
    await write(events)
    generation = await first_generation(side)
    async with projecting(side, generation):
        await wait_until_projected(side, generation)
    return generation


async def test_the_read_model_is_the_pure_fold_of_the_log(side: ReadingSide, write: Write) -> None:
    await write(mails(150, busy_opens=700))
    generation = await first_generation(side)
    async with projecting(side, generation):
        await wait_until_projected(side, generation)
        await write(mails(150, seed=2))
        await wait_until_projected(side, generation)
    assert await assert_equal_to_the_log(side, generation) == 300
    document = await side.database["email_log__g1"].find_one({"_id": "mail-1-00000"})
    assert document is not None
    assert document["eventsTruncated"] is True


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.long)])
async def test_processes_share_the_partitions(side: ReadingSide, write: Write, processes: int) -> None:
    generation = await first_generation(side)
    async with projecting(side, generation, processes):
        await write(mails(50))

        async def shared() -> bool:
            owners = [lease.owner for lease in await side.leases(generation).view() if lease.held]
            return len(owners) == 6 and max(map(owners.count, owners)) <= ceil(6 / processes)

        await until(shared)
        await write(mails(50, seed=2))
        await wait_until_projected(side, generation)
    assert await assert_equal_to_the_log(side, generation) == 100
    assert not any(lease.held for lease in await side.leases(generation).view())


async def test_an_operator_steps_over_what_cannot_be_read(side: ReadingSide, write: Write) -> None:
    generation = await first_generation(side)
    leases = side.leases(generation)
    await write(mails(60))
    assert await leases.step_over(2, 3)
    assert not await leases.step_over(2, 3)
    async with projecting(side, generation):
        await wait_until_projected(side, generation)
    skipped = {record.key.decode() for record in await whole_log(side) if record.partition == 2 and record.offset < 3}
    documents = side.database[f"email_log__g{generation}"]
    offsets = [
        offset
        async for document in documents.find({"_id": {"$in": list(skipped)}})
        for offset in document["_events"]["offset"]
    ]
    assert min(offsets, default=3) >= 3
    assert await documents.count_documents({}) >= 60 - len(skipped)


async def test_a_lost_head_alarms_blocks_its_partition_only_and_can_be_stepped_over(
    side: ReadingSide, write: Write
) -> None:
    generation = await first_generation(side)
    await write(mails(60))
    admin = AIOKafkaAdminClient(bootstrap_servers=side.bootstrap)
    await admin.start()
    await admin.delete_records({TopicPartition(side.projection.topic, 2): RecordsToDelete(before_offset=3)})
    await admin.close()
    records = await whole_log(side)
    ends = {each: max(r.offset for r in records if r.partition == each) + 1 for each in range(6)}
    leases = side.leases(generation)

    async def reached(partitions: set[int]) -> None:
        async def there() -> bool:
            return all(
                each.next >= ends[each.partition] for each in await leases.view() if each.partition in partitions
            )

        await until(there)

    projector = side.projector(generation)
    running = asyncio.create_task(projector.run())
    try:
        await reached({0, 1, 3, 4, 5})
        async with asyncio.timeout(HANG):
            while (report := projector.report()).ready:  # noqa: ASYNC110 - the others need not wait for its error
                await asyncio.sleep(0.05)
        assert report.live
        assert "OffsetOutOfRange" in str(report.detail["blocked"])
        assert await leases.step_over(2, 3)
        await reached({2})
        assert projector.report().ready
    finally:
        projector.stop()
        await running
