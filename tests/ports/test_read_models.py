"""What the documents of a generation promise: one suite, run on memory and on a real MongoDB."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from contracts.email import events as mail
from services.events.adapters.mongo_read_models import MongoReadModels
from services.events.ports import ABSENT, ReadModels, Row, Stored, Write
from services.events.projections.known import KnownEvent, tally
from services.events.projections.projection import EMAIL_LOG
from services.kit.mongo import connect
from tests.unit.events_service.events import ANN, BOB, Log, fact, requested, sent
from tests.unit.events_service.memory import MemoryReadModels


@pytest.fixture(params=["memory", "mongo"])
async def models(request: pytest.FixtureRequest) -> AsyncIterator[ReadModels]:
    if request.param == "memory":
        yield MemoryReadModels()
        return
    client = connect(request.getfixturevalue("mongo_url"))
    name = f"test_models_{uuid4().hex[:8]}"
    try:
        yield MongoReadModels(client[name], "email_log", 1)
    finally:
        await client.drop_database(name)
        await client.close()


def story() -> list[KnownEvent]:
    log = Log()
    return [log.event(requested(ANN, BOB)), log.event(sent()), log.event(fact(mail.EmailDelivered))]


def opens(count: int) -> list[KnownEvent]:
    log = Log()
    return [log.event(fact(mail.EmailOpened, ANN if n % 2 else BOB, machine=n % 3 == 0)) for n in range(count)]


def write(events: list[KnownEvent], expected: int = 0, name: str = "m1") -> Write:
    return Write(name, expected, sorted(events), (), False, EMAIL_LOG.fold(events, ()))


async def test_what_is_read_is_what_was_written_with_every_origin(models: ReadModels) -> None:
    events = story()
    moved = events[2]._replace(place=(0, 1))  # seen lower in another reading
    outside = opens(4)
    whole = Write("m1", 0, [*events[:2], moved], tally(outside), True, EMAIL_LOG.fold(events, tally(outside)))
    unseen = Write("m2", 0, events[1:], (), False, None)
    assert await models.write([whole, unseen]) == ["done", "done"]
    found = await models.load(["m1", "m2", "m3"])
    assert found == {
        "m1": Stored(1, {event.id: event for event in whole.ordered}, tally(outside), True),
        "m2": Stored(1, {event.id: event for event in events[1:]}, (), False),
    }


async def test_of_two_writers_of_one_document_one_loses(models: ReadModels) -> None:
    """Each had read the document before the other wrote it: whoever is second must learn that, and write nothing."""
    first, second, third = story()
    assert await models.write([write([first])]) == ["done"]
    assert await models.write([write([first, second])]) == ["conflict"], "it believed that there was none"
    assert await models.write([write([first, second], expected=1)]) == ["done"]
    assert await models.write([write([first, third], expected=1)]) == ["conflict"]
    stored = (await models.load(["m1"]))["m1"]
    assert (stored.rev, set(stored.known)) == (2, {first.id, second.id})


async def test_a_lost_write_is_told_by_its_place_in_the_bulk(models: ReadModels) -> None:
    events = story()
    await models.write([write(events, name="old")])
    outcomes = await models.write([write(events), write(events, name="old"), write(events, name="m2")])
    assert outcomes == ["done", "conflict", "done"]
    assert set(await models.load(["m1", "m2", "old"])) == {"m1", "m2", "old"}


async def test_of_two_writers_of_one_row_one_loses(models: ReadModels) -> None:
    event, other = opens(2)
    assert await models.write_rows("m1", [Row(event), Row(other)]) == ["done", "done"]
    assert await models.write_rows("m1", [Row(event)]) == ["conflict"]
    corrected = event._replace(place=(0, 0))
    assert await models.write_rows("m1", [Row(corrected, 1)]) == ["done"]
    assert await models.write_rows("m1", [Row(event, 1)]) == ["conflict"]
    assert await models.load_rows("m1", [event.id, other.id, "none"]) == {
        event.id: Row(corrected, 2),
        other.id: Row(other, 1),
    }
    assert await models.load_rows("m2", [event.id]) == {}


async def test_rows_are_counted_without_those_that_lie_inline_or_are_withdrawn(models: ReadModels) -> None:
    facts = opens(9)
    await models.write_rows("m1", [Row(event) for event in facts])
    await models.write_rows("m1b", [Row(facts[0])])
    assert await models.tally_rows("m1", [], {}) == tally(facts)
    inline, withdrawn = [facts[0].id], {facts[1].id: facts[1].revision, facts[2].id: facts[2].revision - 1}
    assert await models.tally_rows("m1", inline, withdrawn) == tally([*facts[2:]])
    assert await models.tally_rows("nobody", [], {}) == ()


async def test_what_is_not_there_is_absent(models: ReadModels) -> None:
    assert (await models.load(["m1"])).get("m1", ABSENT) is ABSENT
    assert await models.load_rows("m1", []) == {}


async def test_every_event_of_a_busy_document_has_its_origin(mongo_url: str) -> None:
    client = connect(mongo_url)
    name = f"test_models_{uuid4().hex[:8]}"
    try:
        models = MongoReadModels(client[name], "email_log", 1)
        inside, outside = story(), opens(5)
        await models.write_rows("m1", [Row(event) for event in outside])
        body = EMAIL_LOG.fold(inside, tally(outside))
        await models.write([Write("m1", 0, inside, tally(outside), True, body)])
        known = await models.known("m1")
        assert {(e.id, e.partition, e.offset) for e in known} == {
            (e.id, e.partition, e.offset) for e in (*inside, *outside)
        }
    finally:
        await client.drop_database(name)
        await client.close()
