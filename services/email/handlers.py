"""What entrypoints, the command line and the HTTP door ask of messages and recipients, beside sending.

Every function is safe to repeat, and returns only after what it decided is acknowledged by a majority.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from contracts.email.events import EmailUnsubscribed
from contracts.email.values import Category
from contracts.envelope import Envelope
from contracts.ids import fact_id, millis_text
from contracts.recipients.events import RecipientSuppressed, SuppressionReason
from services.email.domain import recipient as recipients
from services.email.domain.commands import SettleByOperator
from services.email.domain.correlation import Correlation
from services.email.domain.delayed_bounces import (
    MOST_STREAMS,
    Candidate,
    DelayedBounce,
    lookup_values,
    the_one,
    within_window,
)
from services.email.domain.message import (
    UNKNOWN_OUTCOME,
    Attempt,
    Message,
    OutcomeUnknown,
    lookup_key,
    recipient_of,
)
from services.email.domain.notifications import InboundMail
from services.email.domain.recipient import Recipient, Suppress, Unsuppress
from services.email.domain.unsubscribe import UnsubscribeClaims, UnsubscribeSource, UnsubscribeTokens
from services.email.ports import RecipientKeys
from services.email.streams import SOURCE, TRIES, Held, MessageStreams, StepResult, hold
from services.kit.clock import Clock, Ids
from services.kit.errors import MailroomError, PermanentError, TransientError
from services.kit.event_store.port import Append, Appended, EventStore, Stream, StreamIndex, is_race, stamp
from services.kit.logs import get_logger

log = get_logger(__name__)

SUPPRESSED = "suppressed"
"""The look-up value of recipients for whom something holds."""

# --- recipients --------------------------------------------------------------------------------------------------


class RecipientStreams:
    """Suppression and consent, one stream per recipient key."""

    def __init__(
        self,
        store: EventStore,
        keys: RecipientKeys,
        clock: Clock,
        ids: Ids,
        publish: Callable[[Iterable[Stream]], None],
    ) -> None:
        self._store, self._keys, self._clock, self._ids, self._publish = store, keys, clock, ids, publish

    def key(self, address: str) -> str:
        """The recipient's key, the id of the stream."""
        return self._keys.key(address)

    async def load_many(self, keys: Collection[str]) -> dict[str, Recipient]:
        """Every recipient's state. Raises Unavailable; TransientError where one cannot be read: nobody sends then."""
        found = await self._store.load_many(keys)
        try:
            return {key: recipients.fold(stream.events) for key, stream in found.items()}
        except PermanentError as error:
            raise TransientError(f"a recipient's stream cannot be read by this build: {error.reason}") from error

    async def suppressed(
        self, after: str | None, limit: int, now: datetime
    ) -> tuple[list[tuple[str, Holding]], str | None]:
        """What holds for everybody: (address, suppression) of at most `limit` recipients, and where to go on, if there
        is more. Leaves out whose stream this build cannot read. Raises Unavailable.
        """
        streams = await self._store.list_by_lookup(SUPPRESSED, after, limit)
        found: list[tuple[str, Holding]] = []
        for stream in streams:
            try:
                state = recipients.fold(stream.events)
            except PermanentError as error:
                log.error("a stream cannot be read", aggregate_id=stream.stream_id, error=str(error))  # noqa: TRY400
                continue
            address = next(e.data.address for e in reversed(stream.events) if isinstance(e.data, RecipientSuppressed))
            found += [(address, each) for each in _holdings(state, now)]
        return found, streams[-1].stream_id if len(streams) == limit else None

    async def change(
        self, commands: Mapping[str, Sequence[recipients.Command]]
    ) -> dict[str, Recipient | MailroomError]:
        """Decide and append for each key, again where a race was lost; an error stands for what did not succeed, among
        them PermanentError `unreadableStream` for a stream that this build cannot read.

        Raises Unavailable.
        """
        results: dict[str, Recipient | MailroomError] = {}
        going = dict(commands)
        for _ in range(TRIES):
            appends: list[Append] = []
            states: list[Recipient] = []
            for key, stream in (await self._store.load_many(going)).items():
                try:
                    state, events = self._decide(key, stream, going[key])
                except PermanentError as error:
                    results[key] = error
                    continue
                results[key] = state
                if events:
                    appends.append(Append(stream, events, _index(state), keep_lease=True))
                    states.append(state)
            outcomes = await self._store.append_many(appends) if appends else []
            for append, outcome in zip(appends, outcomes, strict=True):
                if not isinstance(outcome, Appended):
                    results[append.stream.stream_id] = outcome
            self._publish([outcome.stream for outcome in outcomes if isinstance(outcome, Appended)])
            going = {key: found for key, found in going.items() if is_race(results[key])}
            if not going:
                break
        return results

    def _decide(
        self, key: str, stream: Stream, commands: Sequence[recipients.Command]
    ) -> tuple[Recipient, tuple[Envelope, ...]]:
        state = recipients.fold(stream.events)
        events: tuple[Envelope, ...] = ()
        now = self._clock.now()
        for command in commands:
            drafts = recipients.decide(key, state, command, now)
            grown = Stream.of(key, (*stream.events, *events)) if events else stream
            new = stamp(grown, drafts, now=now, new_id=self._ids.new, source=SOURCE, correlation=key)
            state = recipients.fold(new, state)
            events += new
        return state, events


@dataclass(frozen=True, slots=True)
class Holding:
    """One suppression that holds now, for people."""

    scope: str
    reason: SuppressionReason
    cause: str
    until: datetime | None


async def suppressions_of(streams: RecipientStreams, address: str, now: datetime) -> list[Holding]:
    """What holds for an address now. Raises Unavailable."""
    key = streams.key(address)
    return _holdings((await streams.load_many([key]))[key], now)


def _holdings(state: Recipient, now: datetime) -> list[Holding]:
    return [
        Holding(scope, each.reason, each.cause, each.until)
        for scope, found in sorted(state.active.items())
        for each in found
        if each.until is None or each.until > now
    ]


def _index(state: Recipient) -> StreamIndex:
    """A recipient for whom something holds, or held until a time, is found among the suppressed."""
    return StreamIndex(lookup=(SUPPRESSED,) if any(state.active.values()) else ())


async def suppress(
    streams: RecipientStreams, address: str, scope: str, *, cause: str, now: datetime, actor: str,
    until: datetime | None = None,
) -> None:  # fmt: skip
    """An operator's word; `cause` is an id of theirs (the same one suppresses once). Raises what did not succeed."""
    command = Suppress(address, scope, "manual", f"manual:{cause}", now, until=until, actor=actor)
    await _one(streams, address, command)


async def unsuppress(streams: RecipientStreams, address: str, scope: str, *, reason: str, actor: str) -> None:
    """Lift a whole scope. Lifting it at the provider too is the caller's second step. Raises what did not succeed."""
    await _one(streams, address, Unsuppress(address, scope, reason, actor))


async def _one(streams: RecipientStreams, address: str, command: recipients.Command) -> None:
    key = streams.key(address)
    result = (await streams.change({key: [command]}))[key]
    if isinstance(result, MailroomError):
        raise result


async def unsubscribe(
    messages: MessageStreams,
    streams: RecipientStreams,
    claims: UnsubscribeClaims,
    source: UnsubscribeSource,
    now: datetime,
) -> Envelope | None:
    """Somebody pressed "unsubscribe": the suppression stands when this returns.

    Returns the fact for the log, whose id is the suppression's cause; None where the message is not known to us (any
    more), so that there is no address to suppress and nothing was done.
    """
    fact = await _unsubscribed(messages, streams, claims, source, now)
    if fact is None:
        return None
    command = recipients.from_fact(fact)
    assert isinstance(command, Suppress)  # noqa: S101 - this type always means that
    await _one(streams, command.address, replace(command, happened_at=None))
    return fact


class MailedUnsubscribes:
    """What mails to us ask for. The fact is all that is made here: the settler suppresses, as after any fact."""

    def __init__(self, messages: MessageStreams, keys: RecipientKeys, tokens: UnsubscribeTokens) -> None:
        self._messages, self._keys, self._tokens = messages, keys, tokens

    async def fact(self, mail: InboundMail) -> Envelope | None:
        """The unsubscribe that a mail is, its id a function of the token and of when the provider took the mail; None
        without a valid token. Raises Unavailable; PermanentError `unknownMessage`, `unreadableStream`.
        """
        claims = self._tokens.find(mail.subject)
        if claims is None:
            return None
        fact = await _unsubscribed(self._messages, self._keys, claims, "mailto", mail.received_at)
        if fact is None:
            raise PermanentError("unknownMessage", "the message of this unsubscribe token is not known here (any more)")
        return fact


async def _unsubscribed(
    messages: MessageStreams, keys: RecipientKeys, claims: UnsubscribeClaims, source: UnsubscribeSource, at: datetime
) -> Envelope | None:
    """The fact; None where the message, or a recipient of it with this key, is not known."""
    held = await messages.load(claims.message_id)
    if not isinstance(held.state, Message):
        return None
    address = next((a for a in held.state.deliveries if keys.key(a) == claims.recipient_key), None)
    if address is None:
        return None
    return Envelope(
        id=fact_id("mailroom", claims.message_id, "email.unsubscribed", address, claims.scope, millis_text(at)),
        source=SOURCE,
        type="email.unsubscribed",
        subject=claims.message_id,
        time=at,
        correlationid=held.stream.events[0].correlationid,
        revision=1,
        data=EmailUnsubscribed(recipient=address, list_id=claims.list_id, source=source),
    )


# --- messages ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class UnknownAttempt:
    """An attempt without an answer, for the operator who will find out."""

    message_id: str
    attempt_id: str
    recipient: str
    provider: str
    begun_at: datetime
    category: Category
    can_be_settled_from: datetime


async def resolve_unknown(
    streams: MessageStreams,
    message_id: str,
    attempt_id: str,
    outcome: Literal["accepted", "notAccepted"],
    *,
    evidence: str,
    actor: str,
) -> Held:
    """An operator found out what came of an unknown attempt. "Not accepted" allows another attempt.

    Raises:
        PermanentError: `notUnknown`, or `callMayBeUnderWay` while the lease and the call's time limit last.
        TransientError: not recorded, or nobody knows; repeating it is safe.
    """
    command = SettleByOperator(attempt_id, outcome, evidence, actor)
    result: StepResult = (
        await streams.change({message_id: lambda held: streams.decide(held, command)}, keep_lease=False)
    )[message_id]
    if isinstance(result, MailroomError):
        raise result
    if not isinstance(result.state, Message):
        raise PermanentError("notUnknown", "there is no such message")
    return result


async def list_unknown(
    streams: MessageStreams, after: str | None = None, limit: int = 100
) -> tuple[list[UnknownAttempt], str | None]:
    """Attempts that wait for somebody's word, and where the next page begins (None: no more). Raises Unavailable."""
    found = await streams.store.list_by_lookup(UNKNOWN_OUTCOME, after, limit)
    helds = [hold(stream) for stream in found]
    attempts = [each for held in helds if isinstance(held, Held) for each in unknown_attempts(held, streams)]
    return attempts, found[-1].stream_id if len(found) == limit else None


def unknown_attempts(held: Held, streams: MessageStreams) -> list[UnknownAttempt]:
    """The attempts of a message that wait for somebody's word."""
    if not isinstance(held.state, Message):
        return []
    return [
        UnknownAttempt(
            held.message_id,
            attempt.attempt_id,
            delivery.recipient,
            attempt.provider,
            attempt.begun_at,
            held.state.request.category,
            attempt.begun_at + streams.policy.call_window,
        )
        for delivery in held.state.deliveries.values()
        if isinstance(delivery, OutcomeUnknown)
        for attempt in delivery.attempts
        if attempt.unanswered
    ]


class StreamLookup:
    """Finds the attempt that a provider's message id belongs to, in the streams' index."""

    def __init__(self, streams: MessageStreams) -> None:
        self._streams = streams

    async def by_provider_message_id(self, provider: str, provider_message_id: str) -> Correlation | None:
        """The message, attempt and recipient; None where no stream knows the id (yet). Raises TransientError."""
        message_id = await self._streams.store.find_by_lookup(lookup_key(provider, provider_message_id))
        if message_id is None:
            return None
        held = await self._streams.load(message_id)
        attempts: Iterable[Attempt] = (
            attempt
            for delivery in (held.state.deliveries.values() if isinstance(held.state, Message) else ())
            for attempt in delivery.attempts
        )
        found = next((each for each in attempts if each.provider_message_id == provider_message_id), None)
        if found is None:
            return Correlation(message_id)
        return Correlation(message_id, found.attempt_id, _recipient(held, found.attempt_id))

    async def by_address(self, provider: str, report: DelayedBounce) -> Correlation | str:
        """The attempt that a report without any id is about; a sentence where that is not certain (yet). Raises
        TransientError.
        """
        try:
            key = self._streams.keys.key(report.address)
        except ValueError:
            return "it names nothing but an address that is none"
        candidates: list[Candidate] = []
        for value in lookup_values(provider, key, report.at):
            streams = await self._streams.store.list_by_lookup(value, None, MOST_STREAMS)
            if len(streams) == MOST_STREAMS:
                return f"it names an address alone, to which at least {MOST_STREAMS} mails went in a week"
            for stream in streams:
                held = hold(stream)
                if isinstance(held, PermanentError):
                    return "it names an address alone, and the stream of a mail to it cannot be read by this build"
                candidates += self._candidates(held, key, provider, report.at)
        found = the_one(candidates)
        if isinstance(found, str):
            return found
        return Correlation(found.message_id, found.attempt_id, found.recipient)

    def _candidates(self, held: Held, key: str, provider: str, at: datetime) -> list[Candidate]:
        deliveries = held.state.deliveries.values() if isinstance(held.state, Message) else ()
        return [
            Candidate(held.message_id, attempt.attempt_id, delivery.recipient, attempt.accepted)
            for delivery in deliveries
            if self._streams.keys.key(delivery.recipient) == key
            for attempt in delivery.attempts
            if attempt.provider == provider and not attempt.refused and within_window(provider, attempt.begun_at, at)
        ]

    async def recipients(self, attempts: Collection[Correlation]) -> dict[Correlation, str]:
        """Whose attempts they are, in one read; those that no stream here tells of are left out. Raises
        TransientError.
        """
        helds = await self._streams.load_many({each.message_id for each in attempts})
        found = {each: _recipient(helds[each.message_id], each.attempt_id) for each in attempts}
        return {each: recipient for each, recipient in found.items() if recipient is not None}

    async def attempt(self, provider: str, named: Correlation) -> Correlation | None:
        """The attempt with these ids at this provider, with its recipient; None where no stream has it. Raises
        TransientError.
        """
        held = await self._streams.load(named.message_id)
        for delivery in held.state.deliveries.values() if isinstance(held.state, Message) else ():
            for attempt in delivery.attempts:
                if (attempt.attempt_id, attempt.provider) == (named.attempt_id, provider):
                    return Correlation(named.message_id, attempt.attempt_id, recipient=delivery.recipient)
        return None


def _recipient(held: Held | PermanentError, attempt_id: str | None) -> str | None:
    if attempt_id is None or not isinstance(held, Held) or not isinstance(held.state, Message):
        return None
    return recipient_of(held.state, attempt_id)
