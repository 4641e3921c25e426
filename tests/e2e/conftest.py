"""Callers for tests of the HTTP API. A module of such tests says `pytestmark = SHARED`: they have one event loop, and
one set of connections, which takes longer to make than most of them run.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from deploy.local.stack import Stack
from tests.e2e.callers import Callers, calling


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def _connected(stack: Stack) -> AsyncIterator[Callers]:
    async with calling(stack) as callers:
        yield callers


@pytest_asyncio.fixture(loop_scope="module")
async def callers(_connected: Callers) -> Callers:
    """Callers that nobody has heard of, at a stack without faults."""
    await _connected.observer.simulator.faults()
    return _connected.anew()
