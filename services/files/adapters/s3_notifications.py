"""Translate notifications of Amazon S3 and GuardDuty's malware scan into facts: pure, strict about what they promise.

Sources: Amazon S3 User Guide, "Event message structure" (the classic form: SQS, SNS), "EventBridge event message
structure" and "Supported event types and destinations"; Amazon GuardDuty User Guide, "Monitoring S3 object scans with
Amazon EventBridge". Both forms of one happening become facts with the same id, as far as both name the same sequencer
or request. A fact's envelope is a function of its notification; no clock, no chance.

A scan that ends in a tag alone shows as an ordinary tagging, which does not say what the tag is: `file.objectTagged`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import unquote_plus

from contracts.base import EventData
from contracts.envelope import Envelope
from contracts.files import events as facts
from contracts.ids import fact_id, millis_text
from contracts.registry import NAMES
from services.files.domain.names import file_of
from services.files.domain.notifications import Translation
from services.files.domain.scans import SCAN_RESULTS, VALIDATION_KEY
from services.files.ports import Json
from services.kit.errors import PermanentError
from services.kit.notifications import is_sns_envelope, parse_time, read_object

REVISION = 1
"""Of this translator. Raise it when the facts made of a notification change: the newer fact then replaces the older."""

SOURCE = "/mailroom/files"
PROVIDER = "s3"

LARGEST: Final = (1 << 63) - 1
"""Of a size: what MongoDB's int64 holds. An object has 5 TB at most."""

DETAIL_CHARACTERS: Final = 500

_SEQUENCER = re.compile(r"[0-9A-Fa-f]{1,64}")


@dataclass(frozen=True, slots=True)
class _Happening:
    """What either form says of what happened to an object. `event_name` is the classic one, without `s3:`."""

    event_name: str
    bucket: str
    key: str
    at: datetime
    version_id: str | None
    sequencer: str | None
    request_id: str | None
    size: int | None
    etag: str | None
    storage_class: str | None


class S3Notifications:
    """The `NotificationFormat` of one bucket's notifications; without a bucket, of any."""

    def __init__(self, bucket: str | None) -> None:
        self._bucket = bucket

    def translate(self, raw: bytes) -> Translation:
        """As the port says. `raw`: one of S3's `Records`, or an EventBridge event."""
        notification = read_object(raw)
        try:
            if "detail-type" in notification:
                return self._of_event(notification)
            if "eventName" in notification:
                return self._of_record(notification)
        except ValueError as error:
            raise PermanentError("malformed", type(error).__name__) from error
        if is_sns_envelope(notification) and notification["Type"] != "Notification":
            return Translation((), f"an SNS {notification['Type']}, not a notification")
        raise _malformed("neither a record of S3 nor an EventBridge event")

    # --- the classic form ---

    def _of_record(self, record: Json) -> Translation:
        name = _needed(record, "eventName").removeprefix("s3:")
        model = _model(name)
        if model is None:
            return _unknown(f"S3 event {name!r}")
        s3, found = _object(record, "s3"), _object(record, "s3", "object")
        return self._fact_of(
            model,
            _Happening(
                name,
                _needed(_object(s3, "bucket"), "name"),
                unquote_plus(_needed(found, "key")),
                parse_time(record.get("eventTime")),
                _text(found, "versionId"),
                _sequencer(found),
                _text(_part(record, "responseElements"), "x-amz-request-id"),
                _size(found),
                _text(found, "eTag"),
                _class_of_record(name, record),
            ),
        )

    # --- EventBridge ---

    def _of_event(self, event: Json) -> Translation:
        source, kind = _needed(event, "source"), _needed(event, "detail-type")
        if (source, kind) == ("aws.guardduty", "GuardDuty Malware Protection Object Scan Result"):
            return self._of_scan(event)
        name = _classic_name(kind, event) if source == "aws.s3" else None
        model = None if name is None else _model(name)
        if name is None or model is None:
            return _unknown(f"EventBridge event {kind!r} of {source}")
        detail, found = _object(event, "detail"), _object(event, "detail", "object")
        return self._fact_of(
            model,
            _Happening(
                name,
                _needed(_object(detail, "bucket"), "name"),
                _needed(found, "key"),
                parse_time(event.get("time")),
                _text(found, "version-id"),
                _sequencer(found),
                _text(detail, "request-id"),
                _size(found),
                _text(found, "etag"),
                _class_of_event(name, detail),
            ),
        )

    def _of_scan(self, event: Json) -> Translation:
        detail = _object(event, "detail")
        what, outcome = _object(detail, "s3ObjectDetails"), _object(detail, "scanResultDetails")
        bucket, key = _needed(what, "bucketName"), _needed(what, "objectKey")
        file_id = self._file(bucket, key)
        if file_id is None:
            return _PROBE
        version, status, at = (
            _needed(what, "versionId"),
            _needed(outcome, "scanResultStatus"),
            parse_time(event.get("time")),
        )
        result = SCAN_RESULTS.get(status)
        if result is None:
            raise _malformed("a scan result that is not known here")
        data = facts.FileScanned(
            bucket=bucket, key=key, version_id=version, result=result, detail=_scan_detail(status, outcome)
        )
        return _translation(file_id, data, _id_of_object(bucket, key, version), at, (result, millis_text(at)))

    # --- both ---

    def _fact_of(self, model: type[facts.ObjectFact], what: _Happening) -> Translation:
        file_id = self._file(what.bucket, what.key)
        if file_id is None:
            return _PROBE
        data = model(
            bucket=what.bucket,
            key=what.key,
            version_id=what.version_id,
            sequencer=what.sequencer,
            size=what.size,
            etag=what.etag,
            storage_class=what.storage_class,
            event_name=what.event_name,
        )
        # Every form that AWS documents has one of the first two. By its time, a happening is at least not taken for
        # another one.
        distinct = what.sequencer or what.request_id or millis_text(what.at)
        return _translation(file_id, data, _id_of_object(what.bucket, what.key, what.version_id), what.at, (distinct,))

    def _file(self, bucket: str, key: str) -> str | None:
        """The file that a key belongs to; None for the object with which GuardDuty tries the bucket."""
        if self._bucket not in (None, bucket):
            raise PermanentError("wrongBucket", f"it is about bucket {bucket}, and files are kept in {self._bucket}")
        if key == VALIDATION_KEY:
            return None
        file_id = file_of(key)
        if file_id is None:
            raise PermanentError("orphan", f"its key, of {len(key)} characters, is none that Mailroom gives out")
        return file_id


# --- what happened -----------------------------------------------------------------------------------------------

_MODELS: Final[dict[str, type[facts.ObjectFact]]] = {
    "ObjectRemoved:Delete": facts.FileObjectRemoved,
    "ObjectRemoved:DeleteMarkerCreated": facts.FileDeleteMarkerCreated,
    "LifecycleExpiration:Delete": facts.FileObjectExpired,
    "LifecycleExpiration:DeleteMarkerCreated": facts.FileObjectExpired,
    "LifecycleTransition": facts.FileObjectMoved,
    "IntelligentTiering": facts.FileObjectMoved,
    "ObjectRestore:Completed": facts.FileObjectMoved,
    "ObjectRestore:Delete": facts.FileObjectMoved,
}
"""Classic event name → fact. `ObjectRestore:Delete`: a restored copy's time is over. Not here, since nothing happened
to the object yet, or nothing that Mailroom keeps: `ObjectRestore:Post` (asked for), `ObjectAcl:Put`, `Replication:*`.
"""

_FAMILIES: Final[dict[str, type[facts.ObjectFact]]] = {
    "ObjectCreated": facts.FileObjectCreated,
    "ObjectTagging": facts.FileObjectTagged,
}
"""Where it does not matter which call did it, one that AWS may add included."""

_EVENTS: Final = {
    "Object Created": "ObjectCreated",
    "Object Tags Added": "ObjectTagging:Put",
    "Object Tags Deleted": "ObjectTagging:Delete",
    "Object Storage Class Changed": "LifecycleTransition",
    "Object Access Tier Changed": "IntelligentTiering",
    "Object Restore Initiated": "ObjectRestore:Post",
    "Object Restore Completed": "ObjectRestore:Completed",
    "Object Restore Expired": "ObjectRestore:Delete",
    "Object ACL Updated": "ObjectAcl:Put",
}
"""EventBridge's detail-type → the classic event name of the same happening. Deletions depend on more."""

_CREATED_BY: Final = {
    "PutObject": "Put",
    "POST Object": "Post",
    "CopyObject": "Copy",
    "CompleteMultipartUpload": "CompleteMultipartUpload",
}
_DELETIONS: Final = {"Permanently Deleted": "Delete", "Delete Marker Created": "DeleteMarkerCreated"}


def _model(name: str) -> type[facts.ObjectFact] | None:
    return _MODELS.get(name) or _FAMILIES.get(name.partition(":")[0])


def _classic_name(kind: str, event: Json) -> str | None:
    """The classic name of an EventBridge event, None for one that is not known here."""
    detail = _part(event, "detail")
    reason = _text(detail, "reason")
    if kind == "Object Deleted":
        action = _DELETIONS.get(_needed(detail, "deletion-type"))
        if action is None:
            raise _malformed("`deletion-type` is not known here")
        return f"{'LifecycleExpiration' if reason == 'Lifecycle Expiration' else 'ObjectRemoved'}:{action}"
    name = _EVENTS.get(kind)
    if name == "ObjectCreated" and reason is not None:
        return f"{name}:{_CREATED_BY.get(reason, reason)}"
    return name


def _class_of_record(name: str, record: Json) -> str | None:
    """Where a move led to: the new class, or the one that a restored copy is of."""
    if name == "LifecycleTransition":
        return _text(_part(record, "lifecycleEventData", "transitionEventData"), "destinationStorageClass")
    if name == "IntelligentTiering":
        return "INTELLIGENT_TIERING"  # tiers lie inside this one class
    return _text(_part(record, "glacierEventData", "restoreEventData"), "lifecycleRestoreStorageClass")


def _class_of_event(name: str, detail: Json) -> str | None:
    if name == "IntelligentTiering":
        return "INTELLIGENT_TIERING"
    return _text(detail, "destination-storage-class" if name == "LifecycleTransition" else "source-storage-class")


def _scan_detail(status: str, outcome: Json) -> str:
    """GuardDuty's own word, with the threats' names or its reasons."""
    threats, reasons = outcome.get("threats"), outcome.get("statusReasons")
    named = [each.get("name") for each in threats if isinstance(each, dict)] if isinstance(threats, list) else []
    said = [each for each in (*named, *(reasons if isinstance(reasons, list) else ())) if isinstance(each, str)]
    return (f"{status}: {', '.join(said)}" if said else status)[:DETAIL_CHARACTERS]


# --- the envelope -------------------------------------------------------------------------------------------------


def _translation(file_id: str, data: EventData, object_id: str, at: datetime, distinct: tuple[str, ...]) -> Translation:
    name = NAMES[type(data)]
    fact = Envelope(
        id=fact_id(PROVIDER, object_id, name, "", *distinct),
        source=SOURCE,
        type=name,
        subject=file_id,
        time=at,
        correlationid=file_id,
        revision=REVISION,
        data=data,
    )
    return Translation((fact,))


def _id_of_object(bucket: str, key: str, version_id: str | None) -> str:
    """Unambiguous: no bucket's name and no key of ours holds a blank."""
    return f"{bucket} {key} {version_id or ''}"


_PROBE: Final = Translation((), "GuardDuty tries whether it may write into the bucket")


def _unknown(what: str) -> Translation:
    return Translation((), f"{what} tells of nothing that Mailroom keeps; kept raw")


# --- reading ------------------------------------------------------------------------------------------------------


def _malformed(detail: str) -> PermanentError:
    return PermanentError("malformed", detail)


def _object(value: Json, *path: str) -> Json:
    """The object that lies there."""
    for name in path:
        value = value.get(name)  # type: ignore[assignment]
        if not isinstance(value, dict):
            raise _malformed(f"`{'.'.join(path)}` is not an object")
    return value


def _part(value: Json, *path: str) -> Json:
    """The object that lies there, an empty one where there is none."""
    found: Any = value
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _text(value: Json, name: str) -> str | None:
    """A text that may be absent; null and "" are absent, too."""
    found = value.get(name)
    if found is not None and not isinstance(found, str):
        raise _malformed(f"`{name}` is not a text")
    return found or None


def _needed(value: Json, name: str) -> str:
    found = _text(value, name)
    if found is None:
        raise _malformed(f"`{name}` is missing")
    return found


def _size(found: Json) -> int | None:
    size = found.get("size")
    if size is None:
        return None
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= LARGEST:
        raise _malformed("`size` is not a number of bytes")
    return size


def _sequencer(found: Json) -> str | None:
    """In the one spelling whose order as text is the order as a number. Zero orders nothing, so it counts as absent."""
    sequencer = _text(found, "sequencer")
    if sequencer is None:
        return None
    if not _SEQUENCER.fullmatch(sequencer):
        raise _malformed("`sequencer` is not a hexadecimal number")
    number = int(sequencer, 16)
    return format(number, "032x") if number else None
