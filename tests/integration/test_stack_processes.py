"""Processes of the stack are found again by their records, and only ever ours are signalled."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from deploy.local import children
from deploy.local.children import Child

STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); time.sleep(600)"
)
OBEDIENT = "import time; print('on', flush=True); time.sleep(600)"


def start(folder: Path, program: str) -> Child:
    log = folder / "it.log"
    child = children.start(folder / "it.json", log, [sys.executable, "-c", program], dict(os.environ), folder)
    while "on" not in log.read_text():
        assert child.alive(), log.read_text()
    return child


def test_a_started_process_is_found_by_its_record_until_it_is_stopped(tmp_path: Path) -> None:
    child = start(tmp_path, OBEDIENT)
    assert children.find(tmp_path / "it.json") == child
    assert child.stop(60) is True
    assert children.find(tmp_path / "it.json") is None
    assert child.stop(60) is True


def test_one_that_ignores_sigterm_is_killed_after_its_time(tmp_path: Path) -> None:
    child = start(tmp_path, STUBBORN)
    assert child.stop(0.2) is False
    assert not child.alive()


def test_a_killed_process_counts_as_gone_at_once(tmp_path: Path) -> None:
    child = start(tmp_path, OBEDIENT)
    child.signal(signal.SIGKILL)
    assert child.wait_gone(60)
    assert children.find(tmp_path / "it.json") is None


@pytest.mark.parametrize(("shares", "nice"), [(1024, 0), (4096, 0), (128, 9), (1, 19)])
def test_what_has_few_shares_yields_to_others(tmp_path: Path, shares: int, nice: int) -> None:
    program = "import os, time; print('on', os.nice(0), flush=True); time.sleep(600)"
    log, ours = tmp_path / "it.log", os.nice(0)
    child = children.start(
        tmp_path / "it.json", log, [sys.executable, "-c", program], dict(os.environ), tmp_path, shares
    )
    try:
        while "on" not in log.read_text():
            assert child.alive(), log.read_text()
        assert os.getpriority(os.PRIO_PROCESS, child.pid) == max(ours, nice)
        group = Path(f"/proc/{child.pid}/autogroup")
        if group.exists() and nice:
            assert group.read_text().split()[-1] == str(nice)
    finally:
        child.stop(60)


@pytest.mark.parametrize("field", ["started", "boot"])
def test_another_program_under_a_recorded_pid_is_left_alone(tmp_path: Path, field: str) -> None:
    child = start(tmp_path, OBEDIENT)
    try:
        record = json.loads((tmp_path / "it.json").read_text())
        record[field] = record[field] + 1 if field == "started" else "another boot"
        (tmp_path / "old.json").write_text(json.dumps(record))
        assert children.find(tmp_path / "old.json") is None
        Child(**record).signal(signal.SIGKILL)
        assert Child(**record).stop(0.2) is True
        assert child.alive()
    finally:
        child.stop(60)


@pytest.mark.parametrize("text", ["", "no json", "[]", '{"pid": 1}'])
def test_a_record_that_cannot_be_read_names_nobody(tmp_path: Path, text: str) -> None:
    (tmp_path / "it.json").write_text(text)
    assert children.find(tmp_path / "it.json") is None
    assert children.find(tmp_path / "missing.json") is None


def test_a_log_that_grew_large_is_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "LARGEST_LOG", 10)
    (tmp_path / "it.log").write_text("what was written before\n")
    start(tmp_path, OBEDIENT).stop(60)
    assert (tmp_path / "it.log").read_text() == "on\n"
    assert (tmp_path / "it.log.1").read_text() == "what was written before\n"
