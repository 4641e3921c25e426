"""CloudEvents 1.0 in structured JSON mode: the envelope of every event and command on Kafka.

`subject` is the aggregate's id and the Kafka key. `time` is when it happened, in UTC, to the microsecond.
Attribute names: CloudEvents specification 1.0.2, §3; the extensions are ours and lower-case as it demands.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, SerializeAsAny

from contracts.base import CommandData, EventData, Model, UtcDateTime, to_micros

Identifier = Annotated[str, Field(min_length=1, max_length=256)]


class Attributes(Model):
    """The attributes that commands and events share. Extensions that we do not know are kept."""

    model_config = ConfigDict(alias_generator=None, extra="allow")

    specversion: Literal["1.0"] = "1.0"
    id: Identifier
    source: Identifier
    type: Identifier
    subject: Identifier
    datacontenttype: Literal["application/json"] = "application/json"
    dataversion: Annotated[int, Field(ge=1)] = 1
    causationid: str | None = None
    traceparent: str | None = None
    actor: str | None = None

    def to_bytes(self) -> bytes:
        """The wire form: UTF-8 JSON; the same value gives the same bytes."""
        return self.model_dump_json(by_alias=True, exclude_none=True).encode()


class Envelope(Attributes):
    """An event: decisions carry `streamversion`, facts carry `revision` (that of the translator)."""

    time: UtcDateTime
    correlationid: Identifier
    streamversion: Annotated[int, Field(ge=1)] | None = None
    revision: Annotated[int, Field(ge=1)] | None = None
    data: SerializeAsAny[EventData]

    @property
    def micros(self) -> int:
        """`time` as int64 microseconds since the epoch."""
        return to_micros(self.time)


class CommandEnvelope(Attributes):
    """A command. Everything but id, source, type, subject and data may be left out by a hand-written client."""

    time: UtcDateTime | None = None
    correlationid: Identifier | None = None
    data: SerializeAsAny[CommandData]


JsonObject = dict[str, Any]
"""A decoded JSON object whose shape is not ours to fix."""
