"""A TCP proxy before MongoDB or S3 that loses requests or answers, or keeps them waiting, as a bad network does."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Literal

WRITES = (b"\x02update\x00", b"\x02insert\x00")
"""The first elements of commands that write, in an OP_MSG."""

Loss = Literal["request", "answer", "late"]
"""`late`: the request is cut off from its sender and reaches the server just before the next write that passes."""


class LossyProxy:
    """Forwards to `port`. `losses` are used up one a writing command that passes; `down` cuts everything.

    `on_loss` is awaited before the connection of a lost one is cut. `says` is answered to whatever is asked, which does
    not reach the server; `pause`: seconds before each piece of an answer.
    """

    def __init__(self, port: int) -> None:
        self._server_port = port
        self.port = 0
        self.losses: list[Loss] = []
        self.lost = 0
        self.down = False
        self.says: bytes | None = None
        self.pause = 0.0
        self.on_loss: Callable[[], Awaitable[None]] | None = None
        self._held: list[bytes] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.down:
            writer.close()
            return
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        losing = asyncio.Event()
        tasks = [
            asyncio.create_task(self._requests(reader, server_writer, writer, losing)),
            asyncio.create_task(self._answers(server_reader, writer, losing)),
        ]
        self._tasks |= set(tasks)
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks -= set(tasks)
        for end in (writer, server_writer):
            end.close()

    async def _requests(
        self,
        reader: asyncio.StreamReader,
        server: asyncio.StreamWriter,
        writer: asyncio.StreamWriter,
        losing: asyncio.Event,
    ) -> None:
        while data := await reader.read(1 << 20):
            if self.down:
                return
            if self.says is not None:
                writer.write(self.says)
                await writer.drain()
                return
            writes = any(each in data for each in WRITES)
            if writes and self.losses:
                loss = self.losses.pop(0)
                if loss == "late":
                    self._held.append(data)
                if loss != "answer":
                    await self._lose()
                    return
                losing.set()
            elif writes:
                await self._deliver_held()
            server.write(data)
            await server.drain()

    async def _answers(self, server: asyncio.StreamReader, writer: asyncio.StreamWriter, losing: asyncio.Event) -> None:
        while data := await server.read(1 << 20):
            if losing.is_set():
                await self._lose()
                return
            if self.pause:
                await asyncio.sleep(self.pause)
            if self.down:
                return
            writer.write(data)
            await writer.drain()

    async def _deliver_held(self) -> None:
        held, self._held = self._held, []
        for data in held:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._server_port)
            writer.write(data)
            await reader.read(1 << 20)
            writer.close()

    async def _lose(self) -> None:
        self.lost += 1
        if self.on_loss is not None:
            await self.on_loss()


@asynccontextmanager
async def lossy_proxy(port: int) -> AsyncIterator[LossyProxy]:
    """A running proxy to 127.0.0.1:`port`."""
    proxy = LossyProxy(port)
    server = await asyncio.start_server(proxy._serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        for task in list(proxy._tasks):
            task.cancel()
        await asyncio.sleep(0)
