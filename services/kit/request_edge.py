"""What happens to every HTTP request before any route sees it, and to every answer after.

Ids in and out, headers that protect browsers, a line in the access log, metrics, a span, and 500
without internals for what nobody expected. Plain ASGI, so that streams of events pass untouched.
"""

import re
from dataclasses import dataclass
from time import perf_counter

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.kit.answers import refuse
from services.kit.clock import Ids
from services.kit.errors import ApiError, InvalidRequest
from services.kit.logs import bind_ids, get_logger
from services.kit.metrics import HTTP_IN_FLIGHT, HTTP_REQUESTS, HTTP_SECONDS, Metrics
from services.kit.tracing import TRACEPARENT, Tracing

log = get_logger(__name__)

REQUEST_ID = "x-request-id"
CORRELATION_ID = "x-correlation-id"

PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked every few seconds by machines; logged at debug only."""

_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_CLIENT_GONE = 499
_PROTECTION = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
}
"""Set where a route has not set its own (OWASP REST Security Cheat Sheet)."""


@dataclass(slots=True)
class _Exchange:
    """One request and what is known of its answer."""

    scope: Scope
    request_id: str
    correlation_id: str
    status: int = 0

    @property
    def method(self) -> str:
        method = str(self.scope["method"])
        return method if method in _METHODS else "other"

    @property
    def route(self) -> str:
        """The route's template and never the path, which may hold ids and signed tokens."""
        return str(getattr(self.scope.get("route"), "path", None) or "unmatched")


class RequestEdge:
    """ASGI middleware around the whole application."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        service: str,
        metrics: Metrics,
        tracing: Tracing,
        ids: Ids,
    ) -> None:
        self._app = app
        self._service = service
        self._metrics = metrics
        self._tracing = tracing
        self._ids = ids

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = _given(headers, REQUEST_ID) or self._ids.new()
        exchange = _Exchange(scope, request_id, _given(headers, CORRELATION_ID) or request_id)
        scope.setdefault("state", {})["correlation_id"] = exchange.correlation_id
        started = perf_counter()
        self._metrics.add(HTTP_IN_FLIGHT, 1, service=self._service)
        try:
            with (
                bind_ids(exchange.correlation_id),
                self._tracing.span(f"HTTP {exchange.method}", parent=headers.get(TRACEPARENT), kind="server"),
            ):
                await self._answer(exchange, headers, receive, send)
                self._tell(exchange, perf_counter() - started)
        finally:
            self._metrics.add(HTTP_IN_FLIGHT, -1, service=self._service)

    async def _answer(self, exchange: _Exchange, headers: Headers, receive: Receive, send: Send) -> None:
        protected = self._protected(exchange, send)
        problem = self._refused_at_once(exchange.scope, headers)
        if problem is not None:
            await refuse(problem)(exchange.scope, receive, protected)
            return
        try:
            await self._app(exchange.scope, receive, protected)
        except ClientDisconnect:
            exchange.status = _CLIENT_GONE
        except Exception:
            log.exception("unexpected error in a request", route=exchange.route, request_id=exchange.request_id)
            if exchange.status:  # the answer has begun: cut it off, so that nobody takes it for whole
                raise
            error = ApiError(500, f"Something went wrong here. It is in the log under {exchange.request_id}.")
            await refuse(error)(exchange.scope, receive, protected)

    def _refused_at_once(self, scope: Scope, headers: Headers) -> ApiError | None:
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit():
            return InvalidRequest("Content-Length is not a number.")
        if b"%00" in scope.get("raw_path", b"") or b"%00" in scope["query_string"]:
            return InvalidRequest("The address holds a NUL character.")
        return None

    def _protected(self, exchange: _Exchange, send: Send) -> Send:
        async def protected(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID] = exchange.request_id
                headers[CORRELATION_ID] = exchange.correlation_id
                for name, value in _PROTECTION.items():
                    headers.setdefault(name, value)
            await send(message)

        return protected

    def _tell(self, exchange: _Exchange, seconds: float) -> None:
        labels = {"service": self._service, "method": exchange.method, "route": exchange.route}
        self._metrics.inc(HTTP_REQUESTS, 1, status=str(exchange.status), **labels)
        self._metrics.observe(HTTP_SECONDS, seconds, **labels)
        tell = log.debug if exchange.route in PROBES else log.info
        tell(
            "request",
            method=exchange.method,
            route=exchange.route,
            status=exchange.status,
            ms=round(seconds * 1000, 1),
            request_id=exchange.request_id,
        )


def _given(headers: Headers, name: str) -> str | None:
    """An id that the caller gave, if it is one."""
    value = headers.get(name)
    return value if value and _ID.fullmatch(value) else None
