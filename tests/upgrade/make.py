"""Make a data folder for the test of upgrades: run this with another version's checkout and environment.

    git clone <this repository> old && cd old && git checkout f4ed2ce && make setup
    PYTHONPATH=. .venv/bin/python <this checkout>/tests/upgrade/make.py <this checkout>/tests/upgrade/f4ed2ce.tar.xz

It starts that version's stack in a folder of its own, puts mail and files into as many states as can be had, stops it
as an operator would, and packs what `.mailroom` would hold: the data of Kafka, MongoDB, the emulator and the simulator
as they lie on the disk, beside `told.json`, which says what that version answered and what is left to be done. Nothing
is read from this checkout but this file. When a version is released, add its archive beside those that are there.

It takes a minute or two, and needs GNU tar and xz. The archive can be tested a quarter of an hour later: then all is
due that has to go on, and stays so.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import httpx
from aiokafka import AIOKafkaProducer

from contracts.ids import uuid7
from deploy.local import mongo
from deploy.local.simulator.client import SimulatorClient
from deploy.local.simulator.faults import Fault
from deploy.local.site import throwaway_site
from deploy.local.stack import Stack
from deploy.processes import MONGO_OPTIONS
from services.kit.auth import mint_token

Json = dict[str, Any]

PATIENCE = 240.0
FOR_EVER = "2100-01-01T00:00:00Z"
SECRETS = {
    "file_encryption_key": "of a data folder for tests: the encryption key",
    "webhook_secret": "of a data folder for tests: the webhooks' secret",
    "jwt_secret": "of a data folder for tests: what tokens are signed with",
}
EXTRA = {
    "MAILROOM_UPLOAD_MINUTES": "12",
    "MAILROOM_MULTIPART_HOURS": "0.2",
    "MAILROOM_UPLOAD_GRACE_MINUTES": "0.1",
    "MAILROOM_UNKNOWN_AFTER_HOURS": "0.2",
}
"""What the services are run with: a quarter of an hour later everything is due that an upgrade has to go on with."""

SCOPES = (
    "email:create", "email:read", "email:operate",
    "files:create", "files:read", "files:delete",
    "projections:operate",
)  # fmt: skip
ENDED = ("delivered", "bounced", "complaint", "failed")
PDF = b"%PDF-1.7\n% of a data folder for tests\n" + b"." * 500
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\6\0\0\0" + b"\0" * 64
MIB = 1 << 20


async def until(there: Callable[[], Awaitable[Any]], what: str) -> Any:
    """What `there` gives once it gives something."""
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while not (found := await there()):
        if asyncio.get_running_loop().time() > deadline:
            raise TimeoutError(f"not within {PATIENCE:.0f} s: {what}")
        await asyncio.sleep(0.2)
    return found


class Maker:
    """Calls one stack, and notes what it answers.

    `told` is what the test reads:

        reads: path → answer of the events service, all by an admin, when nothing moved any more.
        contents, suppressions: likewise of the email service. `parked`: by service.
        files: file id → SHA-256 of what a link to it gives.
        repeats: requests with an Idempotency-Key, and the id that each was answered with.
        waiting: message id → addresses that have yet to be written to, once each, whatever stops the old version.
        unknown: message id → its one attempt has no answer. It must never be sent again.
        planned: planned for another century.
        late: message id → its notifications were on the queue, and read by nobody.
        left: who has left which list, and `stays`: a link by which somebody has not left it yet.
    """

    def __init__(self, stack: Stack, http: httpx.AsyncClient, simulator: SimulatorClient) -> None:
        self.stack, self.http, self.simulator = stack, http, simulator
        self.told: Json = {
            name: {}
            for name in ("reads", "contents", "suppressions", "parked", "files", "waiting", "unknown", "late", "left")
        } | {"repeats": [], "planned": []}
        self._count = 0

    def headers(self, who: str = "ann", role: Any = "user", key: str | None = None) -> dict[str, str]:
        token = mint_token(SECRETS["jwt_secret"], who, SCOPES, role)
        return {"Authorization": f"Bearer {token}"} | ({"Idempotency-Key": key} if key else {})

    async def call(self, method: str, path: str, *statuses: int, who: str = "ann", **options: Any) -> Json:
        """The data of an answer that must have one of these statuses."""
        key, role = options.pop("key", None), options.pop("role", "user")
        url = options.pop("base", self.stack.site.url("gateway")) + path
        answer = await self.http.request(method, url, headers=self.headers(who, role, key), **options)
        if answer.status_code not in (statuses or (200,)):
            raise AssertionError(f"{method} {path} answered {answer.status_code} {answer.text}")
        data: Json = answer.json().get("data") or {}
        return data

    def address(self, behaviour: str = "success") -> str:
        self._count += 1
        return f"{behaviour}+{self._count}@inbox.example"

    # --- mail ---

    async def send(self, *to: str, keyed: bool = False, base: str | None = None, **body: Any) -> str:
        """Send a mail; the message's id. `keyed`: it is repeated by the test."""
        body = {
            "to": list(to) or self.address(),
            "subject": "Of an earlier version",
            "category": "notification",
            "expiresAt": FOR_EVER,
            **body,
        }
        if not {"textContent", "htmlContent", "templateId"} & body.keys():
            body["textContent"] = "How are you?"
        key = str(uuid.uuid4())
        more = {} if base is None else {"base": base}
        taken = await self.call("POST", "/api/email", 202, json=body, key=key, **more)
        message_id = str(taken["messageId"])
        if keyed:
            self.told["repeats"].append({"path": "/api/email", "key": key, "body": body, "id": message_id})
        return message_id

    async def becomes(self, message_id: str, *statuses: str) -> Json:
        async def there() -> Json | None:
            answer = await self.http.get(
                f"{self.stack.site.url('events')}/api/email/{message_id}", headers=self.headers()
            )
            found: Json = answer.json().get("data") or {}
            return found if found.get("status") in (statuses or ENDED) else None

        found: Json = await until(there, f"{message_id} is {statuses or ENDED}")
        return found

    async def link(self, to: str) -> str:
        """The path of the link by which a recipient leaves the list."""

        async def there() -> list[Json]:
            return await self.simulator.messages(to=to)

        mails = await until(there, f"a mail to {to}")
        mail = message_from_bytes(await self.simulator.raw(mails[0]["providerMessageId"]), policy=policy.default)
        found = re.search(r"<(https?://[^>]+)>", str(mail["List-Unsubscribe"]))
        assert found, mail["List-Unsubscribe"]
        return httpx.URL(found[1]).path

    async def mails(self) -> None:
        """Mail that is over: every fate, every shape that is taken, who is not written to."""
        fates = (
            "success", "bounce", "softbounce", "undetermined", "latebounce", "ooto", "complaint", "notspam",
            "suppressionlist", "reject", "renderfail", "delay", "open", "click", "machine-open", "unsubscribe",
        )  # fmt: skip
        sent = [await self.send(self.address(fate), htmlContent="<p>Hello, <a href='https://a.example'>you</a></p>")
                for fate in fates]  # fmt: skip
        await self.send(self.address("blackhole"))
        note = {"filename": "Notiz – März.txt", "contentType": "Text/Plain", "content": _text("Total: 42 EUR\n" * 20)}
        sent += [
            await self.send(*(self.address(each) for each in ("success", "bounce", "complaint")), keyed=True),
            await self.send("Success+Mixed@INBOX.Example", "success+i@bücher.example", keyed=True, tags={"a": "b"}),
            await self.send(htmlContent="<p>no text</p>", textContent=" \n", keyed=True),
            await self.send(htmlContent="", textContent="no html", cc=self.address(), bcc=[self.address()], keyed=True),
            await self.send(attachments=[note], keyed=True, customData={"deep": {"er": [1, 2.5, None]}},
                            clientId="c-1"),
            await self.send(category="auth", priority="urgent", templateId="2fa-code", expiresAt=None, keyed=True,
                            templateData={"name": "Jane Doe", "token": "482913", "expiresInMinutes": 10}),
            await self.send(templateId="welcome", category="client-portal", priority="high",
                            templateData={"name": "Jane Doe", "isClient": True}, keyed=True),
            await self.send(subject="Zeichen: \N{EURO SIGN} \N{CJK UNIFIED IDEOGRAPH-65E5}", priority="low",
                            replyTo="me@inbox.example"),
            # 265 octets: more than is taken since
            await self.send(f"{'l' * 64}@{'.'.join(['d' * 49] * 3)}.{'e' * 42}.example"),
        ]  # fmt: skip
        for message_id in sent:
            await self.becomes(message_id)

    async def large(self) -> None:
        """More than MongoDB holds of a mail: an attachment that lies in S3."""
        data = base64.b64encode(hashlib.shake_256(b"incompressible").digest(160_000))
        file = {"filename": "big.bin", "contentType": "application/pdf", "content": base64.b64encode(data).decode()}
        await self.becomes(await self.send(attachments=[file]))

    async def recipients(self) -> None:
        """Who is not written to (any more), for every reason and scope, and who is again."""
        news: Json = {"category": "marketing", "listId": "spring-news", "expiresAt": FOR_EVER}
        left, stays = self.address("click"), self.address()
        for each in (left, stays):
            await self.becomes(await self.send(each, **news), "delivered")
        path = await self.link(left)
        form = {"List-Unsubscribe": "One-Click"}
        answer = await self.http.post(self.stack.site.url("gateway") + path, data=form)
        assert answer.status_code == 200, answer.text
        self.told["left"] = {"address": left, "link": path, "stays": {"address": stays, "link": await self.link(stays)}}
        assert (await self.becomes(await self.send(left, **news)))["status"] == "failed"
        for scope, until_ in (("all", None), ("marketing", None), ("all", FOR_EVER)):
            address = self.address()
            body = {"address": address, "scope": scope, "reason": "asked", **({"until": until_} if until_ else {})}
            await self.call("POST", "/api/suppressions", 201, json=body, who="olga")
            status = (await self.becomes(await self.send(address, **news)))["status"]
            assert status == "failed", (scope, status)
        bounced, lifted = self.address("bounce"), self.address()
        await self.becomes(await self.send(bounced))
        await self.call("POST", "/api/suppressions", 201, json={"address": lifted, "scope": "all"}, who="olga")
        await self.call("DELETE", "/api/suppressions", params={"address": lifted, "scope": "all"}, who="olga")
        assert (await self.becomes(await self.send(lifted)))["status"] == "delivered"
        self.told["suppressed"] = [bounced, address]
        self.told["lifted"] = lifted

    async def waiting(self) -> None:
        """Mail that is not over when this version stops."""
        later = (datetime.now(UTC) + timedelta(minutes=12)).isoformat()
        wait: dict[str, list[str]] = self.told["waiting"]
        for keyed in (True, False):
            both = [self.address(), self.address("open")]
            wait[await self.send(*both, sendAt=later, keyed=keyed)] = both
        self.told["planned"] = [await self.send(sendAt="2099-01-01T00:00:00Z") for _ in range(2)]
        cancelled = await self.send(sendAt="2099-01-01T00:00:00Z")
        await self.becomes(cancelled, "queued")
        await self.call("DELETE", f"/api/email/{cancelled}", 202, params={"reason": "not needed"})
        await self.becomes(cancelled, "failed")
        refused = self.address("success+refused")
        lost = [self.address("blackhole+taken"), self.address("blackhole+lost")]
        await self.simulator.faults(
            Fault(kind="throttle", match="refused"),
            Fault(kind="acceptThenDrop", match="taken"),
            Fault(kind="dropBeforeAccept", match="lost"),
        )
        wait[await self.send(refused)] = [refused]
        for to in lost:
            self.told["unknown"][await self.send(to)] = to

        async def unknown() -> bool:
            found = json.loads(self.cli("sends", "unknown", "list", "--json"))
            return bool({each["messageId"] for each in found} >= self.told["unknown"].keys())

        await until(unknown, "attempts without an answer are noted")

    async def late(self) -> None:
        """Mail whose notifications come when nobody of ours is there to read them, and commands that nobody takes."""
        await self.simulator.faults(
            Fault(kind="throttle", match="refused"), Fault(kind="delay", ms=20_000, match="late")
        )
        to = self.address("click+late")
        message_id = await self.send(to)
        self.told["late"][message_id] = to
        await self.becomes(message_id, "sent")
        await asyncio.to_thread(self.stack.stop, ["email", "email-urgent"])
        await self.simulator.quiet(60)

        wait: dict[str, list[str]] = self.told["waiting"]
        door = self._door()
        try:
            base = self.stack.site.url("email")
            await until(lambda: self._answers(base), "the door is open")
            for n in range(2):
                html = {} if n else {"htmlContent": "<p>on its way</p>", "textContent": "\t"}
                to = self.address()
                wait[await self.send(to, base=base, keyed=True, **html)] = [to]
        finally:
            door.send_signal(signal.SIGTERM)
            await asyncio.to_thread(door.wait, 30)
        message_id, to = uuid7(), self.address()
        await self.publish(
            ("email.commands.high", message_id, {
                "messageId": message_id, "to": [to], "subject": "By Kafka", "text": " ", "html": "<p>Hello</p>",
                "category": "system", "priority": "high", "userId": "ann", "expiresAt": FOR_EVER,
            }),
        )  # fmt: skip
        wait[message_id] = [to]

    def _door(self) -> subprocess.Popen[bytes]:
        """The email service's HTTP alone: it takes mail, and nobody sends any."""
        env = self._env() | {"MAILROOM_EMAIL_PORT": str(self.stack.site.ports["email"])}
        with self.stack.site.log_file("door").open("wb") as log:
            command = [sys.executable, "-m", "services.email", "http"]
            return subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)

    async def _answers(self, base: str) -> bool:
        try:
            return (await self.http.get(f"{base}/readyz")).status_code == 200
        except httpx.TransportError:
            return False

    async def publish(self, *commands: tuple[str, str, Json | None]) -> None:
        """Records by a plain client: (topic, key, the data of a command; None: what nobody can read)."""
        producer = AIOKafkaProducer(bootstrap_servers=self.stack.env()["MAILROOM_KAFKA_BOOTSTRAP"], acks="all")
        await producer.start()
        try:
            for topic, key, data in commands:
                event = {"specversion": "1.0", "id": uuid7(), "source": "/crm", "type": "email.send", "subject": key}
                value = b"no event" if data is None else json.dumps({**event, "data": data}).encode()
                await producer.send_and_wait(topic, value, key=key.encode(), headers=[("origin", b"crm")])
        finally:
            await producer.stop()

    async def bad(self) -> None:
        """Records that each service has to set aside."""
        wrong = {"messageId": uuid7(), "to": ["nobody"], "subject": "", "category": "spam", "userId": "ann"}
        await self.publish(
            ("email.commands.normal", str(wrong["messageId"]), wrong),
            ("email.notifications", "bad", None),
            ("email.events", "bad", None),
            ("files.notifications", "bad", None),
            ("files.events", "bad", None),
        )
        for service in ("email", "files", "events"):

            async def parked(service: str = service) -> bool:
                return bool(json.loads(self.cli("parked", "list", "--service", service, "--json"))["records"])

            await until(parked, f"{service} parks what it cannot read")

    # --- files ---

    async def upload(self, data: bytes, *, tells: bool = True, status: int = 200, **asked: Any) -> str:
        """A file, as a browser uploads it; its id."""
        body = {
            "fileName": "report.pdf", "contentType": "application/pdf", "category": "document", "size": len(data),
            **asked,
        }  # fmt: skip
        key = str(uuid.uuid4())
        upload = await self.call("POST", "/api/files/upload-url", 201, json=body, key=key)
        file_id = str(upload["fileId"])
        self.told["repeats"].append({"path": "/api/files/upload-url", "key": key, "body": body, "id": file_id})
        done: Json = {"fileId": file_id, "actualSize": len(data)}
        if upload["method"] == "multipart":
            for part in upload["parts"]:
                at = (part["partNumber"] - 1) * upload["partSize"]
                (await self.http.put(part["url"], content=data[at : at + part["size"]])).raise_for_status()
            done["uploadToken"] = upload["uploadToken"]
        else:
            form = {"data": upload["fields"], "files": {"file": ("f", data)}}
            (await self.http.post(upload["uploadUrl"], **form)).raise_for_status()
        if tells:
            await self.call("POST", "/api/files/upload-complete", status, json=done)
        return file_id

    async def asked_for(self, **asked: Any) -> str:
        """An upload that was asked for, and of which nothing comes; its id."""
        body = {
            "fileName": "later.pdf",
            "contentType": "application/pdf",
            "category": "document",
            "size": 1000,
            **asked,
        }
        key = str(uuid.uuid4())
        upload = await self.call("POST", "/api/files/upload-url", 201, json=body, key=key)
        self.told["repeats"].append(
            {"path": "/api/files/upload-url", "key": key, "body": body, "id": upload["fileId"], "upload": upload}
        )
        return str(upload["fileId"])

    async def files(self) -> None:
        """Files in every state."""
        table, page = b"a;b\n1;2\n", b"<a/>" * 1000
        parts = PDF + b"\n" * (17 * MIB)
        good = {
            await self.upload(PDF, fileName="Angebot “März”.pdf", clientId="c-1"): PDF,
            await self.upload(PDF + b"1", tells=False): PDF + b"1",
            await self.upload(parts, method="multipart"): parts,
            await self.upload(table, fileName="list.csv", contentType="text/csv"): table,
            await self.upload(gzip.compress(page, mtime=0), fileName="data.xml", contentType="text/xml",
                              contentEncoding="gzip", originalSize=len(page)): page,
        }  # fmt: skip
        me = await self.upload(PNG, fileName="me.png", contentType="image/png", category="avatar", isPublic=True)
        good[me] = PNG
        for _ in range(3):
            shown = await self.http.get(f"{self.stack.site.url('gateway')}/api/files/{me}/public")
            assert shown.status_code in (302, 303, 307), shown.text
        attached = next(iter(good))
        await self.call("PATCH", f"/api/files/{attached}", json={"name": "Angebot 2.pdf", "tags": ["a", "b"]})
        for _ in range(2):
            await self.call("GET", f"/api/files/{attached}/download")
        await self.upload(b"<html><script>1</script>" * 9, status=409)
        deleted, restored = await self.upload(PDF + b"2"), await self.upload(PDF + b"3")
        good[restored] = PDF + b"3"
        for each in (deleted, restored):
            await self.call("DELETE", f"/api/files/{each}")
        await self.call("POST", f"/api/files/{restored}/restore")

        async def all_there() -> bool:
            listed = await self.call("GET", "/api/files", params={"limit": "100"}, role="admin")
            return not any(each["status"] == "uploading" for each in listed["files"])

        await until(all_there, "every upload has ended")
        mail = await self.send(attachments=[{"fileId": attached}], keyed=True)
        assert (await self.becomes(mail))["status"] == "delivered"
        for file_id, data in good.items():
            link = await self.call("GET", f"/api/files/{file_id}/download")
            assert hashlib.sha256((await self.http.get(link["url"])).content).digest() == hashlib.sha256(data).digest()
            self.told["files"][file_id] = hashlib.sha256(data).hexdigest()

    async def begun(self) -> None:
        """Uploads that have begun, of each way and of types that browsers get wrong."""
        in_parts = await self.asked_for(method="multipart", size=9 * MIB)
        upload = self.told["repeats"][-1].pop("upload")
        assert upload["method"] == "multipart"
        part = upload["parts"][0]
        (await self.http.put(part["url"], content=b"\0" * part["size"])).raise_for_status()
        self.told["inParts"] = {"fileId": in_parts, "uploadToken": upload["uploadToken"]}
        for asked in (
            {},
            {"fileName": "table.csv", "contentType": "application/octet-stream", "category": "backup"},
            {"fileName": "disk.zip", "contentType": "application/octet-stream", "category": "backup"},
            {"fileName": "note.md", "contentType": ""},
        ):
            await self.asked_for(**asked)
            self.told["repeats"][-1].pop("upload")

    # --- what is told ---

    def cli(self, *arguments: str) -> str:
        """The operator's command."""
        command = [sys.executable, "-m", "services.cli", *arguments]
        done = subprocess.run(
            command, env=self._env(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise AssertionError(f"{arguments} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def _env(self) -> dict[str, str]:
        return {
            **{name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ},
            **self.stack.env(),
        }

    async def ask_email(self) -> None:
        """What the email service answers, while it runs."""
        listed = await self._listed("emails", "/api/email")
        base = self.stack.site.url("email")
        for each in listed:
            self.told["contents"][each["messageId"]] = await self._answer(
                f"{base}/api/email/{each['messageId']}/content"
            )
        self.told["suppressions"] = (await self._answer(f"{base}/api/suppressions?limit=100"))["body"]

    async def ask_events(self) -> None:
        """What the events service answers, once it has read everything."""

        async def nothing_left() -> bool:
            found = json.loads(self.cli("lag", "--json"))
            return not any(each["lag"] for each in found if each["kind"] == "projection")

        await until(nothing_left, "the events service has read everything")
        base, reads = self.stack.site.url("events"), self.told["reads"]
        for kind, name in (("email", "emails"), ("files", "files")):
            for each in await self._listed(name, f"/api/{kind}"):
                one = f"/api/{kind}/{each['messageId' if kind == 'email' else 'fileId']}"
                for path in (one, f"{one}/history"):
                    reads[path] = await self._answer(base + path)
        for path in (
            "/api/email?limit=100", "/api/email?status=bounced&limit=100", "/api/email?category=marketing&limit=2",
            "/api/email?clientId=c-1", "/api/email?q=Zeichen", "/api/email?to=success%2Bmixed@inbox.example",
            "/api/files?limit=100", "/api/files?status=completed&limit=3", "/api/files?tag=a", "/api/files?q=angebot",
            "/api/parked?limit=100",
        ):  # fmt: skip
            reads[path] = await self._answer(base + path)
        for service in ("email", "files", "events"):
            self.told["parked"][service] = json.loads(self.cli("parked", "list", "--service", service, "--json"))

    async def _listed(self, name: str, path: str) -> list[Json]:
        found: list[Json] = (await self.call("GET", path, params={"limit": "100"}, role="admin"))[name]
        assert len(found) < 100
        return found

    async def _answer(self, url: str) -> Json:
        answer = await self.http.get(url, headers=self.headers("olga", "admin"))
        return {"status": answer.status_code, "body": answer.json()}


def _text(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


async def make(stack: Stack, told_file: Path) -> None:
    """Fill the stack; write what it answers."""
    async with (
        httpx.AsyncClient(timeout=60, trust_env=False) as http,
        SimulatorClient(stack.site.url("simulator")) as simulator,
    ):
        maker = Maker(stack, http, simulator)
        for step in (
            maker.mails, maker.large, maker.recipients, maker.bad, maker.files,
            lambda: asyncio.to_thread(maker.cli, "rebuild", "start", "email_log", "--json"),
            lambda: asyncio.to_thread(maker.cli, "rebuild", "start", "file", "--json"),
            maker.waiting, maker.begun, maker.ask_email, maker.late, maker.ask_events,
        ):  # fmt: skip
            print(f"{datetime.now(UTC):%H:%M:%S}", getattr(step, "__name__", step), flush=True)
            await step()
        maker.told["made"] = datetime.now(UTC).isoformat()
        told_file.write_text(json.dumps(maker.told, indent=1, ensure_ascii=False, sort_keys=True))


LEFT_OUT = ("mongod.lock", "WiredTiger.lock", "journal/*", "server.properties", "log4j2.properties", ".lock")
"""What is made anew at each start; MongoDB's journal holds nothing more after a clean shutdown."""


def pack(folder: Path, to: Path, names: Sequence[str] = ("data", "secrets.json", "told.json")) -> None:
    """The folder as an archive, as small as xz makes it."""
    shutil.rmtree(folder / "data" / "gateway", ignore_errors=True)
    excluded = [f"--exclude={name}" for name in LEFT_OUT]
    tar = [
        "tar",
        "--create",
        "--sparse",
        "--hole-detection=raw",
        "--sort=name",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
    ]
    packing = subprocess.Popen([*tar, *excluded, "-C", str(folder), *names], stdout=subprocess.PIPE)
    with to.open("wb") as out:
        subprocess.run(["xz", "-9e", "-T1"], stdin=packing.stdout, stdout=out, check=True)
    if packing.wait():
        raise AssertionError(f"tar ended with {packing.returncode}")


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> None:
    (to,) = arguments
    folder = Path(tempfile.mkdtemp(prefix="mailroom-upgrade-"))
    stack = Stack(replace(throwaway_site(folder, environ), durable_aws=True), print, EXTRA)
    stack.site.secrets_file.write_text(json.dumps(SECRETS))
    # Blocks as they are: xz makes less of them than of what MongoDB has compressed.
    vars(mongo)["MONGO_OPTIONS"] = (*MONGO_OPTIONS, "--wiredTigerCollectionBlockCompressor=none")
    try:
        stack.start()
        asyncio.run(make(stack, folder / "told.json"))
    finally:
        stack.stop()
    pack(folder, Path(to))
    print(f"{to}: {Path(to).stat().st_size:,} bytes, from {folder}")


if __name__ == "__main__":
    main(sys.argv[1:], os.environ)
