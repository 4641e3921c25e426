"""A TCP proxy before the AWS emulator that answers SQS's calls with errors when told to; all else passes through."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

SQS = b"AmazonSQS."
"""In the header X-Amz-Target of each call: AWS JSON protocol 1.0."""

_BODY = b'{"__type":"com.amazonaws.sqs#InternalError","message":"Simulated failure."}'
_ERROR = (
    b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/x-amz-json-1.0\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(_BODY), _BODY)
)


class SqsFaultProxy:
    """Forwards to `server_port`. While `failing`, a call to SQS is answered with an error and not passed on."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self.url = ""
        self.failing = False
        self.passed = 0
        self.failed = 0
        self._connections: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        try:
            await self._connect(reader, writer)
        except OSError:
            pass  # either end went away: so does the other
        finally:
            writer.close()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        answers = asyncio.create_task(_pump(server_reader, writer))
        try:
            while data := await reader.read(1 << 16):
                if SQS in data:
                    if self.failing:
                        self.failed += 1
                        writer.write(_ERROR)
                        await writer.drain()
                        return
                    self.passed += 1
                server_writer.write(data)
                await server_writer.drain()
        finally:
            answers.cancel()
            server_writer.close()

    def end(self) -> None:
        """Cut every connection."""
        for task in list(self._connections):
            task.cancel()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.close()
    except OSError:
        writer.close()


@asynccontextmanager
async def sqs_fault_proxy(server_port: int) -> AsyncIterator[SqsFaultProxy]:
    """A running proxy to 127.0.0.1:`server_port`."""
    proxy = SqsFaultProxy(server_port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        proxy.end()
        await asyncio.sleep(0)
