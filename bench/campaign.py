"""Does a campaign on `low` delay urgent mail? `bench.priorities` measures it; the idle system is the baseline."""

import asyncio

from bench.ground import ground
from bench.measure import machine
from bench.priorities import Urgency, measure, percentile
from bench.results import Aim, Result, Table


def run(quick: bool) -> Result:
    """At 200 recipients/s, which the campaign saturates, and at SES's usual first limit of 14."""
    found_on = machine()
    with ground(("mongo", "topics", "resources", "simulator", "email", "events")) as stack:
        plans = [(200.0, 300, 10, 0.2)] if quick else [(200.0, 5000, 100, 0.2), (14.0, 600, 30, 1.0)]
        found: list[Urgency] = []
        for rate, campaign, urgent, every in plans:
            found.append(asyncio.run(measure(stack, rate=rate, campaign=campaign, urgent=urgent, every=every)))
            print(f"  {found[-1]}", flush=True)
    first = found[0]
    aim = Aim(
        f"p99 of urgent mail beside a campaign of {first.campaign} at {first.rate:g} recipients/s",
        _ms(first.beside, 99),
        round(first.limit * 1000, 1),
        " ms",
        at_most=True,
    )
    rows = [
        (f"{each.rate:g}/s, {name}", _ms(times, 50), _ms(times, 99), _ms(times, 100), len(times))
        for each in found
        for name, times in (("idle", each.idle), (f"beside a campaign of {each.campaign}", each.beside))
    ]
    table = Table(
        "Milliseconds from an urgent command's publishing to its acceptance", ("", "p50", "p99", "worst", "mails"), rows
    )
    notes = [
        f"At {each.rate:g}/s: limit {each.limit * 1000:.0f} ms (twice the idle p99 and two token intervals), "
        f"{each.campaign_done} of the campaign's mails accepted when the last urgent one was."
        for each in found
    ]
    data = {
        f"{each.rate:g}/s": {
            "limitMs": round(each.limit * 1000, 1),
            "idleMs": [round(seconds * 1000, 1) for seconds in each.idle],
            "besideMs": [round(seconds * 1000, 1) for seconds in each.beside],
        }
        for each in found
    }
    return Result("campaign", found_on, [aim], [table], notes, data)


def _ms(seconds: tuple[float, ...], percent: float) -> float:
    return round(percentile(seconds, percent) * 1000, 1)
