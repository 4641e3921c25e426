"""HTTP/1.1 on asyncio's own protocols with httptools: the simulator shares two cores with what it tests.

The server can also do what a real one never admits to: drop a connection after reading the whole request,
and refuse connections for a while with its port still held.
"""

import asyncio
import contextlib
import socket
import struct
import sys
import traceback
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import cast
from urllib.parse import parse_qsl, unquote

import httptools
import orjson

MAX_BODY = 64 * 1024 * 1024
"""40 MB of mail is 53 MB of base64."""

_PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}
_STOP_SECONDS = 5.0
_RESET = struct.pack("ii", 1, 0)


@dataclass(slots=True)
class Request:
    """A whole request. `path` is still percent-encoded; header names are lower-case."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes
    peer: str
    keep_alive: bool = True

    def pairs(self) -> list[tuple[str, str]]:
        return parse_qsl(self.query, keep_blank_values=True)

    def parameters(self) -> dict[str, str]:
        return dict(self.pairs())

    def segments(self) -> list[str]:
        return [unquote(part) for part in self.path.strip("/").split("/")]


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer."""

    status: int
    body: bytes = b""
    content_type: bytes = b"application/json"
    headers: tuple[tuple[bytes, bytes], ...] = ()

    def encode(self, keep_alive: bool) -> bytes:
        lines = [
            b"HTTP/1.1 %d %s" % (self.status, _PHRASES.get(self.status, b"Unknown")),
            b"content-type: " + self.content_type,
            b"content-length: %d" % len(self.body),
            b"connection: " + (b"keep-alive" if keep_alive else b"close"),
            *(name + b": " + value for name, value in self.headers),
        ]
        return b"\r\n".join(lines) + b"\r\n\r\n" + self.body


def json_response(value: object, status: int = 200) -> Response:
    return Response(status, orjson.dumps(value))


Handler = Callable[[Request], Awaitable[Response | None]]
"""Answers a request; None drops the connection without an answer. It must not raise."""


class _Connection(asyncio.Protocol):
    """One connection; requests on it are answered one after the other."""

    def __init__(self, server: "Server") -> None:
        self._server = server
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[Request] = deque()
        self.task: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._peer = ""
        self._begin()

    def _begin(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._size = 0

    # --- asyncio ---------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its base class
        self._peer = str((transport.get_extra_info("peername") or ("",))[0])
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)
        self._transport = None

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            if self._transport:
                self._transport.close()

    # --- httptools -------------------------------------------------------------------------------------------------

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._headers.get("expect", "").lower() == "100-continue" and self._transport:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size <= MAX_BODY:
            self._body.append(body)
        elif self._transport:
            self._transport.write(Response(413).encode(keep_alive=False))
            self._transport.close()

    def on_message_complete(self) -> None:
        path, _, query = self._url.decode("latin-1").partition("?")
        method = self._parser.get_method().decode("latin-1")
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        keep_alive = self._parser.should_keep_alive()
        self._waiting.append(Request(method, path, query, self._headers, body, self._peer, keep_alive))
        self._begin()
        if self.task is None:
            self.task = asyncio.get_running_loop().create_task(self._answer())

    # --- answering -------------------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        return self.task is None

    async def _answer(self) -> None:
        try:
            while self._waiting:
                request = self._waiting.popleft()
                response = await self._server.handler(request)
                if self._transport is None:
                    continue  # the client has gone; what it asked for was done all the same, as SES would
                if response is None:
                    self.reset()
                    return
                keep_alive = request.keep_alive and not self._server.closing
                self._transport.write(response.encode(keep_alive))
                if not keep_alive:
                    self._transport.close()
                    return
        except Exception:  # noqa: BLE001 - one broken request must not leave its client waiting
            traceback.print_exc(file=sys.stderr)
            self.reset()
        finally:
            self.task = None

    def reset(self) -> None:
        """End the connection with a TCP reset, as a dying server's kernel does."""
        if self._transport is None:
            return
        sock = self._transport.get_extra_info("socket")
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._transport.abort()


class Server:
    """Listens on one port. `start` raises OSError when the port is taken."""

    def __init__(self, handler: Handler, host: str, port: int) -> None:
        self.handler = handler
        self.host = host
        self.port = port
        self.connections: set[_Connection] = set()
        self.closing = False
        self._listener: asyncio.Server | None = None

    async def start(self) -> None:
        await self._listen(_bound(self.host, self.port))

    async def refuse(self, seconds: float) -> None:
        """Refuse new connections for `seconds` and reset the idle ones; the port stays ours all the time."""
        if self._listener is None:
            return
        self._listener.close()
        self._listener = None
        for connection in list(self.connections):
            if connection.idle:
                connection.reset()
        holder = await self._hold()
        await asyncio.sleep(seconds)
        if self.closing:
            holder.close()
        else:
            await self._listen(holder)

    async def stop(self) -> None:
        """Take no more connections, and let requests under way be answered."""
        self.closing = True
        if self._listener is not None:
            self._listener.close()
        tasks = [each.task for each in self.connections if each.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=_STOP_SECONDS)
        for connection in list(self.connections):
            connection.reset()

    async def _listen(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(lambda: _Connection(self), sock=sock, backlog=1024)
        self.port = sock.getsockname()[1]

    async def _hold(self) -> socket.socket:
        while True:
            try:
                return _bound(self.host, self.port)
            except OSError:  # the listener needs a turn of the loop to let go
                await asyncio.sleep(0.001)


def _bound(host: str, port: int) -> socket.socket:
    """A socket bound but not listening: connecting to it is refused."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock
