"""Mails a second from a command on Kafka to the provider's acceptance, beside a bare loop of the same calls and Celery.

All contenders send the same mail to the same simulator (no rate limit, every acceptance fsynced) from the same machine,
one after the other, in alternating rounds; medians count. First without notifications, for the pure way of a send,
then once with all of them on.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from statistics import median
from typing import Any

import httpx

from bench.contenders import BESIDE, Field, Round, bare_loop, celery, mailroom
from bench.ground import ground, wait_until
from bench.measure import as_data, machine
from bench.results import Aim, Result, Table
from deploy.local.stack import Stack

ROUNDS = 3
BARE = "bare loop, plain"
CELERY_SHAPES = (("prefork", 2), ("prefork", 4), ("prefork", 8), ("threads", 32))
ONE_PROCESS = ("all",)
APART = ("intake", "sender", "relay")

Contender = Callable[[Field], Round]


def run(quick: bool) -> Result:
    """Measure; see the module."""
    mails, rounds = (300, 1) if quick else (6000, ROUNDS)
    found_on = machine()
    with ground(("mongo", "topics", "resources", "simulator")) as stack:
        set_simulator(stack, notifications=False)
        field = Field.prepare(stack, mails)
        small = Field.prepare(stack, max(200, mails // 6))
        print(f"  warming up, and choosing Celery's shape ({small.mails} mails each)", flush=True)
        mailroom(small, ONE_PROCESS)
        pool, workers = _best_celery(small)
        contenders: dict[str, Contender] = {
            BARE: bare_loop,
            "bare loop, tuned": partial(bare_loop, kind="tuned"),
            "Mailroom, one process": partial(mailroom, roles=ONE_PROCESS),
            "Mailroom, apart": partial(mailroom, roles=APART),
            f"Celery, {pool} {workers}": partial(celery, pool=pool, workers=workers),
        }
        quiet = _rounds(field, contenders, rounds)
        set_simulator(stack, notifications=True)
        noisy_field = Field.prepare(stack, max(200, mails // 3))
        print("  with notifications", flush=True)
        noisy = _rounds(noisy_field, contenders, 1, after=partial(_notified, stack))
    return _result(found_on, field, quiet, noisy_field, noisy)


def _rounds(
    field: Field, contenders: dict[str, Contender], rounds: int, after: Callable[[], None] = lambda: None
) -> dict[str, list[Round]]:
    found: dict[str, list[Round]] = {name: [] for name in contenders}
    for number in range(1, rounds + 1):
        for name, send in contenders.items():
            done = send(field)
            found[name].append(done)
            strangers = done.elsewhere / done.wall
            print(
                f"  round {number}: {name}: {done.per_second:.0f} mails/s, own CPU {done.own_cpu_ms:.2f} ms a mail, "
                f"others used {strangers:.0%} of a core",
                flush=True,
            )
            after()
    return found


def _best_celery(field: Field) -> tuple[str, int]:
    """The shape in which Celery is fastest here: it competes at its best."""
    rates = {shape: celery(field, *shape).per_second for shape in CELERY_SHAPES}
    for (pool, workers), rate in rates.items():
        print(f"  Celery, {pool} {workers}: {rate:.0f} mails/s", flush=True)
    return max(rates, key=lambda shape: rates[shape])


def set_simulator(stack: Stack, *, notifications: bool) -> None:
    """No limits; and whether what happens to a mail is told to SNS."""
    simulator, made = stack.site.url("simulator"), stack.resources()
    topics: dict[str, Any] = {"topicArn": made.topic_arn}
    if not notifications:
        topics["eventTypes"] = []
    for path, body in (
        ("settings", {"maxSendRate": 0, "max24HourSend": 0}),
        (f"configuration-sets/{made.configuration_set}", topics),
    ):
        httpx.put(f"{simulator}/_sim/{path}", json=body, timeout=10, trust_env=False).raise_for_status()


def _notified(stack: Stack) -> None:
    """Wait until a contender's notifications are out, so that they do not burden the next one."""

    def out() -> bool:
        health = httpx.get(f"{stack.site.url('simulator')}/_sim/health", timeout=10, trust_env=False).json()
        return not health["pendingNotifications"]

    wait_until(out, "the simulator to publish its notifications", 300)


def _result(
    found_on: dict[str, Any],
    field: Field,
    quiet: dict[str, list[Round]],
    noisy_field: Field,
    noisy: dict[str, list[Round]],
) -> Result:
    rates = {name: median(each.per_second for each in rounds) for name, rounds in quiet.items()}
    ours = max((name for name in rates if name.startswith("Mailroom")), key=lambda name: rates[name])
    peer = next(name for name in rates if name.startswith("Celery"))
    bare = rates[BARE]
    noisy_rates = {name: rounds[0].per_second for name, rounds in noisy.items()}
    aims = [
        Aim(f"{ours} against the bare loop", round(rates[ours] / bare * 100, 1), 75, " %"),
        Aim(f"{ours} against Celery", round(rates[ours] / rates[peer], 2), 1.5, " ×"),
    ]
    speed = Table(
        f"Mails a second, {field.mails} mails a round, medians of {len(quiet[ours])} (in brackets lowest and highest); "
        f"with all notifications, {noisy_field.mails} mails, one round",
        ("contender", "mails/s", "of the bare loop", "with notifications", "of the bare loop then"),
        [
            (
                name,
                f"{rates[name]:.0f} ({min(r.per_second for r in rounds):.0f}–{max(r.per_second for r in rounds):.0f})",
                f"{rates[name] / bare:.0%}",
                f"{noisy_rates[name]:.0f}",
                f"{noisy_rates[name] / noisy_rates[BARE]:.0%}",
            )
            for name, rounds in quiet.items()
        ],
    )
    tables = [speed, _cpu("CPU milliseconds a mail, without notifications", quiet), _memory(quiet)]
    tables.append(_cpu("CPU milliseconds a mail, with notifications, until the last mail", noisy))
    return Result(
        "sends",
        found_on,
        aims,
        tables,
        _notes(quiet),
        {
            "mails": field.mails,
            "rates": rates,
            "rounds": {name: [_data(each) for each in rounds] for name, rounds in quiet.items()},
            "withNotifications": {name: [_data(each) for each in rounds] for name, rounds in noisy.items()},
        },
    )


def _notes(found: dict[str, list[Round]]) -> list[str]:
    strangers = max(each.elsewhere / each.wall for rounds in found.values() for each in rounds)
    notes = [
        f"The machine was {'quiet' if strangers < 0.25 else 'NOT quiet'}: other programs and the kernel used at most "
        f"{strangers:.0%} of one core during a round."
    ]
    for name, rounds in found.items():
        settled = median(each.settled for each in rounds)
        if settled:
            notes.append(f"{name}: all outcomes were recorded and published {settled:.1f} s after the last acceptance.")
    return notes


def _cpu(title: str, found: dict[str, list[Round]]) -> Table:
    """Own processes added up, then each; what stands beside in columns of its own."""
    beside = [*BESIDE, "redis"]
    rows: list[Sequence[str | float]] = []
    for name, rounds in found.items():
        own = rounds[0].ours
        rows.append(
            (
                name,
                median(each.own_cpu_ms for each in rounds),
                *(median(each.cpu_ms(label) for each in rounds) for label in beside),
                median(each.elsewhere * 1000 / each.metered for each in rounds),
            )
        )
        if len(own) > 1:
            rows += [
                (f"· {label}", median(each.cpu_ms(label) for each in rounds), *("" for _ in beside), "")
                for label in own
            ]
    return Table(title, ("contender", "its own", *beside, "all else"), rows)


def _memory(found: dict[str, list[Round]]) -> Table:
    rows = [
        (
            name if len(rounds[0].ours) == 1 else f"{name}: {label}",
            max(each.ours[label].peak_mb for each in rounds),
            max(each.ours[label].processes for each in rounds),
        )
        for name, rounds in found.items()
        for label in rounds[0].ours
    ]
    beside = {
        label: max(each.beside[label].peak_mb for rounds in found.values() for each in rounds if label in each.beside)
        for label in (*BESIDE, "redis")
    }
    rows += [(label, peak, 1) for label, peak in beside.items()]
    return Table("Peak memory, MB, sums of processes", ("process", "peak MB", "processes"), rows)


def _data(done: Round) -> dict[str, Any]:
    return {
        "perSecond": round(done.per_second, 1),
        "firstToLast": round(done.accepted.per_second, 1),
        "accepted": asdict(done.accepted),
        "wallSeconds": round(done.wall, 2),
        "settledSeconds": round(done.settled, 2),
        "own": as_data(done.ours),
        "beside": as_data(done.beside),
        "elsewhereCpuSeconds": done.elsewhere,
    }
