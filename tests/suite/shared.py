"""One Kafka, one MongoDB and one AWS emulator for a whole run of tests, however many processes the run has.

Whoever begins a run (`python -m tests.suite`, or pytest where it is called by itself) makes a folder and names it in
MAILROOM_TEST_FOLDER; the test processes find it there. What they share is started by the first one that needs it, and
is stopped with all else when the run ends. Databases, topics, groups and buckets of their own keep tests apart.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from deploy.local import children
from deploy.local.children import Child
from deploy.local.parts import PARTS
from deploy.local.site import Site, StackError, remember_ports, throwaway_site
from deploy.local.stack import Stack, needs_of
from deploy.processes import BACKING

FOLDER, PORT_SHARE = "MAILROOM_TEST_FOLDER", "MAILROOM_PORT_SHARE"
SHARES = 8
PREFIX = "mailroom-test-"

EXTRA = {
    # What a killed receiver held comes again after 15 s instead of a minute, so that tests of crashes wait less.
    "MAILROOM_QUEUE_VISIBILITY_SECONDS": "15",
    "MAILROOM_SESSION_COOKIE": "mailroom_session",
}


@dataclass(frozen=True, slots=True)
class Run:
    """A run of tests, by its folder: one folder inside it for each stack.

    `share`, from 0 to 7, is which of all ports its processes take: two that choose at the same moment never choose the
    same. That of a worker is another one.
    """

    folder: Path
    share: int = 0

    @property
    def environment(self) -> dict[str, str]:
        """What processes of the run have in their environment."""
        return {FOLDER: str(self.folder), PORT_SHARE: f"{self.share}/{SHARES}"}

    def stack(self) -> Stack:
        """The stack with what the run shares: all of it belongs to a process that has the run to itself."""
        return Stack(throwaway_site(self.folder / "shared", os.environ), extra=EXTRA)

    def stack_of(self, worker: str) -> Stack:
        """The stack of one of several processes, on what all of them share: with an account of the emulator and a
        simulator of its own.
        """
        shared = self.stack()
        own = throwaway_site(self.folder / worker, os.environ)
        ports = {**own.ports, **{name: shared.site.ports[name] for part in BACKING for name in PARTS[part].ports}}
        account = f"{1 + int(worker.removeprefix('gw')):012d}"
        return OnShared(replace(own, ports=ports, aws_access_key=account), shared, self.folder / "lock")

    def end(self, *, keep: bool) -> None:
        """Stop all that was started, by process id. `keep` leaves logs and data, if there are any, and says where."""
        _stop(self.folder)
        if keep and any(self.folder.glob("*/logs")):
            print(f"\nlogs and data of the tests' stacks are in {self.folder}")
        else:
            shutil.rmtree(self.folder, ignore_errors=True)


def begin() -> Run:
    """The run of this process and of those that it starts."""
    run = make()
    os.environ |= run.environment
    return run


def make(share: int = 0) -> Run:
    """A new run with nothing started, on ports of this share. What killed runs left behind is stopped and removed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        owner = folder.name.removeprefix(PREFIX).partition("-")[0]
        if not (owner.isdecimal() and Path(f"/proc/{owner}").exists()):
            _stop(folder)
            if not os.environ.get("MAILROOM_TEST_KEEP"):
                shutil.rmtree(folder, ignore_errors=True)
    run = Run(Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-")), share)
    remember_ports(throwaway_site(run.folder / "shared", os.environ | run.environment))
    return run


def _stop(folder: Path) -> None:
    """Stop every process of every stack in this folder: services before what they stand on."""
    for name in reversed(PARTS):
        for record in folder.glob(f"*/run/{name}.json"):
            child = children.find(record)
            if child is not None:
                child.stop(PARTS[name].stop_seconds)
    for record in folder.glob(
        "*/run/*.json"
    ):  # nodes that a test has beside them, and which leave nothing to be drained
        child = children.find(record)
        if child is not None:
            child.stop(0)


class OnShared(Stack):
    """A stack whose Kafka, MongoDB and emulator are another one's: it starts them where they are needed, and never
    stops them.
    """

    def __init__(self, site: Site, shared: Stack, lock: Path) -> None:
        super().__init__(site, extra=EXTRA)
        self._shared = shared
        self._lock = lock

    def start(self, names: Iterable[str] | None = None, *, with_needs: bool = True) -> None:
        """As `Stack.start`; of several processes that need the same part, one starts it and the others wait."""
        chosen = list(PARTS) if names is None else list(names)
        existing = [name for name in chosen if name in PARTS]  # `Stack.start` complains of others
        needed = needs_of(existing) if with_needs else existing
        with self._alone():
            self._shared.start([name for name in needed if name in BACKING], with_needs=False)
        super().start(chosen, with_needs=with_needs)

    def stop(self, names: Iterable[str] | None = None) -> None:
        """As `Stack.stop`, of its own parts alone: what is shared goes on."""
        super().stop([name for name in (PARTS if names is None else names) if name not in BACKING])

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """As `Stack.kill`, of its own parts alone."""
        if name in BACKING:
            raise StackError(f"{name} is everybody's: a test that kills it lies in tests/alone, or has one of its own.")
        super().kill(name, number)

    def child(self, name: str) -> Child | None:
        """As `Stack.child`."""
        return self._shared.child(name) if name in BACKING else super().child(name)

    def logs(self, name: str) -> str:
        """As `Stack.logs`."""
        return self._shared.logs(name) if name in BACKING else super().logs(name)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self._lock.open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
