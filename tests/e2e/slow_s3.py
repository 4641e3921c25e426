"""A TCP proxy before the AWS emulator that takes its time to make one object of parts, as S3 does with thousands: the
status comes at once, then white space, and what it says only in the end (Amazon S3 API reference,
CompleteMultipartUpload). All else passes through.
"""

from __future__ import annotations

import asyncio
import re

from tests.e2e.tcp_proxy import AT_ONCE, Ends, TcpProxy

COMPLETION = re.compile(rb"POST /\S*\?\S*uploadId=")
"""How the one request begins that is slow."""

_DECLARATION = re.compile(rb"<\?xml.*?\?>")
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nTransfer-Encoding: chunked\r\n\r\n"


class SlowS3(TcpProxy):
    """Forwards to `server_port`. A completion is passed on at once, and `asked` is set; its answer goes out a space a
    second until `answering` is set.
    """

    def __init__(self, server_port: int) -> None:
        super().__init__(server_port)
        self.asked, self.answering = asyncio.Event(), asyncio.Event()
        self.completions = 0

    async def relay(self, ends: Ends) -> None:
        """Slow down completions."""
        reader, writer, server_reader, server_writer = ends
        slow = asyncio.Event()
        answers = asyncio.create_task(self._answers(server_reader, writer, slow))
        try:
            while data := await reader.read(AT_ONCE):
                if COMPLETION.match(data):
                    slow.set()
                    self.completions += 1
                    self.asked.set()
                server_writer.write(data)
                await server_writer.drain()
        finally:
            answers.cancel()

    async def _answers(self, server: asyncio.StreamReader, writer: asyncio.StreamWriter, slow: asyncio.Event) -> None:
        try:
            while data := await server.read(AT_ONCE):
                if slow.is_set():
                    data = await self._slowly(data, server, writer)
                    slow.clear()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def _slowly(self, answer: bytes, server: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """Give out the answer's beginning, then white space; what is left to give out when its time has come."""
        while b"\r\n\r\n" not in answer:
            answer += await server.read(AT_ONCE)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        length = re.search(rb"(?i)content-length: *(\d+)", head)
        assert length is not None, head
        body += await server.readexactly(int(length[1]) - len(body))
        declared = _DECLARATION.match(body)
        assert declared is not None, body
        writer.write(_HEAD + _chunk(declared[0]))
        while not self.answering.is_set():
            writer.write(_chunk(b" "))
            await writer.drain()
            try:
                await asyncio.wait_for(self.answering.wait(), 1)
            except TimeoutError:
                continue
        return _chunk(body[declared.end() :]) + _chunk(b"")


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
