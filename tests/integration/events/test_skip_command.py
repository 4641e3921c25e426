"""`mailroom skip` for the projection: an unreadable batch is parked and stepped over, a lost head stepped over."""

from __future__ import annotations

import asyncio
import json
from functools import partial

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from services.events.composing import ReadingSide
from services.kit.crypto import KeyRing
from services.kit.parking_mongo import MongoParkingLot
from tests.integration.events.conftest import HANG, Write, address
from tests.integration.events.judge import whole_log
from tests.integration.events.mails import mails
from tests.integration.events.test_live import first_generation
from tests.integration.kafka.harness import Cluster
from tests.integration.kafka.test_skip_command import SECRET, mailroom


async def test_the_projector_goes_on_after_what_it_cannot_read(side: ReadingSide, write: Write, mongo_url: str) -> None:
    ask = partial(
        mailroom,
        MAILROOM_KAFKA_BOOTSTRAP=address(side),
        MAILROOM_MONGO_URL=mongo_url,
        MAILROOM_EVENTS_DATABASE=side.database.name,
        MAILROOM_EMAIL_EVENTS_TOPIC=side.projection.topic,
        MAILROOM_PUBLIC_URL="http://127.0.0.1:1",
        FILE_ENCRYPTION_KEY=SECRET,
        MAILROOM_JWT_ALGORITHM="HS256",
        MAILROOM_JWT_SECRET="s" * 32,
    )
    topic = side.projection.topic
    await write(mails(60))
    generation = await first_generation(side)
    ends = {each: 1 + max(r.offset for r in await whole_log(side) if r.partition == each) for each in range(6)}
    admin = AIOKafkaAdminClient(bootstrap_servers=address(side))
    await admin.start()
    await admin.delete_records({TopicPartition(topic, 4): RecordsToDelete(before_offset=3)})
    await admin.close()
    await Cluster(address(side)).put_unreadable(topic, 2)
    await write(mails(60, seed=2))
    lot = MongoParkingLot(side.database, KeyRing.from_secret(SECRET))
    leases = side.leases(generation)

    async def reached(partition: int, offset: int) -> None:
        async with asyncio.timeout(HANG):
            while {each.partition: each.next for each in await leases.view()}[partition] < offset:  # noqa: ASYNC110
                await asyncio.sleep(0.1)

    projector = side.projector(generation)
    running = asyncio.create_task(projector.run())
    try:
        await reached(2, ends[2])
        async with asyncio.timeout(HANG):
            while len(projector.report().detail["blocked"]) < 2:  # type: ignore[arg-type]  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        assert "UnicodeDecodeError" in str(projector.report().detail["blocked"])
        status, _, told = await ask("skip", side.consumer, topic, "2", str(ends[2] - 1), "--yes")
        assert (status, f"stands at {ends[2]}" in told) == (1, True), told
        status, out, told = await ask("skip", side.consumer, topic, "2", str(ends[2]), "--yes", "--json")
        assert status == 0, told
        parked_id = f"{side.consumer}|{topic}|2|{ends[2]}"
        assert json.loads(out) == {"parked": parked_id, "service": "events", "goesOnAt": ends[2] + 1, "passed": True}
        kept = await lot.show(parked_id)
        assert kept is not None
        assert kept.raw is not None
        assert b"bad" in kept.raw
        status, out, told = await ask("skip", side.consumer, topic, "4", "0", "--yes", "--json")
        assert status == 0, told
        assert json.loads(out) == {"parked": None, "service": "events", "goesOnAt": 3, "passed": True}
        await reached(2, ends[2] + 2)
        await reached(4, ends[4] + 1)
        async with asyncio.timeout(HANG):
            while not projector.report().ready:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
    finally:
        projector.stop()
        await running
