"""What only the real MongoDB can show: concerns, errors by index, the canary."""

import asyncio
import random
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from pymongo import InsertOne, UpdateOne
from pymongo.errors import BulkWriteError

from services.kit.addresses import recipient_keys
from services.kit.crypto import KeyRing
from services.kit.errors import SettingsError, Unavailable
from services.kit.mongo import Client, Database, classify_bulk, connect, foreign_errors, ping

NEW, OLD = "n" * 32, "o" * 32


@pytest.fixture
async def client(mongo_url: str) -> AsyncIterator[Client]:
    client = connect(mongo_url)
    yield client
    await client.close()


@pytest.fixture
async def database(client: Client) -> AsyncIterator[Database]:
    name = f"test_{uuid4().hex}"
    yield client[name]
    await client.drop_database(name)


async def test_concerns_cannot_be_weakened_by_the_url(mongo_url: str) -> None:
    weak = mongo_url + ("&" if "?" in mongo_url else "?") + "w=0&readConcernLevel=local&readPreference=secondary"
    client = connect(weak)
    assert client.write_concern.document == {"w": "majority", "wtimeout": 20000, "j": True}
    assert client.read_concern.level == "majority"
    assert client.read_preference.mongos_mode == "primary"
    await ping(client)
    await client.close()


async def test_nobody_there_is_unavailable_in_good_time() -> None:
    client = connect("mongodb://127.0.0.1:1", server_selection=0.2)
    with pytest.raises(Unavailable, match="is it running"):
        await ping(client)
    await client.close()


async def test_guarded_upserts_tell_by_index_which_lost(database: Database) -> None:
    streams = database["streams"]
    await streams.bulk_write([InsertOne({"_id": "a", "version": 1}), InsertOne({"_id": "b", "version": 5})])
    writes = [
        UpdateOne({"_id": "a", "version": 1}, {"$set": {"version": 2}}, upsert=True),
        UpdateOne({"_id": "b", "version": 4}, {"$set": {"version": 5}}, upsert=True),
        UpdateOne({"_id": "c", "version": 0}, {"$set": {"version": 1}}, upsert=True),
    ]
    with pytest.raises(BulkWriteError) as caught:
        await streams.bulk_write(writes, ordered=False)
    assert classify_bulk(caught.value, 3).items == ("done", "duplicate", "done")


async def test_times_come_back_aware(database: Database) -> None:
    await database["times"].insert_one({"_id": 1})
    await database["times"].update_one({"_id": 1}, {"$currentDate": {"at": True}})
    found = await database["times"].find_one({"_id": 1})
    assert found is not None
    assert found["at"].utcoffset().total_seconds() == 0


async def test_a_cancelled_operation_ends_its_task(database: Database) -> None:
    """Lease keepers and time limits count on it, and PyMongo alone lets one of 65 go on (ADR 0019)."""
    counters, chance = database["counters"], random.Random(3)

    async def work() -> None:
        while True:
            with foreign_errors():
                await counters.update_one({"_id": 1}, {"$inc": {"n": 1}}, upsert=True)
            with foreign_errors():
                await counters.find_one({"_id": 1})

    went_on = 0
    for _ in range(200):
        tasks = [asyncio.create_task(work()) for _ in range(3)]
        await asyncio.sleep(chance.uniform(0, 0.02))
        for task in tasks:
            task.cancel()
        _, pending = await asyncio.wait(tasks, timeout=90)
        went_on += len(pending)
        while pending:
            for task in pending:
                task.cancel()
            _, pending = await asyncio.wait(pending, timeout=1)
    assert went_on == 0


async def test_one_connection_does_for_every_kind_of_operation(mongo_url: str, database: Database) -> None:
    """None of them holds its place while it waits for another: many at once over one connection all end."""
    client = connect(mongo_url, pool=1, opened=1)
    things = client[database.name]["things"]

    async def work(caller: int) -> int:
        with foreign_errors():
            await things.bulk_write(
                [
                    *(InsertOne({"caller": caller, "n": n}) for n in range(30)),
                    UpdateOne({"caller": caller, "n": 0}, {"$set": {"seen": True}}),
                ],
                ordered=False,
            )
            seen = 0
            async for _ in things.find({"caller": caller}).batch_size(3):
                await things.find_one({"caller": caller, "n": seen})  # while a cursor is open
                seen += 1
            grouped = await things.aggregate([{"$match": {"caller": caller}}, {"$count": "n"}])
            (group,) = await grouped.to_list(None)
            return seen + int(group["n"])

    try:
        async with asyncio.timeout(60):
            assert await asyncio.gather(*(work(caller) for caller in range(20))) == [60] * 20
    finally:
        await client.close()


async def test_the_first_start_leaves_the_canary_and_the_next_find_it(database: Database) -> None:
    first = await recipient_keys(database, None, KeyRing.from_secret(OLD))
    again = await recipient_keys(database, None, KeyRing.from_secret(OLD))
    assert first.canary() == again.canary()


async def test_a_new_encryption_key_with_its_former_value_keeps_the_recipient_keys(database: Database) -> None:
    first = await recipient_keys(database, None, KeyRing.from_secret(OLD))
    rotated = await recipient_keys(database, None, KeyRing.from_secret(NEW, old=[OLD]))
    assert rotated.key("a@b.de") == first.key("a@b.de")


@pytest.mark.parametrize(
    ("address_key", "ring"), [(None, KeyRing.from_secret(NEW)), ("another", KeyRing.from_secret(OLD))]
)
async def test_a_changed_key_refuses_to_start(database: Database, address_key: str | None, ring: KeyRing) -> None:
    await recipient_keys(database, None, KeyRing.from_secret(OLD))
    with pytest.raises(SettingsError, match="MAILROOM_ADDRESS_KEY"):
        await recipient_keys(database, address_key, ring)
