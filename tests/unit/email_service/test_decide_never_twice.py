"""Under any interleaving of holders, outcomes, facts, time-outs, cancels, operators and crashes, no second call; or one
more, through another provider, where that was asked for.

The world has providers that take a mail, refuse it, or fall silent after either; several holders that decide on
what they last read and append by compare-and-set; and answers that arrive late, twice or never. An operator here says
the truth: "not accepted" only of an attempt whose call was refused, or never made and never will be.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from contracts.email.events import AttemptReason, EmailAttemptSettled, EmailFailed, EmailSendAttempted
from services.email.domain.commands import (
    Cancel,
    Command,
    Expire,
    PlanAttempts,
    PlannedAttempt,
    SettleByFact,
    SettleByOperator,
    TimeOut,
)
from services.email.domain.decisions import decide, ready
from services.email.domain.message import (
    Failed,
    Message,
    OutcomeUnknown,
    Policy,
    Queued,
    Sent,
    blocked,
    due_at,
    fold,
)
from services.email.domain.outcomes import Outcome
from services.kit.errors import PermanentError
from services.kit.event_store.port import Stream
from tests.unit.email_service.mail import (
    COST,
    MESSAGE_ID,
    NOW,
    POLICY,
    REFUSED,
    SILENCE,
    SUSPENDED,
    THROTTLED,
    UNCALLED,
    YES,
    given,
    heard,
    requested,
)

RECIPIENTS = ["a@example.com", "b@example.com"]
LICENCE = timedelta(seconds=5)
PROVIDERS = ("ses", "sendgrid", "mailgun")
RESENDING = Policy(resend=frozenset({"auth"}))


@dataclass
class Call:
    """One attempt as the world knows it."""

    attempt_id: str
    recipient: str
    provider: str
    resend: bool
    licensed_at: object
    holder_alive: bool = True
    called: bool = False
    taken: bool = False
    refused: bool = False


class Sending(RuleBasedStateMachine):
    """`self.read` is what a second, slower process last read of the stream: it decides on old news."""

    policy = POLICY
    category = "notification"

    def __init__(self) -> None:
        super().__init__()
        request = requested(to=RECIPIENTS, category=self.category, expires_at=NOW + timedelta(hours=30))
        self.mail = given(request, policy=self.policy)
        self.read: Stream = self.mail.stream
        self.calls: dict[str, Call] = {}
        self.count = 0

    # --- what processes do ---

    @rule()
    def somebody_reads(self) -> None:
        self.read = self.mail.stream

    @rule(confirmed=st.booleans(), stale=st.booleans(), data=st.data())
    def a_holder_plans(self, confirmed: bool, stale: bool, data: st.DataObject) -> None:
        stream = self.read if stale else self.mail.stream
        state = fold(stream.events)
        waiting = ready(state, self.mail.now, self.policy)
        if not waiting:
            return
        assert isinstance(state, Message)
        first = state.deliveries[waiting[0]]
        provider = data.draw(st.sampled_from([each for each in PROVIDERS if each not in blocked(first)]))
        reason: AttemptReason = "resend" if isinstance(first, OutcomeUnknown) else "cheapest"
        plan = PlanAttempts([PlannedAttempt(who, self._new_id(), provider, reason) for who in waiting])
        drafts = decide(state, plan, self.mail.now, self.policy)
        if not drafts or stream.version != self.mail.stream.version:
            return  # nobody to attempt, or the compare-and-set failed: no licence
        self.mail.append(drafts)
        for draft in drafts:
            assert isinstance(draft.data, EmailSendAttempted)
            licence = Call(
                draft.data.attempt_id,
                draft.data.recipient,
                provider,
                reason == "resend",
                self.mail.now,
                holder_alive=confirmed,
            )
            self.calls[licence.attempt_id] = licence

    @precondition(lambda self: any(c.holder_alive and not c.called for c in self.calls.values()))
    @rule(
        data=st.data(),
        taken=st.booleans(),
        refusal=st.sampled_from([THROTTLED, SUSPENDED, REFUSED]),
        hears=st.booleans(),
    )
    def a_holder_calls(self, data: st.DataObject, taken: bool, refusal: object, hears: bool) -> None:
        call = data.draw(st.sampled_from([c for c in self.calls.values() if c.holder_alive and not c.called]))
        if self.mail.now - call.licensed_at > LICENCE:  # type: ignore[operator]
            call.holder_alive, call.refused = False, True
            self._append(heard(call.attempt_id, UNCALLED))
            return
        call.called, call.taken = True, taken
        if hears:
            call.refused = not taken
            self._append(heard(call.attempt_id, YES if taken else refusal))
        elif data.draw(st.booleans()):
            self._append(heard(call.attempt_id, SILENCE))

    @rule(
        seconds=st.sampled_from([0, 31, 190]),
        answer=st.sampled_from([YES, SILENCE, SILENCE, REFUSED, THROTTLED, SUSPENDED]),
        taken=st.booleans(),
        data=st.data(),
    )
    def a_wave_is_sent_and_answered(self, seconds: float, answer: Outcome, taken: bool, data: st.DataObject) -> None:
        """What several rules above do, at once: without it few runs would come to a second attempt's answer."""
        self.mail.wait(seconds=seconds)
        before = len(self.calls)
        self.a_holder_plans(confirmed=True, stale=False, data=data)
        for call in list(self.calls.values())[before:]:
            call.called, call.taken = True, answer is YES or (answer is SILENCE and taken)
            call.refused = answer not in (YES, SILENCE)
            self._append(heard(call.attempt_id, answer))

    @precondition(lambda self: any(c.called for c in self.calls.values()))
    @rule(data=st.data())
    def an_answer_comes_late_or_again(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from([c for c in self.calls.values() if c.called]))
        call.refused = not call.taken
        self._append(heard(call.attempt_id, YES if call.taken else THROTTLED))

    @precondition(lambda self: any(c.holder_alive and not c.called for c in self.calls.values()))
    @rule(data=st.data(), crash=st.booleans())
    def a_holder_lets_go(self, data: st.DataObject, crash: bool) -> None:
        call = data.draw(st.sampled_from([c for c in self.calls.values() if c.holder_alive and not c.called]))
        call.holder_alive, call.refused = False, not crash
        if not crash:
            self._append(heard(call.attempt_id, UNCALLED))

    # --- what the world does ---

    @precondition(lambda self: any(c.taken for c in self.calls.values()))
    @rule(data=st.data(), named=st.booleans())
    def a_notification_arrives(self, data: st.DataObject, named: bool) -> None:
        call = data.draw(st.sampled_from([c for c in self.calls.values() if c.taken]))
        attempt = call.attempt_id if named else None
        self._append(SettleByFact("f", call.recipient, call.provider, attempt, "ses-x", 900, COST))

    @precondition(lambda self: bool(self.calls))
    @rule(data=st.data())
    def an_operator_settles(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(list(self.calls.values())))
        if not call.called and call.holder_alive and self.mail.now - call.licensed_at <= LICENCE:  # type: ignore[operator]
            return  # only a liar could know
        outcome = "accepted" if call.taken else "notAccepted"
        try:
            self._append(SettleByOperator(call.attempt_id, outcome, "console", "admin:ops"))  # type: ignore[arg-type]
        except PermanentError as error:
            assert error.reason in ("notUnknown", "callMayBeUnderWay")  # noqa: PT017
            return
        call.refused = not call.taken
        if not call.called:
            call.holder_alive = False  # the licence lapsed long ago

    @rule(command=st.sampled_from([TimeOut(), TimeOut(), Expire(), Cancel("user:stranger")]))
    def somebody_tends(self, command: Command) -> None:
        self._append(command)

    @precondition(lambda self: self.count > 6)
    @rule(meant=st.integers(0, 5))
    def the_owner_cancels(self, meant: int) -> None:
        if meant == 0:
            self._append(Cancel("user:u1"))

    @rule(seconds=st.sampled_from([0.01, 2, 6, 31, 31, 190, 700, 700, 40_000]))
    def time_passes(self, seconds: float) -> None:
        self.mail.wait(seconds=seconds)

    # --- what must hold ---

    @invariant()
    def nobody_gets_it_twice(self) -> None:
        for recipient in RECIPIENTS:
            taken = [c for c in self.calls.values() if c.recipient == recipient and c.taken]
            assert sum(not c.resend for c in taken) <= 1
            assert len({c.provider for c in taken}) == len(taken)
            again = [c for c in self.calls.values() if c.recipient == recipient and c.resend and not c.refused]
            assert len(again) <= (1 if self.policy.resend else 0)

    @invariant()
    def nothing_is_sent_once_more_while_a_call_may_be_under_way(self) -> None:
        calls = list(self.calls.values())
        for n, again in enumerate(calls):
            for before in calls[:n]:
                if again.resend and before.recipient == again.recipient and before.holder_alive and not before.called:
                    assert before.licensed_at + LICENCE < again.licensed_at  # type: ignore[operator]

    @invariant()
    def one_licence_at_a_time(self) -> None:
        for recipient in RECIPIENTS:
            usable = [
                c
                for c in self.calls.values()
                if c.recipient == recipient
                and c.holder_alive
                and not c.called
                and self.mail.now - c.licensed_at <= LICENCE  # type: ignore[operator]
            ]
            assert len(usable) <= 1

    @invariant()
    def what_was_taken_is_not_queued(self) -> None:
        for call in self.calls.values():
            if call.taken:
                delivery = self._message.deliveries[call.recipient]
                assert not isinstance(delivery, Queued)
                if isinstance(delivery, Failed):
                    assert delivery.reason == "outcomeUnknown"

    @invariant()
    def what_is_sent_is_proven_and_stays(self) -> None:
        proven: set[str] = set()
        over: set[str] = set()
        for event in self.mail.stream.events:
            data = event.data
            if event.type == "email.sent" or (isinstance(data, EmailAttemptSettled) and data.outcome == "accepted"):
                proven.add(data.recipient)  # type: ignore[attr-defined]
            if isinstance(data, EmailSendAttempted | EmailFailed):
                assert data.recipient not in proven
            if isinstance(data, EmailSendAttempted):
                assert data.recipient not in over
            if isinstance(data, EmailFailed):
                over.add(data.recipient)
        sent = {who for who, d in self._message.deliveries.items() if isinstance(d, Sent)}
        assert sent == proven

    @invariant()
    def whoever_is_not_done_is_due(self) -> None:
        done = all(isinstance(d, Sent | Failed) for d in self._message.deliveries.values())
        assert done or due_at(self._message, self.policy) is not None

    # --- plumbing ---

    @property
    def _message(self) -> Message:
        return self.mail.message

    def _new_id(self) -> str:
        self.count += 1
        return f"t{self.count}"

    def _append(self, command: Command) -> None:
        self.mail.do(command)
        assert self.mail.stream.stream_id == MESSAGE_ID


class SendingOnceMore(Sending):
    """Mail of a category that is sent once more where an outcome stays unknown."""

    policy = RESENDING
    category = "auth"

    @rule(seconds=st.sampled_from([0.01, 2, 31, 190, 190, 190]))
    def time_passes(self, seconds: float) -> None:
        self.mail.wait(seconds=seconds)

    @initialize(answer=st.sampled_from([SILENCE, SILENCE, SILENCE, THROTTLED]), taken=st.booleans(), data=st.data())
    def it_begins_with_silence(self, answer: Outcome, taken: bool, data: st.DataObject) -> None:
        self.a_wave_is_sent_and_answered(seconds=0, answer=answer, taken=taken, data=data)


TestSending = Sending.TestCase
TestSending.settings = settings(max_examples=300, stateful_step_count=50, deadline=None)
TestSendingOnceMore = SendingOnceMore.TestCase
TestSendingOnceMore.settings = settings(max_examples=300, stateful_step_count=50, deadline=None)
