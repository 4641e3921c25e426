"""FILE_ENCRYPTION_KEY is rotated while two processes of the email service work on one MongoDB, a step apart."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import pairwise
from uuid import uuid4

import pytest

from services.email.adapters.content import MongoContentStore
from services.email.domain.message import Policy
from services.email.entrypoints import sender_content
from services.email.settings import EmailSettings
from services.email.streams import MessageStreams
from services.kit import metrics as m
from services.kit.event_store.mongo import MongoEventStore
from services.kit.kafka.records import Park, Record
from services.kit.mongo import Database, connect
from services.kit.parking import ParkedRecord
from services.kit.parking_mongo import MongoParkingLot
from services.kit.settings import load
from tests.unit.email_service.fakes import Post, until
from tests.unit.email_service.test_email_settings import GOOD

OLD, NEW = "o" * 32, "n" * 32
HANG = 60.0


class Process(Post):
    """A process of the email service on a MongoDB that others use too: streams, contents and parked records."""

    def __init__(self, database: Database, number: int, secret: str, *others: str) -> None:
        super().__init__()
        keys = {"FILE_ENCRYPTION_KEY": secret, "MAILROOM_OLD_ENCRYPTION_KEYS": ",".join(others)}
        ring = load(EmailSettings, GOOD | keys).key_ring()
        self.store = MongoEventStore(database["streams"], lease_margin=timedelta())  # type: ignore[assignment]
        self.contents = MongoContentStore(database, None, "", ring, self.clock)  # type: ignore[assignment]
        self.streams = MessageStreams(self.store, self.clock, self.ids, Policy(), self.keys, self._publish)
        self.lot = MongoParkingLot(database, ring)
        self._number, self._parked = number, 0
        self._senders = 100 * number  # each life of a process has an owner's name of its own

    async def park(self) -> str:
        self._parked += 1
        record = Record("email.notifications", self._number, self._parked, 17, None, b"raw")
        one = ParkedRecord.of("translator", record, Park("noMessage", "uncorrelated"), self.clock.now())
        await self.lot.park([one])
        return one.id

    async def claim(self) -> set[str]:
        now, hour = self.clock.now(), timedelta(hours=1)
        due = await self.lot.claim_due(
            "uncorrelated", "translator", now=now, since=now - hour, lease_until=now + hour, limit=9
        )
        return {one.id for one in due if one.raw == b"raw"}

    @asynccontextmanager
    async def sending(self) -> AsyncIterator[None]:
        await self.rates.set_limit("ses", self.provider.rate)
        sender = self.sender()
        await sender.start()
        try:
            yield
        finally:
            await sender.stop(5.0)

    async def ends(self, message_ids: list[str], phase: str) -> None:
        async def there() -> bool:
            phases = set(await self.phases(message_ids))
            assert "Failed" not in phases
            return phases == {phase}

        await until(there, HANG)


@pytest.fixture
async def database(mongo_url: str) -> AsyncIterator[Database]:
    client = connect(mongo_url)
    name = f"rotation_{uuid4().hex[:12]}"
    await MongoEventStore(client[name]["streams"]).prepare()
    yield client[name]
    await client.drop_database(name)
    await client.close()


async def test_in_two_steps_every_process_reads_what_any_other_has_written(database: Database) -> None:
    """Distribute the new key for reading, then use it: a restart is rolling, so one process is always a step ahead."""
    steps = [(OLD,), (OLD, NEW), (NEW, OLD)]
    for number, (before, after) in enumerate(pairwise(steps)):
        behind, ahead = Process(database, 2 * number + 1, *before), Process(database, 2 * number + 2, *after)
        for writer, reader in ((ahead, behind), (behind, ahead)):
            message_ids, parked_id = await writer.queue(3), await writer.park()
            async with reader.sending():
                await reader.ends(message_ids, "Sent")
            assert await reader.claim() == {parked_id}


async def test_a_key_that_is_used_before_it_was_distributed_makes_mail_wait_and_nothing_fail(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender_content, "SHORTEST_WAIT", 0.2)
    behind, ahead = Process(database, 1, OLD), Process(database, 2, NEW, OLD)
    sealed_anew, parked_anew = await ahead.queue(2), await ahead.park()
    readable, parked = await behind.queue(2), await behind.park()
    async with behind.sending():
        await behind.ends(readable, "Sent")

        async def waited() -> bool:
            assert set(await behind.phases(sealed_anew)) == {"Queued"}
            return behind.metrics.value(m.CONTENT_WAITS) >= 2

        await until(waited, HANG)
        assert await behind.claim() == {parked}
    assert [await behind.types(each) for each in sealed_anew] == [["requested"]] * 2
    restarted = Process(database, 1, NEW, OLD)
    async with restarted.sending():
        await restarted.ends(sealed_anew, "Sent")
    assert (await restarted.lot.show(parked_anew)).raw == b"raw"  # type: ignore[union-attr]
