"""What TCP proxies before a server of the stack have in common: connections that are passed on, and cut at the end."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple, TypeVar

AT_ONCE = 1 << 16
"""Bytes that are passed on in one piece at most."""


class Ends(NamedTuple):
    """Both ends of a connection that is passed on: the client's and the server's."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    server_reader: asyncio.StreamReader
    server_writer: asyncio.StreamWriter


class TcpProxy(ABC):
    """Forwards to 127.0.0.1:`server_port`, as `relay` says."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self.url = ""
        self._connections: set[asyncio.Task[None]] = set()

    @abstractmethod
    async def relay(self, ends: Ends) -> None:
        """Pass one connection on, until it is over. OSError and IncompleteReadError: an end went away."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection. Either end goes when the other does."""
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        opened = [writer]
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
            opened.append(server_writer)
            await self.relay(Ends(reader, writer, server_reader, server_writer))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            for end in opened:
                end.close()

    def end(self) -> None:
        """Cut every connection."""
        for task in list(self._connections):
            task.cancel()


Proxy = TypeVar("Proxy", bound=TcpProxy)


@asynccontextmanager
async def running(proxy: Proxy) -> AsyncIterator[Proxy]:
    """The proxy, listening on a free port of 127.0.0.1."""
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        proxy.end()
        await asyncio.sleep(0)
