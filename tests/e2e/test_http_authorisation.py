"""Who may call what, on the running services: every route × scope × role × owner × every kind of bad token.

The table below is the whole policy: a route that a service documents and the table lacks fails, and vice versa.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from contracts.ids import uuid7
from deploy.local.demo.files import PDF, PNG, FileCase, FilesDoor
from services.kit.auth import Role
from tests.e2e.callers import OPERATOR, PATIENCE, SHARED, UPLOADER, Callers, data, refused

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True)
class Allowed:
    """Statuses for callers who have the scope: the owner, others in the roles user and service, and other admins."""

    owner: int
    stranger: int
    service: int
    admin: int

    @classmethod
    def all(cls, status: int) -> Allowed:
        """The same for everybody: the route knows no owner."""
        return cls(status, status, status, status)


@dataclass(frozen=True)
class Row:
    """A route and what it asks for; `scope` None = it is open to all."""

    service: str
    method: str
    route: str
    scope: str | None
    allowed: Allowed


OWNED = Allowed(owner=200, stranger=404, service=404, admin=200)
NAMED_NOTHING = Allowed.all(404)
"""Operators' verbs are tried on names that do not exist, so that nothing is rebuilt or retried here."""

MATRIX = (
    Row("email", "POST", "/api/email", "email:create", Allowed.all(202)),
    Row("email", "DELETE", "/api/email/{message_id}", "email:create", Allowed(202, 404, 202, 202)),
    Row("email", "GET", "/api/email/{message_id}/content", "email:read", OWNED),
    Row("email", "GET", "/api/suppressions", "email:operate", Allowed.all(200)),
    Row("email", "POST", "/api/suppressions", "email:operate", Allowed.all(201)),
    Row("email", "DELETE", "/api/suppressions", "email:operate", Allowed.all(200)),
    Row("email", "GET", "/api/providers", "email:operate", Allowed.all(200)),
    Row("email", "PUT", "/api/providers/{name}/off", "email:operate", NAMED_NOTHING),
    Row("email", "DELETE", "/api/providers/{name}/off", "email:operate", NAMED_NOTHING),
    Row("email", "PUT", "/api/providers/pins/{what}", "email:operate", Allowed.all(400)),
    Row("email", "DELETE", "/api/providers/pins/{what}", "email:operate", Allowed.all(200)),
    Row("email", "GET", "/unsubscribe/{token}", None, NAMED_NOTHING),
    Row("email", "POST", "/unsubscribe/{token}", None, NAMED_NOTHING),
    Row("files", "GET", "/api/files/categories", "files:create", Allowed.all(200)),
    Row("files", "POST", "/api/files/upload-url", "files:create", Allowed.all(201)),
    Row("files", "POST", "/api/files/parts", "files:create", OWNED),
    Row("files", "POST", "/api/files/parts/list", "files:create", OWNED),
    Row("files", "POST", "/api/files/abort", "files:create", OWNED),
    Row("files", "POST", "/api/files/upload-complete", "files:create", OWNED),
    Row("files", "POST", "/api/files/batch", "files:delete", Allowed.all(200)),
    Row("files", "GET", "/api/files/{file_id}/download", "files:read", OWNED),
    Row("files", "GET", "/api/files/{file_id}/public", None, Allowed.all(302)),
    Row("files", "PATCH", "/api/files/{file_id}", "files:create", OWNED),
    Row("files", "DELETE", "/api/files/{file_id}", "files:delete", OWNED),
    Row("files", "POST", "/api/files/{file_id}/restore", "files:delete", OWNED),
    Row("events", "GET", "/api/email", "email:read", Allowed.all(200)),
    Row("events", "GET", "/api/email/{message_id}", "email:read", OWNED),
    Row("events", "GET", "/api/email/{message_id}/history", "email:read", OWNED),
    Row("events", "GET", "/api/files", "files:read", Allowed.all(200)),
    Row("events", "GET", "/api/files/{file_id}", "files:read", OWNED),
    Row("events", "GET", "/api/files/{file_id}/history", "files:read", OWNED),
    Row("events", "GET", "/api/projections", "projections:operate", Allowed.all(200)),
    Row("events", "GET", "/api/projections/{name}", "projections:operate", NAMED_NOTHING),
    Row("events", "POST", "/api/projections/{name}/rebuild", "projections:operate", NAMED_NOTHING),
    Row("events", "POST", "/api/projections/{name}/pause", "projections:operate", NAMED_NOTHING),
    Row("events", "POST", "/api/projections/{name}/resume", "projections:operate", NAMED_NOTHING),
    Row("events", "POST", "/api/projections/{name}/rollback", "projections:operate", NAMED_NOTHING),
    Row("events", "GET", "/api/parked", "projections:operate", Allowed.all(200)),
    Row("events", "GET", "/api/parked/{parked_id}", "projections:operate", NAMED_NOTHING),
    Row("events", "POST", "/api/parked/{parked_id}/retry", "projections:operate", NAMED_NOTHING),
    Row("events", "POST", "/api/parked/{parked_id}/discard", "projections:operate", NAMED_NOTHING),
)

OPEN_TO_ALL = ("/healthz", "/readyz", "/metrics", "/docs", "/docs/start.js", "/docs/swagger-ui.css", "/openapi.json")
"""What machines and operators ask without a token; the gateway lets none of it through (`test_stack_gateway`)."""


pytestmark = SHARED


async def call(callers: Callers, row: Row, headers: Mapping[str, str], subject: str, **more: Any) -> httpx.Response:
    """The row's call, good in every way but perhaps who makes it."""
    names = {
        "message_id": subject,
        "file_id": subject,
        "name": "no_such",
        "parked_id": "nobody|nowhere|0|0",
        "what": "nothing",
        "token": "nonsense",
    }
    url = callers.stack.site.url(row.service) + row.route.format(**names)
    given: dict[tuple[str, str], dict[str, Any]] = {
        ("POST", "/api/email"): {
            "json": {"to": callers.address(), "subject": "s", "textContent": "t", "category": "system"}
        },
        ("POST", "/api/suppressions"): {"json": {"address": callers.address()}},
        ("DELETE", "/api/suppressions"): {"params": {"address": callers.address()}},
        ("PUT", "/api/providers/{name}/off"): {"json": {"why": "the matrix"}},
        ("PUT", "/api/providers/pins/{what}"): {"json": {"provider": "ses", "why": "the matrix"}},
        ("POST", "/api/parked/{parked_id}/discard"): {"json": {"reason": "the matrix"}},
        ("POST", "/api/files/upload-url"): {
            "json": {"fileName": "a.pdf", "contentType": "application/pdf", "category": "document"}
        },
        ("POST", "/api/files/parts"): {"json": {"uploadToken": subject, "partNumbers": [1]}},
        ("POST", "/api/files/parts/list"): {"json": {"uploadToken": subject}},
        ("POST", "/api/files/abort"): {"json": {"uploadToken": subject}},
        ("POST", "/api/files/upload-complete"): {"json": {"fileId": subject, "actualSize": len(PDF)}},
        ("POST", "/api/files/batch"): {"json": {"action": "delete", "fileIds": [uuid7()]}},
        ("PATCH", "/api/files/{file_id}"): {"json": {"tags": ["a"]}},
        ("POST", "/unsubscribe/{token}"): {"data": {"List-Unsubscribe": "One-Click"}},
    }
    more |= given.get((row.method, row.route), {})
    return await callers.http.request(row.method, url, headers=headers, **more)


async def subject_of(callers: Callers, row: Row) -> str:
    """Whatever of ann's the row is about."""
    if "{message_id}" in row.route:
        return await owned(callers)
    door = FilesDoor(callers.http, callers.token("ann", *UPLOADER))
    if row.route in ("/api/files/parts", "/api/files/parts/list", "/api/files/abort"):
        wish = {"fileName": "a.pdf", "contentType": "application/pdf", "category": "document", "size": len(PDF)}
        asked = await door.call("POST", "/api/files/upload-url", 201, json={**wish, "method": "multipart"})
        return str(asked["uploadToken"])
    if row.route.endswith("/public"):
        public = FileCase("the matrix", "completed", "me.png", "image/png", "avatar", PNG, is_public=True)
        return await uploaded(door, public)
    if "{file_id}" in row.route or row.route.endswith("/upload-complete"):
        return await uploaded(door, FileCase("the matrix", "completed"))
    return ""


async def uploaded(door: FilesDoor, case: FileCase) -> str:
    """A file that is all that it should be, in the read model too; its id."""
    await door.play(case)
    await door.settled(case, PATIENCE, lambda: None)
    assert case.differences == []
    return case.file_id


async def owned(callers: Callers) -> str:
    """A mail of ann's that can still be stopped."""
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    message_id = await callers.send("ann", sendAt=later)
    await callers.becomes(message_id, "queued")
    return message_id


@cache
def somebodys_key() -> rsa.RSAPrivateKey:
    """A key that nobody trusts; making one takes a moment."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def bad_tokens(callers: Callers) -> dict[str, str | None]:
    """Authorization headers that nobody may come in with, whatever they claim; None = no header."""
    secret = callers.stack.env()["MAILROOM_JWT_SECRET"]
    good: dict[str, Any] = {
        "sub": callers.name("ann"),
        "role": "admin",
        "scope": " ".join(OPERATOR),
        "exp": int(time.time()) + 600,
    }

    def bearer(key: Any = secret, algorithm: str | None = "HS256", without: str = "", **claims: Any) -> str:
        wanted = {name: value for name, value in {**good, **claims}.items() if name != without}
        return f"Bearer {jwt.encode(wanted, key, algorithm=algorithm)}"

    head, payload, _ = bearer().removeprefix("Bearer ").split(".")
    return {
        "none": None,
        "empty": "Bearer",
        "garbage": "Bearer nonsense",
        "another scheme": "Basic YW5uOnNlY3JldA==",
        "expired": bearer(exp=int(time.time()) - 60),
        "not valid yet": bearer(nbf=int(time.time()) + 60),
        "another secret": bearer("x" * 40),
        "no signature": f"Bearer {head}.{payload}.",
        "algorithm none": bearer(None, "none"),
        "another HMAC": bearer(algorithm="HS512"),
        "RSA": bearer(somebodys_key(), "RS256"),
        **{f"without {claim}": bearer(without=claim) for claim in good},
        "unknown role": bearer(role="root"),
        "scope as a list": bearer(scope=list(OPERATOR)),
        "a number as sub": bearer(sub=7),
    }


async def test_the_table_has_every_route_and_no_other(callers: Callers) -> None:
    found = set()
    for service in ("email", "files", "events"):
        document = (await callers.http.get(f"{callers.stack.site.url(service)}/openapi.json")).json()
        found |= {
            (service, method.upper(), path) for path, operations in document["paths"].items() for method in operations
        }
    assert found == {(row.service, row.method, row.route) for row in MATRIX}


async def test_the_document_names_the_scope_of_every_route(callers: Callers) -> None:
    for service in ("email", "files", "events"):
        document = (await callers.http.get(f"{callers.stack.site.url(service)}/openapi.json")).json()
        for row in (row for row in MATRIX if row.service == service):
            operation = document["paths"][row.route][row.method.lower()]
            assert operation.get("security", []) == ([{"token": [row.scope]}] if row.scope else []), row


@pytest.mark.parametrize("row", MATRIX, ids=lambda row: f"{row.method} {row.route}")
async def test_every_route_lets_in_whom_it_should(callers: Callers, row: Row) -> None:
    subject = await subject_of(callers, row)
    if row.scope is None:
        tokens = {name: {"Authorization": header} for name, header in bad_tokens(callers).items() if header is not None}
        known_ones = {"bob": callers.as_("bob", *OPERATOR), "root": callers.as_("root", *OPERATOR, role="admin")}
        for name, headers in {"nobody": {}, **tokens, **known_ones}.items():
            assert (name, (await call(callers, row, headers, subject)).status_code) == (name, row.allowed.owner)
        return

    async def refuses(name: str, header: str | None) -> None:
        answer = await call(callers, row, {} if header is None else {"Authorization": header}, subject)
        assert (name, answer.status_code) == (name, 401)
        refused(answer, 401)
        assert answer.headers["WWW-Authenticate"] == "Bearer"

    await asyncio.gather(*(refuses(name, header) for name, header in bad_tokens(callers).items()))
    others = [scope for scope in OPERATOR if scope != row.scope]
    roles: tuple[Role, ...] = ("user", "service", "admin")

    async def lacks(role: Role, *scopes: str) -> None:
        answer = await call(callers, row, callers.as_("ann", *scopes, role=role), subject)
        assert (role, scopes, answer.status_code) == (role, scopes, 403)
        assert refused(answer, 403)["details"] == [{"missingScope": row.scope}]

    near = (others, ["email"], [row.scope.upper()], [f"{row.scope}x"])
    await asyncio.gather(*(lacks(role, *scopes) for role in roles for scopes in near))
    known: list[tuple[str, Role, int]] = [
        ("bob", "user", row.allowed.stranger),
        ("bob", "service", row.allowed.service),
        ("root", "admin", row.allowed.admin),
        ("ann", "user", row.allowed.owner),
        ("ann", "service", row.allowed.owner),
        ("ann", "admin", row.allowed.owner),
    ]
    for who, role, expected in known:
        if row.method == "DELETE" and row.route.startswith("/api/email") and expected == 202:
            subject = await owned(callers)  # stopping it a second time would be 409
        answer = await call(callers, row, callers.as_(who, row.scope, role=role), subject)
        assert (who, role, answer.status_code) == (who, role, expected), answer.text


async def test_a_file_that_is_not_public_is_public_to_nobody(callers: Callers) -> None:
    (row,) = (row for row in MATRIX if row.route.endswith("/public"))
    door = FilesDoor(callers.http, callers.token("ann", *UPLOADER))
    private = await uploaded(door, FileCase("kept", "completed", "me.png", "image/png", "avatar", PNG))
    admin = callers.as_("root", *OPERATOR, role="admin")
    for headers in ({}, callers.as_("ann", *UPLOADER), callers.as_("bob", *UPLOADER), admin):
        refused(await call(callers, row, headers, private), 404)


async def test_an_upload_in_parts_that_ended_is_still_nobody_elses(callers: Callers) -> None:
    (abort,) = (row for row in MATRIX if row.route.endswith("/abort"))
    token = await subject_of(callers, abort)
    for scopes in (("files:create",), OPERATOR):
        refused(await call(callers, abort, callers.as_("bob", *scopes), token), 404)
    assert data(await call(callers, abort, callers.as_("ann", *UPLOADER), token))["status"] == "failed"
    (parts,) = (row for row in MATRIX if row.route.endswith("/parts"))
    refused(await call(callers, parts, callers.as_("bob", *UPLOADER), token), 404)
    refused(await call(callers, parts, callers.as_("ann", *UPLOADER), token), 409)


async def test_a_body_grows_the_process_by_no_more_than_its_bytes(callers: Callers) -> None:
    """Parsed, these 24 MB would be 700 MB of objects; the process has 768 MB in Compose."""
    child = callers.stack.child("email")
    assert child is not None
    flood = b"[" + b"[]," * 8_000_000 + b"[]]"
    url = callers.stack.site.url("email") + "/api/email"
    for headers, status, most in (({}, 401, 30), (callers.as_("ann"), 400, 150)):
        Path(f"/proc/{child.pid}/clear_refs").write_text("5")  # the peak is what it has now
        before = child.memory_mb()
        answer = await callers.http.post(url, content=flood, headers={"Content-Type": "application/json", **headers})
        refused(answer, status)
        assert _peak_mb(child.pid) - before < most


def _peak_mb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) // 1024


async def test_a_list_holds_what_its_reader_may_see(callers: Callers) -> None:
    message_id = await owned(callers)
    found = {}
    reader: tuple[tuple[str, Role], ...] = (("ann", "user"), ("bob", "user"), ("bob", "service"), ("root", "admin"))
    for who, role in reader:
        listed = data(await callers.get("/api/email", who, role=role, userId=callers.name("ann")))
        found[who, role] = [each["messageId"] for each in listed["emails"]]
    assert found == {
        ("ann", "user"): [message_id],
        ("bob", "user"): [],
        ("bob", "service"): [],
        ("root", "admin"): [message_id],
    }


async def test_no_route_has_a_method_beyond_the_table(callers: Callers) -> None:
    headers = callers.as_("root", *OPERATOR, role="admin")
    for service, route in sorted({(row.service, row.route) for row in MATRIX}):
        known = {row.method for row in MATRIX if (row.service, row.route) == (service, route)}
        for method in sorted(set(METHODS) - known):
            answer = await call(callers, Row(service, method, route, None, NAMED_NOTHING), headers, uuid7())
            status = 400 if _names_a_file(method, route) else 405
            assert (method, route, answer.status_code) == (method, route, status)
            assert refused(answer, status)


def _names_a_file(method: str, route: str) -> bool:
    """To DELETE or PATCH `/api/files/parts` is to ask for a file of that name, which is no fileId."""
    named = route.startswith("/api/files/") and route.count("/") == 3 and "{" not in route
    return named and method in ("DELETE", "PATCH")


@pytest.mark.parametrize("service", ["email", "files", "events"])
async def test_what_is_open_to_all_is_that_and_nothing_personal(callers: Callers, service: str) -> None:
    to = callers.address()
    await callers.becomes(await callers.send(to=to), "delivered")
    for path in OPEN_TO_ALL:
        answer = await callers.http.get(callers.stack.site.url(service) + path)
        assert (path, answer.status_code) == (path, 200)
        assert callers.run not in answer.text, f"{path} tells of a mail or of its sender"
