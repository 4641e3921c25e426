"""Making events of one message for tests, in wire form and as read."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from contracts.base import EventData, Money
from contracts.email import events as mail
from contracts.envelope import Envelope
from contracts.registry import EVENTS, NAMES
from services.events.projections.known import KnownEvent
from services.events.reader import read_event

MESSAGE = "0192f0c1-2b7a-7d3e-9c1a-5b8f3e2d1c0b"
START = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
ANN, BOB = "ann@example.com", "bob@example.org"
USD = Money(amount=100, currency="USD")


@dataclass(frozen=True)
class Record:
    """A record as it is read of the log."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int = 0
    headers: Sequence[tuple[str, bytes | None]] = ()


class Log:
    """A partition of `email.events` that a test writes: each event a second after the one before, unless told."""

    def __init__(self, subject: str = MESSAGE, partition: int = 3) -> None:
        self.subject, self.partition = subject, partition
        self._offsets, self._ids = itertools.count(), itertools.count(1)
        self._versions = itertools.count(1)

    def raw(self, data: EventData, *, at: float | None = None, event_id: str | None = None, revision: int = 1) -> bytes:
        """The bytes of one event at `at` seconds after the start."""
        name = NAMES[type(data)]
        number = next(self._ids)
        decision = EVENTS[name].kind == "decision"
        return Envelope(
            id=event_id or f"event-{number:04d}",
            source="mailroom/test",
            type=name,
            subject=self.subject,
            time=START + timedelta(seconds=number if at is None else at),
            correlationid=self.subject,
            streamversion=next(self._versions) if decision else None,
            revision=None if decision else revision,
            data=data,
        ).to_bytes()

    def event(self, data: EventData, **options: Any) -> KnownEvent:
        """The next record, as read."""
        return read_event(self.raw(data, **options), self.partition, next(self._offsets))


def requested(*recipients: str, **more: Any) -> mail.EmailRequested:
    return mail.EmailRequested(
        message_id=MESSAGE,
        to=list(recipients or (ANN,)),
        from_="news@mailroom.example",
        subject="Hello",
        category=more.pop("category", "notification"),
        priority="normal",
        user_id="user-1",
        expires_at=START + timedelta(days=3),
        request_hash="0" * 64,
        **more,
    )


def attempted(
    attempt: str = "a1", recipient: str = ANN, provider: str = "ses", reason: mail.AttemptReason = "cheapest"
) -> mail.EmailSendAttempted:
    return mail.EmailSendAttempted(attempt_id=attempt, recipient=recipient, provider=provider, reason=reason)


def sent(attempt: str = "a1", recipient: str = ANN, **more: Any) -> mail.EmailSent:
    return mail.EmailSent(
        attempt_id=attempt,
        recipient=recipient,
        provider=more.get("provider", "ses"),
        provider_message_id=more.get("provider_message_id", f"ses-{attempt}"),
        size=more.get("size", 1000),
        cost=more.get("cost", USD),
        price_version="2026-01",
    )


def unknown(attempt: str = "a1", recipient: str = ANN) -> mail.EmailSendOutcomeUnknown:
    return mail.EmailSendOutcomeUnknown(attempt_id=attempt, recipient=recipient, detail="no answer")


def refused(attempt: str = "a1", recipient: str = ANN) -> mail.EmailSendRejected:
    return mail.EmailSendRejected(attempt_id=attempt, recipient=recipient, code="Throttling", next="retry")


def settled(outcome: str, attempt: str = "a1", recipient: str = ANN, **more: Any) -> mail.EmailAttemptSettled:
    return mail.EmailAttemptSettled(
        attempt_id=attempt,
        recipient=recipient,
        outcome=outcome,  # type: ignore[arg-type]  # the caller's word is checked by the model
        by="notification",
        evidence="fact",
        **more,
    )


def failed(reason: str = "attemptsExhausted", recipient: str = ANN) -> mail.EmailFailed:
    return mail.EmailFailed(recipient=recipient, reason=reason)  # type: ignore[arg-type]  # checked by the model


def bounced(kind: str = "permanent", recipient: str = ANN, sub_type: str = "General") -> mail.EmailBounced:
    return mail.EmailBounced(
        recipient=recipient,
        provider="ses",
        attempt_id="a1",
        bounce_type=kind,  # type: ignore[arg-type]  # checked by the model
        bounce_sub_type=sub_type,
    )


def fact(model: type[mail.DeliveryFact], recipient: str = ANN, **more: Any) -> mail.DeliveryFact:
    """A fact of a type whose own fields may all be left out; names attempt a1 unless told."""
    return model(recipient=recipient, provider="ses", attempt_id=more.pop("attempt_id", "a1"), **more)


def retracted(event_id: str, up_to: int = 1) -> mail.EventRetracted:
    return mail.EventRetracted(event_id=event_id, up_to_revision=up_to, reason="mistranslated")
