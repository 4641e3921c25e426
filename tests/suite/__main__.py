"""`python -m tests.suite`, behind `make test`: all tests but the long ones, in two steps.

1. unit tests, in two processes; the run ends here when one fails
2. beside each other: tests of parts, in two processes; tests of the whole stack with files, and then those that stop
   Kafka and MongoDB, in one; the other tests of the whole stack, in one. All of them wait for about half of their time

Nothing is run twice, but with `--again`, as CI does: each test of step 2 that failed is run once more by itself. One
that passes then is told as `FLAKY`, and does not count.

`--long`, behind `make test-long`: what a release needs beside these, the tests marked `long` and all mutations.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from deploy.local.site import StackError
from deploy.processes import BACKING
from tests.suite import shared
from tests.suite.timings import add, read, table

ROOT = Path(__file__).resolve().parents[2]
PASSED, TESTS_FAILED = 0, 1
"""How pytest ends. Another status means that it did not run what it should."""


def _paths(pattern: str) -> list[str]:
    return sorted(str(each.relative_to(ROOT)) for each in ROOT.glob(pattern))


FILES = ("tests/e2e/js_client", "tests/e2e/test_scans.py", *_paths("tests/e2e/test_files*.py"))
MAIL = ("tests/e2e", "tests/chaos", *(f"--ignore={each}" for each in FILES))
"""Tests of the whole stack: with files, and the others."""

ALONE = "tests/alone"
"""Tests that stop what a stack stands on. They follow those with files, whose stack nobody shares."""

YIELDING = 5
"""Niceness of the tests of parts: the whole stacks' take longer, so what they need they get first."""

PARTS = ("--numprocesses=2", "--dist=loadfile", "tests/ports", "tests/integration")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.suite", description=__doc__)
    parser.add_argument("--again", action="store_true", help="run what failed once more, and tell what then passes")
    parser.add_argument("--long", action="store_true", help="the long tests and all mutations instead")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    run = shared.begin()
    passed = False
    try:
        passed = _long() if options.long else _usual(run, again=options.again)
    finally:
        timings = read(run.folder)
        run.end(keep=not passed or bool(os.environ.get("MAILROOM_TEST_KEEP")))
    print(*table(timings), sep="\n")
    failed = list(dict.fromkeys(each.test for each in timings if each.failed))
    minutes = (time.monotonic() - began) / 60
    print(f"\n{len(timings)} tests took {minutes:.1f} minutes; {len(failed)} failed", *failed, sep="\n  ")
    return 0 if passed else 1


def _usual(run: shared.Run, *, again: bool) -> bool:
    _tell("unit tests")
    if _run("--numprocesses=2", "tests/unit") != PASSED:
        return False
    _tell("parts; beside them the whole stack, told at the end")
    ended = _side_by_side(run)
    return ended == {PASSED} or (again and ended <= {PASSED, TESTS_FAILED} and _again(run))


def _side_by_side(run: shared.Run) -> set[int]:
    """All of step 2: how its processes ended. Tests with files have a Kafka, MongoDB and emulator of their own, since
    the services' topics exist once.
    """
    of_files = shared.make(share=shared.SHARES - 1)
    ended = set[int]()
    try:
        run.stack().start(BACKING)  # not by two processes at once
        with _beside(run, *MAIL) as mail, _beside(of_files, *FILES, ALONE) as files:
            ended = {_run(*PARTS, nice=YIELDING), mail.wait(), files.wait()}
        for each in (run, of_files):
            print(_output(each).read_text(errors="replace"), flush=True)
        add(run.folder, read(of_files.folder))
    finally:
        of_files.end(keep=not ended <= {PASSED})
    return ended


@contextmanager
def _beside(run: shared.Run, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """pytest on that run, while inside; what it says goes into a file."""
    with _output(run).open("wb") as out:
        process = subprocess.Popen(
            _command(*arguments),
            cwd=ROOT,
            env=os.environ | run.environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def _output(run: shared.Run) -> Path:
    return run.folder / "beside.output"


def _long() -> bool:
    tested = _run("-m", "long", "--timeout=3600") == PASSED
    _tell("mutations")
    mutations = subprocess.run(
        [sys.executable, "-m", "tests.mutations"], cwd=ROOT, stdin=subprocess.DEVNULL, check=False
    )
    return tested and mutations.returncode == 0


def _again(run: shared.Run) -> bool:
    """Whether all that failed passes now, each test by itself."""
    failed = list(dict.fromkeys(each.test for each in read(run.folder) if each.failed))
    flaky = [test for test in failed if _run(test) == PASSED]
    print(*(f"FLAKY {test}" for test in flaky), sep="\n", flush=True)
    return flaky == failed


def _tell(step: str) -> None:
    print(f"\n-- {step}", flush=True)


def _run(*arguments: str, nice: int = 0) -> int:
    """How pytest ended; `nice`: how much it yields to others."""
    process = subprocess.Popen(_command(*arguments), cwd=ROOT, stdin=subprocess.DEVNULL)
    if nice:
        os.setpriority(os.PRIO_PROCESS, process.pid, nice)  # before it has children, which inherit it
    return process.wait()


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pytest", *arguments]


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except StackError as error:
        sys.exit(f"\nThe tests' stack did not start. {error}")
