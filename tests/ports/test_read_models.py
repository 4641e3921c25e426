"""What the documents of a generation promise: one suite, run on memory and on a real MongoDB."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from contracts.email import events as mail
from services.events.adapters import mongo_read_models
from services.events.adapters.mongo_documents import from_row
from services.events.adapters.mongo_generations import MongoGenerations
from services.events.adapters.mongo_read_models import MongoReadModels, collection_name
from services.events.cursors import Step
from services.events.ports import ABSENT, ReadModels, Row, Stored, Write
from services.events.projections.known import KnownEvent, tally
from services.events.projections.projection import EMAIL_LOG, FILE
from services.kit.mongo import Database, connect
from tests.unit.events_service.events import ANN, BOB, Log, fact, requested, retracted, sent
from tests.unit.events_service.file_events import download, file_log, upload_requested, uploaded
from tests.unit.events_service.memory import MemoryReadModels

MAIL, LINKS = EMAIL_LOG.engagement, FILE.engagement


@pytest.fixture(params=["memory", "mongo"])
async def models(request: pytest.FixtureRequest) -> AsyncIterator[ReadModels]:
    if request.param == "memory":
        yield MemoryReadModels()
        return
    client = connect(request.getfixturevalue("mongo_url"))
    name = f"test_models_{uuid4().hex[:8]}"
    try:
        yield MongoReadModels(client[name], EMAIL_LOG, 1)
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
    whole = Write(
        "m1", 0, [*events[:2], moved], tally(outside, MAIL), True, EMAIL_LOG.fold(events, tally(outside, MAIL))
    )
    unseen = Write("m2", 0, events[1:], (), False, None)
    assert await models.write([whole, unseen]) == ["done", "done"]
    found = await models.load(["m1", "m2", "m3"])
    assert found == {
        "m1": Stored(1, {event.id: event for event in whole.ordered}, tally(outside, MAIL), True),
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
    assert await models.tally_rows("m1", [], {}) == tally(facts, MAIL)
    inline, withdrawn = [facts[0].id], {facts[1].id: facts[1].revision, facts[2].id: facts[2].revision - 1}
    assert await models.tally_rows("m1", inline, withdrawn) == tally([*facts[2:]], MAIL)
    assert await models.tally_rows("nobody", [], {}) == ()


async def test_what_can_be_stored_is_told_before(models: ReadModels) -> None:
    assert models.takes(write(story()))
    assert models.takes(Write("m1", 0, story(), (), False, None))


@pytest.mark.parametrize("value", [2**70, {"nul\0": 1}, "x" * 17_000_000])
def test_what_cannot_be_stored_is_told_before(value: object) -> None:
    models = MongoReadModels(connect("mongodb://127.0.0.1:9")["none"], EMAIL_LOG, 1)
    assert not models.takes(Write("m1", 0, story(), (), False, {"customData": value}))


async def test_what_is_not_there_is_absent(models: ReadModels) -> None:
    assert (await models.load(["m1"])).get("m1", ABSENT) is ABSENT
    assert await models.load_rows("m1", []) == {}


async def test_every_event_of_a_busy_document_has_its_origin(mongo_url: str) -> None:
    client = connect(mongo_url)
    name = f"test_models_{uuid4().hex[:8]}"
    try:
        models = MongoReadModels(client[name], EMAIL_LOG, 1)
        inside, outside = story(), opens(5)
        await models.write_rows("m1", [Row(event) for event in outside])
        body = EMAIL_LOG.fold(inside, tally(outside, MAIL))
        await models.write([Write("m1", 0, inside, tally(outside, MAIL), True, body)])
        known = await models.known("m1")
        assert {(e.id, e.partition, e.offset) for e in known} == {
            (e.id, e.partition, e.offset) for e in (*inside, *outside)
        }
    finally:
        await client.drop_database(name)
        await client.close()


async def test_a_page_of_a_history_reads_no_more_rows_than_it_tells(
    mongo_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def counted(document: dict[str, Any]) -> Row:
        read.append(document["event"])
        return from_row(document)

    monkeypatch.setattr(mongo_read_models, "from_row", counted)
    client = connect(mongo_url)
    name = f"test_models_{uuid4().hex[:8]}"
    try:
        models = MongoReadModels(client[name], EMAIL_LOG, 1)
        log = Log()
        inside = [log.event(requested(ANN, BOB)), log.event(sent(), at=9), log.event(retracted("event-0007"), at=30)]
        outside = [  # clicks and opens of one microsecond, and some whose order is not that of their ids
            log.event(fact(kind, ANN), at=(number * 7 % 11) // 2)
            for number in range(24)
            for kind in (mail.EmailClicked, mail.EmailOpened)
        ]
        stale = outside[5]  # a row whose event lies inline again
        await models.write_rows("m1", [Row(event) for event in outside])
        overflow = tally([event for event in outside if event is not stale], MAIL)
        known = sorted([*inside, stale])
        await models.write([Write("m1", 0, known, overflow, True, EMAIL_LOG.fold(known, overflow))])
        everything = sorted([*inside, *outside])
        assert len({event.time for event in everything}) < len(everything) / 2
        told: list[KnownEvent] = []
        while len(told) < len(everything):
            read.clear()
            page, withdrawn = await models.history("m1", Step.of(told[-1]) if told else None, 7)
            assert len(read) <= 7
            assert withdrawn == {"event-0007": 1}
            assert page
            told += page
        assert [event.id for event in told] == [event.id for event in everything]
        assert (await models.history("m1", Step.of(told[-1]), 7))[0] == []
        assert await models.history("nobody", None, 7) == ([], {})
    finally:
        await client.drop_database(name)
        await client.close()


# --- files: no recipients, an expiry, and a key that is unique ------------------------------------------------------


@pytest.fixture
async def database(mongo_url: str) -> AsyncIterator[Database]:
    """A database with the first generation of `file`, indexes and all."""
    client = connect(mongo_url)
    name = f"test_models_{uuid4().hex[:8]}"
    try:
        generations = MongoGenerations(client[name], FILE)
        await generations.create(FILE.version, number=1)
        await generations.ensure_indexes(1)
        yield client[name]
    finally:
        await client.drop_database(name)
        await client.close()


@pytest.fixture(params=["memory", "mongo"])
def file_models(request: pytest.FixtureRequest) -> ReadModels:
    if request.param == "memory":
        return MemoryReadModels(projection=FILE)
    return MongoReadModels(request.getfixturevalue("database"), FILE, 1)


def links(count: int) -> list[KnownEvent]:
    log = file_log()
    return [log.event(download(7 * number % 11)) for number in range(count)]


def file_write(name: str, expected: int = 0, *, key: str | None = None) -> Write:
    log = file_log(name)
    request = upload_requested(name) if key is None else upload_requested(name, key=key)
    events = [log.event(request), log.event(uploaded())]
    return Write(name, expected, events, (), False, FILE.fold(events, ()))


async def test_the_latest_expiry_of_links_outside_the_document_is_kept(file_models: ReadModels) -> None:
    facts = links(9)
    await file_models.write_rows("f1", [Row(event) for event in facts])
    assert await file_models.tally_rows("f1", [], {}) == tally(facts, LINKS)
    latest = max(facts, key=lambda event: event.data["expiresAt"])
    without = [event for event in facts if event is not latest]
    assert await file_models.tally_rows("f1", [], {latest.id: 1}) == tally(without, LINKS)
    assert tally(without, LINKS)[0].until < tally(facts, LINKS)[0].until
    whole = file_write("f1")
    busy = Write("f1", 0, whole.ordered, tally(facts, LINKS), True, FILE.fold(whole.ordered, tally(facts, LINKS)))
    assert await file_models.write([busy]) == ["done"]
    assert (await file_models.load(["f1"]))["f1"].overflow == tally(facts, LINKS)


async def test_documents_that_show_nothing_yet_do_not_collide(file_models: ReadModels) -> None:
    early = [Write(name, 0, [file_log(name).event(uploaded())], (), False, None) for name in ("f1", "f2", "f3")]
    assert await file_models.write(early) == ["done"] * 3
    assert await file_models.write([file_write("f1", 1), file_write("f2", 1)]) == ["done"] * 2


async def test_a_lost_guard_is_a_conflict_and_not_a_claimed_key(file_models: ReadModels) -> None:
    """Whoever was beaten to a document has the same key as the winner: it is to read again, not to be parked."""
    assert await file_models.write([file_write("f1")]) == ["done"]
    assert await file_models.write([file_write("f1"), file_write("f2")]) == ["conflict", "done"]
    assert await file_models.write([file_write("f1", 7)]) == ["conflict"]


async def test_a_key_that_another_file_has_cannot_be_written_and_who_has_it_is_told(file_models: ReadModels) -> None:
    """Redoing it as if somebody else had written it would stop its partition."""
    assert await file_models.write([file_write("f1", key="one/key")]) == ["done"]
    assert await file_models.write([file_write("f2", key="one/key"), file_write("f3")]) == ["failed", "done"]
    assert await file_models.write([file_write("f2", key="one/key")]) == ["failed"]
    assert set(await file_models.load(["f1", "f2", "f3"])) == {"f1", "f3"}
    assert await file_models.claimants(file_write("f2", key="one/key")) == ["f1"]
    assert await file_models.claimants(file_write("f3")) == ["f3"]
    assert await file_models.claimants(file_write("f4")) == []
    assert await file_models.claimants(Write("f2", 0, [], (), False, None)) == []
    assert await file_models.write([Write("f1", 1, [], (), False, None)]) == ["done"]  # it shows it no more
    assert await file_models.write([file_write("f2", key="one/key")]) == ["done"]


async def test_the_index_that_keeps_keys_unique_finds_them_too(database: Database) -> None:
    models = MongoReadModels(database, FILE, 1)
    assert await models.write([file_write("f1", key="one/key")]) == ["done"]
    plan = await database[collection_name("file", 1)].find({"key": "one/key"}).explain()
    assert "IXSCAN" in str(plan["queryPlanner"]["winningPlan"])
