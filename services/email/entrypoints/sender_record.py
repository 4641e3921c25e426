"""Writing answers down: whatever came of a call is appended, however long the store is away and whoever wrote first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from services.email.domain.commands import RecordOutcome
from services.email.domain.decisions import Drafts, ready
from services.email.domain.outcomes import Outcome
from services.email.entrypoints.sender_work import Limits, Places, Wave
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
    """Appends the answers of waves in bulk. `over` is told when all of a wave's answers stand."""

    def __init__(
        self,
        streams: MessageStreams,
        places: Places,
        limits: Limits,
        clock: Clock,
        checkpoints: Checkpoints,
        over: Callable[[Wave], None],
    ) -> None:
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
        """For ever; to be cancelled when nothing is pending. What is cancelled under way may have been written."""
        while True:
            await self._wait()
            waves = self._due()
            if waves:
                await self._record(waves)

    async def _wait(self) -> None:
        limit = self._limits.flush if self._pending else None
        try:
            async with asyncio.timeout(limit):
                await self._news.wait()
        except TimeoutError:
            return
        self._news.clear()
        if not self._draining:
            await asyncio.sleep(self._limits.gather)

    def _due(self) -> list[Wave]:
        latest = self._clock.monotonic() - self._limits.flush
        waves = [
            wave
            for wave in self._pending
            if wave.answered
            or self._draining
            or (wave.unrecorded and wave.first_answer_at is not None and wave.first_answer_at <= latest)
        ]
        for wave in waves:
            del self._pending[wave]
        return waves

    async def _record(self, waves: Sequence[Wave]) -> None:
        """Until every answer of these waves stands, or never can."""
        failures = 0
        going = list(waves)
        while going:
            going = await self._try(going)
            if going:
                failures += 1
                await self._clock.sleep(_BACKOFF.delay(failures))
                await self._reload(going)

    async def _try(self, waves: Sequence[Wave]) -> list[Wave]:
        """One bulk; returns the waves that must be decided again on newer streams."""
        answers = [dict(wave.unrecorded) for wave in waves]
        steps = [self._step(wave, found) for wave, found in zip(waves, answers, strict=True)]
        self._checkpoints.reach("sender.record")
        results = await self._streams.append(steps)
        self._checkpoints.reach("sender.recorded")
        again: list[Wave] = []
        for wave, found, result in zip(waves, answers, results, strict=True):
            if is_race(result) or isinstance(result, TransientError):
                again.append(wave)
                continue
            if isinstance(result, Held):
                wave.work.held = result
            else:
                # The attempt stays without answer in its stream; whoever finds it there writes "unknown".
                log.error("an answer can never be recorded", aggregate_id=wave.work.held.message_id, error=str(result))
            self._done(wave, found)
        return again

    def _done(self, wave: Wave, answers: Mapping[str, Outcome]) -> None:
        wave.recorded |= answers.keys()
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
            held, *(RecordOutcome(name, outcome) for name, outcome in answers.items())
        )
        goes_on = len(wave.recorded) + len(answers) < len(wave.attempts) or self._more_to_do(held, drafts)
        return Step(held, drafts, keep_lease=goes_on)

    def _more_to_do(self, held: Held, drafts: Drafts) -> bool:
        return bool(ready(self._streams.preview(held, drafts), self._clock.now()))

    async def _reload(self, waves: Sequence[Wave]) -> None:
        try:
            found = await self._streams.load_many([wave.work.held.message_id for wave in waves])
        except TransientError:
            return
        for wave in waves:
            held = found[wave.work.held.message_id]
            if not isinstance(held, PermanentError):
                wave.work.held = held
