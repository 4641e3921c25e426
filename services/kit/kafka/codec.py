"""Between envelopes and Kafka records: CloudEvents, key = subject. We write structured mode, and take commands in
binary mode too, which several SDKs write unless told otherwise.

Source: CloudEvents Kafka protocol binding 1.0.2, §3.3 (structured content mode and its content-type header); §3.2 is in
`binding`.
"""

from typing import Any

from contracts.envelope import Attributes, CommandEnvelope, Envelope
from contracts.errors import ContractError
from contracts.registry import EVENTS, command_from_wire, event_from_wire, read_json
from contracts.topics import Topic
from services.kit.errors import PermanentError
from services.kit.kafka.binding import binary_attributes, check_format, is_binary
from services.kit.kafka.publisher import Outgoing
from services.kit.kafka.records import Record

CONTENT_TYPE = b"application/cloudevents+json"


def encode(envelope: Attributes, topic: Topic | None = None) -> Outgoing:
    """The record of an event or command. `topic` may be left out for an event of a type that we know. ValueError when
    it is needed and missing.
    """
    if topic is None:
        known = EVENTS.get(envelope.type)
        if known is None:
            raise ValueError(f"say which topic {envelope.type!r} goes to: it is not an event that we publish")
        topic = known.topic
    headers: tuple[tuple[str, bytes], ...] = (("content-type", CONTENT_TYPE),)
    if envelope.traceparent is not None:
        headers = (*headers, ("traceparent", envelope.traceparent.encode()))
    return Outgoing(topic.name, envelope.subject.encode(), envelope.to_bytes(), headers)


def decode(record: Record) -> Envelope:
    """The event of a record, upcast to the current version; one of an unknown type is kept with its data untyped.

    Raises:
        PermanentError: `nullValue`, `notJson`, `tooDeep`, `notAnObject`, `unknownVersion`, `invalid`, `wrongKey` (the
            key is not the subject).
    """
    try:
        envelope = event_from_wire(read_json(record.value))
    except ContractError as error:
        raise _permanent(error) from None
    _check_key(record, envelope.subject)
    return envelope


def decode_command(record: Record) -> CommandEnvelope:
    """The command of a record, in structured or in binary mode. Raises PermanentError as `decode` does, and
    `unknownType`, `unsupportedFormat`.
    """
    check_format(record)
    try:
        envelope = command_from_wire(_command_wire(record))
    except ContractError as error:
        raise _permanent(error) from None
    _check_key(record, envelope.subject)
    return envelope


def _command_wire(record: Record) -> dict[str, Any]:
    """Attributes and data as they would stand in structured mode."""
    if not is_binary(record):
        return read_json(record.value)
    return {**binary_attributes(record), "data": read_json(record.value)}


def _permanent(error: ContractError) -> PermanentError:
    """`tooDeep` is told apart from bad syntax: somebody may be trying to hurt us."""
    too_deep = error.reason == "notJson" and "recursion limit" in error.detail
    return PermanentError("tooDeep" if too_deep else error.reason, error.detail)


def _check_key(record: Record, subject: str) -> None:
    if record.key != subject.encode():
        found = "null" if record.key is None else f"{len(record.key)} bytes that differ"
        raise PermanentError("wrongKey", f"the key must be the subject, and is {found}")
