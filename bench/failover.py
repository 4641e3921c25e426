"""How long does urgent mail take when its provider says no? From publishing to acceptance through another provider.

A round: SES begins to refuse, and at that moment urgent mails are published; then SES takes mail again, and once it
carries all of it, the same number of mails goes out with nothing failing. Times are the simulator's, to the
millisecond, on one clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from bench.ground import ground
from bench.measure import machine
from bench.priorities import NO_SLOW_COMPILER
from bench.results import Aim, BenchFailed, Result, Table, percentile
from deploy.local.parts import PARTS
from deploy.local.simulator.faults import Fault
from deploy.local.stack import Stack
from services.email.domain.correlation import MESSAGE_TAG
from tests.e2e.evidence import Observer
from tests.e2e.live import live
from tests.e2e.traffic import Traffic, traffic

MAILS = 3
"""Urgent mails of a round that are published together, and as many with nothing failing."""

PER_LANE = 4
"""Mails of the lanes urgent and normal by which each process finds out that SES takes mail again."""

SECONDS = 60.0
"""After which a mail that was not accepted, or an SES that carries nothing, never will be, or will."""

TARGET_MS = 2_000.0

REFUSALS = {"account": Fault(kind="accountSuspended"), "throttle": Fault(kind="throttle")}
"""Definite refusals: of the account, which is left alone for 5 s, and of the moment, for half a second."""


@dataclass
class Times:
    """Seconds from publishing to acceptance: of mails that SES refused to take, and of those between.

    `through`: who took the former, and how many.
    """

    refused: list[float] = field(default_factory=list)
    between: list[float] = field(default_factory=list)
    through: dict[str, int] = field(default_factory=dict)


def run(quick: bool) -> Result:
    """Both refusals, with rounds enough for a p99 of the first."""
    found_on = machine()
    rounds = {"account": 2, "throttle": 2} if quick else {"account": 50, "throttle": 50}
    found: dict[str, Times] = {}
    with ground(list(PARTS), java=NO_SLOW_COMPILER, every_provider=True) as stack:
        for name, fault in REFUSALS.items():
            found[name] = asyncio.run(_measure(stack, fault, rounds[name]))
            print(f"  {name}: p99 {1000 * percentile(found[name].refused, 99):.0f} ms", flush=True)
    p99 = 1000 * percentile(found["account"].refused, 99)
    aim = Aim("urgent p99 of the first mails once SES refuses, through another", p99, TARGET_MS, " ms", at_most=True)
    return Result(
        "failover",
        found_on,
        [aim],
        [_table(found)],
        [_through(found)],
        {"milliseconds": {name: _as_data(times) for name, times in found.items()}},
    )


def _table(found: Mapping[str, Times]) -> Table:
    def row(name: str, times: Sequence[float]) -> list[str | float | int]:
        return [
            name,
            len(times),
            *(round(1000 * percentile(times, each)) for each in (50, 99)),
            round(1000 * max(times)),
        ]

    between = [each for times in found.values() for each in times.between]
    return Table(
        "Urgent mail from publishing to acceptance, published as SES begins to refuse and with nothing failing",
        ("", "mails", "p50 ms", "p99 ms", "max ms"),
        [
            row("nothing fails: through SES", between),
            row("SES refuses the account: through another", found["account"].refused),
            row("SES throttles: through another", found["throttle"].refused),
        ],
    )


def _through(found: Mapping[str, Times]) -> str:
    carried: dict[str, int] = {}
    for times in found.values():
        for name, count in times.through.items():
            carried[name] = carried.get(name, 0) + count
    told = ", ".join(f"{name} {count}" for name, count in sorted(carried.items()))
    return f"What SES refused was taken by {told}; each mail once."


def _as_data(times: Times) -> dict[str, Any]:
    def whole(values: Sequence[float]) -> list[int]:
        return [round(1000 * each) for each in values]

    return {"refused": whole(times.refused), "between": whole(times.between), "through": times.through}


async def _measure(stack: Stack, fault: Fault, rounds: int) -> Times:
    times = Times()
    async with live(stack) as observer, traffic(stack, 1, behaviours=("success",), http_share=0.0) as load:
        await _returns(observer, load)
        for _ in range(rounds):
            await observer.simulator.faults(fault)
            try:
                for provider, seconds in await _mails(observer, load, MAILS):
                    if provider == "ses":
                        raise BenchFailed("SES took a mail though it refuses them: look at the simulator's faults")
                    times.refused.append(seconds)
                    times.through[provider] = times.through.get(provider, 0) + 1
            finally:
                await observer.simulator.faults()
            await _returns(observer, load)
            times.between += [seconds for provider, seconds in await _mails(observer, load, MAILS) if provider == "ses"]
    return times


async def _mails(observer: Observer, load: Traffic, urgent: int, normal: int = 0) -> list[tuple[str, float]]:
    """Publish so many mails together; of each, once all are accepted, by whom it was and after how many seconds.

    Raises BenchFailed for one that is accepted twice, or not at all.
    """
    since = await observer.simulator.position()
    lanes = ["urgent"] * urgent + ["normal"] * normal
    ids = await asyncio.gather(*(load.by_kafka(load.mail(priority=lane, recipients=1)) for lane in lanes))
    deadline = asyncio.get_running_loop().time() + SECONDS
    while True:
        entries = [
            each for each in await observer.simulator.acceptances(since) if each["tags"].get(MESSAGE_TAG) in set(ids)
        ]
        if len(entries) > len(ids):
            raise BenchFailed(f"{len(entries)} mails were accepted for {len(ids)} that were published")
        if len(entries) == len(ids):
            break
        if asyncio.get_running_loop().time() > deadline:
            raise BenchFailed(f"{len(ids) - len(entries)} of {len(ids)} mails were not accepted in {SECONDS:.0f} s")
        await asyncio.sleep(0.02)
    return [
        (
            each.get("provider", "ses"),
            datetime.fromisoformat(each["at"]).timestamp() - load.published_at[each["tags"][MESSAGE_TAG]],
        )
        for each in entries
    ]


async def _returns(observer: Observer, load: Traffic) -> None:
    """Send mail of both processes until SES carries all of it."""
    deadline = asyncio.get_running_loop().time() + SECONDS
    while True:
        found = await _mails(observer, load, PER_LANE, PER_LANE)
        if all(provider == "ses" for provider, _ in found):
            return
        if asyncio.get_running_loop().time() > deadline:
            raise BenchFailed(f"mail did not return to SES within {SECONDS:.0f} s")
        await asyncio.sleep(0.2)
