"""Given–when–then for messages: a stream in memory, stamped as the store does, and values to start from."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from contracts.base import EventData, Money
from contracts.email.events import AttemptReason, EmailRequested
from contracts.email.values import ContentRef
from services.email.domain.commands import Command, PlanAttempts, PlannedAttempt, RecordOutcome, Request
from services.email.domain.decisions import decide, ready
from services.email.domain.message import Message, Policy, State, fold
from services.email.domain.outcomes import Accepted, Cost, NotCalled, Rejected, Unknown
from services.kit.event_store.port import Draft, Stream, stamp
from services.kit.testing import FakeIds

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
MESSAGE_ID = "0192f0c1-2b7a-7d3e-9c1a-5b8f3e2d1c0b"
COST = Cost(Money(amount=100, currency="USD"), "ses-2026-01")
POLICY = Policy()

YES = Accepted("ses-1", 1000, COST)
THROTTLED = Rejected("TooManyRequestsException", "slow down", "throttle")
SUSPENDED = Rejected("AccountSuspendedException", "suspended", "account")
REFUSED = Rejected("MessageRejected", "virus", "mail")
SILENCE = Unknown("connection lost")
UNCALLED = NotCalled("the licence had lapsed")


def requested(**fields: Any) -> EmailRequested:
    """A request to a@example.com unless told otherwise."""
    base: dict[str, Any] = {
        "message_id": MESSAGE_ID,
        "to": ["a@example.com"],
        "from_": "crm@example.com",
        "subject": "Hello",
        "category": "notification",
        "priority": "normal",
        "user_id": "u1",
        "expires_at": NOW + timedelta(days=3),
        "content": ContentRef(ref="c1", sha256="0" * 64, size=900),
        "request_hash": "h1",
    }
    return EmailRequested(**(base | fields))


class MailSpec:
    """One message's stream: `do` decides and appends, `data` lists what stands, `state` is its fold."""

    def __init__(self, *, policy: Policy = POLICY, now: datetime = NOW) -> None:
        self.now = now
        self.policy = policy
        self.stream = Stream.absent(MESSAGE_ID)
        self._ids = FakeIds()

    def do(self, *commands: Command) -> list[EventData]:
        """Decide and append each, a millisecond apart; returns the data of all that was appended."""
        appended: list[EventData] = []
        for command in commands:
            self.wait(milliseconds=1)
            drafts = decide(self.state, command, self.now, self.policy)
            self.append(drafts)
            appended.extend(draft.data for draft in drafts)
        return appended

    def append(self, drafts: tuple[Draft, ...]) -> None:
        """Append without asking anybody."""
        if drafts:
            events = stamp(
                self.stream, drafts, now=self.now, new_id=self._ids.new, source="mailroom/email", correlation="c"
            )
            self.stream = Stream.of(MESSAGE_ID, (*self.stream.events, *events))

    @property
    def state(self) -> State:
        return fold(self.stream.events)

    @property
    def message(self) -> Message:
        state = self.state
        assert isinstance(state, Message)
        return state

    @property
    def types(self) -> list[str]:
        return [event.type for event in self.stream.events]

    def wait(self, **duration: float) -> None:
        self.now += timedelta(**duration)

    def plan(self, *attempt_ids: str, provider: str = "ses") -> list[EventData]:
        """Attempt as many of those that are ready as ids are given."""
        waiting = ready(self.state, self.now, self.policy)
        assert len(waiting) >= len(attempt_ids), f"ready: {waiting}"
        return self.do(plan_for(zip(waiting, attempt_ids, strict=False), provider))

    def phase(self, address: str = "a@example.com") -> str:
        return type(self.message.deliveries[address]).__name__


def plan_for(pairs: Any, provider: str = "ses", reason: AttemptReason = "cheapest") -> PlanAttempts:
    return PlanAttempts([PlannedAttempt(address, attempt_id, provider, reason) for address, attempt_id in pairs])


def given(request: EmailRequested | None = None, *, policy: Policy = POLICY, **fields: Any) -> MailSpec:
    """A requested message."""
    spec = MailSpec(policy=policy)
    spec.do(Request(request or requested(**fields)))
    return spec


def heard(attempt_id: str, outcome: Any) -> RecordOutcome:
    if isinstance(outcome, Accepted):
        outcome = replace(outcome, provider_message_id=f"ses-{attempt_id}")
    return RecordOutcome(attempt_id, outcome)
