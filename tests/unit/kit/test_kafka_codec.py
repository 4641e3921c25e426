"""Envelopes to records and back, and a reason for everything that is not one."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from contracts.email.commands import CancelEmail
from contracts.email.events import EmailCancelled
from contracts.envelope import CommandEnvelope, Envelope
from contracts.topics import COMMANDS_URGENT
from services.kit.errors import PermanentError
from services.kit.kafka.codec import decode, decode_command, encode
from services.kit.kafka.publisher import Outgoing
from services.kit.kafka.records import Record

MESSAGE = "0198c0de-0000-7000-8000-000000000001"
NOW = datetime(2026, 11, 24, 10, 25, 0, 123456, tzinfo=UTC)


def event(**changes: Any) -> Envelope:
    fields: dict[str, Any] = {
        "id": "e1",
        "source": "mailroom/email",
        "type": "email.cancelled",
        "subject": MESSAGE,
        "time": NOW,
        "correlationid": "c1",
        "streamversion": 3,
        "data": EmailCancelled(reason="no longer needed"),
    }
    return Envelope(**{**fields, **changes})


def record(value: bytes | None, key: bytes | None = MESSAGE.encode()) -> Record:
    return Record("email.events", 0, 0, 0, key, value)


def back(outgoing: Outgoing) -> Record:
    return Record(outgoing.topic, 0, 0, 0, outgoing.key, outgoing.value, outgoing.headers)


def wire(**changes: Any) -> bytes:
    return json.dumps({**json.loads(event().to_bytes()), **changes}).encode()


def test_an_event_comes_back_as_it_was() -> None:
    outgoing = encode(event())
    assert outgoing.topic == "email.events"
    assert outgoing.key == MESSAGE.encode()
    assert outgoing.headers == (("content-type", b"application/cloudevents+json"),)
    assert decode(back(outgoing)) == event()


def test_the_trace_is_a_header_too() -> None:
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    assert encode(event(traceparent=parent)).headers[1] == ("traceparent", parent.encode())


def test_a_command_goes_where_it_is_told() -> None:
    command = CommandEnvelope(
        id="c1", source="crm", type="email.cancel", subject=MESSAGE, data=CancelEmail(message_id=MESSAGE)
    )
    outgoing = encode(command, COMMANDS_URGENT)
    assert outgoing.topic == "email.commands.urgent"
    assert decode_command(back(outgoing)) == command
    with pytest.raises(ValueError, match="which topic"):
        encode(command)


def test_an_unknown_type_is_kept_with_its_data() -> None:
    found = decode(record(wire(type="email.forwarded", data={"to": "x", "deep": {"er": [1, 2]}})))
    assert found.type == "email.forwarded"
    assert found.data.model_dump() == {"to": "x", "deep": {"er": [1, 2]}}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "nullValue"),
        (b"", "notJson"),
        (b"{", "notJson"),
        (b"\xff\xfe", "notJson"),
        (b"[]", "notAnObject"),
        (b'"text"', "notAnObject"),
        (b"[" * 100_000, "tooDeep"),
        (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, "tooDeep"),
        (b"{}", "invalid"),
        (wire(data=None), "invalid"),
        (wire(id=""), "invalid"),
        (wire(time="yesterday"), "invalid"),
        (wire(dataversion=99), "unknownVersion"),
        (wire(dataversion="1"), "unknownVersion"),
        (wire(specversion="0.3"), "invalid"),
    ],
)
def test_what_is_no_event_says_why(value: bytes | None, reason: str) -> None:
    with pytest.raises(PermanentError) as raised:
        decode(record(value))
    assert raised.value.reason == reason


@pytest.mark.parametrize("key", [None, b"", b"another", MESSAGE.upper().encode()])
def test_the_key_is_the_subject(key: bytes | None) -> None:
    with pytest.raises(PermanentError) as raised:
        decode(record(wire(), key))
    assert raised.value.reason == "wrongKey"


def test_an_unknown_command_is_an_error() -> None:
    with pytest.raises(PermanentError) as raised:
        decode_command(record(wire(type="email.forward")))
    assert raised.value.reason == "unknownType"


def test_the_reason_does_not_repeat_what_was_sent() -> None:
    with pytest.raises(PermanentError) as raised:
        decode(record(wire(data={"reason": {"secret": "anna@example.com"}})))
    assert "anna" not in str(raised.value)
