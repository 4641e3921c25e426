"""What email knows of a file, and whether a mail may carry it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.base import EventData
from contracts.files.events import (
    FileDeleted,
    FileDownloadIssued,
    FileRestored,
    FileScanSettled,
    FileUpdated,
    FileUploaded,
    FileUploadFailed,
    FileUploadRequested,
)
from contracts.files.values import ScanResult
from services.email.domain.files import NO_SUCH_FILE, KnownFile, Never, NotYet, Usable, evolve, judge
from tests.unit.email_service.files import AT, BUCKET, FILE, key_of, upload, uploaded

DELETED = FileDeleted(version_id="v1", recoverable=True, reason="user")
RESTORED = FileRestored(version_id="v1")
FAILED = FileUploadFailed(reason="expired")


def scan_settled(result: ScanResult) -> FileScanSettled:
    return FileScanSettled(version_id="v1", result=result)


def heard(*decisions: EventData) -> KnownFile:
    """All of a stream, in order."""
    return fold(list(enumerate(decisions, 1)))


def fold(decisions: Sequence[tuple[int, EventData]]) -> KnownFile:
    return reduce(lambda known, each: evolve(known, each[1], each[0]), decisions, KnownFile(FILE))


DECISIONS = st.one_of(
    st.just(DELETED),
    st.just(RESTORED),
    st.just(FAILED),
    st.sampled_from(get_args(ScanResult)).map(scan_settled),
    st.builds(FileUpdated, original_name=st.none() | st.text(min_size=1), tags=st.none() | st.just(["a"])),
    st.builds(uploaded, size=st.integers(0, 9), version_id=st.sampled_from(["v1", "v2"])),
    st.just(FileDownloadIssued(expires_at=AT)),
)


@st.composite
def heard_anyhow(draw: st.DrawFn) -> tuple[list[tuple[int, EventData]], list[tuple[int, EventData]]]:
    """A stream's decisions with their versions, and the same in another order, some of them several times."""
    stream: list[EventData] = [upload(scan_needed=draw(st.booleans())), *draw(st.lists(DECISIONS, max_size=12))]
    in_order = list(enumerate(stream, 1))
    again = draw(st.lists(st.sampled_from(in_order), max_size=12))
    return in_order, draw(st.permutations(in_order + again))


@given(heard_anyhow())
def test_any_order_and_repetition_gives_the_same_file(
    told: tuple[list[tuple[int, EventData]], list[tuple[int, EventData]]],
) -> None:
    in_order, anyhow = told
    assert fold(anyhow) == fold(in_order)


@given(heard_anyhow())
def test_the_last_word_on_each_matter_counts(
    told: tuple[list[tuple[int, EventData]], list[tuple[int, EventData]]],
) -> None:
    stream = [data for _, data in told[0]]
    known = fold(told[1])

    def last(*kinds: type[EventData]) -> Any:
        return next((each for each in reversed(stream) if isinstance(each, kinds)), None)

    phase: dict[type[EventData], str] = {
        FileUploadRequested: "uploading", FileUploaded: "completed", FileUploadFailed: "failed",
        FileDeleted: "deleted", FileRestored: "completed",
    }  # fmt: skip
    assert known.status == phase[type(last(*phase))]
    scanned, verified = last(FileScanSettled), last(FileUploaded)
    assert known.scan == (scanned.result if scanned else None)
    assert (known.version_id, known.size) == ((verified.version_id, verified.size) if verified else (None, None))
    named = [each for each in stream if getattr(each, "original_name", None) is not None]
    assert known.original_name == named[-1].original_name  # type: ignore[attr-defined]
    assert (known.owner, known.version) == ("u1", len(stream))


USABLE = Usable(FILE, BUCKET, key_of(FILE), "v1", 4, "application/pdf", "Vertrag „2026“.pdf")
REQUEST, SCANNED = upload(), upload(scan_needed=True)


@pytest.mark.parametrize(
    ("stream", "verdict"),
    [
        ([], NotYet),
        ([REQUEST], NotYet),
        ([REQUEST, uploaded()], Usable),
        ([REQUEST, uploaded(), scan_settled("clean")], Usable),
        ([REQUEST, uploaded(), scan_settled("unsupported")], Usable),
        ([REQUEST, uploaded(), scan_settled("error")], Usable),
        ([REQUEST, uploaded(), scan_settled("infected")], Never),
        ([REQUEST, FAILED], Never),
        ([REQUEST, uploaded(), DELETED], Never),
        ([REQUEST, uploaded(), DELETED, RESTORED], Usable),
        ([REQUEST, uploaded(), scan_settled("infected"), DELETED], Never),
        ([SCANNED, uploaded()], NotYet),
        ([SCANNED, uploaded(), scan_settled("clean")], Usable),
        ([SCANNED, uploaded(), scan_settled("unsupported")], Never),
        ([SCANNED, uploaded(), scan_settled("error")], Never),
        ([SCANNED, uploaded(), scan_settled("error"), scan_settled("clean")], Usable),
    ],
)
def test_when_a_file_can_be_used(stream: list[EventData], verdict: type) -> None:
    found = judge(heard(*stream), "u1", "user:u1")
    assert isinstance(found, verdict)
    assert found == USABLE or not isinstance(found, Usable)


def test_a_file_that_is_stored_encoded_is_carried_decoded() -> None:
    data = uploaded().model_copy(update={"content_encoding": "gzip", "original_size": 900})
    found = judge(heard(REQUEST, data), "u1", "user:u1")
    assert found == replace(USABLE, content_encoding="gzip", original_size=900)
    assert isinstance(found, Usable)
    assert (found.size, found.carried, USABLE.carried) == (4, 900, 4)


def test_what_was_not_heard_of_is_waited_for_whatever_else_was() -> None:
    stream: list[EventData] = [REQUEST, uploaded(), DELETED, RESTORED]
    for missing in (1, 2):
        part = [(version, data) for version, data in enumerate(stream, 1) if version != missing]
        assert isinstance(judge(fold(part), "u1", "user:u1"), NotYet)


@pytest.mark.parametrize(
    ("asked_by", "may"),
    [("user:u2", False), ("user:u1", False), ("admin:a", True), ("service:crm", True), (None, True)],
)
def test_a_file_belongs_to_its_owner(asked_by: str | None, may: bool) -> None:
    known = heard(REQUEST, uploaded())
    assert judge(known, "u2", asked_by) == (USABLE if may else Never(NO_SUCH_FILE))
    assert judge(known, "u1", asked_by) == USABLE


def test_nobody_can_tell_anothers_file_from_none() -> None:
    for known in (heard(REQUEST), heard(REQUEST, FAILED), heard(REQUEST, uploaded(), scan_settled("infected"))):
        assert judge(known, "u2", "user:u2") == Never(NO_SUCH_FILE)
    assert judge(KnownFile(FILE), "u2", "user:u2") == NotYet(NO_SUCH_FILE)
