"""A provider's notification out of its wrappings, and what it becomes: the values that the translator works with."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from contracts.envelope import Envelope

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Delivered:
    """A notification out of its wrappings.

    Attributes:
        notification: the provider's notification as a JSON object; None where the envelope holds none.
        transport_id: SNS MessageId, else SQS MessageId: equal for a redelivery, None where nothing names one.
        received_at: SNS Timestamp, else SQS SentTimestamp: the only time that some types have.
        why_none: a sentence, where `notification` is None.
    """

    notification: Json | None
    transport_id: str | None = None
    received_at: datetime | None = None
    why_none: str | None = None


@dataclass(frozen=True, slots=True)
class InboundMail:
    """A mail that somebody sent to us. Of its sender nothing is here: whoever it says it is from may be forged.

    Attributes:
        received_at: when the provider took it, by the provider's clock.
        subject: with encoded words decoded; empty where it has none.
    """

    received_at: datetime
    subject: str


@dataclass(frozen=True, slots=True)
class Translation:
    """The facts of one notification, or why there are none."""

    facts: tuple[Envelope, ...]
    why_none: str | None = None
