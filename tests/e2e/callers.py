"""People and programs that call a running stack's HTTP API through the gateway, and a look at what came of it."""

from __future__ import annotations

import asyncio
import email
import email.message
import email.policy
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from deploy.local.stack import Stack
from services.email.domain.correlation import MESSAGE_TAG
from services.kit.auth import Role, mint_token
from tests.e2e.evidence import Observer, Since, observing
from tests.e2e.judge import Json

PATIENCE = 180.0

SHARED = pytest.mark.asyncio(loop_scope="module")
"""For a module whose tests share connections, see `conftest.py`."""

SENDER = ("email:create", "email:read")
UPLOADER = ("files:create", "files:read", "files:delete")
OPERATOR = (*SENDER, *UPLOADER, "email:operate", "projections:operate")


class Callers:
    """Use `calling`. Every caller has a name; names are new in every test, so that nobody else's mail is seen."""

    def __init__(self, stack: Stack, http: httpx.AsyncClient, observer: Observer, since: Since) -> None:
        self.stack, self.http, self.observer, self.since = stack, http, observer, since
        self.run = uuid.uuid4().hex[:8]
        self._secret = stack.env()["MAILROOM_JWT_SECRET"]

    def anew(self) -> Callers:
        """The same connections under new names, for the next test."""
        return Callers(self.stack, self.http, self.observer, self.since)

    # --- who ---

    def name(self, who: str) -> str:
        """The user id of `who` in this test."""
        return f"{who}-{self.run}"

    def token(self, who: str, *scopes: str, role: Role = "user") -> str:
        """A token of theirs; with the scopes of senders unless told otherwise."""
        return mint_token(self._secret, self.name(who), scopes or SENDER, role)

    def as_(self, who: str, *scopes: str, role: Role = "user") -> dict[str, str]:
        """Headers of a call of theirs."""
        return {"Authorization": f"Bearer {self.token(who, *scopes, role=role)}"}

    def address(self, behaviour: str = "success") -> str:
        """A new address that behaves so."""
        return f"{behaviour}+{self.run}-{uuid.uuid4().hex[:6]}@inbox.example"

    # --- what they do ---

    async def post(
        self, who: str = "ann", *, key: str | None = None, headers: Mapping[str, str] | None = None, **body: Any
    ) -> httpx.Response:
        """POST /api/email: a short notification to somebody unless the body says otherwise."""
        wire = {"to": self.address(), "subject": "Hello", "category": "notification", **body}
        if not {"textContent", "htmlContent", "templateId"} & wire.keys():
            wire["textContent"] = "How are you?"
        keyed = {} if key is None else {"Idempotency-Key": key}
        return await self.http.post("/api/email", json=wire, headers={**self.as_(who), **keyed, **(headers or {})})

    async def send(self, who: str = "ann", **body: Any) -> str:
        """The same, taken on: the message's id."""
        return str(data(await self.post(who, **body), 202)["messageId"])

    async def get(self, path: str, who: str = "ann", *scopes: str, role: Role = "user", **query: str) -> httpx.Response:
        """GET it."""
        return await self.http.get(path, params=query, headers=self.as_(who, *scopes, role=role))

    # --- what came of it ---

    async def becomes(self, message_id: str, *statuses: str, who: str = "ann") -> Json:
        """The EmailLog once it has one of these statuses."""

        async def there() -> Json | None:
            answer = await self.get(f"/api/email/{message_id}", who)
            found: Json = answer.json().get("data") or {}
            return found if found.get("status") in statuses else None

        found: Json = await until(there)
        return found

    async def accepted(self, message_id: str) -> list[Json]:
        """What the provider's own log says of a message."""
        found = await self.observer.simulator.acceptances(self.since.acceptances)
        return [each for each in found if each["tags"].get(MESSAGE_TAG) == message_id]

    async def mime(self, to: str) -> email.message.EmailMessage:
        """The one mail that an address got, as it was sent, once it has come."""

        async def there() -> Json | None:
            found = await self.observer.simulator.messages(to=to)
            return found[0] if found else None

        raw = await self.observer.simulator.raw((await until(there))["providerMessageId"])
        return email.message_from_bytes(raw, policy=email.policy.default)

    async def events(self, message_id: str, topic: str = "email.events") -> list[Json]:
        """The events of a message on the log, in its order."""
        log = await self.observer.log(topic, self.since)
        return [json.loads(entry.value or b"{}") for entry in log if entry.key == message_id.encode()]


@asynccontextmanager
async def calling(stack: Stack) -> AsyncIterator[Callers]:
    """Callers of a stack that is up, and left up, without faults."""
    if not await asyncio.to_thread(stack.ready, ["email", "files", "events", "gateway"]):
        await asyncio.to_thread(stack.start)
    async with (
        observing(stack) as observer,
        httpx.AsyncClient(base_url=stack.site.url("gateway"), timeout=60, trust_env=False) as http,
    ):
        await observer.simulator.faults()
        yield Callers(stack, http, observer, await observer.now())


def data(answer: httpx.Response, status: int = 200) -> Json:
    """The data of an answer that has this status."""
    assert answer.status_code == status, answer.text
    body: Json = answer.json()
    assert body["success"] is True
    found: Json = body["data"]
    return found


def refused(answer: httpx.Response, status: int) -> Json:
    """A refusal with this status, in the envelope."""
    assert answer.status_code == status, answer.text
    body: Json = answer.json()
    assert body["success"] is False
    assert body["error"]
    return body


def fields(answer: httpx.Response) -> set[str]:
    """The wrong fields that a 400 lists."""
    return {detail["field"] for detail in refused(answer, 400)["details"]}


async def until(there: Callable[[], Awaitable[Any]], seconds: float = PATIENCE) -> Any:
    """What `there` gives once it gives something; AssertionError after `seconds`."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        found = await there()
        if found:
            return found
        assert asyncio.get_running_loop().time() < deadline, "not within the time limit"
        await asyncio.sleep(0.1)
