"""The router over any providers, mail and limits: two processes plan turn by turn, and no attempt is a forbidden one.

The choice by itself is in `test_routing.py`. Here is what needs the planner around it: suppression, tokens, the limits
of a day, and attempts without an answer.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import chain, cycle

from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.email.events import Considered
from contracts.email.values import Category
from services.email.domain.capabilities import Capabilities
from services.email.domain.commands import PlannedAttempt, RecordOutcome
from services.email.domain.message import Open, Policy
from services.email.domain.outcomes import Outcome, Rejected, Unknown
from services.email.domain.routing import Wishes
from services.email.domain.warm_up import Ramp
from services.email.entrypoints.sender import Sender
from services.email.entrypoints.sender_work import Wave, Work
from services.email.streams import Held, Step
from services.kit.rate import burst
from services.kit.testing import FakeClock, FakeIds
from tests.unit.email_service.fakes import FakeProvider, Post
from tests.unit.email_service.mail import NOW, REFUSED, SILENCE, SUSPENDED, THROTTLED, YES

NAMES = ("ses", "sendgrid", "mailgun")
WARMED, OTHER = "new.example", "old.example"
TURNS = 8
OUTCOMES: tuple[Outcome, ...] = (YES, YES, YES, SILENCE, THROTTLED, SUSPENDED, REFUSED)


@dataclass(frozen=True)
class Account:
    """One provider: what it may send a second and a day (None: no limit), and whether it carries mail at all."""

    name: str
    rate: float
    daily: int | None
    carries: bool
    off: bool


@dataclass(frozen=True)
class Mail:
    domain: str
    category: Category
    recipients: int
    suppressed: int
    """The first so many of the recipients are suppressed."""

    urgent: bool


@dataclass(frozen=True)
class Plan:
    """A whole run: the same plan has the same end."""

    accounts: tuple[Account, ...]
    mails: tuple[Mail, ...]
    ramp: int | None
    pin: str | None
    by_price: bool
    resend: bool
    """Whether mail of category `auth` is sent once more, at once, where an outcome is unknown."""

    outcomes: tuple[int, ...]


ACCOUNTS = st.lists(st.sampled_from(NAMES), min_size=1, unique=True).flatmap(
    lambda names: st.tuples(
        *(
            st.builds(
                Account,
                st.just(name),
                rate=st.sampled_from([0.0, 1.0, 20.0, 1000.0]),
                daily=st.none() | st.integers(1, 12),
                carries=st.sampled_from([True, True, True, False]),
                off=st.sampled_from([False, False, False, True]),
            )
            for name in names
        )
    )
)
MAILS = st.lists(
    st.builds(
        Mail,
        domain=st.sampled_from([WARMED, OTHER]),
        category=st.sampled_from(["auth", "notification", "marketing"]),
        recipients=st.integers(1, 5),
        suppressed=st.integers(0, 2),
        urgent=st.booleans(),
    ),
    min_size=1,
    max_size=8,
).map(tuple)
PLANS = st.builds(
    Plan,
    accounts=ACCOUNTS,
    mails=MAILS,
    ramp=st.none() | st.integers(1, 10),
    pin=st.none() | st.sampled_from(NAMES),
    by_price=st.booleans(),
    resend=st.booleans(),
    outcomes=st.lists(st.integers(0, len(OUTCOMES) - 1), min_size=1, max_size=6).map(tuple),
)


@dataclass(frozen=True)
class Attempt:
    mail: int
    recipient: str
    provider: str
    considered: tuple[Considered, ...]
    outcome: Outcome
    at: float


@dataclass
class Run:
    """Two processes on one store. Every attempt is looked at when it is licensed, and answered before the next turn."""

    plan: Plan
    attempts: list[Attempt] = field(default_factory=list)

    def __post_init__(self) -> None:
        plan = self.plan
        self.clock = FakeClock(NOW)
        at_once = timedelta()
        policy = Policy(
            call_window=at_once, resend_after=at_once, resend_after_urgent=at_once,
            resend=frozenset({"auth"} if plan.resend else ()),
        )  # fmt: skip
        self.post = post = Post(clock=self.clock, policy=policy)
        post.ids = post.streams._ids = FakeIds()  # type: ignore[assignment]
        providers = [FakeProvider(rate=account.rate, name=account.name) for account in plan.accounts]
        for provider, account in zip(providers, plan.accounts, strict=True):
            provider.capabilities = Capabilities("mime", 1 << 30 if account.carries else -1)
        post.provider, post.others = providers[0], providers[1:]
        post.daily_limits = {each.name: each.daily for each in plan.accounts if each.daily is not None}
        post.ramps = {WARMED: Ramp(NOW.date(), (plan.ramp,))} if plan.ramp is not None else {}
        self.senders = [post.sender(), post.sender()]
        for sender in self.senders:
            sender.providers.wishes = Wishes(
                {"marketing": plan.pin} if plan.pin else {}, by="price" if plan.by_price else "order"
            )
            sender.providers.switched_off = {each.name: "off" for each in plan.accounts if each.off}
        self.outcomes: Iterator[int] = cycle(plan.outcomes)

    async def go(self) -> Run:
        held: list[Work] = []
        for number, mail in enumerate(self.plan.mails):
            to = [f"{n}.{number}@inbox.example" for n in range(mail.recipients)]
            self.post.suppressions.reasons |= dict.fromkeys(to[: mail.suppressed], "hardBounce")
            lane = "urgent" if mail.urgent else "normal"
            (message_id,) = await self.post.queue(
                to=to, from_=f"CRM <a@{mail.domain}>", category=mail.category, priority=lane,
                list_id="news" if mail.category == "marketing" else None,
            )  # fmt: skip
            held.append(Work(await self.post.streams.load(message_id), lane))
        self.numbers = {work.held.message_id: number for number, work in enumerate(held)}
        for number, work in enumerate(held):
            self.senders[number % 2]._planner.lanes.add([work])
        self.began = self.clock.monotonic()
        for turn in range(TURNS):
            for sender in self.senders:
                for urgent in (True, False):
                    planned = await sender._planner.turn(urgent=urgent)
                    for wave in planned.waves:
                        self._look(sender, wave)
                    for wave in planned.waves:
                        await self._answer(sender, wave)
                    for work in chain.from_iterable(planned.put_off.values()):
                        sender._planner.lanes.add([work])  # whoever looks at it again decides the same
            self.clock.move(0.7 if turn % 2 else 0.1)
        return self

    async def _answer(self, sender: Sender, wave: Wave) -> None:
        commands: list[RecordOutcome] = []
        for planned in wave.attempts:
            outcome = OUTCOMES[next(self.outcomes)]
            number = self.numbers[wave.work.held.message_id]
            self.attempts.append(
                Attempt(
                    number, planned.recipient, planned.provider, planned.considered, outcome, self.clock.monotonic()
                )
            )
            wave.outcomes[planned.attempt_id] = outcome
            commands.append(RecordOutcome(planned.attempt_id, outcome))
        for attempt in wave.attempts:
            sender.providers.circuits[attempt.provider].heard(wave.outcomes[attempt.attempt_id], self.clock.monotonic())
        drafts = self.post.streams.decide(wave.work.held, *commands)
        (result,) = await self.post.streams.append([Step(wave.work.held, drafts, keep_lease=True)])
        assert isinstance(result, Held)
        wave.work.held = result
        sender._places.give_back(len(wave.attempts))
        sender._daily.over(wave)
        sender._planner.lanes.put_back([wave.work])

    def _look(self, sender: Sender, wave: Wave) -> None:
        """What must hold at the moment in which a licence stands."""
        for planned in wave.attempts:
            self._look_at(sender, wave, planned)

    def _look_at(self, sender: Sender, wave: Wave, planned: PlannedAttempt) -> None:
        recipient, provider = planned.recipient, planned.provider
        account = next(each for each in self.plan.accounts if each.name == provider)
        mail = self.plan.mails[self.numbers[wave.work.held.message_id]]
        assert isinstance(wave.work.held.message.deliveries[recipient], Open)
        assert recipient not in self.post.suppressions.reasons, "suppressed"
        assert not account.off, "unhealthy"
        assert sender.providers.circuits[provider].open_until is None, "unhealthy"
        assert account.carries, "incapable"
        assert account.rate > 0, "over quota"
        pinned = mail.category == "marketing" and self.plan.pin is not None
        assert not pinned or provider == self.plan.pin, "pinned to another one"
        open_to = [
            each for each in self.attempts if each.recipient == recipient and not isinstance(each.outcome, Rejected)
        ]
        if open_to:
            said = (self.plan.resend, mail.category, planned.reason)
            assert said == (True, "auth", "resend"), "its fate is unknown"
            assert [isinstance(each.outcome, Unknown) for each in open_to] == [True], "once, and not after a yes"
            assert provider != open_to[0].provider, "it may have the mail already"


def run(plan: Plan) -> Run:
    return asyncio.run(Run(plan).go())


@settings(max_examples=60)
@given(PLANS)
def test_no_attempt_is_suppressed_unhealthy_incapable_unknown_or_over_any_limit(plan: Plan) -> None:
    done = run(plan)
    counted: Counter[str] = Counter()
    warmed = 0
    for attempt in done.attempts:
        mail = plan.mails[attempt.mail]
        refused = isinstance(attempt.outcome, Rejected)
        counted[attempt.provider] += not refused
        if mail.domain == WARMED:
            if mail.category != "auth" and plan.ramp is not None:
                assert warmed < plan.ramp, "over the ramp"
            warmed += not refused
    for account in plan.accounts:
        assert account.daily is None or counted[account.name] <= account.daily, "over the day's quota"
        times = [each.at for each in done.attempts if each.provider == account.name]
        elapsed = max(times, default=0.0)
        assert len(times) <= account.rate * elapsed + burst(account.rate), "over the rate"


@settings(max_examples=25)
@given(PLANS)
def test_the_same_mail_goes_the_same_way_for_the_same_reasons(plan: Plan) -> None:
    assert run(plan).attempts == run(plan).attempts


@settings(max_examples=25)
@given(PLANS)
def test_every_attempt_says_what_was_found_of_every_provider(plan: Plan) -> None:
    names = {each.name for each in plan.accounts}
    for attempt in run(plan).attempts:
        if len(names) == 1:
            assert attempt.considered == ()
            continue
        assert {each.provider for each in attempt.considered} == names
        (chosen,) = [each.provider for each in attempt.considered if each.why.startswith("chosen")]
        assert chosen == attempt.provider


def test_plans_reach_each_limit() -> None:
    """The properties above are about something: this plan meets both limits of a day, and what is exempt goes out."""
    mails = tuple(Mail(WARMED, "notification", 5, 0, urgent=False) for _ in range(4))
    auth = (Mail(WARMED, "auth", 2, 0, urgent=True),)
    ample = tuple(
        Account(name, 1000.0, daily, carries=True, off=False) for name, daily in (("ses", 3), ("mailgun", None))
    )
    done = run(Plan(ample, (*mails, *auth), ramp=7, pin=None, by_price=False, resend=False, outcomes=(0,)))
    assert Counter(each.provider for each in done.attempts) == {"ses": 3, "mailgun": 4}
    assert sum(each.mail == len(mails) for each in done.attempts) == 2
    later = next(each for each in done.attempts if each.provider == "mailgun")
    assert [each.why for each in later.considered] == [
        "what it may send in a day is used up",
        "chosen: the first in order",
    ]
    silent = run(Plan(ample, auth, ramp=7, pin=None, by_price=False, resend=True, outcomes=(3,)))
    assert [each.provider for each in silent.attempts] == ["ses", "ses", "mailgun", "mailgun"], "once more, elsewhere"
    without = run(Plan(ample, mails, ramp=None, pin=None, by_price=False, resend=False, outcomes=(0,)))
    assert len(without.attempts) == 20
