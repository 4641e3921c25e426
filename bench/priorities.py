"""Does a campaign delay urgent mail? From an urgent command's publishing to its acceptance, idle and beside a campaign.

The campaign lies on the lane `low` as a whole before the first urgent mail, and is larger than what the account may
send meanwhile, so it takes every token that it can get. Times are the simulator's, to the millisecond, on one clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import reduce
from operator import add
from typing import Any

from bench.ground import ground, roots
from bench.measure import Meter, Usage, as_data, machine
from bench.results import Aim, BenchFailed, Result, Table, percentile
from deploy.local.parts import PARTS
from deploy.local.stack import Stack
from services.email.domain.correlation import MESSAGE_TAG
from tests.e2e.evidence import Observer
from tests.e2e.live import live
from tests.e2e.traffic import Traffic, traffic

NO_SLOW_COMPILER = ("-XX:TieredStopAtLevel=1",)
"""A broker that has run for days compiles nothing; one that was started a minute ago takes a third of a core for it."""

ROUNDS = 3
"""Idle and beside a campaign in turns, all taken together."""

ACCEPTANCE_LIMIT = 2.0
"""How many times the idle system's p99 the p99 beside a campaign may be, besides two token intervals."""


@dataclass(frozen=True, slots=True)
class Urgency:
    """Seconds from publishing to acceptance of urgent mails.

    Attributes:
        rate: recipients a second that the account may send.
        campaign: mails of the campaign; `campaign_done`: how many of them were accepted when the last urgent one was.
        idle, beside: with nothing else to do, and beside the campaign.
        overtaken_by: for each urgent mail beside it, how many of the campaign were accepted while it waited.
    """

    rate: float
    campaign: int
    campaign_done: int
    idle: tuple[float, ...]
    beside: tuple[float, ...]
    overtaken_by: tuple[int, ...]

    def __add__(self, other: Urgency) -> Urgency:
        """Both as one: a p99 of 150 mails is their second slowest, which says more of luck than of the system."""
        return Urgency(
            self.rate,
            self.campaign + other.campaign,
            self.campaign_done + other.campaign_done,
            self.idle + other.idle,
            self.beside + other.beside,
            self.overtaken_by + other.overtaken_by,
        )

    @property
    def limit(self) -> float:
        """What the p99 beside the campaign may be: seconds."""
        return ACCEPTANCE_LIMIT * percentile(self.idle, 99) + 2 / self.rate

    @property
    def holds(self) -> bool:
        """Whether urgent mail is not delayed."""
        return percentile(self.beside, 99) <= self.limit

    def __str__(self) -> str:
        verdict = "holds" if self.holds else "DOES NOT HOLD"
        limit = f"p99 beside a campaign may be {1000 * self.limit:.1f} ms: {verdict}"
        done = f"{self.campaign_done} of the campaign were accepted by the end"
        return f"{_table(self).plain()}\n{limit}; {done}"


def run(quick: bool) -> Result:
    """The figures at 200 recipients a second, which the aim is about, and at SES's 14 for a new account."""
    found_on = machine()
    plans = ((200.0, 5_000, 150, 0.1, ROUNDS), (14.0, 700, 40, 1.0, 1))
    if quick:
        plans = ((200.0, 1_000, 20, 0.1, 1), (14.0, 100, 5, 1.0, 1))
    found: list[tuple[Urgency, dict[str, Usage]]] = []
    with ground(list(PARTS), java=NO_SLOW_COMPILER) as stack:
        for rate, campaign, urgent, every, rounds in plans:
            with Meter(roots(stack, "simulator", "kafka", "mongo", "aws", "events")) as meter:
                urgency = _in_rounds(stack, rounds, rate=rate, campaign=campaign, urgent=urgent, every=every)
            found.append((urgency, dict(meter.usage)))
    fast = found[0][0]
    p99 = 1000 * percentile(fast.beside, 99)
    aim = Aim("urgent p99 beside a campaign at 200/s", p99, 1000 * fast.limit, " ms", at_most=True)
    return Result(
        "priorities",
        found_on,
        [aim],
        [_table(urgency) for urgency, _ in found],
        ["the aim is twice the idle p99 of the same run and two token intervals"],
        {"runs": [{**asdict(urgency), "usage": as_data(usage)} for urgency, usage in found]},
    )


def _in_rounds(stack: Stack, rounds: int, *, rate: float, campaign: int, urgent: int, every: float) -> Urgency:
    """All rounds as one; only the first has much to warm up."""
    found: list[Urgency] = []
    for turn in range(rounds):
        warm_up = int((1 if turn else 5) * rate)
        measured = measure(stack, rate=rate, campaign=campaign, urgent=urgent, every=every, warm_up=warm_up, seed=turn)
        found.append(asyncio.run(measured))
        print(f"  at {rate:g}/s, {turn + 1} of {rounds}:\n{found[-1]}", flush=True)
    if any(each.campaign_done >= campaign for each in found):
        raise BenchFailed(f"the campaign of {campaign} at {rate:g}/s was over before the urgent mail was")
    return reduce(add, found)


def _table(found: Urgency) -> Table:
    def row(name: str, times: Sequence[float]) -> list[str | float | int]:
        return [name, len(times), *(round(1000 * percentile(times, each), 1) for each in (50, 99)), 1000 * max(times)]

    title = f"Urgent mail beside campaigns of {found.campaign} in all on low, at {found.rate:g} recipients/s"
    header = ("", "mails", "p50 ms", "p99 ms", "max ms")
    return Table(title, header, [row("idle", found.idle), row("beside the campaign", found.beside)])


async def measure(
    stack: Stack, *, rate: float, campaign: int, urgent: int, every: float, warm_up: int = 5, seed: int = 1
) -> Urgency:
    """Send `urgent` mails `every` so many seconds, idle and then beside a campaign; leaves when these are accepted.

    `warm_up`: other mails sent before.
    """
    async with (
        live(stack, rate=rate) as observer,
        traffic(stack, seed, behaviours=("success",), http_share=0.0) as load,
    ):
        await _warm_up(observer, load, warm_up)
        idle, _, _ = await _paced(observer, load, urgent, every)
        lows = await _launch(observer, load, campaign)
        beside, overtaken_by, done = await _paced(observer, load, urgent, every, lows)
        await observer.settled_deliveries(load.ids, 60 + campaign / rate)
        return Urgency(rate, campaign, done, idle, beside, overtaken_by)


async def _warm_up(observer: Observer, load: Traffic, count: int) -> None:
    """Connections, caches and Kafka's compiled code are as they are after a while, before anything counts."""
    mails = [load.mail(priority="normal", recipients=1) for _ in range(count)]
    await accepted(observer, 0, set(await asyncio.gather(*(load.by_kafka(mail) for mail in mails))))
    await observer.settled_deliveries(load.ids, 60)
    for _ in range(5):
        await accepted(observer, await observer.simulator.position(), {await load.by_kafka(_urgent(load))})


async def _launch(observer: Observer, load: Traffic, count: int) -> set[str]:
    """Publish the campaign; returns when the account is saturated by it."""
    since = await observer.simulator.position()
    mails = [load.mail(priority="low", recipients=1) for _ in range(count)]
    ids = set(await asyncio.gather(*(load.by_kafka(mail) for mail in mails)))
    async with asyncio.timeout(30):
        while len(await observer.simulator.acceptances(since)) < 10:  # noqa: ASYNC110 - in another process
            await asyncio.sleep(0.1)
    return ids


async def _paced(
    observer: Observer, load: Traffic, count: int, every: float, lows: set[str] | None = None
) -> tuple[tuple[float, ...], tuple[int, ...], int]:
    """Urgent mails one by one: how long each took, how many of `lows` came before it meanwhile, and their number."""
    since = await observer.simulator.position()
    sent: set[str] = set()
    for _ in range(count):
        sent.add(await load.by_kafka(_urgent(load)))
        await asyncio.sleep(every)
    found = await accepted(observer, since, sent)
    times = {message_id: at - load.published_at[message_id] for message_id, at in found.items()}
    lows_at = await accepted_at(observer, 0, lows or set())
    overtaken = tuple(
        sum(load.published_at[message_id] < at < found[message_id] for at in lows_at.values()) for message_id in found
    )
    last = max(found.values())
    return tuple(times.values()), overtaken, sum(at <= last for at in lows_at.values())


def _urgent(load: Traffic) -> dict[str, Any]:
    return load.mail(priority="urgent", recipients=1)


async def accepted(observer: Observer, since: int, ids: set[str]) -> dict[str, float]:
    """When each of these mails was accepted, as seconds of the epoch, once all are. TimeoutError after a minute."""
    async with asyncio.timeout(60):
        while len(found := await accepted_at(observer, since, ids)) < len(ids):  # noqa: ASYNC110 - in another process
            await asyncio.sleep(0.05)
    return found


async def accepted_at(observer: Observer, since: int, ids: set[str]) -> dict[str, float]:
    """When each of these was accepted, as seconds of the epoch; those that were."""
    entries = await observer.simulator.acceptances(since)
    return {
        entry["tags"][MESSAGE_TAG]: datetime.fromisoformat(entry["at"]).timestamp()
        for entry in entries
        if entry["tags"].get(MESSAGE_TAG) in ids
    }
