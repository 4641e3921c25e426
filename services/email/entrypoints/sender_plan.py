"""From messages at hand to licences: places, content, tokens, suppression, then one bulk of appends.

The order is the rule: a place and a rate token are had before an attempt is recorded; suppression is read in the very
step that records it, after all that may take its time; and when any of it cannot be had, the mail waits and nothing was
written. A mail whose own content or files cannot be had waits alone, without a token. A recipient of whom nobody can
tell here whether they are suppressed waits alone too, and the mail's other recipients go on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from contracts.recipients.events import SuppressionReason
from services.email.domain.circuit import Circuit
from services.email.domain.commands import Fail, PlanAttempts, PlannedAttempt
from services.email.domain.decisions import ready
from services.email.domain.lanes import Lanes
from services.email.domain.message import Message, Open
from services.email.domain.outcomes import NotCalled
from services.email.domain.routing import Offer, choose
from services.email.entrypoints.sender_content import ContentLoader
from services.email.entrypoints.sender_work import Limits, Places, Wave, Work
from services.email.ports import Checkpoints, MailProvider, SuppressionList, SuppressionQuery
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

TYPICAL_BYTES = 10_000
"""Of a mail, for comparing prices."""

IDLE_SECONDS = 1.0
EXHAUSTED_SECONDS = 30.0
RECIPIENT_SECONDS = 60.0
"""Until another look, by whichever process, at a recipient whose stream could not be read: it costs a token."""

_BACKOFF = Backoff(first=0.2, most=5.0)
_GHOSTS_AT_MOST = 10_000


@dataclass(slots=True)
class Turn:
    """What one turn brought.

    Attributes:
        waves: licensed, to be called at once.
        released: messages that need nothing more of us now; their lease is to be given back.
        put_off: seconds → messages to be left alone by everybody for so long.
        recorded: attempts that took their places, answered for by now or by their waves.
        pause: seconds until another turn can bring anything, None = go on at once.
        waiting: what is waited for, "" = for work.
    """

    waves: list[Wave] = field(default_factory=list)
    released: list[Work] = field(default_factory=list)
    put_off: dict[float, list[Work]] = field(default_factory=dict)
    recorded: int = 0
    pause: float | None = None
    waiting: str = ""

    def leave(self, work: Work, seconds: float) -> None:
        """Have this one left alone by everybody for so long."""
        self.put_off.setdefault(seconds, []).append(work)


@dataclass(slots=True)
class _Pick:
    """Recipients of one message who may be attempted now."""

    work: Work
    recipients: tuple[str, ...]


class Planner:
    """Turns what is in `lanes` into licensed waves. Used from two tasks: one for urgent mail, one for all other."""

    def __init__(
        self,
        streams: MessageStreams,
        loader: ContentLoader,
        suppressions: SuppressionList,
        providers: Mapping[str, MailProvider],
        circuits: Mapping[str, Circuit],
        rate: RateBudget,
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
        self._providers, self._circuits, self._rate = providers, circuits, rate
        self._places, self._limits, self._clock, self._ids = places, limits, clock, ids
        self._metrics, self._checkpoints, self._lease = metrics, checkpoints, lease
        self._right_of_way = right_of_way
        self._failures = 0
        self._token_waits = {True: 0.0, False: 0.0}
        self.lanes: Lanes[Work] = Lanes()
        self.ghosts: dict[str, None] = {}
        """Attempts whose append may stand although it was given up: never called, to be closed when they show up."""

    async def turn(self, *, urgent: bool) -> Turn:
        """One turn for urgent mail, or for all other. Raises nothing of ours; what cannot be had now is waited for.

        A turn takes as long as a campaign's bulk of appends does. Urgent mail does not wait for that: its turns run
        beside those of other mail, and share nothing with them but places, tokens and the provider's circuit.
        """
        if not urgent:
            await self._right_of_way.step_aside()
        now = self._clock.monotonic()
        provider, allowance, reopens = self._provider(now)
        if provider is None:
            return Turn(pause=max(0.01, reopens), waiting="the provider refuses everything now")
        room = min(self._places.free, allowance)
        if not urgent and room > 1:
            room -= URGENT_PLACES
        if room <= 0:
            return Turn(pause=IDLE_SECONDS)
        if not urgent:
            room = self._right_of_way.at_once(room, SMALL_TURN)
        picks, turn = self._pick(room, now, urgent=urgent)
        if not picks:
            return turn
        reserved = sum(len(pick.recipients) for pick in picks)
        self._places.reserve(reserved)
        self._circuits[provider].planned()  # half open, one attempt decides: no other turn may plan a second
        try:
            await self._prepare(picks, provider, turn)
        finally:
            self._places.release(reserved - turn.recorded)
            if not turn.recorded:
                self._circuits[provider].heard(NotCalled("nothing was recorded"), now)
        return turn

    async def _prepare(self, picks: list[_Pick], provider: str, turn: Turn) -> None:
        failing: list[tuple[Work, Step]] = []
        try:
            picks, failing = await self._with_mail(picks, turn)
            picks = await self._with_tokens(picks, provider, turn)
            picks, blocked = await self._judged(picks)
        except MailroomError as error:
            self.lanes.put_back([*(pick.work for pick in picks), *(work for work, _ in failing)])
            self._failures += 1
            turn.pause, turn.waiting = _BACKOFF.delay(self._failures), str(error)
            return
        self._failures = 0
        if picks or failing:
            await self._license(picks, blocked, failing, provider, turn)

    def refused_for(self) -> float:
        """Seconds until any provider takes anything; 0 where one does."""
        provider, _, reopens = self._provider(self._clock.monotonic())
        return 0.0 if provider is not None else reopens

    # --- who ---

    def _provider(self, now: float) -> tuple[str | None, int, float]:
        """Who gets the next attempts and how many, or nobody and the seconds until it is worth another look."""
        allowances = {name: self._circuits[name].allowance(now) for name in self._providers}
        at = self._clock.now()
        several = len(self._providers) > 1
        offers = [
            Offer(name, provider.estimate_cost(TYPICAL_BYTES, at).money.amount if several else 0)
            for name, provider in self._providers.items()
            if allowances[name] > 0
        ]
        chosen = choose(offers, ())
        if chosen is not None:
            return chosen[0], allowances[chosen[0]], 0.0
        opens = [c.open_until - now for c in self._circuits.values() if c.open_until is not None]
        return None, 0, min(opens, default=IDLE_SECONDS)

    def _pick(self, room: int, now: float, *, urgent: bool) -> tuple[list[_Pick], Turn]:
        turn = Turn()
        picks: list[_Pick] = []
        if now < self._token_waits[urgent]:
            turn.pause = self._wait_for_tokens(now, urgent=urgent)
            return picks, turn
        draw = self.lanes.urgent if urgent else self.lanes.other
        while room > 0 and (work := draw()) is not None:
            recipients = ready(work.held.state, self._clock.now(), work.unreadable)[:room]
            if recipients:
                picks.append(_Pick(work, recipients))
                room -= len(recipients)
            elif ready(work.held.state, self._clock.now()):
                turn.leave(work, RECIPIENT_SECONDS)
            else:
                turn.released.append(work)
        if not picks and not turn.released and not turn.put_off:
            turn.pause = IDLE_SECONDS
        return picks, turn

    def _wait_for_tokens(self, now: float, *, urgent: bool) -> float:
        return min(IDLE_SECONDS, max(0.001, self._token_waits[urgent] - now))

    # --- content, tokens, suppression ---

    async def _with_tokens(self, picks: list[_Pick], provider: str, turn: Turn) -> list[_Pick]:
        if not picks:
            return []
        urgent = picks[0].work.lane == "urgent"
        wanted = sum(len(pick.recipients) for pick in picks)
        grant = await self._rate.take(provider, wanted, urgent=urgent)
        granted = grant.granted
        going: list[_Pick] = []
        back: list[Work] = []
        for pick in picks:
            pick.recipients = pick.recipients[:granted]
            granted -= len(pick.recipients)
            if pick.recipients:
                going.append(pick)
            else:
                back.append(pick.work)
        self.lanes.put_back(back)
        if grant.granted < wanted:
            wait = EXHAUSTED_SECONDS if grant.exhausted else max(0.001, grant.wait)
            self._token_waits[urgent] = self._clock.monotonic() + wait
            if grant.exhausted:
                turn.waiting = "the account's 24 hours are used up"
        if not going:
            turn.pause = self._wait_for_tokens(self._clock.monotonic(), urgent=urgent)
        return going

    async def _with_mail(self, picks: Sequence[_Pick], turn: Turn) -> tuple[list[_Pick], list[tuple[Work, Step]]]:
        """The picks whose mail is at hand, and steps that fail those that can never be sent; the others are put off."""
        unready = await self._loader.load([pick.work for pick in picks])
        failing: list[tuple[Work, Step]] = []
        for work, why in unready.never.items():
            failing.append((work, Step(work.held, self._streams.decide(work.held, Fail("invalid", why)))))
        for seconds, works in unready.later.items():
            for work in works:
                turn.leave(work, seconds)
        return [pick for pick in picks if pick.work.mail is not None], failing

    async def _judged(self, picks: Sequence[_Pick]) -> tuple[list[_Pick], list[dict[str, SuppressionReason]]]:
        """The picks that go on, without those of whom nobody can tell, and who of each is suppressed."""
        if not picks:
            return [], []
        queries = [
            SuppressionQuery(pick.recipients, request.category, request.list_id)
            for pick in picks
            for request in (pick.work.held.message.request,)
        ]
        going: list[_Pick] = []
        suppressed: list[dict[str, SuppressionReason]] = []
        for pick, blocked in zip(picks, await self._suppressions.blocked(queries, self._clock.now()), strict=True):
            pick.work.unreadable |= blocked.unreadable
            pick.recipients = tuple(each for each in pick.recipients if each not in blocked.unreadable)
            if pick.recipients:
                going.append(pick)
                suppressed.append(blocked.suppressed)
            else:
                self.lanes.put_back([pick.work])  # its next pick has others, or it is put off
        return going, suppressed

    # --- the licence ---

    async def _license(
        self,
        picks: Sequence[_Pick],
        blocked: Sequence[dict[str, SuppressionReason]],
        failing: Sequence[tuple[Work, Step]],
        provider: str,
        turn: Turn,
    ) -> None:
        works: list[Work] = []
        planned: list[tuple[PlannedAttempt, ...]] = []
        steps: list[Step] = []
        for pick, stopped in zip(picks, blocked, strict=True):
            attempts = self._attempts(pick, stopped, provider)
            try:
                drafts = self._streams.decide(pick.work.held, PlanAttempts(attempts, dict(stopped)))
            except PermanentError:
                turn.released.append(pick.work)  # it expired between the look and now
                continue
            works.append(pick.work)
            planned.append(attempts)
            steps.append(Step(pick.work.held, drafts, lease=self._lease()))
        count = sum(map(len, planned))
        self._places.take(count)
        turn.recorded = count
        for _ in range(count):
            self._circuits[provider].planned()
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

    def _attempts(
        self, pick: _Pick, stopped: Mapping[str, SuppressionReason], provider: str
    ) -> tuple[PlannedAttempt, ...]:
        for reason in stopped.values():
            self._metrics.inc(m.SUPPRESSED, scope=reason)
        deliveries = pick.work.held.message.deliveries
        planned: list[PlannedAttempt] = []
        for recipient in pick.recipients:
            if recipient in stopped:
                continue
            tried = [attempt.provider for attempt in deliveries[recipient].attempts]
            chosen = choose([Offer(provider, 0)], tried)
            assert chosen is not None  # noqa: S101 - there is an offer
            planned.append(PlannedAttempt(recipient, self._ids.new(), provider, chosen[1]))
        return tuple(planned)

    def _confirmed(self, work: Work, attempts: tuple[PlannedAttempt, ...], begun: float, turn: Turn) -> None:
        if attempts:
            turn.waves.append(Wave(work, begun, attempts))
        elif ready(work.held.state, self._clock.now()):
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
                self._circuits[attempt.provider].heard(NotCalled("never recorded"), self._clock.monotonic())
            if isinstance(result, AppendOutcomeUnknown):
                self.ghosts |= dict.fromkeys(attempt.attempt_id for attempt in attempts)
            if isinstance(result, PermanentError):
                log.error("an attempt cannot be recorded", aggregate_id=work.held.message_id, error=str(result))
            if isinstance(held, Held) and is_race(result) and ready(held.state, self._clock.now()):
                self.lanes.put_back([work])
            else:
                turn.released.append(work)
        while len(self.ghosts) > _GHOSTS_AT_MOST:
            del self.ghosts[next(iter(self.ghosts))]


def _stands(held: Held, attempts: Sequence[PlannedAttempt]) -> bool:
    state = held.state
    if not isinstance(state, Message):
        return False
    newest = {delivery.attempts[-1].attempt_id for delivery in state.deliveries.values() if isinstance(delivery, Open)}
    return all(attempt.attempt_id in newest for attempt in attempts)
