"""What processes cost: CPU seconds and peak memory from /proc, children and dead ones included; and what machine it is.

```python
with Meter({"email": [pid], "kafka": [pid]}) as meter:
    ...                                   # meter.add("email", another_pid) as processes come
usage = meter.usage                       # {"email": Usage(cpu_seconds=…, peak_mb=…), …}; meter.elsewhere_seconds
```
"""

import contextlib
import os
import platform
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_TICK = os.sysconf("SC_CLK_TCK")
_SAMPLE_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Usage:
    """What a group of processes used.

    Attributes:
        cpu_seconds: user and system time of its processes and of all that they started, dead ones included.
        peak_mb: the sum of its processes' peaks of resident memory (VmHWM) while it was watched; pages that processes
            share are counted in each.
        processes: how many were seen at a time, at most.
    """

    cpu_seconds: float
    peak_mb: float
    processes: int


@dataclass(slots=True)
class _Root:
    """One process whose family is watched. Its CPU only grows: dead children are counted by their parents."""

    pid: int
    at_start: float
    latest: float
    peaks: dict[int, float] = field(default_factory=dict)
    processes: int = 0


class Meter:
    """Watches groups of processes between `__enter__` and `__exit__`; a root that dies keeps its last sample.

    A root's last quarter of a second may be missed if it dies; a child's never, while its parent lives and waits for
    it.
    """

    def __init__(self, groups: Mapping[str, Iterable[int]]) -> None:
        self._wanted = {name: list(pids) for name, pids in groups.items()}
        self._roots: dict[str, list[_Root]] = {name: [] for name in self._wanted}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="meter", daemon=True)
        self.usage: dict[str, Usage] = {}
        self.elsewhere_seconds = 0.0
        """CPU seconds of the machine that none of the groups used: other programs', and the kernel's own."""
        self.wall_seconds = 0.0

    def add(self, name: str, pid: int) -> None:
        """Watch another process from its beginning: all of its CPU so far counts."""
        with self._lock:
            self._roots.setdefault(name, []).append(_Root(pid, 0.0, 0.0))

    def __enter__(self) -> Self:
        families = _families()
        for name, pids in self._wanted.items():
            for pid in pids:
                for each in families.get(pid, ()):
                    # Peaks begin now; where that is not allowed they are since the process began.
                    with contextlib.suppress(OSError):
                        Path(f"/proc/{each}/clear_refs").write_text("5")
                cpu = _cpu_seconds(families.get(pid, ()))
                self._roots[name].append(_Root(pid, cpu, cpu))
        self._began, self._busy = time.monotonic(), _busy_seconds()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._look()
        self.wall_seconds = time.monotonic() - self._began
        self.usage = {
            name: Usage(
                round(sum(root.latest - root.at_start for root in roots), 3),
                round(sum(sum(root.peaks.values()) for root in roots), 1),
                sum(root.processes for root in roots),
            )
            for name, roots in self._roots.items()
        }
        known = sum(each.cpu_seconds for each in self.usage.values())
        self.elsewhere_seconds = round(max(0.0, _busy_seconds() - self._busy - known), 2)

    def _sample(self) -> None:
        while not self._over.wait(_SAMPLE_SECONDS):
            self._look()

    def _look(self) -> None:
        families = _families()
        with self._lock:
            for roots in self._roots.values():
                for root in roots:
                    family = families.get(root.pid, ())
                    root.latest = max(root.latest, _cpu_seconds(family))
                    root.processes = max(root.processes, len(family))
                    for pid in family:
                        root.peaks[pid] = max(root.peaks.get(pid, 0.0), _peak_mb(pid))


def machine() -> dict[str, Any]:
    """What the figures were measured on, without names: processor, memory, system, versions of ours, time, commit."""
    cpus = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    memory = next(int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal"))
    return {
        "processor": cpus[0] if cpus else platform.machine(),
        "cores": os.cpu_count(),
        "memoryGb": round(memory / 1024 / 1024, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "loadBefore": round(os.getloadavg()[0], 2),
        "at": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
    }


def as_data(usage: Mapping[str, Usage]) -> dict[str, Any]:
    """For JSON."""
    return {name: asdict(each) for name, each in usage.items()}


def _families() -> dict[int, list[int]]:
    """Every process with all its descendants, itself first."""
    children: dict[int, list[int]] = {}
    pids: list[int] = []
    for entry in os.listdir("/proc"):  # noqa: PTH208 - a few hundred entries, several times a second
        if entry.isdecimal() and (stat := _stat(int(entry))):
            pids.append(int(entry))
            children.setdefault(int(stat[1]), []).append(int(entry))
    families: dict[int, list[int]] = {}
    for pid in pids:
        family = [pid]
        for member in family:
            family += children.get(member, ())
        families[pid] = family
    return families


def _cpu_seconds(pids: Iterable[int]) -> float:
    ticks = 0
    for pid in pids:
        if stat := _stat(pid):
            # utime, stime, and those of children that it waited for: fields 14 to 17 of proc(5).
            ticks += sum(int(value) for value in stat[11:15])
    return ticks / _TICK


def _peak_mb(pid: int) -> float:
    for line in _lines(f"/proc/{pid}/status"):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/<pid>/stat from the third on."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _busy_seconds() -> float:
    values = [int(value) for value in _lines("/proc/stat")[0].split()[1:]]
    idle = values[3] + values[4]
    return (sum(values[:8]) - idle) / _TICK


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _commit() -> str:
    found = subprocess.run(
        ["git", "log", "-1", "--format=%h"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() or "unknown"
