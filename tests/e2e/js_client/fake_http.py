"""The HTTP server under the test bed: threads, whole control over each connection, faults."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.e2e.js_client.faults import Fault

CHUNK = 1 << 16
Sink = Callable[[bytes], object]


class Cut(Exception):
    """The connection is gone, by plan or because the browser left."""


class Handler(BaseHTTPRequestHandler):
    """What both servers need of a connection."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Tests ask `Faults.asked` instead."""

    def length(self) -> int | None:
        """Content-Length, None without one."""
        found = self.headers.get("Content-Length")
        return int(found) if found and found.isdecimal() else None

    def body(self, fault: Fault | None = None, sink: Sink | None = None) -> bytes:
        """The whole body, or empty if it went to `sink`, with the fault that is meant for it. Raises Cut."""
        total = self.length() or 0
        if fault is not None and fault.do == "hold":
            fault.released.wait()
            if fault.dropped:
                self.cut()
        kept = bytearray()
        left = total
        while left:
            if fault is not None and fault.do == "cut" and left <= total / 2:
                self.cut()
            if fault is not None and fault.do == "slow":
                time.sleep(CHUNK / 2e6)
            chunk = self._read(min(CHUNK, left))
            left -= len(chunk)
            (sink or kept.extend)(chunk)
        return bytes(kept)

    def cut(self) -> None:
        """Reset the connection. Raises Cut."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        raise Cut

    def say(self, status: int, body: bytes = b"", kind: str = "application/json", **headers: str) -> None:
        """Answer, and end the connection: on one that was used before, Chromium repeats a failed request by itself,
        and tests could not count. Raises Cut.
        """
        self.close_connection = True
        try:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            if body:
                self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)
        except OSError as error:
            raise Cut from error

    def _read(self, wanted: int) -> bytes:
        try:
            chunk = self.rfile.read(wanted)
        except OSError as error:
            raise Cut from error
        if not chunk:
            self.close_connection = True
            raise Cut
        return chunk


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that leaves in the middle is part of the tests."""


@contextlib.contextmanager
def serving(make: Callable[[str], type[Handler]]) -> Iterator[str]:
    """Serve on a free port of this machine; `make` gets the origin and gives the handler. Yields the origin."""
    server = _Server(("127.0.0.1", 0), Handler)
    origin = f"http://127.0.0.1:{server.server_address[1]}"
    server.RequestHandlerClass = make(origin)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield origin
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
