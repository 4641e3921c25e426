"""Kafka and MongoDB go away under mail and files: nothing is lost or doubled, no success is false, all comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
from contextlib import suppress
from typing import Any

import httpx
import pytest
from pymongo import MongoClient
from pymongo.errors import AutoReconnect

from deploy.local.stack import Stack
from tests.e2e.evidence import Observer
from tests.e2e.live import EMAIL, live
from tests.e2e.outages import BOTH_SIDES, LONG, SHORT, files_survive, mail_survives

SERVICES = (*EMAIL, "files", "events")
PATIENCE = 180.0


Outage = Callable[[], Coroutine[Any, Any, None]]


async def everything_survives(observer: Observer, outage: Outage, seed: int) -> None:
    """Mail and files at once, and one outage for both."""
    both, under_way = asyncio.Barrier(2), list[asyncio.Task[None]]()

    async def common(*_: object) -> None:
        await both.wait()
        if not under_way:
            under_way.append(asyncio.create_task(outage()))
        await under_way[0]

    async with asyncio.TaskGroup() as group:
        group.create_task(mail_survives(observer, common, seed))
        group.create_task(files_survive(observer, common, seed))


async def tell(stack: Stack, page: str, status: int, names: Collection[str] = SERVICES) -> None:
    """Wait until each of these services answers so."""
    async with httpx.AsyncClient(timeout=PATIENCE) as client, asyncio.timeout(PATIENCE):
        for name in names:
            while (await client.get(f"{stack.site.url(name)}/{page}")).status_code != status:  # noqa: ASYNC110
                await asyncio.sleep(0.2)


@pytest.mark.parametrize("seconds", [SHORT, LONG])
async def test_kafka_away(stack: Stack, seconds: int) -> None:
    """Meanwhile nobody is ready and everybody lives, which `mail_survives` and `files_survive` watch."""

    async def outage() -> None:
        await asyncio.to_thread(stack.stop, ["kafka"])
        await asyncio.gather(asyncio.sleep(seconds), tell(stack, "readyz", 503))
        await asyncio.to_thread(stack.start, ["kafka"])
        await tell(stack, "readyz", 200)

    async with live(stack) as observer:
        await everything_survives(observer, outage, seed=11)


@pytest.mark.long
@pytest.mark.timeout(500)
async def test_kafka_killed_and_away_for_long(stack: Stack) -> None:
    async def outage() -> None:
        await asyncio.to_thread(stack.kill, "kafka")
        await asyncio.sleep(30)
        await asyncio.to_thread(stack.start, ["kafka"])

    async with live(stack) as observer:
        await everything_survives(observer, outage, seed=12)


@pytest.mark.parametrize("seconds", [SHORT, LONG])
async def test_mongodb_stepped_down_and_away(stack: Stack, seconds: int) -> None:
    url = f"mongodb://127.0.0.1:{stack.site.ports['mongo']}/?directConnection=true"

    def step_down() -> None:
        client: MongoClient[dict[str, Any]] = MongoClient(url)
        with client, suppress(AutoReconnect):  # it may close the connection of whoever asks
            client.admin.command({"replSetStepDown": 5, "force": True})

    async def outage() -> None:
        await asyncio.to_thread(step_down)
        await asyncio.to_thread(stack.wait_ready, ["mongo"])
        await asyncio.sleep(BOTH_SIDES)
        await asyncio.to_thread(stack.stop, ["mongo"])
        await asyncio.sleep(seconds)
        await asyncio.to_thread(stack.start, ["mongo"])

    async with live(stack) as observer:
        await everything_survives(observer, outage, seed=13)
