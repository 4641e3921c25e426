"""What the content store promises, on a real MongoDB and the emulator's S3: small contents there, large ones here.

What other parts rely on when S3 is away is asked of the fake, too.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from botocore.exceptions import ClientError, EndpointConnectionError

from deploy.local.stack import Stack
from deploy.processes import REGION, aws_environment
from services.email.adapters.content import INLINE_BYTES, OBJECT_HORIZON, RETENTION, MongoContentStore
from services.email.ports import ContentKey, ContentStore, NewContent, ReviewedTo
from services.kit.aws import AwsAccount, s3_client
from services.kit.crypto import KeyRing
from services.kit.errors import KeyUnknown, Unavailable
from services.kit.mongo import Client, Database, connect
from services.kit.testing import FakeClock
from tests.unit.email_service.fakes import MemoryContents

pytestmark = pytest.mark.asyncio(loop_scope="module")

MESSAGE = "0192f0c1-2b7a-7d3e-9c1a-5b8f3e2d1c0b"
OTHER = "0192f0c1-2b7a-7d3e-9c1a-5b8f3e2d1c0c"
SECRET = "a secret of more than thirty-two characters"
SMALL = b"<p>hello</p>"
LARGE = os.urandom(INLINE_BYTES + 1)


@dataclass
class Place:
    """A store with what lies under it."""

    store: MongoContentStore
    database: Database
    s3: Any
    bucket: str
    clock: FakeClock

    async def objects(self) -> list[str]:
        found = await self.s3.list_objects_v2(Bucket=self.bucket)
        return [entry["Key"] for entry in found.get("Contents", [])]

    def with_secrets(self, secret: str, *old: str) -> MongoContentStore:
        return MongoContentStore(self.database, self.s3, self.bucket, KeyRing.from_secret(secret, old), self.clock)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def clients(mongo_url: str, test_stack: Stack) -> AsyncIterator[tuple[Client, Any]]:
    """MongoDB's and S3's for all tests: to make them takes longer than most of these."""
    test_stack.start(["aws"])
    url = test_stack.site.url("aws")
    keys = aws_environment(url)
    account = AwsAccount(REGION, keys["AWS_ACCESS_KEY_ID"], keys["AWS_SECRET_ACCESS_KEY"], endpoint_url=url)
    client = connect(mongo_url)
    async with s3_client(account) as s3:
        yield client, s3
    await client.close()


@pytest_asyncio.fixture(loop_scope="module")
async def place(clients: tuple[Client, Any]) -> AsyncIterator[Place]:
    client, s3 = clients
    name = f"content-{uuid4().hex[:12]}"
    clock = FakeClock(datetime.now(UTC))
    await s3.create_bucket(Bucket=name)
    store = MongoContentStore(client[name], s3, name, KeyRing.from_secret(SECRET), clock)
    await store.prepare()
    yield Place(store, client[name], s3, name, clock)
    await client.drop_database(name)


def new(data: bytes, message_id: str = MESSAGE, **fields: Any) -> NewContent:
    category, kind = fields.get("category", "notification"), fields.get("kind", "message")
    return NewContent(message_id, category, kind, data, fields.get("needed_until"))


def ref_of(data: bytes) -> str:
    return f"message:{hashlib.sha256(data).hexdigest()}"


@pytest.mark.parametrize("data", [b"", SMALL, LARGE], ids=["empty", "small", "large"])
async def test_what_is_put_is_got_and_lies_encrypted(place: Place, data: bytes) -> None:
    (ref,) = await place.store.put_many([new(data)])
    assert ref.size == len(data)
    key = ContentKey(MESSAGE, ref.ref)
    assert await place.store.get_many([key]) == {key: data}
    (document,) = await place.database["contents"].find().to_list(None)
    names = await place.objects()
    assert len(names) == (1 if data is LARGE else 0)
    stored = (
        document.get("sealed") or await (await place.s3.get_object(Bucket=place.bucket, Key=names[0]))["Body"].read()
    )
    assert not data or data not in bytes(stored)


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
async def test_a_repeat_stores_nothing_twice(place: Place, data: bytes) -> None:
    first = await place.store.put_many([new(data), new(data)])
    place.clock.move(60)
    again = await place.store.put_many([new(data)])
    assert first[0] == first[1] == again[0]
    assert await place.database["contents"].count_documents({}) == 1
    assert len(await place.objects()) <= 1
    assert (await place.store.get_many([ContentKey(MESSAGE, again[0].ref)])).popitem()[1] == data


class SweptOnce(MongoContentStore):
    """Another process deletes the message's contents right after the first write that met one."""

    swept = False

    async def _write(self, operations: Any) -> tuple[list[int], set[int]]:
        found = await super()._write(operations)
        if found[0] and not self.swept:
            self.swept = True
            await self.delete_messages([MESSAGE])
        return found


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
async def test_what_goes_while_it_is_put_again_is_stored_after_all(place: Place, data: bytes) -> None:
    await place.store.put_many([new(data)])
    store = SweptOnce(place.database, place.s3, place.bucket, KeyRing.from_secret(SECRET), place.clock)
    (ref,) = await store.put_many([new(data)])
    assert store.swept
    assert await place.store.get_many([ContentKey(MESSAGE, ref.ref)]) == {ContentKey(MESSAGE, ref.ref): data}


async def test_a_ref_is_valid_only_under_its_own_message(place: Place) -> None:
    (ref,) = await place.store.put_many([new(SMALL)])
    assert await place.store.get_many([ContentKey(OTHER, ref.ref)]) == {}
    (document,) = await place.database["contents"].find().to_list(None)
    await place.database["contents"].insert_one({**document, "_id": f"{OTHER}/{ref.ref}", "messageId": OTHER})
    assert await place.store.get_many([ContentKey(OTHER, ref.ref)]) == {}, "moved under another message, it opened"


async def test_old_keys_open_and_a_strange_one_may_come(place: Place) -> None:
    refs = await place.store.put_many([new(SMALL), new(LARGE)])
    small, large = (ContentKey(MESSAGE, ref.ref) for ref in refs)
    another = "another secret of more than thirty-two characters"
    assert await place.with_secrets(another, SECRET).get_many([small, large]) == {small: SMALL, large: LARGE}
    strange = await place.with_secrets(another).get_many([small, large])
    assert {key: type(found) for key, found in strange.items()} == {small: KeyUnknown, large: KeyUnknown}


async def test_deleting_a_message_takes_all_of_it_and_nothing_else(place: Place) -> None:
    await place.store.put_many([new(SMALL), new(LARGE), new(SMALL, OTHER), new(LARGE, OTHER)])
    await place.store.delete_messages([MESSAGE])
    await place.store.delete_messages([MESSAGE])
    assert await place.database["contents"].distinct("messageId") == [OTHER]
    assert all(OTHER in name for name in await place.objects())
    assert len(await place.objects()) == 1


async def test_what_nobody_names_is_reviewed_and_discarded(place: Place) -> None:
    (kept, orphan) = await place.store.put_many([new(SMALL), new(LARGE, OTHER)])
    place.clock.move(3601)
    cutoff = place.clock.now() - timedelta(hours=1)
    assert {item.key.message_id for item in await place.store.to_review(cutoff, 10)} == {MESSAGE, OTHER}
    await place.store.keep({ContentKey(MESSAGE, kept.ref): place.clock.now()})
    (review,) = await place.store.to_review(cutoff, 10)
    assert review.key == ContentKey(OTHER, orphan.ref)
    assert await place.store.discard([review.key], cutoff) == 1
    assert await place.objects() == []
    assert await place.store.discard([review.key], cutoff) == 0


async def test_a_review_goes_on_from_where_it_is(place: Place) -> None:
    """Also through contents of one moment that fill more than a page."""
    for number in range(7):
        place.clock.move(number == 5)
        await place.store.put_many([new(b"%d" % number, OTHER)])
    place.clock.move(1)
    seen: list[ContentKey] = []
    to: ReviewedTo | None = None
    while page := await place.store.to_review(place.clock.now(), 2, after=to):
        seen += [each.key for each in page]
        to = ReviewedTo.past(to, page)
    assert (len(seen), len(set(seen))) == (7, 7)


async def test_what_was_put_again_is_not_discarded(place: Place) -> None:
    (ref,) = await place.store.put_many([new(LARGE)])
    place.clock.move(3601)
    cutoff = place.clock.now() - timedelta(hours=1)
    (review,) = await place.store.to_review(cutoff, 10)
    await place.store.put_many([new(LARGE)])
    assert await place.store.discard([review.key], cutoff) == 0
    assert await place.store.get_many([ContentKey(MESSAGE, ref.ref)])


async def test_categories_are_reviewed_kept_or_not(place: Place) -> None:
    (ref,) = await place.store.put_many([new(SMALL, category="auth")])
    await place.store.keep({ContentKey(MESSAGE, ref.ref): place.clock.now()})
    place.clock.move(10)
    assert await place.store.to_review(place.clock.now(), 10) == []
    assert len(await place.store.to_review(place.clock.now(), 10, categories=["auth"])) == 1
    assert await place.store.to_review(place.clock.now(), 10, categories=["system"]) == []


async def test_what_is_kept_has_an_end_by_category_and_by_when_its_mail_is_over(place: Place) -> None:
    refs = await place.store.put_many([new(SMALL), new(SMALL, OTHER, category="auth"), new(b"planned", OTHER)])
    put_at = place.clock.now()
    over = [put_at, put_at + timedelta(hours=1), put_at + timedelta(days=700)]
    keys = [ContentKey(MESSAGE, refs[0].ref), ContentKey(OTHER, refs[1].ref), ContentKey(OTHER, refs[2].ref)]
    await place.store.keep(dict(zip(keys, over, strict=True)))
    await place.store.keep(dict.fromkeys(keys, put_at))  # kept once is kept
    ends = {d["ref"]: d["expiresAt"] - d["touchedAt"] for d in await place.database["contents"].find().to_list(None)}
    assert ends == {
        refs[0].ref: timedelta(days=90),
        refs[1].ref: timedelta(days=1, hours=1),
        refs[2].ref: timedelta(days=790),
    }


async def test_what_lies_in_s3_ends_with_its_retention_too(place: Place) -> None:
    refs = await place.store.put_many([new(LARGE), new(LARGE, OTHER), new(SMALL, OTHER)])
    now = place.clock.now()
    keys = [ContentKey(MESSAGE, refs[0].ref), ContentKey(OTHER, refs[1].ref), ContentKey(OTHER, refs[2].ref)]
    await place.store.keep(dict(zip(keys, [now, now + timedelta(seconds=1), now], strict=True)))
    place.clock.move(RETENTION["notification"].total_seconds())
    calls = Counting(place.s3)
    away = MongoContentStore(place.database, calls, place.bucket, KeyRing.from_secret(SECRET), place.clock)
    calls.broken = True
    with pytest.raises(Unavailable):
        await away.end_retention(10)
    assert len(await place.objects()) == 2
    assert [await place.store.end_retention(10) for _ in range(2)] == [1, 0]
    (name,) = await place.objects()
    assert OTHER in name
    assert await place.database["contents"].count_documents({}) == 2, "the small one is MongoDB's to remove"


async def test_what_the_buckets_rule_could_delete_too_early_lies_in_mongodb(place: Place) -> None:
    soon, late = place.clock.now() + OBJECT_HORIZON, place.clock.now() + OBJECT_HORIZON + timedelta(seconds=1)
    await place.store.put_many([new(LARGE, needed_until=soon), new(LARGE, OTHER, needed_until=late)])
    (name,) = await place.objects()
    assert MESSAGE in name
    assert max(RETENTION.values()) + OBJECT_HORIZON < timedelta(days=rule_days())
    assert (await place.store.get_many([ContentKey(OTHER, ref_of(LARGE))]))[ContentKey(OTHER, ref_of(LARGE))] == LARGE


def rule_days() -> int:
    """The least age at which the template's rule may delete an object."""
    template = (Path(__file__).resolve().parents[2] / "deploy" / "aws" / "email.yaml").read_text()
    parameter = template.partition("  ContentRetentionDays:\n")[2].partition("Description")[0]
    return int(parameter.partition("MinValue:")[2].split()[0])


async def test_sealed_bodies_never_wait_for_s3(place: Place) -> None:
    await place.store.put_many([new(LARGE, kind="sealed")])
    assert await place.objects() == []


# --- S3 is away, or refuses us ---------------------------------------------------------------------------------------


@pytest_asyncio.fixture(loop_scope="module", params=["closed port", "refused"])
async def half(request: pytest.FixtureRequest, place: Place) -> AsyncIterator[MongoContentStore]:
    """A store with a small and a large content of MESSAGE, the large one of which cannot be had."""
    await place.store.put_many([new(SMALL), new(LARGE)])
    async with AsyncExitStack() as stack:
        s3: Any = Refusing()
        if request.param == "closed port":
            account = AwsAccount(REGION, "key", "secret", endpoint_url="http://127.0.0.1:9")
            s3 = await stack.enter_async_context(s3_client(account))
        yield MongoContentStore(place.database, s3, place.bucket, KeyRing.from_secret(SECRET), place.clock)


class Refusing:
    """An S3 client without rights."""

    def __getattr__(self, operation: str) -> Any:
        async def refused(**_: Any) -> None:
            answer = {"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
            raise ClientError(answer, operation)

        return refused


async def test_each_content_is_got_by_itself(half: MongoContentStore) -> None:
    await got_by_itself(half)


async def test_each_content_is_got_by_itself_from_the_fake() -> None:
    memory = MemoryContents(FakeClock())
    await memory.put_many([new(SMALL), new(LARGE)])
    memory.large_away = True
    await got_by_itself(memory)


async def got_by_itself(store: ContentStore) -> None:
    small, large = ContentKey(MESSAGE, ref_of(SMALL)), ContentKey(MESSAGE, ref_of(LARGE))
    for _ in range(2):
        found = await store.get_many([large, small, ContentKey(OTHER, ref_of(SMALL))])
        assert found[small] == SMALL
        assert isinstance(found[large], Unavailable)
        assert len(found) == 2


async def test_silence_of_s3_is_not_waited_for(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    await place.store.put_many([new(SMALL), new(LARGE)])
    monkeypatch.setattr("services.email.adapters.objects.READ_SECONDS", 0.2)
    store = MongoContentStore(place.database, Silent(), place.bucket, KeyRing.from_secret(SECRET), place.clock)
    async with asyncio.timeout(180):
        await got_by_itself(store)


class Silent:
    """An S3 client that never gets an answer."""

    async def get_object(self, **_: Any) -> None:
        await asyncio.Event().wait()


async def test_what_s3_does_not_take_lies_in_mongodb(half: MongoContentStore, place: Place) -> None:
    (ref,) = await half.put_many([new(LARGE, OTHER)])
    assert await half.get_many([ContentKey(OTHER, ref.ref)]) == {ContentKey(OTHER, ref.ref): LARGE}
    assert await place.store.get_many([ContentKey(OTHER, ref.ref)]) == {ContentKey(OTHER, ref.ref): LARGE}


async def test_what_lies_in_s3_is_deleted_when_it_is_back_and_the_rest_at_once(
    half: MongoContentStore, place: Place
) -> None:
    with pytest.raises(Unavailable):
        await half.delete_messages([MESSAGE])
    assert [d["ref"] for d in await place.database["contents"].find().to_list(None)] == [ref_of(LARGE)]
    await place.store.delete_messages([MESSAGE])
    assert await place.objects() == []
    assert await place.database["contents"].count_documents({}) == 0


async def test_what_s3_keeps_is_tried_again_and_its_neighbours_are_gone(place: Place) -> None:
    """S3 answers a deletion of many for each by itself."""
    calls = Counting(place.s3)
    store = MongoContentStore(place.database, calls, place.bucket, KeyRing.from_secret(SECRET), place.clock)
    await store.put_many([new(LARGE), new(LARGE + b"2")])
    kept, _ = await place.objects()
    calls.keeps = kept
    with pytest.raises(Unavailable, match="AccessDenied"):
        await store.delete_messages([MESSAGE])
    assert await place.objects() == [kept]
    assert [document["object"] for document in await place.database["contents"].find().to_list(None)] == [kept]
    calls.keeps = ""
    await store.delete_messages([MESSAGE])
    assert await place.objects() == []
    assert await place.database["contents"].count_documents({}) == 0


async def test_what_s3_keeps_after_its_retention_keeps_nothing_else(place: Place) -> None:
    calls = Counting(place.s3)
    store = MongoContentStore(place.database, calls, place.bucket, KeyRing.from_secret(SECRET), place.clock)
    refs = await store.put_many([new(LARGE), new(LARGE, OTHER)])
    keys = [ContentKey(MESSAGE, refs[0].ref), ContentKey(OTHER, refs[1].ref)]
    now = place.clock.now()
    await store.keep({keys[0]: now, keys[1]: now + timedelta(seconds=1)})
    (calls.keeps,) = [name for name in await place.objects() if MESSAGE in name]
    place.clock.move(RETENTION["notification"].total_seconds() + 60)
    with pytest.raises(Unavailable, match="AccessDenied"):
        await store.end_retention(1)
    assert [await store.end_retention(1) for _ in range(2)] == [1, 0]
    assert await place.objects() == [calls.keeps]
    calls.keeps = ""
    place.clock.move(3601)
    assert await store.end_retention(1) == 1
    assert await place.objects() == []


async def test_while_s3_is_away_only_what_is_small_is_discarded(place: Place) -> None:
    await place.store.put_many([new(SMALL), new(LARGE)])
    calls = Counting(place.s3)
    calls.broken = True
    store = MongoContentStore(place.database, calls, place.bucket, KeyRing.from_secret(SECRET), place.clock)
    keys = [ContentKey(MESSAGE, ref_of(LARGE)), ContentKey(MESSAGE, ref_of(SMALL))]
    await store.get_many(keys)
    later = place.clock.now() + timedelta(hours=1)
    assert await store.discard(keys, later) == 1
    assert list(await place.store.get_many(keys)) == keys[:1]
    assert await place.store.discard(keys, later) == 1
    assert await place.objects() == []


async def test_s3_is_tried_again_after_a_pause_by_one_call(place: Place) -> None:
    (ref,) = await place.store.put_many([new(LARGE)])
    calls = Counting(place.s3)
    store = MongoContentStore(place.database, calls, place.bucket, KeyRing.from_secret(SECRET), place.clock)
    key = ContentKey(MESSAGE, ref.ref)
    calls.broken = True
    for _ in range(3):
        error = (await store.get_many([key]))[key]
        assert isinstance(error, Unavailable)
        assert error.retry_after is not None
    assert calls.count == 1, "nobody asks while it is left alone"
    calls.broken = False
    place.clock.move(1.1)
    assert await store.get_many([key]) == {key: LARGE}
    assert await store.get_many([key]) == {key: LARGE}
    assert calls.count == 3


class Counting:
    """An S3 client that counts its calls, can be without network, and may not delete the object `keeps`."""

    def __init__(self, client: Any) -> None:
        self._client, self.count, self.broken, self.keeps = client, 0, False, ""

    async def put_object(self, **arguments: Any) -> Any:
        return await self._client.put_object(**arguments)

    async def get_object(self, **arguments: Any) -> Any:
        self.count += 1
        if self.broken:
            raise EndpointConnectionError(endpoint_url="http://127.0.0.1:9")
        return await self._client.get_object(**arguments)

    async def delete_objects(self, **arguments: Any) -> Any:
        self.count += 1
        if self.broken:
            raise EndpointConnectionError(endpoint_url="http://127.0.0.1:9")
        wanted = arguments["Delete"]["Objects"]
        going = [each for each in wanted if each["Key"] != self.keeps]
        if going:
            await self._client.delete_objects(Bucket=arguments["Bucket"], Delete={"Objects": going, "Quiet": True})
        return {"Errors": [{"Key": each["Key"], "Code": "AccessDenied"} for each in wanted if each not in going]}


async def test_a_store_that_is_away_says_so(place: Place) -> None:
    gone = MongoContentStore(
        connect("mongodb://127.0.0.1:9/?replicaSet=rs0", server_selection=0.2)["x"],
        place.s3,
        place.bucket,
        KeyRing.from_secret(SECRET),
        place.clock,
    )
    with pytest.raises(Unavailable):
        await gone.put_many([new(SMALL)])
    with pytest.raises(Unavailable):
        await gone.get_many([ContentKey(MESSAGE, "x")])
