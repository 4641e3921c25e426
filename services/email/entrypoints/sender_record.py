"""Writing answers down: whatever came of a call is appended, however long the store is away and whoever wrote first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence

from services.email.domain.commands import RecordOutcome
from services.email.domain.decisions import Drafts
from services.email.domain.message import blocked
from services.email.domain.outcomes import Outcome, Rejected
from services.email.entrypoints.sender_work import Limits, Places, Wave, Work
from services.email.ports import Checkpoints
from services.email.streams import Held, MessageStreams, Step
from services.kit.clock import Clock
from services.kit.errors import PermanentError, TransientError
from services.kit.event_store.port import is_race
from services.kit.logs import get_logger
from services.kit.retry import Backoff

log = get_logger(__name__)

_BACKOFF = Backoff(first=0.05, most=2.0)


class Recorder:
    """Appends the answers of waves in bulk. `over` is told when all of a wave's answers stand. `elsewhere` says whether
    another provider takes a mail now (by the monotonic clock) that one has refused.
    """

    def __init__(
        self,
        streams: MessageStreams,
        places: Places,
        limits: Limits,
        clock: Clock,
        checkpoints: Checkpoints,
        over: Callable[[Wave], None],
        elsewhere: Callable[[Work, Collection[str], float], bool],
    ) -> None:
        self._elsewhere = elsewhere
        self._streams, self._places, self._limits = streams, places, limits
        self._clock, self._checkpoints, self._over = clock, checkpoints, over
        self._pending: dict[Wave, None] = {}
        self._news = asyncio.Event()
        self._draining = False

    def heard(self, wave: Wave) -> None:
        """A wave has another answer."""
        first = not self._pending
        self._pending[wave] = None
        if first or wave.answered or self._draining:
            self._news.set()

    def drain(self) -> None:
        """From now on write every answer down at once."""
        self._draining = True
        self._news.set()

    @property
    def empty(self) -> bool:
        """Whether no answer waits to be written down."""
        return not self._pending

    async def run(self) -> None:
        """For ever; to be cancelled when nothing is pending. What is cancelled under way may have been written.

        Each wave has a verdict of its own: one that has to be tried again waits by itself, however long the store is
        away, and one whose answers can never stand is given up. Raises only what is a bug.
        """
        while True:
            await self._wait()
            waves = self._due()
            if waves:
                await self._record(waves)

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(self._patience()):
                await self._news.wait()
        except TimeoutError:
            return
        self._news.clear()
        if not self._draining:
            await asyncio.sleep(self._limits.gather)

    def _patience(self) -> float | None:
        """Seconds until a look is worth it though nobody has told of news."""
        if not self._pending:
            return None
        now = self._clock.monotonic()
        retries = [max(0.0, wave.retry_at - now) for wave in self._pending if wave.failures]
        return min([self._limits.flush, *retries])

    def _due(self) -> list[Wave]:
        now = self._clock.monotonic()
        latest = now - self._limits.flush
        waves = [
            wave
            for wave in self._pending
            if wave.retry_at <= now
            and (
                wave.answered
                or self._draining
                or (wave.unrecorded and wave.first_answer_at is not None and wave.first_answer_at <= latest)
            )
        ]
        for wave in waves:
            del self._pending[wave]
        return waves

    async def _record(self, waves: Sequence[Wave]) -> None:
        """One bulk; what does not stand then, and yet may, comes again."""
        going, again = await self._reloaded(waves)
        again += await self._try(going)
        now = self._clock.monotonic()
        for wave in again:
            wave.failures += 1
            wave.retry_at = now + _BACKOFF.delay(wave.failures)
            self._pending[wave] = None

    async def _reloaded(self, waves: Sequence[Wave]) -> tuple[list[Wave], list[Wave]]:
        """Those that may be decided, on newer streams where they failed before; and those that cannot be read now."""
        going, stale = [wave for wave in waves if not wave.failures], [wave for wave in waves if wave.failures]
        if not stale:
            return going, []
        try:
            found = await self._streams.load_many([wave.work.held.message_id for wave in stale])
        except TransientError:
            return going, stale
        for wave in stale:
            held = found[wave.work.held.message_id]
            if isinstance(held, PermanentError):
                self._give_up(wave, dict(wave.unrecorded), held)
            else:
                wave.work.held = held
                going.append(wave)
        return going, []

    async def _try(self, waves: Sequence[Wave]) -> list[Wave]:
        """One bulk; returns the waves that must be decided again on newer streams."""
        steps: list[tuple[Wave, dict[str, Outcome], Step]] = []
        for wave in waves:
            answers = dict(wave.unrecorded)
            try:
                steps.append((wave, answers, self._step(wave, answers)))
            except PermanentError as error:
                self._give_up(wave, answers, error)
        self._checkpoints.reach("sender.record")
        results = await self._streams.append([step for _, _, step in steps])
        self._checkpoints.reach("sender.recorded")
        again: list[Wave] = []
        for (wave, answers, _), result in zip(steps, results, strict=True):
            if isinstance(result, Held):
                wave.work.held = result
                self._done(wave, answers)
            elif is_race(result) or isinstance(result, TransientError):
                again.append(wave)
            else:
                self._give_up(wave, answers, result)
        return again

    def _give_up(self, wave: Wave, answers: Mapping[str, Outcome], error: Exception) -> None:
        """The attempts stay without answer in their stream; whoever finds them there writes "unknown"."""
        told = {name: type(outcome).__name__ for name, outcome in answers.items()}
        log.error(
            "an answer can never be recorded", aggregate_id=wave.work.held.message_id, answers=told, error=str(error)
        )
        self._done(wave, answers)

    def _done(self, wave: Wave, answers: Mapping[str, Outcome]) -> None:
        wave.recorded |= answers.keys()
        wave.failures, wave.retry_at = 0, float("-inf")
        self._places.give_back(len(answers))
        if wave.over:
            self._over(wave)
        elif wave.unrecorded:
            self.heard(wave)
        else:
            wave.first_answer_at = None

    def _step(self, wave: Wave, answers: Mapping[str, Outcome]) -> Step:
        held = wave.work.held
        drafts: Drafts = self._streams.decide(
            held,
            *(RecordOutcome(name, outcome, self._goes_on(wave, name, outcome)) for name, outcome in answers.items()),
        )
        goes_on = len(wave.recorded) + len(answers) < len(wave.attempts) or self._more_to_do(held, drafts)
        return Step(held, drafts, keep_lease=goes_on)

    def _goes_on(self, wave: Wave, attempt_id: str, outcome: Outcome) -> bool:
        if not isinstance(outcome, Rejected):
            return False
        refused = next(each for each in wave.attempts if each.attempt_id == attempt_id)
        without = blocked(wave.work.held.message.deliveries[refused.recipient]) | {refused.provider}
        return self._elsewhere(wave.work, without, self._clock.monotonic())

    def _more_to_do(self, held: Held, drafts: Drafts) -> bool:
        return bool(self._streams.ready(self._streams.preview(held, drafts)))
