"""Two versions of a fold at the same time: a release that is rolled out process by process, and rolled back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from services.events.composing import ReadingSide
from services.events.entrypoints.projector import ProjectorService
from services.events.operating import ProjectionOperator
from services.kit.errors import PermanentError
from tests.integration.events.conftest import Write, until
from tests.integration.events.judge import assert_equal_to_the_log, wait_until_projected
from tests.integration.events.mails import mails
from tests.integration.events.test_generations import parts
from tests.integration.events.test_live import first_generation
from tests.integration.events.workers import WorkersHere


@pytest.fixture
def newer(side: ReadingSide) -> ReadingSide:
    """The next release: another shape, and the fold before it."""
    before = side.projection

    def fold(events: Any, overflow: Any) -> Any:
        body = before.fold(events, overflow)
        return None if body is None else {**body, "subject": "in the new shape"}

    return replace(side, projection=replace(before, version=before.version + 1, fold=fold, earlier=(before,)))


@asynccontextmanager
async def process(side: ReadingSide) -> AsyncIterator[ProjectorService]:
    """What a process of that release runs."""
    service = ProjectorService(parts(side), side.clock)
    await service.start()
    try:
        yield service
    finally:
        await service.stop(8.0)


def operator(side: ReadingSide) -> ProjectionOperator:
    create = side.rebuild(WorkersHere(side)).create
    return ProjectionOperator(side.projection, side.generations, side.leases, side.log, create)


async def test_a_release_with_a_new_fold_is_rolled_out_without_a_mixed_or_a_frozen_generation(
    side: ReadingSide, newer: ReadingSide, write: Write
) -> None:
    first = await first_generation(side)
    async with process(newer) as new:
        async with process(side) as old:
            await _shared(side, first)
            await write(mails(30))
            await wait_until_projected(side, first)
            assert await assert_equal_to_the_log(side, first) == 30

            rebuild = newer.rebuild(WorkersHere(newer))
            second = (await rebuild.create()).number
            verdict = await rebuild.run(second)
            assert verdict is not None
            assert (verdict.differing, verdict.reshaped) == (0, 30)

            async def told() -> bool:
                return f"version {newer.projection.version} of its fold" in str(old.health().detail.get("state"))

            await until(told)
            assert not old.health().ready
            await write(mails(30, seed=2))
            for generation in (first, second):
                await wait_until_projected(side, generation)
            with pytest.raises(PermanentError, match="olderFold"):
                await operator(side).start()
            with pytest.raises(PermanentError, match="foldMissing"):
                await side.check_fold()
        await newer.check_fold()
        await write(mails(30, seed=3))  # all processes are of the new release
        for generation in (first, second):
            await wait_until_projected(side, generation)
        assert new.health().ready
        assert await assert_equal_to_the_log(side, first) == 90
        assert await assert_equal_to_the_log(newer, second) == 90
        assert (await operator(newer).rollback()).number == first
        with pytest.raises(PermanentError, match="foldMissing"):
            await operator(side).rollback()


async def _shared(side: ReadingSide, generation: int) -> None:
    async def shared() -> bool:
        view = await side.leases(generation).view()
        return len({lease.owner for lease in view if lease.held}) == 2 and all(lease.held for lease in view)

    await until(shared)
