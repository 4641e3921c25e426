"""Events a second that SendGrid's webhook takes, signed and in batches, beside a bare receive-and-produce.

Each batch has a thousand events and is verified on the bytes that came; the answer comes once Kafka has every event in
all replicas. The baseline reads the same array and produces the same records, and verifies and tells nothing. Nothing
reads the topic meanwhile.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from statistics import median

import httpx
import orjson

from bench.ground import Program, ground, roots, running, start_service, wait_ready, wait_until
from bench.measure import Meter, machine
from bench.results import Aim, BenchFailed, Result, Table, percentile
from contracts.ids import uuid7
from contracts.topics import EMAIL_NOTIFICATIONS
from deploy.local import providers
from deploy.local.simulator.sendgrid_events import MOST_EVENTS, SendGridEvents
from deploy.local.simulator.webhooks import Post
from deploy.local.site import HOST, free_ports
from deploy.local.stack import Stack

ROUNDS, BATCHES, AT_ONCE = 3, 100, 4
OURS, BARE = "Mailroom", "bare receiver"
LEAST = 50.0
"""Per cent of the bare receiver's rate."""


@dataclass(frozen=True, slots=True)
class Round:
    """One contender's turn. `p99`: milliseconds until a batch was answered."""

    per_second: float
    p99: float
    own_cpu_us: float
    kafka_cpu_us: float


def run(quick: bool) -> Result:
    """Alternating rounds of the same batches; medians count."""
    found_on = machine()
    batches, rounds = (5, 1) if quick else (BATCHES, ROUNDS)
    found: dict[str, list[Round]] = {OURS: [], BARE: []}
    with ground(("mongo", "topics", "resources", "simulator")) as stack:
        stack.extra.update(providers.service_environment(stack.site))
        signing = SendGridEvents(providers.webhook_keys(stack.site).sendgrid)
        posts = [_batch(signing) for _ in range(batches)]
        contenders: Mapping[str, Callable[[Stack], Iterator[tuple[Program, str]]]] = {OURS: _ours, BARE: _bare}
        for number in range(1, rounds + 1):
            for name, started in contenders.items():
                with contextmanager(started)(stack) as (program, url):
                    asyncio.run(_send(url, posts[:AT_ONCE]))
                    done = _measured(stack, program, url, posts)
                found[name].append(done)
                print(f"  round {number}: {name}: {done.per_second:,.0f} events/s", flush=True)
    rates = {name: median(each.per_second for each in done) for name, done in found.items()}
    rows = [
        (
            name,
            rates[name],
            f"{rates[name] / rates[BARE]:.0%}",
            median(each.p99 for each in done),
            median(each.own_cpu_us for each in done),
            median(each.kafka_cpu_us for each in done),
        )
        for name, done in found.items()
    ]
    size = sum(len(each.body) for each in posts) / len(posts) / 1000
    title = (
        f"{batches} batches of {MOST_EVENTS} events ({size:.0f} kB) a round, {AT_ONCE} at a time, medians of {rounds}"
    )
    return Result(
        "webhooks",
        found_on,
        [Aim(f"{OURS} against the {BARE}", round(100 * rates[OURS] / rates[BARE], 1), LEAST, " %")],
        [Table(title, ("", "events/s", "of the bare", "p99 of a batch, ms", "own CPU µs an event", "Kafka"), rows)],
        [],
        {"rates": rates, "rounds": {name: [asdict(each) for each in done] for name, done in found.items()}},
    )


def _measured(stack: Stack, program: Program, url: str, posts: list[Post]) -> Round:
    with Meter({"own": [program.pid], **roots(stack, "kafka")}) as meter:
        seconds, took = asyncio.run(_send(url, posts))
    events = MOST_EVENTS * len(posts)
    own, kafka = meter.usage["own"].cpu_seconds, meter.usage["kafka"].cpu_seconds
    return Round(events / seconds, 1000 * percentile(took, 99), 1e6 * own / events, 1e6 * kafka / events)


async def _send(url: str, posts: list[Post]) -> tuple[float, list[float]]:
    """Seconds in all, and of each. BenchFailed for any answer but 200."""
    waiting, took = iter(posts), []

    async def sender(http: httpx.AsyncClient) -> None:
        for post in waiting:
            began = time.monotonic()
            answer = await http.post(url, content=post.body, headers=dict(post.headers), timeout=60)
            if answer.status_code != 200:
                raise BenchFailed(f"a batch was answered {answer.status_code}: {answer.text[:200]}")
            took.append(time.monotonic() - began)

    began = time.monotonic()
    async with httpx.AsyncClient(trust_env=False) as http, asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(sender(http))
    return time.monotonic() - began, took


def _ours(stack: Stack) -> Iterator[tuple[Program, str]]:
    program = start_service(stack, sys.executable, ("services.email", "http"), "MAILROOM_EMAIL_PORT")
    try:
        wait_ready(program)
        yield program, f"http://{HOST}:{program.port}/api/webhooks/sendgrid"
    finally:
        program.stop()


def _bare(stack: Stack) -> Iterator[tuple[Program, str]]:
    (port,) = free_ports(1)
    bootstrap = stack.site.addresses().kafka_bootstrap
    command = [sys.executable, "-m", "bench.baselines.bare_webhook", str(port), bootstrap, EMAIL_NOTIFICATIONS.name]
    with running(stack, "bare-webhook", command, {}) as program:
        url = f"http://{HOST}:{port}/"

        def answers() -> bool:
            program.check()
            try:
                return httpx.post(url, timeout=3, trust_env=False).status_code == 200
            except httpx.HTTPError:
                return False

        wait_until(answers, "the bare receiver", 30)
        yield program, url


def _batch(signing: SendGridEvents) -> Post:
    """A thousand deliveries, signed now."""
    now = time.time()
    return signing.post([_event(number, int(now)) for number in range(MOST_EVENTS)], now)


def _event(number: int, now: int) -> bytes:
    event_id, call_id = uuid7().replace("-", ""), uuid7().replace("-", "")
    return orjson.dumps(
        {
            "email": f"someone-{number}@inbox.example",
            "timestamp": now,
            "event": "delivered",
            "category": ["notification"],
            "smtp-id": f"<{call_id}@geopod-ismtpd-1>",
            "sg_event_id": event_id,
            "sg_message_id": f"{call_id}.recvd-5c4d-1-654321-12.0",
            "response": "250 2.0.0 OK 1795514400 a640c23a62f3a-a7a8f5",
            "ip": "192.0.2.9",
            "tls": 1,
            "mailroom_message_id": uuid7(),
            "mailroom_attempt_id": uuid7(),
        }
    )
