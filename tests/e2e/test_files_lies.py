"""Clients that lie, repeat themselves and come late, on the real stack: each gets its clear error, and nothing false
is ever shown, given out or left in S3.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from typing import Any

import httpx
import pytest

from deploy.local.demo.files import MIB, PDF, SCOPES, FilesDoor
from tests.e2e.callers import SHARED, Callers, data, refused, until
from tests.e2e.files_evidence import FilesObserver

ASKED: dict[str, Any] = {"fileName": "a.pdf", "contentType": "application/pdf", "category": "document"}


class Ann:
    """A person with an account, and what S3 and the log say of her files."""

    def __init__(self, callers: Callers) -> None:
        self.callers, self.files = callers, FilesObserver(callers.observer)
        self.door = FilesDoor(callers.http, callers.token("ann", *SCOPES))
        self._key: dict[str, str] = {}

    async def asks(self, **body: Any) -> dict[str, Any]:
        asked = await self.door.call("POST", "/api/files/upload-url", 201, json={**ASKED, **body})
        self._key[asked["fileId"]] = asked["fileKey"]
        return asked

    async def uploaded(self, content: bytes = PDF, **body: Any) -> dict[str, Any]:
        asked = await self.asks(**body)
        await self.door.form(asked, content)
        await self.says_so(asked, len(content))
        return asked

    async def says_so(self, asked: dict[str, Any], size: int, status: int = 200, **more: Any) -> httpx.Response:
        body = {"fileId": asked["fileId"], "actualSize": size, **more}
        answer = await self.post("/api/files/upload-complete", **body)
        assert answer.status_code == status, answer.text
        return answer

    async def post(self, path: str, who: str = "ann", **body: Any) -> httpx.Response:
        return await self.callers.http.post(path, json=body, headers=self.callers.as_(who, *SCOPES))

    async def becomes(self, file_id: str, *statuses: str) -> dict[str, Any]:
        async def there() -> dict[str, Any] | None:
            answer = await self.callers.get(f"/api/files/{file_id}", "ann", *SCOPES)
            found: dict[str, Any] = answer.json().get("data") or {}
            return found if found.get("status") in statuses else None

        found: dict[str, Any] = await until(there)
        return found

    async def decisions(self, file_id: str) -> list[str]:
        """Types of what was decided, in order."""
        found = [each for each in await self.callers.events(file_id, "files.events") if "streamversion" in each]
        return [each["type"].removeprefix("file.") for each in found]

    async def versions(self, file_id: str) -> list[tuple[str, bool]]:
        """(version id, whether it is a marker) of all that lies under its key."""
        s3, key = self.files.s3, self._key[file_id]
        page = await asyncio.to_thread(s3.list_object_versions, Bucket=self.files.bucket, Prefix=key)
        kinds = (("Versions", False), ("DeleteMarkers", True))
        return [(each["VersionId"], marker) for kind, marker in kinds for each in page.get(kind, ())]

    async def nothing_lies(self, file_id: str) -> None:
        async def gone() -> bool:
            return not await self.versions(file_id)

        await until(gone)

    async def in_s3(self, call: str, file_id: str, **options: Any) -> None:
        """Somebody with the bucket's rights does it behind our back."""
        do = getattr(self.files.s3, call)
        await asyncio.to_thread(do, Bucket=self.files.bucket, Key=self._key[file_id], **options)


pytestmark = SHARED


@pytest.fixture
def ann(callers: Callers) -> Ann:
    return Ann(callers)


async def test_what_comes_after_a_deletion_is_foreign_and_goes(ann: Ann) -> None:
    asked = await ann.asks()
    await ann.door.call("DELETE", f"/api/files/{asked['fileId']}", 200)
    await ann.door.form(asked, PDF)
    await ann.nothing_lies(asked["fileId"])
    refused(await ann.says_so(asked, len(PDF), 409), 409)
    assert await ann.decisions(asked["fileId"]) == ["uploadRequested", "uploadFailed"]


async def test_deleted_and_the_marker_deleted_and_deleted_again(ann: Ann) -> None:
    file_id = (await ann.uploaded())["fileId"]
    ((verified, _),) = await ann.versions(file_id)
    await ann.door.call("DELETE", f"/api/files/{file_id}", 200)
    await ann.becomes(file_id, "deleted")
    (marker,) = [name for name, is_marker in await ann.versions(file_id) if is_marker]
    await ann.in_s3("delete_object", file_id, VersionId=marker)
    assert (await ann.becomes(file_id, "completed"))["s3Info"]["versionId"] == verified
    await ann.in_s3("delete_object", file_id)
    assert (await ann.becomes(file_id, "deleted"))["recoverable"] is True
    await ann.in_s3("delete_object", file_id, VersionId=verified)

    async def gone() -> bool:
        found = data(await ann.callers.get(f"/api/files/{file_id}", "ann", *SCOPES))
        return found.get("recoverable") is False

    await until(gone)
    assert (await ann.post(f"/api/files/{file_id}/restore")).status_code == 410
    assert await ann.decisions(file_id) == ["uploadRequested", "uploaded", "deleted", "restored", "deleted", "deleted"]


async def test_completing_again_and_again_and_at_once_completes_once(ann: Ann) -> None:
    asked = await ann.asks()
    await ann.door.form(asked, PDF)
    answers = await asyncio.gather(*(ann.says_so(asked, len(PDF)) for _ in range(8)))
    assert len({answer.json()["data"]["s3Info"]["versionId"] for answer in answers}) == 1
    await ann.says_so(asked, len(PDF) + 1, 409)
    await ann.becomes(asked["fileId"], "completed")
    assert await ann.decisions(asked["fileId"]) == ["uploadRequested", "uploaded"]


@pytest.mark.parametrize(
    ("body", "content", "claimed", "reason"),
    [
        ({"size": 100}, PDF, None, "sizeMismatch"),
        ({}, PDF, 7, "sizeMismatch"),
        ({}, b"MZ" + b"\0" * 100, None, "typeMismatch"),
        ({}, b"<html><script>alert(1)</script></html>", None, "typeMismatch"),
        ({"contentType": "text/plain", "fileName": "a.txt", "category": "general"}, b"#!/bin/sh\nid\n", None,
         "typeMismatch"),
        ({"contentType": "text/csv", "fileName": "a.csv"}, b"\x7fELF\x02\x01\x01" + b"\0" * 50, None, "typeMismatch"),
    ],
)  # fmt: skip
async def test_a_lie_about_size_or_type_fails_the_file(
    ann: Ann, body: dict[str, Any], content: bytes, claimed: int | None, reason: str
) -> None:
    """Where S3 itself takes it: it holds to the form's policy."""
    asked = await ann.asks(**({"maxSizeBytes": MIB} | body))
    file_id = asked["fileId"]
    await ann.door.form(asked, content)
    answer = refused(await ann.says_so(asked, len(content) if claimed is None else claimed, 409), 409)
    if claimed is None:
        assert answer["details"] == [{"fileId": file_id, "reason": reason}]
        assert (await ann.becomes(file_id, "failed"))["failure"]["reason"] == reason
        await ann.nothing_lies(file_id)
    else:  # S3's own notification may have been first: then the file is what came, and the claim is refused
        await ann.becomes(file_id, "completed", "failed")


async def test_a_lie_about_the_checksum_never_completes(ann: Ann) -> None:
    other = base64.b64encode(hashlib.sha256(b"something else").digest()).decode()
    asked = await ann.asks(metadata={"checksum": other})
    files = {"file": ("f", PDF)}
    answer = await ann.callers.http.post(asked["uploadUrl"], data=asked["fields"], files=files)
    assert answer.status_code in (204, 400), "S3 may hold to it by itself"
    await ann.says_so(asked, len(PDF), 409)
    if answer.status_code == 204:
        assert (await ann.becomes(asked["fileId"], "failed"))["failure"]["reason"] == "checksumMismatch"
    await ann.nothing_lies(asked["fileId"])
    right = base64.b64encode(hashlib.sha256(PDF).digest()).decode()
    await ann.uploaded(metadata={"checksum": right})


async def test_a_form_is_held_to_by_s3_in_every_field(ann: Ann) -> None:
    asked = await ann.asks(maxSizeBytes=1000)
    tried = [
        ({}, b"%PDF" + b"x" * 1000),
        ({}, b""),
        ({"key": asked["fields"]["key"] + "y"}, b"%PDF-1.7"),
        ({"key": "../../etc/passwd"}, b"%PDF-1.7"),
        ({"Content-Type": "text/html"}, b"%PDF-1.7"),
        ({"x-amz-meta-file-id": "another"}, b"%PDF-1.7"),
        ({"x-amz-server-side-encryption": "none"}, b"%PDF-1.7"),
        ({"tagging": "<Tagging><TagSet><Tag><Key>public</Key><Value>true</Value></Tag></TagSet></Tagging>"}, b"%PDF"),
        ({"acl": "public-read"}, b"%PDF-1.7"),
    ]
    for changed, content in tried:
        form = {**asked["fields"], **changed}
        answer = await ann.callers.http.post(asked["uploadUrl"], data=form, files={"file": ("f", content)})
        assert answer.status_code in (400, 403), (changed, answer.status_code)
    assert await ann.versions(asked["fileId"]) == []


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"fileName": "invoice.pdf.exe"}, "runs"),
        ({"fileName": "invoice.php.pdf"}, "runs"),
        ({"fileName": "shell.php5.pdf"}, "runs"),
        ({"fileName": "shell.pHp.pdf"}, "runs"),
        ({"fileName": "shell.asp;.pdf"}, "runs"),
        ({"fileName": "shell.asp::$DATA"}, "runs"),
        ({"fileName": "shell.php%00.pdf"}, "runs"),
        ({"fileName": "shell.exe."}, "runs"),
        ({"fileName": "shell.exe "}, "runs"),
        ({"fileName": "shell.php\n.pdf"}, ""),
        ({"fileName": "x" * 10_000}, "255"),
        ({"fileName": ""}, ""),
        ({"fileName": ".htaccess", "contentType": "text/plain", "category": "general"}, "not in .htaccess"),
        ({"fileName": "a.pdf", "contentType": "image/png"}, "ends in .png"),
        ({"fileName": "a.svg", "contentType": "image/svg+xml", "category": "avatar"}, "not taken"),
        ({"fileName": "a.html", "contentType": "text/html", "category": "general"}, "not taken"),
        ({"fileName": "a.exe", "contentType": "application/x-msdownload", "category": "general"}, "not taken"),
        ({"maxSizeBytes": 1 << 50}, "at most"),
        ({"size": 0}, "greater"),
        ({"category": "../../etc"}, ""),
        ({"contentType": "application/pdf\r\nx-amz-acl: public-read"}, ""),
    ],
)  # fmt: skip
async def test_each_of_owasps_uploads_is_refused_before_a_byte_moves(ann: Ann, body: dict[str, Any], says: str) -> None:
    answer = refused(await ann.post("/api/files/upload-url", **{**ASKED, **body}), 400)
    (field,) = {*body} & {detail["field"] for detail in answer["details"]} or {"none"}
    told = [detail["message"] for detail in answer["details"] if detail["field"] == field]
    assert field in body
    assert any(says in message for message in told), told


@pytest.mark.parametrize(
    "name", ["../../../etc/passwd.pdf", "..\\..\\boot.pdf", "CON.pdf", "invoice\u202efdp.pdf", "shell.php/.pdf"]
)
async def test_a_name_that_leads_elsewhere_leads_nowhere(ann: Ann, name: str) -> None:
    file_id = (await ann.uploaded(fileName=name))["fileId"]
    found = await ann.becomes(file_id, "completed")
    assert found["originalName"] == name
    assert not {"/", "\\", "\u202e"} & {*found["fileName"], *found["key"].rpartition(file_id)[2][1:]}
    assert found["fileName"] != "CON.pdf"
    link = data(await ann.callers.get(f"/api/files/{file_id}/download", "ann", *SCOPES))["url"]
    answer = await ann.callers.http.get(link)
    assert (answer.status_code, answer.content) == (200, PDF)


async def test_parts_are_held_to_their_numbers_sizes_and_token(ann: Ann) -> None:
    content = PDF + b"\n" * (9 * MIB)
    asked = await ann.asks(size=len(content), method="multipart")
    first, second = asked["parts"]
    token = asked["uploadToken"]
    for numbers in ([0], [3], [-1], [10_001]):
        answer = await ann.post("/api/files/parts", uploadToken=token, partNumbers=numbers)
        assert refused(answer, 400)["details"][0]["field"].startswith("partNumbers")
    http = ann.callers.http
    short = await http.put(second["url"], content=b"too small", headers=second["headers"])
    assert short.status_code == 403, "the signature holds a part to its bytes"
    moved = first["url"].replace("partNumber=1", "partNumber=3")
    assert (await http.put(moved, content=content[: first["size"]], headers=first["headers"])).status_code == 403
    missing = refused(await ann.says_so(asked, len(content), 409, uploadToken=token), 409)
    assert [each["partNumber"] for each in missing["details"]] == [1, 2]
    await ann.in_s3("upload_part", asked["fileId"], UploadId=asked["uploadId"], PartNumber=1, Body=b"too small")
    await http.put(second["url"], content=content[first["size"] :], headers=second["headers"])
    small = refused(await ann.says_so(asked, len(content), 409, uploadToken=token), 409)
    assert small["details"] == [{"partNumber": 1, "message": "has another size"}]
    for forged in (token[:-4] + "AAAA", token.rpartition(".")[0] + ".", "x", ann.callers.token("ann", *SCOPES)):
        answer = await ann.says_so(asked, len(content), 400, uploadToken=forged)
        assert refused(answer, 400)["details"][0]["field"] == "uploadToken"
    assert (await ann.post("/api/files/parts", "bob", uploadToken=token, partNumbers=[1])).status_code == 404
    assert (await ann.post("/api/files/abort", "bob", uploadToken=token)).status_code == 404
    await http.put(first["url"], content=content[: first["size"]], headers=first["headers"])
    await ann.says_so(asked, len(content), uploadToken=token)
    await ann.becomes(asked["fileId"], "completed")
    assert await ann.decisions(asked["fileId"]) == ["uploadRequested", "uploaded"]
    late = await ann.post("/api/files/parts", uploadToken=token, partNumbers=[1])
    assert "ended" in refused(late, 409)["error"]
    answer = await http.put(first["url"], content=content[: first["size"]], headers=first["headers"])
    assert answer.status_code == 404, "S3 knows the upload no more"
