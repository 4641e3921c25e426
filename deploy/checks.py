"""`make check`: every check that needs no running stack, two at a time, with the output of those that fail.

python -m deploy.checks            all
python -m deploy.checks lint types only these
"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from services.kit.pipes import until_nobody_reads

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent


@dataclass(frozen=True, slots=True)
class Check:
    """A command that fails when something is wrong, and what to do then."""

    name: str
    command: tuple[str, ...]
    remedy: str


def _tool(name: str, *arguments: str) -> tuple[str, ...]:
    return (str(BIN / name), *arguments)


def _module(name: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", name, *arguments)


PACKAGES = [name for name in ("contracts", "services", "deploy", "tests", "bench") if any((ROOT / name).rglob("*.py"))]
CHECKS = (
    Check(
        "unit", _module("pytest", "tests/unit", "-q", "-p", "no:cacheprovider", "--numprocesses=2"), "mend what fails"
    ),
    Check("types", _tool("mypy", "--strict", *PACKAGES), "mend the types"),
    Check("format", _tool("ruff", "format", "--check", "."), "run `make format`"),
    Check("lint", _tool("ruff", "check", "."), "run `make format`, mend the rest"),
    Check(
        "imports",
        _tool("lint-imports", "--no-cache", "--no-logo"),
        "keep the layers of pyproject.toml, or write an ADR",
    ),
    Check(
        "template",
        _tool("cfn-lint", *(str(each.relative_to(ROOT)) for each in sorted((ROOT / "deploy/aws").glob("*.yaml")))),
        "mend the CloudFormation templates",
    ),
    Check(
        "compose",
        _tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yml"),
        "mend deploy/compose.py, then run `make compose`",
    ),
    Check("drift", _module("deploy.compose", "--check"), "run `make compose`"),
    Check("dockerfile", _tool("hadolint", "deploy/docker/Dockerfile"), "mend the Dockerfile"),
    Check("contracts", _module("services.cli", "contracts", "check"), "run `make schemas`, and look at what changed"),
)


def run(check: Check) -> bool:
    """Run one check, say how it went, and show its output if it failed."""
    began = time.monotonic()
    done = subprocess.run(
        check.command,
        cwd=ROOT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - began
    if done.returncode == 0:
        last = done.stdout.strip().splitlines()[-1:] if check.name == "unit" else []
        print(f"  {check.name:<11} ok      {seconds:5.1f} s  {''.join(last)}", flush=True)
        return True
    print(f"  {check.name:<11} FAILED  {seconds:5.1f} s\n{done.stdout.rstrip()}\n  → {check.remedy}\n", flush=True)
    return False


def main(names: Sequence[str]) -> int:
    unknown = set(names) - {check.name for check in CHECKS}
    if unknown:
        known = ", ".join(check.name for check in CHECKS)
        print(f"No check is called {', '.join(sorted(unknown))}; there are {known}.", file=sys.stderr)
        return 2
    chosen = [check for check in CHECKS if not names or check.name in names]
    with ThreadPoolExecutor(max_workers=2) as pool:
        passed = list(pool.map(run, chosen))
    print(f"{passed.count(True)} of {len(passed)} checks passed.")
    return 0 if all(passed) else 1


if __name__ == "__main__":
    with until_nobody_reads():
        sys.exit(main(sys.argv[1:]))
