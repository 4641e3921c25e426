"""A whole stack in a test's hands: up, without faults, and left so, whatever the test did to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import httpx

from deploy.local.stack import Stack
from tests.e2e.evidence import Observer, observing

PLENTY = 500.0
"""Recipients a second that the account may send, so that the account is not what a test measures."""

EMAIL = ("email", "email-urgent")
"""The parts that are processes of the email service."""


@asynccontextmanager
async def live(
    stack: Stack, *, rate: float = PLENTY, extra: Mapping[str, str] | None = None, parts: tuple[str, ...] = EMAIL
) -> AsyncIterator[Observer]:
    """Everything up and ready, the account's rate as given, seen by an observer.

    `extra` is added to the environment of these parts, which are restarted for it and once more at the end.
    """
    await asyncio.to_thread(stack.start)
    async with observing(stack) as observer:
        await observer.simulator.faults()
        before = await observer.simulator.settings()
        await observer.simulator.settings(maxSendRate=rate, stepMs=20)
        if before["maxSendRate"] != rate:  # the service asks for its quota at its start
            await asyncio.to_thread(stack.restart, *EMAIL)
        try:
            async with _with_extra(stack, extra or {}, parts):
                yield observer
        finally:
            await asyncio.to_thread(stack.start)
            await observer.simulator.faults()


@asynccontextmanager
async def _with_extra(stack: Stack, extra: Mapping[str, str], parts: tuple[str, ...]) -> AsyncIterator[None]:
    """These parts, and no other, are started with it."""
    if not extra:
        yield
        return
    before = dict(stack.extra)
    stack.extra |= extra
    try:
        await asyncio.to_thread(stack.restart, *parts)
        yield
    finally:
        stack.extra = before
        await asyncio.to_thread(stack.restart, *parts)


async def alive(stack: Stack, name: str) -> bool:
    """Whether a service's liveness is green: nobody should restart it."""
    async with httpx.AsyncClient(base_url=stack.site.url(name), timeout=60) as client:
        return (await client.get("/healthz")).status_code == 200


async def always_alive(stack: Stack, until: asyncio.Event, *names: str) -> None:
    """AssertionError as soon as one of these services is not alive, looked at twice a second."""
    while not until.is_set():
        for name in names:
            assert await alive(stack, name), f"{name} says that it should be restarted"
        await asyncio.sleep(0.5)
