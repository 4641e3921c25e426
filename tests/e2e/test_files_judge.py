"""The judge of files itself: it finds nothing wrong with a fair run, and each thing that can be wrong, it finds."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import bson
import pytest
from bson.codec_options import CodecOptions

from deploy.local.demo.files import PDF, FileCase
from services.events.adapters.mongo_documents import to_document
from services.events.ports import Write
from services.events.projections import file
from services.events.projections.known import Known, add
from services.events.reader import read_event
from tests.e2e.files_judge import FilesEvidence, FilesExpected, Stored, problems
from tests.e2e.judge import Entry
from tests.unit.events_service import file_events as make

FILE, KEY, VERSION = make.FILE_ID, make.key_of(), make.VERSION
COMPLETED = FilesExpected({FILE: FileCase("plain", "completed")})
FAILED = FilesExpected({FILE: FileCase("a lie", "failed")})
DELETED = FilesExpected({FILE: FileCase("deleted", "deleted")})
DATES: CodecOptions[dict[str, Any]] = CodecOptions(tz_aware=True)
OBJECT = Stored(
    KEY,
    VERSION,
    is_latest=True,
    size=len(PDF),
    content_type="application/pdf",
    sha256=hashlib.sha256(PDF).hexdigest(),
    file_id=FILE,
)
MARKER = Stored(KEY, "marker", is_latest=True, is_marker=True)


def evidence(*data: Any, stored: tuple[Stored, ...] = (OBJECT,)) -> FilesEvidence:
    """A run that left these events and objects: stream and read model agree with the log."""
    events = make.file_log()
    log = [Entry(3, n, FILE.encode(), events.raw(each)) for n, each in enumerate(data)]
    decisions = [
        (entry.value or b"").decode() for entry in log if "streamversion" in json.loads(entry.value or b"")
    ]  # fmt: skip
    known: Known = {}
    for entry in log:
        add(known, read_event(entry.value, entry.partition, entry.offset))
    ordered = sorted(known.values())
    document = to_document(Write(FILE, 0, ordered, (), False, file.fold(ordered)))
    return FilesEvidence(
        log=log,
        documents={FILE: bson.decode(bson.encode(document), DATES)},
        streams={FILE: {"version": len(decisions), "published": len(decisions), "events": decisions}},
        stored=stored,
        keys={FILE: KEY},
    )


def uploaded(**more: Any) -> Any:
    return make.uploaded(**{"size": len(PDF), **more})


def completed(*stored: Stored) -> FilesEvidence:
    return evidence(make.upload_requested(), uploaded(), stored=stored or (OBJECT,))


def only(found: list[str], *said: str) -> None:
    assert found, "nothing was found"
    assert all(any(part in each for part in said) for each in found), found


def test_fair_runs_have_no_contradiction() -> None:
    asked = make.upload_requested()
    hidden = replace(OBJECT, is_latest=False)
    assert problems(completed(), COMPLETED) == []
    assert problems(evidence(asked, make.upload_failed(), stored=()), FAILED) == []
    assert problems(evidence(asked, uploaded(), make.deleted(), stored=(MARKER, hidden)), DELETED) == []
    assert problems(evidence(asked, uploaded(), make.deleted(), make.restored()), COMPLETED) == []


def test_an_acknowledged_upload_that_is_nowhere() -> None:
    only(problems(FilesEvidence(), COMPLETED), "is not on the log")


def test_a_file_that_nobody_asked_for() -> None:
    only(problems(completed(), FilesExpected({})), "nobody knows of it")


@pytest.mark.parametrize("expected", [FAILED, DELETED])
def test_a_file_that_is_falsely_completed(expected: FilesExpected) -> None:
    only(problems(completed(), expected), "ends completed")


def test_an_upload_that_never_ends() -> None:
    only(problems(evidence(make.upload_requested()), COMPLETED), "ends uploading")


def test_a_file_verified_twice() -> None:
    run = evidence(make.upload_requested(), uploaded(), uploaded())
    only(problems(run, COMPLETED), "verified 2 times")


def test_a_version_that_is_not_there() -> None:
    only(problems(replace(completed(), stored=()), COMPLETED), "is not in S3")
    only(problems(completed(replace(OBJECT, version_id="other")), COMPLETED), "is not in S3", "is foreign")


@pytest.mark.parametrize("change", [{"sha256": "0"}, {"size": 3}, {"content_type": "text/html"}])
def test_other_bytes_than_were_sent(change: dict[str, Any]) -> None:
    only(problems(completed(replace(OBJECT, **change)), COMPLETED), "not what was sent")


def test_verified_as_something_else() -> None:
    run = evidence(make.upload_requested(), uploaded(size=3))
    only(problems(run, COMPLETED), "another size or type")


def test_a_version_of_another_file() -> None:
    only(problems(completed(replace(OBJECT, file_id="another")), COMPLETED), "belongs to another")


def test_what_lies_beside_or_on_top() -> None:
    under = replace(OBJECT, is_latest=False)
    only(problems(completed(under, replace(OBJECT, version_id="swap")), COMPLETED), "is foreign", "on top")
    only(problems(completed(under, MARKER), COMPLETED), "on top")
    failed = evidence(make.upload_requested(), make.upload_failed(), stored=(OBJECT,))
    only(problems(failed, FAILED), "lies under its key")


def test_a_deleted_file_that_nothing_hides() -> None:
    run = evidence(make.upload_requested(), uploaded(), make.deleted(), stored=(OBJECT,))
    only(problems(run, DELETED), "no marker hides")


def test_a_version_that_anybody_may_read() -> None:
    only(problems(completed(replace(OBJECT, is_public=True)), COMPLETED), "can be read by anybody")


def test_an_object_without_a_file_unless_it_is_reported() -> None:
    stranger = replace(OBJECT, key="somebody/elses")
    only(problems(completed(OBJECT, stranger), COMPLETED), "no file has it")
    reported = replace(COMPLETED, strangers=frozenset({stranger.key}))
    assert problems(completed(OBJECT, stranger), reported) == []
    only(problems(completed(), reported), "was touched")


def test_what_is_left_over() -> None:
    run = replace(completed(), parked=["files files.commands notJson"], lag={"settler": 3}, open_uploads=[KEY])
    found = problems(replace(run, queues={"the queue": 1}), COMPLETED)
    assert len(found) == 4
    only(found, "should not be", "3 records behind", "1 messages are left", "left open")


def test_a_read_model_that_is_not_the_fold() -> None:
    run = completed()
    wrong = {**run.documents[FILE], "status": "uploading"}
    only(problems(replace(run, documents={FILE: wrong}), COMPLETED), "shown as uploading", "not the fold")
    only(problems(replace(run, documents={}), COMPLETED), "no document")
