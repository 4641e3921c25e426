"""The operator's routes on real Kafka and MongoDB, and who may call what: every route × scope × role × owner."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, get_args
from urllib.parse import quote
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI

from services.events.composing import ReadingSide
from services.events.foundation import Foundation, foundation
from services.events.generations import ensure_first, move, retire, swap
from services.events.serving import application
from services.events.settings import EventsSettings
from services.kit.auth import Role, mint_token
from services.kit.crypto import KeyRing
from services.kit.errors import PermanentError
from services.kit.kafka.records import Park, Record
from services.kit.parking import ParkedRecord
from services.kit.settings import load
from tests.integration.events.conftest import HANG
from tests.integration.events.stored_files import Files
from tests.integration.events.stored_mails import Mails
from tests.unit.events_service.events import ANN, MESSAGE, Log, requested
from tests.unit.events_service.file_events import FILE_ID, file_log, upload_requested

SECRET = "s" * 40
SCOPES = (
    "email:create",
    "email:read",
    "email:operate",
    "files:create",
    "files:read",
    "files:delete",
    "files:operate",
    "projections:operate",
)


@pytest.fixture
async def base(kafka_bootstrap: str, mongo_url: str, topic: str) -> AsyncIterator[Foundation]:
    """What the service stands on, with an active first generation of every projection; one topic does for both."""
    environ = {
        "MAILROOM_KAFKA_BOOTSTRAP": kafka_bootstrap,
        "MAILROOM_MONGO_URL": mongo_url,
        "MAILROOM_EVENTS_DATABASE": f"test_operating_{uuid4().hex[:8]}",
        "MAILROOM_EMAIL_EVENTS_TOPIC": topic,
        "MAILROOM_FILES_EVENTS_TOPIC": topic,
        "MAILROOM_PUBLIC_URL": "http://127.0.0.1:1",
        "FILE_ENCRYPTION_KEY": "k" * 40,
        "MAILROOM_JWT_ALGORITHM": "HS256",
        "MAILROOM_JWT_SECRET": SECRET,
    }
    base = foundation(load(EventsSettings, environ))
    try:
        for side in base.sides.values():
            await _begin(side)
        yield base
    finally:
        await base.client.drop_database(base.settings.database)
        await base.client.close()


async def _begin(side: ReadingSide) -> None:
    log = side.log()
    await log.start()
    async with asyncio.timeout(HANG):
        while (await side.generations.pointer()).active is None:
            with contextlib.suppress(PermanentError):  # a new topic takes a moment to be known to the broker
                await ensure_first(side.projection, side.generations, side.leases(1), log)
    await log.stop()


@pytest.fixture
def app(base: Foundation) -> FastAPI:
    return application(base, wait_seconds=0.05)


@pytest.fixture
def side(base: Foundation) -> ReadingSide:
    """The reading side of mails."""
    return base.sides["email_log"]


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://mailroom") as client:
        yield client


def as_(user: str, *scopes: str, role: Role = "user") -> dict[str, str]:
    return {"authorization": f"Bearer {mint_token(SECRET, user, scopes, role)}"}


OPERATOR = as_("olga", "projections:operate")
PROJECTIONS = ("email_log", "file")


async def data(answer: httpx.Response, status: int = 200) -> Any:
    assert answer.status_code == status, answer.text
    return answer.json()["data"]


# --- projections ---------------------------------------------------------------------------------------------------


async def test_projections_are_told_in_their_order(client: httpx.AsyncClient) -> None:
    listed = await data(await client.get("/api/projections", headers=OPERATOR))
    assert [each["name"] for each in listed] == list(PROJECTIONS)


@pytest.mark.parametrize("name", PROJECTIONS)
async def test_a_projection_tells_its_generations_and_partitions(client: httpx.AsyncClient, name: str) -> None:
    one = await data(await client.get(f"/api/projections/{name}", headers=OPERATOR))
    assert (one["name"], one["active"], one["lag"], one.get("previous")) == (name, 1, 0, None)
    assert [(each["number"], each["stage"]) for each in one["generations"]] == [(1, "active")]
    assert [each["partition"] for each in one["partitions"]] == list(range(6))
    assert {(each["generation"], each["lag"], each.get("owner")) for each in one["partitions"]} == {(1, 0, None)}
    assert (await client.get("/api/projections/unknown", headers=OPERATOR)).status_code == 404


@pytest.mark.parametrize("name", PROJECTIONS)
async def test_a_rebuild_is_asked_for_once_paused_and_resumed(
    client: httpx.AsyncClient, base: Foundation, name: str
) -> None:
    path = f"/api/projections/{name}"
    made = await data(await client.post(f"{path}/rebuild", headers=OPERATOR), 202)
    assert (made["number"], made["stage"], made["paused"]) == (2, "created", False)
    again = await client.post(f"{path}/rebuild", headers=OPERATOR)
    assert (again.status_code, again.json()["details"]) == (409, [{"reason": "rebuildInProgress"}])
    assert (await data(await client.post(f"{path}/pause", headers=OPERATOR)))["paused"] is True
    found = await base.sides[name].generations.get(2)
    assert found is not None
    assert found.paused
    assert (await data(await client.post(f"{path}/resume", headers=OPERATOR)))["paused"] is False
    for other, side in base.sides.items():
        assert (await side.generations.get(2) is not None) == (other == name), "the other one is left alone"


async def test_what_cannot_be_done_now_says_why(client: httpx.AsyncClient) -> None:
    for verb, reason in (("pause", "noRebuild"), ("resume", "noRebuild"), ("rollback", "nothingToRollBack")):
        answer = await client.post(f"/api/projections/email_log/{verb}", headers=OPERATOR)
        assert (answer.status_code, answer.json()["details"]) == (409, [{"reason": reason}])
        assert (await client.post(f"/api/projections/nothing/{verb}", headers=OPERATOR)).status_code == 404


async def test_a_rollback_goes_to_the_generation_before(client: httpx.AsyncClient, side: ReadingSide) -> None:
    await data(await client.post("/api/projections/email_log/rebuild", headers=OPERATOR), 202)
    await side.leases(2).seed(dict.fromkeys(range(6), 0))
    for stage in ("backfilling", "catchingUp", "verified"):
        await move(side.generations, 2, stage)
    await swap(side.generations, 2, expected=1)
    back = await data(await client.post("/api/projections/email_log/rollback", headers=OPERATOR))
    assert (back["number"], back["stage"]) == (1, "active")
    state = await data(await client.get("/api/projections/email_log", headers=OPERATOR))
    assert (state["active"], state["previous"]) == (1, 2)


# --- time limits ---------------------------------------------------------------------------------------------------


async def test_mongodb_stops_whatever_a_read_asks_of_it(
    app: FastAPI, client: httpx.AsyncClient, base: Foundation, side: ReadingSide
) -> None:
    """Every GET route with all its filters, looked at from the server: each command that reads has its time limit."""
    values = {
        "message_id": await Mails(side.database).add(),
        "file_id": await Files(base.sides["file"].database).add(),
        "parked_id": quote(await parked(side, 7, b"{}"), safe=""),
        "name": "email_log",
    }
    told = {"startDate": "2026-01-01T10:00:00Z", "q": "receipt"}
    reader = as_("olga", *SCOPES, role="admin")
    await side.database.command("profile", 2)
    asked = 0
    for path, operations in app.openapi()["paths"].items():
        if "get" not in operations:
            continue
        known = {each["name"] for each in operations["get"].get("parameters", ())}
        for query in ({}, {name: value for name, value in told.items() if name in known}):
            answer = await client.get(path.format(**values), params=query, headers=reader)
            assert answer.status_code == 200, answer.text
            asked += 1
    await side.database.command("profile", 0)
    reads = await side.database["system.profile"].find({"op": {"$in": ["query", "command"]}}).to_list()
    commands = [
        each["command"] for each in reads if {"find", "aggregate", "count", "distinct"} & each["command"].keys()
    ]
    assert len(commands) > asked
    assert [each for each in commands if "maxTimeMS" not in each] == []


# --- parked records ------------------------------------------------------------------------------------------------


async def parked(
    side: ReadingSide, offset: int, value: bytes | None, reason: str = "foldFailed", key: str = MESSAGE
) -> str:
    record = Record(side.projection.topic, 3, offset, 1_795_000_000_000, key.encode(), value, (("h", b"\xff"),))
    park = Park(reason, "bug" if reason == "foldFailed" else "poison", "detail", error=ValueError("boom"))
    one = ParkedRecord.of(side.consumer, record, park, side.clock.now())
    await side.parking.park([one])
    return one.id


async def test_a_parked_record_is_listed_shown_and_retried_in_place(
    client: httpx.AsyncClient, side: ReadingSide
) -> None:
    raw = Log().raw(requested(ANN))
    parked_id = await parked(side, 17, raw)
    path = f"/api/parked/{quote(parked_id, safe='')}"
    listed = await data(await client.get("/api/parked", headers=OPERATOR))
    assert [(each["id"], each["kind"], "value" in each) for each in listed["records"]] == [(parked_id, "bug", False)]
    shown = await data(await client.get(path, headers=OPERATOR))
    assert shown["value"] == {"text": raw.decode()}
    assert shown["headers"] == [{"name": "h", "value": {"base64": "_w=="}}]
    assert "ValueError: boom" in shown["stack"]
    retried = await data(await client.post(f"{path}/retry", headers=OPERATOR))
    assert (retried["status"], retried["closedBy"]) == ("retried", "user:olga")
    email = await data(await client.get(f"/api/email/{MESSAGE}", headers=as_("user-1", "email:read")))
    assert email["status"] == "queued"
    history = await data(await client.get(f"/api/email/{MESSAGE}/history", headers=as_("user-1", "email:read")))
    assert [(e["origin"]["partition"], e["origin"]["offset"]) for e in history["events"]] == [(3, 17)]
    again = await client.post(f"{path}/retry", headers=OPERATOR)
    assert again.status_code == 409
    assert (await data(await client.get("/api/parked", headers=OPERATOR)))["records"] == []
    assert len((await data(await client.get("/api/parked?status=any", headers=OPERATOR)))["records"]) == 1


async def test_a_parked_record_of_files_goes_to_the_projection_of_files(
    client: httpx.AsyncClient, base: Foundation
) -> None:
    side = base.sides["file"]
    parked_id = await parked(side, 5, file_log().raw(upload_requested()), key=FILE_ID)
    assert parked_id.startswith("events.file|")
    retried = await data(await client.post(f"/api/parked/{quote(parked_id, safe='')}/retry", headers=OPERATOR))
    assert retried["status"] == "retried"
    file = await data(await client.get(f"/api/files/{FILE_ID}", headers=as_("user-1", "files:read")))
    assert file["status"] == "uploading"
    history = await data(await client.get(f"/api/files/{FILE_ID}/history", headers=as_("user-1", "files:read")))
    assert [each["origin"] for each in history["events"]] == [
        {"topic": side.projection.topic, "partition": 3, "offset": 5}
    ]


async def test_a_retry_that_fails_says_why_and_the_record_can_be_given_up(
    client: httpx.AsyncClient, side: ReadingSide
) -> None:
    path = f"/api/parked/{quote(await parked(side, 18, b'{', 'foldFailed'), safe='')}"
    failed = await data(await client.post(f"{path}/retry", headers=OPERATOR))
    assert (failed["status"], failed["reason"], failed["kind"], failed["tries"]) == ("parked", "notJson", "poison", 1)
    assert failed["lastError"].startswith("notJson")
    assert (await client.post(f"{path}/discard", headers=OPERATOR, json={})).status_code == 400
    gone = await data(await client.post(f"{path}/discard", headers=OPERATOR, json={"reason": "a test of ours"}))
    assert (gone["status"], gone["closedReason"], gone["closedBy"]) == ("discarded", "a test of ours", "user:olga")
    for verb, body in (("retry", None), ("discard", {"reason": "again"})):
        assert (await client.post(f"{path}/{verb}", headers=OPERATOR, json=body)).status_code == 409


async def test_what_was_sealed_with_a_key_that_is_lost_says_so_and_can_be_given_up(
    client: httpx.AsyncClient, base: Foundation, side: ReadingSide
) -> None:
    parked_id = await parked(side, 19, b"x")
    lost = KeyRing.from_secret("a secret that everybody has lost")
    await base.client[base.settings.database]["parked"].update_one(
        {"_id": parked_id}, {"$set": {"raw": lost.seal(b"x", b"")}}
    )
    path = f"/api/parked/{quote(parked_id, safe='')}"
    for answer in (await client.get(path, headers=OPERATOR), await client.post(f"{path}/retry", headers=OPERATOR)):
        assert answer.status_code == 409
        assert "MAILROOM_OLD_ENCRYPTION_KEYS" in answer.json()["error"]
    gone = await data(await client.post(f"{path}/discard", headers=OPERATOR, json={"reason": "its key is lost"}))
    assert (gone["status"], gone["closedReason"]) == ("discarded", "its key is lost")


async def test_parked_records_come_in_pages(client: httpx.AsyncClient, side: ReadingSide) -> None:
    ids = {await parked(side, offset, b"x") for offset in range(5)}
    found: list[str] = []
    cursor = ""
    for _ in range(3):
        page = await data(await client.get(f"/api/parked?limit=2{cursor}", headers=OPERATOR))
        found += [each["id"] for each in page["records"]]
        cursor = f"&cursor={quote(page.get('nextCursor', ''), safe='')}"
    assert len(found) == 5
    assert set(found) == ids
    assert (await client.get("/api/parked?cursor=nonsense", headers=OPERATOR)).status_code == 400


# --- who may call what ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A route: the scope it needs, and its status for the owner, a stranger and an admin who is a stranger."""

    method: str
    route: str
    scope: str
    owner: int
    stranger: int
    admin: int


MATRIX = (
    Row("GET", "/api/email", "email:read", 200, 200, 200),
    Row("GET", "/api/email/{message_id}", "email:read", 200, 404, 200),
    Row("GET", "/api/email/{message_id}/history", "email:read", 200, 404, 200),
    Row("GET", "/api/files", "files:read", 200, 200, 200),
    Row("GET", "/api/files/{file_id}", "files:read", 200, 404, 200),
    Row("GET", "/api/files/{file_id}/history", "files:read", 200, 404, 200),
    Row("GET", "/api/projections", "projections:operate", 200, 200, 200),
    Row("GET", "/api/projections/{name}", "projections:operate", 200, 200, 200),
    Row("POST", "/api/projections/{name}/rebuild", "projections:operate", 202, 202, 202),
    Row("POST", "/api/projections/{name}/pause", "projections:operate", 409, 409, 409),
    Row("POST", "/api/projections/{name}/resume", "projections:operate", 409, 409, 409),
    Row("POST", "/api/projections/{name}/rollback", "projections:operate", 409, 409, 409),
    Row("GET", "/api/parked", "projections:operate", 200, 200, 200),
    Row("GET", "/api/parked/{parked_id}", "projections:operate", 200, 200, 200),
    Row("POST", "/api/parked/{parked_id}/retry", "projections:operate", 200, 200, 200),
    Row("POST", "/api/parked/{parked_id}/discard", "projections:operate", 200, 200, 200),
)


def test_the_matrix_has_every_route(app: FastAPI) -> None:
    found = {(method.upper(), path) for path, operations in app.openapi()["paths"].items() for method in operations}
    assert found == {(row.method, row.route) for row in MATRIX}


USERS: tuple[tuple[str, Role], ...] = (
    ("owner", "user"),
    ("owner", "service"),
    ("stranger", "user"),
    ("stranger", "service"),
    ("stranger", "admin"),
)


async def test_every_route_asks_for_its_scope_and_its_owner(client: httpx.AsyncClient, side: ReadingSide) -> None:
    owned = await Mails(side.database).add(user_id="owner")
    file = await Files(side.database).add(user_id="owner")
    numbers = itertools.count(100)

    async def call(row: Row, headers: dict[str, str]) -> httpx.Response:
        names = {"message_id": owned, "file_id": file, "name": "email_log", "parked_id": ""}
        if "{parked_id}" in row.route:
            names["parked_id"] = quote(await parked(side, next(numbers), Log().raw(requested())), safe="")
        for generation in await side.generations.list():
            if generation.stage == "created":  # each caller finds the projection as the first one did
                await retire(side.generations, generation.number)
        body = {"reason": "matrix"} if row.route.endswith("/discard") else None
        return await client.request(row.method, row.route.format(**names), headers=headers, json=body)

    for row in MATRIX:
        where = (row.method, row.route)
        for nobody in ({}, {"authorization": "Bearer nonsense"}):
            assert (where, (await call(row, nobody)).status_code) == (where, 401)
        others = [scope for scope in SCOPES if scope != row.scope]
        for role in get_args(Role):
            refused = await call(row, as_("owner", *others, role=role))
            assert (where, role, refused.status_code) == (where, role, 403)
        for user, role in USERS:
            expected = row.admin if role == "admin" else row.owner if user == "owner" else row.stranger
            answer = await call(row, as_(user, row.scope, role=role))
            assert (where, user, role, answer.status_code) == (where, user, role, expected), answer.text
            if row.route in ("/api/email", "/api/files"):
                sees = user == "owner" or role == "admin"
                assert (user, role, answer.json()["data"]["total"]) == (user, role, 1 if sees else 0)
