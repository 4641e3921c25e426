"""The calls: each licensed attempt exactly once, within its licence, and an honest answer whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from services.email.domain.commands import PlannedAttempt
from services.email.domain.outcomes import Accepted, NotCalled, Outcome, Rejected, Unknown
from services.email.entrypoints.sender_providers import Providers
from services.email.entrypoints.sender_work import Limits, Wave
from services.email.ports import Checkpoints, OutgoingAttempt
from services.email.right_of_way import RightOfWay
from services.kit import metrics as m
from services.kit.clock import Clock
from services.kit.logs import get_logger
from services.kit.metrics import Metrics

log = get_logger(__name__)


class Caller:
    """As many workers as attempts may be open. `heard` is told when a wave has another answer."""

    def __init__(
        self,
        providers: Providers,
        limits: Limits,
        clock: Clock,
        metrics: Metrics,
        checkpoints: Checkpoints,
        heard: Callable[[Wave], None],
        right_of_way: RightOfWay,
    ) -> None:
        self._providers, self._limits = providers, limits
        self._clock, self._metrics, self._checkpoints, self._heard = clock, metrics, checkpoints, heard
        self._right_of_way = right_of_way
        self._queue: asyncio.Queue[tuple[Wave, PlannedAttempt]] = asyncio.Queue()
        self._workers: list[asyncio.Task[None]] = []
        self._stopping = False

    def start(self) -> None:
        """Begin."""
        self._workers = [
            asyncio.create_task(self._work(), name=f"sender-call-{n}") for n in range(self._limits.concurrency)
        ]

    def call(self, waves: Iterable[Wave]) -> None:
        """Have these attempts called; they are licensed."""
        for wave in waves:
            for planned in wave.attempts:
                self._queue.put_nowait((wave, planned))

    def stop_calling(self) -> None:
        """Begin no call any more: what waits is answered as not called. Calls under way go on."""
        self._stopping = True

    async def cut_off(self) -> None:
        """End the calls that are still under way; their outcome is unknown."""
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)

    async def _work(self) -> None:
        while True:
            wave, planned = await self._queue.get()
            try:
                outcome = await self._attempt(wave, planned)
            except asyncio.CancelledError:
                self._answer(wave, planned, Unknown("the call was cancelled"))
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                continue  # it leaked out of a client library: not we are told to stop, and this worker is needed
            self._answer(wave, planned, outcome)

    async def _attempt(self, wave: Wave, planned: PlannedAttempt) -> Outcome:
        if wave.work.lane == "urgent":
            self._right_of_way.end(wave.mail.message_id)
        else:
            await self._right_of_way.step_aside()
        provider, circuit = self._providers[planned.provider], self._providers.circuits[planned.provider]
        attempt = OutgoingAttempt(planned.attempt_id, planned.recipient, wave.mail)
        if self._stopping:
            return NotCalled("the process is stopping")
        if not circuit.may_call():
            return NotCalled(f"the provider refuses everything now ({circuit.reason})")
        self._checkpoints.reach("sender.call")
        # The licence is looked at last: nothing may come between this look and the call.
        began = self._clock.monotonic()
        if began - wave.begun >= self._limits.licence:
            return NotCalled("the licence had lapsed")
        outcome: Outcome
        try:
            async with asyncio.timeout(self._limits.call):
                outcome = await provider.send(attempt)
        except TimeoutError:
            outcome = Unknown(f"no answer within {self._limits.call:g} s")
        except Exception as error:
            log.exception("a provider's adapter raised", provider=planned.provider)
            outcome = Unknown(f"{type(error).__name__} in the adapter")
        self._checkpoints.reach("sender.called")
        self._metrics.inc(m.SEND_ATTEMPTS, provider=planned.provider, lane=wave.work.lane)
        self._metrics.observe(m.SEND_SECONDS, self._clock.monotonic() - began, provider=planned.provider)
        return outcome

    def _answer(self, wave: Wave, planned: PlannedAttempt, outcome: Outcome) -> None:
        now = self._clock.monotonic()
        circuit = self._providers.circuits[planned.provider]
        outcome = circuit.charged(outcome, wave.mail.message_id)
        was_open = circuit.is_open
        circuit.heard(outcome, now)
        if circuit.is_open != was_open:
            log.warning("circuit", provider=planned.provider, open=circuit.is_open, reason=circuit.reason)
            self._metrics.set(m.CIRCUIT_OPEN, circuit.is_open, provider=planned.provider)
        self._metrics.inc(m.SEND_OUTCOMES, provider=planned.provider, outcome=_name(outcome))
        wave.outcomes[planned.attempt_id] = outcome
        if wave.first_answer_at is None:
            wave.first_answer_at = now
        self._heard(wave)


def _name(outcome: Outcome) -> str:
    match outcome:
        case Accepted():
            return "accepted"
        case Rejected():
            return "rejected"
        case NotCalled():
            return "notCalled"
        case Unknown():
            return "unknown"
