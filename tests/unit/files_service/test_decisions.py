"""The rules of a file, case by case."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from contracts.base import EventData
from contracts.files.events import FileUploaded
from contracts.files.values import ScanResult, UploadMetadata
from services.files.domain.commands import Command, Look, Remove, Request, Restore, Update
from services.files.domain.decisions import NOTHING, Decision, decide
from services.files.domain.file import Absent, File, Policy, State, due_at, evolve
from services.files.domain.seen import Inspected, Sniffed
from services.kit.errors import PermanentError
from tests.unit.files_service.bucket import Key
from tests.unit.files_service.requests import EXPIRES, PDF, SHA, T0, requested, stored

POLICY = Policy()


@dataclass(frozen=True)
class Event:
    data: EventData
    time: datetime


@dataclass
class Case:
    """A file and its key, driven by hand."""

    key: Key = field(default_factory=Key)
    state: State = field(default_factory=Absent)
    now: datetime = T0

    def ask(self, **changes: Any) -> Case:
        self.do(Request(requested(**changes)))
        if self.file.request.upload_id is not None:
            self.key.uploads.add(self.file.request.upload_id)
        return self

    def do(self, command: Command) -> list[str]:
        """Decide, change S3, append; what was appended."""
        decision = decide(self.state, command, self.now, POLICY)
        self.key.before(decision)
        appended = self.append(decision)
        self.key.after(decision)
        return appended

    def append(self, decision: Decision) -> list[str]:
        for draft in decision.drafts:
            self.now += timedelta(microseconds=1)
            self.state = evolve(self.state, Event(draft.data, self.now))
        return [type(draft.data).__name__.removeprefix("File") for draft in decision.drafts]

    def look(self, **how: Any) -> list[str]:
        return self.do(Look(self.key.seen(self.state), how.pop("by", "notification"), **how))

    @property
    def file(self) -> File:
        assert isinstance(self.state, File)
        return self.state

    @property
    def versions(self) -> list[str]:
        return [each.version_id for each in self.key.stack if not each.is_marker]


def uploaded(**changes: Any) -> Case:
    case = Case().ask(**changes)
    case.key.put(stored(content_type=case.file.request.content_type))
    assert case.look() == ["Uploaded"]
    return case


def test_either_input_completes_and_both_complete_once() -> None:
    for first, second in (("client", "notification"), ("notification", "client")):
        case = Case().ask()
        version = case.key.put(stored())
        assert case.look(by=first) == ["Uploaded"]
        assert case.look(by=second) == []
        assert case.file.phase == "completed"
        assert case.file.verified is not None
        assert case.file.verified.version_id == version


def test_a_public_file_is_open_only_once_its_scan_has_cleared_it() -> None:
    """S3 and a distribution in front of it go by the tag alone."""
    case = Case().ask(is_public=True, scan_needed=True)
    version = case.key.put(stored())
    case.look()
    assert not case.key.what[version].is_public
    case.do(Update(is_public=False))
    case.do(Update(is_public=True))
    assert not case.key.what[version].is_public
    case.look(scan="error")
    assert not case.key.what[version].is_public
    case.look(scan="clean")
    assert case.key.what[version].is_public


def test_nothing_there_yet_is_no_decision() -> None:
    case = Case().ask()
    assert case.look(by="client") == []
    case.now = EXPIRES + timedelta(minutes=1)
    assert case.look(by="sweeper") == []


def test_the_sweeper_ends_what_never_came_and_completes_what_nobody_told() -> None:
    case = Case().ask(method="multipart", upload_id="up")
    due = due_at(case.state, POLICY)
    assert due == EXPIRES + POLICY.upload_grace
    case.now = due
    assert case.look(by="sweeper") == ["UploadFailed"]
    assert (case.file.failure, case.key.uploads) == ("expired", set())
    assert due_at(case.state, POLICY) == due, "the look after it closes"
    assert case.look(by="sweeper") == ["UploadClosed"]
    assert due_at(case.state, POLICY) is None
    other = Case().ask()
    other.key.put(stored())
    other.now = due
    assert other.look(by="sweeper") == ["Uploaded"]
    assert other.look(by="sweeper") == ["UploadClosed"]
    assert other.look(by="sweeper") == []


def test_every_file_is_looked_at_once_more_when_its_upload_is_over() -> None:
    case = uploaded()
    due = due_at(case.state, POLICY)
    assert due is not None
    case.key.put(stored())  # by a form that was used twice, with its notification lost
    case.now = due
    assert case.look(by="sweeper") == []
    assert (case.versions, due_at(case.state, POLICY)) == (["v0"], due), "closed only by a look that finds it clean"
    assert case.look(by="sweeper") == ["UploadClosed"]
    assert due_at(case.state, POLICY) is None


IN_PARTS: dict[str, Any] = {"method": "multipart", "upload_id": "up"}
OVER = EXPIRES + POLICY.upload_grace


def _looked_at(found: Inspected | None, *, marker: bool = False, at: datetime = T0, **ask: Any) -> Decision:
    case = Case().ask(**ask)
    if found is not None:
        case.key.put(found)
    if marker:
        case.key.mark()
    return decide(case.state, Look(case.key.seen(case.state), "notification"), at, POLICY)


def _removed(**ask: Any) -> Decision:
    case = Case().ask(**ask)
    return decide(case.state, Remove(case.key.seen(case.state), "user"), T0, POLICY)


def _closed(**ask: Any) -> Decision:
    case = uploaded(**ask)
    return decide(case.state, Look(case.key.seen(case.state), "sweeper"), OVER, POLICY)


@pytest.mark.parametrize(
    ("decided", "kinds"),
    [
        (lambda **ask: _looked_at(stored(), **ask), ["Uploaded"]),
        (lambda **ask: _looked_at(stored(scan="infected"), **ask), ["Uploaded", "ScanSettled", "Deleted"]),
        (lambda **ask: _looked_at(stored(size=0), **ask), ["UploadFailed"]),
        (lambda **ask: _looked_at(None, marker=True, **ask), ["UploadFailed"]),
        (lambda **ask: _looked_at(None, at=OVER, **ask), ["UploadFailed"]),
        (_removed, ["UploadFailed"]),
        (_closed, ["UploadClosed"]),
    ],
)
def test_whatever_ends_an_upload_aborts_all_uploads_of_a_file_in_parts(
    decided: Callable[..., Decision], kinds: list[str]
) -> None:
    decision = decided(**IN_PARTS)
    assert [type(each.data).__name__.removeprefix("File") for each in decision.drafts] == kinds
    assert decision.abort
    assert not decided().abort, "a form leaves none"


def test_what_does_not_end_an_upload_aborts_none() -> None:
    case = Case().ask(**IN_PARTS)
    case.do(Request(requested(**IN_PARTS)))
    case.do(Update(tags=("a",)))
    assert case.look() == []
    assert case.key.uploads == {"up"}
    case.key.put(stored())
    assert case.look() == ["Uploaded"]
    case.key.uploads.add("late")  # begun by a request that S3 took long to answer
    case.do(Remove(case.key.seen(case.state), "user"))
    case.do(Restore(case.key.seen(case.state)))
    case.look(scan="clean")
    assert case.key.uploads == {"late"}
    case.now = OVER
    assert case.look(by="sweeper") == ["UploadClosed"]
    assert case.key.uploads == set()


@pytest.mark.parametrize(
    ("ask", "found", "claimed", "reason"),
    [
        ({}, stored(size=0), None, "empty"),
        ({}, stored(size=1001), None, "tooLarge"),
        ({}, stored(), 11, "sizeMismatch"),
        ({"declared_size": 9}, stored(), None, "sizeMismatch"),
        ({}, stored(content_type="text/html"), None, "typeMismatch"),
        ({}, stored(sniffed=Sniffed(frozenset({"application/zip"}))), None, "typeMismatch"),
        ({}, stored(sniffed=Sniffed(frozenset({"text/html"}), is_text=True)), None, "typeMismatch"),
        ({}, stored(file_id="0192f0c1-2b7a-7d3e-9c1a-5b8f3e2d4fff"), None, "notOurs"),
        ({}, stored(file_id=None), None, "notOurs"),
        ({"metadata": UploadMetadata(uploaded_by="u1", checksum=SHA)}, stored(checksum="x"), None, "checksumMismatch"),
        ({"metadata": UploadMetadata(uploaded_by="u1", checksum=SHA)}, stored(), None, "checksumMismatch"),
    ],
)
def test_what_is_not_what_was_asked_for_is_deleted(
    ask: dict[str, Any], found: Inspected, claimed: int | None, reason: str
) -> None:
    case = Case().ask(**ask)
    case.key.put(found)
    assert case.look(by="client", claimed_size=claimed) == ["UploadFailed"]
    assert (case.file.failure, case.key.stack) == (reason, [])


def test_what_is_not_recognised_completes_and_is_never_public() -> None:
    case = Case().ask(is_public=True)
    case.key.put(stored(sniffed=Sniffed(detected="text/x-tex", is_text=True), is_public=True))
    assert case.look() == ["Uploaded"]
    assert case.file.verified is not None
    assert (case.file.verified.recognised, case.file.is_public) == (False, False)
    assert not case.key.what["v0"].is_public, "the tag is what the bucket and the distribution go by"
    with pytest.raises(PermanentError) as refused:
        case.do(Update(is_public=True))
    assert refused.value.reason == "notRecognised"
    case.do(Update(tags=("a",)))


def test_what_is_recognised_is_public_as_was_asked_and_its_type_is_told() -> None:
    case = Case().ask(is_public=True)
    case.key.put(stored(sniffed=replace(PDF, detected="application/pdf")))
    (draft,) = decide(case.state, Look(case.key.seen(case.state), "client"), T0, POLICY).drafts
    assert isinstance(draft.data, FileUploaded)
    assert (draft.data.detected_type, draft.data.recognised) == ("application/pdf", True)
    case.look()
    assert (case.file.is_public, case.key.what["v0"].is_public) == (True, True)


def test_a_file_of_an_earlier_version_counts_as_recognised() -> None:
    """It completed nothing else, and said nothing of it."""
    told = FileUploaded(version_id="v0", etag="e", size=1, content_type="application/pdf", by="client")
    state = evolve(Case().ask(is_public=True).state, Event(told, T0))
    assert isinstance(state, File)
    assert state.verified is not None
    assert (state.verified.recognised, state.is_public) == (True, True)


def test_a_right_checksum_and_size_complete() -> None:
    case = Case().ask(declared_size=10, metadata=UploadMetadata(uploaded_by="u1", checksum=SHA))
    case.key.put(stored(checksum=SHA))
    assert case.look(by="client", claimed_size=10) == ["Uploaded"]


def test_a_swap_after_verification_is_deleted_and_never_taken() -> None:
    case = uploaded()
    verified = case.file.verified
    case.key.put(stored(etag="swapped"))
    assert case.look() == []
    assert case.versions == ["v0"]
    assert case.file.verified == verified


def test_of_two_uploads_before_the_look_the_older_one_counts() -> None:
    case = Case().ask()
    case.key.put(stored(etag="one"))
    case.key.put(stored(etag="two"))
    case.look()
    assert (case.versions, case.file.verified and case.file.verified.etag) == (["v0"], "one")


def test_deleted_and_restored_by_people() -> None:
    case = uploaded()
    assert case.do(Remove(case.key.seen(case.state), "user", actor="user:u1")) == ["Deleted"]
    assert (case.file.phase, case.file.recoverable, case.file.removal) == ("deleted", True, "user")
    assert case.do(Remove(case.key.seen(case.state), "user")) == []
    assert case.look() == []
    assert case.do(Restore(case.key.seen(case.state))) == ["Restored"]
    assert (case.file.phase, len(case.key.stack)) == ("completed", 1)
    assert case.do(Restore(case.key.seen(case.state))) == []


def test_marker_deleted_deleted_again_as_s3_tells_it() -> None:
    case = uploaded()
    marker = case.key.mark()
    assert case.look(removal="lifecycle") == ["Deleted"]
    assert (case.file.removal, case.file.recoverable) == ("lifecycle", True)
    case.key.delete([marker])
    assert case.look() == ["Restored"]
    case.key.mark()
    assert case.look() == ["Deleted"]
    case.key.delete(case.versions)
    assert case.look() == ["Deleted"]
    assert not case.file.recoverable
    with pytest.raises(PermanentError, match="gone for good"):
        case.do(Restore(case.key.seen(case.state)))


def test_deleting_a_noncurrent_version_is_no_deletion() -> None:
    case = uploaded()
    other = case.key.put(stored())
    case.key.delete([other])
    assert case.look() == []
    assert case.file.phase == "completed"


def test_a_late_create_after_a_delete_is_foreign() -> None:
    case = Case().ask(method="multipart", upload_id="up")
    assert case.do(Remove(case.key.seen(case.state), "user")) == ["UploadFailed"]
    assert (case.file.failure, case.key.uploads) == ("aborted", set())
    case.key.put(stored())
    assert case.look() == []
    assert case.key.stack == []


def test_a_crash_between_s3_and_the_append_is_found_by_the_next_look() -> None:
    removing = uploaded()
    removing.key.before(decide(removing.state, Remove(removing.key.seen(removing.state), "user"), T0, POLICY))
    assert removing.look() == ["Deleted"]
    again = uploaded()
    again.key.before(decide(again.state, Remove(again.key.seen(again.state), "user"), T0, POLICY))
    assert again.do(Remove(again.key.seen(again.state), "user")) == ["Deleted"]
    assert len(again.key.stack) == 2, "one marker is enough"


def test_a_crash_between_the_append_and_a_deletion_is_found_by_the_next_look() -> None:
    case = Case().ask()
    case.key.put(stored(size=0))
    case.append(decide(case.state, Look(case.key.seen(case.state), "client"), T0, POLICY))
    assert (case.file.failure, case.versions) == ("empty", ["v0"])
    assert case.look() == []
    assert case.versions == []


def test_of_two_who_look_at_once_only_the_one_who_wins_deletes() -> None:
    """One takes the version; the other, whose client lied about its size, would have failed it."""
    case = Case().ask()
    case.key.put(stored())
    good = decide(case.state, Look(case.key.seen(case.state), "notification"), T0, POLICY)
    bad = decide(case.state, Look(case.key.seen(case.state), "client", claimed_size=11), T0, POLICY)
    case.key.before(good)
    case.key.before(bad)  # nothing of it destroys
    assert case.append(good) == ["Uploaded"]
    case.key.after(good)
    assert case.look() == []
    assert case.versions == ["v0"]


def test_an_infected_version_is_deleted_for_good() -> None:
    case = uploaded()
    case.key.what["v0"] = stored(version_id="v0", scan="infected")
    assert case.look() == ["ScanSettled", "Deleted"]
    assert (case.file.scan, case.file.removal, case.file.recoverable) == ("infected", "infected", False)
    assert case.key.stack == []
    with pytest.raises(PermanentError):
        case.do(Restore(case.key.seen(case.state)))


def test_a_scan_that_came_first_is_settled_with_the_upload() -> None:
    case = Case().ask()
    case.key.put(stored(scan="clean"))
    assert case.look() == ["Uploaded", "ScanSettled"]
    assert case.look(scan="clean") == []
    bad = Case().ask()
    bad.key.put(stored(scan="infected"))
    assert bad.look() == ["Uploaded", "ScanSettled", "Deleted"]
    assert bad.key.stack == []


def test_the_tag_of_the_version_counts_before_what_a_notification_says() -> None:
    case = uploaded()
    assert case.look(scan="error") == ["ScanSettled"]
    case.key.what["v0"] = stored(version_id="v0", scan="clean")
    assert case.look(scan="error") == ["ScanSettled"]
    assert case.file.scan == "clean"


def test_visibility_is_tagged_before_it_is_said() -> None:
    case = uploaded(is_public=True, category="general")
    assert [case.key.what["v0"].is_public] == [True]
    assert case.do(Update(is_public=False, tags=("a",))) == ["Updated"]
    assert [case.key.what["v0"].is_public] == [False]
    assert (case.file.is_public, case.file.tags) == (False, ("a",))
    assert case.do(Update(is_public=False, tags=("a",))) == []
    assert case.do(Update(tags=())) == ["Updated"]
    assert case.file.tags == ()


def test_a_tag_that_a_crash_left_is_put_right_by_the_next_look() -> None:
    case = uploaded()
    case.key.what["v0"] = stored(version_id="v0", is_public=True)
    assert case.look() == []
    assert not case.key.what["v0"].is_public


def test_what_was_uploaded_as_not_verified_is_tagged_as_verified_once_it_is() -> None:
    case = Case().ask()
    case.key.put(stored(is_verified=False))
    assert case.look() == ["Uploaded"]
    assert case.key.what["v0"].is_verified is True
    case.key.put(stored(is_verified=False))
    case.look()
    assert case.key.what["v1"].is_verified is False, "of another version nobody says so"
    case.key.what["v0"] = replace(case.key.what["v0"], is_verified=False)  # a scan put back the tags it had read
    assert case.look() == []
    assert case.key.what["v0"].is_verified is True


def test_what_is_rejected_or_infected_or_waits_for_its_scan_is_never_tagged_as_verified() -> None:
    rejected = Case().ask()
    rejected.key.put(stored(is_verified=False, size=0))
    assert rejected.look() == ["UploadFailed"]
    assert rejected.key.what["v0"].is_verified is False
    outcomes: list[tuple[ScanResult, list[str], bool]] = [
        ("infected", ["ScanSettled", "Deleted"], False),
        ("clean", ["ScanSettled"], True),
    ]
    for result, said, verified in outcomes:
        case = Case().ask(scan_needed=True)
        case.key.put(stored(is_verified=False))
        assert case.look() == ["Uploaded"]
        assert case.key.what["v0"].is_verified is False
        case.key.scan("v0", result)
        assert case.look() == said
        assert case.key.what["v0"].is_verified is verified


def test_what_carries_no_such_tag_gets_none() -> None:
    """As where the bucket is not copied, and what was uploaded before it was."""
    assert uploaded().key.what["v0"].is_verified is None


def test_a_deleted_file_is_public_no_more_and_a_restored_one_again() -> None:
    case = uploaded(is_public=True, category="general")
    case.do(Remove(case.key.seen(case.state), "user"))
    assert [case.key.what["v0"].is_public] == [False]
    case.do(Restore(case.key.seen(case.state)))
    assert [case.key.what["v0"].is_public] == [True]
    case.key.mark()
    assert case.look() == ["Deleted"]
    assert [case.key.what["v0"].is_public] == [False]
    case.key.delete([case.key.stack[0].version_id])
    assert case.look() == ["Restored"]
    assert [case.key.what["v0"].is_public] == [True]


def test_what_was_taken_for_gone_and_is_not_is_not_lost() -> None:
    """A look into an empty place (another bucket, a stale listing) is no reason to delete anything later."""
    case = uploaded()
    kept, case.key.stack = case.key.stack, []
    assert case.look() == ["Deleted"]
    assert not case.file.recoverable
    case.key.stack = kept
    assert case.look() == ["Restored"]
    assert (case.file.phase, case.versions) == ("completed", ["v0"])
    case.key.mark()
    case.look()
    kept, case.key.stack = case.key.stack, []
    assert case.look() == ["Deleted"]
    case.key.stack = kept
    assert case.look() == ["Deleted"]
    assert (case.file.recoverable, case.versions) == (True, ["v0"])


def test_what_cannot_be_done_says_why() -> None:
    with pytest.raises(PermanentError) as none:
        decide(Absent(), Update(tags=("a",)), T0, POLICY)
    assert none.value.reason == "notFound"
    case = Case().ask()
    with pytest.raises(PermanentError) as early:
        case.do(Restore(case.key.seen(case.state)))
    assert early.value.reason == "notDeleted"
    with pytest.raises(PermanentError) as other:
        case.do(Request(requested(request_hash="other")))
    assert other.value.reason == "conflictingRepeat"
    assert decide(case.state, Request(requested()), T0, POLICY) == NOTHING
    case.do(Remove(case.key.seen(case.state), "user"))
    with pytest.raises(PermanentError) as ended:
        case.do(Update(tags=("a",)))
    assert ended.value.reason == "ended"
    assert decide(Absent(), Look(Key().seen(Absent()), "notification"), T0, POLICY) == NOTHING


ZIPPED = Sniffed(frozenset({"application/zip"}))
PACKED = {"content_encoding": "gzip", "content_type": "text/csv", "original_size": 900}
CSV = Sniffed(is_text=True, told_size=900)


@pytest.mark.parametrize(
    ("agreed", "found", "failure"),
    [
        (PACKED, {"content_encoding": "gzip", "sniffed": CSV}, None),
        (PACKED, {"content_encoding": None, "sniffed": CSV}, "typeMismatch"),
        (PACKED, {"content_encoding": "br", "sniffed": CSV}, "typeMismatch"),
        (PACKED, {"content_encoding": "gzip", "sniffed": Sniffed()}, "typeMismatch"),  # no stream at all
        (PACKED, {"content_encoding": "gzip", "sniffed": replace(ZIPPED, told_size=900)}, "typeMismatch"),
        (PACKED, {"content_encoding": "gzip", "sniffed": Sniffed(told_size=900)}, None),  # of nothing that is known
        (PACKED, {"content_encoding": "gzip", "sniffed": Sniffed(is_text=True, told_size=901)}, "sizeMismatch"),
        (PACKED | {"original_size": 2**32 + 900, "max_size_bytes": 2**33}, {"content_encoding": "gzip"}, None),
        ({"content_type": "text/csv"}, {"content_encoding": "gzip", "sniffed": CSV}, "typeMismatch"),
    ],
)
def test_what_is_stored_compressed_is_what_was_agreed(
    agreed: dict[str, Any], found: dict[str, Any], failure: str | None
) -> None:
    case = Case().ask(**agreed)
    case.key.put(stored(**({"content_type": "text/csv", "sniffed": CSV} | found)))
    case.look()
    assert case.file.failure == failure
    if failure is None:
        assert case.file.verified is not None
        assert case.file.verified.size == 10, "as it is stored"
        assert case.file.verified.content_encoding == "gzip"
        assert case.file.verified.original_size == agreed["original_size"]


ENDS = T0 + timedelta(days=30)


def test_a_file_past_its_lifetime_is_deleted_and_can_be_brought_back_for_good() -> None:
    case = uploaded(kept_until=ENDS, is_public=True)
    version = case.versions[0]
    case.now = EXPIRES + POLICY.upload_grace
    case.look(by="sweeper")
    assert (case.file.closed, due_at(case.state, POLICY)) == (True, ENDS)
    case.now = ENDS - timedelta(seconds=1)
    assert case.look(by="sweeper") == []
    case.now = ENDS
    assert case.look(by="sweeper") == ["Deleted"]
    assert (case.file.phase, case.file.removal, case.file.recoverable) == ("deleted", "lifecycle", True)
    assert [each.is_marker for each in case.key.stack] == [True, False]
    assert not case.key.what[version].is_public
    assert due_at(case.state, POLICY) is None
    assert case.look(by="notification") == []
    assert case.do(Restore(case.key.seen(case.state))) == ["Restored"]
    assert (case.file.phase, case.file.kept_until, due_at(case.state, POLICY)) == ("completed", None, None)
    case.now += timedelta(days=1000)
    assert case.look(by="sweeper") == []


def test_a_restore_before_its_end_leaves_a_file_its_lifetime() -> None:
    case = uploaded(kept_until=ENDS)
    case.do(Remove(case.key.seen(case.state), "user"))
    case.now = ENDS - timedelta(days=1)
    case.do(Restore(case.key.seen(case.state)))
    assert case.file.kept_until == ENDS
    case.now = ENDS
    assert "Deleted" in case.look(by="sweeper")


def test_a_lifetime_shorter_than_an_upload_ends_before_it_is_closed() -> None:
    case = uploaded(kept_until=T0 + timedelta(minutes=5))
    assert due_at(case.state, POLICY) == T0 + timedelta(minutes=5)
    case.now = T0 + timedelta(minutes=5)
    assert case.look(by="sweeper") == ["Deleted"]
    assert due_at(case.state, POLICY) == EXPIRES + POLICY.upload_grace


def test_a_crash_before_the_end_of_a_lifetime_is_said_leaves_its_reason() -> None:
    case = uploaded(kept_until=ENDS)
    case.now = ENDS
    case.key.before(decide(case.state, Look(case.key.seen(case.state), "sweeper"), case.now, POLICY))
    assert "Deleted" in case.look(by="notification")
    assert case.file.removal == "lifecycle"
    assert [each.is_marker for each in case.key.stack] == [True, False], "no second marker"


def test_what_is_infected_is_deleted_for_good_though_its_lifetime_is_over() -> None:
    case = uploaded(kept_until=ENDS)
    case.now = ENDS
    assert case.look(by="notification", scan="infected") == ["ScanSettled", "Deleted"]
    assert (case.file.removal, case.file.recoverable, case.versions) == ("infected", False, [])
