"""A replay reads: the log is the same after a rebuild and after a parked record was retried."""

from __future__ import annotations

import pytest

from services.events.composing import ReadingSide
from services.events.rebuild import Workers
from services.events.serving import parked_retries
from services.kit.kafka.records import DONE, Park, Record
from services.kit.parking import ParkedRecord
from tests.integration.events.conftest import Write
from tests.integration.events.judge import wait_until_projected
from tests.integration.events.mails import mails
from tests.integration.events.test_live import first_generation, projecting
from tests.integration.events.test_rebuild import workers

__all__ = ["workers"]  # a fixture


async def bounds(side: ReadingSide) -> dict[int, tuple[int, int]]:
    reader = side.log()
    await reader.start()
    try:
        return await reader.bounds()
    finally:
        await reader.stop()


@pytest.mark.usefixtures("workers")
async def test_a_replay_adds_nothing_to_the_log(
    side: ReadingSide,
    write: Write,
    workers: Workers,
) -> None:
    log = mails(40)
    await write(log)
    before = await bounds(side)
    first = await first_generation(side)
    async with projecting(side, first):
        await wait_until_projected(side, first)
    rebuild = side.rebuild(workers)
    await rebuild.run((await rebuild.create()).number)
    key, value = log[0]
    record = Record(side.projection.topic, 0, 0, 0, key, value, ())
    parked = ParkedRecord.of(side.consumer, record, Park("foldFailed", "bug", "mended since"), side.clock.now())
    await side.parking.park([parked])
    assert await parked_retries([side], side.parking, side.clock).retry(parked.id, by="operator:test") == DONE
    assert await bounds(side) == before
