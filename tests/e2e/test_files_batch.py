"""A batch of as many files as there may be, through the gateway: one answer, item by item, in the order asked."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from contracts.files.events import FileUploaded, FileUploadFailed, FileUploadRequested
from contracts.files.values import UploadMetadata
from contracts.ids import uuid7
from deploy.local.demo.files import PDF
from deploy.local.stack import Stack
from services.files.domain.file import Policy
from services.files.domain.names import object_key
from services.files.links import NO_SUCH_FILE
from services.files.streams import FileStreams
from services.kit.aws import AwsAccount, s3_client
from services.kit.clock import SystemClock, SystemIds
from services.kit.event_store.mongo import MongoEventStore
from services.kit.event_store.port import Draft
from services.kit.metrics import Metrics
from services.kit.mongo import connect
from tests.e2e.callers import UPLOADER, Callers, calling, data, refused, until

MANY = 1000
OWN, STRANGERS, FAILED, REPEATED = 100, 20, 20, 20
"""The rest of them are nobody's. To delete one of one's own takes five calls to S3: here it has to share the cores."""
PATIENCE = 290.0
"""Seconds: a little less than the gateway has."""


@pytest.fixture
async def callers(stack: Stack) -> AsyncIterator[Callers]:
    async with calling(stack) as callers:
        yield callers


async def stored(callers: Callers, who: str, count: int, *, good: bool = True) -> list[str]:
    """So many files of theirs, straight into the bucket and the streams; those that are not good have failed."""
    env, clock = callers.stack.env(), SystemClock()
    bucket, owner, places = env["AWS_S3_BUCKET"], callers.name(who), asyncio.Semaphore(8)
    account = AwsAccount(
        env["AWS_REGION"], env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], env["AWS_ENDPOINT_URL"]
    )
    client = connect(env["MAILROOM_MONGO_URL"])
    store = MongoEventStore(client[env["MAILROOM_FILES_DATABASE"]]["files"], clock=clock, metrics=Metrics())
    streams = FileStreams(store, clock, SystemIds(), Policy(), lambda _: None)

    async def one(s3: Any) -> str:
        file_id = uuid7()
        key = object_key("document", clock.now(), file_id, "bWFueW1hbnk")
        drafts = [
            Draft(
                FileUploadRequested(
                    key=key, bucket=bucket, region=env["AWS_REGION"], file_name="a.pdf", original_name="a.pdf",
                    content_type="application/pdf", declared_size=len(PDF), max_size_bytes=len(PDF),
                    category="document", is_public=False, user_id=owner,
                    metadata=UploadMetadata(uploaded_by=owner), method="post",
                    expires_at=clock.now().replace(microsecond=0) + timedelta(hours=1), request_hash="batch",
                )
            )
        ]  # fmt: skip
        if good:
            put = {"Bucket": bucket, "Key": key, "Body": PDF, "ContentType": "application/pdf"}
            answer = await s3.put_object(**put, Metadata={"file-id": file_id}, ServerSideEncryption="AES256")
            etag = answer["ETag"].strip('"')
            uploaded = FileUploaded(
                version_id=answer["VersionId"], etag=etag, size=len(PDF), content_type="application/pdf", by="client"
            )
            drafts.append(Draft(uploaded))
        else:
            drafts.append(Draft(FileUploadFailed(reason="typeMismatch")))
        await streams.append(await streams.load(file_id), tuple(drafts))
        return file_id

    async def in_turn(s3: Any) -> str:
        async with places:
            return await one(s3)

    async with s3_client(account) as s3:
        found = await asyncio.gather(*(in_turn(s3) for _ in range(count)))
    await client.close()
    return list(found)


async def batch(callers: Callers, who: str = "ann", **body: Any) -> list[tuple[str, bool, str | None]]:
    """What became of each."""
    answer = await callers.http.post(
        "/api/files/batch", json=body, headers=callers.as_(who, *UPLOADER), timeout=PATIENCE
    )
    done = data(answer)
    results = [(each["fileId"], each["success"], each.get("error")) for each in done["results"]]
    good = sum(success for _, success, _ in results)
    assert (done["succeeded"], done["failed"]) == (good, len(results) - good)
    return results


async def listed(callers: Callers, who: str, total: int, **query: str) -> None:
    """Wait until the read model has so many of theirs."""

    async def there() -> bool:
        answer = await callers.http.get(
            "/api/files", params={"limit": "1", **query}, headers=callers.as_(who, *UPLOADER)
        )
        return bool(data(answer)["total"] == total)

    await until(there, PATIENCE)


async def test_a_thousand_are_answered_one_by_one_and_in_order(callers: Callers) -> None:
    own = await stored(callers, "ann", OWN)
    failed = await stored(callers, "ann", FAILED, good=False)
    strangers = await stored(callers, "bob", STRANGERS)
    asked = [*own, *own[:REPEATED], *failed, *strangers]
    asked += [uuid7() for _ in range(MANY - len(asked))]
    random.Random(1).shuffle(asked)
    ended = "The file is failed: it cannot be changed."

    tagged = await batch(callers, action="tag", fileIds=asked, tags=["2026"])
    said = {**dict.fromkeys(own, (True, None)), **dict.fromkeys(failed, (False, ended))}
    assert tagged == [(file_id, *said.get(file_id, (False, NO_SUCH_FILE))) for file_id in asked]
    await listed(callers, "ann", OWN, tag="2026", status="completed")

    deleted = await batch(callers, action="delete", fileIds=asked)
    said |= dict.fromkeys(failed, (True, None))  # what failed is gone already
    assert deleted == [(file_id, *said.get(file_id, (False, NO_SUCH_FILE))) for file_id in asked]
    await listed(callers, "ann", OWN, status="deleted")
    await listed(callers, "ann", FAILED, status="failed")
    await listed(callers, "bob", STRANGERS, status="completed")  # a stranger's batch has touched none of them
    await listed(callers, "bob", 0, tag="2026")

    again = await batch(callers, action="delete", fileIds=asked)
    assert again == deleted

    answer = await callers.http.post(
        "/api/files/batch",
        json={"action": "delete", "fileIds": [*asked, uuid7()]},
        headers=callers.as_("ann", *UPLOADER),
    )
    refused(answer, 400)
