"""`make test` stops at unit tests, repeats nothing unless asked to, and tells what passed only then."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploy.checks import CHECKS
from tests.suite import __main__ as suite
from tests.suite import shared
from tests.suite.timings import Timing, read, table

CRASHED = 3
FLAKY, BROKEN = "tests/e2e/test_a.py::test_flaky", "tests/ports/test_b.py::test_broken"


class Pytest:
    """In place of pytest: the call for a step that is to fail fails, and the given tests with it."""

    def __init__(self, folder: Path, failing: str, tests: tuple[str, ...]) -> None:
        self.folder, self.failing, self.tests = folder, failing, tests
        self.calls: list[tuple[str, ...]] = []

    def __call__(self, *arguments: str) -> int:
        self.calls.append(arguments)
        if self.failing in arguments:
            with (self.folder / "timings").open("a") as out:
                out.writelines(json.dumps({"test": each, "seconds": 1.0, "failed": True}) + "\n" for each in self.tests)
            return suite.TESTS_FAILED if self.tests else CRASHED
        return suite.TESTS_FAILED if BROKEN in arguments else suite.PASSED

    def side_by_side(self, _: shared.Run) -> set[int]:
        return {self(*each) for each in (suite.PARTS, suite.MAIL, (*suite.FILES, suite.ALONE))}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> shared.Run:
    run = shared.Run(tmp_path)
    monkeypatch.setattr(shared, "begin", lambda: run)
    monkeypatch.setattr(shared.Run, "end", lambda self, keep: None)
    return run


def running(run: shared.Run, monkeypatch: pytest.MonkeyPatch, failing: str, *tests: str) -> Pytest:
    fake = Pytest(run.folder, failing, tests)
    monkeypatch.setattr(suite, "_run", fake)
    monkeypatch.setattr(suite, "_side_by_side", fake.side_by_side)
    return fake


def test_unit_tests_that_fail_end_the_run(run: shared.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = running(run, monkeypatch, "tests/unit", "tests/unit/test_c.py::test_c")
    assert suite.main(["--again"]) == 1
    assert len(fake.calls) == 1


def test_nothing_is_run_twice_unless_asked_for(
    run: shared.Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = running(run, monkeypatch, "tests/e2e", FLAKY)
    assert suite.main([]) == 1
    assert fake.calls[-1][-1] == suite.ALONE, "the others are run all the same"
    assert "FLAKY" not in capsys.readouterr().out


def test_what_passes_by_itself_is_told(
    run: shared.Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = running(run, monkeypatch, "tests/e2e", FLAKY)
    assert suite.main(["--again"]) == 0
    assert fake.calls[-1] == (FLAKY,)
    assert f"FLAKY {FLAKY}\n" in capsys.readouterr().out


def test_one_that_fails_again_fails_the_run(
    run: shared.Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    running(run, monkeypatch, "tests/e2e", FLAKY, BROKEN)
    assert suite.main(["--again"]) == 1
    told = capsys.readouterr().out
    assert f"FLAKY {FLAKY}\n" in told
    assert f"FLAKY {BROKEN}" not in told


def test_a_step_that_failed_without_a_failed_test_fails_the_run(
    run: shared.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    running(run, monkeypatch, "tests/e2e")
    assert suite.main(["--again"]) == 1


def test_the_table_has_the_slowest_and_every_folder(run: shared.Run) -> None:
    timings = [Timing(f"tests/unit/kit/test_{n}.py::test", n, failed=False) for n in range(40)]
    (run.folder / "timings").write_text(
        "".join(json.dumps({"test": t.test, "seconds": t.seconds, "failed": False}) + "\n" for t in timings)
    )
    assert read(run.folder) == timings
    lines = list(table(timings))
    assert sum(" s  tests/unit/kit/test_" in line for line in lines) == 30
    assert "780 s     40 tests  tests/unit/kit" in lines[-1]


def test_ci_names_checks_that_there_are() -> None:
    script = (suite.ROOT / ".ci/run").read_text()
    (named,) = [line.split("deploy.checks", 1)[1].split() for line in script.splitlines() if "-m deploy.checks" in line]
    assert {*named, "unit"} == {check.name for check in CHECKS}
