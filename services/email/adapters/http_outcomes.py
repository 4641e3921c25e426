"""What a call over httpx says about its request having left this machine; for all providers that have an HTTP API.

A repeated call is a second mail, so the client never retries and follows no redirect, and only a failure before the
connection stood counts as a refusal. Sources: httpcore's `connection`, `http_proxy` and `anyio` backend for where each
exception is raised; RFC 9110 for statuses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from services.email.domain.outcomes import Rejected, Unknown

CONNECT_SECONDS = 2.0
"""A connection that does not stand after this will not."""

KEPT_SECONDS = 4.0
"""How long an idle connection is kept: one that the server has just closed costs a mail its answer."""

NEVER_LEFT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)
"""Raised before a connection to the provider stands: DNS, TCP, TLS, a proxy that refuses CONNECT, no free connection, a
URL without http or https. Every other exception may come after the request was read."""

REFUSED_ON_THE_WAY = frozenset({403, 407, 421})
"""Statuses by which a proxy says that it does not pass a request on (RFC 9110 §15.5.4, §15.5.8, §15.5.20)."""

LONGEST_WAIT = 3600.0
"""Seconds. A provider that asks for more is asked again after this."""


def http_client(*, call_limit: float = 10.0, connections: int = 64) -> httpx.AsyncClient:
    """A client for sends, to be entered with `async with`: HTTP/1.1, no retries, no redirects.

    `call_limit`: seconds without any progress until a call is given up. httpx knows no limit for a whole call: the
    sender has one.
    """
    return httpx.AsyncClient(
        http1=True,
        http2=False,
        follow_redirects=False,
        timeout=httpx.Timeout(call_limit, connect=CONNECT_SECONDS, pool=CONNECT_SECONDS),
        limits=httpx.Limits(
            max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=KEPT_SECONDS
        ),
    )


async def post(
    client: httpx.AsyncClient,
    url: str,
    *,
    provider: str,
    auth: tuple[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    content: bytes | None = None,
    data: Mapping[str, str] | None = None,
    files: Sequence[tuple[str, tuple[str, bytes, str]]] | None = None,
) -> httpx.Response | Rejected | Unknown:
    """One POST. The answer, whatever it is, or what its absence says. Raises nothing but CancelledError."""
    given: Any = auth if auth is not None else httpx.USE_CLIENT_DEFAULT
    try:
        return await client.post(
            url, headers=headers, content=content, data=data, files=files, auth=given, follow_redirects=False
        )
    except NEVER_LEFT as error:
        return Rejected("connectionFailed", f"no connection to {provider} ({type(error).__name__})", "unreachable")
    except Exception as error:  # noqa: BLE001 - whatever it is, the request may have left
        return Unknown(type(error).__name__)


def json_of(answer: httpx.Response) -> Any:
    """The body as JSON; None where it is none."""
    try:
        return answer.json()
    except (ValueError, RecursionError):
        return None


def bounded_wait(seconds: float | None) -> float | None:
    """A wait that a provider asks for, between nothing and `LONGEST_WAIT`."""
    return None if seconds is None else min(max(seconds, 0.0), LONGEST_WAIT)
