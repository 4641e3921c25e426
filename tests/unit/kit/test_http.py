"""What every route gets for nothing: the envelope, limits, ids, headers, metrics, logs, and no internals outside."""

import re
from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, Field
from starlette.types import Message

from services.kit.answers import Answer
from services.kit.auth import Authenticator, Principal, SecretVerifier, anybody, mint_token, require
from services.kit.bodies import body_limit
from services.kit.errors import Conflict, ExpectedVersionConflict, ServiceUnavailable, TransientError, Unavailable
from services.kit.health import Health, Report
from services.kit.http import IdempotencyKey, correlation_id, create_app, router
from services.kit.metrics import HTTP_IN_FLIGHT, HTTP_REQUESTS, Metrics
from services.kit.testing import FakeClock, FakeIds, captured_logs
from services.kit.tracing import current_traceparent

SECRET = "s" * 32
AUTH = {"authorization": f"Bearer {mint_token(SECRET, 'u1', ['things:create'])}"}
JSON = {"content-type": "application/json"}
PERSON = "alice@example.com"


class Thing(BaseModel):
    name: str
    size: int = Field(ge=1)
    parts: list[dict[str, int]] = []


things = router("/api")
OPEN = [Depends(anybody)]


@things.post("/things/{thing_id}", status_code=202)
@body_limit(2000)
async def create(
    thing_id: str,
    thing: Thing,
    request: Request,
    principal: Annotated[Principal, Depends(require("things:create"))],
    key: IdempotencyKey = None,
) -> Answer[dict[str, Any]]:
    seen = {"by": principal.user_id, "name": thing.name, "key": key, "correlation": correlation_id(request)}
    return Answer(data=seen | {"trace": current_traceparent()})


FAILURES: dict[str, Exception] = {
    "conflict": Conflict("Already there.", [{"id": "t1"}]),
    "unavailable": Unavailable("Kafka", f"10.0.0.1:9092 refused for {PERSON}", retry_after=2.2),
    "transient": TransientError(f"try again {PERSON}"),
    "version": ExpectedVersionConflict("t1", 3),
    "maybe": ServiceUnavailable("Outcome unknown: repeat.", details=[{"messageId": "m1"}]),
    "bug": RuntimeError(f"secret internals of {PERSON}"),
}


@things.get("/fail/{how}", dependencies=OPEN)
async def fail(how: str, limit: Annotated[int, Query(le=100)] = 10) -> Answer[int]:
    raise FAILURES[how]


@things.get("/unsubscribe/{token}", dependencies=OPEN)
async def unsubscribe(token: str) -> Answer[str]:
    return Answer(data="ok")


class Site:
    """The application and what it leaves behind."""

    def __init__(self, **options: Any) -> None:
        self.metrics = Metrics()
        self.health = Health(FakeClock())
        self.app = create_app(
            title="Things",
            service="things",
            version="1",
            authenticator=Authenticator(SecretVerifier(SECRET)),
            health=self.health,
            metrics=self.metrics,
            **{"routers": [things], "ids": FakeIds(), **options},
        )
        transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://mailroom")

    async def post(self, body: Any = None, *, content: Any = None, **headers: str) -> httpx.Response:
        kind = {} if content is None or "content-type" in headers else JSON
        return await self.client.post("/api/things/t1", json=body, content=content, headers=AUTH | kind | headers)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site()
    async with site.client:
        yield site


def details(answer: httpx.Response) -> dict[str, str]:
    body = answer.json()
    assert body["success"] is False
    assert isinstance(body["error"], str)
    return {detail["field"]: detail["message"] for detail in body["details"]}


async def test_success_is_in_the_envelope(site: Site) -> None:
    answer = await site.post({"name": "é 💌", "size": 1}, **{"Idempotency-Key": "k1"})
    assert answer.status_code == 202
    assert answer.json() == {
        "success": True,
        "data": {"by": "u1", "name": "é 💌", "key": "k1", "correlation": FakeIds.nth(1), "trace": None},
    }


async def test_every_wrong_field_is_listed(site: Site) -> None:
    answer = await site.post({"size": 0, "parts": [{"a": 1}, {"b": PERSON}]}, **{"Idempotency-Key": "with space"})
    assert answer.status_code == 400
    assert set(details(answer)) == {"name", "size", "parts[1].b", "Idempotency-Key"}
    assert PERSON not in answer.text


async def test_the_error_names_the_first_problem(site: Site) -> None:
    one = await site.post({"name": "a", "size": 0})
    assert one.json()["error"] == "size: Input should be greater than or equal to 1."
    two = await site.post({"size": 0, "parts": []})
    assert two.json()["error"] == "name: Field required (and 1 more problem)."
    assert "omittedDetails" not in two.json()


async def test_of_many_problems_the_first_hundred_are_told(site: Site) -> None:
    answer = await site.post(content=b'{"name": "a", "size": 1, "parts": [' + b"0," * 499 + b"0]}")
    assert (len(answer.json()["details"]), answer.json()["omittedDetails"]) == (100, 400)
    assert answer.json()["error"].endswith("(and 499 more problems).")


async def test_a_name_that_the_caller_made_up_is_told_shortened(site: Site) -> None:
    answer = await site.post({"name": "a", "size": 1, "parts": [{"x" * 1500: "y"}]})
    assert answer.json()["details"][0]["field"] == "parts[0]." + "x" * 191 + "…"


async def test_a_wrong_parameter_says_where_it_stands(site: Site) -> None:
    answer = await site.client.get("/api/fail/bug?limit=1000")
    assert answer.status_code == 400
    assert answer.json()["details"][0] | {"message": ""} == {"field": "limit", "in": "query", "message": ""}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "Field required"),
        (b"{", "not valid JSON"),
        (b'{"name": "a", "size": NaN}', "not valid JSON"),
        (b'{"name": "\\ud800", "size": 1}', "not valid JSON"),
        (b'{"name": "\xff", "size": 1}', "not valid JSON"),
        (b"[" * 1900, "not valid JSON"),
        (b'{"name": "a\\u0000", "size": 1}', "NUL"),
        (b'{"name": "\\\\\\u0000", "size": 1}', "NUL"),
        (b"[]", "valid dictionary"),
        (b"null", "valid dictionary"),
    ],
)
async def test_bodies_that_are_no_good(site: Site, content: bytes, told: str) -> None:
    answer = await site.post(content=content)
    assert answer.status_code == 400
    assert told in details(answer)["body"]


async def test_a_backslash_before_u0000_is_no_nul(site: Site) -> None:
    assert (await site.post(content=b'{"name": "\\\\u0000", "size": 1}')).status_code == 202


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/octet-stream"])
async def test_other_media_types(site: Site, kind: str) -> None:
    answer = await site.post(content=b'{"name": "a", "size": 1}', **{"content-type": kind})
    assert (answer.status_code, answer.json()["success"]) == (415, False)


async def _chunks() -> AsyncIterator[bytes]:
    for _ in range(5):
        yield b" " * 1000


async def test_a_body_too_large_announced_or_not(site: Site) -> None:
    announced = await site.post({"name": "a" * 3000, "size": 1})
    streamed = await site.post(content=_chunks())
    for answer in (announced, streamed):
        assert (answer.status_code, answer.json()["error"]) == (413, "The body is larger than 2000 bytes.")


def _a_byte() -> bytes:
    raise AssertionError("a byte of the body was read")


async def _untouched() -> AsyncIterator[bytes]:
    yield _a_byte()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer nonsense"}, 401),
        ({"authorization": f"Bearer {mint_token(SECRET, 'u1', ['things:read'])}"}, 403),
        (AUTH | {"content-length": "2001"}, 413),
        (AUTH | {"content-length": "many"}, 400),
    ],
)
async def test_who_may_not_send_a_body_is_told_before_a_byte_of_it_is_read(
    site: Site, headers: dict[str, str], status: int
) -> None:
    answer = await site.client.post("/api/things/t1", content=_untouched(), headers=JSON | headers)
    assert (answer.status_code, answer.json()["success"]) == (status, False)


async def test_a_token_is_verified_once_for_a_request(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    verified: list[str] = []
    verify = SecretVerifier.verify

    async def counting(self: SecretVerifier, token: str) -> Principal:
        verified.append(token)
        return await verify(self, token)

    monkeypatch.setattr(SecretVerifier, "verify", counting)
    assert (await site.post({"name": "a", "size": 1})).status_code == 202
    assert len(verified) == 1


async def test_a_caller_who_leaves_in_the_middle_of_a_body_has_sent_nothing_wrong(site: Site) -> None:
    messages: list[Message] = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]

    async def receive() -> Message:
        return messages.pop(0)

    async def send(_: Message) -> None:
        raise AssertionError("nobody is there to answer")

    headers = [(name.encode(), value.encode()) for name, value in (AUTH | JSON).items()]
    path = "/api/things/t1"
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": headers,
    }
    await site.app(scope, receive, send)
    assert (
        site.metrics.value(HTTP_REQUESTS, service="things", method="POST", route="/api/things/{thing_id}", status="499")
        == 1
    )


async def test_unknown_paths_and_methods(site: Site) -> None:
    missing = await site.client.get("/nowhere")
    assert (missing.status_code, missing.json()["success"]) == (404, False)
    method = await site.client.put("/api/things/t1")
    assert (method.status_code, method.json()["success"], method.headers["allow"]) == (405, False, "POST")
    assert (await site.client.get("/api/fail/%00")).status_code == 400
    assert (await site.client.get("/api/fail/x?q=%00")).status_code == 400


@pytest.mark.parametrize(
    ("how", "status", "retry_after"),
    [
        ("conflict", 409, None),
        ("unavailable", 503, "3"),
        ("transient", 503, "5"),
        ("version", 503, "1"),
        ("maybe", 503, "5"),
        ("bug", 500, None),
    ],
)
async def test_errors_become_answers_without_internals(
    site: Site, how: str, status: int, retry_after: str | None
) -> None:
    with captured_logs() as captured:
        answer = await site.client.get(f"/api/fail/{how}")
    assert (answer.status_code, answer.headers.get("retry-after")) == (status, retry_after)
    assert answer.json()["success"] is False
    for inside in (PERSON, "10.0.0.1", "internals", "Traceback"):
        assert inside not in answer.text
    assert PERSON not in captured.text
    if how == "maybe":
        assert answer.json()["details"] == [{"messageId": "m1"}]


async def test_a_bug_is_found_in_the_log_by_the_id_in_the_answer(site: Site) -> None:
    with captured_logs() as captured:
        answer = await site.client.get("/api/fail/bug")
    (event,) = captured.named("unexpected error in a request")
    assert event["request_id"] == answer.headers["x-request-id"]
    assert event["request_id"] in answer.json()["error"]
    assert "RuntimeError" in event["exception"]


async def test_ids_go_in_and_out(site: Site) -> None:
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    with captured_logs() as captured:
        answer = await site.post(
            {"name": "a", "size": 1}, **{"X-Correlation-Id": "c1", "X-Request-Id": "r1", "traceparent": trace}
        )
    assert (answer.headers["x-correlation-id"], answer.headers["x-request-id"]) == ("c1", "r1")
    assert answer.json()["data"]["correlation"] == "c1"
    assert answer.json()["data"]["trace"] == trace
    assert captured.named("request")[0]["correlation_id"] == "c1"


@pytest.mark.parametrize("bad", ["a b", "x" * 129, "é".encode().decode("latin-1"), "a@b.de"])
async def test_ids_that_are_none_are_replaced(site: Site, bad: str) -> None:
    answer = await site.client.get("/nowhere", headers=[(b"X-Request-Id", bad.encode("latin-1"))])
    assert answer.headers["x-request-id"] == FakeIds.nth(1)


async def test_scopes(site: Site) -> None:
    body = {"name": "a", "size": 1}
    assert (await site.post(body, authorization="")).status_code == 401
    poor = mint_token(SECRET, "u1", ["things:read"])
    answer = await site.post(body, authorization=f"Bearer {poor}")
    assert (answer.status_code, answer.json()["details"]) == (403, [{"missingScope": "things:create"}])


async def test_the_access_log_has_no_path_query_or_caller(site: Site) -> None:
    with captured_logs() as captured:
        await site.client.get(
            f"/api/unsubscribe/signed-token?email={PERSON}", headers={"user-agent": "Browser of Alice"}
        )
    (event,) = captured.named("request")
    assert (event["route"], event["status"], event["method"]) == ("/api/unsubscribe/{token}", 200, "GET")
    for private in ("signed-token", PERSON, "example.com", "Alice"):
        assert private not in captured.text


async def test_metrics_count_by_route(site: Site) -> None:
    await site.client.get("/api/unsubscribe/one")
    await site.client.get("/api/unsubscribe/two")
    await site.client.get("/nowhere/alice")
    known = {"service": "things", "method": "GET"}
    assert site.metrics.value(HTTP_REQUESTS, route="/api/unsubscribe/{token}", status="200", **known) == 2
    assert site.metrics.value(HTTP_REQUESTS, route="unmatched", status="404", **known) == 1
    assert site.metrics.value(HTTP_IN_FLIGHT, service="things") == 0
    rendered = await site.client.get("/metrics")
    assert b"mailroom_http_requests_total" in rendered.content


async def test_browsers_are_protected(site: Site) -> None:
    for path in ("/nowhere", "/api/fail/bug", "/healthz"):
        headers = (await site.client.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]


async def test_the_docs_load_everything_from_here(site: Site) -> None:
    page = await site.client.get("/docs")
    assert "script-src 'self';" in page.headers["content-security-policy"]
    loaded = re.findall(r'(?:src|stylesheet" href)="([^"]+)"', page.text)
    assert len(loaded) == 3
    for name in loaded:
        file = await site.client.get(f"/{name}")
        assert file.status_code == 200, name
        assert file.headers["content-type"].startswith(("text/css", "text/javascript"))
        assert file.headers["cache-control"] == "public, max-age=3600"
    assert "://" not in page.text


async def test_cors_is_off_unless_set() -> None:
    ask = {"origin": "https://crm.example", "access-control-request-method": "POST"}
    closed, opened = Site(), Site(cors_origins=["https://crm.example"])
    async with closed.client, opened.client:
        assert "access-control-allow-origin" not in (await closed.client.options("/api/things/t1", headers=ask)).headers
        allowed = await opened.client.options("/api/things/t1", headers=ask)
        assert allowed.headers["access-control-allow-origin"] == "https://crm.example"
        assert "access-control-allow-credentials" not in allowed.headers
        stranger = await opened.client.options("/api/things/t1", headers=ask | {"origin": "https://evil.example"})
        assert "access-control-allow-origin" not in stranger.headers


async def test_health_and_readiness(site: Site) -> None:
    async def away() -> None:
        raise Unavailable("Kafka", "no answer")

    assert (await site.client.get("/healthz")).status_code == 200
    assert (await site.client.get("/readyz")).status_code == 200
    site.health.depends_on("Kafka", away)
    site.health.drain()
    assert (await site.client.get("/healthz")).status_code == 200
    assert (await site.client.get("/readyz")).status_code == 503
    site.health.watch("loop", lambda: Report(False))
    assert (await site.client.get("/healthz")).status_code == 503


async def test_the_document_tells_our_answers(site: Site) -> None:
    document = (await site.client.get("/openapi.json")).json()
    responses = document["paths"]["/api/things/{thing_id}"]["post"]["responses"]
    assert {"202", "400", "401", "403", "413", "415", "503"} <= set(responses)
    assert "422" not in responses
    assert "/healthz" not in document["paths"]


def test_a_router_that_reads_json_loosely_is_refused() -> None:
    with pytest.raises(ValueError, match=r"kit\.http\.router"):
        Site(routers=[APIRouter()])


def test_a_route_that_does_not_say_who_may_call_it_is_refused() -> None:
    with pytest.raises(ValueError, match="who may call this route"):

        @router("/api").post("/forgotten")
        async def forgotten(thing: Thing) -> None: ...


def test_a_route_whose_bodies_could_never_be_taken_is_refused() -> None:
    with pytest.raises(ValueError, match="above 1600 bytes"):
        Site(body_bytes_in_flight=2000)
