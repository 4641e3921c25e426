"""How many requests a process answers at a time. One more is refused at once, before any work is spent on it.

A process that takes on more than it can answer answers nobody: all wait, callers give up and ask again, and what is
done for them is done in vain. So a request beyond the bound gets 503 with `Retry-After` before its token is looked at,
its body is read or a line is logged. That costs a small part of what an answer costs, and leaves the rest to those that
were let in.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.kit.metrics import HTTP_SHED, Metrics
from services.kit.request_edge import PROBES

RETRY_SECONDS = 2

_BODY = (
    b'{"success":false,"error":"Too many requests are being answered: repeat after Retry-After seconds.","details":[]}'
)
_START: Message = {
    "type": "http.response.start",
    "status": 503,
    "headers": [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(_BODY)).encode()),
        (b"retry-after", str(RETRY_SECONDS).encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
    ],
}
_REST: Message = {"type": "http.response.body", "body": _BODY}


class Admission:
    """ASGI middleware around everything else. Probes and metrics always pass and do not count; a stream of events
    counts until it begins.
    """

    def __init__(self, app: ASGIApp, *, service: str, metrics: Metrics, most: int) -> None:
        """`most`: requests at a time."""
        self._app = app
        self._service = service
        self._metrics = metrics
        self._most = most
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
        elif self._in_flight >= self._most:
            self._metrics.inc(HTTP_SHED, service=self._service)
            await send(dict(_START))
            await send(_REST)
        else:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        counts = True

        def leave() -> None:
            nonlocal counts
            if counts:
                counts = False
                self._in_flight -= 1

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start" and _is_event_stream(message):
                leave()
            await send(message)

        self._in_flight += 1
        try:
            await self._app(scope, receive, watched)
        finally:
            leave()


def _is_event_stream(start: Message) -> bool:
    return any(
        name.lower() == b"content-type" and value.startswith(b"text/event-stream")
        for name, value in start.get("headers", ())
    )
