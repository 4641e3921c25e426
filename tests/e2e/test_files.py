"""Files on the real stack, through the gateway: from a form to the read model, and what becomes of lies."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import httpx

from deploy.local.demo.files import PDF, PNG, SCOPES, FileCase, FilesDoor, cases
from tests.e2e.callers import SHARED, Callers, data, until
from tests.unit.files_service.samples import DOCX, PDF_BODY, encrypted_office, iso_media

PATIENCE = 180.0


pytestmark = SHARED


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


MP4 = [
    ("iso5", "avc1", "iso5", "dsms", "msix", "dash"),
    ("avc1", "avc1", "isom"),
    ("isom", "isom", "iso2", "avc1", "mp41"),
]
SHEET, WORD = "application/vnd.ms-excel", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
HONEST = [
    FileCase("a phone's picture", "completed", "IMG_0042.heic", "image/heic", data=iso_media("mif1", "mif1", "heic")),
    *(FileCase(each[0], "completed", "call.mp4", "video/mp4", "general", iso_media(*each)) for each in MP4),
    FileCase("a line feed first", "completed", category="contract", data=b"\n" + PDF_BODY),
    FileCase("a byte order mark first", "completed", category="contract", data=b"\xef\xbb\xbf" + PDF_BODY),
    FileCase("with a password", "completed", "Vertrag.docx", WORD, "contract", encrypted_office()),
    FileCase("without one", "completed", "Vertrag.docx", WORD, "contract", DOCX),
    FileCase("what Excel makes of CSV", "completed", "kunden.csv", SHEET, data=b"Name;Betrag\r\nKim;100\r\n"),
    FileCase("what Word makes of RTF", "completed", "brief.rtf", "application/msword", data=b"{\\rtf1\\ansi Hello}"),
    FileCase("a table of a web application", "completed", "export.xls", SHEET, data=b"<html><table><td>1</table>"),
]
LYING = [
    FileCase("a script as a picture", "failed", "me.jpg", "image/jpeg", data=b"#!/usr/bin/env python3\nprint(1)\n"),
    FileCase("a page as a picture", "failed", "me.png", "image/png", data=b"<!doctype html><script>alert(1)</script>"),
]
AS_ATTACHMENTS = {"with a password", "a table of a web application"}


async def test_what_programs_write_completes_and_a_lie_fails(callers: Callers) -> None:
    """Files as phones, cameras, reports and offices make them, and types as browsers say them."""
    mine = door(callers)
    files = [replace(each) for each in (*HONEST, *LYING)]
    await asyncio.gather(*(mine.play(case) for case in files))
    await asyncio.gather(*(mine.settled(case, PATIENCE, lambda: None) for case in files))
    assert {case.name: case.differences for case in files} == {case.name: [] for case in files}
    assert {case.name: await mine.problems(case) for case in files} == {case.name: [] for case in files}
    for case in files:
        if case.name in AS_ATTACHMENTS:
            link = data(await get(callers, f"/api/files/{case.file_id}/download"), 200)["url"]
            assert "response-content-disposition=attachment" in link


async def test_whoever_looks_at_a_public_file_leaves_a_number_and_nothing_else(callers: Callers) -> None:
    case = FileCase("public", "completed", "me.png", "image/png", "avatar", PNG, is_public=True)
    mine = door(callers)
    await mine.play(case)
    await becomes(callers, case.file_id, "completed")
    known = [event["id"] for event in await callers.events(case.file_id, "files.events")]
    seen = await _public_views(callers)
    views = 12
    for _ in range(views):
        answer = await callers.http.get(f"/api/files/{case.file_id}/public")
        assert answer.status_code == 302
    assert await _public_views(callers) == seen + views
    data(await get(callers, f"/api/files/{case.file_id}/download"), 200)  # told to the log after all that came before

    async def counted() -> int:
        found = data(await get(callers, f"/api/files/{case.file_id}"), 200)
        return int(found["access"]["downloadCount"])

    assert await until(counted) == 1
    added = [event for event in await callers.events(case.file_id, "files.events") if event["id"] not in known]
    assert [event["type"] for event in added if event["type"] != "file.objectTagged"] == ["file.downloadIssued"]


async def _public_views(callers: Callers) -> int:
    """What the metric of the files service says."""
    async with httpx.AsyncClient(base_url=callers.stack.site.url("files"), timeout=60, trust_env=False) as http:
        lines = (await http.get("/metrics")).text.splitlines()
    return sum(int(float(line.split()[-1])) for line in lines if line.startswith("mailroom_public_views_total"))


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
