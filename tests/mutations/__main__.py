"""`python -m tests.mutations [names]`: break each invariant in a copy of the checkout, and see its tests fail.

Every mutation is tried by itself: in an untouched copy its tests must pass, with the change each of them must fail.
Exit status 1 when one survives. Two are tried at a time, each in a copy, on a Kafka, MongoDB and emulator of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from xml.etree import ElementTree as ET

from services.kit.pipes import until_nobody_reads
from tests.mutations.catalogue import MUTATIONS
from tests.mutations.mutation import Mutation
from tests.suite import shared

ROOT = Path(__file__).resolve().parents[2]
RUN_SECONDS = 600
AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy of the checkout, and what its tests stand on."""

    checkout: Path
    run: shared.Run


def main(names: Sequence[str]) -> int:
    """Try the named mutations (`3` names all of invariant 3), or all of them."""
    chosen = [each for each in MUTATIONS if not names or {each.name, str(each.invariant)} & set(names)]
    unknown = set(names) - {each.name for each in MUTATIONS} - {str(each.invariant) for each in MUTATIONS}
    if unknown:
        print(f"no mutation is called {', '.join(sorted(unknown))}: 3k is one, and 3 all of invariant 3")
        return 2
    with _copies() as copies, ThreadPoolExecutor(AT_ONCE) as pool:

        def caught(mutation: Mutation) -> bool:
            copy = copies.get()
            try:
                return _is_caught(copy, mutation)
            finally:
                copies.put(copy)

        copy = copies.get()
        sound = _failures(copy, {test for each in chosen for test in each.tests})
        copies.put(copy)
        if sound:
            print("these fail without any change:", *sorted(sound), sep="\n  ")
            return 1
        survivors = [each.name for each, noticed in zip(chosen, pool.map(caught, chosen), strict=True) if not noticed]
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} mutations were noticed by every test named for them")
    if survivors:
        print("not noticed:", ", ".join(survivors))
    return bool(survivors)


@contextmanager
def _copies() -> Iterator[SimpleQueue[Copy]]:
    free = SimpleQueue[Copy]()
    with tempfile.TemporaryDirectory(prefix="mailroom-mutants-") as folder:
        runs = [shared.make(share) for share in range(AT_ONCE)]
        try:
            for number, run in enumerate(runs):
                checkout = Path(folder) / str(number)
                _copy_to(checkout)
                free.put(Copy(checkout, run))
            yield free
        finally:
            for run in runs:
                run.end(keep=False)


def _is_caught(copy: Copy, mutation: Mutation) -> bool:
    path = copy.checkout / mutation.file
    original = path.read_text()
    if original.count(mutation.old) != 1:
        print(f"{mutation.name:4} its place is not found once in {mutation.file}")
        return False
    began = time.monotonic()
    path.write_text(original.replace(mutation.old, mutation.new))
    try:
        failed = _failures(copy, mutation.tests)
    finally:
        path.write_text(original)
    passed = [test for test in mutation.tests if test not in failed]
    verdict = "noticed" if not passed else f"SURVIVES {', '.join(passed)}"
    print(f"{mutation.name:4} {time.monotonic() - began:5.1f} s  {verdict}  ({mutation.breaks})", flush=True)
    return not passed


def _failures(copy: Copy, tests: Iterable[str]) -> set[str]:
    """Those of `tests` (without parameters) that do not pass in `copy`."""
    wanted = sorted(set(tests))
    report = copy.checkout / "report.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "", f"--junitxml={report}"]
    done = subprocess.run(
        [*command, "--timeout=150", *wanted],
        cwd=copy.checkout,
        env={**_environment(), **copy.run.environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    if not report.exists():
        raise SystemExit(f"pytest did not run:\n{done.stdout[-3000:]}{done.stderr[-2000:]}")
    passed: set[str] = set()
    failed: set[str] = set()
    for case in ET.parse(report).iter("testcase"):  # noqa: S314 - pytest wrote it a moment ago
        if case.find("skipped") is None:
            (passed if case.find("failure") is None and case.find("error") is None else failed).add(_name(case))
    return {test for test in wanted if test in failed or test not in passed}


def _name(case: ET.Element) -> str:
    """`file::Class::test` of a case, without parameters."""
    parts = case.get("classname", "").split(".")
    for length in range(len(parts), 0, -1):
        path = "/".join(parts[:length]) + ".py"
        if (ROOT / path).exists():
            return "::".join([path, *parts[length:], case.get("name", "").partition("[")[0]])
    return "(collection)"


def _environment() -> dict[str, str]:
    """The caller's, with downloads from the checkout's own cache."""
    cache = os.environ.get("MAILROOM_CACHE_DIR") or str(ROOT / ".mailroom" / "cache")
    return {**os.environ, "MAILROOM_CACHE_DIR": cache}


def _copy_to(copy: Path) -> None:
    """What git knows or would know of the checkout, as it lies there now."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        source = ROOT / name
        if name and source.is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy / name)
    (copy / ".venv").symlink_to(ROOT / ".venv")


if __name__ == "__main__":
    with until_nobody_reads():
        sys.exit(main(sys.argv[1:]))
