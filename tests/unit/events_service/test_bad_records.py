"""Bad records: what is stored is a function of the log and of what was decided about its records, and of nothing else.

Not of how records were batched, of crashes, of which generation came first to a record, or of when it was retried.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.base import EventData
from contracts.errors import ContractError
from services.events import aggregates as engine_module
from services.events.aggregates import Aggregates
from services.events.fitting import most_of
from services.events.ports import Generation, GenerationStore, LogRecord, Stage
from services.events.projections.known import KnownEvent, Overflow
from services.events.projections.projection import EMAIL_LOG, FILE, Body, Fold, Projection
from services.events.reader import read_event
from services.events.retrying import ParkedHandler, Remembering
from services.events.setting_aside import At, SettingAside, as_record
from services.kit.breaker import Breaker
from services.kit.kafka.records import DONE, Outcome, Park
from services.kit.metrics import Metrics
from services.kit.parking import ParkedRecord
from services.kit.parking_retry import ParkedRetries
from services.kit.releases import Bound, Release
from services.kit.testing import FakeClock
from services.kit.testing.parking import MemoryParkingLot
from services.kit.testing.releases import MemoryReleases
from tests.unit.events_service.events import ANN, Log, Record, requested, sent
from tests.unit.events_service.file_events import (
    deleted,
    download,
    file_log,
    restored,
    scan_settled,
    upload_requested,
    uploaded,
)
from tests.unit.events_service.memory import MemoryReadModels
from tests.unit.events_service.test_aggregates import _records, result

NOW = datetime(2026, 11, 24, 10, 25, tzinfo=UTC)
REASON = "unknownVersion"


@dataclass
class Made:
    """A generation in memory."""

    version: int
    stage: Stage
    models: MemoryReadModels
    at: list[int] = field(default_factory=lambda: [0, 0])
    """Positions, by partition."""


class Bench:
    """A log of two partitions, generations of it, one parking lot, and a build that cannot read all of it yet."""

    def __init__(self, log: Sequence[Record] = (), fold: Fold | None = None, projection: Projection = FILE) -> None:
        self.log = [[each for each in log if each.partition == partition] for partition in (0, 1)]
        self.projection = projection if fold is None else replace(projection, fold=fold)
        self.clock, self.lot, self.releases = FakeClock(), MemoryParkingLot(), MemoryReleases()
        self.generations: list[Made] = []
        self.unread: set[bytes] = set()
        handler = ParkedHandler(cast("GenerationStore", self), self._for_retry)
        self.retries = ParkedRetries(self.lot, {self.consumer: handler}, self.clock)

    @property
    def consumer(self) -> str:
        return f"events.{self.projection.name}"

    def add(self, stage: Stage, version: int = 1) -> Made:
        made = Made(version, stage, MemoryReadModels(projection=self.projection))
        self.generations.append(made)
        return made

    async def list(self) -> list[Generation]:
        return [
            Generation(self.projection.name, number, each.version, each.stage, NOW)
            for number, each in enumerate(self.generations)
        ]

    def engine(self, made: Made, fold: Fold | None = None) -> Aggregates:
        projection = self.projection if fold is None else replace(self.projection, version=made.version, fold=fold)
        return Aggregates(projection, made.models, self._aside(made), Metrics(), generation=1, inline=3)

    async def read(self, made: Made, partition: int, count: int, *, again: int = 0) -> None:
        """Apply the next records of a partition, and the last ones before them once more, as after a crash."""
        at = made.at[partition]
        await self.engine(made).apply(self.log[partition][max(0, at - again) : at + count])
        made.at[partition] = min(at + count, len(self.log[partition]))

    async def read_all(self, made: Made) -> None:
        for partition in (0, 1):
            await self.read(made, partition, len(self.log[partition]))

    async def retry(self, offset: int, partition: int = 0) -> Outcome:
        return await self.retries.retry(f"{self.consumer}|{self.projection.topic}|{partition}|{offset}")

    def parked(self) -> dict[int, tuple[str, bool]]:
        """Of those that wait, by offset: the reason, and whether the event is kept."""
        return {each.offset: (each.reason, each.kept) for each in self.lot.all() if each.status == "parked"}

    def read_event(self, raw: bytes | None, partition: int, offset: int, subject: str | None = None) -> KnownEvent:
        if raw in self.unread:
            raise ContractError(REASON, "of a newer writer")
        return read_event(raw, partition, offset, subject)

    def _aside(self, made: Made) -> SettingAside:
        topic, breaker = self.projection.topic, Breaker(10_000, 60, self.clock)
        return SettingAside(
            self.consumer, topic, self.lot, breaker, self.clock, Metrics(), releases=self.releases, version=made.version
        )

    def _for_retry(self, generation: Generation, at: At) -> tuple[Aggregates, Remembering]:
        made = self.generations[generation.number]
        aside = Remembering(at, self._aside(made))
        return Aggregates(self.projection, made.models, aside, Metrics(), generation=1, inline=3), aside


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> Callable[[Bench], None]:
    """Lets a bench say what its build cannot read."""
    return lambda bench: monkeypatch.setattr(engine_module, "read_event", bench.read_event)


def failing(fails: Callable[[set[str]], bool], fold: Fold = FILE.fold) -> Fold:
    """A fold with a bug in certain sets of event ids; the request of a file never takes part in it."""

    def broken(events: Iterable[KnownEvent], overflow: Overflow) -> Body | None:
        found = list(events)
        if fails({event.id for event in found if event.type not in ("file.uploadRequested", "email.requested")}):
            raise KeyError("a bug")
        return fold(found, overflow)

    return broken


def erratic(ids: set[str]) -> bool:
    """Fails for about a third of all sets, smaller and larger ones alike."""
    return bool(ids) and zlib.crc32(" ".join(sorted(ids)).encode()) % 3 == 0


FILES = ("f1", "f2", "f3")
PLAIN: tuple[EventData, ...] = (uploaded(), deleted(), restored(), scan_settled(), download(), download(9))


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Record], set[bytes]]:
    """A log of three files, of which two claim one key and lie in different partitions, with records that can never be
    read, and those that this build cannot read yet.
    """
    writers = {name: file_log(name) for name in FILES}
    records: list[Record] = []
    unread: set[bytes] = set()
    for offset in range(draw(st.integers(1, 16))):
        name = draw(st.sampled_from(FILES))
        partition = FILES.index(name) % 2
        if draw(st.integers(0, 3)) == 0:
            data: EventData = upload_requested(name, key="one/key" if name in ("f1", "f2") else "another/key")
            raw = writers[name].raw(data, event_id=f"{name}-request", at=0)
        else:
            raw = writers[name].raw(draw(st.sampled_from(PLAIN)))
        kind = draw(st.integers(0, 9))
        key: bytes | None = name.encode()
        if kind == 0:
            raw = b"{"
        elif kind == 1:
            key = draw(st.sampled_from([None, b"\xff", b"other"]))
        elif kind < 4:
            unread.add(raw)
        records.append(Record(partition, offset, key, raw))
    return records, unread


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["live", "rebuild"]), st.integers(0, 1), st.integers(1, 5), st.integers(0, 3)),
        st.tuples(st.sampled_from(["retry", "discard", "deploy"]), st.integers(0, 20)),
    ),
    max_size=14,
)


@settings(max_examples=200, deadline=None)
@given(histories(), STEPS, st.sampled_from([FILE.fold, failing(erratic)]))
def test_a_rebuild_at_any_point_equals_live(
    history: tuple[list[Record], set[bytes]], steps: list[tuple[Any, ...]], fold: Fold
) -> None:
    records, unread = history
    bench = Bench(records, fold)
    bench.unread = set(unread)

    async def run() -> None:
        live = bench.add("active")
        rebuilt: Made | None = None
        for verb, *arguments in steps:
            waiting = [each for each in bench.lot.all() if each.status == "parked"]
            if verb == "live":
                await bench.read(live, arguments[0], arguments[1], again=arguments[2])
            elif verb == "rebuild":
                rebuilt = rebuilt or bench.add("backfilling")
                await bench.read(rebuilt, arguments[0], arguments[1], again=arguments[2])
            elif verb == "deploy":
                bench.unread.clear()
            elif waiting and verb == "retry":
                await bench.retries.retry(waiting[arguments[0] % len(waiting)].id)
            elif waiting and verb == "discard":
                which = waiting[arguments[0] % len(waiting)].id
                await bench.lot.discard(which, reason="a test", by="ann", at=NOW)
        rebuilt = rebuilt or bench.add("created")
        at_once = bench.add("created")
        for made in (live, rebuilt, at_once):
            await bench.read_all(made)
        wanted = result(live.models)
        assert result(rebuilt.models) == wanted
        assert result(at_once.models) == wanted
        shown = [body["key"] for body in live.models.bodies.values() if body is not None]
        assert len(shown) == len(set(shown))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_module, "read_event", bench.read_event)
        asyncio.run(run())


@given(st.lists(st.integers(0, 50), max_size=20), st.integers(1, 40))
def test_what_is_left_out_does_not_fit_to_what_was_taken_before(sequence: list[int], most: int) -> None:
    taken, left = most_of(sequence, lambda run: "too much" if sum(run) > most else None)
    one_by_one: list[int] = []
    for each in sequence:
        if sum(one_by_one) + each <= most:
            one_by_one.append(each)
    assert taken == one_by_one
    assert sorted([*taken, *(each for each, _ in left)]) == sorted(sequence)


@pytest.mark.parametrize("batch", [1, 2, 3, 5])
async def test_a_bug_of_the_fold_hides_one_event_however_records_are_batched(batch: int) -> None:
    log = _records(requested(ANN), *(sent(f"a{number}") for number in range(4)))
    bench = Bench(log, failing(lambda ids: "event-0003" in ids, EMAIL_LOG.fold), EMAIL_LOG)
    made = bench.add("active")
    for _ in range(0, len(log), batch):
        await bench.read(made, 0, batch)
    body, stored = made.models.bodies["m1"], made.models.stored["m1"]
    assert body is not None
    assert body["recipients"][0]["attempts"] == 0
    assert [each["metadata"]["attemptId"] for each in body["events"] if each["type"] == "send"] == ["a0", "a2", "a3"]
    assert sorted(event.offset for event in stored.known.values()) == [0, 1, 2, 3, 4]
    assert bench.parked() == {2: ("foldFailed", True)}
    (told,) = bench.lot.all()
    assert told.detail == f"KeyError in the fold, version {EMAIL_LOG.version}"
    assert "a bug" in told.stack


async def test_an_earlier_event_that_a_later_one_keeps_from_being_shown_is_told_of_too() -> None:
    log = _records(requested(ANN), sent("a0"), sent("a1"))
    bench = Bench(log, failing(lambda ids: ids >= {"event-0002", "event-0003"}, EMAIL_LOG.fold), EMAIL_LOG)
    made = bench.add("active")
    await bench.engine(made).apply([log[0], log[2]])
    await bench.engine(made).apply([log[1]])  # the lower origin is shown
    assert bench.parked() == {2: ("foldFailed", True)}
    parked = bench.lot.all()[0]
    assert (parked.key, parked.raw) == (b"m1", log[2].value)


async def test_a_mended_fold_heals_by_a_retry_and_a_new_version_by_a_rebuild() -> None:
    log = _records(requested(ANN), sent())
    bench = Bench(log, failing(bool, EMAIL_LOG.fold), EMAIL_LOG)
    made = bench.add("active")
    await bench.read_all(made)
    assert isinstance(await bench.retry(1), Park)
    newer = bench.add("backfilling", version=2)
    await bench.engine(newer, EMAIL_LOG.fold).apply(bench.log[0])
    body = newer.models.bodies["m1"]
    assert body is not None
    assert body["recipients"][0]["status"] == "sent"
    bench.projection = EMAIL_LOG
    assert await bench.retry(1) == DONE
    assert result(made.models) == result(newer.models)
    assert bench.parked() == {}


@pytest.mark.parametrize("stage", ["created", "backfilling", "catchingUp", "verified", "active"])
async def test_a_retry_goes_into_a_generation_that_is_being_filled(
    stage: Stage, unread: Callable[[Bench], None]
) -> None:
    log = _records(requested(ANN), sent())
    bench = Bench(log, projection=EMAIL_LOG)
    unread(bench)
    bench.unread = {log[1].value or b""}
    live, filled = bench.add("active"), bench.add(stage)
    await bench.read_all(live)
    await bench.read_all(filled)  # past the record
    bench.unread.clear()
    assert await bench.retry(1) == DONE
    assert result(filled.models) == result(live.models)
    assert set(filled.models.stored["m1"].known) == {"event-0001", "event-0002"}


async def test_what_waits_or_was_given_up_is_left_out_by_a_build_that_can_read_it(
    unread: Callable[[Bench], None],
) -> None:
    log = _records(requested(ANN), sent("a0"), sent("a1"), sent("a2"))
    bench = Bench(log, projection=EMAIL_LOG)
    unread(bench)
    bench.unread = {each.value or b"" for each in log[1:]}
    order = Release("r1", bench.consumer, "discard", "a flood", "ann", NOW, (Bound("email.events", 0, 3, 4),))
    await bench.releases.order(order)
    live = bench.add("active")
    await bench.read_all(live)
    given_up = bench.lot.all()[1]
    await bench.lot.discard(given_up.id, reason="a test", by="ann", at=NOW)
    bench.unread.clear()
    rebuilt = bench.add("backfilling")
    await bench.read_all(rebuilt)
    assert set(rebuilt.models.stored["m1"].known) == {"event-0001"}
    assert result(rebuilt.models) == result(live.models)


async def test_what_only_fails_where_a_rollback_goes_is_no_failure() -> None:
    log = _records(requested(ANN), sent())
    bench = Bench(log, failing(bool, EMAIL_LOG.fold), EMAIL_LOG)
    await bench.read_all(bench.add("grace"))
    assert await bench.retry(1) == DONE


# --- what earlier builds parked --------------------------------------------------------------------------------------


async def parked_before(bench: Bench, record: LogRecord, reason: str) -> None:
    """As f4ed2ce parked it: it knew no `kept`, and left the event out of the document."""
    park = Park(reason, "bug", "KeyError in the fold", error=KeyError("x"))
    parked = ParkedRecord.of(bench.consumer, as_record(bench.projection.topic, record), park, NOW)
    await bench.lot.park([parked])


@pytest.mark.parametrize("reason", ["foldFailed", "unwritable"])
async def test_what_an_earlier_build_parked_is_left_out_by_its_version_and_taken_by_the_next(reason: str) -> None:
    log = _records(requested(ANN), sent())
    bench = Bench(log, projection=EMAIL_LOG)
    await parked_before(bench, log[1], reason)
    same, next_one = bench.add("backfilling"), bench.add("backfilling", version=2)
    await bench.read_all(same)
    await bench.read_all(next_one)
    assert set(same.models.stored["m1"].known) == {"event-0001"}
    assert set(next_one.models.stored["m1"].known) == {"event-0001", "event-0002"}
    assert await bench.retry(1) == DONE
    assert result(same.models) == result(next_one.models)


async def test_what_an_earlier_build_parked_is_kept_once_a_retry_took_it() -> None:
    log = _records(requested(ANN), sent())
    bench = Bench(log, failing(bool, EMAIL_LOG.fold), EMAIL_LOG)
    await parked_before(bench, log[1], "foldFailed")
    live = bench.add("active")
    await bench.read_all(live)
    assert isinstance(await bench.retry(1), Park)
    assert bench.parked() == {1: ("foldFailed", True)}
    rebuilt = bench.add("backfilling")
    await bench.read_all(rebuilt)
    assert result(rebuilt.models) == result(live.models)


# --- documents that cannot be stored ---------------------------------------------------------------------------------


def claiming(name: str, partition: int = 0) -> list[Record]:
    log = file_log(name)
    values = [log.raw(upload_requested(name, key="one/key")), log.raw(uploaded())]
    return [Record(partition, 10 * int(name[1:]) + at, name.encode(), raw) for at, raw in enumerate(values)]


@pytest.mark.parametrize("first", ["f1", "f2"])
@pytest.mark.parametrize("batch", [1, 4])
async def test_of_two_files_that_claim_one_key_the_lower_id_shows_it(first: str, batch: int) -> None:
    bench = Bench()
    made = bench.add("active")
    log = [*claiming("f1"), *claiming("f2")]
    log = log if first == "f1" else [*log[2:], *log[:2]]
    for start in range(0, len(log), batch):
        await bench.engine(made).apply(log[start : start + batch])
    shown = made.models.bodies["f1"]
    assert shown is not None
    assert (shown["key"], shown["status"]) == ("one/key", "completed")
    assert made.models.bodies["f2"] is None
    assert len(made.models.stored["f2"].known) == 2
    assert bench.parked() == {20: ("unwritable", True)}
    assert made.models.dirty["2026-11-24/document"]


async def test_a_file_whose_key_is_taken_away_leaves_its_bucket_to_be_summed_up() -> None:
    bench = Bench()
    made = bench.add("active")
    await bench.engine(made).apply(claiming("f2"))
    log = file_log("f1")
    request = log.raw(upload_requested("f1", key="one/key", category="invoice"))
    await bench.engine(made).apply([Record(0, 1, b"f1", request)])
    assert made.models.dirty == {"2026-11-24/document": 2, "2026-11-24/invoice": 1}


async def test_a_value_that_cannot_be_stored_hides_its_event_only() -> None:
    log = _records(requested(ANN), sent("a0"), sent("a1", size=2**70), sent("a2"))
    for batch in (1, 4):
        bench = Bench(log, projection=EMAIL_LOG)
        made = bench.add("active")
        made.models.unfit = lambda body: str(2**70) in str(body)
        for _ in range(0, len(log), batch):
            await bench.read(made, 0, batch)
        body = made.models.bodies["m1"]
        assert body is not None
        assert len([each for each in body["events"] if each["type"] == "send"]) == 2
        assert bench.parked() == {2: ("unwritable", True)}
        assert len(made.models.stored["m1"].known) == 4


async def test_events_that_cannot_even_be_kept_are_left_out_for_all_generations() -> None:
    log = _records(requested(ANN), sent())
    bench = Bench(log, projection=EMAIL_LOG)
    live = bench.add("active")
    await bench.read(live, 0, 1)
    live.models.unwritable = {"m1"}
    await bench.read(live, 0, 1)
    assert bench.parked() == {1: ("eventsUnwritable", False)}
    rebuilt = bench.add("backfilling", version=2)
    await bench.read_all(rebuilt)
    assert result(rebuilt.models) == result(live.models)


def test_a_timeline_tells_what_is_not_shown() -> None:
    from services.events.timeline import STORIES, timeline

    log = Log()
    events = [log.event(requested(ANN)), log.event(sent("a0")), log.event(sent("a1"))]
    story = replace(
        STORIES["email_log"],
        projection=replace(EMAIL_LOG, fold=failing(lambda ids: "event-0002" in ids, EMAIL_LOG.fold)),
    )
    steps = timeline(events, story)
    assert steps[1].changes == ("not shown: KeyError in the fold",)
    assert steps[2].changes
