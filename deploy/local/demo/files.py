"""Files beside mail: each as a browser would upload it, with the status that it must come to."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from deploy.local.demo.doors import ask

PDF = b"%PDF-1.7\n% made by the demo\n" + b"." * 2000
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\6\0\0\0" + b"\0" * 64
MIB = 1 << 20
SCOPES = ("files:create", "files:read", "files:delete")


@dataclass
class FileCase:
    """One file.

    Attributes:
        says_so: whether the browser says that it is done; else S3's notification alone must do.
        then: what is done with the file once it is complete: "delete", "restore" (after a delete), or nothing.
    """

    name: str
    status: str
    file_name: str = "report.pdf"
    content_type: str = "application/pdf"
    category: str = "document"
    data: bytes = PDF
    says_so: bool = True
    is_public: bool = False
    method: str | None = None
    then: str = ""
    file_id: str = ""
    found: dict[str, Any] = field(default_factory=dict)

    @property
    def differences(self) -> list[str]:
        """Everything about the file that is not as it must be."""
        if self.found.get("status") != self.status:
            return [f"status is {self.found.get('status', 'nothing')}, not {self.status}"]
        if self.status == "completed" and self.found.get("size") != len(self.data):
            return [f"size is {self.found.get('size')}, not {len(self.data)}"]
        return []


def cases() -> list[FileCase]:
    """What the demo uploads."""
    return [
        FileCase("a form, told", "completed", file_name="Angebot “März”.pdf"),
        FileCase("a form, told by S3 alone", "completed", says_so=False),
        FileCase("in parts", "completed", data=PDF + b"\n" * (17 * MIB), method="multipart"),
        FileCase("public", "completed", "me.png", "image/png", "avatar", PNG, is_public=True),
        FileCase("a name in Japanese with quotes", "completed", file_name='見積書"最終".pdf'),
        FileCase("not what it says", "failed", data=b"<html><body>words" * 20),
        FileCase("deleted", "deleted", then="delete"),
        FileCase("deleted and restored", "completed", then="restore"),
    ]


class FilesDoor:
    """`/api/files` behind the gateway, and S3, as a page uses them."""

    def __init__(self, client: httpx.AsyncClient, token: str) -> None:
        self._client, self._headers = client, {"Authorization": f"Bearer {token}"}

    async def play(self, case: FileCase) -> None:
        """Upload it, and do with it what the case says."""
        asked = await self.call(
            "POST", "/api/files/upload-url", 201,
            json={
                "fileName": case.file_name, "contentType": case.content_type, "category": case.category,
                "isPublic": case.is_public, "size": len(case.data), **({"method": case.method} if case.method else {}),
            },
        )  # fmt: skip
        case.file_id = asked["fileId"]
        more = await self._parts(asked, case.data) if asked["method"] == "multipart" else {}
        if asked["method"] == "post":
            await self.form(asked, case.data)
        if case.says_so:
            body = {"fileId": case.file_id, "actualSize": len(case.data), **more}
            await self.call("POST", "/api/files/upload-complete", 409 if case.status == "failed" else 200, json=body)
        if case.then:
            await self.call("DELETE", f"/api/files/{case.file_id}", 200)
        if case.then == "restore":
            await self.call("POST", f"/api/files/{case.file_id}/restore", 200)

    async def read(self, case: FileCase) -> None:
        """What the read model says of it."""
        answer = await ask(self._client, "GET", f"/api/files/{case.file_id}", headers=self._headers)
        case.found = answer.json()["data"] if answer.status_code == 200 else {}

    async def settled(self, case: FileCase, seconds: float, step: Callable[[], object]) -> None:
        """Wait until it is what it must be, or the time is over."""
        deadline = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < deadline:
            await self.read(case)
            if not case.differences:
                break
            await asyncio.sleep(0.25)
        step()

    async def problems(self, case: FileCase) -> list[str]:
        """What is wrong with how it is given out: the bytes of a complete file, and none of any other."""
        status = 200 if case.status == "completed" else 410
        answer = await ask(self._client, "GET", f"/api/files/{case.file_id}/download", headers=self._headers)
        if answer.status_code != status:
            return [f"a link to it is answered with {answer.status_code}, not {status}"]
        if status == 200:
            got = await self._client.get(answer.json()["data"]["url"])
            if hashlib.sha256(got.content).digest() != hashlib.sha256(case.data).digest():
                return ["the link gives other bytes"]
        public = await ask(self._client, "GET", f"/api/files/{case.file_id}/public", follow_redirects=True)
        if (public.status_code == 200) != case.is_public:
            return [f"without a token it is answered with {public.status_code}"]
        return []

    async def form(self, asked: dict[str, Any], data: bytes) -> None:
        """Post the form that was given."""
        answer = await self._client.post(asked["uploadUrl"], data=asked["fields"], files={"file": ("file", data)})
        if answer.status_code != 204:
            raise AssertionError(f"S3 answered the form with {answer.status_code} {answer.text}")

    async def _parts(self, asked: dict[str, Any], data: bytes) -> dict[str, Any]:
        parts = []
        for part in asked["parts"]:
            at = (part["partNumber"] - 1) * asked["partSize"]
            answer = await self._client.put(
                part["url"], content=data[at : at + part["size"]], headers=part["headers"]
            )  # fmt: skip
            if answer.status_code != 200:
                raise AssertionError(f"S3 answered a part with {answer.status_code} {answer.text}")
            parts.append({"partNumber": part["partNumber"], "etag": answer.headers["etag"]})
        return {"uploadToken": asked["uploadToken"], "parts": parts}

    async def call(self, method: str, path: str, status: int, **options: Any) -> dict[str, Any]:
        """Call the API; the answer's data. AssertionError where the status is another one."""
        answer = await ask(self._client, method, path, headers=self._headers, **options)
        if answer.status_code != status:
            raise AssertionError(f"{method} {path} answered {answer.status_code} {answer.text}")
        data: dict[str, Any] = answer.json().get("data") or {}
        return data
