"""What an earlier version left behind, opened by this one: everything is there, nothing is sent again, and what waits
is sent once.

Each archive in `tests/upgrade` is the data folder of a version as it was stopped (`tests/upgrade/make.py` says how it
is made), with what that version answered. It is opened on other ports, and long after: what was due by then is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from pymongo import MongoClient

from deploy import processes
from deploy.local.endpoints import aws_endpoints
from deploy.local.site import ROOT, throwaway_site
from deploy.local.stack import Stack
from services.email.domain.correlation import MESSAGE_TAG
from services.kit.auth import Role, mint_token
from tests.e2e.callers import OPERATOR, until
from tests.e2e.evidence import Observer, observing

Json = dict[str, Any]

ARCHIVES = sorted((ROOT / "tests/upgrade").glob("*.tar.xz"))
READING = ("resources", processes.SIMULATOR, "events")
"""What is started first: what only reads, and what it stands on. What it answers is what the earlier version wrote."""

NEW_FIELDS = frozenset[str]()
"""Fields of answers that the earlier versions did not have."""

EXTRA = {"MAILROOM_UPLOAD_GRACE_MINUTES": "0.1", "MAILROOM_UNKNOWN_AFTER_HOURS": "0.2"}
"""As the earlier version was run: what was begun then, and what has no answer, is over by now."""
KEPT: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "mailroom_email": {"idempotency_keys": ("at",), "contents": ("touchedAt", "expiresAt")},
    "mailroom_files": {"idempotency_keys": ("at",)},
}
"""What MongoDB forgets, or a sweeper deletes, at a certain age: by database and collection, the times that tell it."""


@dataclass(frozen=True)
class Upgraded:
    """This version on the data of an earlier one, and what that one told."""

    stack: Stack
    observer: Observer
    http: httpx.AsyncClient
    told: Json
    acceptances: int
    """Where the simulator's journal ended then."""

    def headers(self, who: str = "ann", role: Role = "user", key: str | None = None) -> dict[str, str]:
        secret = self.stack.env()["MAILROOM_JWT_SECRET"]
        token = mint_token(secret, who, OPERATOR, role)
        return {"Authorization": f"Bearer {token}"} | ({"Idempotency-Key": key} if key else {})

    async def answer(self, service: str, path: str) -> Json:
        """What an admin is answered by a service."""
        answer = await self.http.get(self.stack.site.url(service) + path, headers=self.headers("olga", "admin"))
        return {"status": answer.status_code, "body": answer.json()}

    async def call(self, method: str, path: str, *, key: str | None = None, **options: Any) -> httpx.Response:
        """A call of the user's, through the gateway."""
        return await self.http.request(
            method, self.stack.site.url("gateway") + path, headers=self.headers(key=key), **options
        )

    async def sent(self) -> Counter[str]:
        """Message id → how many mails the provider has taken since."""
        found = await self.observer.simulator.acceptances(self.acceptances)
        return Counter(str(each["tags"].get(MESSAGE_TAG)) for each in found)

    async def mail(self, message_id: str) -> Json:
        answer = await self.answer("events", f"/api/email/{message_id}")
        found: Json = answer["body"].get("data") or {}
        return found

    async def becomes(self, message_id: str, *statuses: str) -> Json:
        async def there() -> Json | None:
            found = await self.mail(message_id)
            return found if found.get("status") in statuses else None

        found: Json = await until(there)
        return found

    def cli(self, *arguments: str) -> Json:
        """What the operator's command prints as JSON."""
        env = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | self.stack.env()
        command = [sys.executable, "-m", "services.cli", *arguments, "--json"]
        done = subprocess.run(
            command, env=env, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        found: Json = json.loads(done.stdout)
        return found

    async def documents(self) -> Json:
        """Everything that the read models show."""
        mails = {each: await self.mail(each) for each in self.ids("/api/email/")}
        files = {each: await self.answer("events", f"/api/files/{each}") for each in self.ids("/api/files/")}
        return {"mails": mails, "files": files}

    def ids(self, prefix: str) -> list[str]:
        return [
            path.removeprefix(prefix)
            for path in self.told["reads"]
            if path.startswith(prefix) and not path.endswith("/history")
        ]


@contextlib.contextmanager
def opened(archive: Path, folder: Path) -> Iterator[tuple[Stack, Json]]:
    """The stack on the archive's data, with only Kafka, MongoDB and the emulator started, and what was told."""
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    stack = Stack(replace(throwaway_site(folder, os.environ), durable_aws=True), extra=EXTRA)
    told = json.loads((folder / "told.json").read_text())
    try:
        stack.start(["mongo"])
        keep(stack.env()["MAILROOM_MONGO_URL"], datetime.now(UTC) - datetime.fromisoformat(told["made"]))
        with pytest.MonkeyPatch.context() as patched:
            # Kafka deletes commands after three days, and looks for such 30 s after its start: in the folder of an
            # operator, who upgrades within minutes, they are there.
            patched.setitem(processes.KAFKA_SETTINGS, "log.initial.task.delay.ms", "86400000")
            stack.start(processes.BACKING)
        yield stack, told
    finally:
        stack.stop()


def keep(mongo_url: str, by: timedelta) -> None:
    """Make what is forgotten at a certain age as old as it was when the earlier version stopped, so long ago."""
    with MongoClient[Json](mongo_url) as client:
        for database, collections in KEPT.items():
            for collection, names in collections.items():
                for name in names:
                    later = {"$add": [f"${name}", by // timedelta(milliseconds=1)]}
                    client[database][collection].update_many({name: {"$exists": True}}, [{"$set": {name: later}}])


@contextlib.asynccontextmanager
async def upgraded(archive: Path, folder: Path) -> AsyncIterator[Upgraded]:
    with opened(archive, folder) as (stack, told):
        await asyncio.to_thread(stack.start, READING)
        async with observing(stack) as observer, httpx.AsyncClient(timeout=60, trust_env=False) as http:
            yield Upgraded(stack, observer, http, told, await observer.simulator.position())


def differences(now: Any, then: Any, where: str = "") -> Iterator[str]:
    """Where an answer is not what it was, but for fields that are new."""
    if isinstance(now, dict) and isinstance(then, dict):
        for name in (now.keys() - NEW_FIELDS) | then.keys():
            yield from differences(now.get(name), then.get(name), f"{where}.{name}")
    elif isinstance(now, list) and isinstance(then, list) and len(now) == len(then):
        for n, (each, before) in enumerate(zip(now, then, strict=True)):
            yield from differences(each, before, f"{where}[{n}]")
    elif now != then:
        yield f"{where} is {now!r}, and was {then!r}"


async def all_equal(answers: Mapping[str, Json], ask: Callable[[str], Awaitable[Json]]) -> None:
    found = [each for path, before in answers.items() for each in differences(await ask(path), before, path)]
    assert found == []


@pytest.mark.long
@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda each: each.name.partition(".")[0])
async def test_the_data_of_an_earlier_version(archive: Path, tmp_path: Path) -> None:
    async with upgraded(archive, tmp_path) as it:
        told = it.told
        await all_equal(told["reads"], lambda path: it.answer("events", path))

        await asyncio.to_thread(it.stack.start)  # everything
        await nothing_is_sent_twice(it)
        await mail_can_be_read_and_repeated(it)
        await nobody_who_left_is_written_to(it)
        await files_are_there(it)
        await asyncio.to_thread(it.cli, "topics", "verify")
        for service, parked in told["parked"].items():
            now = await asyncio.to_thread(it.cli, "parked", "list", "--service", service)
            assert list(differences(now, parked)) == []

        live = await it.documents()
        for projection in ("email_log", "file"):
            await asyncio.to_thread(it.cli, "rebuild", "start", projection)
        assert list(differences(await it.documents(), live)) == []


async def nothing_is_sent_twice(it: Upgraded) -> None:
    """What waited is sent once to each, whatever had stopped it; what was sent or may have been is not sent again."""
    told = it.told
    for message_id, addresses in told["waiting"].items():
        found = await it.becomes(message_id, "delivered", "failed")
        assert {each["address"]: each["status"] for each in found["recipients"]} == dict.fromkeys(
            addresses, "delivered"
        )
    for message_id in told["unknown"]:
        found = await it.becomes(message_id, "failed")
        assert [each["attempts"] for each in found["recipients"]] == [1]
    for message_id in told["late"]:

        async def clicked(message_id: str = message_id) -> bool:
            found = await it.mail(message_id)
            return bool([each["clicks"] for each in found["recipients"]] == [1] and found["status"] == "delivered")

        await until(clicked)
    for message_id in told["planned"]:
        assert (await it.mail(message_id))["status"] == "queued"
    cancelled = told["planned"][0]
    assert (await it.call("DELETE", f"/api/email/{cancelled}")).status_code == 202
    await it.becomes(cancelled, "failed")
    assert await it.sent() == {message_id: len(addresses) for message_id, addresses in told["waiting"].items()}


async def mail_can_be_read_and_repeated(it: Upgraded) -> None:
    """Contents open with the same key; a request that is repeated is answered with the same id, and sends nothing."""
    told, before = it.told, await it.sent()
    await all_equal(told["contents"], lambda message_id: it.answer("email", f"/api/email/{message_id}/content"))
    for repeat in told["repeats"]:
        answer = await it.call("POST", repeat["path"], key=repeat["key"], json=repeat["body"])
        if repeat["path"] == "/api/email":
            assert answer.status_code == 202, answer.text
            assert answer.json()["data"]["messageId"] == repeat["id"]
        else:
            # 200: the file as it is; 410: its upload's time is over. Another request would be 201, or 409 by its body.
            assert answer.status_code in (200, 410), answer.text
            assert answer.status_code == 410 or answer.json()["data"]["fileId"] == repeat["id"]
    await it.observer.settled(await it.observer.now(), [], 60)
    assert await it.sent() == before


async def nobody_who_left_is_written_to(it: Upgraded) -> None:
    """Suppressions hold, lifted ones do not, and links to leave by work."""
    told = it.told
    now = await it.answer("email", "/api/suppressions?limit=100")
    assert list(differences(now["body"], told["suppressions"])) == []
    news = {"category": "marketing", "listId": "spring-news", "subject": "News", "textContent": "Hello"}
    form = {"List-Unsubscribe": "One-Click"}
    stays = told["left"]["stays"]
    answer = await it.http.post(it.stack.site.url("gateway") + stays["link"], data=form)
    assert answer.status_code == 200, answer.text
    wanted = {told["left"]["address"]: "failed", stays["address"]: "failed", told["lifted"]: "delivered"}
    wanted |= dict.fromkeys(told["suppressed"], "failed")
    for address, status in wanted.items():
        answer = await it.call("POST", "/api/email", json=news | {"to": address})
        assert answer.status_code == 202, answer.text
        assert (await it.becomes(answer.json()["data"]["messageId"], "delivered", "failed"))["status"] == status


async def files_are_there(it: Upgraded) -> None:
    """Links give the same bytes; what had begun, and did not come in time, has ended in S3 too."""
    for file_id, digest in it.told["files"].items():
        answer = await it.call("GET", f"/api/files/{file_id}/download")
        assert answer.status_code == 200, answer.text
        data = (await it.http.get(answer.json()["data"]["url"])).content
        assert hashlib.sha256(data).hexdigest() == digest

    async def ended() -> bool:
        found = await it.answer("events", "/api/files?status=uploading")
        return not found["body"]["data"]["files"]

    await until(ended)
    found = await it.answer("events", f"/api/files/{it.told['inParts']['fileId']}")
    assert found["body"]["data"]["status"] == "failed"
    aws = aws_endpoints(it.stack)
    s3 = aws.client("s3")
    with contextlib.closing(s3):
        assert "Uploads" not in await asyncio.to_thread(s3.list_multipart_uploads, Bucket=aws.files_bucket)
