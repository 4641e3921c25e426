"""Whatever happens in S3 and to the service, in any order: what the stream says is true in the end."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from contracts.files.events import FileUploaded, FileUploadFailed
from contracts.files.values import ScanResult
from services.files.domain.commands import Look, Remove, Restore, Update
from services.files.domain.decisions import Decision, decide, judge
from services.files.domain.file import File, State, Verified
from services.files.domain.seen import Sniffed
from services.kit.errors import PermanentError
from tests.unit.files_service.requests import EXPIRES, T0, stored
from tests.unit.files_service.test_decisions import POLICY, Case

OBJECTS = st.sampled_from(
    [
        stored(),
        stored(etag="other"),
        stored(size=0),
        stored(size=5000),
        stored(content_type="text/html"),
        stored(sniffed=Sniffed()),
        stored(file_id=None),
        stored(scan="clean"),
        stored(scan="infected"),
        stored(scan="error"),
        stored(content_encoding="gzip"),
    ]
)


class FileMachine(RuleBasedStateMachine):
    """Uploads good and bad, deletions, people, several who look at once, crashes between S3 and the stream."""

    @initialize(
        public=st.booleans(),
        scan_needed=st.sampled_from([None, True]),
        lives=st.sampled_from([None, None, 10, 60, 600]),
    )
    def begin(self, public: bool, scan_needed: bool | None, lives: int | None) -> None:
        kept_until = None if lives is None else T0 + timedelta(minutes=lives)
        self.case = Case().ask(
            is_public=public, scan_needed=scan_needed, method="multipart", upload_id="up", kept_until=kept_until
        )
        self.first: Verified | None = None
        self.open: list[tuple[State, Decision]] = []
        self.ending = False

    @rule(found=OBJECTS)
    def upload(self, found: Any) -> None:
        if self.case.now < EXPIRES + POLICY.upload_grace:  # S3 takes nothing after it
            self.case.key.put(found)

    @rule(which=st.integers(0, 2))
    def begin_another_upload(self, which: int) -> None:
        """A creation whose answer is lost, and which was perhaps sent long before S3 takes it."""
        if self.case.now < EXPIRES + POLICY.upload_grace:
            self.case.key.uploads.add(f"lost-{which}")

    @rule()
    def mark(self) -> None:
        self.case.key.mark()

    @rule(which=st.integers(0, 5))
    def delete_something(self, which: int) -> None:
        if which < len(self.case.key.stack):
            self.case.key.delete([self.case.key.stack[which].version_id])

    @rule(minutes=st.sampled_from([0, 1, 30, 90]))
    def time_passes(self, minutes: int) -> None:
        self.case.now += timedelta(minutes=minutes)

    @rule(what=st.sampled_from(["look", "client", "sweeper", "remove", "restore", "publish", "hide"]))
    def begin_to_decide(self, what: str) -> None:
        """A process reads the stream, looks at S3 and decides; what it does about it comes later."""
        seen = self.case.key.seen(self.case.state)
        command: Any = {
            "look": Look(seen, "notification"),
            "client": Look(seen, "client", claimed_size=10),
            "sweeper": Look(seen, "sweeper"),
            "remove": Remove(seen, "user"),
            "restore": Restore(seen),
            "publish": Update(is_public=True),
            "hide": Update(is_public=False),
        }[what]
        try:
            self.open.append((self.case.state, decide(self.case.state, command, self.case.now, POLICY)))
        except PermanentError:
            return

    @rule(which=st.integers(0, 3), crashes=st.sampled_from(["never", "never", "before the append", "after it"]))
    def go_on(self, which: int, crashes: str) -> None:
        """It changes S3, appends to the stream that it read unless somebody else did, and cleans up if it won."""
        if which >= len(self.open):
            return
        read, decision = self.open.pop(which)
        self.case.key.before(decision)
        self.ending = self.ending or any(
            isinstance(each.data, FileUploaded | FileUploadFailed) for each in decision.drafts
        )
        if crashes == "before the append" or (decision.drafts and read is not self.case.state):
            return
        self.case.append(decision)
        if crashes == "never":
            self.case.key.after(decision)

    @invariant()
    def the_verified_version_never_changes(self) -> None:
        if not hasattr(self, "case"):
            return
        verified = self.case.file.verified
        if self.first is None:
            self.first = verified
        assert verified == self.first

    @rule(which=st.integers(0, 5), result=st.sampled_from(["clean", "infected", "error"]))
    def scan(self, which: int, result: ScanResult) -> None:
        """The scan tags a version that was not tagged before."""
        if which < len(self.case.key.stack):
            self.case.key.scan(self.case.key.stack[which].version_id, result)

    @invariant()
    def nobody_reads_what_the_scan_has_not_cleared(self) -> None:
        if hasattr(self, "case") and self.case.file.request.scan_needed:
            assert [each for each in self.case.key.what.values() if each.is_public and each.scan != "clean"] == []

    @invariant()
    def what_is_closed_is_clean(self) -> None:
        if hasattr(self, "case") and self.case.file.closed:
            verified = self.case.file.verified
            kept = None if verified is None or self.case.file.removal == "infected" else verified.version_id
            assert [each for each in self.case.versions if each != kept] == []
            assert self.case.key.uploads == set()

    @invariant()
    def an_upload_that_may_still_be_verified_is_open(self) -> None:
        if hasattr(self, "case") and self.case.file.phase == "uploading" and not self.ending:
            assert "up" in self.case.key.uploads

    def teardown(self) -> None:
        """Once S3 is left alone, a few looks close the file, and one more changes nothing."""
        if not hasattr(self, "case"):
            return
        case = self.case
        case.now += timedelta(days=1)
        for _ in range(4):
            case.look(by="sweeper")
        assert case.file.closed
        case.look()
        before = (case.state, list(case.key.stack))
        assert case.look(by="sweeper") == []
        assert (case.state, case.key.stack) == before
        file = case.file
        assert file.phase != "uploading"
        assert file.phase != "completed" or file.kept_until is None, "nothing outlives its time unless brought back"
        self._is_true(file)

    def _is_true(self, file: File) -> None:
        key = self.case.key
        versions = [each.version_id for each in key.stack if not each.is_marker]
        if file.phase == "completed":
            assert file.verified is not None
            assert key.stack[0].version_id == file.verified.version_id
            found = key.what[file.verified.version_id]
            assert judge(file, found, None) is None
            assert (found.size, found.etag) == (file.verified.size, file.verified.etag)
            assert found.is_public == (file.is_public and (not file.request.scan_needed or found.scan == "clean"))
            assert found.scan != "infected"
        if file.recoverable:
            assert file.verified is not None
            assert not key.what[file.verified.version_id].is_public
            assert versions == [file.verified.version_id]
            assert key.stack[0].is_marker
        if file.phase in ("failed", "deleted") and not file.recoverable:
            assert versions == []
        assert len(versions) <= 1, "nothing foreign is left"


FileMachine.TestCase.settings = settings(max_examples=300, stateful_step_count=25, deadline=None)
TestFileMachine = FileMachine.TestCase
