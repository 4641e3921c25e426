"""Processes start in order, drain in the opposite one within their limits, and never die in silence."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import uvloop
from starlette.types import Receive, Scope, Send

from services.kit.component import Closing, Component, LoopComponent, Part
from services.kit.errors import SettingsError
from services.kit.health import Health, Progress, Report
from services.kit.lifecycle import EXIT_DIED, EXIT_FINE, EXIT_NOT_DRAINED, EXIT_SETTINGS, Process, Stage
from services.kit.metrics import COMPONENT_LIVE, Metrics
from services.kit.server import HttpServer
from services.kit.testing import FakeClock, captured_logs

ROOT = Path(__file__).parents[3]


class Recorded:
    """A component that writes down what is done with it."""

    def __init__(
        self,
        name: str,
        book: list[str],
        *,
        stop_takes: float = 0,
        start_fails: Exception | None = None,
        stop_fails: Exception | None = None,
    ) -> None:
        self.name, self.book = name, book
        self.stop_takes, self.start_fails, self.stop_fails = stop_takes, start_fails, stop_fails
        self.died: str | None = None

    async def start(self) -> None:
        self.book.append(f"start {self.name}")
        if self.start_fails:
            raise self.start_fails

    async def stop(self, timeout: float) -> None:
        if self.stop_fails:
            raise self.stop_fails
        await asyncio.sleep(self.stop_takes)
        self.book.append(f"stop {self.name}")

    def health(self) -> Report:
        return Report(self.died is None, died=self.died)


class Exits(list[int]):
    """Stands for `os._exit`."""

    def __call__(self, status: int) -> None:
        self.append(status)


def process(*stages: Stage, exits: Exits | None = None) -> tuple[Process, Health, Metrics]:
    health, metrics = Health(FakeClock()), Metrics()
    return (
        Process(stages, health=health, metrics=metrics, exit_now=Exits() if exits is None else exits),
        health,
        metrics,
    )


def three(book: list[str], **loop: object) -> list[Stage]:
    return [
        Stage("outgoing", {"publisher": Recorded("publisher", book)}, 1),
        Stage("loops", {"loop": Recorded("loop", book, **loop)}, 0.2),  # type: ignore[arg-type]
        Stage("http", {"http": Recorded("http", book)}, 1),
    ]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the conditions are states of others, which set no event
            await asyncio.sleep(0.01)


async def test_a_signal_drains_in_the_opposite_order() -> None:
    book: list[str] = []
    running, health, _ = process(*three(book))
    task = asyncio.create_task(running.run())
    await until(lambda: len(book) == 3)
    os.kill(os.getpid(), signal.SIGTERM)
    assert await task == EXIT_FINE
    assert book == ["start publisher", "start loop", "start http", "stop http", "stop loop", "stop publisher"]
    assert not (await health.readiness())[0]


async def test_a_component_that_dies_ends_the_process_with_a_clear_log() -> None:
    book: list[str] = []
    stages = three(book)
    running, _, metrics = process(*stages)
    loop = stages[1].components["loop"]
    assert isinstance(loop, Recorded)
    with captured_logs() as captured:
        task = asyncio.create_task(running.run())
        await until(lambda: len(book) == 3)
        loop.died = "ValueError: of alice@example.com"
        assert await task == EXIT_DIED
    (event,) = captured.named("a component died: stopping the process")
    assert (event["component"], event["level"]) == ("loop", "error")
    assert "alice@" not in captured.text
    assert book[3:] == ["stop http", "stop loop", "stop publisher"]
    assert metrics.value(COMPONENT_LIVE, component="loop") == 0
    assert metrics.value(COMPONENT_LIVE, component="http") == 1


async def test_what_did_not_start_stops_what_did() -> None:
    book: list[str] = []
    running, _, _ = process(*three(book, start_fails=ConnectionError("no")))
    with captured_logs() as captured:
        assert await running.run() == EXIT_DIED
    assert book == ["start publisher", "start loop", "stop loop", "stop publisher"]
    assert captured.named("could not start")


async def test_settings_found_wrong_at_the_start_are_raised_after_the_drain() -> None:
    book: list[str] = []
    running, _, _ = process(*three(book, start_fails=SettingsError(["PORT is taken."])))
    with pytest.raises(SettingsError):
        await running.run()
    assert book[-1] == "stop publisher"


@pytest.mark.parametrize("trouble", [{"stop_takes": 60}, {"stop_fails": ValueError("x")}])
async def test_one_that_will_not_stop_does_not_keep_the_others(trouble: dict[str, object]) -> None:
    book: list[str] = []
    running, _, _ = process(*three(book, **trouble))
    task = asyncio.create_task(running.run())
    await until(lambda: len(book) == 3)
    started = time.monotonic()
    running.tell("SIGTERM")
    assert await task == EXIT_NOT_DRAINED
    assert time.monotonic() - started < 5
    assert book[3:] == ["stop http", "stop publisher"]


async def test_told_twice_it_ends_at_once() -> None:
    exits = Exits()
    running, _, _ = process(exits=exits)
    running.tell("SIGINT")
    assert not exits
    running.tell("SIGINT")
    assert exits == [EXIT_NOT_DRAINED]


def test_limits_must_fit_into_the_drain() -> None:
    with pytest.raises(ValueError, match="leave 2 s"):
        process(Stage("a", {}, 10), Stage("b", {}, 9))


async def test_a_loop_finishes_what_it_has_in_hand() -> None:
    progress, done = Progress(FakeClock()), []

    async def run(stopping: asyncio.Event) -> None:
        progress.idle()
        await stopping.wait()
        await asyncio.sleep(0.05)
        done.append("last")

    loop: Component = LoopComponent("loop", run, progress, detail=lambda: {"lag": 3})
    await loop.start()
    await asyncio.sleep(0.01)
    assert loop.health().detail["lag"] == 3
    await loop.stop(1)
    assert done == ["last"]
    assert loop.health().died is None


async def test_a_loop_that_will_not_end_is_cut_off() -> None:
    async def run(_stopping: asyncio.Event) -> None:
        await asyncio.sleep(60)

    loop = LoopComponent("loop", run, Progress(FakeClock()))
    await loop.start()
    started = time.monotonic()
    await loop.stop(0.05)
    assert time.monotonic() - started < 1


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (ValueError("x"), "ValueError: x"),
        (None, "returned although nobody told it to stop"),
        (asyncio.CancelledError(), "cancelled from inside"),
    ],
)
async def test_a_loop_that_ends_by_itself_has_died(error: BaseException | None, why: str) -> None:
    async def run(_stopping: asyncio.Event) -> None:
        if error:
            raise error

    loop = LoopComponent("loop", run, Progress(FakeClock()))
    await loop.start()
    await until(lambda: loop.health().died is not None)
    assert loop.health().died == why
    assert not loop.health().live
    await loop.stop(1)


async def test_stopping_what_never_started_is_harmless() -> None:
    async def run(_stopping: asyncio.Event) -> None:
        raise AssertionError

    await LoopComponent("loop", run, Progress(FakeClock())).stop(1)
    await HttpServer(_app, host="127.0.0.1", port=0).stop(1)


async def _app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await asyncio.sleep(0.3)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"done"})


async def _who(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the address and the scheme that a route would see."""
    if scope["type"] == "lifespan":
        await _app(scope, receive, send)
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": f"{scope['scheme']} {scope['client'][0]}".encode()})


@pytest.mark.parametrize(
    ("trusted", "peer", "said", "seen"),
    [
        ((), "127.0.0.1", "198.51.100.7", "http 127.0.0.1"),
        (("127.0.0.9",), "127.0.0.1", "198.51.100.7", "http 127.0.0.1"),
        (("127.0.0.9",), "127.0.0.9", "198.51.100.7", "https 198.51.100.7"),
        (("127.0.0.8/31",), "127.0.0.9", "2001:db8::1", "https 2001:db8::1"),
        (("127.0.0.9",), "127.0.0.9", "6.6.6.6, 198.51.100.7", "https 198.51.100.7"),
        (("127.0.0.9", "10.0.0.0/8"), "127.0.0.9", "6.6.6.6, 198.51.100.7, 10.1.1.1", "https 198.51.100.7"),
    ],
)
async def test_who_calls_is_what_a_trusted_proxy_says_and_nobody_else(
    trusted: tuple[str, ...], peer: str, said: str, seen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")  # uvicorn's own setting, which is none of ours
    server = HttpServer(_who, host="127.0.0.1", port=0, trusted_proxies=trusted)
    await server.start()
    try:
        transport = httpx.AsyncHTTPTransport(local_address=peer)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", transport=transport) as client:
            headers = {"X-Forwarded-For": said, "X-Forwarded-Proto": "https", "X-Real-IP": "6.6.6.6"}
            assert (await client.get("/", headers=headers)).text == seen
    finally:
        await server.stop(5)


async def test_the_server_answers_what_it_has_begun_and_takes_nothing_new() -> None:
    server = HttpServer(_app, host="127.0.0.1", port=0)
    await server.start()
    assert server.health().ready
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
        begun = asyncio.create_task(client.get("/"))
        await asyncio.sleep(0.1)
        await server.stop(5)
        assert (await begun).text == "done"
        with pytest.raises(httpx.TransportError):
            await client.get("/")
    assert server.health().died is None


def test_a_crowd_of_new_connections_is_accepted_in_a_few_turns_of_the_event_loop() -> None:
    """uvloop accepts one in a turn and on a listening socket, and a turn takes long where there is much to do."""
    crowd = 64

    async def turns() -> int:
        server = HttpServer(_app, host="127.0.0.1", port=0)
        await server.start()
        callers = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(crowd)]
        taken = 0
        while len(server._server.server_state.connections) < crowd:
            await asyncio.sleep(0)
            taken += 1
        for caller in callers:
            caller.close()
        await server.stop(5)
        return taken

    assert uvloop.run(turns()) < crowd / 4


async def test_a_taken_port_is_told_with_the_setting_to_change() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"127.0.0.1:{port} cannot be listened on.*MAILROOM_EMAIL_PORT"):
            await HttpServer(_app, host="127.0.0.1", port=port, port_variable="MAILROOM_EMAIL_PORT").start()


PROGRAM = """
import asyncio, sys, time
from services.kit import logs
from services.kit.clock import SystemClock
from services.kit.component import LoopComponent
from services.kit.errors import SettingsError
from services.kit.health import Health, Progress
from services.kit.lifecycle import Process, Stage, main
from services.kit.metrics import Metrics

how = sys.argv[1]
logs.configure("info", "json")

async def loop(stopping):
    if how == "dies":
        raise ValueError("for alice@example.com")
    await stopping.wait()

async def application():
    if how == "settings":
        raise SettingsError(["MAILROOM_MONGO_URL is not set."])
    component = LoopComponent("loop", loop, Progress(SystemClock()))
    stages = [Stage("loops", {"loop": component}, 2)]
    return await Process(stages, health=Health(SystemClock()), metrics=Metrics()).run()

main(application)
"""


def start(how: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, how]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_real_process_drains_on_sigterm() -> None:
    with start("runs") as running:
        assert running.stdout is not None
        assert "started" in running.stdout.readline()
        running.send_signal(signal.SIGTERM)
        out, err = running.communicate(timeout=10)
    assert running.returncode == EXIT_FINE
    assert "draining" in out
    assert "stopped" in out
    assert not err


def test_a_real_process_whose_component_dies_ends_with_one() -> None:
    with start("dies") as running:
        out, _ = running.communicate(timeout=10)
    assert running.returncode == EXIT_DIED
    assert "a component died" in out
    assert "alice@" not in out


def test_a_real_process_with_bad_settings_lists_them() -> None:
    with start("settings") as running:
        _, err = running.communicate(timeout=10)
    assert running.returncode == EXIT_SETTINGS
    assert "  - MAILROOM_MONGO_URL is not set." in err
    assert "Traceback" not in err


async def test_what_only_has_to_be_closed_is_closed_in_its_place() -> None:
    book: list[str] = []
    loop = Recorded("loop", book)
    running, health, _ = process(
        Stage("clients", {"mongo": Closing(lambda: book.append("closed"))}, 1),
        Stage("loops", {"loop": Part(loop.start, loop.stop, lambda: Report(True, detail={"own": "shape"}))}, 1),
    )
    task = asyncio.create_task(running.run())
    await until(lambda: len(book) == 1)
    assert health.reports()["loop"].detail == {"own": "shape"}
    running.tell("SIGTERM")
    assert await task == EXIT_FINE
    assert book == ["start loop", "stop loop", "closed"]
