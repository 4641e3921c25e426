"""`python -m tests.suite`, behind `make test`: all tests but the long ones, in three steps.

1. unit tests, in two processes; the run ends here when one fails
2. tests of parts and of the services, in three: one has the services, and all of them wait about half of their time
3. tests that stop what the others stand on, in one

All three share one Kafka, one MongoDB and one emulator. Nothing is run twice, but with `--again`, as CI does: each test
of steps 2 and 3 that failed is run once more by itself. One that passes then is told as `FLAKY`, and does not count.

`--long`, behind `make test-long`: what a release needs beside these, the tests marked `long` and all mutations.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.suite import shared
from tests.suite.timings import read, table

ROOT = Path(__file__).resolve().parents[2]
NOTHING_TO_RUN = 5
"""Exit status of pytest."""


@dataclass(frozen=True, slots=True)
class Step:
    """Tests that are run together. `processes` 0: in the process of pytest itself."""

    name: str
    folders: tuple[str, ...]
    processes: int


UNIT = Step("unit tests", ("tests/unit",), 2)
STEPS = (
    Step("parts and services", ("tests/ports", "tests/integration", "tests/e2e", "tests/chaos"), 3),
    Step("outages of what all share", ("tests/alone",), 0),
)


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
    if not _pytest(UNIT):
        return False
    passed = [_pytest(step) for step in STEPS]
    return all(passed) or (again and _again(run))


def _long() -> bool:
    tested = _run("-m", "long", "--timeout=3600")
    print("\n-- mutations", flush=True)
    mutations = subprocess.run(
        [sys.executable, "-m", "tests.mutations"], cwd=ROOT, stdin=subprocess.DEVNULL, check=False
    )
    return tested and mutations.returncode == 0


def _pytest(step: Step) -> bool:
    print(f"\n-- {step.name}", flush=True)
    workers = [f"--numprocesses={step.processes}"] if step.processes else []
    return _run(*workers, *step.folders)


def _again(run: shared.Run) -> bool:
    """Whether all that failed passes now, each test by itself."""
    failed = list(dict.fromkeys(each.test for each in read(run.folder) if each.failed))
    flaky = [test for test in failed if _run(test)]
    print(*(f"FLAKY {test}" for test in flaky), sep="\n", flush=True)
    return bool(failed) and flaky == failed


def _run(*arguments: str) -> bool:
    done = subprocess.run([sys.executable, "-m", "pytest", *arguments], cwd=ROOT, stdin=subprocess.DEVNULL, check=False)
    return done.returncode in (0, NOTHING_TO_RUN)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
