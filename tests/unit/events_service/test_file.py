"""The read model of files. Every case is folded as given, twice over, and shuffled."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.base import EventData
from contracts.email.events import EventRetracted
from contracts.files import events as files
from contracts.files.values import UploadMetadata
from contracts.registry import EVENTS, NAMES
from contracts.topics import FILES_EVENTS
from contracts.views import File
from services.events.aggregates import Aggregates
from services.events.projections import file
from services.events.projections.known import Known, KnownEvent, Tally, add, spill, tally
from services.events.projections.projection import FILE, Body
from services.events.setting_aside import SettingAside
from services.events.timeline import COMPARED, STORIES, timeline
from services.kit.breaker import Breaker
from services.kit.metrics import Metrics
from services.kit.testing import FakeClock
from services.kit.testing.parking import MemoryParkingLot
from tests.unit.events_service.events import START, Record, attempted, retracted
from tests.unit.events_service.file_events import (
    BUCKET,
    FILE_ID,
    VERSION,
    deleted,
    download,
    file_log,
    key_of,
    object_fact,
    restored,
    scan_settled,
    scanned,
    upload_failed,
    upload_requested,
    uploaded,
)
from tests.unit.events_service.memory import MemoryReadModels
from tests.unit.events_service.test_aggregates import result

CREATED, MOVED = files.FileObjectCreated, files.FileObjectMoved
MARKER, REMOVED = files.FileDeleteMarkerCreated, files.FileObjectRemoved


def known(events: list[KnownEvent]) -> list[KnownEvent]:
    found: Known = {}
    for event in events:
        add(found, event)
    return list(found.values())


def folded(events: list[KnownEvent], overflow: tuple[Tally, ...] = ()) -> Body:
    """The document, after making sure that order and repetition change nothing and that the view takes it."""
    body = file.fold(known(events), overflow)
    for seed in range(3):
        again = events * 2
        random.Random(seed).shuffle(again)
        assert file.fold(known(again), overflow) == body
    assert body is not None
    File.model_validate(body)
    return body


def fold_of(*data: EventData) -> Body:
    log = file_log()
    return folded([log.event(each) for each in (upload_requested(), *data)])


@pytest.mark.parametrize(
    ("data", "status"),
    [
        ([], "uploading"),
        ([uploaded()], "completed"),
        ([upload_failed()], "failed"),
        ([uploaded(), deleted()], "deleted"),
        ([uploaded(), deleted(), restored()], "completed"),
        ([uploaded(), deleted(), restored(), deleted()], "deleted"),
        ([deleted(recoverable=False)], "deleted"),
        ([uploaded(), scan_settled("infected"), deleted(recoverable=False, reason="infected")], "deleted"),
        # facts alone decide nothing: they only make the service look
        ([object_fact(CREATED)], "uploading"),
        ([uploaded(), object_fact(MARKER, "marker")], "completed"),
        ([uploaded(), object_fact(REMOVED)], "completed"),
        ([uploaded(), object_fact(files.FileObjectExpired)], "completed"),
        ([uploaded(), deleted(), object_fact(REMOVED, "marker")], "deleted"),
        ([uploaded(), scanned("infected")], "completed"),
        ([upload_failed(), object_fact(CREATED, "late")], "failed"),
        ([uploaded(), files.FileUpdated(is_public=True)], "completed"),
        ([uploaded(), deleted(), scan_settled()], "deleted"),
    ],
)
def test_status_comes_from_decisions_alone(data: list[EventData], status: str) -> None:
    assert fold_of(*data)["status"] == status


def test_a_document_says_what_was_asked_for_and_what_was_found() -> None:
    log = file_log()
    request = upload_requested(
        client_id="client-1",
        original_name='Ver"trag.pdf',
        metadata=UploadMetadata(
            uploaded_by="u", ip_address="192.0.2.1", user_agent="b", checksum="declared", tags=["a"]
        ),
    )
    verified = uploaded(size=900, content_type="application/x-pdf", checksum="found")
    assert folded([log.event(request, at=1.0000014), log.event(verified, at=2)]) == {
        "fileId": FILE_ID,
        "key": key_of(),
        "fileName": "report.pdf",
        "originalName": 'Ver"trag.pdf',
        "contentType": "application/x-pdf",
        "size": 900,
        "category": "document",
        "status": "completed",
        "scanStatus": "pending",
        "isPublic": False,
        "userId": "user-1",
        "clientId": "client-1",
        "metadata": {
            "uploadedBy": "u", "ipAddress": "192.0.2.1", "userAgent": "b", "checksum": "found", "tags": ["a"],
        },
        "s3Info": {"bucket": BUCKET, "region": "eu-central-1", "etag": "e1", "versionId": VERSION},
        "access": {"downloadCount": 0},
        "createdAt": START + timedelta(microseconds=1_000_001),
        "updatedAt": START + timedelta(seconds=2),
    }  # fmt: skip


def test_before_an_upload_is_verified_only_what_was_asked_for_is_shown() -> None:
    body = fold_of(object_fact(CREATED, size=5))
    assert "size" not in body
    assert body["contentType"] == "application/pdf"
    assert body["s3Info"] == {"bucket": BUCKET, "region": "eu-central-1"}
    assert body["metadata"] == {"uploadedBy": "user-1", "tags": []}


def test_nothing_is_shown_before_its_request_is_known() -> None:
    log = file_log()
    assert file.fold([log.event(uploaded()), log.event(download())]) is None


def test_why_an_upload_failed_and_whether_a_deletion_can_be_undone() -> None:
    assert fold_of(upload_failed())["failure"] == {"reason": "tooLarge", "detail": "10001 bytes"}
    assert fold_of(upload_failed("empty", None))["failure"] == {"reason": "empty"}
    assert fold_of(uploaded(), deleted())["recoverable"] is True
    assert fold_of(uploaded(), deleted(), deleted(recoverable=False, reason="lifecycle"))["recoverable"] is False
    again = fold_of(uploaded(), deleted(), restored())
    assert "recoverable" not in again
    assert "failure" not in again


@pytest.mark.parametrize("result", ["clean", "infected", "unsupported", "error"])
def test_a_scan_counts_once_it_is_settled_for_the_verified_version(result: str) -> None:
    assert fold_of(uploaded(), scanned(result))["scanStatus"] == "pending"
    assert fold_of(uploaded(), scan_settled(result))["scanStatus"] == result
    assert fold_of(uploaded(), scan_settled(result, "another"))["scanStatus"] == "pending"
    assert fold_of(uploaded(), scan_settled("error"), scan_settled(result))["scanStatus"] == result
    assert fold_of(scan_settled(result))["scanStatus"] == "pending"


def test_what_people_change_stays_changed_and_the_rest_as_it_was() -> None:
    log = file_log()
    request = upload_requested(tags=["a", "b"])
    renamed = files.FileUpdated(original_name="Neu.pdf", file_name="Neu.pdf")
    body = folded([log.event(each) for each in (request, uploaded(), renamed, files.FileUpdated(is_public=True))])
    assert (body["originalName"], body["fileName"], body["isPublic"]) == ("Neu.pdf", "Neu.pdf", True)
    assert body["metadata"]["tags"] == ["a", "b"]
    assert fold_of(files.FileUpdated(tags=["c"]), files.FileUpdated(tags=[]))["metadata"]["tags"] == []


def test_the_storage_class_is_that_of_the_verified_version_by_the_latest_word() -> None:
    log = file_log()
    events = [
        log.event(upload_requested(), at=0),
        log.event(object_fact(MOVED, "foreign", storage_class="ONEZONE_IA"), at=1),
        log.event(uploaded(storage_class="STANDARD"), at=2),
    ]
    assert folded(events)["s3Info"]["storageClass"] == "STANDARD"
    events.append(log.event(object_fact(MOVED, storage_class="GLACIER"), at=5))
    events.append(log.event(object_fact(MOVED, storage_class="STANDARD_IA"), at=4))
    events.append(log.event(object_fact(MOVED), at=6))  # does not say
    assert folded(events)["s3Info"]["storageClass"] == "GLACIER"


def test_links_given_out_are_counted_and_change_nothing_else() -> None:
    log = file_log()
    events = [log.event(upload_requested(), at=1), log.event(uploaded(), at=2)]
    before = folded(events)
    assert before["access"] == {"downloadCount": 0}
    events += [log.event(download(40), at=10), log.event(download(60), at=20), log.event(download(50), at=30)]
    after = folded(events)
    assert after["access"] == {
        "downloadCount": 3,
        "lastAccessed": START + timedelta(seconds=30),
        "expiresAt": START + timedelta(minutes=60),
    }
    assert {**after, "access": None} == {**before, "access": None}


def test_a_retracted_fact_is_as_if_it_had_never_been() -> None:
    log = file_log()
    events = [log.event(upload_requested()), log.event(uploaded()), log.event(download(), event_id="wrong")]
    gone: EventRetracted = retracted("wrong")
    assert folded([*events, log.event(gone)])["access"] == {"downloadCount": 0}


def test_updated_at_is_the_time_of_the_last_decision() -> None:
    log = file_log()
    events = [
        log.event(upload_requested(), at=1),
        log.event(uploaded(), at=2),
        log.event(scan_settled(), at=5),
        log.event(scanned("error"), at=8),
        log.event(object_fact(MOVED, storage_class="GLACIER"), at=9),
        log.event(download(), at=10),
    ]
    assert folded(events)["updatedAt"] == START + timedelta(seconds=5)


def test_types_of_others_and_unknown_ones_are_ignored() -> None:
    log = file_log()
    events = [log.event(upload_requested()), log.event(uploaded())]
    before = folded(events)
    strange = log.event(download())._replace(type="file.teleported", rank=1000, id="strange")
    assert folded([*events, log.event(attempted()), strange]) == before


def test_every_decision_of_files_is_taken_but_the_closing_that_changes_nothing_to_see() -> None:
    decisions = {name for name, each in EVENTS.items() if each.kind == "decision" and each.topic is FILES_EVENTS}
    assert set(file._Known._TAKE) == decisions - {"file.uploadClosed"}
    log = file_log()
    events = [log.event(upload_requested()), log.event(uploaded())]
    assert folded([*events, log.event(files.FileUploadClosed())]) == folded(events)


# --- places and overflow -------------------------------------------------------------------------------------------

EVERYTHING: list[EventData] = [
    upload_requested(tags=["a"]), upload_requested(user_id="user-2"), uploaded(), uploaded("v2"), upload_failed(),
    deleted(), deleted(recoverable=False), restored(), files.FileUpdated(is_public=True, tags=["b"]),
    files.FileUpdated(original_name="n", file_name="n"), scan_settled(), scan_settled("infected", "v2"), scanned(),
    object_fact(CREATED), object_fact(MOVED, storage_class="GLACIER"), object_fact(MARKER),
    object_fact(CREATED, "v2"), object_fact(REMOVED, None), object_fact(files.FileObjectTagged),
    object_fact(files.FileObjectExpired), attempted(),
]  # fmt: skip


@st.composite
def events_of_a_file(draw: st.DrawFn) -> list[KnownEvent]:
    """Any events at any times, downloads among them, some ids repeated, some facts retracted."""
    log = file_log()
    found: list[KnownEvent] = []
    for _ in range(draw(st.integers(1, 25))):
        at = draw(st.integers(0, 12))
        kind = draw(st.integers(0, 5))
        if kind == 0:
            target = f"link-{draw(st.integers(0, 8))}"
            found.append(log.event(retracted(target, draw(st.integers(1, 2))), at=at))
        elif kind in (1, 2):
            link = download(draw(st.integers(1, 60)))
            options = {"event_id": f"link-{draw(st.integers(0, 8))}", "revision": draw(st.integers(1, 2))}
            found.append(log.event(link, at=at, **options))
        else:
            found.append(log.event(draw(st.sampled_from(EVERYTHING)), at=at))
    return found


@settings(max_examples=300, deadline=None)
@given(events_of_a_file(), st.randoms(use_true_random=False))
def test_neither_order_nor_repetition_matters(events: list[KnownEvent], rng: random.Random) -> None:
    body = file.fold(known(events))
    again = events + rng.sample(events, rng.randint(0, len(events)))
    rng.shuffle(again)
    assert file.fold(known(again)) == body
    requests = [event for event in events if event.type == "file.uploadRequested"]
    assert (body is None) == (not requests)
    if body is not None:
        File.model_validate(body)
        assert body["createdAt"] == file.instant(min(requests).time)
        assert ("recoverable" in body, "failure" in body) == (body["status"] == "deleted", body["status"] == "failed")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 90)), max_size=12), st.integers(0, 5))
def test_links_outside_the_document_count_as_those_inside(links: list[tuple[int, int]], inline: int) -> None:
    log = file_log()
    events = [log.event(upload_requested(), at=0), log.event(uploaded(), at=1)]
    events += [log.event(download(minutes), at=at) for at, minutes in links]
    inside: Known = {event.id: event for event in events}
    outside = spill(inside, file.ENGAGEMENT, inline)
    assert len(outside) == max(0, len(links) - inline)
    assert file.fold(inside.values(), tally(outside, file.ENGAGEMENT)) == file.fold(events)


def test_busy_files_stay_small_and_right_whatever_the_order() -> None:
    """The engine: 40 links, 3 of them inline, one taken back, in batches of any order, some of them twice."""
    log = file_log()
    story: list[EventData] = [upload_requested(), uploaded(), *(download(5 + number) for number in range(40))]
    raws = [log.raw(each) for each in story] + [log.raw(retracted("event-0020"), event_id="away")]
    records = [Record(0, offset, FILE_ID.encode(), raw) for offset, raw in enumerate(raws)]
    results = []
    for seed in range(8):
        rng = random.Random(seed)
        again = records + rng.sample(records, 10)
        rng.shuffle(again)
        models = MemoryReadModels(projection=FILE)
        engine = _engine(models)
        size = rng.randint(1, 9)
        for start in range(0, len(again), size):
            asyncio.run(engine.apply(again[start : start + size]))
        results.append(result(models))
    assert all(each == results[0] for each in results)
    body, stored, overflow, outside = results[0][FILE_ID]
    assert body["access"] == {
        "downloadCount": 39,
        "lastAccessed": START + timedelta(seconds=42),
        "expiresAt": START + timedelta(minutes=44),
    }
    assert sorted(event.offset for event in stored.values() if event.type == "file.downloadIssued") == [2, 3, 4]
    assert (sum(each.facts for each in overflow), len(outside)) == (36, 37)


def _engine(models: MemoryReadModels) -> Aggregates:
    clock, metrics = FakeClock(), Metrics()
    aside = SettingAside("events.file", FILE.topic, MemoryParkingLot(), Breaker(9, 60, clock), clock, metrics)
    return Aggregates(FILE, models, aside, metrics, generation=1, inline=3)


# --- the timeline --------------------------------------------------------------------------------------------------


def test_each_event_says_what_it_changed() -> None:
    log = file_log()
    story: list[tuple[EventData, tuple[str, ...]]] = [
        (upload_requested(), ("the file begins: uploading",)),
        (object_fact(CREATED), ()),
        (uploaded(storage_class="STANDARD"), ("uploading → completed", f"version {VERSION}", "in STANDARD")),
        (scan_settled(), ("scan pending → clean",)),
        (files.FileUpdated(is_public=True, tags=["x", "y"]), ("public false → true", "tags x, y")),
        (object_fact(MOVED, storage_class="GLACIER"), ("in GLACIER",)),
        (download(), ("downloads 1",)),
        (deleted(), ("completed → deleted", "recoverable")),
        (restored(), ("deleted → completed",)),
    ]
    steps = timeline([log.event(data) for data, _ in story], STORIES["file"])
    assert [(step.event.type, step.changes) for step in steps] == [(NAMES[type(d)], told) for d, told in story]


def test_a_long_history_tells_downloads_by_their_own_words() -> None:
    log = file_log()
    links = [log.event(download()) for _ in range(COMPARED)]
    steps = timeline(
        [log.event(upload_requested(), at=0), *links, log.event(upload_failed(), at=9000)], STORIES["file"]
    )
    assert {step.changes for step in steps[1:-1]} == {("downloads + 1",)}
    assert steps[-1].changes == ("uploading → failed", "because tooLarge")


def test_a_file_that_is_stored_compressed_shows_both_its_sizes() -> None:
    body = fold_of(uploaded(size=100, content_encoding="gzip", original_size=900))
    assert (body["size"], body["contentEncoding"], body["originalSize"]) == (100, "gzip", 900)
    assert not {"contentEncoding", "originalSize"} & fold_of(uploaded()).keys()


def test_a_lifetime_is_shown_until_a_restore_after_its_end_lifts_it() -> None:
    def at(*data: tuple[float, EventData]) -> Body:
        log = file_log()
        request = upload_requested(kept_until=START + timedelta(seconds=100))
        return folded([log.event(each, at=when) for when, each in ((0, request), (1, uploaded()), *data)])

    ends = START + timedelta(seconds=100)
    ended = at((100.5, deleted(reason="lifecycle")))
    assert (ended["status"], ended["recoverable"], ended["keptUntil"]) == ("deleted", True, ends)
    assert at((5, deleted()), (99, restored()))["keptUntil"] == ends
    assert "keptUntil" not in at((5, deleted()), (100, restored()))
    assert "keptUntil" not in fold_of(uploaded())


def test_what_was_not_recognised_is_shown_as_not_public() -> None:
    log = file_log()
    asked = [log.event(upload_requested(is_public=True)), log.event(uploaded(recognised=False))]
    assert folded(asked)["isPublic"] is False
    earlier = file_log()
    assert folded([earlier.event(upload_requested(is_public=True)), earlier.event(uploaded())])["isPublic"] is True
