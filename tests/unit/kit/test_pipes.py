"""Commands whose reader has gone end quietly; whatever else breaks is told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.local.site import ROOT

BEGINNING = "from services.kit.pipes import until_nobody_reads\nwith until_nobody_reads():\n    "


def closed(*command: str, **more: str) -> tuple[int, bytes]:
    """Run it with standard output a pipe that nobody reads; its exit status, and what it said on standard error."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, *command],
            stdout=writing,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "", **more},
            timeout=60,
            check=False,
        )
    finally:
        os.close(writing)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "line",
    [
        "print('x' * 100_000)",  # found while it is written
        "print('x')",  # found when the rest of the buffer goes out
        "print('x', flush=True); raise SystemExit(1)",
    ],
)
def test_nobody_reads_on(line: str) -> None:
    assert closed("-c", BEGINNING + line) == (0, b"")


def test_the_status_of_what_was_done_stays() -> None:
    assert closed("-c", BEGINNING + "print('x'); raise SystemExit(3)") == (3, b"")


def test_a_pipe_that_broke_elsewhere_is_an_error() -> None:
    program = BEGINNING + "raise BrokenPipeError('a connection')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, cwd=ROOT, timeout=60, check=False)
    assert done.returncode == 1
    assert b"a connection" in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("-m", "services.cli", "settings", "--markdown"),
        ("-m", "services.cli", "templates", "list"),  # a table
        ("-m", "services.cli", "templates", "list", "--json"),
        ("-m", "services.cli", "--help"),
        ("-m", "deploy.local", "env"),
        ("-m", "deploy.local", "--help"),
        ("-m", "deploy.compose", "--env"),
    ],
    ids=lambda command: " ".join(command[1:]),
)
def test_every_command_of_ours_ends_so(command: tuple[str, ...], tmp_path: Path) -> None:
    status, said = closed(*command, MAILROOM_STATE_DIR=str(tmp_path))
    assert said == b""
    assert status == 0 or "--help" in command  # typer's own help ends with 1


def test_the_status_of_a_stack_that_is_down_says_so_all_the_same(tmp_path: Path) -> None:
    assert closed("-m", "deploy.local", "status", MAILROOM_STATE_DIR=str(tmp_path)) == (1, b"")
