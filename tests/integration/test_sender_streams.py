"""A sender on a real MongoDB that is away while calls are open, or holds streams that this build cannot read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from services.email.adapters.suppressions import StreamSuppressionList
from services.email.ports import OutgoingAttempt
from services.kit.addresses import RecipientKeys
from services.kit.errors import Unavailable
from services.kit.event_store import server_time
from services.kit.event_store.mongo import MongoEventStore
from services.kit.event_store.port import Append, AppendResult, Stream
from services.kit.mongo import Database, connect
from tests.integration.lossy_proxy import LossyProxy, lossy_proxy
from tests.unit.email_service.fakes import Answer, FakeProvider, Post, until

HANG = 60.0
STRANGE = '{"type": "email.sent", "dataversion": 99}'


class Watched(MongoEventStore):
    """Counts what found the store away: appends, and reads of what could not be appended."""

    away = away_again = 0

    async def load_many(self, stream_ids: Collection[str]) -> Mapping[str, Stream]:
        try:
            return await super().load_many(stream_ids)
        except Unavailable:
            self.away_again += 1
            raise

    async def append_many(self, appends: Sequence[Append]) -> list[AppendResult]:
        results = await super().append_many(appends)
        self.away += any(isinstance(each, Unavailable) for each in results)
        return results


@dataclass
class World:
    """A sending side whose streams are reached through a proxy."""

    database: Database
    store: Watched
    proxy: LossyProxy
    post: Post = field(default_factory=Post)
    keys: RecipientKeys = field(default_factory=lambda: RecipientKeys(b"k" * 32))

    def __post_init__(self) -> None:
        self.post.store = self.post.streams.store = self.store  # type: ignore[assignment]
        recipients = MongoEventStore(self.database["recipients"])
        self.post.suppressions = StreamSuppressionList(recipients, self.keys)  # type: ignore[assignment]

    async def phases(self, message_ids: Sequence[str], wanted: str) -> bool:
        try:
            found = await self.post.phases(message_ids)
        except Unavailable:  # the client has not noticed yet that the server is back
            return False
        assert "OutcomeUnknown" not in found
        return set(found) == {wanted}


@pytest.fixture
async def world(mongo_url: str) -> AsyncIterator[World]:
    port = urlsplit(mongo_url).port
    assert port is not None
    name = f"sender_{uuid4().hex[:12]}"
    direct = connect(mongo_url)
    async with lossy_proxy(port) as proxy:
        client = connect(f"mongodb://127.0.0.1:{proxy.port}/?directConnection=true", server_selection=0.3)
        store = Watched(client[name]["streams"])
        await store.prepare()
        yield World(direct[name], store, proxy)
        await client.close()
    await direct.drop_database(name)
    await direct.close()


async def test_answers_are_written_down_after_an_outage_that_outlasts_what_is_known_of_the_server_s_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The outage is short, and what is known of the server's time is too old at once: as after minutes."""
    post, called, away = world.post, asyncio.Semaphore(0), asyncio.Event()

    async def meanwhile(attempt: OutgoingAttempt) -> Answer:
        called.release()
        await away.wait()
        return post.provider.take(attempt)

    post.provider = FakeProvider(meanwhile)
    message_ids = await post.queue(5)
    sender = post.sender()
    await sender.start()
    for _ in message_ids:
        await called.acquire()
    monkeypatch.setattr(server_time, "REFRESH_SECONDS", 0.0)
    monkeypatch.setattr(server_time, "STALE_SECONDS", 0.0)
    world.proxy.down = True
    away.set()

    async def tried_again() -> bool:
        assert sender.health().died is None
        return world.store.away >= 1 and world.store.away_again >= 2

    await until(tried_again, HANG)
    world.proxy.down = False
    await until(partial(world.phases, message_ids, "Sent"), HANG)
    await sender.stop(5.0)
    assert len(post.provider.accepted) == len(message_ids)


async def test_one_stream_that_cannot_be_read_holds_up_nothing_else(world: World) -> None:
    """A recipient's, and a message's that became unreadable while its call was under way."""
    post, database = world.post, world.database
    strange: dict[str, Any] = {"version": 1, "events": [STRANGE], "published": 1}
    await database["recipients"].insert_one({"_id": world.keys.key("recipient@example.com"), **strange})
    (waiting,) = await post.queue(to=["recipient@example.com"])
    (message_id,) = await post.queue(to=["message@example.com"])

    async def meanwhile(attempt: OutgoingAttempt) -> Answer:
        if attempt.recipient == "message@example.com":
            change = {"$push": {"events": STRANGE}, "$inc": {"version": 1}}
            await database["streams"].update_one({"_id": message_id}, change)
        return post.provider.take(attempt)

    post.provider = FakeProvider(meanwhile)
    sender = post.sender()
    await sender.start()

    async def called() -> bool:
        return message_id in {accepted for accepted, _ in post.provider.accepted}

    await until(called, HANG)
    others = await post.queue(20)
    await until(partial(world.phases, others, "Sent"), HANG)

    async def nothing_open() -> bool:
        return sender.health().detail["openAttempts"] == 0

    await until(nothing_open, HANG)
    assert await post.types(waiting) == ["requested"]
    await sender.stop(5.0)
