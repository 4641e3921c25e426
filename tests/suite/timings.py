"""What each test took and how it ended: written by pytest, read by `python -m tests.suite`."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

SLOWEST = 30


@dataclass(frozen=True, slots=True)
class Timing:
    """One test, with its fixtures. `seconds`: set-up, call and tear-down together."""

    test: str
    seconds: float
    failed: bool

    @property
    def folder(self) -> str:
        """Where it lies: the first three parts of its path at most, without the file."""
        return "/".join(self.test.partition("::")[0].split("/")[:-1][:3])


class Timings:
    """A plugin of pytest that appends to `timings` in a folder; of several processes, of the one that gathers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seconds: dict[str, float] = defaultdict(float)
        self._failed: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One phase of one test."""
        self._seconds[report.nodeid] += report.duration
        if report.failed:
            self._failed.add(report.nodeid)
        if report.when == "teardown":
            failed = report.nodeid in self._failed
            add(self._folder, [Timing(report.nodeid, self._seconds.pop(report.nodeid), failed)])


def add(folder: Path, timings: Iterable[Timing]) -> None:
    """Write them there, behind what is there."""
    with (folder / "timings").open("a") as out:
        out.writelines(json.dumps(asdict(each)) + "\n" for each in timings)


def read(folder: Path) -> list[Timing]:
    """All that were written there, in the order of their ends."""
    file = folder / "timings"
    return [Timing(**json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []


def table(timings: Iterable[Timing]) -> Iterator[str]:
    """The slowest tests, and what each folder takes, as lines for people."""
    everything = sorted(timings, key=lambda each: -each.seconds)
    yield f"The {min(SLOWEST, len(everything))} slowest tests:"
    for each in everything[:SLOWEST]:
        yield f"  {each.seconds:6.1f} s  {each.test}"
    folders: dict[str, list[float]] = defaultdict(list)
    for each in everything:
        folders[each.folder].append(each.seconds)
    yield "By folder:"
    for folder, seconds in sorted(folders.items(), key=lambda item: -sum(item[1])):
        yield f"  {sum(seconds):6.0f} s  {len(seconds):5} tests  {folder}"
