"""Files uploaded while their service dies again and again, by browsers that try again; and who judges what came of it.

The judge is S3: what lies under each key, held against what the read model says.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from deploy.local.demo.files import MIB, PDF, PNG, FileCase
from deploy.local.stack import Stack
from services.files.adapters.s3_objects import S3Objects
from services.kit.auth import mint_token
from services.kit.aws import AwsAccount, s3_client
from tests.e2e.callers import UPLOADER

AT_ONCE = 6
PATIENCE = 120.0


@dataclass
class Uploads:
    """Browsers of one user. Use `uploads`."""

    http: httpx.AsyncClient
    objects: S3Objects
    headers: dict[str, str]
    chance: random.Random
    cases: list[FileCase] = field(default_factory=list)
    public: set[str] = field(default_factory=set)

    async def flow(self, enough: asyncio.Event) -> None:
        """Upload one file after the other, several at once, until it is enough."""

        async def browser() -> None:
            while not enough.is_set():
                await self.one(self._case())
                await asyncio.sleep(self.chance.uniform(0, 0.3))

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(browser())

    async def one(self, case: FileCase) -> None:
        """One file from asking to whatever is done with it; each call is repeated until it is answered."""
        body = {
            "fileName": case.file_name, "contentType": case.content_type, "category": case.category,
            "size": len(case.data), "isPublic": case.is_public, **({"method": case.method} if case.method else {}),
        }  # fmt: skip
        key = uuid.uuid4().hex
        asked = await self._call("POST", "/api/files/upload-url", json=body, key=key)
        case.file_id = asked["fileId"]
        self.cases.append(case)
        complete: dict[str, Any] = {"fileId": case.file_id, "actualSize": len(case.data)}
        if asked["method"] == "multipart":
            for part in asked["parts"]:
                at = (part["partNumber"] - 1) * asked["partSize"]
                (await self.http.put(part["url"], content=case.data[at : at + part["size"]])).raise_for_status()
            complete["uploadToken"] = asked["uploadToken"]
        else:
            form = await self.http.post(asked["uploadUrl"], data=asked["fields"], files={"file": ("f", case.data)})
            form.raise_for_status()
        if case.says_so:
            await self._call("POST", "/api/files/upload-complete", json=complete)
        if case.then:
            await self._call("DELETE", f"/api/files/{case.file_id}")
        if case.then == "restore":
            await self._call("POST", f"/api/files/{case.file_id}/restore")
        if case.status == "completed" and self.chance.random() < 0.3:
            await self._call("GET", f"/api/files/{case.file_id}/download")

    async def judge(self) -> Counter[str]:
        """Hold everything against S3; how many files ended how. AssertionError where anything is not true."""
        deadline = asyncio.get_running_loop().time() + PATIENCE
        wrong = {case.file_id: "not looked at" for case in self.cases}
        while wrong and asyncio.get_running_loop().time() < deadline:
            wrong = {case.file_id: why for case in self.cases if (why := await self._problem(case))}
            await asyncio.sleep(0.5)
        assert wrong == {}
        return Counter(case.status for case in self.cases)

    async def _problem(self, case: FileCase) -> str:
        answer = await self.http.get(f"/api/files/{case.file_id}", headers=self.headers)
        case.found = answer.json().get("data") or {}
        if case.differences:
            return case.differences[0]
        stack = await self.objects.versions(case.found["key"])
        lies = [each.version_id for each in stack if not each.is_marker]
        verified = case.found["s3Info"].get("versionId")
        wanted = {"completed": [verified], "deleted": [verified], "failed": []}[case.status]
        if lies != wanted:
            return f"{case.status}, and under its key lie {len(lies)} versions, not {len(wanted)}"
        if case.status != "failed" and stack[0].is_marker != (case.status == "deleted"):
            return f"{case.status}, and the newest thing under its key is {'a' if stack[0].is_marker else 'no'} marker"
        if case.status == "completed":
            assert verified is not None
            found = await self.objects.inspect(case.found["key"], verified, sniff=False, checksum=False)
            if found is None or (found.size, found.is_public) != (len(case.data), case.is_public):
                return "its version is not what it says"
        return ""

    def _case(self) -> FileCase:
        kind = self.chance.random()
        says_so = self.chance.random() < 0.6
        if kind < 0.12:
            return FileCase("a lie", "failed", data=b"just words " + uuid.uuid4().bytes.hex().encode(), says_so=says_so)
        if kind < 0.24:
            return FileCase("public", "completed", "a.png", "image/png", "avatar", PNG, is_public=True, says_so=says_so)
        if kind < 0.32:
            return FileCase("in parts", "completed", data=PDF + b"\n" * (9 * MIB), method="multipart")
        if kind < 0.45:
            return FileCase("deleted", "deleted", then="delete")
        if kind < 0.55:
            return FileCase("restored", "completed", then="restore")
        return FileCase("plain", "completed", data=PDF + uuid.uuid4().bytes, says_so=says_so)

    async def _call(self, method: str, path: str, *, key: str | None = None, **options: Any) -> dict[str, Any]:
        """Until somebody answers. What the rules say no to (a lie) is an answer."""
        headers = self.headers | ({} if key is None else {"Idempotency-Key": key})
        while True:
            try:
                answer = await self.http.request(method, path, headers=headers, **options)
            except httpx.TransportError:
                await asyncio.sleep(0.3)
                continue
            if answer.status_code < 500:
                data: dict[str, Any] = answer.json().get("data") or {}
                return data
            await asyncio.sleep(0.3)


@asynccontextmanager
async def uploads(stack: Stack, seed: int) -> AsyncIterator[Uploads]:
    """Browsers against a stack that is up."""
    env = stack.env()
    user = f"uploads-{seed}-{uuid.uuid4().hex[:6]}"
    headers = {"Authorization": f"Bearer {mint_token(env['MAILROOM_JWT_SECRET'], user, UPLOADER)}"}
    account = AwsAccount(
        env["AWS_REGION"], env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], env["AWS_ENDPOINT_URL"]
    )
    async with (
        httpx.AsyncClient(base_url=stack.site.url("gateway"), timeout=30, trust_env=False) as http,
        s3_client(account) as s3,
    ):
        yield Uploads(http, S3Objects(s3, env["AWS_S3_BUCKET"]), headers, random.Random(seed))
