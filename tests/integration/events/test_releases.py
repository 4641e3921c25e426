"""`mailroom breaker` for the projection: a flood on the log is let go of, and later generations come past it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

from services.events.composing import ReadingSide
from services.events.entrypoints.projector import ProjectorService
from services.kit.clock import SystemClock
from services.kit.crypto import KeyRing
from services.kit.parking_mongo import MongoParkingLot
from services.kit.releases_mongo import MongoReleases
from tests.integration.events.conftest import HANG, Write, address
from tests.integration.events.judge import wait_until_projected
from tests.integration.events.mails import mails
from tests.integration.events.test_generations import parts
from tests.integration.events.test_live import first_generation
from tests.integration.kafka.test_skip_command import SECRET, mailroom

FLOOD = 3000


@asynccontextmanager
async def served(side: ReadingSide) -> AsyncIterator[ProjectorService]:
    """What projects the side, as its process does."""
    service = ProjectorService(replace(parts(side), close_releases=side.close_releases), SystemClock())
    await service.start()
    try:
        yield service
    finally:
        await service.stop(10)


async def test_a_flood_on_the_log_is_let_go_of_and_a_new_generation_comes_past_it(
    side: ReadingSide, write: Write, mongo_url: str
) -> None:
    database = side.database
    releases = MongoReleases(database)
    await releases.ensure_indexes()
    side = replace(side, parking=MongoParkingLot(database, KeyRing.from_secret(SECRET)), releases=releases)
    ask = partial(
        mailroom,
        "breaker",
        MAILROOM_KAFKA_BOOTSTRAP=address(side),
        MAILROOM_MONGO_URL=mongo_url,
        MAILROOM_EVENTS_DATABASE=database.name,
        MAILROOM_EMAIL_EVENTS_TOPIC=side.projection.topic,
        MAILROOM_PUBLIC_URL="http://127.0.0.1:1",
        FILE_ENCRYPTION_KEY=SECRET,
        MAILROOM_JWT_ALGORITHM="HS256",
        MAILROOM_JWT_SECRET="s" * 32,
    )
    await write((b"bad %d" % n, b"{not JSON") for n in range(FLOOD))
    await write(mails(20))
    generation = await first_generation(side)
    async with served(side) as service:
        async with asyncio.timeout(HANG):
            while (  # noqa: ASYNC110 - in the database
                not await releases.breakers(SystemClock().now()) or service.health().ready
            ):
                await asyncio.sleep(0.1)
        status, out, told = await ask("release", side.consumer, "--reason", "a test", "--discard", "--yes", "--json")
        assert status == 0, told
        found = json.loads(out)
        await wait_until_projected(side, generation)
    parked = sum((await side.parking.counts()).values())
    assert found["closedAt"] is not None
    assert parked + found["discarded"] == FLOOD
    assert found["discarded"] >= FLOOD - 6 * side.parked_per_minute
    assert await database[f"email_log__g{generation}"].count_documents({}) == 20
    again = await side.generations.create(side.projection.version)
    await side.leases(again.number).seed(dict.fromkeys(range(6), 0))
    projector = replace(side, parked_per_minute=1).projector(again.number)
    running = asyncio.create_task(projector.run())
    await wait_until_projected(side, again.number)
    projector.stop()
    await running
    assert (await releases.totals(found["id"]))[1] == found["discarded"]
    assert sum((await side.parking.counts()).values()) == parked
