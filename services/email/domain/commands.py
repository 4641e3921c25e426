"""What may be asked of a message. Kafka's commands become some of these; sender and settler ask for the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from contracts.email.events import AttemptReason, Considered, EmailRequested, FailureReason
from services.email.domain.outcomes import Cost, Outcome


@dataclass(frozen=True, slots=True)
class Request:
    """Accept for sending; with `failure` it is recorded and fails at once for everybody."""

    request: EmailRequested
    failure: tuple[FailureReason, str] | None = None
    causation: str | None = None
    actor: str | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop whoever has no attempt open, unknown or accepted; before the request it is remembered with its actor."""

    actor: str | None
    reason: str | None = None
    causation: str | None = None


@dataclass(frozen=True, slots=True)
class PlannedAttempt:
    """A licence asked for."""

    recipient: str
    attempt_id: str
    provider: str
    reason: AttemptReason
    considered: tuple[Considered, ...] = ()


@dataclass(frozen=True, slots=True)
class PlanAttempts:
    """Attempt these recipients, of whom each is `ready`, and fail those that are suppressed."""

    attempts: Sequence[PlannedAttempt]
    suppressed: Mapping[str, str] = field(default_factory=dict)
    """Recipient → why."""


@dataclass(frozen=True, slots=True)
class RecordOutcome:
    """What the holder of a licence heard, or that it never called. Early or late, it is written down.

    `elsewhere`: another provider takes this mail now, so that a refusal that is not the mail's need not be waited out.
    """

    attempt_id: str
    outcome: Outcome
    elsewhere: bool = False


@dataclass(frozen=True, slots=True)
class TimeOut:
    """Write down attempts whose call must be over and that have no answer, and end those unknown for too long."""


@dataclass(frozen=True, slots=True)
class Expire:
    """End what is still queued after `expiresAt`."""


@dataclass(frozen=True, slots=True)
class SettleByFact:
    """A provider's notification: whatever it says of the delivery, the provider had taken it.

    `attempt_id` is None where the notification does not name it; `size` and `cost` are estimates.
    """

    fact_id: str
    recipient: str
    provider: str
    attempt_id: str | None
    provider_message_id: str | None
    size: int
    cost: Cost | None


@dataclass(frozen=True, slots=True)
class SettleByOperator:
    """A person found out what came of an unknown attempt."""

    attempt_id: str
    outcome: Literal["accepted", "notAccepted"]
    evidence: str
    actor: str


@dataclass(frozen=True, slots=True)
class Fail:
    """End everybody who is still queued, for this reason."""

    reason: FailureReason
    detail: str | None = None


Command = Request | Cancel | PlanAttempts | RecordOutcome | TimeOut | Expire | SettleByFact | SettleByOperator | Fail
