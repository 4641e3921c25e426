"""Files uploaded while something fails again and again, by browsers that try again as the API asks them to.

Everything is drawn from one seed. What was acknowledged is owed: `cases` holds each file with what it must come to.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx

from deploy.local.demo.files import MIB, PDF, PNG, FileCase
from deploy.local.stack import Stack
from services.kit.auth import mint_token
from tests.e2e.callers import UPLOADER

AT_ONCE = 6
PATIENCE = 0.3
"""Seconds before a call is repeated."""

Teller = Literal["either", "client", "notification"]
"""Who tells the service that bytes have come: often both, the client alone, S3 alone."""


@dataclass
class Uploads:
    """Browsers of one user. Use `uploads`.

    Attributes:
        cases: every file whose upload was acknowledged.
        repeated: calls that were not answered as they should be and made again, by status; 0: no answer.
    """

    http: httpx.AsyncClient
    user: str
    headers: dict[str, str]
    chance: random.Random
    teller: Teller = "either"
    cases: list[FileCase] = field(default_factory=list)
    repeated: Counter[int] = field(default_factory=Counter)

    async def flow(self, enough: asyncio.Event) -> None:
        """Upload one file after the other, several at once, until it is enough."""

        async def browser() -> None:
            while not enough.is_set():
                await self.one(self.case())
                await asyncio.sleep(self.chance.uniform(0, 0.3))

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(browser())

    async def one(self, case: FileCase) -> None:
        """One file from asking to whatever is done with it; each call is repeated until it is answered.

        AssertionError for an answer that contradicts what the file must come to.
        """
        body = {
            "fileName": case.file_name, "contentType": case.content_type, "category": case.category,
            "size": len(case.data), "isPublic": case.is_public, **({"method": case.method} if case.method else {}),
        }  # fmt: skip
        asked = await self._call("POST", "/api/files/upload-url", 201, json=body, key=uuid.uuid4().hex)
        case.file_id = asked["fileId"]
        self.cases.append(case)
        complete: dict[str, Any] = {"fileId": case.file_id, "actualSize": len(case.data)}
        if asked["method"] == "multipart":
            for part in asked["parts"]:
                at = (part["partNumber"] - 1) * asked["partSize"]
                await self._store("PUT", part["url"], 200, content=case.data[at : at + part["size"]])
            complete["uploadToken"] = asked["uploadToken"]
        else:
            form = {"data": asked["fields"], "files": {"file": ("f", case.data)}}
            await self._store("POST", asked["uploadUrl"], 204, **form)
        if case.says_so:
            status = 409 if case.status == "failed" else 200
            await self._call("POST", "/api/files/upload-complete", status, json=complete)
        if case.then:
            await self._call("DELETE", f"/api/files/{case.file_id}", 200)
        if case.then == "restore":
            await self._call("POST", f"/api/files/{case.file_id}/restore", 200)
        if case.says_so and case.status == "completed" and self.chance.random() < 0.3:
            await self._call("GET", f"/api/files/{case.file_id}/download", 200)

    def counts(self) -> Counter[str]:
        """How many files must have ended how."""
        return Counter(case.status for case in self.cases)

    def case(self) -> FileCase:
        """The next file. What only a client can say (parts are all there, delete it) needs one who speaks."""
        kind = self.chance.random()
        says_so = {"either": self.chance.random() < 0.6, "client": True, "notification": False}[self.teller]
        if kind < 0.12:
            return FileCase("a lie", "failed", data=b"<html>" + uuid.uuid4().bytes.hex().encode(), says_so=says_so)
        if kind < 0.24:
            return FileCase("public", "completed", "a.png", "image/png", "avatar", PNG, is_public=True, says_so=says_so)
        if self.teller != "notification" and kind < 0.32:
            return FileCase("in parts", "completed", data=PDF + b"\n" * (9 * MIB), method="multipart")
        if self.teller != "notification" and kind < 0.45:
            return FileCase("deleted", "deleted", then="delete")
        if self.teller != "notification" and kind < 0.55:
            return FileCase("restored", "completed", then="restore")
        return FileCase("plain", "completed", data=PDF + uuid.uuid4().bytes, says_so=says_so)

    async def _call(
        self, method: str, path: str, status: int, *, key: str | None = None, **options: Any
    ) -> dict[str, Any]:
        """The API, until it answers. Its answer must have this status."""
        headers = self.headers | ({} if key is None else {"Idempotency-Key": key})
        answer = await self._answered(method, path, headers=headers, **options)
        assert answer.status_code == status, f"{method} {path} answered {answer.status_code} {answer.text}"
        data: dict[str, Any] = answer.json().get("data") or {}
        return data

    async def _store(self, method: str, url: str, status: int, **options: Any) -> None:
        """S3, until it has the bytes."""
        answer = await self._answered(method, url, **options)
        assert answer.status_code == status, f"S3 answered {answer.status_code} {answer.text}"

    async def _answered(self, method: str, url: str, **options: Any) -> httpx.Response:
        while True:
            status = 0
            try:
                answer = await self.http.request(method, url, **options)
                status = answer.status_code
            except httpx.TransportError:
                pass
            else:
                if status < 500:
                    return answer
            self.repeated[status] += 1
            await asyncio.sleep(PATIENCE)


@asynccontextmanager
async def uploads(stack: Stack, seed: int, teller: Teller = "either") -> AsyncIterator[Uploads]:
    """Browsers against a stack that is up."""
    user = f"uploads-{seed}-{uuid.uuid4().hex[:6]}"
    headers = {"Authorization": f"Bearer {mint_token(stack.env()['MAILROOM_JWT_SECRET'], user, UPLOADER)}"}
    async with httpx.AsyncClient(base_url=stack.site.url("gateway"), timeout=60, trust_env=False) as http:
        yield Uploads(http, user, headers, random.Random(seed), teller)
