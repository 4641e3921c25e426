"""One suite for the port, on memory and on the real MongoDB."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import uuid4

import pytest

from services.kit.clock import SystemClock
from services.kit.errors import Unavailable
from services.kit.idempotency import (
    KEPT,
    ConflictingBody,
    IdempotencyKeys,
    MemoryIdempotencyKeys,
    MongoIdempotencyKeys,
    Reserved,
    body_hash,
)
from services.kit.mongo import Database, connect
from services.kit.testing import FakeClock


@pytest.fixture
async def database(mongo_url: str) -> AsyncIterator[Database]:
    client = connect(mongo_url)
    name = f"test_{uuid4().hex}"
    yield client[name]
    await client.drop_database(name)
    await client.close()


@pytest.fixture(params=["memory", "mongo"])
def keys(request: pytest.FixtureRequest) -> IdempotencyKeys:
    if request.param == "memory":
        return MemoryIdempotencyKeys(SystemClock())
    return MongoIdempotencyKeys(request.getfixturevalue("database"), SystemClock())


async def test_the_first_gets_its_own_id_and_the_next_the_same(keys: IdempotencyKeys) -> None:
    assert await keys.reserve("u1", "POST /api/email", "k1", "h1", "m1") == Reserved("m1", repeated=False)
    assert await keys.reserve("u1", "POST /api/email", "k1", "h1", "m2") == Reserved("m1", repeated=True)
    assert await keys.reserve("u1", "POST /api/email", "k1", "h1", "m3") == Reserved("m1", repeated=True)


async def test_another_body_conflicts_and_changes_nothing(keys: IdempotencyKeys) -> None:
    await keys.reserve("u1", "r", "k1", "h1", "m1")
    assert await keys.reserve("u1", "r", "k1", "h2", "m2") == ConflictingBody("m1")
    assert await keys.reserve("u1", "r", "k1", "h1", "m3") == Reserved("m1", repeated=True)


@pytest.mark.parametrize(
    "other", [("u2", "r", "k"), ("u1", "r2", "k"), ("u1", "r", "k2"), ("u", "1r", "k"), ("u1r", "", "k")]
)
async def test_user_route_and_key_count_together(keys: IdempotencyKeys, other: tuple[str, str, str]) -> None:
    await keys.reserve("u1", "r", "k", "h1", "m1")
    assert await keys.reserve(*other, "h2", "m2") == Reserved("m2", repeated=False)


async def test_of_many_at_once_exactly_one_is_first(keys: IdempotencyKeys) -> None:
    results = await asyncio.gather(*(keys.reserve("u1", "r", "k1", "h1", f"m{n}") for n in range(30)))
    reserved = [result for result in results if isinstance(result, Reserved)]
    assert len(reserved) == 30
    assert len({result.id for result in reserved}) == 1
    assert sum(not result.repeated for result in reserved) == 1


async def test_of_two_bodies_at_once_one_wins_and_the_other_learns_it(keys: IdempotencyKeys) -> None:
    results = await asyncio.gather(*(keys.reserve("u1", "r", "k1", f"h{n % 2}", f"m{n}") for n in range(20)))
    (first,) = [result for result in results if result == Reserved(result.id, repeated=False)]
    assert all(result.id == first.id for result in results)
    assert sum(isinstance(result, ConflictingBody) for result in results) == 10


async def test_any_text_is_a_key(keys: IdempotencyKeys) -> None:
    for key in ("$where", "a.b", "\x7f", "é" * 255):
        assert isinstance(await keys.reserve("u1", "r", key, "h", "m"), Reserved)


async def test_memory_forgets_after_its_time() -> None:
    clock = FakeClock()
    keys = MemoryIdempotencyKeys(clock)
    await keys.reserve("u1", "r", "k1", "h1", "m1")
    clock.move(KEPT.total_seconds())
    assert await keys.reserve("u1", "r", "k1", "h1", "m2") == Reserved("m1", repeated=True)
    clock.move(1)
    assert await keys.reserve("u1", "r", "k1", "h2", "m3") == Reserved("m3", repeated=False)


async def test_mongo_forgets_by_an_index(database: Database) -> None:
    keys = MongoIdempotencyKeys(database, SystemClock())
    await keys.prepare()
    await keys.prepare()
    await keys.reserve("alice", "r", "k1", "h1", "m1")
    indexes = await database["idempotency_keys"].index_information()
    assert indexes["forget"]["expireAfterSeconds"] == timedelta(hours=48).total_seconds()
    found = await database["idempotency_keys"].find_one({})
    assert found is not None
    assert abs(found["at"] - SystemClock().now()) < timedelta(seconds=10)
    assert "alice" not in str(found)


async def test_mongo_away_is_unavailable() -> None:
    client = connect("mongodb://127.0.0.1:1", server_selection=0.2)
    with pytest.raises(Unavailable, match="MongoDB"):
        await MongoIdempotencyKeys(client["x"], SystemClock()).reserve("u1", "r", "k", "h", "m")
    await client.close()


def test_the_hash_goes_by_content() -> None:
    assert body_hash({"a": 1, "b": [1, 2]}) == body_hash({"b": [1, 2], "a": 1})
    assert body_hash({"a": 1}) != body_hash({"a": "1"})
    assert body_hash([1, 2]) != body_hash([2, 1])
