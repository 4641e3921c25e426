"""What a failed call says about its request having left this machine."""

from __future__ import annotations

import httpx
import pytest

from services.email.adapters.http_outcomes import http_client, post
from services.email.domain.outcomes import Rejected, Unknown

URL = "https://api.provider.example/send"


async def outcome_of(error: Exception) -> httpx.Response | Rejected | Unknown:
    def fail(request: httpx.Request) -> httpx.Response:
        raise error

    async with httpx.AsyncClient(transport=httpx.MockTransport(fail)) as client:
        return await post(client, URL, provider="Provider", content=b"mail")


@pytest.mark.parametrize(
    "error", [httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError, httpx.UnsupportedProtocol]
)
async def test_a_connection_that_never_stood_is_a_refusal(error: type[httpx.TransportError]) -> None:
    outcome = await outcome_of(error("x"))
    assert isinstance(outcome, Rejected)
    assert (outcome.kind, outcome.code) == ("unreachable", "connectionFailed")


@pytest.mark.parametrize(
    "error",
    [
        httpx.ReadError("x"),
        httpx.ReadTimeout("x"),
        httpx.WriteError("x"),
        httpx.WriteTimeout("x"),
        httpx.CloseError("x"),
        httpx.RemoteProtocolError("Server disconnected without sending a response."),
        httpx.LocalProtocolError("x"),
        httpx.DecodingError("x"),
        httpx.TransportError("x"),
        OSError("x"),
        RuntimeError("x"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_whatever_may_come_after_the_request_was_read_is_unknown(error: Exception) -> None:
    assert isinstance(await outcome_of(error), Unknown)


async def test_a_redirect_is_an_answer_and_not_followed() -> None:
    asked: list[str] = []

    def redirect(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(307, headers={"Location": "https://elsewhere.example/send"})

    async with httpx.AsyncClient(transport=httpx.MockTransport(redirect), follow_redirects=True) as client:
        answer = await post(client, URL, provider="Provider", content=b"mail")
    assert isinstance(answer, httpx.Response)
    assert answer.status_code == 307
    assert asked == [URL]


async def test_the_client_has_a_limit_for_every_phase_and_follows_nothing() -> None:
    async with http_client(call_limit=7.0) as client:
        assert (client.timeout.read, client.timeout.write) == (7.0, 7.0)
        assert client.timeout.connect is not None
        assert client.timeout.pool is not None
        assert client.follow_redirects is False
