"""Parked records as people see them, over HTTP and at a terminal: readable, and without what must not be shown."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from contracts.base import Model, UtcDateTime, from_micros
from services.kit.kafka.records import ParkKind
from services.kit.parking import ParkedRecord, ParkStatus, presentable_value


class Bytes(Model):
    """Bytes of a record, as text where they are UTF-8."""

    text: str | None = None
    base64: bytes | None = None

    @classmethod
    def of(cls, raw: bytes | None) -> Bytes | None:
        if raw is None:
            return None
        try:
            return cls(text=raw.decode())
        except UnicodeDecodeError:
            return cls(base64=raw)


class HeaderItem(Model):
    """One header of a record; the value is absent where it is null."""

    name: str
    value: Bytes | None = None


class ParkedSummary(Model):
    """A record that was set aside, without its value."""

    id: str
    consumer: str
    topic: str
    partition: int
    offset: int
    timestamp: UtcDateTime
    key: Bytes | None = None
    size: Annotated[int, Field(description="bytes of the value")]
    reason: str
    kind: ParkKind
    detail: str
    error_class: str | None = None
    decision: str | None = None
    release: Annotated[str | None, Field(description="the order by which it was parked in spite of the breaker")] = None
    status: ParkStatus
    at: Annotated[UtcDateTime, Field(description="when it was parked first")]
    tries: int
    next_try_at: UtcDateTime | None = None
    last_error: str | None = None
    closed_at: UtcDateTime | None = None
    closed_by: str | None = None
    closed_reason: str | None = None


class ParkedDetail(ParkedSummary):
    """All of a record that may be shown."""

    headers: list[HeaderItem]
    value: Bytes | None = None
    value_hidden: Annotated[bool, Field(description="the value may hold a login code or link: nobody is shown it")]
    stack: str | None = None


def summary_of(parked: ParkedRecord) -> ParkedSummary:
    """A record as lists show it."""
    return ParkedSummary(
        id=parked.id,
        consumer=parked.consumer,
        topic=parked.topic,
        partition=parked.partition,
        offset=parked.offset,
        timestamp=from_micros(parked.timestamp_ms * 1000),
        key=Bytes.of(parked.key),
        size=parked.size,
        reason=parked.reason,
        kind=parked.kind,
        detail=parked.detail,
        error_class=parked.error_class or None,
        decision=parked.decision,
        release=parked.release,
        status=parked.status,
        at=parked.at,
        tries=parked.tries,
        next_try_at=parked.next_try_at,
        last_error=parked.last_error or None,
        closed_at=parked.closed_at,
        closed_by=parked.closed_by or None,
        closed_reason=parked.closed_reason or None,
    )


def detail_of(parked: ParkedRecord) -> ParkedDetail:
    """A record with all that may be shown of it."""
    value = presentable_value(parked)
    return ParkedDetail(
        **dict(summary_of(parked)),
        headers=[HeaderItem(name=name, value=Bytes.of(header)) for name, header in parked.headers],
        value=Bytes.of(value),
        value_hidden=value is None and parked.raw is not None,
        stack=parked.stack or None,
    )
