"""The import rules of `pyproject.toml` hold, and the ones that keep the reading side silent are among them."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SILENT = "The reading side calls no provider and publishes nothing"


def test_the_import_rules_hold() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]


def test_replay_can_reach_nobody() -> None:
    """A rebuild reads the whole log again: what it cannot import it cannot do a second time."""
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (silent,) = [rule for rule in rules if rule["name"] == SILENT]
    assert silent["source_modules"] == ["services.events"]
    assert {"services.email", "services.kit.aws", "services.kit.kafka.publisher"} <= set(silent["forbidden_modules"])
    assert not silent.get("ignore_imports")
