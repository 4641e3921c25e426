"""From messages at hand to licences: places, content, tokens, suppression, then one bulk of appends.

The order is the rule: a place and a rate token are had, and recipients are counted in the limits of today, before an
attempt is recorded; suppression is read in the very step that records it, after all that may take its time; and when
any of it cannot be had, the mail waits and nothing was written. A mail whose own content or files cannot be had waits
alone, without a token. A recipient of whom nobody can tell here whether they are suppressed waits alone too, and the
mail's other recipients go on. Mail that only a provider carries which takes nothing now waits aside, and other mail
goes past it. Mail from a domain whose ramp is used up for today is put off.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from contracts.recipients.events import SuppressionReason
from services.email.domain.commands import Fail, PlanAttempts, PlannedAttempt
from services.email.domain.lanes import Lanes
from services.email.domain.message import Message, Open, blocked
from services.email.domain.outcomes import NotCalled
from services.email.domain.routing import DAY_USED, RATE_USED, Now, Route
from services.email.entrypoints.sender_content import ContentLoader
from services.email.entrypoints.sender_daily import DailyLimits
from services.email.entrypoints.sender_providers import Providers
from services.email.entrypoints.sender_work import Counted, Limits, Places, Wave, Work
from services.email.ports import Checkpoints, SuppressionList, SuppressionQuery
from services.email.right_of_way import RightOfWay
from services.email.streams import Held, MessageStreams, Step, StepResult
from services.kit import metrics as m
from services.kit.clock import Clock, Ids
from services.kit.errors import AppendOutcomeUnknown, MailroomError, PermanentError, TransientError
from services.kit.event_store.port import Lease, is_race
from services.kit.logs import get_logger
from services.kit.metrics import Metrics
from services.kit.rate import RateBudget
from services.kit.retry import Backoff

log = get_logger(__name__)

URGENT_PLACES = 4
"""Places that only urgent mail may take."""

SMALL_TURN = 12
"""Attempts in one turn of mail that is not urgent while urgent mail keeps coming: a bulk that is soon over."""

IDLE_SECONDS = 1.0
LONGEST_ASIDE = 5.0
"""Seconds for which mail at hand waits for the one provider that carries it; where it takes longer, others may."""

EXHAUSTED_SECONDS = 30.0
RECIPIENT_SECONDS = 60.0
"""Until another look, by whichever process, at a recipient whose stream could not be read: it costs a token."""

RESEND_SECONDS = 10.0
"""Likewise, at mail of an unknown outcome that no other provider may have, or that cannot be sent any more."""

_BACKOFF = Backoff(first=0.2, most=5.0)
_GHOSTS_AT_MOST = 10_000


@dataclass(slots=True)
class Turn:
    """What one turn brought.

    Attributes:
        waves: licensed, to be called at once.
        released: messages that need nothing more of us now; their lease is to be given back.
        put_off: seconds → messages to be left alone by everybody for so long.
        recorded: attempts that took their places, answered for by now or by their waves; by provider, of which some may
            have had none in the end.
        taken: recipients that were counted in a limit of the day.
        counted: in which limits the recipients of a message are counted.
        over_ramp: messages for which their domain's ramp left nothing.
        pause: seconds until another turn can bring anything, None = go on at once.
        waiting: what is waited for, "" = for work.
    """

    waves: list[Wave] = field(default_factory=list)
    released: list[Work] = field(default_factory=list)
    put_off: dict[float, list[Work]] = field(default_factory=dict)
    recorded: Counter[str] = field(default_factory=Counter)
    taken: Counter[Counted] = field(default_factory=Counter)
    counted: dict[Work, tuple[Counted, ...]] = field(default_factory=dict)
    over_ramp: list[Work] = field(default_factory=list)
    pause: float | None = None
    waiting: str = ""

    def leave(self, work: Work, seconds: float) -> None:
        """Have this one left alone by everybody for so long."""
        self.put_off.setdefault(seconds, []).append(work)

    def unused(self) -> Counter[Counted]:
        """Recipients that were counted today, and of whom no attempt is licensed."""
        used = Counter(counted for wave in self.waves for counted in wave.counted for _ in wave.attempts)
        return self.taken - used


@dataclass(slots=True)
class _Pick:
    """Recipients of one message who may be attempted now, and where. `blocked`: providers that may have taken an
    earlier attempt for them; there are none but where it is sent once more.
    """

    work: Work
    recipients: tuple[str, ...]
    blocked: frozenset[str] = frozenset()
    provider: str = ""
    route: Route | None = None


class Planner:
    """Turns what is in `lanes` into licensed waves. Used from two tasks: one for urgent mail, one for all other."""

    def __init__(
        self,
        streams: MessageStreams,
        loader: ContentLoader,
        suppressions: SuppressionList,
        providers: Providers,
        rate: RateBudget,
        daily: DailyLimits,
        places: Places,
        limits: Limits,
        clock: Clock,
        ids: Ids,
        metrics: Metrics,
        checkpoints: Checkpoints,
        lease: Callable[[], Lease],
        right_of_way: RightOfWay,
    ) -> None:
        self._streams, self._loader, self._suppressions = streams, loader, suppressions
        self._providers, self._rate, self._daily = providers, rate, daily
        self._places, self._limits, self._clock, self._ids = places, limits, clock, ids
        self._metrics, self._checkpoints, self._lease = metrics, checkpoints, lease
        self._right_of_way = right_of_way
        self._failures = 0
        self._token_waits: dict[tuple[str, bool], tuple[float, str]] = {}
        """Provider, and whether urgent, → until when it has no token, on the monotonic clock, and why."""

        self._aside: defaultdict[tuple[str, bool], list[Work]] = defaultdict(list)
        """Provider, and whether urgent, → mail that waits for it alone."""

        self.lanes: Lanes[Work] = Lanes()
        self.ghosts: dict[str, None] = {}
        """Attempts whose append may stand although it was given up: never called, to be closed when they show up."""

    def __len__(self) -> int:
        """Messages at hand."""
        return len(self.lanes) + sum(map(len, self._aside.values()))

    def clear(self) -> list[Work]:
        """Take everything out."""
        aside, self._aside = self._aside, defaultdict(list)
        return [*self.lanes.clear(), *(work for works in aside.values() for work in works)]

    async def turn(self, *, urgent: bool) -> Turn:
        """One turn for urgent mail, or for all other. Raises nothing of ours; what cannot be had now is waited for.

        A turn takes as long as a campaign's bulk of appends does. Urgent mail does not wait for that: its turns run
        beside those of other mail, and share nothing with them but places, tokens and the providers' circuits.
        """
        if not urgent:
            await self._right_of_way.step_aside()
        now = self._clock.monotonic()
        standing = self._standing(now, urgent=urgent)
        if not any(each.allowance for each in standing):
            # Where its time is over it may well take mail: whoever has some finds out.
            refuses = any(self._providers.reopens(each.name, now) > 0 for each in self._providers)
            return Turn(
                pause=max(0.01, self._reopens(now)), waiting="the provider refuses everything now" if refuses else ""
            )
        turn = Turn()
        self._take_up(standing, turn, now, urgent=urgent)
        open_to = sum(each.allowance for each in standing if each.usable)
        if not open_to:
            turn.pause = self._wait_for_tokens(now, urgent=urgent)
            self._put_off_until_tomorrow(turn, urgent=urgent)
            return turn
        free = self._places.free
        room = min(free if urgent or free == 1 else free - URGENT_PLACES, open_to)
        if room <= 0:
            turn.pause = IDLE_SECONDS
            return turn
        if not urgent:
            room = self._right_of_way.at_once(room, SMALL_TURN)
        picks = self._pick(room, standing, turn, now, urgent=urgent)
        if not picks:
            return turn
        reserved = sum(len(pick.recipients) for pick in picks)
        self._places.reserve(reserved)
        try:
            await self._prepare(picks, turn, urgent=urgent)
        finally:
            for counted, recipients in turn.unused().items():
                self._daily.give_back(counted, recipients)
            self._places.release(reserved - turn.recorded.total())
            for provider, recorded in turn.recorded.items():
                if not recorded:
                    self._providers.circuits[provider].heard(NotCalled("nothing was recorded"), now)
        await self._daily.settle()
        self._hold(turn)
        return turn

    async def _prepare(self, picks: list[_Pick], turn: Turn, *, urgent: bool) -> None:
        failing: list[tuple[Work, Step]] = []
        try:
            picks, failing = await self._with_mail(picks, turn)
            picks = self._routed(picks, failing, turn, urgent=urgent)
            picks = await self._with_tokens(picks, turn, urgent=urgent)
            picks, suppressed = await self._judged(picks, turn)
        except MailroomError as error:
            self.lanes.put_back([*(pick.work for pick in picks), *(work for work, _ in failing)])
            self._failures += 1
            turn.pause, turn.waiting = _BACKOFF.delay(self._failures), str(error)
            return
        self._failures = 0
        if picks or failing:
            await self._license(picks, suppressed, failing, turn)

    def refused_for(self) -> float:
        """Seconds until any provider takes anything; 0 where one does."""
        now = self._clock.monotonic()
        return 0.0 if any(each.allowance for each in self._standing(now, urgent=False)) else self._reopens(now)

    # --- which provider ---

    def _standing(self, now: float, *, urgent: bool) -> list[Now]:
        paced = {
            name: why for (name, side), (until, why) in self._token_waits.items() if side == urgent and now < until
        }
        return self._providers.now(now, self._clock.now(), paced)

    def _reopens(self, now: float) -> float:
        """Seconds until it is worth another look, where nobody takes anything."""
        waits = [wait for each in self._providers if (wait := self._providers.reopens(each.name, now)) > 0]
        return min(waits, default=IDLE_SECONDS)

    def _take_up(self, standing: Sequence[Now], turn: Turn, now: float, *, urgent: bool) -> None:
        """Mail that waited for a provider which takes mail again; where that takes long, others may wait for it."""
        for each in standing:
            waiting = self._aside.pop((each.name, urgent), [])
            if each.usable:
                self.lanes.put_back(waiting)
            elif (tokens := self._token_wait(each.name, now, urgent=urgent)) > LONGEST_ASIDE:
                for work in waiting:
                    turn.leave(work, tokens)
            elif each.allowance or self._providers.reopens(each.name, now) <= LONGEST_ASIDE:
                self._aside[each.name, urgent] = waiting
            else:
                for work in waiting:
                    turn.leave(work, LONGEST_ASIDE)

    def _routed(
        self, picks: Sequence[_Pick], failing: list[tuple[Work, Step]], turn: Turn, *, urgent: bool
    ) -> list[_Pick]:
        """Each with its provider, which knows of it at once: no other turn may plan more than it takes."""
        standing = {each.name: each for each in self._standing(self._clock.monotonic(), urgent=urgent)}
        going: list[_Pick] = []
        back: list[Work] = []
        for pick in picks:
            mail = pick.work.mail
            assert mail is not None  # noqa: S101 - those without are not among them
            found = self._providers.route(pick.work, mail, tuple(standing.values()), pick.blocked)
            if found.chosen is None and not found.waits_for:
                why = "; ".join(f"{each.provider}: {each.why}" for each in found.considered)
                self._fail(pick, why, failing, turn)
                continue
            if found.chosen is None:
                if self._providers.several:
                    self._aside[found.waits_for[0], urgent].append(pick.work)
                else:
                    back.append(pick.work)
                continue
            pick.provider, pick.route = found.chosen, found
            there = standing[found.chosen]
            pick.recipients = pick.recipients[: there.allowance]
            standing[found.chosen] = replace(
                there, allowance=there.allowance - len(pick.recipients), why_not="it is being tried with a few"
            )
            turn.recorded[found.chosen] += 0
            going.append(pick)
        for name in {pick.provider for pick in going}:
            self._providers.circuits[name].planned()
        self.lanes.put_back(back)
        if back and not going:
            turn.pause = IDLE_SECONDS  # the next answer wakes it
        return going

    # --- who ---

    def _pick(self, room: int, standing: Sequence[Now], turn: Turn, now: float, *, urgent: bool) -> list[_Pick]:
        picks: list[_Pick] = []
        usable = {each.name for each in standing if each.usable}
        draw = self.lanes.urgent if urgent else self.lanes.other
        while room > 0 and (work := draw()) is not None:
            pin = self._providers.pin(work)
            recipients = self._streams.ready(work.held.state, work.unreadable)[:room]
            if recipients and pin is not None and pin in self._providers and pin not in usable:
                self._aside[pin, urgent].append(work)
            elif recipients and (seconds := self._daily.held(work)):
                turn.leave(work, seconds)
            elif recipients:
                picks.append(_Pick(work, recipients, blocked(work.held.message.deliveries[recipients[0]])))
                room -= len(recipients)
            elif self._streams.ready(work.held.state):
                turn.leave(work, RECIPIENT_SECONDS)
            else:
                turn.released.append(work)
        if not picks and not turn.released and not turn.put_off:
            waits = [self._token_wait(name, now, urgent=side) for (name, side), works in self._aside.items() if works]
            turn.pause = min([IDLE_SECONDS, *(max(0.001, wait) for wait in waits if wait > 0)])
        return picks

    def _wait_for_tokens(self, now: float, *, urgent: bool) -> float:
        waits = [self._token_wait(each.name, now, urgent=urgent) for each in self._providers]
        return min([IDLE_SECONDS, *(max(0.001, wait) for wait in waits if wait > 0)])

    def _put_off_until_tomorrow(self, turn: Turn, *, urgent: bool) -> None:
        """Make room where the day of every provider is used up: what expires meanwhile is to be found in the store."""
        draw = self.lanes.urgent if urgent else self.lanes.other
        while self._daily.no_provider_left and (work := draw()) is not None:
            turn.leave(work, self._daily.held(work))

    def _token_wait(self, provider: str, now: float, *, urgent: bool) -> float:
        """Seconds until it is worth another look for tokens; 0 where it has some."""
        return max(0.0, self._token_waits.get((provider, urgent), (0.0, ""))[0] - now)

    # --- content, tokens, suppression ---

    async def _with_tokens(self, picks: Sequence[_Pick], turn: Turn, *, urgent: bool) -> list[_Pick]:
        """The picks, of each no more recipients than there are tokens for and than today's limits leave.

        Tokens come first: they are lost when they are not used, and what is counted today is not.
        """
        for provider in dict.fromkeys(pick.provider for pick in picks):
            await self._take([pick for pick in picks if pick.provider == provider], turn, urgent=urgent)
        within = [pick for pick in picks if pick.recipients]
        self.lanes.put_back([pick.work for pick in picks if not pick.recipients])
        if picks and not within:
            turn.pause = self._wait_for_tokens(self._clock.monotonic(), urgent=urgent)
        return await self._within_ramps(within, turn)

    async def _take(self, picks: Sequence[_Pick], turn: Turn, *, urgent: bool) -> None:
        """Tokens of the one provider of these."""
        provider, wanted = picks[0].provider, sum(len(pick.recipients) for pick in picks)
        _share(picks, await self._tokens(provider, wanted, turn, urgent=urgent))
        key = self._daily.provider(provider)
        if key is not None:
            await self._count(key, picks, turn)
            if seconds := self._daily.used_up(key):
                until = self._clock.monotonic() + seconds
                self._token_waits |= {(provider, side): (until, DAY_USED) for side in (True, False)}
                turn.waiting = f"what may go through {provider} today is used up"

    async def _tokens(self, provider: str, wanted: int, turn: Turn, *, urgent: bool) -> int:
        grant = await self._rate.take(provider, wanted, urgent=urgent)
        if grant.granted < wanted:
            wait = EXHAUSTED_SECONDS if grant.exhausted else max(0.001, grant.wait)
            why = DAY_USED if grant.exhausted else RATE_USED
            self._token_waits[provider, urgent] = self._clock.monotonic() + wait, why
            if grant.exhausted:
                turn.waiting = f"the 24 hours of the account at {provider} are used up"
        return grant.granted

    async def _within_ramps(self, picks: Sequence[_Pick], turn: Turn) -> list[_Pick]:
        """The picks, of each no more recipients than the ramp of its domain leaves."""
        ramps: dict[str, list[_Pick]] = {}
        for pick in picks:
            key = self._daily.domain(pick.work)
            if key is not None:
                ramps.setdefault(key, []).append(pick)
        for key, its in ramps.items():
            exempt = [pick for pick in its if self._daily.never_held(pick.work)]
            await self._count(key, exempt, turn, exempt=True)
            await self._count(key, [pick for pick in its if pick not in exempt], turn)
        turn.over_ramp += [pick.work for pick in picks if not pick.recipients]
        return [pick for pick in picks if pick.recipients]

    def _hold(self, turn: Turn) -> None:
        """Put off what is over a ramp, unless others of this turn have given back what they did not use of it."""
        back: list[Work] = []
        for work in turn.over_ramp:
            if seconds := self._daily.held(work):
                turn.leave(work, seconds)
            else:
                back.append(work)
        self.lanes.put_back(back)

    async def _count(self, key: str, picks: Sequence[_Pick], turn: Turn, *, exempt: bool = False) -> None:
        """Count the recipients of these in that limit of today; each keeps those that were granted."""
        wanted = sum(len(pick.recipients) for pick in picks)
        if not wanted:
            return
        granted, counted = await self._daily.take(key, wanted, exempt=exempt)
        turn.taken[counted] += granted
        _share(picks, granted)
        for pick in picks:
            turn.counted[pick.work] = (*turn.counted.get(pick.work, ()), counted)

    async def _with_mail(self, picks: Sequence[_Pick], turn: Turn) -> tuple[list[_Pick], list[tuple[Work, Step]]]:
        """The picks whose mail is at hand, and steps that fail those that can never be sent; the others are put off."""
        unready = await self._loader.load([pick.work for pick in picks])
        failing: list[tuple[Work, Step]] = []
        for pick in picks:
            if (why := unready.never.get(pick.work)) is not None:
                self._fail(pick, why, failing, turn)
        for seconds, works in unready.later.items():
            for work in works:
                turn.leave(work, seconds)
        return [pick for pick in picks if pick.work.mail is not None], failing

    def _fail(self, pick: _Pick, why: str, failing: list[tuple[Work, Step]], turn: Turn) -> None:
        """End who waits; of whom an outcome is unknown, that is for its report or its time to say."""
        drafts = self._streams.decide(pick.work.held, Fail("invalid", why))
        if drafts:
            failing.append((pick.work, Step(pick.work.held, drafts)))
        else:
            turn.leave(pick.work, RESEND_SECONDS)

    async def _judged(
        self, picks: Sequence[_Pick], turn: Turn
    ) -> tuple[list[_Pick], list[dict[str, SuppressionReason]]]:
        """The picks that go on, without those of whom nobody can tell, and who of each is suppressed: they fail, but
        for those whose outcome is unknown, who are left alone.
        """
        if not picks:
            return [], []
        queries = [
            SuppressionQuery(pick.recipients, request.category, request.list_id)
            for pick in picks
            for request in (pick.work.held.message.request,)
        ]
        going: list[_Pick] = []
        suppressed: list[dict[str, SuppressionReason]] = []
        for pick, found in zip(picks, await self._suppressions.blocked(queries, self._clock.now()), strict=True):
            pick.work.unreadable |= found.unreadable
            pick.recipients = tuple(each for each in pick.recipients if each not in found.unreadable)
            stopped = found.suppressed
            if pick.blocked and stopped:
                pick.recipients, stopped = tuple(each for each in pick.recipients if each not in stopped), {}
                if not pick.recipients:
                    turn.leave(pick.work, RESEND_SECONDS)
                    continue
            if pick.recipients:
                going.append(pick)
                suppressed.append(stopped)
            else:
                self.lanes.put_back([pick.work])  # its next pick has others, or it is put off
        return going, suppressed

    # --- the licence ---

    async def _license(
        self,
        picks: Sequence[_Pick],
        suppressed: Sequence[dict[str, SuppressionReason]],
        failing: Sequence[tuple[Work, Step]],
        turn: Turn,
    ) -> None:
        works: list[Work] = []
        planned: list[tuple[PlannedAttempt, ...]] = []
        steps: list[Step] = []
        for pick, stopped in zip(picks, suppressed, strict=True):
            attempts = self._attempts(pick, stopped)
            try:
                drafts = self._streams.decide(pick.work.held, PlanAttempts(attempts, dict(stopped)))
            except PermanentError:
                turn.released.append(pick.work)  # it expired between the look and now
                continue
            works.append(pick.work)
            planned.append(attempts)
            steps.append(Step(pick.work.held, drafts, lease=self._lease()))
        turn.recorded.update(attempt.provider for attempts in planned for attempt in attempts)
        self._places.take(sum(map(len, planned)))
        self._checkpoints.reach("sender.attempt")
        # The licence lapses five seconds after this moment, whenever its confirmation comes.
        begun = self._clock.monotonic()
        results = await self._streams.append([*steps, *(step for _, step in failing)])
        self._checkpoints.reach("sender.attempted")
        works += [work for work, _ in failing]
        planned += [()] * len(failing)
        lost: list[tuple[Work, tuple[PlannedAttempt, ...], StepResult]] = []
        for work, attempts, result in zip(works, planned, results, strict=True):
            if isinstance(result, Held):
                work.held = result
                self._confirmed(work, attempts, begun, turn)
            else:
                lost.append((work, attempts, result))
        if lost:
            await self._not_confirmed(lost, begun, turn)

    def _attempts(self, pick: _Pick, stopped: Mapping[str, SuppressionReason]) -> tuple[PlannedAttempt, ...]:
        for reason in stopped.values():
            self._metrics.inc(m.SUPPRESSED, scope=reason)
        deliveries = pick.work.held.message.deliveries
        considered = pick.route.considered if pick.route is not None and self._providers.several else ()
        planned: list[PlannedAttempt] = []
        for recipient in pick.recipients:
            if recipient in stopped:
                continue
            tried = [attempt.provider for attempt in deliveries[recipient].attempts]
            why = self._providers.reason(pick.work, pick.provider, tried, unknown=bool(pick.blocked))
            planned.append(PlannedAttempt(recipient, self._ids.new(), pick.provider, why, considered))
        return tuple(planned)

    def _confirmed(self, work: Work, attempts: tuple[PlannedAttempt, ...], begun: float, turn: Turn) -> None:
        if attempts:
            turn.waves.append(Wave(work, begun, attempts, turn.counted.get(work, ())))
        elif self._streams.ready(work.held.state):
            self.lanes.add([work])
        else:
            turn.released.append(work)

    async def _not_confirmed(
        self, lost: Sequence[tuple[Work, tuple[PlannedAttempt, ...], StepResult]], begun: float, turn: Turn
    ) -> None:
        """Read back what was lost, and hand back what was not written.

        An attempt that is found with its id is as good as confirmed; one that is not may still turn up, and is then
        closed as not called.
        """
        try:
            found = await self._streams.load_many([work.held.message_id for work, _, _ in lost])
        except TransientError as error:
            found = {}
            turn.waiting = str(error)
        for work, attempts, result in lost:
            held = found.get(work.held.message_id)
            if isinstance(held, Held):
                work.held = held
                if attempts and isinstance(result, AppendOutcomeUnknown) and _stands(held, attempts):
                    self._confirmed(work, attempts, begun, turn)
                    continue
            self._places.give_back(len(attempts))
            for attempt in attempts:
                self._providers.circuits[attempt.provider].heard(NotCalled("never recorded"), self._clock.monotonic())
            if isinstance(result, AppendOutcomeUnknown):
                self.ghosts |= dict.fromkeys(attempt.attempt_id for attempt in attempts)
            if isinstance(result, PermanentError):
                log.error("an attempt cannot be recorded", aggregate_id=work.held.message_id, error=str(result))
            if isinstance(held, Held) and is_race(result) and self._streams.ready(held.state):
                self.lanes.put_back([work])
            else:
                turn.released.append(work)
        while len(self.ghosts) > _GHOSTS_AT_MOST:
            del self.ghosts[next(iter(self.ghosts))]


def _share(picks: Sequence[_Pick], granted: int) -> None:
    """Each keeps its recipients as long as there are any granted."""
    for pick in picks:
        pick.recipients = pick.recipients[:granted]
        granted -= len(pick.recipients)


def _stands(held: Held, attempts: Sequence[PlannedAttempt]) -> bool:
    state = held.state
    if not isinstance(state, Message):
        return False
    newest = {delivery.attempts[-1].attempt_id for delivery in state.deliveries.values() if isinstance(delivery, Open)}
    return all(attempt.attempt_id in newest for attempt in attempts)
