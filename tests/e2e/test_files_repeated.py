"""An upload asked for many times at once under one Idempotency-Key, on the running stack: one file, one place in S3."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from deploy.local.demo.files import PDF, FilesDoor
from deploy.local.stack import Stack
from services.kit.aws import AwsAccount, s3_client
from tests.e2e.callers import SHARED, UPLOADER, Callers, data, refused

AT_ONCE, KEYS = 4, 4


pytestmark = SHARED


@pytest_asyncio.fixture(loop_scope="module")
async def s3(stack: Stack) -> AsyncIterator[Any]:
    env = stack.env()
    account = AwsAccount(
        env["AWS_REGION"], env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], env["AWS_ENDPOINT_URL"]
    )
    async with s3_client(account) as client:
        yield client


async def ask(callers: Callers, key: str, **body: Any) -> httpx.Response:
    wire = {"fileName": "a.pdf", "contentType": "application/pdf", "category": "document", "size": len(PDF), **body}
    headers = {**callers.as_("ann", *UPLOADER), "Idempotency-Key": key}
    return await callers.http.post("/api/files/upload-url", json=wire, headers=headers, timeout=120)


async def asked_at_once(callers: Callers, method: str) -> dict[str, list[dict[str, Any]]]:
    """By key, the answers to who asked under it, all at the same time."""
    keys = [f"{method}-{n}" for n in range(KEYS)]
    answers = await asyncio.gather(*(ask(callers, key, method=method) for key in keys for _ in range(AT_ONCE)))
    found = [data(each, 201) for each in answers]
    return {key: found[n * AT_ONCE : (n + 1) * AT_ONCE] for n, key in enumerate(keys)}


async def requests_of(callers: Callers, file_id: str) -> list[str]:
    """The types of all that the log tells of a file so far."""
    return [each["type"] for each in await callers.events(file_id, "files.events")]


@pytest.mark.parametrize("method", ["post", "multipart"])
async def test_one_file_comes_of_it_with_one_place_in_s3(callers: Callers, s3: Any, method: str) -> None:
    places: set[str] = set()
    for answers in (await asked_at_once(callers, method)).values():
        file_id, key = answers[0]["fileId"], answers[0]["fileKey"]
        assert {(each["fileId"], each["fileKey"]) for each in answers} == {(file_id, key)}
        places.add(key)
        begun = await s3.list_multipart_uploads(
            Bucket=callers.stack.env()["AWS_S3_BUCKET"], Prefix=key.rpartition("/")[0]
        )
        there = [(each["Key"], each["UploadId"]) for each in begun.get("Uploads", ())]
        if method == "post":
            assert there == []
        else:
            assert there == [(key, answers[0]["uploadId"])]  # whoever came second has given theirs up
            assert {each["uploadId"] for each in answers} == {answers[0]["uploadId"]}
    assert len(places) == KEYS


@pytest.mark.parametrize("method", ["post", "multipart"])
async def test_any_of_the_answers_will_do_and_the_key_stays_taken(callers: Callers, method: str) -> None:
    (first, *_), *_ = (await asked_at_once(callers, method)).values()
    last = data(await ask(callers, f"{method}-0", method=method), 201)
    done: dict[str, Any] = {"fileId": first["fileId"], "actualSize": len(PDF)}
    if method == "post":
        await FilesDoor(callers.http, callers.token("ann", *UPLOADER)).form(last, PDF)
    else:
        (part,) = last["parts"]
        assert (await callers.http.put(part["url"], content=PDF, headers=part["headers"])).status_code == 200
        done["uploadToken"] = first["uploadToken"]
    answer = await callers.http.post("/api/files/upload-complete", json=done, headers=callers.as_("ann", *UPLOADER))
    assert data(answer)["status"] == "completed"
    repeated = data(await ask(callers, f"{method}-0", method=method), 200)
    assert (repeated["fileId"], repeated["file"]["status"]) == (first["fileId"], "completed")
    refused(await ask(callers, f"{method}-0", method=method, fileName="b.pdf"), 409)
    assert (await requests_of(callers, first["fileId"])).count("file.uploadRequested") == 1
