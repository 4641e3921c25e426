"""Of two writers of one document, whoever loses reads again, unites and writes anew."""

from __future__ import annotations

import asyncio

import pytest

from contracts.email import events as mail
from tests.unit.events_service.events import ANN, fact, requested, sent
from tests.unit.events_service.memory import MemoryReadModels
from tests.unit.events_service.test_aggregates import Crash, Engine, _busy, _opens, _records


async def test_whoever_loses_the_guard_ends_in_the_union() -> None:
    models = MemoryReadModels()
    request, sending, delivered = _records(requested(ANN), sent(), fact(mail.EmailDelivered))
    await Engine(models).aggregates.apply([request])
    rival = Engine(models)

    async def quietly(_step: str) -> None:
        await asyncio.sleep(0)

    async def come_between(step: str) -> None:
        if step == "write":  # read by the first, and not written by it yet
            models.hook = quietly
            await rival.aggregates.apply([sending])

    models.hook = come_between
    await Engine(models).aggregates.apply([delivered])
    stored, body = models.stored["m1"], models.bodies["m1"]
    assert {event.offset for event in stored.known.values()} == {0, 1, 2}
    assert body is not None
    assert (body["status"], len(body["events"])) == ("delivered", 3)


async def test_what_one_process_remembers_does_not_undo_what_another_wrote() -> None:
    models = MemoryReadModels()
    request, sending, delivered = _records(requested(ANN), sent(), fact(mail.EmailDelivered))
    remembering = Engine(models)
    await remembering.aggregates.apply([request])
    await Engine(models).aggregates.apply([sending])
    await remembering.aggregates.apply([delivered])  # it still has the document as it left it
    assert {event.offset for event in models.stored["m1"].known.values()} == {0, 1, 2}


async def test_rows_that_a_crash_left_behind_count_once() -> None:
    """Killed between the rows and the document: the next try finds rows that no document tells of yet."""
    models = MemoryReadModels()
    await Engine(models).aggregates.apply(_busy()[:7])  # the document has rows already
    added = _busy()[7:]

    async def die(step: str) -> None:
        if step == "write":
            raise Crash

    async def quietly(_step: str) -> None:
        await asyncio.sleep(0)

    models.hook = die
    with pytest.raises(Crash):
        await Engine(models).aggregates.apply(added)
    models.hook = quietly
    await Engine(models).aggregates.apply(added)
    assert _opens(models) == 8


async def test_a_repeated_fact_outside_the_document_counts_once() -> None:
    models = MemoryReadModels()
    for _ in range(2):
        await Engine(models).aggregates.apply(_busy())
    assert _opens(models) == 8
