"""A topic that somebody gave more partitions: what lies there is projected like the rest, and shown."""

from __future__ import annotations

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions

from services.events.composing import ReadingSide
from services.events.entrypoints.projector import ProjectorService
from services.events.watching import projection_state
from services.kit.clock import SystemClock
from tests.integration.events.conftest import PARTITIONS, Write, address, until
from tests.integration.events.judge import assert_equal_to_the_log, wait_until_projected, whole_log
from tests.integration.events.mails import mails
from tests.integration.events.test_generations import parts
from tests.integration.events.test_live import first_generation


async def test_what_lies_in_added_partitions_is_projected(side: ReadingSide, write: Write) -> None:
    await write(mails(20))
    generation = await first_generation(side)
    service = ProjectorService(parts(side), SystemClock(), partitions_seconds=0.2)
    await service.start()
    try:
        await wait_until_projected(side, generation)
        admin = AIOKafkaAdminClient(bootstrap_servers=address(side))
        await admin.start()
        await admin.create_partitions({side.projection.topic: NewPartitions(PARTITIONS + 2)})
        await admin.close()

        async def taken() -> bool:
            return len(await side.leases(generation).view()) == PARTITIONS + 2

        await until(taken)
        await _publish(side)
        await wait_until_projected(side, generation)
        reader = side.log()
        await reader.start()
        state = await projection_state(side.projection, side.generations, side.leases, reader)
        await reader.stop()
    finally:
        await service.stop(10)
    assert [each.partition for each in state.partitions] == list(range(PARTITIONS + 2))
    assert await assert_equal_to_the_log(side, generation) == 80
    assert {record.partition for record in await whole_log(side)} == set(range(PARTITIONS + 2))


async def _publish(side: ReadingSide) -> None:
    """By a producer that knows the partitions that there are now."""
    async with AIOKafkaProducer(bootstrap_servers=address(side), acks="all") as producer:
        for key, value in mails(60, seed=2):
            await producer.send(side.projection.topic, value, key=key)
