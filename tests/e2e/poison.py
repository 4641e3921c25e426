"""Records as they must never be, one of each kind for each topic, and what must become of each."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaProducer

from contracts.ids import uuid7
from contracts.topics import EMAIL_EVENTS, EMAIL_NOTIFICATIONS, FILES_EVENTS, LANES, RECIPIENTS_EVENTS
from services.kit.parking import ParkedRecord
from tests.e2e.evidence import Observer
from tests.e2e.traffic import Traffic, command

Headers = tuple[tuple[str, bytes | None], ...]

STRANGE_HEADERS: Headers = (("content-type", None), ("traceparent", b"\xff\xfe"), ("x", b"\x00"), ("", b""))
DEEP = b'{"type":"email.send","data":' + b"[" * 20_000 + b"]" * 20_000 + b"}"
NEAR_LIMIT = 1_000_000
"""Bytes: with headers and batch, what Kafka takes by default is 1,048,588."""


@dataclass(frozen=True, slots=True)
class Poison:
    """One record.

    Attributes:
        kind: what is wrong with it.
        parked: reasons by service, as in `Evidence.parked` but for the topic; none = it is kept, or ignored.
    """

    kind: str
    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    parked: tuple[tuple[str, str], ...] = ()

    @property
    def expected(self) -> list[str]:
        """What must lie in the parking lots for it."""
        return [f"{service} {self.topic} {reason}" for service, reason in self.parked]


def of_commands(lane: str, load: Traffic) -> list[Poison]:
    """For one lane. Those that are only strange, and no worse, are owed by `load` from now on."""
    topic = LANES[lane].name

    def mail(**more: Any) -> dict[str, Any]:
        return {"messageId": uuid7(), "userId": "poison", **load.mail(priority=lane, recipients=1), **more}

    def bad(kind: str, reason: str, value: bytes | None, key: str | None = "") -> Poison:
        return Poison(
            kind, topic, (key or uuid7()).encode() if key is not None else None, value, (), (("email", reason),)
        )

    def owed(kind: str, data: dict[str, Any], headers: Headers = ()) -> Poison:
        load.requested[data["messageId"]] = frozenset(data["to"])
        return Poison(kind, topic, data["messageId"].encode(), command(data["messageId"], data), headers)

    def in_binary_mode(data: dict[str, Any], **attributes: str) -> tuple[bytes, Headers]:
        found = {"specversion": "1.0", "id": uuid7(), "source": "/crm/sdk", "type": "email.send", **attributes}
        found["subject"] = data["messageId"]
        headers = tuple((f"ce_{name}", value.encode()) for name, value in found.items())
        return json.dumps(data).encode(), (*headers, ("content-type", b"application/json"))

    keyless, strange, newer, binary, odd = mail(), mail(), mail(), mail(), mail()
    load.requested[binary["messageId"]] = frozenset(binary["to"])
    return [
        Poison("binary mode", topic, binary["messageId"].encode(), *in_binary_mode(binary)),
        Poison(
            "unknown type in binary mode",
            topic,
            odd["messageId"].encode(),
            *in_binary_mode(odd, type="email.explode"),
            (("email", "unknownType"),),
        ),
        bad("not JSON", "notJson", b"{not JSON"),
        bad("null value", "nullValue", None),
        bad("not an object", "notAnObject", b"[1, 2]"),
        owed("null and non-UTF-8 headers", mail(), STRANGE_HEADERS),
        bad("null key", "wrongKey", command(keyless["messageId"], keyless), None),
        bad("unknown type", "unknownType", command(strange["messageId"], strange, type="email.explode")),
        bad("unknown version", "unknownVersion", command(newer["messageId"], newer, dataversion=9), newer["messageId"]),
        owed("near-limit size", mail(text="x" * NEAR_LIMIT)),
        bad("deep nesting", "tooDeep", DEEP),
        bad("another's key", "wrongKey", command(keyless["messageId"], keyless), uuid7()),
    ]


def of_notifications() -> list[Poison]:
    """For raw notifications: whose key says nothing, and whose headers are only looked at."""
    topic = EMAIL_NOTIFICATIONS.name

    def bad(kind: str, reason: str | None, value: bytes | None, headers: Headers = ()) -> Poison:
        key = None if kind == "null key" else str(uuid.uuid4()).encode()
        return Poison(kind, topic, key, value, headers, (("email", reason),) if reason else ())

    mail = {"messageId": "strange-1", "destination": ["a@example.com"], "tags": {}}
    return [
        bad("not JSON", "notJson", b"{not JSON"),
        bad("null value", "nullValue", None),
        bad("null and non-UTF-8 headers", "notJson", b"{not JSON", STRANGE_HEADERS),
        bad("null key", "notJson", b"{not JSON"),
        bad("unknown type", "uncorrelated", json.dumps({"eventType": "Teleported", "mail": mail}).encode()),
        bad("near-limit size", "notJson", b"x" * NEAR_LIMIT),
        bad("deep nesting", "notJson", DEEP),
        bad("unknown source", "unknownSource", b"{}", (("source", b"pigeon"),)),
    ]


def of_events() -> list[Poison]:
    """For the log: what its two readers, the settler and the projector, must each set aside."""
    topic = EMAIL_EVENTS.name

    def event(kind: str = "email.delivered", **more: Any) -> tuple[str, bytes]:
        message_id = str(uuid.uuid4())
        wire = {
            "specversion": "1.0",
            "id": str(uuid.uuid4()),
            "source": "/poison",
            "type": kind,
            "subject": message_id,
            "time": "2026-11-24T10:25:00.123456Z",
            "correlationid": message_id,
            "revision": 1,
            "data": {"recipient": "poison@inbox.example", "provider": "ses"},
        }
        return message_id, json.dumps({**wire, **more}).encode()

    def bad(kind: str, email: str, events: str, key: str | None, value: bytes | None) -> Poison:
        raw = None if key is None else key.encode()
        return Poison(kind, topic, raw, value, (), (("email", email), ("events", events)))

    def kept(kind: str, found: tuple[str, bytes], headers: Headers = ()) -> Poison:
        return Poison(kind, topic, found[0].encode(), found[1], headers)

    newer_key, newer = event(dataversion=9)
    return [
        bad("not JSON", "notJson", "notJson", uuid7(), b"{not JSON"),
        bad("null value", "nullValue", "nullValue", uuid7(), None),
        kept("null and non-UTF-8 headers", event(), STRANGE_HEADERS),
        bad("null key", "wrongKey", "nullKey", None, event()[1]),
        kept("unknown type", event("email.teleported")),
        bad("unknown version", "unknownVersion", "unknownVersion", newer_key, newer),
        kept("near-limit size", event("email.teleported", data={"padding": "x" * NEAR_LIMIT})),
        bad("deep nesting", "notJson", "notJson", uuid7(), DEEP),
        bad("another's key", "wrongKey", "keyMismatch", uuid7(), event()[1]),
    ]


def of_recipients() -> list[Poison]:
    """For the log of recipients, which nobody in here reads."""
    topic = RECIPIENTS_EVENTS.name
    return [
        Poison("not JSON", topic, b"somebody", b"{not JSON"),
        Poison("null value", topic, b"somebody", None),
        Poison("null key", topic, None, b"{}", STRANGE_HEADERS),
        Poison("deep nesting", topic, b"somebody", DEEP),
        Poison("near-limit size", topic, b"somebody", b"x" * NEAR_LIMIT),
    ]


ON_THE_QUEUE = {
    "{not JSON": "notJson",
    DEEP.decode(): "notJson",
    '{"MessageId": "\\ud800"}': "notJson",
    "[]": "notAnObject",
}
"""Bodies of SQS messages: each becomes a raw notification that cannot be read, and is parked for this reason."""


Place = tuple[str, int, int]
"""Topic, partition and offset."""


async def publish(producer: AIOKafkaProducer, records: list[Poison]) -> dict[Place, Poison]:
    """Each in a batch of its own, so that a broken one is alone there. Where each came to lie."""
    found: dict[Place, Poison] = {}
    for record in records:
        batch = producer.create_batch()
        fits = batch.append(key=record.key, value=record.value, timestamp=None, headers=list(record.headers))
        assert fits is not None, f"{record.kind} is too large for Kafka"
        batch.close()
        partitions = sorted(await producer.partitions_for(record.topic))
        partition = partitions[hash(record.key) % len(partitions)]
        sent = await (await producer.send_batch(batch, record.topic, partition=partition))
        found[record.topic, partition, sent.offset] = record
    return found


def not_as_they_came(published: Mapping[Place, Poison], lots: Mapping[str, Sequence[ParkedRecord]]) -> list[str]:
    """What the parking lots, by service, tell otherwise than it was: bytes, key, origin or reason."""
    parked = {(service, each.topic, each.partition, each.offset): each for service, lot in lots.items() for each in lot}
    wrong: list[str] = []
    for place, poison in published.items():
        for service, reason in poison.parked:
            found = parked.get((service, *place))
            if found is None or (found.raw, found.key, found.reason) != (poison.value, poison.key, reason):
                wrong.append(f"{service} {poison.topic} {poison.kind}: {found and found.reason}")
    return wrong


def kept(records: list[Poison]) -> list[str]:
    """Subjects of the log's records that are strange and not bad."""
    logs = (EMAIL_EVENTS.name, FILES_EVENTS.name)
    return [(each.key or b"").decode() for each in records if each.topic in logs and not each.parked]


async def has_kept(observer: Observer, subjects: list[str], projection: str) -> None:
    """An event that is strange, and not bad, is in the read model's documents."""
    name = await observer.read_model(projection)
    found = [each["_id"] async for each in observer.events[name].find({"_id": {"$in": subjects}})]
    assert sorted(found) == sorted(subjects), "an event of a type that nobody knows yet must be kept"
