"""Records of files as they must never be, one of each kind for each topic and the queue, and what becomes of each."""

from __future__ import annotations

import json
import uuid
from typing import Any

from contracts.files.values import FileCategory
from contracts.ids import uuid7
from contracts.topics import FILES_COMMANDS, FILES_EVENTS, FILES_NOTIFICATIONS
from tests.e2e.poison import DEEP, NEAR_LIMIT, STRANGE_HEADERS, Headers, Poison

AT = "2026-11-24T10:25:00.123456Z"


def of_commands(file_id: str) -> list[Poison]:
    """For `files.commands`. `file_id`: a completed file of a category without public files; it stays as it is."""
    topic = FILES_COMMANDS.name

    def bad(kind: str, reason: str, value: bytes | None, key: str | None) -> Poison:
        raw = None if key is None else key.encode()
        return Poison(kind, topic, raw, value, (), (("files", reason),))

    def command(kind: str = "file.delete", /, subject: str = file_id, actor: str | None = None, **data: Any) -> bytes:
        wire = {"specversion": "1.0", "id": uuid7(), "source": "/poison", "type": kind, "subject": subject}
        return json.dumps({**wire, "actor": actor, "data": {"fileId": file_id, **data}}).encode()

    def update(**data: Any) -> bytes:
        return command("file.update", **data)

    stranger = uuid7()
    newer = json.dumps({**json.loads(command()), "dataversion": 9}).encode()
    return [
        bad("not JSON", "notJson", b"{not JSON", uuid7()),
        bad("null value", "nullValue", None, uuid7()),
        bad("not an object", "notAnObject", b"[1, 2]", uuid7()),
        bad("deep nesting", "tooDeep", DEEP, uuid7()),
        bad("null key", "wrongKey", command(), None),
        bad("another's key", "wrongKey", command(), uuid7()),
        bad("unknown type", "unknownType", command("file.explode"), file_id),
        bad("unknown version", "unknownVersion", newer, file_id),
        bad("no id of a file", "invalid", command(fileId="none"), file_id),
        bad("unknown field", "invalid", command(surprise=1), file_id),
        bad("near-limit size", "invalid", update(name="x" * NEAR_LIMIT), file_id),
        bad("changes nothing", "invalid", update(), file_id),
        bad("a mail's command", "wrongSubject", _cancel(file_id), file_id),
        bad("another subject", "wrongSubject", command(subject=stranger), stranger),
        bad("a file that nobody has", "notFound", command(subject=stranger, fileId=stranger), stranger),
        bad("another's file", "notFound", command(actor="user:somebody-else"), file_id),
        bad("a program's name", "invalid", update(name="a.exe"), file_id),
        bad("public where none is", "invalid", update(isPublic=True), file_id),
    ]


def _cancel(message_id: str) -> bytes:
    wire = {"specversion": "1.0", "id": uuid7(), "source": "/poison", "type": "email.cancel", "subject": message_id}
    return json.dumps({**wire, "data": {"messageId": message_id}}).encode()


def record(bucket: str, key: str, **more: Any) -> dict[str, Any]:
    """One of S3's `Records`."""
    s3 = {"bucket": {"name": bucket}, "object": {"key": key, "size": 1, "versionId": "v", "sequencer": "0A"}}
    return {"eventName": "ObjectCreated:Put", "eventTime": AT, "s3": s3, **more}


def key_of(file_id: str, category: FileCategory = "document") -> str:
    """A key as Mailroom gives it out."""
    return f"{category}/2026/11/{file_id}/Zm9vYmFyMQ"


def of_notifications(bucket: str) -> list[Poison]:
    """For raw notifications: whose key says nothing, and whose headers are only looked at."""
    topic = FILES_NOTIFICATIONS.name

    def bad(kind: str, reason: str | None, value: Any, headers: Headers = ()) -> Poison:
        key = None if kind == "null key" else str(uuid.uuid4()).encode()
        raw = value if value is None or isinstance(value, bytes) else json.dumps(value).encode()
        return Poison(kind, topic, key, raw, headers, (("files", reason),) if reason else ())

    ours = key_of(uuid7())
    return [
        bad("not JSON", "notJson", b"{not JSON"),
        bad("null value", "nullValue", None),
        bad("not an object", "notAnObject", []),
        bad("null and non-UTF-8 headers", "notJson", b"{not JSON", STRANGE_HEADERS),
        bad("null key", "notJson", b"{not JSON"),
        bad("deep nesting", "notJson", DEEP),
        bad("near-limit size", "notJson", b"x" * NEAR_LIMIT),
        bad("near-limit key of an object", "orphan", record(bucket, "x" * NEAR_LIMIT)),
        bad("unknown key", "orphan", record(bucket, "somebody/elses.pdf")),
        bad("a key that is almost ours", "orphan", record(bucket, f"{ours}/more")),
        bad("wrong bucket", "wrongBucket", record("another-bucket", ours)),
        bad("no time", "badTime", record(bucket, ours, eventTime=None)),
        bad("no object", "malformed", record(bucket, ours, s3={"bucket": {"name": bucket}})),
        bad("no notification at all", "malformed", {"hello": "world"}),
        bad("unknown type", None, record(bucket, ours, eventName="ObjectTeleported:Put")),
        bad("a file that nobody has", None, record(bucket, ours)),
    ]


def of_events() -> list[Poison]:
    """For the log: what its readers, the settler, the mail side's fold and the projector, must each set aside."""
    topic = FILES_EVENTS.name

    def event(kind: str = "file.updated", **more: Any) -> tuple[str, bytes]:
        file_id = str(uuid.uuid4())
        place = {"streamversion": 2} if kind == "file.updated" else {"revision": 1}
        wire = {
            "specversion": "1.0", "id": str(uuid.uuid4()), "source": "/poison", "type": kind, "subject": file_id,
            "time": AT, "correlationid": file_id, "data": {"tags": ["poison"]}, **place,
        }  # fmt: skip
        return file_id, json.dumps({**wire, **more}).encode()

    def bad(kind: str, key: str | None, value: bytes | None, **reasons: str) -> Poison:
        return Poison(kind, topic, None if key is None else key.encode(), value, (), tuple(reasons.items()))

    def kept(kind: str, found: tuple[str, bytes], headers: Headers = ()) -> Poison:
        return Poison(kind, topic, found[0].encode(), found[1], headers)

    created = {"bucket": "b", "key": "k", "eventName": "ObjectCreated:Put"}
    newer, wrong = event(dataversion=9), event("file.objectCreated", data={**created, "size": "large"})
    return [
        bad("not JSON", uuid7(), b"{not JSON", files="notJson", email="notJson", events="notJson"),
        bad("null value", uuid7(), None, files="nullValue", email="nullValue", events="nullValue"),
        bad("deep nesting", uuid7(), DEEP, files="tooDeep", email="notJson", events="notJson"),
        bad("null key", None, event()[1], files="wrongKey", email="wrongKey", events="nullKey"),
        bad("another's key", uuid7(), event()[1], files="wrongKey", email="wrongKey", events="keyMismatch"),
        bad("unknown version", *newer, files="unknownVersion", email="unknownVersion", events="unknownVersion"),
        bad("a fact that says nonsense", *wrong, files="invalid", events="invalid"),
        kept("null and non-UTF-8 headers", event(), STRANGE_HEADERS),
        kept("unknown type", event("file.teleported")),
        kept("near-limit size", event("file.teleported", data={"padding": "x" * NEAR_LIMIT})),
        kept("a fact about a file that nobody has", event("file.objectCreated", data=created)),
    ]


def on_the_queue(bucket: str) -> list[tuple[str, list[str]]]:
    """Bodies of SQS messages, with the reasons for which what was made of each is parked."""
    ours = key_of(uuid7())
    several = [record(bucket, ours), record("another-bucket", ours), 7, record(bucket, "%2Fetc%2Fpasswd")]
    detail = {"bucket": {"name": bucket}, "object": {"key": ours}}
    event = {"source": "aws.s3", "detail-type": "Object Created", "id": uuid7(), "time": AT, "detail": detail}
    return [
        ("{not JSON", ["notJson"]),
        (DEEP.decode(), ["notJson"]),
        ('{"MessageId": "\\ud800"}', ["notJson"]),
        ("[]", ["notAnObject"]),
        (json.dumps({"hello": "world"}), ["malformed"]),
        (json.dumps({"Event": "s3:TestEvent", "Bucket": bucket}), []),
        (json.dumps({"Records": []}), []),
        (json.dumps({"Records": several}), ["wrongBucket", "notAnObject", "orphan"]),
        (json.dumps({"Type": "Notification", "MessageId": "m", "Message": "{not JSON"}), ["malformed"]),
        (json.dumps({"Type": "SubscriptionConfirmation", "MessageId": "m", "Message": "Confirm."}), []),
        (json.dumps(event), []),
        (json.dumps({"Records": [record(bucket, "x" * 200_000)]}), ["orphan"]),
    ]
