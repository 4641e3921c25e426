"""A message's state, folded from its stream: one delivery per recipient, each in exactly one phase.

    Queued ──sendAttempted──▶ Open ──sendOutcomeUnknown──▶ OutcomeUnknown
      ▲ ▲                      │ │                           │ │      │
      │ └──sendRejected {retry}┘ └──sent, settled accepted─┐ │ │      └─failed {outcomeUnknown}─▶ Failed
      └────settled notAccepted, late sendRejected {retry}──┼─┘ │
    Sent ◀─────────────────────────────────────────────────┴───┘   Sent is reached from every phase, Failed too, and is
    Failed ◀── failed {…}                                          never left: what proves an acceptance stays proven.

Where the operators let mail of its category be sent once more, an unknown delivery becomes Open again by sendAttempted
{resend}, through another provider; should that one say no, it is as unknown as before.

Pure: no clock, no ids, no I/O. Facts are not in a stream; the decider hears of them as commands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import reduce
from typing import Literal, Protocol

from contracts.base import EventData
from contracts.email.events import (
    EmailAttemptSettled,
    EmailCancelled,
    EmailFailed,
    EmailRequested,
    EmailSendAttempted,
    EmailSendOutcomeUnknown,
    EmailSendRejected,
    EmailSent,
    FailureReason,
)


class Recorded(Protocol):
    """What folding needs of an event: an envelope has it, and so has a draft that is only being tried out."""

    @property
    def data(self) -> EventData:
        """What was decided."""
        ...

    @property
    def time(self) -> datetime:
        """When."""
        ...

    @property
    def actor(self) -> str | None:
        """Who asked for it."""
        ...


@dataclass(frozen=True, slots=True)
class Policy:
    """How long and how often; settings.

    Attributes:
        call_window: from the append of an attempt until its call cannot be under way any more: the licence's 5 s, the
            time limit of one call, and a margin.
        unknown_after: how long an attempt may stay unknown; `unknown_after_auth` for category auth.
        attempts_limit: how many throttled attempts one delivery may have; refusals of the account do not count.
        first_backoff, longest_backoff: the pause after the first throttled attempt, doubled up to the longest.
        files_within: how long a mail waits for files that it attaches by `fileId`.
        resend: categories whose mail is sent once more, through another provider, where an outcome stays unknown.
        resend_after, resend_after_urgent: how long it waits for a report before that, by priority.
    """

    call_window: timedelta = timedelta(seconds=30)
    unknown_after: timedelta = timedelta(hours=24)
    unknown_after_auth: timedelta = timedelta(minutes=10)
    attempts_limit: int = 12
    first_backoff: timedelta = timedelta(seconds=1)
    longest_backoff: timedelta = timedelta(minutes=10)
    files_within: timedelta = timedelta(minutes=2)
    resend: frozenset[str] = frozenset()
    resend_after: timedelta = timedelta(minutes=3)
    resend_after_urgent: timedelta = timedelta(seconds=45)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One licence to call, and what is known of it.

    Attributes:
        answer: what its caller heard.
        unknown_since: when it was written down that no answer came.
        settled: what a notification or an operator said of it.
        resend: it was made although another attempt's outcome was unknown.
    """

    attempt_id: str
    provider: str
    begun_at: datetime
    answer: Literal["accepted", "rejected"] | None = None
    unknown_since: datetime | None = None
    settled: Literal["accepted", "notAccepted"] | None = None
    provider_message_id: str | None = None
    resend: bool = False

    @property
    def accepted(self) -> bool:
        """Something proves that the provider took it."""
        return self.answer == "accepted" or self.settled == "accepted"

    @property
    def unanswered(self) -> bool:
        """Neither its caller nor anybody else has said what came of it."""
        return self.answer is None and self.settled is None

    @property
    def open(self) -> bool:
        """Its call may be under way."""
        return self.unanswered and self.unknown_since is None

    @property
    def refused(self) -> bool:
        """It was certainly not taken."""
        return not self.accepted and (self.answer == "rejected" or self.settled == "notAccepted")


Attempts = tuple[Attempt, ...]


@dataclass(frozen=True, slots=True)
class Queued:
    """May be attempted from `not_before` on. `spent`: throttled attempts so far."""

    recipient: str
    not_before: datetime
    attempts: Attempts = ()
    spent: int = 0


@dataclass(frozen=True, slots=True)
class Open:
    """The newest attempt is licensed and not answered."""

    recipient: str
    attempts: Attempts
    spent: int


@dataclass(frozen=True, slots=True)
class OutcomeUnknown:
    """An attempt got no answer, and the others were refused or got none either: not sent again unless somebody says
    that it was not taken, or by `resend_at`.

    Attributes:
        since: when the first of those without answer was written down.
        not_before: from when on it may be sent once more, as far as the answers so far say; None: never.
    """

    recipient: str
    attempts: Attempts
    spent: int
    since: datetime
    not_before: datetime | None


@dataclass(frozen=True, slots=True)
class Sent:
    """A provider took it, or something proves that one did."""

    recipient: str
    attempts: Attempts
    spent: int = 0


@dataclass(frozen=True, slots=True)
class Failed:
    """Over without acceptance, as far as is known."""

    recipient: str
    attempts: Attempts
    reason: FailureReason
    spent: int = 0


Delivery = Queued | Open | OutcomeUnknown | Sent | Failed


@dataclass(frozen=True, slots=True)
class RememberedCancel:
    """A cancel that came before its send, with who wanted it."""

    actor: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Absent:
    """Nothing was requested yet."""

    cancels: tuple[RememberedCancel, ...] = ()


@dataclass(frozen=True, slots=True)
class Message:
    """A requested message.

    Attributes:
        deliveries: recipient → delivery, in the order of the request; never changed in place.
        requested_at, requested_by: when, and the actor who asked.
    """

    request: EmailRequested
    deliveries: Mapping[str, Delivery]
    requested_at: datetime
    requested_by: str | None = None
    cancelled: bool = False


State = Absent | Message
INITIAL = Absent()


def fold(events: Iterable[Recorded], state: State = INITIAL) -> State:
    """`evolve` over all, in stream order."""
    return reduce(evolve, events, state)


def evolve(state: State, event: Recorded) -> State:
    """The state after one decision of the stream. What is not of this stream's types changes nothing."""
    data = event.data
    if isinstance(state, Absent):
        if isinstance(data, EmailRequested):
            first = data.send_at or event.time
            deliveries = {address: Queued(address, first) for address in data.recipients}
            return Message(data, deliveries, event.time, event.actor)
        if isinstance(data, EmailCancelled):
            return Absent((*state.cancels, RememberedCancel(event.actor, data.reason)))
        return state
    if isinstance(data, EmailCancelled):
        return replace(state, cancelled=True)
    if not isinstance(
        data,
        EmailSendAttempted
        | EmailSent
        | EmailSendRejected
        | EmailSendOutcomeUnknown
        | EmailAttemptSettled
        | EmailFailed,
    ):
        return state
    delivery = state.deliveries.get(data.recipient)
    if delivery is None:
        return state
    return replace(state, deliveries={**state.deliveries, data.recipient: _next_phase(delivery, data, event.time)})


def find_attempt(delivery: Delivery, attempt_id: str) -> Attempt | None:
    """The delivery's attempt of that id."""
    return next((attempt for attempt in delivery.attempts if attempt.attempt_id == attempt_id), None)


def recipient_of(state: Message, attempt_id: str) -> str | None:
    """Whose attempt it is; None when this message has no such attempt."""
    return next(
        (address for address, delivery in state.deliveries.items() if find_attempt(delivery, attempt_id)),
        None,
    )


def due_at(state: State, policy: Policy) -> datetime | None:
    """The earliest time at which any recipient needs something done; None when nothing will ever be needed.

    While a wave is open the others wait for it: nothing can be done for them before it is answered.
    """
    if isinstance(state, Absent):
        return None
    times = [
        attempt.begun_at + policy.call_window
        for delivery in state.deliveries.values()
        for attempt in delivery.attempts
        if attempt.open
    ]
    wave_is_open = any(isinstance(delivery, Open) for delivery in state.deliveries.values())
    for delivery in state.deliveries.values():
        if isinstance(delivery, Queued) and not wave_is_open:
            times.append(min(delivery.not_before, state.request.expires_at))
        elif isinstance(delivery, OutcomeUnknown):
            times.append(delivery.since + unknown_after(state, policy))
            again = resend_at(state, delivery, policy)
            if again is not None and not wave_is_open:
                times.append(again)
    return min(times, default=None)


def unknown_after(state: Message, policy: Policy) -> timedelta:
    """How long this message's attempts may stay unknown."""
    return policy.unknown_after_auth if state.request.category == "auth" else policy.unknown_after


def resend_at(state: Message, delivery: OutcomeUnknown, policy: Policy) -> datetime | None:
    """When an unknown delivery may be sent once more, through a provider that `blocked` does not name; None: never.

    At most one attempt of that kind may ever have been taken: once one has no answer or a yes there is no other.
    """
    request = state.request
    if state.cancelled or request.category not in policy.resend or delivery.not_before is None:
        return None
    if any(attempt.resend and not attempt.refused for attempt in delivery.attempts):
        return None
    wait = policy.resend_after_urgent if request.priority == "urgent" else policy.resend_after
    over = max(attempt.begun_at for attempt in delivery.attempts) + policy.call_window
    at = max(delivery.since + wait, delivery.not_before, over)
    ends = min(request.expires_at, delivery.since + unknown_after(state, policy))
    return at if at < ends else None


def blocked(delivery: Delivery) -> frozenset[str]:
    """Providers that may have taken it: none of them gets another attempt of it."""
    return frozenset(attempt.provider for attempt in delivery.attempts if not attempt.refused)


def files_until(state: Message, policy: Policy) -> datetime:
    """Until when it waits for files that it attaches by `fileId`; counted from what stands in its stream."""
    begin = state.requested_at
    return max(begin, state.request.send_at or begin) + policy.files_within


def is_live(state: State) -> bool:
    """Whether any recipient is queued, open or unknown: its content may still be needed."""
    return isinstance(state, Message) and any(
        isinstance(delivery, Queued | Open | OutcomeUnknown) for delivery in state.deliveries.values()
    )


def lookup_key(provider: str, provider_message_id: str) -> str:
    """Under which a notification without our ids finds its stream."""
    return f"{provider}:{provider_message_id}"


UNKNOWN_OUTCOME = "outcome:unknown"
"""Under which messages with an unknown attempt are found."""


def lookups(state: State) -> tuple[str, ...]:
    """By what a message is looked up: its attempts' provider ids in their order, and whether an outcome is unknown."""
    if isinstance(state, Absent):
        return ()
    unknown = any(isinstance(delivery, OutcomeUnknown) for delivery in state.deliveries.values())
    marker = (UNKNOWN_OUTCOME,) if unknown else ()
    return marker + tuple(
        lookup_key(attempt.provider, attempt.provider_message_id)
        for delivery in state.deliveries.values()
        for attempt in delivery.attempts
        if attempt.provider_message_id is not None
    )


# --- one delivery ------------------------------------------------------------------------------------------------

_AboutDelivery = (
    EmailSendAttempted | EmailSent | EmailSendRejected | EmailSendOutcomeUnknown | EmailAttemptSettled | EmailFailed
)


def _next_phase(delivery: Delivery, data: _AboutDelivery, time: datetime) -> Delivery:
    who, spent = delivery.recipient, delivery.spent
    if isinstance(data, EmailFailed):
        return delivery if isinstance(delivery, Sent) else Failed(who, delivery.attempts, data.reason, spent)
    if isinstance(data, EmailSendAttempted):
        begun = Attempt(data.attempt_id, data.provider, time, resend=data.reason == "resend")
        licensed = isinstance(delivery, OutcomeUnknown) if begun.resend else isinstance(delivery, Queued)
        return Open(who, (*delivery.attempts, begun), spent) if licensed else delivery
    attempts = tuple(
        _marked(attempt, data, time) if attempt.attempt_id == data.attempt_id else attempt
        for attempt in delivery.attempts
    )
    if isinstance(data, EmailSent) or (isinstance(data, EmailAttemptSettled) and data.outcome == "accepted"):
        return Sent(who, attempts, spent)
    if isinstance(data, EmailSendRejected) and data.refusal == "throttle":
        spent += 1
    # What is settled, and what waits for no attempt, just remembers.
    if not isinstance(delivery, Open | OutcomeUnknown) or attempts == delivery.attempts:
        return replace(delivery, attempts=attempts, spent=spent)
    since = [attempt.unknown_since for attempt in attempts if attempt.unanswered]
    if not since:
        not_before = data.retry_at if isinstance(data, EmailSendRejected) and data.retry_at is not None else time
        return Queued(who, not_before, attempts, spent)
    known = [each for each in since if each is not None]
    if len(known) < len(since):
        return Open(who, attempts, spent)
    again = time if isinstance(delivery, Open) else delivery.not_before
    if isinstance(data, EmailSendRejected) and data.attempt_id == attempts[-1].attempt_id:
        again = data.retry_at
    return OutcomeUnknown(who, attempts, spent, min(known), again)


def _marked(
    attempt: Attempt,
    data: EmailSent | EmailSendRejected | EmailSendOutcomeUnknown | EmailAttemptSettled,
    time: datetime,
) -> Attempt:
    if isinstance(data, EmailSent):
        return replace(attempt, answer="accepted", provider_message_id=data.provider_message_id)
    if isinstance(data, EmailSendRejected):
        return replace(attempt, answer="rejected")
    if isinstance(data, EmailSendOutcomeUnknown):
        return replace(attempt, unknown_since=attempt.unknown_since or time)
    settled = "accepted" if attempt.settled == "accepted" else data.outcome
    return replace(
        attempt, settled=settled, provider_message_id=attempt.provider_message_id or data.provider_message_id
    )
