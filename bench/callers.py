"""The callers of `bench.overload`, in a process of their own: a plan as JSON on standard input, figures on the output.

A caller is a connection and a few lines of HTTP, so that one core asks several thousand times a second.
"""

import asyncio
import json
import random
import re
import sys
import time
from collections import Counter, deque
from typing import Any, cast

from bench.results import percentile

MOST_CONNECTIONS = 1000
LATE_SECONDS = 20.0
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_BODY = json.dumps(
    {"to": "success@inbox.example", "subject": "Your receipt", "textContent": "Thank you.", "category": "notification"}
).encode()


class Connection(asyncio.Protocol):
    """One connection, which carries one request at a time. Statuses: 0 is a connection that was lost."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._received = b""
        self._answer: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        self._end(0)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head + b"\r\n")
        if found and length and len(body) >= int(length[1]):
            self._received = b""
            self._end(int(head[9:12]))

    def ask(self, request: bytes) -> "asyncio.Future[int]":
        """The status, once all of the answer is there."""
        if self.transport is None:
            raise ConnectionError("the connection was lost")
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._answer

    def _end(self, status: int) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(status)


class Callers:
    """Ask until `until`, and note how long each answer took."""

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._head = (
            f"POST /api/email HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(_BODY)}\r\nIdempotency-Key: "
        ).encode()
        self._idle: deque[Connection] = deque()
        self._open = 0
        self.asked = 0
        self.times: dict[int, list[float]] = {202: [], 503: []}
        self.other: Counter[str] = Counter()

    async def once(self) -> None:
        """One request, on a connection that is free or a new one."""
        began = time.perf_counter()
        self.asked += 1
        try:
            async with asyncio.timeout(LATE_SECONDS):
                connection = await self._connection()
                if connection is None:
                    self.other["unsent"] += 1
                    return
                status = await connection.ask(self._head + b"%016x\r\n\r\n" % random.getrandbits(64) + _BODY)
        except TimeoutError:
            self._open -= 1
            self.other["late"] += 1
            return
        except OSError:
            self._open -= 1
            self.other["not connected"] += 1
            return
        if status in self.times:
            self.times[status].append(time.perf_counter() - began)
        else:
            self.other[str(status or "cut off")] += 1
        if connection.transport is None:
            self._open -= 1
        else:
            self._idle.append(connection)

    async def _connection(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.transport is not None:
                return connection
            self._open -= 1
        if self._open >= MOST_CONNECTIONS:
            return None
        self._open += 1
        _, made = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", self._port)
        return made

    async def crowd(self, size: int, until: float) -> None:
        """So many callers, each asking again once it has been answered."""

        async def caller() -> None:
            while time.perf_counter() < until:
                await self.once()

        await asyncio.gather(*(caller() for _ in range(size)))

    async def stream(self, rate: float, until: float) -> None:
        """So many requests a second, at random moments, whether or not earlier ones were answered."""
        at = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            while (at := at + random.expovariate(rate)) < until:
                if (ahead := at - time.perf_counter()) > 0:
                    await asyncio.sleep(ahead)
                group.create_task(self.once())


async def _run(plan: dict[str, Any]) -> dict[str, Any]:
    callers = Callers(plan["port"], plan["token"])
    until = time.perf_counter() + plan["seconds"]
    if plan["crowd"] is not None:
        await callers.crowd(plan["crowd"], until)
    else:
        await callers.stream(plan["rate"], until)
    good, refused = callers.times[202], callers.times[503]
    return {
        "asked": callers.asked / plan["seconds"],
        "good": len(good) / plan["seconds"],
        "good_p50": 1000 * percentile(good, 50),
        "good_p99": 1000 * percentile(good, 99),
        "refused": len(refused) / plan["seconds"],
        "refused_p50": 1000 * percentile(refused, 50),
        "refused_p99": 1000 * percentile(refused, 99),
        "other": dict(callers.other),
    }


if __name__ == "__main__":
    import uvloop

    print(json.dumps(uvloop.run(_run(json.load(sys.stdin)))))
