"""More requests than a process answers at a time: the others are refused before anything is done for them."""

import asyncio
import json
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, Request
from fastapi.responses import StreamingResponse

from services.kit.answers import Answer
from services.kit.auth import Authenticator, Principal, SecretVerifier, anybody, mint_token, require
from services.kit.health import Health
from services.kit.http import create_app, router
from services.kit.metrics import HTTP_REQUESTS, HTTP_SHED, Metrics
from services.kit.testing import FakeClock, captured_logs

SECRET = "s" * 32
AUTH = {"authorization": f"Bearer {mint_token(SECRET, 'u1', ['things:create'])}"}
MOST = 3
PAGE = "https://crm.example"


class Site:
    """An application that answers when it is told to, and what it was asked."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.taken: list[str] = []
        self.go = asyncio.Event()
        routes = router("/api")

        @routes.post("/things", status_code=202)
        async def create(
            request: Request, caller: Annotated[Principal, Depends(require("things:create"))]
        ) -> Answer[str]:
            body = await request.json()
            self.taken.append(body["name"])
            await self.go.wait()
            return Answer(data=body["name"])

        @routes.get("/stream", dependencies=[Depends(anybody)])
        async def stream() -> StreamingResponse:
            async def events() -> Any:
                yield b"data: 1\n\n"
                await self.go.wait()

            return StreamingResponse(events(), media_type="text/event-stream; charset=utf-8")

        @routes.get("/breaks", dependencies=[Depends(anybody)])
        async def breaks() -> Answer[str]:
            raise RuntimeError("a bug")

        self.app = create_app(
            title="Things",
            service="things",
            version="1",
            authenticator=Authenticator(SecretVerifier(SECRET)),
            health=Health(FakeClock()),
            metrics=self.metrics,
            routers=[routes],
            requests_in_flight=MOST,
            cors_origins=[PAGE],
        )
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        self.http = httpx.AsyncClient(transport=transport, base_url="http://things")

    def post(self, name: str) -> "asyncio.Task[httpx.Response]":
        return asyncio.create_task(self.http.post("/api/things", json={"name": name}, headers=AUTH))

    async def full(self) -> "list[asyncio.Task[httpx.Response]]":
        """As many requests as are answered at a time."""
        posts = [self.post(f"first {n}") for n in range(MOST)]
        await until(lambda: len(self.taken) == MOST)
        return posts


async def until(condition: Any) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0)


@pytest.fixture
def site() -> Site:
    return Site()


async def test_one_more_is_refused_with_a_time_to_come_back_and_all_that_were_let_in_are_answered(site: Site) -> None:
    posts = await site.full()
    refused = [await site.http.post("/api/things", json={"name": f"more {n}"}, headers=AUTH) for n in range(20)]
    assert {answer.status_code for answer in refused} == {503}
    assert {answer.headers["retry-after"] for answer in refused} == {"2"}
    assert refused[0].json() == {
        "success": False,
        "error": "Too many requests are being answered: repeat after Retry-After seconds.",
        "details": [],
    }
    assert refused[0].headers["cache-control"] == "no-store"
    assert site.metrics.value(HTTP_SHED, service="things") == 20
    site.go.set()
    assert [(await post).status_code for post in posts] == [202] * MOST
    assert sorted(site.taken) == [f"first {n}" for n in range(MOST)], "nothing was done for the others"
    assert (await site.post("later")).status_code == 202


async def test_nothing_is_done_for_who_is_refused(site: Site) -> None:
    """Neither body nor token is looked at: an ASGI server has not even asked the caller for the body then."""
    posts = await site.full()
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("the body was read")

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/api/things", "headers": [(b"authorization", b"x")]}
    with captured_logs() as logs:
        await site.app(scope, receive, send)
    assert sent[0]["status"] == 503
    assert json.loads(sent[1]["body"])["success"] is False
    assert not logs.text
    labels = {"service": "things", "method": "POST", "route": "/api/things", "status": "503"}
    assert site.metrics.value(HTTP_REQUESTS, **labels) == 0
    site.go.set()
    await asyncio.gather(*posts)


async def test_a_page_of_another_origin_can_read_the_refusal(site: Site) -> None:
    posts = await site.full()
    preflight = {"origin": PAGE, "access-control-request-method": "POST"}
    assert (await site.http.options("/api/things", headers=preflight)).status_code == 200
    refused = await site.http.post("/api/things", json={}, headers=AUTH | {"origin": PAGE})
    assert refused.status_code == 503
    assert refused.headers["access-control-allow-origin"] == PAGE
    assert "Retry-After" in refused.headers["access-control-expose-headers"]
    site.go.set()
    await asyncio.gather(*posts)


async def test_probes_and_metrics_pass_however_many_there_are(site: Site) -> None:
    posts = await site.full()
    for path in ("/healthz", "/readyz", "/metrics"):
        assert (await site.http.get(path)).status_code == 200
    assert 'mailroom_http_shed_total{service="things"}' not in (await site.http.get("/metrics")).text
    site.go.set()
    await asyncio.gather(*posts)


async def test_streams_of_events_do_not_count_once_they_have_begun(site: Site) -> None:
    begun = 0

    async def listen() -> None:
        async def receive() -> Any:
            await site.go.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            nonlocal begun
            begun += message["type"] == "http.response.start"

        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "method": "GET",
            "path": "/api/stream",
            "raw_path": b"/api/stream",
            "query_string": b"",
            "headers": [],
        }
        await site.app(scope, receive, send)

    streams = []
    for n in range(MOST + 2):
        streams.append(asyncio.create_task(listen()))
        await until(lambda n=n: begun == n + 1)
    posts = await site.full()
    assert (await site.http.get("/api/stream")).status_code == 503
    site.go.set()
    assert {post.status_code for post in await asyncio.gather(*posts)} == {202}
    await asyncio.gather(*streams)


async def test_places_come_back_from_failures_and_from_callers_who_gave_up(site: Site) -> None:
    for _ in range(MOST + 1):
        assert (await site.http.get("/api/breaks")).status_code == 500
    for _ in range(2):
        posts = await site.full()
        for post in posts:
            post.cancel()
        await asyncio.gather(*posts, return_exceptions=True)
        site.taken.clear()
    site.go.set()
    assert (await site.post("later")).status_code == 202
