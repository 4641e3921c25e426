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
from services.kit.kafka.binding import source_of
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


# --- binary mode ---

DATA = json.dumps({"messageId": MESSAGE, "reason": "a % sign"}).encode()
ATTRIBUTES: dict[str, bytes | None] = {
    "ce_specversion": b"1.0",
    "ce_id": b"c1",
    "ce_source": b"/crm/billing",
    "ce_type": b"email.cancel",
    "ce_subject": MESSAGE.encode(),
}


def binary(value: bytes | None = DATA, key: str = MESSAGE, **changes: bytes | None) -> Record:
    """A command in binary mode; a header that is given as b"" is left out."""
    named = {name.replace("content_type", "content-type"): each for name, each in changes.items()}
    headers = {**ATTRIBUTES, **named}
    present = tuple((name, each) for name, each in headers.items() if each != b"")
    return Record("email.commands.urgent", 0, 0, 0, key.encode(), value, present)


def test_a_command_in_binary_mode_is_the_one_in_structured_mode() -> None:
    attributes: dict[str, Any] = {
        "time": "2026-11-24T10:25:00Z",
        "actor": "user:jürgen",
        "dataversion": 1,
        "trace": "x",
    }
    command = {"specversion": "1.0", "id": "c1", "source": "/crm/billing", "type": "email.cancel", "subject": MESSAGE}
    structured = record(json.dumps({**command, **attributes, "data": json.loads(DATA)}).encode())
    as_headers = {f"ce_{name}": str(each).encode() for name, each in attributes.items()}
    found = decode_command(binary(DATA, MESSAGE, content_type=b"application/json", **as_headers))
    assert found == decode_command(structured)
    assert found.actor == "user:jürgen"
    assert found.model_extra == {"trace": "x"}


def test_attributes_in_headers_are_not_percent_decoded() -> None:
    found = decode_command(binary(ce_source=b"/crm/a%20b", ce_id="Füße%2F".encode()))
    assert (found.source, found.id) == ("/crm/a%20b", "Füße%2F")


@pytest.mark.parametrize(
    "content_type", [b"", b"application/json", b"Application/JSON; charset=UTF-8", b'application/json;charset="utf-8"']
)
def test_data_in_binary_mode_is_json(content_type: bytes) -> None:
    assert decode_command(binary(content_type=content_type)).datacontenttype == "application/json"


@pytest.mark.parametrize(
    ("found", "reason", "told"),
    [
        (binary(content_type=b"application/avro"), "invalid", "application/json"),
        (binary(content_type=b"application/json; charset=latin-1"), "invalid", "UTF-8"),
        (binary(ce_source=None), "invalid", "ce_source is null"),
        (binary(ce_source=b"\xff"), "invalid", "ce_source is not UTF-8"),
        (binary(ce_source=b""), "invalid", "source"),
        (binary(ce_subject=b""), "invalid", "subject"),
        (binary(ce_specversion=b"0.3"), "invalid", "specversion"),
        (binary(ce_type=b"email.explode"), "unknownType", "email.explode"),
        (binary(ce_dataversion=b"7"), "unknownVersion", "7"),
        (binary(ce_dataversion=b"one"), "unknownVersion", "integer"),
        (binary(None), "nullValue", "no value"),
        (binary(b"{"), "notJson", ""),
        (binary(b"[]"), "notAnObject", ""),
        (binary(key="another"), "wrongKey", ""),
        (binary(ce_data=b"{}", value=b'{"messageId": 1}'), "invalid", "messageId"),
    ],
)
def test_what_is_no_command_in_binary_mode_says_why(found: Record, reason: str, told: str) -> None:
    with pytest.raises(PermanentError) as raised:
        decode_command(found)
    assert raised.value.reason == reason
    assert told in raised.value.detail


@pytest.mark.parametrize(
    "content_type",
    [b"", b"application/cloudevents+json", b"Application/CloudEvents+JSON; charset=UTF-8", b"text/plain"],
)
def test_the_envelope_in_the_value_is_structured_mode(content_type: bytes) -> None:
    value = {"id": "c1", "source": "crm", "type": "email.cancel", "subject": MESSAGE, "data": {"messageId": MESSAGE}}
    headers = (("content-type", content_type),) if content_type else ()
    found = Record("email.commands.urgent", 0, 0, 0, MESSAGE.encode(), json.dumps(value).encode(), headers)
    assert decode_command(found).id == "c1"


def test_the_content_type_decides_where_both_are_there() -> None:
    """§3.3.3: in structured mode the attributes may be headers too; the value is what counts."""
    value = {"id": "value", "source": "crm", "type": "email.cancel", "subject": MESSAGE, "data": {"messageId": MESSAGE}}
    found = binary(json.dumps(value).encode(), content_type=b"application/cloudevents+json")
    assert decode_command(found).id == "value"


def test_another_event_format_says_so() -> None:
    with pytest.raises(PermanentError) as raised:
        decode_command(binary(content_type=b"application/cloudevents+avro"))
    assert raised.value.reason == "unsupportedFormat"


@pytest.mark.parametrize(
    ("found", "source"),
    [
        (binary(), "/crm/billing"),
        (binary(b"{"), "/crm/billing"),
        (binary(ce_source=b"\xff"), "\ufffd"),
        (record(b'{"source": "/crm"}'), "/crm"),
        (record(b'{"source": 7}'), None),
        (record(b"[]"), None),
        (record(b"{"), None),
        (record(None), None),
    ],
)
def test_the_source_is_found_in_what_is_no_command(found: Record, source: str | None) -> None:
    assert source_of(found) == source


def test_the_reason_does_not_repeat_what_was_sent() -> None:
    with pytest.raises(PermanentError) as raised:
        decode(record(wire(data={"reason": {"secret": "anna@example.com"}})))
    assert "anna" not in str(raised.value)
