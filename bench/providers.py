"""What choosing costs: mails a second where four providers are configured, beside the same mails where SES is alone.

All providers are healthy, and SES, which is the first, has no limit: it takes every mail in both. What differs is the
choice, with what was found of each provider written into the log, and the circuits that are shared through MongoDB.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median

from bench.contenders import Field, Round, mailroom
from bench.ground import ground
from bench.measure import as_data, machine
from bench.results import Aim, Result, Table
from bench.sends import set_simulator
from deploy.local import providers

ROUNDS = 3
ONE, FOUR = "SES alone", "four providers"
LEAST = 90.0
"""Per cent of the rate of one provider that four should have."""


def run(quick: bool) -> Result:
    """Alternating rounds; medians count."""
    mails, rounds = (300, 1) if quick else (6000, ROUNDS)
    found_on = machine()
    with ground(("mongo", "topics", "resources", "simulator")) as stack:
        set_simulator(stack, notifications=False)
        shapes: Mapping[str, Mapping[str, str]] = {
            ONE: {"MAILROOM_PROVIDERS": "ses"},
            FOUR: providers.service_environment(stack.site),
        }
        warm, field = Field.prepare(stack, max(200, mails // 6)), Field.prepare(stack, mails)
        mailroom(warm, ("all",))
        found: dict[str, list[Round]] = {name: [] for name in shapes}
        for number in range(1, rounds + 1):
            for name, settings in shapes.items():
                stack.extra.update(settings)
                done = mailroom(field, ("all",))
                found[name].append(done)
                print(f"  round {number}: {name}: {done.per_second:.0f} mails/s", flush=True)
    rates = {name: median(each.per_second for each in done) for name, done in found.items()}
    rows = [
        (
            name,
            f"{rates[name]:.0f} ({min(r.per_second for r in done):.0f}–{max(r.per_second for r in done):.0f})",
            f"{rates[name] / rates[ONE]:.0%}",
            median(each.own_cpu_ms for each in done),
            median(each.cpu_ms("mongo") for each in done),
            max(each.elsewhere / each.wall for each in done),
        )
        for name, done in found.items()
    ]
    header = ("configured", "mails/s", "of SES alone", "own CPU ms a mail", "MongoDB", "others, cores")
    title = f"{mails} mails a round, medians of {rounds} (in brackets lowest and highest), one process"
    return Result(
        "providers",
        found_on,
        [Aim(f"{FOUR} against {ONE}", round(100 * rates[FOUR] / rates[ONE], 1), LEAST, " %")],
        [Table(title, header, rows)],
        [],
        {
            "mails": mails,
            "rates": rates,
            "rounds": {
                name: [{"perSecond": each.per_second, "own": as_data(each.ours)} for each in done]
                for name, done in found.items()
            },
        },
    )
