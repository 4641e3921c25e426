"""What every store of upload quotas promises: one suite, run on memory and on a real MongoDB."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from services.files.adapters.mongo_quotas import COLLECTION, MongoQuotas
from services.files.domain.quotas import OpenUpload, Quota
from services.files.ports import QuotaStore
from services.kit.mongo import connect
from services.kit.testing import FakeClock
from tests.unit.files_service.fakes import MemoryQuotas

GB = 1_000_000_000
HOUR = timedelta(hours=1)


@pytest.fixture(params=["memory", "mongo"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[QuotaStore]:
    if request.param == "memory":
        yield MemoryQuotas(FakeClock(datetime.now(UTC)))
        return
    client = connect(request.getfixturevalue("mongo_url"))
    name = f"quotas_{uuid4().hex}"
    store = MongoQuotas(client[name])
    await store.prepare()
    yield store
    await client.drop_database(name)
    await client.close()


def upload(name: str, size: int = GB, lasts: timedelta = HOUR) -> OpenUpload:
    return OpenUpload(name, size, datetime.now(UTC) + lasts)


async def test_of_many_that_begin_at_once_no_more_are_taken_than_fit(store: QuotaStore) -> None:
    quota = Quota(open=5)
    answers = await asyncio.gather(*(store.reserve("ann", quota, upload(f"f{n}")) for n in range(30)))
    assert answers.count(None) == 5
    (over,) = {each.what for each in answers if each is not None}
    assert over == "open"
    assert await store.reserve("bob", quota, upload("g")) is None


async def test_what_has_ended_makes_room_and_what_is_open_says_how_long_it_takes(store: QuotaStore) -> None:
    quota = Quota(open=2)
    for name in ("a", "b"):
        assert await store.reserve("ann", quota, upload(name)) is None
    over = await store.reserve("ann", quota, upload("c"))
    assert over is not None
    assert over.wait is not None
    assert (over.what, over.most, timedelta() < over.wait < 2 * HOUR) == ("open", 2, True)
    await store.release("ann", "a", GB)
    await store.release("ann", "never begun", 0)
    await store.release("nobody", "a", 0)
    assert await store.reserve("ann", quota, upload("c")) is None
    assert await store.reserve("ann", quota, upload("d")) is not None


async def test_an_upload_that_is_counted_is_counted_once(store: QuotaStore) -> None:
    quota = Quota(open=1, bytes=GB)
    for _ in range(3):
        assert await store.reserve("ann", quota, upload("a")) is None
    await store.release("ann", "a", 0)
    assert await store.reserve("ann", quota, upload("b")) is None, "its bytes came back once, too"


async def test_what_has_expired_counts_no_more(store: QuotaStore) -> None:
    quota = Quota(open=1)
    assert await store.reserve("ann", quota, upload("a", lasts=-HOUR)) is None
    assert await store.reserve("ann", quota, upload("b")) is None
    assert await store.reserve("ann", quota, upload("c")) is not None


async def test_bytes_are_used_up_by_what_came_and_flow_off_in_a_day(store: QuotaStore) -> None:
    quota = Quota(bytes=10 * GB)
    assert await store.reserve("ann", quota, upload("a", 6 * GB)) is None
    assert await store.reserve("ann", quota, upload("b", 4 * GB)) is None
    over = await store.reserve("ann", quota, upload("c", 5 * GB))
    assert over is not None
    assert over.wait is not None
    assert (over.what, over.most) == ("bytes", 10 * GB)
    assert abs(over.wait - timedelta(hours=12)) < timedelta(minutes=5), "half of it is half a day"
    await store.release("ann", "a", 1 * GB)
    assert await store.reserve("ann", quota, upload("c", 5 * GB)) is None
    assert await store.reserve("ann", quota, upload("d", 1 * GB)) is not None


async def test_an_upload_above_the_whole_quota_never_begins(store: QuotaStore) -> None:
    over = await store.reserve("ann", Quota(open=3, bytes=GB), upload("a", GB + 1))
    assert over is not None
    assert (over.what, over.wait) == ("bytes", None)


async def test_a_document_is_kept_as_long_as_it_counts(mongo_url: str) -> None:
    client = connect(mongo_url)
    database = client[f"quotas_{uuid4().hex}"]
    try:
        store = MongoQuotas(database)
        await store.prepare()
        late = upload("a", lasts=timedelta(hours=100))
        assert await store.reserve("ann", Quota(open=3), late) is None
        assert await store.reserve("bob", Quota(open=3), upload("b")) is None
        (ann, bob) = [each["forgetAt"] async for each in database[COLLECTION].find().sort("_id")]
        assert abs(ann - late.until) < timedelta(seconds=1)
        assert abs(bob - datetime.now(UTC) - timedelta(hours=24)) < timedelta(minutes=5)
    finally:
        await client.drop_database(database.name)
        await client.close()
