"""What the content store promises, on a real MongoDB and the emulator's S3: small contents there, large ones here."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from deploy.local.stack import Stack
from deploy.processes import REGION, aws_environment
from services.email.adapters.content import INLINE_BYTES, MongoContentStore
from services.email.ports import ContentKey, NewContent
from services.kit.aws import AwsAccount, s3_client
from services.kit.crypto import KeyRing
from services.kit.errors import Unavailable
from services.kit.mongo import Database, connect
from services.kit.testing import FakeClock

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


@pytest.fixture
async def place(mongo_url: str, test_stack: Stack) -> AsyncIterator[Place]:
    test_stack.start(["aws"])
    url = test_stack.site.url("aws")
    keys = aws_environment(url)
    account = AwsAccount(REGION, keys["AWS_ACCESS_KEY_ID"], keys["AWS_SECRET_ACCESS_KEY"], endpoint_url=url)
    client = connect(mongo_url)
    name = f"content-{uuid4().hex[:12]}"
    clock = FakeClock(datetime.now(UTC))
    async with s3_client(account) as s3:
        await s3.create_bucket(Bucket=name)
        store = MongoContentStore(client[name], s3, name, KeyRing.from_secret(SECRET), clock)
        await store.prepare()
        yield Place(store, client[name], s3, name, clock)
    await client.drop_database(name)
    client.close()


def new(data: bytes, message_id: str = MESSAGE, **fields: Any) -> NewContent:
    return NewContent(message_id, fields.get("category", "notification"), fields.get("kind", "message"), data)


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


async def test_old_keys_open_and_strange_ones_do_not(place: Place) -> None:
    (ref,) = await place.store.put_many([new(SMALL)])
    key = ContentKey(MESSAGE, ref.ref)
    another = "another secret of more than thirty-two characters"
    assert await place.with_secrets(another, SECRET).get_many([key]) == {key: SMALL}
    assert await place.with_secrets(another).get_many([key]) == {}


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
    await place.store.keep([ContentKey(MESSAGE, kept.ref)])
    (review,) = await place.store.to_review(cutoff, 10)
    assert review.key == ContentKey(OTHER, orphan.ref)
    assert await place.store.discard([review.key], cutoff) == 1
    assert await place.objects() == []
    assert await place.store.discard([review.key], cutoff) == 0


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
    await place.store.keep([ContentKey(MESSAGE, ref.ref)])
    place.clock.move(10)
    assert await place.store.to_review(place.clock.now(), 10) == []
    assert len(await place.store.to_review(place.clock.now(), 10, categories=["auth"])) == 1
    assert await place.store.to_review(place.clock.now(), 10, categories=["system"]) == []


async def test_what_is_kept_has_an_end_by_category(place: Place) -> None:
    refs = await place.store.put_many([new(SMALL), new(SMALL, OTHER, category="auth")])
    await place.store.keep([ContentKey(MESSAGE, refs[0].ref), ContentKey(OTHER, refs[1].ref)])
    ends = {
        d["category"]: d["expiresAt"] - d["touchedAt"] for d in await place.database["contents"].find().to_list(None)
    }
    assert ends == {"notification": timedelta(days=90), "auth": timedelta(days=1)}


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
