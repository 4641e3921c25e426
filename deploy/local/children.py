"""Processes that outlive the command which started them, found again by a record in the state folder.

A record names a process by pid, start time and boot, so that a pid which was given to another program
in the meantime is never signalled.
"""

import contextlib
import json
import math
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from deploy.local.site import HOST
from deploy.processes import FIRST

LARGEST_LOG = 20_000_000
_ENDED = "ZX"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_started: dict[int, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True, slots=True)
class Child:
    """A process of ours. `started` is its start time in clock ticks since `boot`."""

    pid: int
    started: int
    boot: str

    def alive(self) -> bool:
        """True while it runs; false for a dead one, a zombie, and another program under its pid."""
        handle = _started.get(self.pid)
        if handle is not None and handle.poll() is not None:
            del _started[self.pid]
        found = _stat(self.pid)
        return found is not None and found == self.started and _boot_id() == self.boot

    def signal(self, number: signal.Signals) -> None:
        """Signal it and whatever it started; nothing happens if it is gone."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def wait_gone(self, seconds: float) -> bool:
        """Wait until it is gone; False if it still runs after `seconds`."""
        deadline = time.monotonic() + seconds
        while self.alive():
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
        return True

    def stop(self, seconds: float) -> bool:
        """SIGTERM, then SIGKILL after `seconds`. True if it went by itself."""
        if not self.alive():
            return True
        self.signal(signal.SIGCONT)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
        if self.wait_gone(seconds):
            return True
        self.signal(signal.SIGKILL)
        self.wait_gone(5)
        return False

    def memory_mb(self) -> int:
        """Resident memory in MB, 0 if it is gone."""
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) // 1024
        return 0


def start(
    record: Path,
    log: Path,
    command: Sequence[str],
    env: Mapping[str, str],
    folder: Path,
    cpu_shares: int = FIRST,
) -> Child:
    """Start `command` in a session of its own, its output appended to `log`, and write its record.

    `cpu_shares`: its weight when more CPU is wanted than there is; 1024 is the usual one, and less yields to others.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    record.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > LARGEST_LOG:
        log.replace(log.with_suffix(".log.1"))
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(env),
            cwd=folder,
            start_new_session=True,
        )
    _yield_to_others(process.pid, cpu_shares)
    _started[process.pid] = process
    child = Child(process.pid, _stat(process.pid) or 0, _boot_id())
    part = record.with_suffix(".part")
    part.write_text(json.dumps(asdict(child)))
    part.replace(record)
    return child


def _yield_to_others(pid: int, cpu_shares: int) -> None:
    """Weight as niceness, each step of which is a quarter (sched(7)). Where Linux groups processes by session, as it
    does on most desktops, the niceness of the group counts and that of the process does not.
    """
    nice = min(19, round(math.log(FIRST / cpu_shares, 1.25)))
    if nice > 0:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PGRP, pid, nice)
        with contextlib.suppress(OSError):
            Path(f"/proc/{pid}/autogroup").write_text(str(nice))


def find(record: Path) -> Child | None:
    """The living process behind a record, or None."""
    try:
        child = Child(**json.loads(record.read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return child if child.alive() else None


def listens(port: int) -> bool:
    """True if something takes connections on a loopback port."""
    try:
        with socket.create_connection((HOST, port), timeout=1):
            return True
    except OSError:
        return False


def port_is_free(port: int) -> bool:
    """True if a server could listen on a loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _stat(pid: int) -> int | None:
    """Start time of a process in ticks; None if there is none or all its threads have ended.

    A killed process of many threads shows its first one as a zombie while others still hold its files and ports.
    """
    fields = _fields(f"/proc/{pid}/stat")
    if fields is None:
        return None
    if fields[0] not in _ENDED:
        return int(fields[19])
    with contextlib.suppress(OSError):
        others = (_fields(f"{thread}/stat") for thread in Path(f"/proc/{pid}/task").iterdir())
        if any(other is not None and other[0] not in _ENDED for other in others):
            return int(fields[19])
    return None


def _fields(stat: str) -> list[str] | None:
    """What a `stat` file says after the name in brackets, state first; None if there is no such process."""
    try:
        return Path(stat).read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _boot_id() -> str:
    return _BOOT_ID.read_text().strip()
