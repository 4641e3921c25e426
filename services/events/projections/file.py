"""File: one file and what became of it, as `contracts.views.File` describes. Rules: contracts.md §3.

The status comes from decisions alone: the last of them, in the order of the stream, says where the file is. Facts tell
what nobody decides: which storage class the verified version lies in, and how many links were given out. Everything
shown is a function of the set of known events, never of which came last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, ClassVar, Final

from contracts.registry import read_json
from contracts.topics import FILES_EVENTS
from contracts.views import File, FileStatus
from services.events.projections.known import NO_OVERFLOW, Counted, Engagement, KnownEvent, Overflow, effective

NAME: Final = "file"
VERSION: Final = 1
TOPIC: Final = FILES_EVENTS.name
Document = File

UNIQUE: Final[tuple[tuple[tuple[str, int], ...], ...]] = ((("key", 1),),)
"""No two files lie under one key. Documents that show nothing yet have no key, and are outside."""

INDEXES: Final[tuple[tuple[tuple[str, int], ...], ...]] = (
    (("userId", 1), ("category", 1), ("status", 1), ("createdAt", -1)),
    (("status", 1), ("createdAt", -1)),
    (("metadata.tags", 1), ("createdAt", -1)),
    (("clientId", 1), ("createdAt", -1)),
)
"""Each ends with createdAt, the order of lists: a user's files, or a tag's, are never sorted whole for one page."""

Body = dict[str, Any]
"""A document as MongoDB stores it, times as aware datetimes."""

_DOWNLOAD: Final = "file.downloadIssued"
_MOVED: Final = "file.objectMoved"
"""The fact that tells of another storage class."""


def _counted(event: KnownEvent) -> Counted:
    return Counted(until=event.data["expiresAt"])


ENGAGEMENT: Final = Engagement(frozenset({_DOWNLOAD}), _counted)
"""Links given out; of those outside the document the latest expiry is kept beside their number and times."""


def fold(events: Iterable[KnownEvent], overflow: Overflow = NO_OVERFLOW) -> Body | None:
    """The document of a set of events, one per id; None while no `file.uploadRequested` is known.

    `updatedAt` is the time of the last decision: neither a download nor what S3 tells changes it.

    Args:
        events: in any order; types that are not of files are ignored.
        overflow: the links given out that lie outside the document.
    """
    ordered = effective(events)
    request = next((event for event in ordered if event.type == "file.uploadRequested"), None)
    if request is None:
        return None
    known, access = _Known(request), _Access()
    moved: list[Body] = []
    for event in ordered:
        if event.type == _DOWNLOAD:
            access.take(1, event.time, event.data["expiresAt"])
        elif event.type == _MOVED:
            moved.append(event.data)
        else:
            known.take(event)
    for tally in overflow:
        access.take(tally.facts, tally.last, tally.until)
    return known.body(_storage_class(moved, known.uploaded), access.body())


class _Known:
    """What the decisions say, taken in their order."""

    __slots__ = (
        "_at", "_changed", "_failure", "_kept_until", "_recoverable", "_request", "_scans", "_status", "_uploaded",
    )  # fmt: skip

    def __init__(self, request: KnownEvent) -> None:
        self._request = request
        self._at = request.time
        self._status: FileStatus = "uploading"
        self._uploaded: Body = {}
        self._failure: Body | None = None
        self._recoverable = False
        self._kept_until: str | None = request.data.get("keptUntil")
        self._changed: Body = {}
        self._scans: dict[str, str] = {}

    @property
    def uploaded(self) -> Body:
        """What was verified; empty while nothing was."""
        return self._uploaded

    def take(self, event: KnownEvent) -> None:
        """Take the next event, if it is a decision."""
        take = self._TAKE.get(event.type)
        if take is not None:
            self._at = max(self._at, event.time)
            take(self, event)

    def body(self, storage_class: str | None, access: Body) -> Body:
        """All of them together."""
        said, uploaded, changed = self._request.data, self._uploaded, self._changed
        body: Body = {"fileId": read_json(self._request.raw)["subject"], "key": said["key"]}
        for name in ("fileName", "originalName"):
            body[name] = changed.get(name, said[name])
        body["contentType"] = uploaded.get("contentType", said["contentType"])
        for name in ("size", "contentEncoding", "originalSize"):
            if name in uploaded:
                body[name] = uploaded[name]
        body["category"] = said["category"]
        body["status"] = self._status
        body["scanStatus"] = self._scans.get(uploaded.get("versionId", ""), "pending")
        body["isPublic"] = changed.get("isPublic", said["isPublic"]) and uploaded.get("recognised") is not False
        body["userId"] = said["userId"]
        if "clientId" in said:
            body["clientId"] = said["clientId"]
        body["metadata"] = self._metadata()
        places = (
            ("bucket", said["bucket"]),
            ("region", said["region"]),
            ("etag", uploaded.get("etag")),
            ("versionId", uploaded.get("versionId")),
            ("storageClass", storage_class),
        )
        body["s3Info"] = {name: value for name, value in places if value is not None}
        body["access"] = access
        if self._status == "deleted":
            body["recoverable"] = self._recoverable
        if self._kept_until is not None:
            body["keptUntil"] = instant(self._kept_until)
        if self._failure is not None and self._status == "failed":
            body["failure"] = self._failure
        body["createdAt"] = instant(self._request.time)
        body["updatedAt"] = instant(self._at)
        return body

    def _metadata(self) -> Body:
        said = self._request.data["metadata"]
        metadata = {name: said[name] for name in ("uploadedBy", "ipAddress", "userAgent") if name in said}
        checksum = self._uploaded.get("checksum", said.get("checksum"))
        if checksum is not None:
            metadata["checksum"] = checksum
        metadata["tags"] = list(self._changed.get("tags", said.get("tags", ())))
        return metadata

    def _was_requested(self, _event: KnownEvent) -> None:
        """The first request counts; it was taken already."""

    def _was_uploaded(self, event: KnownEvent) -> None:
        self._status, self._uploaded = "completed", event.data

    def _has_failed(self, event: KnownEvent) -> None:
        self._status = "failed"
        self._failure = {name: event.data[name] for name in ("reason", "detail") if name in event.data}

    def _was_deleted(self, event: KnownEvent) -> None:
        self._status, self._recoverable = "deleted", event.data["recoverable"]

    def _was_restored(self, event: KnownEvent) -> None:
        self._status = "completed"
        if self._kept_until is not None and instant(event.time) >= instant(self._kept_until):
            self._kept_until = None  # whoever brings it back after its end wants it

    def _was_updated(self, event: KnownEvent) -> None:
        names = ("fileName", "originalName", "isPublic", "tags")
        self._changed |= {name: event.data[name] for name in names if name in event.data}

    def _was_scanned(self, event: KnownEvent) -> None:
        self._scans[event.data["versionId"]] = event.data["result"]

    _TAKE: ClassVar[dict[str, Callable[[_Known, KnownEvent], None]]] = {
        "file.uploadRequested": _was_requested,
        "file.uploaded": _was_uploaded,
        "file.uploadFailed": _has_failed,
        "file.deleted": _was_deleted,
        "file.restored": _was_restored,
        "file.updated": _was_updated,
        "file.scanSettled": _was_scanned,
    }


class _Access:
    """Links given out: how many, when the last one was, and until when any of them is good."""

    __slots__ = ("_count", "_last", "_until")

    def __init__(self) -> None:
        self._count, self._last, self._until = 0, "", ""

    def take(self, links: int, last: str, until: str) -> None:
        """Take some links, in any order."""
        self._count += links
        self._last, self._until = max(self._last, last), max(self._until, until)

    def body(self) -> Body:
        """The entry `access`."""
        body: Body = {"downloadCount": self._count}
        if self._last:
            body["lastAccessed"] = instant(self._last)
        if self._until:
            body["expiresAt"] = instant(self._until)
        return body


def _storage_class(moved: Iterable[Body], uploaded: Body) -> str | None:
    """Where the verified version lies: where it was verified, or where it went last."""
    version_id = uploaded.get("versionId")
    told: list[str] = [
        each["storageClass"] for each in moved if "storageClass" in each and each.get("versionId") == version_id
    ]
    if version_id is None:
        return None
    return told[-1] if told else uploaded.get("storageClass")


instant: Callable[[str], datetime] = datetime.fromisoformat
"""The aware time of an event's canonical time."""
