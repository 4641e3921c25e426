"""Handing parked records to their handlers again: one by an operator's word, early ones by themselves."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

from services.kit.clock import Clock
from services.kit.errors import PermanentError, TransientError
from services.kit.kafka.bounded import bounded
from services.kit.kafka.records import BatchHandler, Outcome, Park, Retry
from services.kit.logs import get_logger
from services.kit.parking import ParkedRecord, ParkingLot, ParkKind

log = get_logger(__name__)

FIRST_RETRY = timedelta(seconds=2)
LAST_RETRY = timedelta(minutes=15)
LEASE = timedelta(minutes=2)

_SHOWN_CHARACTERS = 500


class ParkedRetries:
    """Retries parked records in place: with their own origin, never published again.

    `handlers` maps a consumer (its group) to the handler that its loop runs. A retry that is interrupted by a crash is
    done again, so handlers see the same record more than once, as they do anyway.
    """

    def __init__(
        self,
        lot: ParkingLot,
        handlers: Mapping[str, BatchHandler],
        clock: Clock,
        *,
        handler_seconds: float = 60.0,
    ) -> None:
        self._lot = lot
        self._handlers = handlers
        self._clock = clock
        self._handler_seconds = handler_seconds

    async def retry(self, parked_id: str, *, by: str = "") -> Outcome:
        """Hand one record to its handler and give back what came of it: `DONE` closes it, `Park` and `Retry` leave it
        parked with the new reason kept. Raises PermanentError `notParked` (unknown, retried or discarded already),
        `noHandler` (its consumer does not run here), and what `ParkingLot.show` raises.
        """
        found = await self._lot.find(parked_id)  # no key is needed to say what follows
        if found is None or found.status != "parked":
            raise PermanentError("notParked", "there is no open parked record of this id")
        if found.consumer not in self._handlers:
            raise PermanentError("noHandler", f"{found.consumer} runs in another service or process")
        parked = await self._lot.show(parked_id)
        assert parked is not None  # noqa: S101 - a parked record is never deleted
        outcome = (await self._hand_over([parked]))[0]
        await self._note(parked, outcome, self._clock.now(), by, again=parked.next_try_at)
        return outcome

    async def retry_due(
        self, kind: ParkKind, consumer: str, *, until: timedelta = timedelta(hours=24), limit: int = 100
    ) -> int:
        """Retry the records of `kind` that are due and were parked less than `until` ago. How many there were. One
        that fails comes again after a growing pause; one older than `until` waits for an operator.
        """
        now = self._clock.now()
        due = await self._lot.claim_due(
            kind, consumer, now=now, since=now - until, lease_until=now + LEASE, limit=limit
        )
        if not due:
            return 0
        for parked, outcome in zip(due, await self._hand_over(due), strict=True):
            now = self._clock.now()
            pause = min(FIRST_RETRY * 2 ** min(parked.tries, 20), LAST_RETRY)
            await self._note(parked, outcome, now, "auto", again=now + pause)
        return len(due)

    async def auto_retry(
        self,
        kind: ParkKind,
        consumer: str,
        stopping: asyncio.Event,
        *,
        until: timedelta = timedelta(hours=24),
        every: float = 1.0,
    ) -> None:
        """`retry_due` until `stopping` is set, every `every` seconds while there is nothing. Survives an unreachable
        parking lot.
        """
        while not stopping.is_set():
            try:
                busy = await self.retry_due(kind, consumer, until=until)
            except TransientError as failure:
                log.warning("parked records cannot be retried now", consumer=consumer, error=str(failure))
                busy = 0
            if not busy:
                with suppress(TimeoutError):
                    await bounded(stopping.wait(), every)

    async def _hand_over(self, parked: Sequence[ParkedRecord]) -> Sequence[Outcome]:
        """All at once; when that fails, one by one, so that one cannot hold the others."""
        handler = self._handlers[parked[0].consumer]
        records = [one.record for one in parked]
        try:
            outcomes = await bounded(handler(records), self._handler_seconds)
            if len(outcomes) == len(records):
                return outcomes
            failure: Exception = PermanentError("handlerFailed", "not one outcome for each record")
        except Exception as error:  # noqa: BLE001 - whatever the handler raises, the record stays parked
            failure = error
        if len(parked) == 1:
            return [Retry(failure)]
        return [(await self._hand_over([one]))[0] for one in parked]

    async def _note(
        self, parked: ParkedRecord, outcome: Outcome, now: datetime, by: str, *, again: datetime | None
    ) -> None:
        if isinstance(outcome, Park):
            await self._lot.mark_failed(
                parked.id,
                at=now,
                error=f"{outcome.reason}: {outcome.detail}"[:_SHOWN_CHARACTERS],
                next_try_at=again if outcome.kind == parked.kind else None,
                reason=outcome.reason,
                kind=outcome.kind,
                kept=outcome.kept,
            )
        elif isinstance(outcome, Retry):
            error = f"{type(outcome.error).__name__}: {outcome.error}"[:_SHOWN_CHARACTERS]
            await self._lot.mark_failed(parked.id, at=now, error=error, next_try_at=again)
        else:
            await self._lot.mark_retried(parked.id, at=now, by=by)
            log.info("parked record handled", parked_id=parked.id, consumer=parked.consumer, by=by)
