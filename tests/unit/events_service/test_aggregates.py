"""The engine on a store in memory: whatever the order, repetition, batching, crashes and rival writers, one result."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.base import EventData
from contracts.email import events as mail
from services.events.aggregates import Aggregates
from services.events.ports import Stored
from services.events.projections.projection import EMAIL_LOG, Body
from services.events.setting_aside import Flood, SettingAside
from services.kit.breaker import Breaker
from services.kit.kafka.records import Park, Partition
from services.kit.metrics import Metrics
from services.kit.parking import ParkedFilter
from services.kit.releases import Bound, Release, ReleaseAction
from services.kit.testing import FakeClock
from services.kit.testing.parking import MemoryParkingLot
from services.kit.testing.releases import MemoryReleases
from tests.unit.events_service.events import (
    ANN,
    BOB,
    Log,
    Record,
    attempted,
    bounced,
    fact,
    failed,
    requested,
    retracted,
    sent,
    settled,
    unknown,
)
from tests.unit.events_service.memory import MemoryReadModels

INLINE = 3
SEEDS = st.integers(0, 2**32)
NOW = datetime(2026, 11, 24, 10, 25, tzinfo=UTC)


class Engine:
    """An engine with a parking lot; `models` may be shared by several."""

    def __init__(
        self,
        models: MemoryReadModels,
        *,
        cache: int = 1000,
        limit: int = 1000,
        lot: MemoryParkingLot | None = None,
        releases: MemoryReleases | None = None,
    ) -> None:
        clock, metrics = FakeClock(), Metrics()
        self.lot = lot or MemoryParkingLot()
        self.releases = releases or MemoryReleases()
        self.breaker = Breaker(limit, 60, clock)
        aside = SettingAside(
            "events.email_log", "email.events", self.lot, self.breaker, clock, metrics, releases=self.releases
        )
        self.aggregates = Aggregates(
            EMAIL_LOG, models, aside, metrics, generation=1, cache_events=cache, inline=INLINE
        )  # fmt: skip


def result(models: MemoryReadModels) -> dict[str, Any]:
    """All that a rebuild must reproduce: bodies, event ids and origins, rows that count, tallies."""
    found: dict[str, Any] = {}
    for aggregate, stored in models.stored.items():
        outside = {
            event_id: row.event
            for event_id, row in models.rows.get(aggregate, {}).items()
            if event_id not in stored.known
        }
        found[aggregate] = (models.bodies[aggregate], stored.known, stored.overflow, outside)
    return found


MAILS = ("m1", "m2")
PLAIN: list[EventData] = [
    requested(ANN, BOB), attempted(), sent(), unknown(), settled("accepted"), failed("outcomeUnknown"), bounced(),
    bounced("transient"), fact(mail.EmailDelivered), fact(mail.EmailComplained), fact(mail.EmailRejected, reason="x"),
]  # fmt: skip


@st.composite
def logs(draw: st.DrawFn) -> list[Record]:
    """A log of two messages over two partitions: any types, repeated ids, revisions, retractions, many opens."""
    writers = {name: Log(name) for name in MAILS}
    records: list[Record] = []
    offsets = [0, 0]
    for _ in range(draw(st.integers(1, 30))):
        name = draw(st.sampled_from(MAILS))
        if draw(st.integers(0, 3)):
            event_id = f"{name}-{draw(st.integers(0, 9))}"
            data: EventData
            if draw(st.integers(0, 5)) == 0:
                data, event_id = retracted(event_id, draw(st.integers(1, 2))), f"{event_id}-r{draw(st.integers(0, 2))}"
            else:
                model: type[mail.DeliveryFact] = mail.EmailOpened if int(event_id[-1]) % 2 else mail.EmailClicked
                data = fact(model, draw(st.sampled_from([ANN, BOB])), machine=draw(st.booleans()))
            revision, at = draw(st.integers(1, 3)), draw(st.integers(0, 9))
            raw = writers[name].raw(data, event_id=event_id, revision=revision, at=at)
        else:
            raw = writers[name].raw(draw(st.sampled_from(PLAIN)))
        partition = draw(st.integers(0, 1)) if draw(st.integers(0, 4)) == 0 else MAILS.index(name)
        records.append(Record(partition, offsets[partition], name.encode(), raw))
        offsets[partition] += 1 + draw(st.integers(0, 1))
    return records


def at_once(records: list[Record]) -> dict[str, Any]:
    models = MemoryReadModels()
    asyncio.run(Engine(models).aggregates.apply(records))
    return result(models)


@settings(max_examples=150, deadline=None)
@given(logs(), SEEDS, st.integers(1, 8), st.integers(0, 40), st.booleans())
def test_any_order_any_repetition_any_batches_give_one_result(
    records: list[Record], seed: int, size: int, cache: int, fresh: bool
) -> None:
    rng = random.Random(seed)
    again = records + rng.sample(records, rng.randint(0, len(records)))
    rng.shuffle(again)
    models = MemoryReadModels()

    async def live() -> None:
        engine = Engine(models, cache=cache)
        for start in range(0, len(again), size):
            await engine.aggregates.apply(again[start : start + size], fresh=fresh)

    asyncio.run(live())
    assert result(models) == at_once(records)


class Crash(BaseException):
    """Stands for kill -9: nothing of the engine runs after it."""


@settings(max_examples=150, deadline=None)
@given(logs(), SEEDS, st.integers(1, 8))
def test_crashes_between_any_two_effects_and_rival_writers_change_nothing(
    records: list[Record], seed: int, size: int
) -> None:
    models, rng = MemoryReadModels(), random.Random(seed)
    batches = [records[start : start + size] for start in range(0, len(records), size)]

    async def die_or_wait(_step: str) -> None:
        for _ in range(rng.randint(0, 3)):
            await asyncio.sleep(0)
        if rng.random() < 0.08:
            raise Crash

    async def worker(todo: list[list[Record]]) -> None:
        engine = Engine(models)
        while todo:
            try:
                await engine.aggregates.apply(todo[0])
            except Crash:
                engine = Engine(models)  # a new process, from the checkpoint
                continue
            todo.pop(0)

    async def run() -> None:
        models.hook = die_or_wait
        async with asyncio.TaskGroup() as group:  # the second is a zombie that goes on with what is not its any more
            group.create_task(worker(list(batches)))
            group.create_task(worker(list(batches[: len(batches) // 2 + 1])))

    asyncio.run(run())
    assert result(models) == at_once(records)
    for aggregate, body in models.bodies.items():
        bucket = EMAIL_LOG.bucket_of(body)
        assert bucket is None or models.dirty[bucket], aggregate


def _records(*data: EventData, name: str = "m1") -> list[Record]:
    log = Log(name)
    return [Record(0, offset, name.encode(), log.raw(each)) for offset, each in enumerate(data)]


async def test_bad_records_are_parked_and_their_neighbours_projected() -> None:
    models = MemoryReadModels()
    engine = Engine(models)
    good = _records(requested(), sent())
    bad = [
        Record(0, 10, b"m1", None),
        Record(0, 11, b"m1", b"{"),
        Record(0, 12, None, good[1].value),
        Record(0, 13, b"\xff", good[1].value),
        Record(0, 14, b"another", good[1].value),
        Record(0, 15, b"m1", b"[]"),
    ]
    await engine.aggregates.apply([good[0], *bad, good[1]])
    body: Body | None = models.bodies["m1"]
    assert body is not None
    assert body["recipients"][0]["status"] == "sent"
    reasons = {parked.offset: parked.reason for parked in (await engine.lot.list(ParkedFilter())).records}
    assert reasons == {
        10: "nullValue", 11: "notJson", 12: "nullKey", 13: "badKey", 14: "keyMismatch", 15: "notAnObject",
    }  # fmt: skip


async def test_an_aggregate_that_cannot_be_written_is_parked_whole() -> None:
    models = MemoryReadModels(unwritable={"m1"})
    engine = Engine(models)
    await engine.aggregates.apply([*_records(requested(), sent()), *_records(requested(), name="m2")])
    assert set(models.stored) == {"m2"}
    assert sorted(parked.offset for parked in (await engine.lot.list(ParkedFilter())).records) == [0, 1]


async def test_a_bug_of_the_fold_parks_its_record_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def fold(events: Any, overflow: Any) -> Body | None:
        found = list(events)
        if len(found) == 2:
            raise KeyError("a bug")
        return EMAIL_LOG.fold(found, overflow)

    models = MemoryReadModels()
    engine = Engine(models)
    monkeypatch.setattr(engine.aggregates, "_projection", replace(EMAIL_LOG, fold=fold))
    await engine.aggregates.apply([*_records(requested(), sent()), *_records(requested(), name="m2")])
    shown = [models.bodies["m1"], models.bodies["m2"]]
    assert [body and body["recipients"][0]["status"] for body in shown] == ["queued", "queued"]
    parked = (await engine.lot.list(ParkedFilter())).records
    assert [(each.offset, each.reason, each.kind, each.kept) for each in parked] == [(1, "foldFailed", "bug", True)]


async def test_a_flood_of_bad_records_stops_instead_of_emptying_the_topic() -> None:
    models = MemoryReadModels()
    engine = Engine(models, limit=3)
    bad = [Record(0, offset, b"m1", b"{") for offset in range(10)]
    with pytest.raises(Flood):
        await engine.aggregates.apply(bad)
    assert len((await engine.lot.list(ParkedFilter())).records) == 3
    await engine.aggregates.apply(bad[:3])  # parked already: a repetition is no flood
    (told,) = await engine.releases.breakers(NOW)
    assert (told.consumer, told.state, told.offset) == ("events.email_log", "open", 9)


@pytest.mark.parametrize("action", ["park", "discard"])
async def test_an_operator_lets_go_of_a_flood_and_a_rebuild_comes_past_it(action: ReleaseAction) -> None:
    engine = Engine(MemoryReadModels(), limit=3)
    good = _records(requested(), sent())
    bad = [Record(0, offset, b"m2", b"{") for offset in range(10, 40)]
    with pytest.raises(Flood, match=r"mailroom breaker release events\.email_log"):
        await engine.aggregates.apply([*good, *bad])
    bound = Bound("email.events", 0, 0, 35)
    order = Release("r1", "events.email_log", action, "a bad writer", "operator:ann", NOW, (bound,))
    await engine.releases.order(order)
    await engine.aggregates.apply([*good, *bad[:25]])
    assert engine.breaker.state == "closed"
    assert await engine.releases.breakers(NOW) == []
    with pytest.raises(Flood):  # behind the order's bound
        await engine.aggregates.apply(bad)
    released = 35 - 13  # three were admitted before
    parked = [each.offset for each in engine.lot.all() if each.release == "r1"]
    ranges = await engine.releases.ranges("r1")
    assert (len(parked), sum(each.count for each in ranges)) == ((released, 0) if action == "park" else (0, released))
    await engine.releases.passed("r1", [Partition("email.events", 0)], NOW)
    rebuild = Engine(models := MemoryReadModels(), limit=0, lot=engine.lot, releases=engine.releases)
    await rebuild.aggregates.apply([*good, *bad[:25]])
    body = models.bodies["m1"]
    assert body is not None
    assert body["status"] == "sent"
    assert sum(each.count for each in await engine.releases.ranges("r1")) == sum(each.count for each in ranges)


async def test_what_a_fold_failed_on_is_parked_by_an_order_to_discard() -> None:
    engine = Engine(MemoryReadModels(), limit=0)
    bound = Bound("email.events", 0, 0, 9)
    order = Release("r1", "events.email_log", "discard", "a bad writer", "operator:ann", NOW, (bound,))
    await engine.releases.order(order)
    aside = engine.aggregates._aside
    await aside.park(
        [
            (Record(0, 1, b"m1", b"{"), Park("notJson", "poison")),
            (Record(0, 2, b"m1", b"{}"), Park("foldFailed", "bug")),
        ]
    )
    (found,) = await engine.releases.ranges("r1")
    assert (found.runs, [each.offset for each in engine.lot.all()]) == (((1, 1),), [2])


async def test_what_is_known_already_is_not_written_again_but_its_bucket_is_marked() -> None:
    models = MemoryReadModels()
    engine = Engine(models)
    records = _records(requested(), sent())
    await engine.aggregates.apply(records)
    await engine.aggregates.apply(records)
    assert models.writes == 1
    assert models.dirty == {"2026-11-24/notification": 2}


async def test_an_early_fact_waits_unseen_for_its_request() -> None:
    models = MemoryReadModels()
    engine = Engine(models)
    request, sending = _records(requested(), sent())
    await engine.aggregates.apply([sending])
    assert models.bodies == {"m1": None}
    assert models.dirty == {}
    assert isinstance(models.stored["m1"], Stored)
    await engine.aggregates.apply([request])
    body = models.bodies["m1"]
    assert body is not None
    assert body["status"] == "sent"


async def test_the_lowest_places_stay_inline_and_the_rest_is_counted() -> None:
    models = MemoryReadModels()
    engine = Engine(models)
    opens = [fact(mail.EmailOpened) for _ in range(8)]
    records = _records(requested(), *opens)
    for record in [records[0], *records[4:], *records[1:4]]:  # low places last
        await engine.aggregates.apply([record])
    stored, body = models.stored["m1"], models.bodies["m1"]
    assert body is not None
    inline = sorted(event.offset for event in stored.known.values() if event.type == "email.opened")
    assert inline == [1, 2, 3]
    assert (body["recipients"][0]["opens"], body["eventsTruncated"]) == (8, True)
    assert sum(each.facts for each in stored.overflow) == 5


def _busy(*more: bytes) -> list[Record]:
    """A request, eight opens (event-0002 to event-0009, the last five of them outside), and more."""
    opens = _records(requested(), *(fact(mail.EmailOpened) for _ in range(8)))
    return [*opens, *(Record(0, 20 + number, b"m1", raw) for number, raw in enumerate(more))]


def _opens(models: MemoryReadModels) -> int:
    body = models.bodies["m1"]
    assert body is not None
    return int(body["recipients"][0]["opens"])


@pytest.mark.parametrize("before", [True, False])
async def test_a_retracted_fact_outside_the_document_is_not_counted(before: bool) -> None:
    models = MemoryReadModels()
    engine = Engine(models)
    *records, away = _busy(Log("m1").raw(retracted("event-0008"), event_id="away"))
    for record in [away, *records] if before else [*records, away]:
        await engine.aggregates.apply([record])
    assert _opens(models) == 7
    assert "event-0008" in models.rows["m1"]


async def test_a_better_revision_replaces_a_fact_where_it_lies() -> None:
    models = MemoryReadModels()
    engine = Engine(models)
    corrected = Log("m1").raw(fact(mail.EmailOpened, machine=True), event_id="event-0008", revision=2)
    for record in _busy(corrected):
        await engine.aggregates.apply([record])
    row = models.rows["m1"]["event-0008"].event
    assert (row.revision, row.offset, row.place) == (2, 20, (0, 7))
    assert _opens(models) == 7
    assert {event.offset for event in models.stored["m1"].known.values()} == {0, 1, 2, 3}


async def test_of_two_writers_of_one_row_the_better_reading_wins() -> None:
    models = MemoryReadModels()
    low, high = (
        Log("m1").raw(fact(mail.EmailOpened), event_id="event-0008", revision=revision, at=8) for revision in (2, 3)
    )
    *records, second, third = _busy(low, high)
    await Engine(models).aggregates.apply(records)
    rival = Engine(models)

    async def come_between(step: str) -> None:
        if step == "write_rows":
            models.hook = _quietly
            await rival.aggregates.apply([second])

    async def _quietly(_step: str) -> None:
        await asyncio.sleep(0)

    models.hook = come_between
    await Engine(models).aggregates.apply([third])
    assert models.rows["m1"]["event-0008"].event.revision == 3
