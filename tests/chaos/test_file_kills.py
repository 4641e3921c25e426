"""kill -9 of the files service under uploads, at every gap between two effects: every file comes to its true status,
and S3 holds exactly what the files say. MAILROOM_CHAOS_SEED runs one seed again.
"""

from __future__ import annotations

import asyncio
import os

import pytest

from deploy.local.stack import Stack
from tests.chaos.killing import Killer
from tests.e2e.evidence import observing
from tests.e2e.files_evidence import FilesObserver
from tests.e2e.uploads import uploads

SEED = os.environ.get("MAILROOM_CHAOS_SEED")
SETTLING = 120.0


async def survive(stack: Stack, seed: int, kills: int) -> None:
    """So many kills under uploads, then judged."""
    async with observing(stack) as observer, uploads(stack, seed) as load:
        since = await observer.now()
        killer = Killer(stack, observer, "files", seed)
        enough = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(load.flow(enough))
            await killer.kill(kills)
            enough.set()
        await FilesObserver(observer).assert_fair(since, load, SETTLING)
    print(f"\nseed {seed}: {len(load.cases)} files: {dict(load.counts())}\n{killer.report()}")


async def test_a_few_kills_lose_no_file(stack: Stack) -> None:
    await survive(stack, int(SEED or 1), kills=5)


@pytest.mark.long
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("seed", [int(SEED)] if SEED else [201, 202])
async def test_many_kills_lose_no_file(stack: Stack, seed: int) -> None:
    await survive(stack, seed, kills=57)
