"""SES and SQS go away under mail, and processes are stopped: nothing lost, nothing doubled, and it comes back.

Kafka and MongoDB go away in `tests/alone`.
"""

from __future__ import annotations

import asyncio

import pytest

from deploy.local.simulator.faults import Fault
from deploy.local.stack import Stack
from tests.e2e.aws_fault_proxy import AwsFaultProxy
from tests.e2e.judge import LIMIT_OPEN, assert_fair
from tests.e2e.live import EMAIL, live
from tests.e2e.outages import BOTH_SIDES, LONG_SECONDS, PER_SECOND, SETTLING, mail_survives
from tests.e2e.tcp_proxy import running
from tests.e2e.traffic import Traffic, traffic
from tests.integration.kafka.harness import until


@pytest.mark.long
@pytest.mark.timeout(500)
async def test_sqs_answering_errors(stack: Stack) -> None:
    async with (
        running(AwsFaultProxy(stack.site.ports["aws"])) as proxy,
        live(stack, extra={"AWS_ENDPOINT_URL": proxy.url}) as observer,
    ):

        async def outage(_: Traffic) -> None:
            await until(lambda: bool(proxy.passed["sqs"]), what="the email service does not come by here")
            proxy.faults["sqs"] = "errors"
            await asyncio.sleep(LONG_SECONDS)
            await until(lambda: bool(proxy.harmed["sqs"]), what="no call was harmed")
            proxy.faults.clear()

        await mail_survives(observer, outage, seed=14)


@pytest.mark.long
@pytest.mark.timeout(500)
async def test_ses_refusing_connections(stack: Stack) -> None:
    async with live(stack) as observer:

        async def outage(_: Traffic) -> None:
            await observer.simulator.faults(Fault(kind="refuseConnections", seconds=LONG_SECONDS))
            await asyncio.sleep(LONG_SECONDS + 1)

        # A connection that is cut while a request is on it leaves that request's outcome unknown.
        evidence = await mail_survives(observer, outage, seed=15, may_be_unknown=len(EMAIL) * LIMIT_OPEN)
        assert any(b'"connectionFailed"' in (entry.value or b"") for entry in evidence.log), "nobody noticed"


@pytest.mark.long
async def test_draining_under_load_leaves_nothing_unknown(stack: Stack) -> None:
    async with live(stack) as observer:
        await observer.simulator.faults(Fault(kind="slowAnswer", ms=800, probability=0.5), seed=16)

        async def stopped() -> None:
            for name in (*EMAIL, "events"):
                child = stack.child(name)
                assert child is not None
                assert await asyncio.to_thread(child.stop, 25), f"{name} did not drain before it would be killed"
                await asyncio.to_thread(stack.start, [name], with_needs=False)

        since = await observer.now()
        enough = asyncio.Event()
        async with traffic(stack, 16) as load:
            async with asyncio.TaskGroup() as group:
                # On a busy machine four starts take minutes: what piles up meanwhile would be waited for in the end.
                group.create_task(load.flow(PER_SECOND, enough, backlog=10 * PER_SECOND))
                group.create_task(load.watched_by(observer.simulator, enough))
                await asyncio.sleep(BOTH_SIDES)
                await stopped()
                enough.set()
            evidence = await observer.settled(since, load.ids, SETTLING)
        assert_fair(evidence, load.expected())
