"""kill -9 of the projector between any two of its effects: afterwards the read model is the pure fold of the log."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

from services.events.composing import ReadingSide
from services.events.ports import Lease
from services.kit.parking import ParkedFilter
from tests.integration.events.conftest import HANG, Write, address, end_leases
from tests.integration.events.judge import assert_equal_to_the_log, wait_until_projected
from tests.integration.events.mails import mails
from tests.integration.events.test_live import first_generation, projecting

STEPS = (
    "before:load", "before:write", "after:write", "before:write_rows", "after:write_rows", "before:mark_dirty",
    "after:mark_dirty", "before:checkpoint", "after:checkpoint", "before:commit", "after:commit",
)  # fmt: skip


@asynccontextmanager
async def dying(side: ReadingSide, mongo_url: str, generation: int) -> AsyncIterator[Callable[[str], Awaitable[int]]]:
    """Runs a projector process to its death at a step, and says how it ended."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.integration.events.dying", address(side), mongo_url),
        *(side.database.name, side.projection.topic, str(generation)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    told, answers = process.stdin, process.stdout

    async def die(step: str) -> int:
        told.write(f"{step}\n".encode())
        return int(await asyncio.wait_for(answers.readline(), HANG))

    try:
        yield die
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def test_killed_between_any_two_effects(side: ReadingSide, mongo_url: str, write: Write) -> None:
    generation = await first_generation(side)
    async with dying(side, mongo_url, generation) as die:
        for round_, step in enumerate(STEPS):
            await write(mails(40, seed=round_, busy_opens=600))
            assert await die(step) == -signal.SIGKILL, step
            await end_leases(side)
    async with projecting(side, generation):
        await wait_until_projected(side, generation)
    assert await assert_equal_to_the_log(side, generation) == 40 * len(STEPS)
    await _statistics_are_of_the_documents(side, generation)


async def _statistics_are_of_the_documents(side: ReadingSide, generation: int) -> None:
    statistics = side.statistics(generation)
    for bucket in await statistics.dirty():
        assert await statistics.refresh(bucket)
    found = await statistics.rows(None, None, None)
    assert found is not None
    shown = await side.database[f"email_log__g{generation}"].count_documents({})
    assert sum(row["sums"]["messages"] for row in found) == shown


async def test_a_zombie_moves_no_checkpoint(side: ReadingSide) -> None:
    generation = await first_generation(side)
    leases = side.leases(generation)
    old = await leases.acquire("zombie", 0)
    assert old is not None
    assert await leases.acquire("heir", 0) is None
    await end_leases(side)
    new = await leases.acquire("heir", 0)
    assert new is not None
    assert new.epoch == old.epoch + 1
    assert await leases.checkpoint("heir", [replace(new, next=7)]) == set()
    assert await leases.checkpoint("zombie", [replace(old, next=99)]) == {0}
    await leases.release("zombie", [old])
    assert [(each.owner, each.next, each.held) for each in await leases.view() if each.partition == 0] == [
        ("heir", 7, True)
    ]
    assert await leases.checkpoint("heir", [Lease(0, new.epoch, 8)]) == set()


async def test_poison_on_the_topic_is_parked_and_the_rest_flows(side: ReadingSide, write: Write) -> None:
    good = mails(30)
    key, value = good[0]
    poison = [
        (key, None), (key, b"{"), (key, b"[]"), (None, value), (b"\xff\xfe", value), (b"another", value),
        (key, b'{"type":"email.sent"}'), (key, b"[" * 100_000), (key, b'{"a":"' + b"x" * 900_000 + b'"}'),
        (key, (value or b"").replace(b'"dataversion":1', b'"dataversion":99')),
    ]  # fmt: skip
    strange = (value or b"").replace(b'"type":"email.requested"', b'"type":"email.teleported"')
    await write([*good[:50], *poison, (key, strange.replace(b"event-0001", b"event-x")), *good[50:]])
    generation = await first_generation(side)
    async with projecting(side, generation):
        await wait_until_projected(side, generation)
    assert await assert_equal_to_the_log(side, generation) == 30
    parked = (await side.parking.list(ParkedFilter())).records
    assert sorted(each.reason for each in parked) == sorted(
        ["nullValue", "notJson", "notAnObject", "nullKey", "badKey", "keyMismatch", "invalid", "notJson", "invalid",
         "unknownVersion"]
    )  # fmt: skip
