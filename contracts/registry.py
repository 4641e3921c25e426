"""Wire names and versions as data: which model a (type, version) has, what kind it is, and where it ranks in the order.

Nothing here is derived from a class path. The order of `EVENTS` is the rank of the types: two events of one aggregate
with the same microsecond are folded in this order. Append new types at the end of their group only with a new rank in
mind: a rank, once published, does not change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError
from pydantic_core import from_json

from contracts.base import CommandData, EventData, UnknownData
from contracts.email import commands as email_commands
from contracts.email import events as email
from contracts.envelope import CommandEnvelope, Envelope
from contracts.errors import ContractError
from contracts.files import commands as files_commands
from contracts.files import events as files
from contracts.recipients import events as recipients
from contracts.topics import EMAIL_EVENTS, FILES_EVENTS, RECIPIENTS_EVENTS, Topic
from contracts.upcasters import UPCASTERS, Upcasters, upcast

Kind = Literal["decision", "fact"]
UNKNOWN_RANK = 1_000


@dataclass(frozen=True, slots=True)
class EventType:
    """A published event type.

    Attributes:
        name: wire name.
        rank: place among events of the same microsecond.
        kind: decision (from a stream) or fact (from a notification).
        version: the current version, which `model` describes; older ones are upcast to it.
        model: pydantic model of `data`.
        topic: where it is published.
    """

    name: str
    rank: int
    kind: Kind
    version: int
    model: type[EventData]
    topic: Topic


@dataclass(frozen=True, slots=True)
class CommandType:
    """A published command type."""

    name: str
    version: int
    model: type[CommandData]


def _events(*rows: tuple[str, int, Kind, type[EventData], Topic]) -> dict[str, EventType]:
    return {name: EventType(name, rank, kind, 1, model, topic) for name, rank, kind, model, topic in rows}


EVENTS: dict[str, EventType] = _events(
    ("email.requested", 10, "decision", email.EmailRequested, EMAIL_EVENTS),
    ("email.cancelled", 20, "decision", email.EmailCancelled, EMAIL_EVENTS),
    ("email.sendAttempted", 30, "decision", email.EmailSendAttempted, EMAIL_EVENTS),
    ("email.sendOutcomeUnknown", 40, "decision", email.EmailSendOutcomeUnknown, EMAIL_EVENTS),
    ("email.sendRejected", 50, "decision", email.EmailSendRejected, EMAIL_EVENTS),
    ("email.sent", 60, "decision", email.EmailSent, EMAIL_EVENTS),
    ("email.sendConfirmed", 70, "fact", email.EmailSendConfirmed, EMAIL_EVENTS),
    ("email.attemptSettled", 80, "decision", email.EmailAttemptSettled, EMAIL_EVENTS),
    ("email.rejected", 90, "fact", email.EmailRejected, EMAIL_EVENTS),
    ("email.deliveryDelayed", 100, "fact", email.EmailDeliveryDelayed, EMAIL_EVENTS),
    ("email.bounced", 110, "fact", email.EmailBounced, EMAIL_EVENTS),
    ("email.delivered", 120, "fact", email.EmailDelivered, EMAIL_EVENTS),
    ("email.opened", 130, "fact", email.EmailOpened, EMAIL_EVENTS),
    ("email.clicked", 140, "fact", email.EmailClicked, EMAIL_EVENTS),
    ("email.complained", 150, "fact", email.EmailComplained, EMAIL_EVENTS),
    ("email.complaintWithdrawn", 160, "fact", email.EmailComplaintWithdrawn, EMAIL_EVENTS),
    ("email.unsubscribed", 170, "fact", email.EmailUnsubscribed, EMAIL_EVENTS),
    ("email.failed", 180, "decision", email.EmailFailed, EMAIL_EVENTS),
    ("event.retracted", 190, "fact", email.EventRetracted, EMAIL_EVENTS),
    ("recipient.suppressed", 200, "decision", recipients.RecipientSuppressed, RECIPIENTS_EVENTS),
    ("recipient.unsuppressed", 210, "decision", recipients.RecipientUnsuppressed, RECIPIENTS_EVENTS),
    ("file.uploadRequested", 300, "decision", files.FileUploadRequested, FILES_EVENTS),
    ("file.objectCreated", 310, "fact", files.FileObjectCreated, FILES_EVENTS),
    ("file.uploaded", 320, "decision", files.FileUploaded, FILES_EVENTS),
    ("file.uploadFailed", 330, "decision", files.FileUploadFailed, FILES_EVENTS),
    ("file.uploadClosed", 335, "decision", files.FileUploadClosed, FILES_EVENTS),
    ("file.scanned", 340, "fact", files.FileScanned, FILES_EVENTS),
    ("file.scanSettled", 350, "decision", files.FileScanSettled, FILES_EVENTS),
    ("file.updated", 360, "decision", files.FileUpdated, FILES_EVENTS),
    ("file.objectTagged", 370, "fact", files.FileObjectTagged, FILES_EVENTS),
    ("file.objectMoved", 380, "fact", files.FileObjectMoved, FILES_EVENTS),
    ("file.downloadIssued", 390, "fact", files.FileDownloadIssued, FILES_EVENTS),
    ("file.deleteMarkerCreated", 400, "fact", files.FileDeleteMarkerCreated, FILES_EVENTS),
    ("file.objectExpired", 410, "fact", files.FileObjectExpired, FILES_EVENTS),
    ("file.objectRemoved", 420, "fact", files.FileObjectRemoved, FILES_EVENTS),
    ("file.deleted", 430, "decision", files.FileDeleted, FILES_EVENTS),
    ("file.restored", 440, "decision", files.FileRestored, FILES_EVENTS),
)
"""Wire name → event type. Ranks leave gaps for types to come."""

COMMANDS: dict[str, CommandType] = {
    "email.send": CommandType("email.send", 1, email_commands.SendEmail),
    "email.cancel": CommandType("email.cancel", 1, email_commands.CancelEmail),
    "file.delete": CommandType("file.delete", 1, files_commands.DeleteFile),
    "file.restore": CommandType("file.restore", 1, files_commands.RestoreFile),
    "file.update": CommandType("file.update", 1, files_commands.UpdateFile),
}

NAMES: dict[type[EventData], str] = {event.model: name for name, event in EVENTS.items()}
"""Model → wire name, for those who make events."""


def rank_of(event_type: str) -> int:
    """The rank of a type among events of one microsecond; unknown types come last."""
    known = EVENTS.get(event_type)
    return UNKNOWN_RANK if known is None else known.rank


def read_json(raw: bytes | None) -> dict[str, Any]:
    """Parse the bytes of a record into a JSON object.

    Raises:
        ContractError: `nullValue`, `notJson` (bad syntax, bad UTF-8, too deep: pydantic's parser stops at 200 levels)
            or `notAnObject`.
    """
    if raw is None:
        raise ContractError("nullValue", "the record has no value")
    try:
        value = from_json(raw)
    except ValueError as error:
        raise ContractError("notJson", str(error)) from None
    if not isinstance(value, dict):
        raise ContractError("notAnObject", "the record is JSON, but not an object")
    return value


def event_from_wire(wire: dict[str, Any], upcasters: Upcasters = UPCASTERS) -> Envelope:
    """Read an event's envelope and data, upcast to the current version. An unknown type is kept with its data untyped.

    Raises:
        ContractError: `unknownVersion` or `invalid`.
    """
    known = EVENTS.get(str(wire.get("type")))
    try:
        if known is None:
            data: EventData = UnknownData.model_validate(wire.get("data"))
            return Envelope.model_validate({**wire, "data": data})
        version = _version(wire)
        raw = upcast(known.name, version, known.version, wire.get("data"), upcasters)
        return Envelope.model_validate({**wire, "dataversion": known.version, "data": known.model.model_validate(raw)})
    except ValidationError as error:
        raise ContractError("invalid", describe(error)) from None


def command_from_wire(wire: dict[str, Any]) -> CommandEnvelope:
    """Read a command's envelope and data.

    Raises:
        ContractError: `unknownType`, `unknownVersion` or `invalid`.
    """
    name = str(wire.get("type"))
    known = COMMANDS.get(name)
    if known is None:
        raise ContractError("unknownType", f"{name!r} is not a command; known: {', '.join(sorted(COMMANDS))}")
    version = _version(wire)
    if version != known.version:
        raise ContractError("unknownVersion", f"{name} has version {known.version}, not {version}")
    try:
        return CommandEnvelope.model_validate({**wire, "data": known.model.model_validate(wire.get("data"))})
    except ValidationError as error:
        raise ContractError("invalid", describe(error)) from None


def describe(error: ValidationError) -> str:
    """Every problem of a validation error in one line, without the values (they may be personal)."""
    return "; ".join(
        f"{'.'.join(str(part) for part in item['loc']) or '(whole)'}: {item['msg']}"
        for item in error.errors(include_url=False, include_context=False, include_input=False)
    )


def _version(wire: dict[str, Any]) -> int:
    version = wire.get("dataversion", 1)
    if not isinstance(version, int) or isinstance(version, bool):
        raise ContractError("unknownVersion", "dataversion is not an integer")
    return version
