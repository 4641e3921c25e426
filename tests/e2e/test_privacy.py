"""No log of any process of ours tells an address, a name, a code, a token or a secret, whatever goes well or wrong.

Everything personal in this traffic bears a mark that is new in every run. The logs are searched from the start of the
stack, so whatever other tests did before is searched too, for everything that has the shape of an address or a token.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from contracts.ids import uuid7
from contracts.topics import EMAIL_EVENTS, EMAIL_NOTIFICATIONS, LANES
from deploy.local.demo.cases import Run
from deploy.local.demo.doors import HttpDoor, KafkaDoor
from deploy.local.endpoints import aws_endpoints
from deploy.local.parts import PARTS
from deploy.local.simulator.faults import Fault
from deploy.local.stack import Stack
from tests.e2e.callers import OPERATOR, SHARED, Callers, until
from tests.e2e.test_http_suppressions import ONE_CLICK, way_out
from tests.e2e.traffic import command

SEARCHED = tuple(PARTS)
"""Whose logs are searched: every process of the stack, ours and those that it stands on."""

ADDRESS = re.compile(r"[A-Za-z0-9._%+-]+(?:@|%40|\\u0040)[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}")
TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]{8,}")
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?Z?")
"""Whose digits may be anything, a code of the demo too."""

POISONED = {LANES["normal"].name: 5, EMAIL_NOTIFICATIONS.name: 5, EMAIL_EVENTS.name: 5 + 3}
"""Where bad records go, and how many are set aside for them: events by the projector, and by the settler too where it
would have to read them.
"""


pytestmark = SHARED


class Marks:
    """Everything personal or secret that this run lets in."""

    def __init__(self, run: str) -> None:
        self.run = run
        self.all: set[str] = set()

    def new(self, what: str) -> str:
        """Something of this kind that nobody else has."""
        made = f"{what}{uuid.uuid4().hex[:10]}"
        self.all.add(made)
        return made

    def address(self, behaviour: str = "success") -> str:
        """An address; its local part alone must not be seen either."""
        return f"{behaviour}+{self.new('mbx')}@inbox.example"

    def body(self, **more: Any) -> dict[str, Any]:
        """A mail with a mark in whatever people write."""
        return {
            "to": self.address(),
            "subject": f"For {self.new('subj')}",
            "textContent": f"Dear {self.new('text')}",
            "htmlContent": f"<p>{self.new('html')}</p>",
            "category": "notification",
            "priority": "urgent",
            "tags": {"who": self.new("tag")},
            "customData": {"person": {"name": self.new("cust")}},
            "attachments": [
                {
                    "filename": f"{self.new('file')}.txt",
                    "contentType": "text/plain",
                    "content": base64.b64encode(self.new("cont").encode()).decode(),
                }
            ],
            **more,
        }


def leaks(stack: Stack, marks: set[str]) -> list[str]:
    """What the logs tell that they must not, with the line it stands in."""
    env = stack.env()
    secrets = {env[name] for name in ("FILE_ENCRYPTION_KEY", "WEBHOOK_SECRET", "MAILROOM_JWT_SECRET")}
    assert all(len(secret) > 20 for secret in secrets)
    found = []
    for part in SEARCHED:
        for line in TIMESTAMP.sub("", stack.logs(part)).splitlines():
            told = [mark for mark in marks if mark in line]
            told += ["a secret of the environment" for secret in secrets if secret in line]
            told += ADDRESS.findall(line) + TOKEN.findall(line)
            found += [f"{part} tells {what}: {line[:600]}" for what in told]
    return found


async def test_the_search_finds_what_it_is_for(stack: Stack) -> None:
    for line in ("to ann@inbox.example", "to=ann%40inbox.example", r'{"to": "ann\u0040inbox.example"}'):
        assert ADDRESS.search(line)
    assert not ADDRESS.search("to a…@inbox.example#1a2b")
    assert TOKEN.search("Bearer eyJhbGciOiJIUzI1NiJ9.e30.x")
    for part in ("email", "email-urgent", "events"):
        assert '"event":"started"' in stack.logs(part)


async def test_a_demos_worth_of_mail_leaves_no_trace_of_anybody(callers: Callers) -> None:
    cases = Run(callers.run, datetime.now(UTC)).cases()
    kafka = callers.stack.env()["MAILROOM_KAFKA_BOOTSTRAP"]
    http = HttpDoor(callers.http, callers.token("demo", *OPERATOR))
    async with AIOKafkaProducer(bootstrap_servers=kafka, acks="all") as producer:
        doors: dict[str, HttpDoor | KafkaDoor] = {"http": http, "kafka": KafkaDoor(producer, callers.name("demo"))}
        for case in cases:
            if case.suppress_first:
                await http.suppress(case.body["to"][0])
            await doors[case.door].send(case)
            if case.cancel:
                await doors[case.door].cancel(case)

    async def settled() -> bool:
        found = [await http.read(f"/api/email/{case.message_id}") for case in cases]
        return all(log.get("status") == case.status for log, case in zip(found, cases, strict=True))

    await until(settled, 120)
    marks = {address.partition("@")[0] for case in cases for address in case.expected}
    marks |= {"482913", "r-4711", "Jane Doe", "Rechnung", "It shows", "This message shows"}
    assert leaks(callers.stack, marks) == []


async def test_codes_and_reset_tokens_of_templates(callers: Callers) -> None:
    marks = Marks(callers.run)
    sent = [
        ("2fa-code", "auth", {"name": marks.new("Ada"), "token": marks.new("code"), "expiresInMinutes": 10}),
        ("password-reset", "auth", {"name": marks.new("Ada"), "resetToken": marks.new("reset"), "expiresInHours": 24}),
        ("welcome", "client-portal", {"name": marks.new("Ada"), "isClient": True}),
    ]
    for template, category, data in sent:
        body: dict[str, Any] = {
            "to": marks.address(),
            "subject": marks.new("subj"),
            "category": category,
            "priority": "urgent",
        }
        message_id = await callers.send(templateId=template, templateData=data, **body)
        await callers.becomes(message_id, "delivered")
        assert (
            await callers.post(templateId=template, templateData={**data, marks.new("f"): 1, "name": 7}, **body)
        ).is_error
    assert leaks(callers.stack, marks.all) == []


async def test_calls_that_are_refused(callers: Callers) -> None:
    marks = Marks(callers.run)
    token = callers.token("ann")
    marks.all |= {token, token.rpartition(".")[2]}
    bad = marks.body(
        to=[marks.address(), f"no {marks.new('addr')}"], category=marks.new("cat"), listId=marks.new("li ")
    )
    await callers.http.post("/api/email", json=bad, headers={"Authorization": f"Bearer {token}"})
    await callers.http.post("/api/email", json=bad, headers={"Authorization": f"Bearer {token[:-4]}AAAA"})
    await callers.http.post("/api/email", json=bad, headers={"Cookie": f"mailroom_session={token}"})
    await callers.http.post("/api/email", content=json.dumps(bad)[:-9], headers=callers.as_("ann"))
    await callers.post(key="with space", **marks.body())
    await callers.post(attachments=[{"filename": f"../{marks.new('file')}", "contentType": "x", "content": "!"}])
    for path in ("/api/email", "/api/suppressions", f"/api/{marks.new('path')}", f"/unsubscribe/{marks.new('token')}"):
        query = {"to": marks.address(), "address": marks.address(), "q": marks.new("query"), "token": token}
        for base in ("", callers.stack.site.url("email"), callers.stack.site.url("events")):
            await callers.http.get(base + path, params=query, headers=callers.as_("ann", *OPERATOR))
    assert leaks(callers.stack, marks.all) == []


async def test_operators_and_those_who_leave(callers: Callers) -> None:
    marks = Marks(callers.run)
    to, operator = marks.address(), callers.as_("olga", *OPERATOR)
    news: dict[str, Any] = {"category": "marketing", "listId": "news"}
    await callers.becomes(await callers.send(**marks.body(to=to, **news)), "delivered")
    link = await way_out(callers, to)
    marks.all.add(link.rpartition("/")[2][:40])
    for answer in (await callers.http.get(link), await callers.http.post(link, data=ONE_CLICK)):
        assert answer.status_code == 200
    why = f"{to} wrote to us"
    await callers.http.post("/api/suppressions", json={"address": to, "reason": why}, headers=operator)
    fault = Fault(kind="refuse", operation="SuppressedDestination", code="InternalServiceErrorException", status=500)
    await callers.observer.simulator.faults(fault.model_copy(update={"message": f"cannot delete {to}"}))
    lifted = await callers.http.delete("/api/suppressions", params={"address": to, "reason": why}, headers=operator)
    assert lifted.status_code == 503
    await callers.observer.simulator.faults()
    assert leaks(callers.stack, marks.all) == []
    assert "suppression.providerList" in callers.stack.logs("email")


@pytest.mark.parametrize("code", ["MessageRejected", "BadRequestException", "SomethingNew", "ThrottlingException"])
async def test_a_provider_that_quotes_the_address(callers: Callers, code: str) -> None:
    marks = Marks(callers.run)
    to = marks.address()
    said = f"Address <{to}> of {marks.new('Name')} is not allowed"
    await callers.observer.simulator.faults(Fault(kind="refuse", code=code, message=said, match=re.escape(to), count=1))
    await callers.becomes(await callers.send(**marks.body(to=to)), "failed", "delivered")
    await callers.observer.simulator.faults()
    assert leaks(callers.stack, marks.all) == []


async def test_records_that_cannot_be_handled(callers: Callers) -> None:
    began, marks = datetime.now(UTC), Marks(callers.run)
    kafka = callers.stack.env()["MAILROOM_KAFKA_BOOTSTRAP"]
    async with AIOKafkaProducer(bootstrap_servers=kafka, acks="all") as producer:
        for topic in POISONED:
            await _poison(producer, topic, marks)
    queue = aws_endpoints(callers.stack)
    await callers.observer.simulator.notify(f"no notification of {marks.address()}", topic_arn=queue.topic_arn)
    wanted = sum(POISONED.values())

    async def parked() -> list[dict[str, Any]] | None:
        found = [
            each
            for service in (callers.observer.email, callers.observer.events)
            async for each in service["parked"].find({"at": {"$gte": began}})
        ]
        return found if len(found) >= wanted else None

    for record in await until(parked):
        shown = {name: value for name, value in record.items() if isinstance(value, str)}
        assert not [mark for mark in marks.all if mark in json.dumps(shown)], f"{shown} can be read by anybody"
    assert leaks(callers.stack, marks.all) == []


async def test_errors_that_nobody_expected(callers: Callers) -> None:
    marks = Marks(callers.run)
    async with _broken(callers, marks) as message_id:
        for method, path in (("DELETE", ""), ("GET", ""), ("GET", "/content"), ("GET", "/history")):
            url = f"/api/email/{message_id}{path}"
            answer = await callers.http.request(method, url, headers=callers.as_("ann", role="admin"))
            assert answer.status_code >= 400
            assert not [mark for mark in marks.all if mark in answer.text], "internals are nobody's business"
    assert leaks(callers.stack, marks.all) == []
    for part in ("email", "events"):
        assert "unexpected error in a request" in callers.stack.logs(part)


async def test_a_service_that_is_down(callers: Callers) -> None:
    marks = Marks(callers.run)
    await asyncio.to_thread(callers.stack.stop, ["email"])
    try:
        for path in (f"/unsubscribe/{marks.new('token')}", "/api/suppressions"):
            answer = await callers.http.get(path, params={"address": marks.address()}, headers=callers.as_("ann"))
            assert answer.status_code == 503
    finally:
        await asyncio.to_thread(callers.stack.start, ["email"], with_needs=False)
    assert leaks(callers.stack, marks.all) == []


async def _poison(producer: AIOKafkaProducer, topic: str, marks: Marks) -> None:
    """Five bad records, each of another kind."""
    mail = {"messageId": uuid7(), "userId": "u", **marks.body(to=[marks.address(), "x"], customData={"n": 2**64})}
    event = {
        "specversion": "1.0",
        "id": str(uuid.uuid4()),
        "source": f"/{marks.new('source')}",
        "type": "email.delivered",
        "subject": uuid7(),
        "time": f"yesterday {marks.new('time')}",
        "data": {"recipient": marks.address(), "attemptId": [marks.new("attempt")]},
    }
    values = [
        f"{{not JSON of {marks.address()}".encode(),
        command(mail["messageId"], mail),
        json.dumps(event).encode(),
        json.dumps({"eventType": "Delivery", "mail": {"destination": [marks.address()]}}).encode(),
        json.dumps([marks.address()]).encode(),
    ]
    for value in values:
        headers = [("x-of", marks.address().encode()), ("source", b"ses")]
        await producer.send_and_wait(topic, value, key=marks.address().encode(), headers=headers)


@asynccontextmanager
async def _broken(callers: Callers, marks: Marks) -> AsyncIterator[str]:
    """A message whose stream, document and content are broken, with people's data in what is broken."""
    message_id = uuid7()
    broken = json.dumps({"type": "email.requested", "to": [marks.address()], "subject": marks.new("subj")})
    observer = callers.observer
    stream = {"_id": message_id, "version": 1, "events": [broken], "published": 1, "code": marks.new("code")}
    read_model = observer.events[await observer.read_model()]
    document = {"_id": message_id, "_visible": True, "userId": "u", "to": [marks.address()], "subject": 7}
    await observer.email["messages"].insert_one(stream)
    await read_model.insert_one(document)
    try:
        yield message_id
    finally:
        await observer.email["messages"].delete_one({"_id": message_id})
        await read_model.delete_one({"_id": message_id})
