"""Reads the CloudEvents Kafka protocol binding: which mode a record is in, and its attributes in binary mode.

Source: Kafka Protocol Binding for CloudEvents 1.0.2, §3. A `content-type` that begins with `application/cloudevents`,
in any case, means structured mode. In binary mode every attribute is a header `ce_<name>` with its value as a UTF-8
string, `datacontenttype` is the header `content-type`, and the record's value is the data. Values are taken as they
are: percent-encoding belongs to the HTTP binding alone.
"""

from __future__ import annotations

from typing import Any, Final

from pydantic_core import from_json

from services.kit.errors import PermanentError
from services.kit.kafka.records import Record

CONTENT_TYPE: Final = "content-type"
PREFIX: Final = "ce_"

_STRUCTURED: Final = "application/cloudevents"
_JSON: Final = "application/json"
_REQUIRED: Final = frozenset({"ce_specversion", "ce_id", "ce_source", "ce_type"})
_INTEGERS: Final = frozenset({"dataversion"})
"""Extensions of ours whose type is Integer: in a header every value is a string."""


def content_type(record: Record) -> str:
    """The record's `content-type`, "" where it has none that can be read."""
    return (record.header(CONTENT_TYPE) or b"").decode("ascii", "replace").strip()


def is_binary(record: Record) -> bool:
    """Whether the record is in binary mode. One with neither a CloudEvents media type nor a required attribute among
    its headers counts as structured: producers that set no headers at all write the envelope into the value.
    """
    if content_type(record).lower().startswith(_STRUCTURED):
        return False
    return any(name in _REQUIRED for name, _ in record.headers)


def check_format(record: Record) -> None:
    """Raise PermanentError `unsupportedFormat` for a structured record that says it is in another format than JSON."""
    media_type = _media_type(content_type(record))
    if media_type.startswith(_STRUCTURED) and media_type not in (_STRUCTURED, f"{_STRUCTURED}+json"):
        raise PermanentError(
            "unsupportedFormat", f"content-type must be {_STRUCTURED}+json; other formats are not read"
        )


def binary_attributes(record: Record) -> dict[str, Any]:
    """The attributes of a record in binary mode, without data.

    Raises:
        PermanentError: `invalid`: a value is null or not UTF-8, or the data is not JSON in UTF-8 by its content-type.
    """
    found: dict[str, Any] = {}
    for name, value in record.headers:
        if name.startswith(PREFIX):
            found[name.removeprefix(PREFIX)] = _text(name, value)
    for name in _INTEGERS & found.keys():
        if found[name].isdecimal():
            found[name] = int(found[name])
    found["datacontenttype"] = _json_type(content_type(record))
    found.pop("data", None)
    return found


def source_of(record: Record) -> str | None:
    """The CloudEvents attribute `source` of a record in either mode; None where there is none that can be read."""
    if is_binary(record):
        source = record.header("ce_source")
        return None if source is None else source.decode("utf-8", "replace")
    try:
        wire = from_json(record.value or b"")
    except ValueError:
        return None
    source = wire.get("source") if isinstance(wire, dict) else None
    return source if isinstance(source, str) else None


def _text(name: str, value: bytes | None) -> str:
    if value is None:
        raise PermanentError("invalid", f"the header {name} is null")
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise PermanentError("invalid", f"the header {name} is not UTF-8") from None


def _media_type(value: str) -> str:
    return value.partition(";")[0].strip().lower()


def _json_type(value: str) -> str:
    """`application/json` for what means it: a missing one, and one with the only charset that JSON has."""
    parameters = [part.strip().lower().replace('"', "") for part in value.split(";")[1:] if part.strip()]
    if _media_type(value) not in ("", _JSON) or any(
        each not in ("charset=utf-8", "charset=utf8") for each in parameters
    ):
        raise PermanentError("invalid", f"content-type: the data of a command is {_JSON} in UTF-8")
    return _JSON
