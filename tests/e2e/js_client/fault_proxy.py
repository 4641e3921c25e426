"""The HTTP proxy that a browser goes through to the stack: all passes as it is, but for what a test plans."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import threading
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import SplitResult, parse_qs, urlsplit

from tests.e2e.js_client.faults import Doing, Fault, Faults

CHUNK = 1 << 17
PATIENCE = 120.0
UPLOAD_URL = "/api/files/upload-url"
_FIELD = re.compile(rb'form-data; name="([^"]*)"')
_OURS = {"connection", "proxy-connection", "keep-alive", "transfer-encoding", "content-length"}
"""Headers that belong to one connection."""


class _Cut(Exception):
    """The connection is gone, by plan or because the browser left."""


class _Relay(BaseHTTPRequestHandler):
    """One connection of the browser."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: object) -> None:
        """Tests ask `Faults.asked` instead."""

    def relay(self) -> None:
        url, faults = urlsplit(self.path), self.server.faults
        stores = url.netloc == self.server.s3 and self.command in ("PUT", "POST")
        fault: Fault | None = None
        if stores:
            part = parse_qs(url.query).get("partNumber")
            fault = faults.meet(self.command.lower(), int(part[0]) if part else None)
            faults.begin()
        elif self.command == "GET" and url.netloc == self.server.s3:
            fault = faults.meet("get")
        elif self.command != "OPTIONS" and url.netloc != self.server.s3:
            fault = faults.meet(url.path)
        try:
            self._pass(url, fault)
        except (_Cut, OSError, HTTPException):
            self._reset()
        finally:
            if stores:
                faults.end()

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = relay  # noqa: N815 - the base class's names

    def _pass(self, url: SplitResult, fault: Fault | None) -> None:
        if fault is not None and fault.do == "hold":
            fault.released.wait()
            if fault.dropped:
                raise _Cut
        if fault is not None and (fault.do == "refuse-early" or isinstance(fault.do, int)):
            self._refuse(fault.do)
            return
        upstream = HTTPConnection(url.netloc, timeout=PATIENCE)
        try:
            self._send(upstream, url, fault)
            answer = upstream.getresponse()
            body = answer.read()
        finally:
            upstream.close()
        if url.path == UPLOAD_URL and answer.status in (200, 201):
            self.server.faults.begun.append(json.loads(body)["data"]["fileId"])
        if fault is not None and fault.do == "lost":
            raise _Cut
        if fault is not None and fault.do == "spoil":
            body = bytes([body[0] ^ 1]) + body[1:]
        self._answer(answer.status, answer.getheaders(), body, half=fault is not None and fault.do == "cut")

    def _send(self, upstream: HTTPConnection, url: SplitResult, fault: Fault | None) -> None:
        target = f"{url.path or '/'}?{url.query}" if url.query else url.path or "/"
        upstream.putrequest(self.command, target, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in _OURS:
                upstream.putheader(name, value)
        if "Content-Length" in self.headers:
            upstream.putheader("Content-Length", self.headers["Content-Length"])
        upstream.endheaders()
        cut = fault is not None and fault.do == "cut" and self.command != "GET"
        left = int(self.headers.get("Content-Length") or 0) // (2 if cut else 1)
        first = True
        while left:
            chunk = self._read(min(CHUNK, left))
            if first and "multipart/form-data" in self.headers.get("Content-Type", ""):
                self.server.faults.forms.append([each.decode() for each in _FIELD.findall(chunk)])
            first = False
            left -= len(chunk)
            upstream.send(chunk)
        if cut:
            raise _Cut

    def _read(self, wanted: int) -> bytes:
        chunk = self.rfile.read1(wanted)
        if not chunk:
            raise _Cut
        return chunk

    def _refuse(self, do: Doing) -> None:
        """In place of the stack."""
        left = int(self.headers.get("Content-Length") or 0) if do != "refuse-early" else 0
        while left:
            left -= len(self._read(min(CHUNK, left)))
        origin = self.headers.get("Origin")
        status = do if isinstance(do, int) else 403
        self._answer(status, [("Access-Control-Allow-Origin", origin)] if origin else [], b"")

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, *, half: bool = False) -> None:
        # Each connection ends with its answer: on one that was used before, Chromium repeats a failed request by
        # itself, and tests could not count.
        self.close_connection = True
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in _OURS:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if half else body)
        if half:
            raise _Cut

    def _reset(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, s3: str, faults: Faults) -> None:
        super().__init__(("127.0.0.1", 0), _Relay)
        self.s3, self.faults = s3, faults

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that leaves in the middle is part of the tests."""


@contextlib.contextmanager
def fault_proxy(s3: str, faults: Faults) -> Iterator[str]:
    """A running proxy with these faults, its address; `s3` is the host and port of S3."""
    server = _Server(s3, faults)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        faults.clear()
        server.shutdown()
        server.server_close()
        thread.join(10)
