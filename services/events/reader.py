"""From a record's bytes to a `KnownEvent`, fast where the record is plain, exact everywhere.

`contracts.registry.event_from_wire` is the judge of what is valid. Validators derived from the same models read a plain
record (current version, canonical time, no nulls, nothing that needs coercion) in one pass, in strict mode; whatever
they do not take goes the judge's way. So the fast way never accepts what the judge refuses, and both give the same
data: camelCase, absent instead of null, defaults filled in, times canonical (a property test holds them together).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from pydantic import BaseModel, ValidationError
from pydantic_core import CoreConfig, CoreSchema, SchemaValidator, core_schema

from contracts.base import format_time
from contracts.envelope import Envelope
from contracts.errors import ContractError
from contracts.registry import EVENTS, EventType, event_from_wire, rank_of, read_json
from services.events.projections.known import KnownEvent

_TYPE = b'"type":"'
_DATE = (
    r"(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    r"|02-(?:0[1-9]|1[0-9]|2[0-8]))"
)
_HOUR = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\.[0-9]{6}"
_TIME = core_schema.str_schema(pattern=f"^[1-9][0-9]{{3}}-{_DATE}T{_HOUR}Z$")
"""Times in canonical form on days that every year has; the judge knows the leap days."""

_VALUE = "a JSON value"


def _values(*more: CoreSchema) -> CoreSchema:
    """Any JSON value without an infinite number inside, which is no JSON though many parsers take and some write it."""
    inside = core_schema.definition_reference_schema(_VALUE)
    return core_schema.union_schema(
        [
            core_schema.str_schema(),
            core_schema.int_schema(),
            core_schema.bool_schema(),
            core_schema.float_schema(allow_inf_nan=False),
            core_schema.dict_schema(core_schema.str_schema(), inside),
            core_schema.list_schema(inside),
            *more,
        ],
        mode="left_to_right",
    )


def read_event(raw: bytes | None, partition: int, offset: int, subject: str | None = None) -> KnownEvent:
    """Read one record.

    Args:
        raw: the record's value.
        partition: where the record lies.
        offset: where the record lies.
        subject: the aggregate that the record's key names; None = take any.

    Raises:
        ContractError: as `read_json` and `event_from_wire`, and `keyMismatch` when the event is another aggregate's.
    """
    wire = _fast(raw) if raw is not None else None
    if wire is None:
        wire = _exact(raw)
    if subject is not None and wire["subject"] != subject:
        raise ContractError("keyMismatch", "the record's key is not the event's subject")
    name = wire["type"]
    event_type = EVENTS.get(name)
    return KnownEvent(
        wire["time"],
        event_type.rank if event_type is not None else rank_of(name),
        wire["id"],
        name,
        wire.get("revision") or 0,
        wire["data"],
        partition,
        offset,
        (partition, offset),
        raw or b"",
    )


def _fast(raw: bytes) -> dict[str, Any] | None:
    """The attributes and data of a plain record, None where only the judge can tell."""
    start = raw.find(_TYPE) + len(_TYPE)
    validator = _VALIDATORS.get(raw[start : raw.find(b'"', start)])
    if validator is None:
        return None
    try:
        wire: dict[str, Any] = validator.validate_json(raw, strict=True)
    except ValidationError:
        return None
    return wire


def _exact(raw: bytes | None) -> dict[str, Any]:
    event = event_from_wire(read_json(raw))
    return {
        "id": event.id,
        "type": event.type,
        "subject": event.subject,
        "time": format_time(event.time),
        "revision": event.revision,
        "data": event.data.to_wire(),
    }


def _validator(event_type: EventType) -> SchemaValidator:
    attributes = _fields(Envelope, without=("type", "time", "dataversion", "data")) | {
        "type": core_schema.typed_dict_field(core_schema.literal_schema([event_type.name])),
        "time": core_schema.typed_dict_field(_TIME),
        "dataversion": core_schema.typed_dict_field(
            core_schema.int_schema(ge=event_type.version, le=event_type.version), required=event_type.version != 1
        ),
        "data": core_schema.typed_dict_field(_object(event_type.model)),
    }
    whole = core_schema.typed_dict_schema(attributes, extra_behavior="allow")
    value = {**_values(core_schema.none_schema()), "ref": _VALUE}
    return SchemaValidator(
        core_schema.definitions_schema(whole, [cast("CoreSchema", value)]), CoreConfig(cache_strings="keys")
    )


def _object(model: type[BaseModel]) -> CoreSchema:
    return core_schema.typed_dict_schema(_fields(model), extra_behavior="allow", extras_schema=_values())


def _fields(model: type[BaseModel], without: tuple[str, ...] = ()) -> dict[str, core_schema.TypedDictField]:
    schema: Mapping[str, Any] = model.__pydantic_core_schema__
    while schema["type"] in ("definitions", "model"):
        schema = schema["schema"]
    if schema["type"] != "model-fields":
        raise TypeError(f"{model.__name__} has a validator of its own, which reading in one pass would leave out")
    return {
        str(field.get("validation_alias", name)): _field(field["schema"])
        for name, field in schema["fields"].items()
        if name not in without
    }


def _field(schema: Mapping[str, Any]) -> core_schema.TypedDictField:
    if schema["type"] != "default":
        return core_schema.typed_dict_field(_strict(schema))
    inner = _strict(schema["schema"])
    if "default_factory" in schema:
        raise TypeError("a default that is made anew each time cannot be read in one pass")
    if schema.get("default") is not None:
        inner = core_schema.with_default_schema(inner, default=schema["default"])
    return core_schema.typed_dict_field(inner, required=False)


def _strict(schema: Any) -> Any:
    """The schema that takes only what has the normal form already: objects as dicts, times canonical, no null."""
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kind = schema.get("type")
    if kind == "nullable":
        return _strict(schema["schema"])
    if kind == "model":
        return _object(schema["cls"])
    if kind == "definition-ref":
        raise TypeError("a model that contains itself cannot be read in one pass")
    if kind == "any":
        return core_schema.definition_reference_schema(_VALUE)
    if _is_time(schema):
        return _TIME
    return {key: _strict(value) if key in _NESTED else value for key, value in schema.items() if key != "serialization"}


_NESTED = frozenset({"schema", "items_schema", "keys_schema", "values_schema", "choices"})


def _is_time(schema: Mapping[str, Any]) -> bool:
    if schema.get("type") == "function-after":
        return _is_time(schema["schema"])
    return schema.get("type") == "datetime"


_VALIDATORS = {name.encode(): _validator(event_type) for name, event_type in EVENTS.items()}
