"""The base of every published model: camelCase on the wire, snake_case in Python, immutable."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, PlainSerializer, model_validator
from pydantic.alias_generators import to_camel

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_utc(value: datetime) -> datetime:
    """Return `value` in UTC.

    Raises:
        ValueError: the value carries no offset (guessing a time zone would invent a fact), or lies outside the years
            1 to 9999 in UTC.
    """
    if value.tzinfo is None:
        raise ValueError("a time needs an offset, for instance a final Z for UTC")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("a time must lie in the years 1 to 9999 in UTC") from None


def format_time(value: datetime) -> str:
    """Write an aware time as RFC 3339 in UTC with six digits of a second: `2026-11-24T10:25:00.123456Z`."""
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def to_micros(value: datetime) -> int:
    """Microseconds since 1970-01-01T00:00:00Z of an aware time, exact."""
    delta = value - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def from_micros(micros: int) -> datetime:
    """The aware UTC time `micros` microseconds after 1970-01-01T00:00:00Z, exact."""
    seconds, rest = divmod(micros, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest)


UtcDateTime = Annotated[
    datetime,
    AfterValidator(to_utc),
    PlainSerializer(format_time, return_type=str, when_used="json"),
]
"""An aware time, kept in UTC to the microsecond; six digits and a Z in JSON."""


class Model(BaseModel):
    """A frozen value with camelCase names on the wire."""

    model_config = ConfigDict(
        frozen=True,
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        ser_json_bytes="base64",
        allow_inf_nan=False,
    )

    def to_wire(self) -> dict[str, Any]:
        """The JSON-ready form: camelCase, absent instead of null, times as strings."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


MOST_WRONG = 100
"""Unknown fields, or values of a map, that are told one by one; more are one error, which costs less than they do."""


class CommandData(Model):
    """Data of a command. An unknown field is an error: a caller's typing mistake must not be swallowed."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _not_too_many_fields(cls, value: Any) -> Any:
        known = len(cls.model_fields)
        if isinstance(value, dict) and len(value) > known + MOST_WRONG:
            raise ValueError(f"has more than {known + MOST_WRONG} fields, of which at most {known} are known")
        return value


class EventData(Model):
    """Data of an event. Unknown fields are kept: an older reader must not lose what a newer writer knows."""

    model_config = ConfigDict(extra="allow")


class UnknownData(EventData):
    """Data of an event type that this build does not know. Kept whole, ignored by folds, counted."""


def _currency(code: str) -> str:
    if len(code) != 3 or not code.isascii() or not code.isupper():
        raise ValueError("a currency is a three-letter ISO 4217 code such as USD")
    return code


class Money(Model):
    """An amount in millionths of its currency's unit: `{"amount": 100, "currency": "USD"}` is 0.0001 USD."""

    amount: int
    currency: Annotated[str, AfterValidator(_currency)]
