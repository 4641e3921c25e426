"""What a file decides: `decide(state, command, now, policy)` → changes to S3, and drafts of events. Pure and total.

What can be undone is changed in S3 first (a delete marker put or taken away, a tag), so that an event says what stands
already: a crash before the append leaves S3 ahead, and S3's own notification leads to the same decision. What cannot be
undone (versions deleted) comes after the append, since another process may be deciding to keep that very version: only
who won the append deletes. A crash after the append leaves something foreign under the key, which the next look
deletes. An upload is closed by a look that finds nothing left to do, so that what is closed is clean.

What ends an upload aborts every multipart upload of the file, before the append: once the end is appended, no look
repeats it. An abort destroys no object. Where the end is `file.uploaded`, the look has found the object, so the upload
that made it is over; any other one could only add a foreign version.

An expected failure is an event; what cannot be done raises PermanentError: `notFound`, `conflictingRepeat`,
`notDeleted`, `unrecoverable`, `ended`, `notRecognised`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from contracts.files.events import (
    FileDeleted,
    FileRestored,
    FileScanSettled,
    FileUpdated,
    FileUploadClosed,
    FileUploaded,
    FileUploadFailed,
)
from contracts.files.values import ScanResult, UploadFailureReason
from services.files.domain.commands import Command, Look, Remove, Request, Restore, Update
from services.files.domain.file import Absent, File, Policy, State, Verified
from services.files.domain.kinds import Verdict, judged
from services.files.domain.seen import TOLD_MODULO, Inspected, Seen
from services.kit.errors import PermanentError
from services.kit.event_store.port import Draft

Drafts = tuple[Draft, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, in this order.

    Attributes:
        abort: abort every multipart upload of the file, whether the stream names it or not; none left is fine.
        unmark: delete markers to be taken away; what is not there any more is fine.
        public: (version, whether anybody may read it): to be tagged so.
        verified: a version to be tagged as verified, where its upload was tagged as not.
        mark: put a delete marker on top.
        drafts: to be appended now.
        delete: versions to be deleted for good once the drafts stand; what is not there any more is fine.
        foreign: how many of `delete` are versions that nobody verified.
    """

    abort: bool = False
    unmark: tuple[str, ...] = ()
    public: tuple[str, bool] | None = None
    verified: str | None = None
    mark: bool = False
    drafts: Drafts = ()
    delete: tuple[str, ...] = ()
    foreign: int = 0


NOTHING = Decision()

_ENDS_AN_UPLOAD = (FileUploaded, FileUploadFailed, FileUploadClosed)
"""After one of these, no upload that is still open can become the verified version."""


def decide(state: State, command: Command, now: datetime, policy: Policy) -> Decision:
    """What follows from `command`; NOTHING when there is nothing (more) to do."""
    decision = _decide(state, command, now, policy)
    ends = any(isinstance(each.data, _ENDS_AN_UPLOAD) for each in decision.drafts)
    if ends and isinstance(state, File) and state.request.method == "multipart":
        return replace(decision, abort=True)
    return decision


def _decide(state: State, command: Command, now: datetime, policy: Policy) -> Decision:
    if isinstance(command, Request):
        return _request(state, command)
    if isinstance(state, Absent):
        if isinstance(command, Look):
            return NOTHING
        raise PermanentError("notFound", "there is no such file")
    match command:
        case Look():
            return _look(state, command, now, policy)
        case Remove():
            return _remove(state, command)
        case Restore():
            return _restore(state, command)
        case Update():
            return _update(state, command)


def judge(state: File, found: Inspected, claimed_size: int | None) -> tuple[UploadFailureReason, str] | None:
    """What is wrong with an uploaded object; None = it is what was asked for."""
    request = state.request
    if found.file_id != request_id(state):
        return ("notOurs", "its metadata does not name this file")
    if found.size == 0:
        return ("empty", "the object has no bytes")
    if found.size > request.max_size_bytes:
        return ("tooLarge", f"{found.size} bytes; at most {request.max_size_bytes} were agreed")
    for said, by in ((request.declared_size, "declared"), (claimed_size, "said to be sent")):
        if said is not None and said != found.size:
            return ("sizeMismatch", f"{said} bytes were {by}, {found.size} came")
    if found.content_type != request.content_type:
        return ("typeMismatch", f"declared {request.content_type}, stored as {found.content_type}")
    if (problem := _wrongly_encoded(state, found)) is not None:
        return problem
    if found.sniffed is not None and (why := _verdict(state, found).contradiction) is not None:
        return ("typeMismatch", why)
    wanted = request.metadata.checksum
    if wanted is not None and found.checksum != wanted:
        return ("checksumMismatch", "the SHA-256 of what came is another one")
    return None


def _verdict(state: File, found: Inspected) -> Verdict:
    return Verdict() if found.sniffed is None else judged(state.request.content_type, found.sniffed)


def _wrongly_encoded(state: File, found: Inspected) -> tuple[UploadFailureReason, str] | None:
    """Whether it is stored as was agreed. How large it is once decoded is the uploader's word and that of the stream's
    end, which must agree; to know would be to decode it all.
    """
    agreed, size = state.request.content_encoding, state.request.original_size
    if found.content_encoding != agreed:
        return ("typeMismatch", f"agreed as {agreed or 'not'} encoded, stored as {found.content_encoding or 'not'}")
    if agreed is None or found.sniffed is None:
        return None
    told = found.sniffed.told_size
    if told is None:
        return ("typeMismatch", f"declared to be encoded with {agreed}, and cannot be decoded, or hides what it holds")
    if size is not None and told != size % TOLD_MODULO:
        return ("sizeMismatch", f"{size} bytes were declared once decoded, the stream ends with {told}")
    return None


def request_id(state: File) -> str:
    """The file's id, as its key holds it: `<category>/<yyyy>/<mm>/<fileId>/<nonce>`."""
    return state.request.key.split("/")[3]


# --- the request -------------------------------------------------------------------------------------------------


def _request(state: State, command: Request) -> Decision:
    if isinstance(state, File):
        if state.request.request_hash != command.request.request_hash:
            raise PermanentError("conflictingRepeat", "this fileId was requested before with other content")
        return NOTHING
    return Decision(drafts=(Draft(command.request, causation=command.causation, actor=command.actor),))


# --- looking -----------------------------------------------------------------------------------------------------


def _look(state: File, command: Look, now: datetime, policy: Policy) -> Decision:
    over = now >= state.request.expires_at + policy.upload_grace
    match state.phase:
        case "uploading":
            decision = _look_at_upload(state, command, over)
        case "completed":
            decision = _look_at_completed(state, command, now)
        case "deleted":
            decision = _look_at_deleted(state, command)
        case "failed":
            decision = _without(command.seen, None)
    if over and not state.closed and not decision.drafts and not decision.delete:
        return replace(decision, drafts=(Draft(FileUploadClosed()),))
    return decision  # what there is to do is done first: the file stays due, and the look after it closes


def _look_at_upload(state: File, command: Look, over: bool) -> Decision:
    seen = command.seen
    found = seen.inspected
    if found is None:
        if any(each.is_marker for each in seen.versions):
            return _fail(seen, "aborted", "the object was deleted before it was verified", command)
        if over:
            return _fail(seen, "expired", None, command)
        return NOTHING
    wrong = judge(state, found, command.claimed_size)
    if wrong is not None:
        return _fail(seen, wrong[0], wrong[1], command)
    uploaded = FileUploaded(
        version_id=found.version_id,
        etag=found.etag,
        size=found.size,
        content_type=found.content_type,
        checksum=found.checksum,
        storage_class=found.storage_class,
        content_encoding=state.request.content_encoding,
        original_size=state.request.original_size,
        detected_type=None if found.sniffed is None else found.sniffed.detected,
        recognised=_verdict(state, found).recognised,
        by=command.by,
    )
    rest = _without(seen, found.version_id)
    scanned = _scan_drafts(found.version_id, state, command)
    drafts = (Draft(uploaded, causation=command.cause, actor=command.actor), *scanned)
    scan = _scan_after(state, scanned)
    if scan == "infected":
        return _infected(rest, found.version_id, drafts, command)
    is_open = state.is_open(scan) and uploaded.recognised is True
    public = (found.version_id, is_open) if found.is_public != is_open else None
    return replace(rest, public=public, verified=_unverified(state, seen, scan), drafts=drafts)


def _look_at_completed(state: File, command: Look, now: datetime) -> Decision:
    verified, seen = _verified(state), command.seen
    rest = _without(seen, verified.version_id)
    if not seen.has(verified.version_id):
        return replace(rest, drafts=(_deleted(verified, False, command),))
    scanned = _scan_drafts(verified.version_id, state, command)
    scan = _scan_after(state, scanned)
    if scan == "infected":
        return _infected(rest, verified.version_id, scanned, command)
    rest = replace(rest, verified=_unverified(state, seen, scan))
    hidden = seen.is_hidden(verified.version_id)
    if state.kept_until is not None and now >= state.kept_until:
        ended = FileDeleted(version_id=verified.version_id, recoverable=True, reason="lifecycle")
        drafts = (*scanned, Draft(ended, causation=command.cause))
        return replace(rest, public=_tag(state, seen, False), mark=not hidden, drafts=drafts)
    if hidden:
        drafts = (*scanned, _deleted(verified, True, command))
        return replace(rest, public=_tag(state, seen, False), drafts=drafts)
    return replace(rest, public=_tag(state, seen, state.is_open(scan)), drafts=scanned)


def _look_at_deleted(state: File, command: Look) -> Decision:
    verified, seen = _verified(state), command.seen
    if state.removal == "infected":
        return _without(seen, None)  # nothing may lie there any more
    rest = _without(seen, verified.version_id)
    if not seen.has(verified.version_id):
        return replace(rest, drafts=(_deleted(verified, False, command),)) if state.recoverable else rest
    scanned = _scan_drafts(verified.version_id, state, command)
    scan = _scan_after(state, scanned)
    if scan == "infected":
        return _infected(rest, verified.version_id, scanned, command)
    rest = replace(rest, verified=_unverified(state, seen, scan))
    if not seen.is_hidden(verified.version_id):
        restored = FileRestored(version_id=verified.version_id, by=command.actor)
        drafts = (*scanned, Draft(restored, causation=command.cause, actor=command.actor))
        return replace(rest, public=_tag(state, seen, state.is_open(scan)), drafts=drafts)
    if not state.recoverable:  # it was taken for gone, and is not: a look into the wrong place is no reason to lose it
        scanned = (*scanned, _deleted(verified, True, command))
    return replace(rest, public=_tag(state, seen, False), drafts=scanned)


def _tag(state: File, seen: Seen, wanted: bool) -> tuple[str, bool] | None:
    """Whether anybody may read the verified version: what is to be said of it, if it is said otherwise now. A hidden
    version can still be read by its id.
    """
    found = seen.inspected
    if found is None or found.is_public == wanted:
        return None
    return (_verified(state).version_id, wanted)


def _unverified(state: File, seen: Seen, scan: ScanResult | None) -> str | None:
    """The version that was looked at, where its tag still says that it is not verified, and it is: a copy of the bucket
    lets go of what stays so. Files that wait for their scan are not verified yet.
    """
    found = seen.inspected
    return found.version_id if found and found.is_verified is False and state.may_go_out(scan) else None


def _without(seen: Seen, keep: str | None) -> Decision:
    """Every version but `keep` is foreign: on a key of ours only the verified one has a right to be. Markers stay."""
    foreign = tuple(each.version_id for each in seen.versions if not each.is_marker and each.version_id != keep)
    return Decision(delete=foreign, foreign=len(foreign))


def _fail(seen: Seen, reason: UploadFailureReason, detail: str | None, command: Look | Remove) -> Decision:
    cause = command.cause if isinstance(command, Look) else command.causation
    failed = FileUploadFailed(reason=reason, detail=detail)
    drafts = (Draft(failed, causation=cause, actor=command.actor),)
    return replace(_without(seen, None), drafts=drafts)


def _deleted(verified: Verified, recoverable: bool, command: Look) -> Draft:
    deleted = FileDeleted(
        version_id=verified.version_id, recoverable=recoverable, reason=command.removal, by=command.actor
    )
    return Draft(deleted, causation=command.cause, actor=command.actor)


# --- the scan ----------------------------------------------------------------------------------------------------


def _scan_after(state: File, scanned: Drafts) -> ScanResult | None:
    """What the scan says once these stand."""
    return next((each.data.result for each in scanned if isinstance(each.data, FileScanSettled)), state.scan)


def _scan_drafts(version_id: str, state: File, command: Look) -> Drafts:
    found = command.seen.inspected
    if found is None or found.version_id != version_id:
        return ()
    result = found.scan if found.scan is not None else command.scan
    if result is None or result == state.scan or state.scan == "infected":
        return ()
    return (Draft(FileScanSettled(version_id=version_id, result=result), causation=command.cause),)


def _infected(rest: Decision, version_id: str, drafts: Drafts, command: Look) -> Decision:
    """It is deleted for good, whoever would like to have it back."""
    deleted = FileDeleted(version_id=version_id, recoverable=False, reason="infected")
    return replace(rest, delete=(*rest.delete, version_id), drafts=(*drafts, Draft(deleted, causation=command.cause)))


# --- people ------------------------------------------------------------------------------------------------------


def _remove(state: File, command: Remove) -> Decision:
    match state.phase:
        case "uploading":
            return _fail(command.seen, "aborted", None, command)
        case "failed" | "deleted":
            return NOTHING
        case "completed":
            pass
    verified, seen = _verified(state), command.seen
    rest = _without(seen, verified.version_id)
    there = seen.has(verified.version_id)
    deleted = FileDeleted(
        version_id=verified.version_id, recoverable=there, reason=command.reason, by=command.actor
    )  # fmt: skip
    return replace(
        rest,
        public=_tag(state, seen, False),
        mark=there and not seen.is_hidden(verified.version_id),
        drafts=(Draft(deleted, causation=command.causation, actor=command.actor),),
    )


def _restore(state: File, command: Restore) -> Decision:
    if state.phase == "completed":
        return NOTHING
    if state.phase != "deleted":
        raise PermanentError("notDeleted", f"the file is {state.phase}: there is nothing to restore")
    verified, seen = state.verified, command.seen
    if verified is None or state.removal == "infected" or not seen.has(verified.version_id):
        raise PermanentError("unrecoverable", "its bytes are gone for good")
    rest = _without(seen, verified.version_id)
    markers = tuple(each.version_id for each in seen.newer_than(verified.version_id) if each.is_marker)
    restored = FileRestored(version_id=verified.version_id, by=command.actor)
    drafts = (Draft(restored, causation=command.causation, actor=command.actor),)
    # Under a marker nobody may know how it is tagged.
    public = (verified.version_id, True) if state.is_open(state.scan) else None
    return replace(rest, unmark=markers, public=public, drafts=drafts)


def _update(state: File, command: Update) -> Decision:
    if state.phase in ("failed", "deleted"):
        raise PermanentError("ended", f"the file is {state.phase}: it cannot be changed")
    changes = FileUpdated(
        original_name=_if_new(command.original_name, state.original_name),
        file_name=_if_new(command.file_name, state.file_name),
        is_public=None if command.is_public in (None, state.is_public) else command.is_public,
        tags=None if command.tags in (None, state.tags) else list(command.tags or ()),
    )
    if not changes.to_wire():
        return NOTHING
    if changes.is_public and state.verified is not None and not state.verified.recognised:
        why = f"its bytes were not recognised as {state.verified.content_type}: it cannot be public"
        raise PermanentError("notRecognised", why)
    public: tuple[str, bool] | None = None
    if changes.is_public is not None and state.verified is not None:
        public = (state.verified.version_id, changes.is_public and state.may_go_out(state.scan))
    return Decision(
        public=public,
        drafts=(Draft(changes, causation=command.causation, actor=command.actor),),
    )


def _if_new(wanted: str | None, now: str) -> str | None:
    return None if wanted in (None, now) else wanted


def _verified(state: File) -> Verified:
    assert state.verified is not None  # noqa: S101 - a completed file has one, by `evolve`
    return state.verified
