"""The judge of files: what the service says it did, held against what lies in S3 and against what was sent.

Pure, as `judge.py` is: it takes evidence (see `files_evidence.py`), returns every contradiction as a sentence, and
reads decisions by itself. The invariant: a completed File has that very version of that size, type and checksum; each
object of ours has a File; no upload is lost and none falsely completed.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from deploy.local.demo.files import FileCase
from services.events.projections.projection import FILE
from tests.e2e.judge import (
    Entry,
    Json,
    Observed,
    events_of,
    nothing_is_left,
    read_model_is_the_fold,
    streams_are_published,
)

STATUS_AFTER = {
    "file.uploadRequested": "uploading",
    "file.uploaded": "completed",
    "file.uploadFailed": "failed",
    "file.deleted": "deleted",
    "file.restored": "completed",
}


@dataclass(frozen=True, slots=True)
class Stored:
    """One version of an object, or a delete marker, as S3 itself shows it. `size` and what follows: not of markers."""

    key: str
    version_id: str
    is_latest: bool
    is_marker: bool = False
    size: int = 0
    content_type: str = ""
    sha256: str = ""
    file_id: str | None = None
    is_public: bool = False


@dataclass(frozen=True, slots=True)
class FilesEvidence(Observed):
    """Of files: their events on `files.events`, and the streams of everything that the run's users have.

    Attributes:
        stored: what came to lie in the bucket since the run began, all of it.
        keys: file id → key, of every file that has something there.
        open_uploads: keys of uploads in parts that were neither completed nor given up.
    """

    stored: Sequence[Stored] = ()
    keys: Mapping[str, str] = field(default_factory=dict)
    open_uploads: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class FilesExpected:
    """What was asked of the system.

    Attributes:
        files: file id → what was sent and what it must come to, of every upload that was acknowledged.
        parked: records that must be parked, as in `Evidence.parked`, in any order.
        strangers: keys without a file that must be reported: each is parked as an orphan, and still lies there.
    """

    files: Mapping[str, FileCase]
    parked: Sequence[str] = ()
    strangers: frozenset[str] = frozenset()


@dataclass(slots=True)
class Told:
    """What the decisions on the log say of one file."""

    key: str = ""
    status: str = "nothing"
    verified: Json = field(default_factory=dict)
    times: int = 0
    is_public: bool = False
    recoverable: bool = False


def told(log: Iterable[Entry]) -> dict[str, Told]:
    """By file id: the decisions of each stream, one per version, in their order."""
    decisions: dict[str, dict[int, Json]] = defaultdict(dict)
    for event in events_of(log):
        if event.get("streamversion") is not None:
            decisions[event["subject"]][event["streamversion"]] = event
    return {name: _told(found[n] for n in sorted(found)) for name, found in decisions.items()}


def _told(decisions: Iterable[Json]) -> Told:
    found = Told()
    for event in decisions:
        kind, data = event["type"], event["data"]
        found.status = STATUS_AFTER.get(kind, found.status)
        found.is_public = data.get("isPublic", found.is_public)
        if kind == "file.uploadRequested":
            found.key = data["key"]
        elif kind == "file.uploaded":
            found.verified = data
            found.times += 1
        elif kind == "file.deleted":
            found.recoverable = data["recoverable"]
    return found


def problems(evidence: FilesEvidence, expected: FilesExpected) -> list[str]:
    """Every contradiction, [] if there is none."""
    found, by_key = told(evidence.log), defaultdict[str, list[Stored]](list)
    for each in evidence.stored:
        by_key[each.key].append(each)
    return [
        *(f"{name}: exists, and nobody knows of it" for name in evidence.streams if name not in expected.files),
        *(
            why
            for file_id, case in expected.files.items()
            for why in _of_one(file_id, case, found.get(file_id), by_key, evidence.documents.get(file_id))
        ),
        *_every_object_has_a_file(evidence, expected),
        *read_model_is_the_fold(FILE, evidence.log, evidence.documents, evidence.rows),
        *streams_are_published(evidence.log, evidence.streams),
        *nothing_is_left(evidence, expected.parked),
    ]


def _of_one(
    file_id: str, case: FileCase, said: Told | None, by_key: Mapping[str, Sequence[Stored]], document: Json | None
) -> Iterable[str]:
    if said is None:
        yield f"{file_id}: was acknowledged and is not on the log"
        return
    if said.status != case.status:
        yield f"{file_id}: ({case.name}) ends {said.status}, not {case.status}"
        return
    if document is not None and document.get("status") != case.status:
        yield f"{file_id}: is {case.status} and shown as {document.get('status')}"
    if said.times > 1:
        yield f"{file_id}: was verified {said.times} times"
    stack = by_key.get(said.key, ())
    versions = [each for each in stack if not each.is_marker]
    if case.status == "failed":
        yield from (f"{file_id}: has failed, and {each.version_id} lies under its key" for each in versions)
        return
    verified = said.verified.get("versionId")
    yield from (f"{file_id}: {each.version_id} is foreign" for each in versions if each.version_id != verified)
    own = next((each for each in versions if each.version_id == verified), None)
    if own is None:
        yield f"{file_id}: is {case.status}, and its version {verified} is not in S3"
        return
    yield from _is_what_was_sent(file_id, case, said, own)
    if case.status == "completed" and not own.is_latest:
        yield f"{file_id}: is completed, and something lies on top of its version"
    if case.status == "deleted" and not (said.recoverable and any(each.is_marker and each.is_latest for each in stack)):
        yield f"{file_id}: is deleted, and no marker hides its version"
    if own.is_public != (case.is_public and case.status == "completed"):
        yield f"{file_id}: its version can{'' if own.is_public else 'not'} be read by anybody"


def _is_what_was_sent(file_id: str, case: FileCase, said: Told, own: Stored) -> Iterable[str]:
    sent = {"size": len(case.data), "contentType": case.content_type}
    lies = {"size": own.size, "contentType": own.content_type}
    if lies != sent or own.sha256 != hashlib.sha256(case.data).hexdigest():
        yield f"{file_id}: what lies in S3 is not what was sent"
    if {name: said.verified.get(name) for name in sent} != sent:
        yield f"{file_id}: was verified with another size or type than was sent"
    if own.file_id != file_id:
        yield f"{file_id}: its version says that it belongs to {own.file_id}"


def _every_object_has_a_file(evidence: FilesEvidence, expected: FilesExpected) -> Iterable[str]:
    known = set(evidence.keys.values())
    lying = {each.key for each in evidence.stored}
    yield from (f"{key}: no file has it" for key in lying - known - expected.strangers)
    yield from (f"{key}: is nobody's, and was touched" for key in expected.strangers - lying)
    yield from (f"{key}: an upload in parts is left open" for key in evidence.open_uploads)
