"""The gateway as the local stack and Compose run it, before servers that tell whom they see."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from deploy.local.site import HOST, throwaway_site
from deploy.local.stack import Stack
from services.kit.server import HttpServer

FORGED = {
    "X-Forwarded-For": "203.0.113.66, 127.0.0.1",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Proto": "https",
    "X-Real-IP": "203.0.113.66",
    "Forwarded": "for=203.0.113.66",
}
WAYS = {"email": "/api/suppressions", "events": "/api/projections", "files": "/api/files/upload-url"}
MORE = ("/api/webhooks/ses",)
"""Further paths that lead to a service."""


async def _seen(request: Request) -> JSONResponse:
    """The address of the caller, and the headers that speak of one."""
    names = {name.lower() for name in FORGED} & set(request.headers)
    assert request.client is not None
    return JSONResponse({"client": request.client.host, **{name: request.headers[name] for name in names}})


async def _weighed(request: Request) -> JSONResponse:
    """How many bytes came."""
    return JSONResponse(len(await request.body()))


SEEN = Starlette(
    routes=[
        Route("/api/email", _weighed, methods=["POST"]),
        Route("/{path:path}", _seen, methods=["GET", "POST"]),
    ]
)


@pytest_asyncio.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[str]:
    stack = Stack(throwaway_site(tmp_path, os.environ))
    servers = [HttpServer(SEEN, host=HOST, port=stack.site.ports[name], trusted_proxies=(HOST,)) for name in WAYS]
    for server in servers:
        await server.start()
    await asyncio.to_thread(stack.start, ["gateway"])
    try:
        yield stack.site.url("gateway")
    finally:
        await asyncio.to_thread(stack.stop)
        for server in servers:
            await server.stop(5)


@pytest.mark.parametrize("caller", ["127.0.0.77", "127.0.0.1"])
async def test_nobody_is_believed_about_where_they_call_from(gateway: str, caller: str) -> None:
    """The second caller is at the gateway's own address, which the services trust: what it says counts for nothing all
    the same, since the gateway sets the header and adds nothing to it.
    """
    transport = httpx.AsyncHTTPTransport(local_address=caller)
    async with httpx.AsyncClient(base_url=gateway, transport=transport, timeout=60) as http:
        for path in (*WAYS.values(), *MORE):
            seen = (await http.post(path, headers=FORGED)).json()
            assert seen["client"] == caller
            assert seen["x-forwarded-for"] == caller
            assert "203.0.113.66" not in str(seen)
            assert seen["x-forwarded-proto"] == "http"
            assert seen["x-forwarded-host"] != "evil.example"


@pytest.mark.long
async def test_a_body_may_take_longer_than_a_minute_while_it_comes(gateway: str) -> None:
    """The services bound its rate; the gateway gives up only what has stopped coming."""

    async def slowly() -> AsyncIterator[bytes]:
        for _ in range(70):
            yield b"x" * 1000
            await asyncio.sleep(1)

    async with httpx.AsyncClient(base_url=gateway, timeout=120) as http:
        answer = await http.post("/api/email", content=slowly(), headers={"content-length": "70000"})
    assert (answer.status_code, answer.json()) == (200, 70_000)
