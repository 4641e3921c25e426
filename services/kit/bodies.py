"""Request bodies: how large one may be, how many bytes a process takes at once, how slowly they may come, and how
many values JSON may hold.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from starlette.requests import Request
from starlette.types import Message, Receive

from services.kit.clock import Clock
from services.kit.errors import ContentTooLarge, InvalidRequest, RequestTimeout, ServiceUnavailable
from services.kit.metrics import HTTP_BODY_BYTES, Metrics

SMALL = 64 * 1024
"""Bytes that the body of a route may have that does not say how many."""

MOST_VALUES = 100_000
"""Elements of arrays and entries of objects in one body: three times what the largest honest request holds (an upload
of 10,000 parts), and at most some 25 MB of Python objects.
"""

GRACE_SECONDS = 20.0
"""How long a body may take whatever its rate, small ones over any line; and how long nothing of it may come."""

_AGAIN_SECONDS = 2

E = TypeVar("E", bound=Callable[..., object])


def body_limit(size: int) -> Callable[[E], E]:
    """Declares below a route's decorator how many bytes its body may have, where that is not `SMALL`.

    @routes.post("/batch")
    @body_limit(128 * 1024)
    async def batch(…): …
    """

    def declare(endpoint: E) -> E:
        endpoint.body_limit = size  # type: ignore[attr-defined]
        return endpoint

    return declare


def limit_of(endpoint: Callable[..., object]) -> int:
    """Bytes that the body of this endpoint's route may have."""
    return int(getattr(endpoint, "body_limit", SMALL))


def largest_body(in_flight: int) -> int:
    """Bytes of the largest body that is ever taken where all together may have `in_flight`: four fifths of them.

    The rest is for bodies of up to `SMALL` bytes, so that a few large mails on slow lines do not turn all others away.
    """
    return in_flight * 4 // 5


class Bodies:
    """The bodies of all requests that a process is working on.

    A request counts with the bytes that it announces, else with those that have come, until it is answered.
    """

    def __init__(
        self,
        *,
        service: str,
        metrics: Metrics,
        clock: Clock,
        in_flight: int,
        per_second: int,
        grace: float = GRACE_SECONDS,
    ) -> None:
        """
        Args:
            in_flight: bytes of all bodies together.
            per_second: bytes a second that a body must come at, on average, after `grace` seconds.
            grace: also how long nothing of a body may come.
        """
        self._service = service
        self._metrics = metrics
        self._clock = clock
        self._in_flight = in_flight
        self._per_second = per_second
        self._grace = grace
        self._taken = 0

    @contextmanager
    def taking(self, request: Request, limit: int) -> Iterator[Receive]:
        """Yields what to receive the body of `request` with, which nobody has begun to read. Its room is free again
        when the block is left.

        Raises ContentTooLarge above `limit` bytes and ServiceUnavailable while there is no room, both at once where
        the length is announced, else in the receiving; there also RequestTimeout for a body that comes too slowly.
        """
        body = _Body(self, request.receive, limit)
        try:
            body.expect(int(request.headers.get("content-length", 0)))
            yield body.receive
        finally:
            self.release(body.reserved)

    def reserve(self, more: int, size: int) -> None:
        """Take room for `more` bytes of a body that has `size` now. Raises ServiceUnavailable."""
        room = self._in_flight if size <= SMALL else largest_body(self._in_flight)
        if self._taken + more > room:
            raise ServiceUnavailable(
                "Too many request bodies are being worked on: repeat later.", retry_after=_AGAIN_SECONDS
            )
        self._taken += more
        self._metrics.add(HTTP_BODY_BYTES, more, service=self._service)

    def release(self, size: int) -> None:
        """Give room back."""
        self._taken -= size
        self._metrics.add(HTTP_BODY_BYTES, -size, service=self._service)

    def now(self) -> float:
        """Seconds, of the monotonic clock."""
        return self._clock.monotonic()

    def seconds_left(self, begun: float, received: int) -> float:
        """How much longer the next bytes may take of a body of which so many have come; negative: it is too slow."""
        return min(self._grace, begun + self._grace + received / self._per_second - self.now())

    def too_slow(self) -> RequestTimeout:
        """What its caller is told."""
        return RequestTimeout(f"The body came too slowly: at least {self._per_second} bytes a second are needed.")


class _Body:
    """One body on its way."""

    def __init__(self, bodies: Bodies, receive: Receive, limit: int) -> None:
        self._bodies = bodies
        self._receive = receive
        self._limit = limit
        self._received = 0
        self._begun: float | None = None
        self._whole = False
        self.reserved = 0

    def expect(self, size: int) -> None:
        """Its size is `size` or more."""
        if size > self._limit:
            raise ContentTooLarge(f"The body is larger than {self._limit} bytes.")
        if size > self.reserved:
            self._bodies.reserve(size - self.reserved, size)
            self.reserved = size

    async def receive(self) -> Message:
        if self._whole:  # what comes now is that the caller went away: it may take as long as it likes
            return await self._receive()
        if self._begun is None:
            self._begun = self._bodies.now()
        try:
            async with asyncio.timeout(self._bodies.seconds_left(self._begun, self._received)):
                message = await self._receive()
        except TimeoutError:
            raise self._bodies.too_slow() from None
        if message["type"] == "http.request":
            self._received += len(message.get("body", b""))
            self._whole = not message.get("more_body", False)
            self.expect(self._received)
            if not self._whole and self._bodies.seconds_left(self._begun, self._received) < 0:
                raise self._bodies.too_slow()
        return message


def hold_to_values(body: bytes) -> None:
    """Raise InvalidRequest for JSON of more than `MOST_VALUES` values, before anything is built of it.

    Counts commas and opening brackets, all of the body's first: few have so many, and then no other look is needed.
    Else those outside of strings, which makes a copy or two of the body; text may hold as many as it likes. What comes
    behind a mistake of syntax may be counted wrong: nothing is built of that.
    """
    if len(body) <= MOST_VALUES or _values(body) <= MOST_VALUES:
        return
    unescaped = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    most_quotes = 4 * MOST_VALUES + 2  # an entry has a string as its name and may have one as its value
    if unescaped.count(b'"') <= most_quotes and _values(b"".join(unescaped.split(b'"')[::2])) <= MOST_VALUES:
        return
    raise InvalidRequest(details=[{"field": "body", "message": f"holds more than {MOST_VALUES} values"}])


def _values(json: bytes) -> int:
    return json.count(b",") + json.count(b"[") + json.count(b"{")
