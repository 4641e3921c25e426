"""Messages in the event store: read, decided, appended in bulk, handed to the log.

What the intake, the sender, the settler and operators have in common. Nobody else stamps events of a message.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from contracts.base import EventData
from contracts.email.events import EmailFailed, EmailSendAttempted, EmailSendOutcomeUnknown
from contracts.envelope import Envelope
from services.email.domain.commands import Command
from services.email.domain.decisions import Drafts, decide, ready
from services.email.domain.message import Message, Policy, State, due_at, find_attempt, fold, lookups
from services.kit import metrics as m
from services.kit.clock import Clock, Ids
from services.kit.errors import MailroomError, PermanentError
from services.kit.event_store.port import (
    Append,
    Appended,
    EventStore,
    Lease,
    Stream,
    StreamIndex,
    has_grown,
    is_race,
    stamp,
)
from services.kit.logs import get_logger
from services.kit.metrics import Metrics

log = get_logger(__name__)

SOURCE = "/mailroom/email"
TRIES = 8
"""How often a lost race is run again before it is somebody else's turn."""


@dataclass(frozen=True, slots=True)
class Held:
    """A message as this process last saw it: its stream, and the state folded from it."""

    stream: Stream
    state: State

    @property
    def message_id(self) -> str:
        """The stream's id."""
        return self.stream.stream_id

    @property
    def message(self) -> Message:
        """The state of a message that was requested. AssertionError where it was not: a bug."""
        assert isinstance(self.state, Message)  # noqa: S101
        return self.state


@dataclass(frozen=True, slots=True)
class Step:
    """Drafts to be appended to a message as it was held.

    `lease`: take the lease in the same compare-and-set. `keep_lease`: leave somebody's lease as it is. Neither: the
    stream is free afterwards. `correlation` and `traceparent` matter for a stream's first event; later ones carry on.
    """

    held: Held
    drafts: Drafts
    lease: Lease | None = None
    keep_lease: bool = False
    correlation: str | None = None
    traceparent: str | None = None


StepResult = Held | MailroomError
"""What the append made of the message, or why it did not stand (as `EventStore.append_many`)."""


class MessageStreams:
    """Reads and appends messages. `publish` is told of every confirmed append; it must not block."""

    def __init__(
        self,
        store: EventStore,
        clock: Clock,
        ids: Ids,
        policy: Policy,
        publish: Callable[[Iterable[Stream]], None],
        metrics: Metrics | None = None,
    ) -> None:
        self.store, self.policy = store, policy
        self._clock, self._ids, self._publish, self._metrics = clock, ids, publish, metrics

    async def load_many(self, message_ids: Collection[str]) -> dict[str, Held | PermanentError]:
        """Every message, absent ones too; PermanentError `unreadableStream` for one that this build cannot read.

        Raises Unavailable.
        """
        streams = await self.store.load_many(message_ids)
        return {stream_id: hold(stream) for stream_id, stream in streams.items()}

    async def load(self, message_id: str) -> Held:
        """One message. Raises Unavailable, PermanentError `unreadableStream`."""
        held = hold(await self.store.load(message_id))
        if isinstance(held, PermanentError):
            raise held
        return held

    def decide(self, held: Held, *commands: Command) -> Drafts:
        """What follows from the commands, one after the other, at this moment. Raises what `decide` raises."""
        now, state = self._clock.now(), held.state
        drafts: Drafts = ()
        for command in commands:
            new = decide(state, command, now, self.policy)
            state = fold((_Tried(draft.data, now, draft.actor) for draft in new), state)
            drafts += new
        return drafts

    def ready(self, state: State, without: Collection[str] = ()) -> tuple[str, ...]:
        """Who may be attempted at this moment, see `decisions.ready`."""
        return ready(state, self._clock.now(), self.policy, without)

    def preview(self, held: Held, drafts: Drafts) -> State:
        """The state that these drafts would make of the message, appended now."""
        now = self._clock.now()
        return fold((_Tried(draft.data, now, draft.actor) for draft in drafts), held.state)

    async def append(self, steps: Sequence[Step]) -> list[StepResult]:
        """Append all that have drafts, in one bulk; the others come back as they are. Confirmed ones are published.

        A stream may be named once. Raises nothing but a cancellation, after which the outcomes are unknown. The result
        of an append whose answer was lost, and behind which stands what this build cannot read, is PermanentError
        `unreadableStream`.
        """
        writing = [(n, step, self._stamp(step)) for n, step in enumerate(steps) if step.drafts]
        results: list[StepResult] = [step.held for step in steps]
        appends: list[Append] = []
        states: list[State] = []
        for _, step, events in writing:
            state = fold(events, step.held.state)
            states.append(state)
            appends.append(
                Append(step.held.stream, events, self.index(state), keep_lease=step.keep_lease, lease=step.lease)
            )
        if not appends:
            return results
        confirmed: list[Stream] = []
        told = await self.store.append_many(appends)
        for (n, step, _), state, append, result in zip(writing, states, appends, told, strict=True):
            if isinstance(result, Appended):
                confirmed.append(result.stream)
                results[n] = hold(result.stream) if has_grown(append, result) else Held(result.stream, state)
                self._count(step.drafts, state)
            else:
                results[n] = result
        self._publish(confirmed)
        return results

    async def change(
        self, decisions: Mapping[str, Callable[[Held], Drafts]], *, keep_lease: bool = True
    ) -> dict[str, StepResult]:
        """Load each message, decide, append; again for those whose race was lost, or whose answer was.

        A decision must bear being asked again on a newer state. What it raises (PermanentError) becomes its result.
        Nothing decided is a success: the message comes back as it stands. Raises Unavailable when streams cannot be
        read; what could not be appended comes back as the error.
        """
        results: dict[str, StepResult] = {}
        open_ = dict(decisions)
        for _ in range(TRIES):
            steps: list[Step] = []
            for message_id, held in (await self.load_many(open_)).items():
                if isinstance(held, PermanentError):
                    results[message_id] = held
                    continue
                try:
                    steps.append(Step(held, open_[message_id](held), keep_lease=keep_lease))
                except PermanentError as error:
                    results[message_id] = error
            for step, result in zip(steps, await self.append(steps), strict=True):
                results[step.held.message_id] = result
            open_ = {m: decision for m, decision in open_.items() if is_race(results[m])}
            if not open_:
                break
        return results

    def index(self, state: State) -> StreamIndex:
        """By what a message in this state is found."""
        if not isinstance(state, Message):
            return StreamIndex()
        request = state.request
        due = due_at(state, self.policy)
        return StreamIndex(due, request.priority, lookups(state), request.user_id)

    def _count(self, drafts: Drafts, state: State) -> None:
        if self._metrics is None or not isinstance(state, Message):
            return
        for draft in drafts:
            if isinstance(draft.data, EmailFailed):
                self._metrics.inc(m.MESSAGES_FAILED, reason=draft.data.reason)
            elif isinstance(draft.data, EmailSendAttempted) and draft.data.reason == "resend":
                self._metrics.inc(m.RESENDS, provider=draft.data.provider)
            elif isinstance(draft.data, EmailSendOutcomeUnknown):
                attempt = find_attempt(state.deliveries[draft.data.recipient], draft.data.attempt_id)
                self._metrics.inc(m.OUTCOMES_UNKNOWN, provider=attempt.provider if attempt else "")

    def _stamp(self, step: Step) -> tuple[Envelope, ...]:
        stream = step.held.stream
        if stream.version:
            first = stream.events[0]
            correlation, traceparent = first.correlationid, first.traceparent
        else:
            correlation, traceparent = step.correlation or stream.stream_id, step.traceparent
        return stamp(
            stream,
            step.drafts,
            now=self._clock.now(),
            new_id=self._ids.new,
            source=SOURCE,
            correlation=correlation,
            traceparent=traceparent,
        )


def hold(stream: Stream) -> Held | PermanentError:
    """The message in a stream; PermanentError `unreadableStream`."""
    try:
        return Held(stream, fold(stream.events))
    except PermanentError as error:
        log.error("a stream cannot be read", aggregate_id=stream.stream_id, error=str(error))  # noqa: TRY400
        return error


@dataclass(frozen=True, slots=True)
class _Tried:
    data: EventData
    time: datetime
    actor: str | None
