"""The group that reads `files.events`: what decisions say is kept, whatever comes twice, late or broken."""

from __future__ import annotations

import json

from contracts.files.events import FileDeleted, FileDownloadIssued, FileScanned
from services.email.entrypoints.files_follower import FilesFollower
from services.kit.kafka.records import DONE, Park, Record, Retry
from tests.unit.email_service.fakes import MemoryFiles
from tests.unit.email_service.files import AT, BUCKET, FILE, OTHER, key_of, record, upload, uploaded

DELETED = FileDeleted(version_id="v1", recoverable=True, reason="user")


async def test_decisions_are_folded_and_a_repetition_changes_nothing() -> None:
    files = MemoryFiles()
    follow = FilesFollower(files)
    batch = [record(upload(), 1), record(uploaded(), 2), record(upload(OTHER), 1, file_id=OTHER)]
    assert await follow(batch) == [DONE] * 3
    assert (files.known[FILE].status, files.known[FILE].version) == ("completed", 2)
    assert files.known[OTHER].status == "uploading"
    before = dict(files.known)
    assert await follow([batch[0], batch[2]]) == [DONE] * 2
    assert files.known == before
    assert await follow([record(DELETED, 3), batch[1]]) == [DONE] * 2
    assert files.known[FILE].status == "deleted"


async def test_facts_say_nothing() -> None:
    files = MemoryFiles()
    scanned = FileScanned(bucket=BUCKET, key=key_of(FILE), version_id="v1", result="infected")
    facts = [record(each, None, revision=1) for each in (scanned, FileDownloadIssued(expires_at=AT))]
    unknown = record(uploaded(), 7, type="file.somethingNew")
    assert await FilesFollower(files)([*facts, unknown]) == [DONE] * 3
    assert files.known == {}
    assert files.looks == []


async def test_what_cannot_be_read_is_parked_and_the_rest_goes_on() -> None:
    files = MemoryFiles()
    good = record(upload(), 1)
    broken = json.loads(record(uploaded(), 2).value or b"")
    del broken["data"]["versionId"]
    bad = [
        Record("files.events", 0, 1, 0, FILE.encode(), b"{"),
        Record("files.events", 0, 2, 0, FILE.encode(), None),
        Record("files.events", 0, 3, 0, FILE.encode(), json.dumps(broken).encode()),
        Record("files.events", 0, 4, 0, OTHER.encode(), record(uploaded(), 2).value),
        record(uploaded(), None),
    ]
    first, *rest = await FilesFollower(files)([good, *bad])
    assert first == DONE
    assert [(each.reason, each.kind) for each in rest if isinstance(each, Park)] == [
        ("notJson", "poison"), ("nullValue", "poison"), ("invalid", "poison"), ("wrongKey", "poison"),
        ("invalid", "poison"),
    ]  # fmt: skip
    assert files.known[FILE].version == 1


async def test_a_lost_race_is_run_again_and_handed_back_where_it_never_ends() -> None:
    files = MemoryFiles()
    follow = FilesFollower(files)
    files.lose = 2
    assert await follow([record(upload(), 1)]) == [DONE]
    assert files.known[FILE].version == 1
    files.lose = 100
    outcome, other = await follow([record(uploaded(), 2), record(upload(OTHER), None)])
    assert isinstance(outcome, Retry)
    assert isinstance(other, Park)


async def test_a_store_that_is_away_hands_the_decisions_back() -> None:
    files = MemoryFiles()
    files.away = True
    outcomes = await FilesFollower(files)([record(upload(), 1), Record("files.events", 0, 1, 0, b"k", b"{")])
    assert [type(each) for each in outcomes] == [Retry, Park]
