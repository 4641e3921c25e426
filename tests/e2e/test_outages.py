"""What Mailroom stands on goes away under load: nothing lost, nothing doubled, no false success, and it comes back.

Each outage is short in `make test` and as long as it is meant to be in `make test-long`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import httpx
import pytest
from pymongo import MongoClient
from pymongo.errors import AutoReconnect

from deploy.local.simulator.faults import Fault
from deploy.local.stack import Stack
from tests.e2e.aws_fault_proxy import AwsFaultProxy
from tests.e2e.evidence import Observer
from tests.e2e.judge import LIMIT_OPEN, Decisions, Evidence, assert_fair, unknowns
from tests.e2e.live import EMAIL, always_alive, live
from tests.e2e.tcp_proxy import running
from tests.e2e.traffic import Traffic, traffic

PER_SECOND = 15.0
BOTH_SIDES = 3.0
"""Seconds of load before an outage and after it."""

short_and_long = pytest.mark.parametrize(
    "seconds", [6, pytest.param(30, marks=[pytest.mark.long, pytest.mark.timeout(400)])]
)

Outage = Callable[[Traffic], Awaitable[None]]


async def survive(observer: Observer, outage: Outage, seed: int, *, may_be_unknown: int = 0) -> Evidence:
    """Load before, during and after an outage; both services stay alive all the time; then judged."""
    since = await observer.now()
    enough = asyncio.Event()
    async with traffic(observer.stack, seed) as load:
        async with asyncio.TaskGroup() as group:
            group.create_task(load.flow(PER_SECOND, enough))
            group.create_task(always_alive(observer.stack, enough, *EMAIL, "events"))
            await asyncio.sleep(BOTH_SIDES)
            await outage(load)
            await asyncio.sleep(BOTH_SIDES)
            enough.set()
        evidence = await observer.settled(since, load.ids, 100)
    print(f"\n{len(load.requested)} messages, {unknowns(Decisions(evidence.log))} without answer, {load.refusals}")
    assert_fair(evidence, load.expected(may_be_unknown=may_be_unknown))
    return evidence


async def test_kafka_restarted(stack: Stack) -> None:
    async def outage(load: Traffic) -> None:
        await asyncio.to_thread(stack.stop, ["kafka"])
        async with asyncio.timeout(30):  # one that waits long enough for Kafka is not refused: until callers notice
            while not load.refusals:  # noqa: ASYNC110 - what other tasks count
                await asyncio.sleep(0.1)
        await asyncio.to_thread(stack.start, ["kafka"])

    async with live(stack) as observer:
        await survive(observer, outage, seed=11)


async def test_while_kafka_is_away_nobody_is_ready_and_everybody_lives(stack: Stack) -> None:
    async with live(stack), httpx.AsyncClient(timeout=5) as client:

        async def told(page: str, status: int, seconds: float) -> None:
            async with asyncio.timeout(seconds):
                for name in (*EMAIL, "events"):
                    while (await client.get(f"{stack.site.url(name)}/{page}")).status_code != status:  # noqa: ASYNC110
                        await asyncio.sleep(0.2)

        await told("readyz", 200, 20)
        await asyncio.to_thread(stack.stop, ["kafka"])
        try:
            await told("readyz", 503, 15)
            await told("healthz", 200, 0.5)
        finally:
            await asyncio.to_thread(stack.start, ["kafka"])
        await told("readyz", 200, 30)


@pytest.mark.long
@pytest.mark.timeout(400)
async def test_kafka_killed_and_away_for_long(stack: Stack) -> None:
    async def outage(_: Traffic) -> None:
        await asyncio.to_thread(stack.kill, "kafka")
        await asyncio.sleep(30)
        await asyncio.to_thread(stack.start, ["kafka"])

    async with live(stack) as observer:
        await survive(observer, outage, seed=12)


async def test_mongodb_stepped_down_and_restarted(stack: Stack) -> None:
    url = f"mongodb://127.0.0.1:{stack.site.ports['mongo']}/?directConnection=true"

    def step_down() -> None:
        client: MongoClient[dict[str, Any]] = MongoClient(url)
        with client, suppress(AutoReconnect):  # it may close the connection of whoever asks
            client.admin.command({"replSetStepDown": 5, "force": True})

    async def outage(_: Traffic) -> None:
        await asyncio.to_thread(step_down)
        await asyncio.to_thread(stack.wait_ready, ["mongo"])
        await asyncio.sleep(BOTH_SIDES)
        await asyncio.to_thread(stack.restart, "mongo")

    async with live(stack) as observer:
        await survive(observer, outage, seed=13)


@short_and_long
async def test_sqs_answering_errors(stack: Stack, seconds: int) -> None:
    async with (
        running(AwsFaultProxy(stack.site.ports["aws"])) as proxy,
        live(stack, extra={"AWS_ENDPOINT_URL": proxy.url}) as observer,
    ):

        async def outage(_: Traffic) -> None:
            assert proxy.passed["sqs"], "the email service does not come by here"
            proxy.faults["sqs"] = "errors"
            await asyncio.sleep(seconds)
            proxy.faults.clear()
            assert proxy.harmed["sqs"]

        await survive(observer, outage, seed=14)


@short_and_long
async def test_ses_refusing_connections(stack: Stack, seconds: int) -> None:
    async with live(stack) as observer:

        async def outage(_: Traffic) -> None:
            await observer.simulator.faults(Fault(kind="refuseConnections", seconds=seconds))
            await asyncio.sleep(seconds + 1)

        # A connection that is cut while a request is on it leaves that request's outcome unknown.
        evidence = await survive(observer, outage, seed=15, may_be_unknown=len(EMAIL) * LIMIT_OPEN)
        assert any(b'"connectionFailed"' in (entry.value or b"") for entry in evidence.log), "nobody noticed"


async def test_draining_under_load_leaves_nothing_unknown(stack: Stack) -> None:
    async with live(stack) as observer:
        await observer.simulator.faults(Fault(kind="slowAnswer", ms=800, probability=0.5), seed=16)

        async def stopped() -> None:
            for name in (*EMAIL, "events", "email"):
                child = stack.child(name)
                assert child is not None
                assert await asyncio.to_thread(child.stop, 20), f"{name} did not drain within 20 s"
                await asyncio.to_thread(stack.start, [name], with_needs=False)

        since = await observer.now()
        enough = asyncio.Event()
        async with traffic(stack, 16) as load:
            async with asyncio.TaskGroup() as group:
                group.create_task(load.flow(PER_SECOND, enough))
                await asyncio.sleep(BOTH_SIDES)
                await stopped()
                enough.set()
            evidence = await observer.settled(since, load.ids, 60)
        assert_fair(evidence, load.expected())
