"""S3 and its queue go away while files are uploaded, or somebody does not tell: no file is lost or falsely completed,
and S3 holds exactly what the Files say.

Kafka and MongoDB go away in `tests/alone`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from deploy.local.stack import Stack
from tests.e2e.aws_fault_proxy import AwsFaultProxy, Fault, Service
from tests.e2e.files_evidence import FilesObserver
from tests.e2e.live import live
from tests.e2e.outages import LONG_SECONDS, SHORT, files_survive
from tests.e2e.tcp_proxy import running
from tests.integration.kafka.harness import until

Outage = Callable[[], Awaitable[None]]


def harmed(proxy: AwsFaultProxy, service: Service, fault: Fault, seconds: float) -> Outage:
    """The service's calls come by here, and are harmed for so long."""

    async def outage() -> None:
        await until(lambda: bool(proxy.passed[service]), what="the files service does not come by here")
        proxy.delay = seconds / 2  # in a long outage, longer than a call may take
        proxy.faults[service] = fault
        await asyncio.sleep(seconds)
        await until(lambda: bool(proxy.harmed[service]), what="no call was harmed")
        proxy.faults.clear()

    return outage


async def test_s3_mute_for_a_moment(stack: Stack) -> None:
    async with (
        running(AwsFaultProxy(stack.site.ports["aws"])) as proxy,
        live(stack, extra={"AWS_ENDPOINT_URL": proxy.url}, parts=("files",)) as observer,
    ):
        await files_survive(observer, harmed(proxy, "s3", "unanswered", SHORT), seed=32)


@pytest.mark.long
@pytest.mark.timeout(500)
@pytest.mark.parametrize("fault", ["cut", "errors", "slow", "unanswered"])
async def test_s3_away_refusing_slow_or_mute(stack: Stack, fault: Fault) -> None:
    async with (
        running(AwsFaultProxy(stack.site.ports["aws"])) as proxy,
        live(stack, extra={"AWS_ENDPOINT_URL": proxy.url}, parts=("files",)) as observer,
    ):
        load = await files_survive(observer, harmed(proxy, "s3", fault, LONG_SECONDS), seed=32)
    assert load.repeated or fault == "slow", "nobody noticed"


@pytest.mark.long
@pytest.mark.timeout(500)
@pytest.mark.parametrize("fault", ["cut", "errors", "unanswered", "lies"])
async def test_sqs_away_or_lying(stack: Stack, fault: Fault) -> None:
    async with (
        running(AwsFaultProxy(stack.site.ports["aws"])) as proxy,
        live(stack, extra={"AWS_ENDPOINT_URL": proxy.url}, parts=("files",)) as observer,
    ):
        await files_survive(observer, harmed(proxy, "sqs", fault, LONG_SECONDS), seed=33)


@pytest.mark.long
@pytest.mark.timeout(500)
async def test_notifications_that_never_come_are_not_needed(stack: Stack) -> None:
    async with live(stack) as observer, FilesObserver(observer).no_notifications():
        await files_survive(observer, lambda: asyncio.sleep(LONG_SECONDS), seed=34, teller="client")


@pytest.mark.long
@pytest.mark.timeout(500)
async def test_clients_who_never_say_that_they_are_done_are_not_needed(stack: Stack) -> None:
    async with live(stack) as observer:
        await files_survive(observer, lambda: asyncio.sleep(LONG_SECONDS), seed=35, teller="notification")


@pytest.mark.long
async def test_where_nobody_tells_the_sweeper_finds_out(stack: Stack) -> None:
    soon = {"MAILROOM_UPLOAD_MINUTES": "0.25", "MAILROOM_UPLOAD_GRACE_MINUTES": "0.1"}
    async with (
        live(stack, extra=soon, parts=("files",)) as observer,
        FilesObserver(observer).no_notifications(),
    ):
        await files_survive(observer, lambda: asyncio.sleep(1), seed=36, teller="notification")
