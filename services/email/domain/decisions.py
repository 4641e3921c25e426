"""What a message decides: `decide(state, command, now, policy)` → drafts of events. Pure and total.

The one rule above all: `EmailSendAttempted` is drafted only for a delivery that is Queued, and nothing makes a delivery
Queued again but an answer that says "not taken", the holder's own "not called", or an operator's word. So of all the
processes that ever decide on a stream, one at a time holds a licence to call for a recipient. The one exception is
`resend_at`: mail of a category that the operators named is sent once more where an outcome stays unknown.

An expected failure is an event; a broken rule (a plan for a delivery that is not ready) raises PermanentError.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from zlib import crc32

from contracts.email.events import (
    EmailAttemptSettled,
    EmailCancelled,
    EmailFailed,
    EmailSendAttempted,
    EmailSendOutcomeUnknown,
    EmailSendRejected,
    EmailSent,
    FailureReason,
)
from services.email.domain.commands import (
    Cancel,
    Command,
    Expire,
    Fail,
    PlanAttempts,
    RecordOutcome,
    Request,
    SettleByFact,
    SettleByOperator,
    TimeOut,
)
from services.email.domain.message import (
    Absent,
    Attempt,
    Delivery,
    Failed,
    Message,
    Open,
    OutcomeUnknown,
    Policy,
    Queued,
    Sent,
    State,
    blocked,
    find_attempt,
    recipient_of,
    resend_at,
    unknown_after,
)
from services.email.domain.outcomes import Accepted, NotCalled, Rejected, Unknown
from services.kit.actors import may_change
from services.kit.errors import PermanentError
from services.kit.event_store.port import Draft

WAVE = 10
"""At most so many recipients of one message are attempted at a time."""

NOT_CALLED = "notCalled"


Drafts = tuple[Draft, ...]


def decide(state: State, command: Command, now: datetime, policy: Policy) -> Drafts:
    """The events that follow from `command`; none when there is nothing (more) to say.

    Raises:
        PermanentError: `conflictingRepeat` (another request under this id), `notReady` (a plan for a delivery that may
            not be attempted), `notUnknown`, `callMayBeUnderWay` (an operator settles what cannot be settled).
    """
    if isinstance(command, Request):
        return _request(state, command)
    if isinstance(state, Absent):
        return _remember(state, command) if isinstance(command, Cancel) else ()
    match command:
        case Cancel():
            return _cancel(state, command)
        case PlanAttempts():
            return _plan(state, command, now, policy)
        case RecordOutcome():
            return _record(state, command, now, policy)
        case TimeOut():
            return _time_out(state, now, policy)
        case Expire():
            return _fail_queued(state, "expired", None) if now >= state.request.expires_at else ()
        case SettleByFact():
            return _settle_by_fact(state, command)
        case SettleByOperator():
            return _settle_by_operator(state, command, now, policy)
        case Fail():
            return _fail_queued(state, command.reason, command.detail)


def ready(state: State, now: datetime, policy: Policy, without: Collection[str] = ()) -> tuple[str, ...]:
    """Who may be attempted now: at most a wave of all but those in `without`, and nobody while a wave is open.

    The same providers are `blocked` for all of them; those of an unknown outcome come last.
    """
    if isinstance(state, Absent):
        return ()
    waiting = [each for each in _waiting(state, now, policy) if each not in without]
    barred = {each: blocked(state.deliveries[each]) for each in waiting}
    first = min(waiting, key=lambda each: len(barred[each]), default=None)
    return tuple(each for each in waiting if first is not None and barred[each] == barred[first])[:WAVE]


def _waiting(state: Message, now: datetime, policy: Policy) -> tuple[str, ...]:
    """Everybody who waits for an attempt and may have it now."""
    if state.cancelled or now >= state.request.expires_at:
        return ()
    if any(isinstance(delivery, Open) for delivery in state.deliveries.values()):
        return ()
    return tuple(d.recipient for d in state.deliveries.values() if _may_be_attempted(state, d, now, policy))


def _may_be_attempted(state: Message, delivery: Delivery, now: datetime, policy: Policy) -> bool:
    if isinstance(delivery, OutcomeUnknown):
        again = resend_at(state, delivery, policy)
        return again is not None and again <= now < delivery.since + unknown_after(state, policy)
    return isinstance(delivery, Queued) and delivery.not_before <= now


def backoff(spent: int, salt: str, policy: Policy) -> timedelta:
    """The pause after a delivery's `spent`-th throttled attempt: doubled each time, its later half by salt."""
    doubled: int = 2 ** min(spent - 1, 30)
    whole = min(policy.longest_backoff, policy.first_backoff * doubled)
    return whole * (0.5 + crc32(salt.encode()) / 2**33)


# --- the request and its cancelling ------------------------------------------------------------------------------


def _request(state: State, command: Request) -> Drafts:
    request = command.request
    if isinstance(state, Message):
        if state.request.request_hash != request.request_hash:
            raise PermanentError("conflictingRepeat", "this messageId was requested before with other content")
        return ()
    accepted = Draft(request, causation=command.causation, actor=command.actor)
    failure = command.failure
    if failure is None:
        cancel = next((each for each in state.cancels if may_change(each.actor, request.user_id)), None)
        failure = None if cancel is None else ("cancelled", cancel.reason or "")
    if failure is None:
        return (accepted,)
    reason, detail = failure
    return (accepted, *(_failed(address, reason, detail or None) for address in request.recipients))


def _remember(state: Absent, command: Cancel) -> Drafts:
    if any(each.actor == command.actor for each in state.cancels):
        return ()
    return (Draft(EmailCancelled(reason=command.reason), causation=command.causation, actor=command.actor),)


def can_be_stopped(state: Message) -> bool:
    """Whether a cancel would still change something: somebody is queued, or might be again."""
    return not state.cancelled and any(
        isinstance(delivery, Queued | Open | OutcomeUnknown) for delivery in state.deliveries.values()
    )


def _cancel(state: Message, command: Cancel) -> Drafts:
    if not can_be_stopped(state) or not may_change(command.actor, state.request.user_id):
        return ()
    cancelled = Draft(EmailCancelled(reason=command.reason), causation=command.causation, actor=command.actor)
    return (cancelled, *_fail_queued(state, "cancelled", command.reason))


def _fail_queued(state: Message, reason: FailureReason, detail: str | None) -> Drafts:
    return tuple(_failed(d.recipient, reason, detail) for d in state.deliveries.values() if isinstance(d, Queued))


def _failed(recipient: str, reason: FailureReason, detail: str | None = None) -> Draft:
    return Draft(EmailFailed(recipient=recipient, reason=reason, detail=detail))


# --- attempts ----------------------------------------------------------------------------------------------------


def _plan(state: Message, command: PlanAttempts, now: datetime, policy: Policy) -> Drafts:
    allowed = _waiting(state, now, policy)
    wanted = [planned.recipient for planned in command.attempts] + list(command.suppressed)
    if len(wanted) > WAVE:
        raise PermanentError("notReady", f"{len(wanted)} recipients are more than a wave")
    if len(set(wanted)) != len(wanted) or not set(wanted) <= set(allowed):
        raise PermanentError("notReady", "a recipient is planned twice, or may not be attempted now")
    for planned in command.attempts:
        delivery = state.deliveries[planned.recipient]
        if planned.provider in blocked(delivery):
            raise PermanentError("notReady", f"{planned.provider} may have taken an earlier attempt")
        if (planned.reason == "resend") != isinstance(delivery, OutcomeUnknown):
            raise PermanentError("notReady", "an attempt says resend and no outcome is unknown, or the reverse")
    if any(isinstance(state.deliveries[each], OutcomeUnknown) for each in command.suppressed):
        raise PermanentError("notReady", "a recipient whose outcome is unknown does not fail as suppressed")
    known = {attempt.attempt_id for delivery in state.deliveries.values() for attempt in delivery.attempts}
    if known & {planned.attempt_id for planned in command.attempts}:
        raise PermanentError("notReady", "an attempt id is used for a second time")
    licences = [
        Draft(
            EmailSendAttempted(
                attempt_id=planned.attempt_id,
                recipient=planned.recipient,
                provider=planned.provider,
                reason=planned.reason,
                considered=list(planned.considered) or None,
            )
        )
        for planned in command.attempts
    ]
    return (*(_failed(who, "suppressed", why) for who, why in command.suppressed.items()), *licences)


def _record(state: Message, command: RecordOutcome, now: datetime, policy: Policy) -> Drafts:
    recipient = recipient_of(state, command.attempt_id)
    if recipient is None:
        return ()
    delivery = state.deliveries[recipient]
    attempt = find_attempt(delivery, command.attempt_id)
    if attempt is None or attempt.answer is not None:
        return ()
    match command.outcome:
        case Accepted() as yes:
            sent = EmailSent(
                attempt_id=attempt.attempt_id,
                recipient=recipient,
                provider=attempt.provider,
                provider_message_id=yes.provider_message_id,
                size=yes.size,
                cost=yes.cost.money,
                price_version=yes.cost.price_version,
                attachment_bytes=yes.cost.attachment_bytes or None,
            )
            return (Draft(sent),)
        case Unknown() as silence:
            return (_unknown(recipient, attempt, silence.detail),) if attempt.open else ()
        case Rejected() | NotCalled() as no:
            return _refused(state, delivery, attempt, no, now, policy, elsewhere=command.elsewhere)


def _refused(
    state: Message,
    delivery: Delivery,
    attempt: Attempt,
    no: Rejected | NotCalled,
    now: datetime,
    policy: Policy,
    *,
    elsewhere: bool,
) -> Drafts:
    refusal = "notCalled" if isinstance(no, NotCalled) else no.kind
    code = NOT_CALLED if isinstance(no, NotCalled) else no.code
    # Only an attempt that the delivery waits for may lead to another one; a proof of acceptance stands against any no.
    waits = isinstance(delivery, Open | OutcomeUnknown) and attempt.settled is None
    unknown = _another_is_unanswered(delivery, attempt)
    end: FailureReason | None = None
    retry_at: datetime | None = None
    elsewhere = elsewhere and isinstance(no, Rejected)
    if waits and (attempt.resend or not unknown):
        end = _end_after(state, delivery, refusal, now, policy)
        retry_at = None if end else now + (timedelta() if elsewhere else _pause(delivery, attempt, no, policy))
    if unknown:
        end = None
    rejected = EmailSendRejected(
        attempt_id=attempt.attempt_id,
        recipient=delivery.recipient,
        code=code,
        detail=no.detail,
        next="giveUp" if retry_at is None else "failover" if elsewhere else "retry",
        refusal=refusal,
        retry_at=retry_at,
    )
    return (Draft(rejected),) if end is None else (Draft(rejected), _failed(delivery.recipient, end, code))


def _another_is_unanswered(delivery: Delivery, attempt: Attempt) -> bool:
    """Whether another attempt of it may have been taken: then what this one came to does not end the delivery."""
    return any(each.unanswered for each in delivery.attempts if each.attempt_id != attempt.attempt_id)


def _end_after(state: Message, delivery: Delivery, refusal: str, now: datetime, policy: Policy) -> FailureReason | None:
    if refusal == "mail":
        return "rejected"
    if state.cancelled:
        return "cancelled"
    if now >= state.request.expires_at:
        return "expired"
    if refusal == "throttle" and delivery.spent + 1 >= policy.attempts_limit:
        return "attemptsExhausted"
    return None


def _pause(delivery: Delivery, attempt: Attempt, no: Rejected | NotCalled, policy: Policy) -> timedelta:
    if isinstance(no, NotCalled):
        return timedelta()
    asked = timedelta(seconds=no.retry_after or 0)
    if no.kind in ("account", "unreachable"):
        return asked  # the sender's circuit says when the provider is tried again
    return max(asked, backoff(delivery.spent + 1, attempt.attempt_id, policy))


def _unknown(recipient: str, attempt: Attempt, detail: str) -> Draft:
    return Draft(EmailSendOutcomeUnknown(attempt_id=attempt.attempt_id, recipient=recipient, detail=detail))


def _time_out(state: Message, now: datetime, policy: Policy) -> Drafts:
    drafts: list[Draft] = []
    for delivery in state.deliveries.values():
        drafts.extend(
            _unknown(delivery.recipient, attempt, "the time limit of the call is over and no answer was recorded")
            for attempt in delivery.attempts
            if attempt.open and attempt.begun_at + policy.call_window <= now
        )
        if isinstance(delivery, OutcomeUnknown) and delivery.since + unknown_after(state, policy) <= now:
            drafts.append(_failed(delivery.recipient, "outcomeUnknown"))
    return tuple(drafts)


# --- settling ----------------------------------------------------------------------------------------------------


def _settle_by_fact(state: Message, command: SettleByFact) -> Drafts:
    attempt = _attempt_proved(state, command)
    if attempt is None:
        return ()
    recipient = recipient_of(state, attempt.attempt_id)
    delivery = state.deliveries[recipient] if recipient else None
    # An answered attempt needs settling only where its delivery would go on as if nothing had been taken.
    if delivery is None or attempt.accepted or (isinstance(delivery, Sent) and not attempt.unanswered):
        return ()
    settled = EmailAttemptSettled(
        attempt_id=attempt.attempt_id,
        recipient=delivery.recipient,
        outcome="accepted",
        by="notification",
        evidence=command.fact_id,
        provider_message_id=command.provider_message_id,
        size=command.size if command.cost else None,
        cost=command.cost.money if command.cost else None,
        price_version=command.cost.price_version if command.cost else None,
        attachment_bytes=(command.cost.attachment_bytes or None) if command.cost else None,
    )
    return (Draft(settled, causation=command.fact_id),)


def _attempt_proved(state: Message, command: SettleByFact) -> Attempt | None:
    """The attempt that a fact is about: the one it names, else the recipient's one without an answer there."""
    if command.attempt_id is not None:
        owner = recipient_of(state, command.attempt_id)
        return None if owner is None else find_attempt(state.deliveries[owner], command.attempt_id)
    delivery = state.deliveries.get(command.recipient)
    if delivery is None:
        return None
    there = [attempt for attempt in delivery.attempts if attempt.provider == command.provider]
    if any(attempt.accepted for attempt in there):
        return None
    candidates = [attempt for attempt in there if attempt.unanswered] or there
    return candidates[-1] if candidates else None


def _settle_by_operator(state: Message, command: SettleByOperator, now: datetime, policy: Policy) -> Drafts:
    recipient = recipient_of(state, command.attempt_id)
    delivery = state.deliveries[recipient] if recipient else None
    attempt = find_attempt(delivery, command.attempt_id) if delivery else None
    if delivery is None or attempt is None or not attempt.unanswered:
        raise PermanentError("notUnknown", "this attempt does not exist or has an answer: there is nothing to settle")
    if attempt.begun_at + policy.call_window > now:
        raise PermanentError("callMayBeUnderWay", "the time limit of its call is not over yet: wait, then look again")
    settled = Draft(
        EmailAttemptSettled(
            attempt_id=attempt.attempt_id,
            recipient=delivery.recipient,
            outcome=command.outcome,
            by="operator",
            evidence=command.evidence,
        ),
        actor=command.actor,
    )
    if command.outcome == "accepted" or isinstance(delivery, Sent):
        return (settled,)
    if _another_is_unanswered(delivery, attempt):
        return (settled,)
    if isinstance(delivery, Failed):
        # It had ended, and its content may be gone: what was not taken is not sent after all.
        return (settled, _failed(delivery.recipient, "expired"))
    if state.cancelled:
        return (settled, _failed(delivery.recipient, "cancelled"))
    if now >= state.request.expires_at:
        return (settled, _failed(delivery.recipient, "expired"))
    return (settled,)
