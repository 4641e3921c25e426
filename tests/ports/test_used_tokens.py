"""One suite for the port, on memory and on the real MongoDB."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from services.email.adapters.used_tokens import MongoUsedTokens
from services.email.domain.webhooks import OneUse
from services.email.ports import UsedTokens
from services.kit.clock import SystemClock
from services.kit.errors import Unavailable
from services.kit.mongo import Database, connect
from services.kit.testing import FakeClock
from tests.unit.email_service.webhooks import MemoryUsedTokens

USE = OneUse("5f" * 32, "a" * 64, datetime.now(UTC) + timedelta(hours=24))


@pytest.fixture
async def database(mongo_url: str) -> AsyncIterator[Database]:
    client = connect(mongo_url)
    name = f"test_{uuid4().hex}"
    yield client[name]
    await client.drop_database(name)
    await client.close()


@pytest.fixture(params=["memory", "mongo"])
def tokens(request: pytest.FixtureRequest) -> UsedTokens:
    if request.param == "memory":
        return MemoryUsedTokens(SystemClock())
    return MongoUsedTokens(request.getfixturevalue("database"), SystemClock())


async def test_what_was_recorded_is_known_with_its_body_and_nothing_else_is(tokens: UsedTokens) -> None:
    assert await tokens.body_of(USE.token) is None
    assert await tokens.record(USE) == USE.body_hash
    assert await tokens.body_of(USE.token) == USE.body_hash
    assert await tokens.body_of("6f" * 32) is None


async def test_the_first_body_stands(tokens: UsedTokens) -> None:
    await tokens.record(USE)
    assert await tokens.record(USE) == USE.body_hash
    assert await tokens.record(replace(USE, body_hash="b" * 64)) == USE.body_hash
    assert await tokens.body_of(USE.token) == USE.body_hash


async def test_of_two_bodies_at_once_one_stands_and_everybody_learns_which(tokens: UsedTokens) -> None:
    uses = [replace(USE, body_hash=body * 64) for body in "ab" * 10]
    found = await asyncio.gather(*(tokens.record(use) for use in uses))
    assert set(found) == {await tokens.body_of(USE.token)}


async def test_memory_forgets_after_its_time() -> None:
    clock = FakeClock()
    tokens = MemoryUsedTokens(clock)
    await tokens.record(replace(USE, until=clock.now() + timedelta(seconds=10)))
    clock.move(11)
    assert await tokens.body_of(USE.token) is None


async def test_mongo_forgets_by_an_index(database: Database) -> None:
    tokens = MongoUsedTokens(database, SystemClock())
    await tokens.prepare()
    await tokens.prepare()
    await tokens.record(USE)
    indexes = await database["webhook_tokens"].index_information()
    assert (indexes["forget"]["key"], indexes["forget"]["expireAfterSeconds"]) == ([("until", 1)], 0)
    found = await database["webhook_tokens"].find_one({})
    assert found is not None
    assert abs(found["until"] - USE.until) < timedelta(milliseconds=1)


async def test_mongo_away_is_unavailable() -> None:
    client = connect("mongodb://127.0.0.1:1", server_selection=0.2)
    tokens = MongoUsedTokens(client["x"], SystemClock())
    with pytest.raises(Unavailable, match="MongoDB"):
        await tokens.body_of(USE.token)
    with pytest.raises(Unavailable, match="MongoDB"):
        await tokens.record(USE)
    await client.close()
