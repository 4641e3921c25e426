"""The ground that benchmarks stand on: a throwaway stack without our services, and processes started beside it."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx

from bench.results import BenchFailed
from deploy.local import children
from deploy.local.parts import PARTS, plain_environment
from deploy.local.site import HOST, ROOT, free_ports, throwaway_site
from deploy.local.stack import Stack

_PREFIX = "mailroom-bench-"


@contextmanager
def ground(
    parts: Sequence[str],
    *,
    java: Sequence[str] = (),
    extra: Mapping[str, str] | None = None,
    mongo_cache_gb: float = 1.0,
    every_provider: bool = False,
) -> Iterator[Stack]:
    """A stack on free ports with `parts` (and what they need) started; stopped and thrown away at the end.

    `java`: further options of Kafka's. `extra`: further variables of our own processes. `mongo_cache_gb`: GiB of memory
    that MongoDB keeps documents and indexes in. `every_provider`: SES is not the only one.
    """
    _stop_leftovers()
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
    site = replace(
        throwaway_site(folder, os.environ),
        kafka_options=("-Xmx512m", *java),
        mongo_cache_gb=mongo_cache_gb,
        every_provider=every_provider,
    )
    stack = Stack(site, progress=lambda line: print(f"  {line}", flush=True), extra=extra)
    try:
        stack.start(parts)
        yield stack
    finally:
        stack.stop()
        if os.environ.get("MAILROOM_BENCH_KEEP"):
            print(f"logs and data are in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def roots(stack: Stack, *names: str) -> dict[str, list[int]]:
    """The processes of a stack's parts, for a `Meter`."""
    found = {name: stack.child(name) for name in names}
    return {name: [child.pid] for name, child in found.items() if child}


@dataclass(frozen=True, slots=True)
class Program:
    """A process of a benchmark, in a session of its own. `port` is where it answers, 0 if nowhere."""

    name: str
    process: "subprocess.Popen[bytes]"
    log: Path
    port: int = 0

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def check(self) -> None:
        """BenchFailed with its last words if it has ended."""
        if self.process.poll() is not None:
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
            raise BenchFailed(f"{self.name} ended with status {self.process.returncode}:\n{tail}")

    def wait(self, seconds: float) -> None:
        """Until it ends by itself; BenchFailed if it does not, or fails."""
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise BenchFailed(f"{self.name} did not end within {seconds:.0f} s (its log: {self.log})") from None
        if status:
            self.check()

    def stop(self, seconds: float = 25) -> None:
        """SIGTERM, then SIGKILL to it and what it started."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                os.killpg(self.pid, signal.SIGKILL)
                self.process.wait()


@contextmanager
def running(
    stack: Stack, name: str, command: Sequence[str], env: Mapping[str, str], port: int = 0
) -> Iterator[Program]:
    """A process with its output in the stack's logs, stopped at the end."""
    program = start(stack, name, command, env, port)
    try:
        yield program
    finally:
        program.stop()


def start(stack: Stack, name: str, command: Sequence[str], env: Mapping[str, str], port: int = 0) -> Program:
    """Start a process from the checkout's root with exactly this environment on top of the plain one."""
    log = stack.site.log_file(f"bench-{name}")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**plain_environment(), **env},
            cwd=ROOT,
            start_new_session=True,
        )
    return Program(name, process, log, port)


def start_service(stack: Stack, python: str, module: Sequence[str], port_variable: str) -> Program:
    """Start `python -m module…`, one process of a service, on a free port."""
    (port,) = free_ports(1)
    env = {**stack.env(), port_variable: str(port), "MAILROOM_LOG_LEVEL": "warning"}
    return start(stack, "-".join(module), [python, "-m", *module], env, port)


def wait_ready(program: Program, seconds: float = 60, path: str = "/readyz") -> None:
    """Until it answers 200; BenchFailed after `seconds` or when it ends."""

    def answers() -> bool:
        program.check()
        try:
            return httpx.get(f"http://{HOST}:{program.port}{path}", timeout=3, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    wait_until(answers, f"{program.name} to be ready", seconds)


def wait_until(condition: Callable[[], bool], what: str, seconds: float, every: float = 0.1) -> None:
    """BenchFailed if `condition` does not come true within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise BenchFailed(f"waited {seconds:.0f} s for {what}")
        time.sleep(every)


def _stop_leftovers() -> None:
    """Stop what an earlier run left behind because it was killed, and remove its folder."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        owner = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdecimal() and Path(f"/proc/{owner}").exists():
            continue
        for name in PARTS:
            child = children.find(folder / "run" / f"{name}.json")
            if child:
                child.stop(5)
        shutil.rmtree(folder, ignore_errors=True)
