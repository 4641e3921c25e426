"""Who must not be written to: one stream per recipient key, in scopes `all`, `marketing` and `list:<id>`.

A suppression has a cause, and its id follows from it, so that hearing of one happening twice suppresses once. What an
operator lifted stays lifted against older news: a fact from before the scope's last `unsuppressed` changes nothing.
What somebody says to us now comes after everything in the stream, whatever any clock says. Pure: no clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import reduce

from contracts.email.events import (
    EmailBounced,
    EmailComplained,
    EmailComplaintWithdrawn,
    EmailRejected,
    EmailUnsubscribed,
)
from contracts.email.values import Category
from contracts.envelope import Envelope
from contracts.ids import suppression_id
from contracts.recipients.events import RecipientSuppressed, RecipientUnsuppressed, SuppressionReason
from services.kit.event_store.port import Draft

ALL = "all"
MARKETING = "marketing"
ON_PROVIDER_LIST = "OnAccountSuppressionList"
"""SES's sub-type of bounces and complaints that it made up itself because the address is on the account's list."""


@dataclass(frozen=True, slots=True)
class Suppression:
    """One reason not to write, until `until` (None = for good)."""

    cause: str
    reason: SuppressionReason
    until: datetime | None


@dataclass(frozen=True, slots=True)
class Recipient:
    """What is known of one recipient.

    Attributes:
        active: scope → suppressions in it, oldest first.
        known: ids of every suppression ever.
        lifted_at: scope → when the whole of it was lifted last.
        withdrawn_at: message id → until when complaints about it are withdrawn.
    """

    active: Mapping[str, tuple[Suppression, ...]] = field(default_factory=dict)
    known: frozenset[str] = frozenset()
    lifted_at: Mapping[str, datetime] = field(default_factory=dict)
    withdrawn_at: Mapping[str, datetime] = field(default_factory=dict)

    def suppression(self, scope: str, now: datetime) -> Suppression | None:
        """The oldest suppression of this scope that holds now."""
        return next((each for each in self.active.get(scope, ()) if each.until is None or each.until > now), None)

    def holds_for_good(self, scope: str) -> bool:
        """Whether a suppression of this scope has no end."""
        return any(each.until is None for each in self.active.get(scope, ()))

    def blocks(self, category: Category, list_id: str | None, now: datetime) -> SuppressionReason | None:
        """Why a mail of this category must not go to this recipient; None when it may."""
        scopes = [ALL]
        if category == "marketing":
            scopes += [MARKETING] if list_id is None else [MARKETING, list_scope(list_id)]
        found = (self.suppression(scope, now) for scope in scopes)
        return next((each.reason for each in found if each is not None), None)


@dataclass(frozen=True, slots=True)
class Suppress:
    """Something says not to write: `cause` names what, `happened_at` when by the clock of whoever reports it.

    None: it is said to us now, so that it comes after all that stands in the stream. So does what is `manual`, whenever
    the clock of the process that was told says.
    """

    address: str
    scope: str
    reason: SuppressionReason
    cause: str
    happened_at: datetime | None
    until: datetime | None = None
    causation: str | None = None
    actor: str | None = None


@dataclass(frozen=True, slots=True)
class Unsuppress:
    """A person says that the whole scope is lifted."""

    address: str
    scope: str
    reason: str
    actor: str | None = None


@dataclass(frozen=True, slots=True)
class WithdrawComplaint:
    """The recipient called the message not spam."""

    address: str
    message_id: str
    happened_at: datetime
    causation: str | None = None


Command = Suppress | Unsuppress | WithdrawComplaint


def list_scope(list_id: str) -> str:
    """The scope of one list."""
    return f"list:{list_id}"


def cause_of(message_id: str, fact_id: str) -> str:
    """The cause of a suppression that a fact about a message brings."""
    return f"{message_id}:{fact_id}"


def fold(events: Iterable[Envelope], state: Recipient | None = None) -> Recipient:
    """The state after these events of one recipient's stream."""
    return reduce(evolve, events, state or Recipient())


def evolve(state: Recipient, event: Envelope) -> Recipient:
    """The state after one event."""
    data = event.data
    if isinstance(data, RecipientSuppressed):
        added = (*state.active.get(data.scope, ()), Suppression(data.cause, data.reason, data.until))
        return replace(state, active={**state.active, data.scope: added}, known=state.known | {event.id})
    if not isinstance(data, RecipientUnsuppressed):
        return state
    if data.complaint_of is None:
        left = {scope: each for scope, each in state.active.items() if scope != data.scope}
        return replace(state, active=left, lifted_at={**state.lifted_at, data.scope: event.time})
    prefix = cause_of(data.complaint_of, "")
    kept = tuple(
        each
        for each in state.active.get(data.scope, ())
        if not (each.reason == "complaint" and each.cause.startswith(prefix))
    )
    return replace(
        state,
        active={**state.active, data.scope: kept},
        withdrawn_at={**state.withdrawn_at, data.complaint_of: data.happened_at or event.time},
    )


def decide(key: str, state: Recipient, command: Command, now: datetime) -> tuple[Draft, ...]:
    """The events that follow; none when nothing changes. `key` is the recipient's key, the id of the stream."""
    match command:
        case Suppress():
            return _suppress(key, state, command, now)
        case Unsuppress():
            if state.suppression(command.scope, now) is None:
                return ()
            lifted = RecipientUnsuppressed(address=command.address, scope=command.scope, reason=command.reason)
            return (Draft(lifted, actor=command.actor),)
        case WithdrawComplaint():
            known = state.withdrawn_at.get(command.message_id)
            if known is not None and known >= command.happened_at:
                return ()
            withdrawn = RecipientUnsuppressed(
                address=command.address,
                scope=ALL,
                reason="complaintWithdrawn",
                complaint_of=command.message_id,
                happened_at=command.happened_at,
            )
            return (Draft(withdrawn, causation=command.causation),)


def from_fact(event: Envelope) -> Command | None:
    """What a fact about a mail means for its recipient; None = nothing.

    A permanent bounce and a complaint stop everything. Where SES made them up because the address is on the account's
    own suppression list, the reason is `providerList`, since no mailbox has said anything. So it is where a provider
    did not try because of its own list, unless the recipient is there for having unsubscribed: that means marketing.
    """
    data = event.data
    if isinstance(data, EmailBounced):
        if data.bounce_type != "permanent":
            return None
        return _by_fact(event, data.recipient, ALL, _reason(data.bounce_sub_type, "hardBounce"))
    if isinstance(data, EmailComplained):
        return _by_fact(event, data.recipient, ALL, _reason(data.complaint_sub_type, "complaint"))
    if isinstance(data, EmailRejected):
        if data.suppressed_for is None:
            return None
        if data.suppressed_for == "unsubscribe":
            return _by_fact(event, data.recipient, MARKETING, "unsubscribed")
        return _by_fact(event, data.recipient, ALL, "providerList")
    if isinstance(data, EmailComplaintWithdrawn):
        return WithdrawComplaint(data.recipient, event.subject, event.time, event.id)
    if isinstance(data, EmailUnsubscribed):
        scope = MARKETING if data.list_id is None else list_scope(data.list_id)
        return _by_fact(event, data.recipient, scope, "unsubscribed")
    return None


def _by_fact(event: Envelope, address: str, scope: str, reason: SuppressionReason) -> Suppress:
    return Suppress(address, scope, reason, cause_of(event.subject, event.id), event.time, causation=event.id)


def _reason(sub_type: str | None, otherwise: SuppressionReason) -> SuppressionReason:
    return "providerList" if sub_type == ON_PROVIDER_LIST else otherwise


def _suppress(key: str, state: Recipient, command: Suppress, now: datetime) -> tuple[Draft, ...]:
    event_id = suppression_id(key, command.scope, command.cause)
    happened_at = None if command.reason == "manual" else command.happened_at
    if event_id in state.known or _is_before(happened_at, state.lifted_at.get(command.scope)):
        return ()
    if command.reason == "unsubscribed" and state.holds_for_good(command.scope):
        return ()  # people press the button more than once; beside what ends by itself their wish has to stand too
    withdrawn_at = state.withdrawn_at.get(command.cause.partition(":")[0])
    if command.reason == "complaint" and _is_before(happened_at, withdrawn_at):
        return ()
    suppressed = RecipientSuppressed(
        address=command.address,
        scope=command.scope,
        reason=command.reason,
        cause=command.cause,
        until=command.until,
    )
    return (Draft(suppressed, id=event_id, causation=command.causation, actor=command.actor),)


def _is_before(happened_at: datetime | None, lifted_at: datetime | None) -> bool:
    """Whether news is older than what lifted it; what is said now is not."""
    return happened_at is not None and lifted_at is not None and happened_at <= lifted_at
