"""The pointer and the generations behind it, as operators and projector processes use them."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from services.events.composing import ReadingSide
from services.events.entrypoints.projector import Parts, ProjectorService
from services.events.generations import move, retire, rollback, swap
from services.kit.errors import PermanentError
from tests.integration.events.conftest import Write, until
from tests.integration.events.judge import assert_equal_to_the_log, wait_until_projected
from tests.integration.events.mails import mails
from tests.integration.events.test_live import first_generation


async def second_generation(side: ReadingSide) -> int:
    """An empty one that is ready to be swapped in: every event is still to be projected into it."""
    number = (await side.generations.create(side.projection.version)).number
    await side.leases(number).seed(dict.fromkeys(range(6), 0))
    await side.generations.ensure_indexes(number)
    for stage in ("backfilling", "catchingUp", "verified"):
        await move(side.generations, number, stage)
    return number


async def test_of_two_swaps_one_wins(side: ReadingSide) -> None:
    first = await first_generation(side)
    second, third = await second_generation(side), await second_generation(side)
    outcomes = await asyncio.gather(
        swap(side.generations, second, expected=first),
        swap(side.generations, third, expected=first),
        return_exceptions=True,
    )
    (refused,) = [each for each in outcomes if each is not None]
    assert isinstance(refused, PermanentError)
    assert refused.reason == "pointerMoved"
    pointer = await side.generations.pointer()
    assert (pointer.active, pointer.previous) == (second if outcomes[0] is None else third, first)


async def test_what_was_read_before_is_kept_up_to_date_and_can_be_read_again(side: ReadingSide, write: Write) -> None:
    """The process that runs in production finds both by itself; a rollback in the grace loses nothing."""
    await write(mails(20))
    first = await first_generation(side)
    second = await second_generation(side)
    service = ProjectorService(parts(side), side.clock)
    await service.start()
    try:
        await wait_until_projected(side, second)
        await swap(side.generations, second, expected=first)
        await asyncio.sleep(1.0)  # for the process to see the stages
        await write(mails(20, seed=2))
        await wait_until_projected(side, first)
        await wait_until_projected(side, second)
    finally:
        await service.stop(8.0)
    assert await rollback(side.generations) == first
    assert await assert_equal_to_the_log(side, first) == 40
    assert await side.database["email_log"].count_documents({}) == 40


async def test_there_is_nothing_to_roll_back_to_after_the_grace(side: ReadingSide) -> None:
    first = await first_generation(side)
    second = await second_generation(side)
    await swap(side.generations, second, expected=first, grace=0.0)
    service = ProjectorService(parts(side), side.clock)
    await service.start()
    try:

        async def retired() -> bool:
            found = await side.generations.get(first)
            return found is not None and found.stage == "retired"

        await until(retired)
    finally:
        await service.stop(8.0)
    with pytest.raises(PermanentError, match="nothingToRollBack"):
        await rollback(side.generations)
    assert (await side.generations.pointer()).active == second


async def test_what_is_read_cannot_be_dropped(side: ReadingSide) -> None:
    """Refused before anything is touched: it goes on being projected. And the store refuses by itself."""
    first = await first_generation(side)
    with pytest.raises(PermanentError, match="generationActive"):
        await retire(side.generations, first)
    found = await side.generations.get(first)
    assert found is not None
    assert found.stage == "active"
    with pytest.raises(PermanentError, match="generationActive"):
        await side.generations.drop(first)
    assert [lease.partition for lease in await side.leases(first).view()] == list(range(6))


def parts(side: ReadingSide) -> Parts:
    async def no_rebuilds() -> float:
        return 60.0

    return Parts(
        projection=side.projection,
        store=side.generations,
        log=side.log,
        leases=side.leases,
        statistics=side.statistics,
        projector=partial(side.projector),
        rebuilds=no_rebuilds,
    )
