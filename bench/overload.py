"""Does a process that is asked for three times what it can answer still answer what it can?

Callers of `POST /api/email` and busy loops have one core, the service, Kafka and MongoDB the other. The best of some
steady crowds is the baseline; then mails come at three times that rate, whether or not earlier ones were answered; then
the best crowd again, five seconds later. The same again without a bound on requests in flight is the peer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.ground import Program, ground, roots, start_service, wait_ready
from bench.measure import machine
from bench.results import Aim, BenchFailed, Result, Table
from deploy.local.site import ROOT
from deploy.local.stack import Stack
from services.kit.auth import mint_token

CROWDS = (4, 8, 16, 32, 64)
"""Callers that ask again as soon as they are answered; the best of them is what the service can do."""

TIMES = 3
GOODPUT, REFUSED_MS = 80.0, 200.0
BURNERS = 4
ONE_CALLER = {"MAILROOM_LIMIT_SEND": "off"}
"""All come from one user, who may not ask that often."""

UNBOUNDED = {"MAILROOM_REQUESTS_IN_FLIGHT": "10000"}
_CALLERS_CORE, _SERVICE_CORE = 0, 1


@dataclass(frozen=True, slots=True)
class Load:
    """What callers saw in one stretch; milliseconds. `good` is a second, of 202s."""

    name: str
    asked: float
    good: float
    good_p50: float
    good_p99: float
    refused: float
    refused_p50: float
    refused_p99: float
    other: Mapping[str, int]


def run(quick: bool) -> Result:
    """Bounded and unbounded, each on a service process of its own."""
    found_on = machine()
    seconds = 4.0 if quick else 15.0
    crowds = (8, 32) if quick else CROWDS
    if (os.cpu_count() or 1) <= _SERVICE_CORE:
        raise BenchFailed("overload needs two cores: one for the callers, one for the service")
    found: dict[str, list[Load]] = {}
    with ground(["kafka", "topics", "mongo", "resources", "simulator"]) as stack:
        for pids in roots(stack, "kafka", "mongo", "aws", "simulator").values():
            _pin(pids, _SERVICE_CORE)
        for name, extra in (("bounded", ONE_CALLER), ("unbounded", UNBOUNDED)):
            stack.extra.update(extra)
            with _service(stack) as service, _burners():
                found[name] = _measure(stack, service, crowds, seconds)
    bounded, unbounded = found["bounded"], found["unbounded"]
    return Result(
        "overload",
        found_on,
        _aims(bounded),
        [_table("With the bound on requests in flight", bounded), _table("Without it", unbounded)],
        [
            f"Beside {BURNERS} busy loops on the callers' core. Unanswered after 20 s is `late`; the callers hold "
            "at most 1,000 connections, and what finds none free is `unsent`."
        ],
        {"runs": {name: [asdict(load) for load in loads] for name, loads in found.items()}},
    )


def _measure(stack: Stack, service: Program, crowds: Sequence[int], seconds: float) -> list[Load]:
    _call(stack, service, "warm-up", seconds, crowd=crowds[-1])
    steady = [_call(stack, service, f"{crowd} callers", seconds, crowd=crowd) for crowd in crowds]
    at, best = max(enumerate(steady), key=lambda each: each[1].good)
    flood = _call(stack, service, f"{TIMES} × the best", 2 * seconds, rate=TIMES * best.good)
    time.sleep(5)
    after = _call(stack, service, f"{crowds[at]} callers, 5 s after", seconds, crowd=crowds[at])
    return [*steady, flood, after]


def _aims(loads: Sequence[Load]) -> list[Aim]:
    *steady, flood, after = loads
    best = max(steady, key=lambda load: load.good)
    return [
        Aim(f"goodput at {TIMES} × the best rate, of the best", 100 * flood.good / best.good, GOODPUT, " %"),
        Aim("p99 of refusals", flood.refused_p99, REFUSED_MS, " ms", at_most=True),
        Aim("goodput 5 s after, of the best", 100 * after.good / best.good, 90.0, " %"),
    ]


def _table(title: str, loads: Sequence[Load]) -> Table:
    header = ("load", "asked/s", "202/s", "p50 ms", "p99 ms", "503/s", "p50 ms", "p99 ms", "other")
    rows: list[list[str | float | int]] = [
        [
            load.name,
            load.asked,
            load.good,
            load.good_p50,
            load.good_p99,
            load.refused,
            load.refused_p50,
            load.refused_p99,
            ", ".join(f"{count} {what}" for what, count in load.other.items()) or "none",
        ]
        for load in loads
    ]
    return Table(title, header, rows)


def _call(
    stack: Stack, service: Program, name: str, seconds: float, *, crowd: int | None = None, rate: float | None = None
) -> Load:
    service.check()
    plan = {
        "port": service.port,
        "token": mint_token(stack.env()["MAILROOM_JWT_SECRET"], "bench", ["email:create"]),
        "seconds": seconds,
        "crowd": crowd,
        "rate": rate,
    }
    command = ["taskset", "-c", str(_CALLERS_CORE), sys.executable, "-m", "bench.callers"]
    done = subprocess.run(
        command, input=json.dumps(plan), capture_output=True, text=True, check=False, cwd=ROOT, timeout=seconds + 120
    )
    if done.returncode:
        raise BenchFailed(f"the callers failed:\n{done.stderr[-2000:]}")
    load = Load(name, **json.loads(done.stdout))
    print(f"  {load}", flush=True)
    return load


@contextmanager
def _service(stack: Stack) -> Iterator[Program]:
    service = start_service(stack, sys.executable, ["services.email", "http"], "MAILROOM_EMAIL_PORT")
    try:
        _pin([service.pid], _SERVICE_CORE)
        wait_ready(service)
        yield service
    finally:
        service.stop()


@contextmanager
def _burners() -> Iterator[None]:
    """Busy loops beside the callers; nicer than these, which must keep their pace to measure anything."""
    command = ["taskset", "-c", str(_CALLERS_CORE), "nice", "-n", "10", sys.executable, "-c", "while True: pass"]
    burners = [subprocess.Popen(command) for _ in range(BURNERS)]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


def _pin(pids: Sequence[int], core: int) -> None:
    """These processes, their threads and their children run on this core."""
    for pid in pids:
        subprocess.run(["taskset", "-acp", str(core), str(pid)], check=True, stdout=subprocess.DEVNULL)
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            _pin([int(child) for child in task.read_text().split()], core)
