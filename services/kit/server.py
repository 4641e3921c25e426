"""The HTTP server as a component: it starts only on a port of its own, and drains before it ends."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator, Sequence

import uvicorn
from starlette.types import ASGIApp

from services.kit.errors import SettingsError
from services.kit.health import Report

DRAIN_SECONDS = 3
"""How long requests in progress may still take once we are told to stop."""

ACCEPTED_AT_ONCE = 16
"""New connections that are accepted in one turn of the event loop. uvloop accepts one for each listening socket, so the
server listens on so many descriptors of one socket. In a flood a turn takes long, and with one descriptor new callers
waited for seconds before they were even refused.
"""


class HttpServer:
    """Serves `app`. A `Component`."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        host: str,
        port: int,
        port_variable: str = "the port",
        trusted_proxies: Sequence[str] = (),
    ) -> None:
        """
        Args:
            port: 0 takes any free one.
            port_variable: names the setting to change when the port is taken.
            trusted_proxies: addresses and networks whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed, read
                from the right up to the first address that is not among them. From anybody else they count for nothing.
        """
        self._host = host
        self._wanted_port = port
        self._port_variable = port_variable
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            # Said in any case: uvicorn would else believe whoever calls from this machine, and FORWARDED_ALLOW_IPS.
            proxy_headers=bool(trusted_proxies),
            forwarded_allow_ips=list(trusted_proxies),
            lifespan="on",
            timeout_keep_alive=20,
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
        self._server = _Server(config)
        self._sockets: list[socket.socket] = []
        self._task: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port it listens on, once started."""
        if not self._sockets:
            raise RuntimeError("the server is not started")
        port: int = self._sockets[0].getsockname()[1]
        return port

    async def start(self) -> None:
        listening = self._listen()
        self._sockets = [listening, *(listening.dup() for _ in range(ACCEPTED_AT_ONCE - 1))]
        self._task = asyncio.create_task(self._server.serve(sockets=self._sockets), name="http server")
        while not self._server.started:
            if self._task.done():
                self._task.result()
                raise RuntimeError("the HTTP application did not start: see the log above")
            await asyncio.sleep(0.01)

    async def stop(self, timeout: float) -> None:
        self._server.should_exit = True
        if self._task is not None:
            _, late = await asyncio.wait([self._task], timeout=timeout)
            if late:
                self._server.force_exit = True
                self._task.cancel()
                await asyncio.wait([self._task], timeout=1.0)
        for each in self._sockets:
            each.close()

    def health(self) -> Report:
        ended = self._task is not None and self._task.done() and not self._server.should_exit
        fine = self._server.started and not ended
        return Report(
            live=not ended,
            ready=fine,
            detail={"state": "serving" if fine else "not serving"},
            died="the HTTP server ended by itself" if ended else None,
        )

    def _listen(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((self._host, self._wanted_port))
        except OSError as error:
            listening.close()
            place = f"{self._host}:{self._wanted_port}"
            raise SettingsError(
                [f"{place} cannot be listened on ({error.strerror}): set {self._port_variable} to another."]
            ) from None
        listening.listen(2048)
        return listening


class _Server(uvicorn.Server):
    """Leaves signals to `lifecycle.Process`, which drains the rest of the process too."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
