"""What the files service stands on goes away while files are uploaded: none is lost, none falsely completed, and S3
holds exactly what the Files say.

Each outage is short in `make test` and as long as it is meant to be in `make test-long`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from deploy.local.stack import Stack
from tests.e2e.aws_fault_proxy import AwsFaultProxy, Fault, Service
from tests.e2e.evidence import Observer
from tests.e2e.files_evidence import FilesObserver
from tests.e2e.live import always_alive, live
from tests.e2e.tcp_proxy import running
from tests.e2e.uploads import Teller, Uploads, uploads

BOTH_SIDES = 2.0
"""Seconds of load before an outage and after it."""

SETTLING = 120.0

short_and_long = pytest.mark.parametrize(
    "seconds", [6, pytest.param(30, marks=[pytest.mark.long, pytest.mark.timeout(500)])]
)

Outage = Callable[[], Awaitable[None]]


async def survive(observer: Observer, outage: Outage, seed: int, teller: Teller = "either") -> Uploads:
    """Uploads before, during and after an outage; the services stay alive all the time; then judged."""
    files = FilesObserver(observer)
    since = await observer.now()
    enough = asyncio.Event()
    async with uploads(observer.stack, seed, teller) as load:
        async with asyncio.TaskGroup() as group:
            group.create_task(load.flow(enough))
            group.create_task(always_alive(observer.stack, enough, "files", "email", "events"))
            await asyncio.sleep(BOTH_SIDES)
            await outage()
            await asyncio.sleep(BOTH_SIDES)
            enough.set()
        await files.assert_fair(since, load, SETTLING)
    print(f"\n{len(load.cases)} files {dict(load.counts())}, repeated {dict(load.repeated)}")
    return load


@short_and_long
@pytest.mark.parametrize("part", ["kafka", "mongo"])
async def test_what_keeps_the_log_and_the_streams_is_away(stack: Stack, part: str, seconds: int) -> None:
    async def outage() -> None:
        await asyncio.to_thread(stack.stop, [part])
        await asyncio.sleep(seconds)
        await asyncio.to_thread(stack.start, [part])

    async with live(stack) as observer:
        await survive(observer, outage, seed=31)


def harmed(proxy: AwsFaultProxy, service: Service, fault: Fault, seconds: float) -> Outage:
    """The service's calls come by here, and are harmed for so long."""

    async def outage() -> None:
        assert proxy.passed[service], "the files service does not come by here"
        proxy.delay = seconds / 2  # in a long outage, longer than a call may take
        proxy.faults[service] = fault
        await asyncio.sleep(seconds)
        proxy.faults.clear()
        assert proxy.harmed[service]

    return outage


@short_and_long
@pytest.mark.parametrize("fault", ["cut", "errors", "slow", "unanswered"])
async def test_s3_away_refusing_slow_or_mute(stack: Stack, fault: Fault, seconds: int) -> None:
    async with (
        running(AwsFaultProxy(stack.site.ports["aws"])) as proxy,
        live(stack, extra={"AWS_ENDPOINT_URL": proxy.url}, parts=("files",)) as observer,
    ):
        load = await survive(observer, harmed(proxy, "s3", fault, seconds), seed=32)
    assert load.repeated or fault == "slow", "nobody noticed"


@short_and_long
@pytest.mark.parametrize("fault", ["cut", "errors", "unanswered", "lies"])
async def test_sqs_away_or_lying(stack: Stack, fault: Fault, seconds: int) -> None:
    async with (
        running(AwsFaultProxy(stack.site.ports["aws"])) as proxy,
        live(stack, extra={"AWS_ENDPOINT_URL": proxy.url}, parts=("files",)) as observer,
    ):
        await survive(observer, harmed(proxy, "sqs", fault, seconds), seed=33)


@short_and_long
async def test_notifications_that_never_come_are_not_needed(stack: Stack, seconds: int) -> None:
    async with live(stack) as observer, FilesObserver(observer).no_notifications():
        await survive(observer, lambda: asyncio.sleep(seconds), seed=34, teller="client")


@short_and_long
async def test_clients_who_never_say_that_they_are_done_are_not_needed(stack: Stack, seconds: int) -> None:
    async with live(stack) as observer:
        await survive(observer, lambda: asyncio.sleep(seconds), seed=35, teller="notification")


async def test_where_nobody_tells_the_sweeper_finds_out(stack: Stack) -> None:
    soon = {"MAILROOM_UPLOAD_MINUTES": "0.25", "MAILROOM_UPLOAD_GRACE_MINUTES": "0.1"}
    async with (
        live(stack, extra=soon, parts=("files",)) as observer,
        FilesObserver(observer).no_notifications(),
    ):
        await survive(observer, lambda: asyncio.sleep(1), seed=36, teller="notification")
