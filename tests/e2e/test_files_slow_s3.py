"""S3 may take minutes to make one object of many parts: whoever completes an upload is answered all the same."""

from __future__ import annotations

import asyncio

import pytest

from deploy.local.demo.files import PDF, FilesDoor
from deploy.local.stack import Stack
from tests.e2e.callers import UPLOADER, calling, data
from tests.e2e.slow_s3 import SlowS3
from tests.e2e.tcp_proxy import running

LONG = 45.0
"""More seconds than the gateway waits for other answers (40), and the client of S3 for the next byte (30)."""


@pytest.mark.long
async def test_a_completion_that_takes_s3_long_is_waited_for(stack: Stack) -> None:
    async with running(SlowS3(stack.site.ports["aws"])) as proxy:
        stack.extra["AWS_ENDPOINT_URL"] = proxy.url
        try:
            await asyncio.to_thread(stack.restart, "files")
            async with calling(stack) as callers:
                door = FilesDoor(callers.http, callers.token("ann", *UPLOADER))
                wish = {"fileName": "a.pdf", "contentType": "application/pdf", "category": "document"}
                asked = await door.call(
                    "POST", "/api/files/upload-url", 201, json={**wish, "size": len(PDF), "method": "multipart"}
                )
                (part,) = asked["parts"]
                assert (await callers.http.put(part["url"], content=PDF, headers=part["headers"])).status_code == 200
                body = {"fileId": asked["fileId"], "actualSize": len(PDF), "uploadToken": asked["uploadToken"]}
                completing = asyncio.create_task(
                    callers.http.post(
                        "/api/files/upload-complete", json=body, headers=callers.as_("ann", *UPLOADER), timeout=240
                    )
                )
                async with asyncio.timeout(180):
                    await proxy.asked.wait()
                done, _ = await asyncio.wait({completing}, timeout=LONG)
                assert done == set(), completing.result().text
                proxy.answering.set()
                assert data(await completing)["status"] == "completed"
                assert proxy.completions == 1  # nobody lost patience and asked again
        finally:
            del stack.extra["AWS_ENDPOINT_URL"]
            await asyncio.to_thread(stack.restart, "files")
