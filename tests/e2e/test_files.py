"""Files on the real stack, through the gateway: from a form to the read model, and what becomes of lies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from deploy.local.demo.files import PDF, SCOPES, FileCase, FilesDoor, cases
from deploy.local.stack import Stack
from tests.e2e.callers import Callers, calling, data, until

PATIENCE = 180.0


@pytest.fixture
async def callers(stack: Stack) -> AsyncIterator[Callers]:
    async with calling(stack) as callers:
        yield callers


def door(callers: Callers, who: str = "ann") -> FilesDoor:
    return FilesDoor(callers.http, callers.token(who, *SCOPES))


async def get(callers: Callers, path: str, who: str = "ann") -> httpx.Response:
    return await callers.get(path, who, *SCOPES)


async def becomes(callers: Callers, file_id: str, *statuses: str) -> dict[str, Any]:
    """The File once the read model says one of these."""

    async def there() -> dict[str, Any] | None:
        found: dict[str, Any] = (await get(callers, f"/api/files/{file_id}")).json().get("data") or {}
        return found if found.get("status") in statuses else None

    found: dict[str, Any] = await until(there)
    return found


async def test_every_file_comes_to_its_true_status_and_gives_its_bytes(callers: Callers) -> None:
    files = cases()
    mine = door(callers)
    await asyncio.gather(*(mine.play(case) for case in files))
    await asyncio.gather(*(mine.settled(case, PATIENCE, lambda: None) for case in files))
    assert {case.name: case.differences for case in files} == {case.name: [] for case in files}
    assert {case.name: await mine.problems(case) for case in files} == {case.name: [] for case in files}
    listed = data(await get(callers, "/api/files?limit=100"), 200)
    assert {each["fileId"] for each in listed["files"]} == {case.file_id for case in files}
    assert data(await get(callers, "/api/files", "bob"), 200)["files"] == []
    completed = next(case for case in files if case.name == "a form, told")
    assert (await get(callers, f"/api/files/{completed.file_id}", "bob")).status_code == 404
    assert (await get(callers, f"/api/files/{completed.file_id}/download", "bob")).status_code == 404

    async def counted() -> bool:
        found = data(await get(callers, f"/api/files/{completed.file_id}"), 200)
        return bool(found["access"]["downloadCount"] == 1)

    await until(counted)


async def test_a_swap_through_the_same_form_is_never_served(callers: Callers) -> None:
    mine = door(callers)
    asked = await mine.call(
        "POST",
        "/api/files/upload-url",
        201,
        json={"fileName": "a.pdf", "contentType": "application/pdf", "category": "document"},
    )
    await mine.form(asked, PDF)
    found = await becomes(callers, asked["fileId"], "completed")
    await mine.form(asked, PDF + b"swapped")
    link = data(await get(callers, f"/api/files/{asked['fileId']}/download"), 200)["url"]
    assert (await callers.http.get(link)).content == PDF

    async def alone() -> bool:
        fact = [
            event
            for event in await callers.events(asked["fileId"], "files.events")
            if event["type"] == "file.objectRemoved"
        ]
        return bool(fact)

    await until(alone)  # the swapped version was deleted, and S3 said so
    after = data(await get(callers, f"/api/files/{asked['fileId']}"), 200)
    assert (after["status"], after["s3Info"]["versionId"]) == ("completed", found["s3Info"]["versionId"])


async def test_a_mail_carries_a_file_by_its_id(callers: Callers) -> None:
    case = FileCase("attached", "completed", file_name="Bericht „2026“.pdf")
    mine = door(callers)
    await mine.play(case)
    address = callers.address()
    message_id = await callers.send(to=address, attachments=[{"fileId": case.file_id}])
    await callers.becomes(message_id, "delivered")
    (attached,) = (await callers.mime(address)).iter_attachments()
    assert (attached.get_content(), attached.get_filename()) == (PDF, case.file_name)
    stranger = await callers.send("bob", attachments=[{"fileId": case.file_id}])
    await callers.becomes(stranger, "failed", who="bob")


async def test_who_uploads_and_downloads_is_what_the_gateway_saw_and_not_what_they_say(callers: Callers) -> None:
    """From another address than the gateway's own, and with every header that names one forged."""
    forged = {
        "X-Forwarded-For": "203.0.113.66, 127.0.0.1",
        "X-Real-IP": "203.0.113.66",
        "Forwarded": "for=203.0.113.66",
        "X-Client-IP": "203.0.113.66",
        **callers.as_("ann", *SCOPES),
    }
    body = {"fileName": "a.pdf", "contentType": "application/pdf", "category": "document"}
    for way, client, seen in (
        ("gateway", "127.0.0.77", "127.0.0.77"),
        ("gateway", "127.0.0.1", "127.0.0.1"),  # as near as the gateway itself, which is believed
        ("files", "127.0.0.77", "127.0.0.77"),  # past the gateway
    ):
        transport = httpx.AsyncHTTPTransport(local_address=client)
        async with httpx.AsyncClient(base_url=callers.stack.site.url(way), transport=transport, timeout=60) as http:
            asked = data(await http.post("/api/files/upload-url", json=body, headers=forged), 201)
            await door(callers).form(asked, PDF)
            found = await becomes(callers, asked["fileId"], "completed")
            assert found["metadata"]["ipAddress"] == seen
            data(await http.get(f"/api/files/{asked['fileId']}/download", headers=forged), 200)
        issued = [
            event["data"]["ipAddress"]
            for event in await callers.events(asked["fileId"], "files.events")
            if event["type"] == "file.downloadIssued"
        ]
        assert issued == [seen]
