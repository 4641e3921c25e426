"""Runs a handler over a batch and gives every record its verdict: handled (or parked), or to be handed out again."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime

from services.kit.breaker import Breaker
from services.kit.clock import Clock
from services.kit.errors import MailroomError, PermanentError, TransientError
from services.kit.kafka.bounded import bounded
from services.kit.kafka.records import DONE, BatchHandler, Done, Outcome, Park, Record, Retry
from services.kit.kafka.releasing import tell_of_discarded
from services.kit.logs import get_logger
from services.kit.metrics import RECORDS_PARKED, Metrics
from services.kit.parking import UNCOUNTED, ParkedRecord, ParkingLot
from services.kit.releases import NoReleases, Release, Releases, by_release, release_for

log = get_logger(__name__)

HANGING_PAUSE = 5
"""A record on which the handler hangs when it is alone waits so many times as long as it took from the others."""

ORDERS_SECONDS = 1.0
"""How long orders are known before they are asked for again."""

Verdict = Retry | None
"""None = handled: the effect, or the record in the parking lot, is acknowledged."""

_Key = tuple[str, int, bytes]


class HandlerContractBroken(MailroomError):
    """A handler did not answer one outcome for each record."""


class BreakerOpen(TransientError):
    """Nothing more may be parked for now: too many records were."""


class KeyHeld(TransientError):
    """An earlier record of the same key is not handled yet."""


class BatchRunner:
    """One consumer's way of handling batches.

    A record is parked only by the handler's word, or when it fails alone `alone_attempts` times with an error that
    is not transient; how many may be is the breaker's to say, unless an operator has released them. Parking, or the
    record of what was discarded, is acknowledged before the records count as handled; where it fails, they are to be
    handed out again.
    """

    def __init__(
        self,
        consumer: str,
        handler: BatchHandler,
        parking: ParkingLot,
        breaker: Breaker,
        clock: Clock,
        metrics: Metrics,
        *,
        releases: Releases | None = None,
        attempt_seconds: float = 60.0,
        budget_seconds: float = 120.0,
        parking_seconds: float = 15.0,
        alone_attempts: int = 3,
        alone_pause: float = 0.1,
    ) -> None:
        self._consumer = consumer
        self._handler = handler
        self._parking = parking
        self._breaker = breaker
        self._clock = clock
        self._metrics = metrics
        self._attempt_seconds = attempt_seconds
        self._budget_seconds = budget_seconds
        self._parking_seconds = parking_seconds
        self._alone_attempts = alone_attempts
        self._alone_pause = alone_pause
        self._releases: Releases = releases or NoReleases()
        self._orders: Sequence[Release] | None = None
        self._orders_until = 0.0
        self.refused: tuple[Record, Park] | None = None
        """The last record that the breaker did not admit, and why it was to be parked."""
        self.timed_out = False
        """Whether a call of the handler took too long in the last run."""
        self.released = False
        """Whether all records of the last run were set aside by an operator's order."""

    async def run(self, records: Sequence[Record], abort: asyncio.Event) -> list[Verdict]:
        """One verdict for each record, in order. After a record that is to be handed out again, all later ones of
        its key in its partition are too. Once `abort` is set, no further call of the handler is begun. Raises
        nothing but a cancellation that is meant for the caller.
        """
        self.timed_out = self.released = False
        if self._clock.monotonic() >= self._orders_until:
            self._orders = None
        deadline = self._clock.monotonic() + self._budget_seconds
        outcomes = await self._attempt(records, abort, deadline)
        if all(outcome is DONE for outcome in outcomes):
            self._breaker.succeeded()
            return [None] * len(records)
        _hold_keys(records, outcomes)
        parked_counted = await self._park(records, outcomes)
        _hold_keys(records, outcomes)
        verdicts = [outcome if isinstance(outcome, Retry) else None for outcome in outcomes]
        if None in verdicts and not parked_counted:
            self._breaker.succeeded()
        return verdicts

    async def _attempt(self, records: Sequence[Record], abort: asyncio.Event, deadline: float) -> list[Outcome]:
        outcomes = await self._call(records)
        if not isinstance(outcomes, Exception):
            return outcomes
        if len(records) == 1:
            return [await self._alone(records[0], outcomes, abort, deadline)]
        log.warning(
            "a batch failed, looking for the records that cause it",
            consumer=self._consumer,
            records=len(records),
            error_class=type(outcomes).__name__,
        )
        return await self._isolate(records, outcomes, abort, deadline)

    async def _call(self, records: Sequence[Record]) -> list[Outcome] | Exception:
        """The handler's outcomes; `Retry` for all when it failed for now; the exception when it has a bug."""
        try:
            outcomes = list(await bounded(self._handler(records), self._attempt_seconds))
        except TimeoutError as late:
            self.timed_out = True
            again = TransientError(f"the handler gave up, or took more than {self._attempt_seconds:g} s")
            again.__cause__ = late
            alone = len(records) == 1
            return [Retry(again, self._attempt_seconds * HANGING_PAUSE if alone else None)] * len(records)
        except TransientError as again:
            return [Retry(again, again.retry_after)] * len(records)
        except MailroomError as failure:
            return failure if failure.answer == "never" else [Retry(failure)] * len(records)
        except Exception as bug:  # noqa: BLE001 - whatever a handler raises must not stop the loop
            return bug
        if len(outcomes) != len(records) or not all(isinstance(o, Done | Retry | Park) for o in outcomes):
            return HandlerContractBroken(f"not one outcome for each of {len(records)} records")
        return outcomes

    async def _isolate(
        self, records: Sequence[Record], error: Exception, abort: asyncio.Event, deadline: float
    ) -> list[Outcome]:
        """Each half by itself, the earlier one first, so that the order of keys holds."""
        middle = len(records) // 2
        outcomes: list[Outcome] = []
        for half in (records[:middle], records[middle:]):
            held = _held(records, outcomes)
            ready = [record for record in half if _key(record) not in held]
            if not ready or self._must_stop(abort, deadline):
                found: list[Outcome] = [Retry(error)] * len(ready)
            else:
                found = await self._attempt(ready, abort, deadline)
            answers = iter(found)
            outcomes.extend(Retry(_HELD) if _key(record) in held else next(answers) for record in half)
        return outcomes

    async def _alone(self, record: Record, error: Exception, abort: asyncio.Event, deadline: float) -> Outcome:
        """The last word on a record that fails by itself: some more attempts, then parked. The pauses between them
        are left out where an order holds: of a flood there are thousands.
        """
        try:
            release = release_for(await self._in_force(), record, "bug")
        except Exception as away:  # noqa: BLE001 - an operator may have decided about it, and nobody can tell now
            return Retry(away)
        for _ in range(self._alone_attempts - 1):
            if self._must_stop(abort, deadline):
                return Retry(error)
            if release is None:
                await self._clock.sleep(self._alone_pause)
            outcomes = await self._call([record])
            if not isinstance(outcomes, Exception):
                return outcomes[0]
            error = outcomes
        if isinstance(error, PermanentError):
            park = Park(error.reason, "poison", error.detail, error=error)
        else:
            park = Park("handlerFailed", "bug", type(error).__name__, error=error)
        return park if release is not None or self._admits(record, park) else Retry(self._open())

    async def _park(self, records: Sequence[Record], outcomes: list[Outcome]) -> bool:
        """Park, or discard, what is to be set aside; what cannot be becomes a Retry. Whether any of it counts for the
        breaker.
        """
        released = await self._released(records, outcomes)
        self.released = len(released) == len(records)
        for index, outcome in enumerate(outcomes):
            if isinstance(outcome, Park) and index not in released and not self._admits(records[index], outcome):
                outcomes[index] = Retry(self._open())
        _hold_keys(records, outcomes)
        now = self._clock.now()
        await self._discard(records, outcomes, released, now)
        wanted = {
            index: ParkedRecord.of(
                self._consumer, records[index], outcome, now, released[index].id if index in released else None
            )
            for index, outcome in enumerate(outcomes)
            if isinstance(outcome, Park)
        }
        if not wanted:
            return False
        try:
            await bounded(self._parking.park(list(wanted.values())), self._parking_seconds)
        except Exception as failure:  # noqa: BLE001 - what is not parked is not handled, whatever the reason
            log.warning(
                "parking failed, the records stay where they are",
                consumer=self._consumer,
                records=len(wanted),
                error=repr(failure),
            )
            for index in wanted:
                outcomes[index] = Retry(failure)
        else:
            for index, parked in wanted.items():
                outcomes[index] = DONE
                self._tell(parked)
        return any(parked.kind not in UNCOUNTED and parked.release is None for parked in wanted.values())

    async def _released(self, records: Sequence[Record], outcomes: list[Outcome]) -> Mapping[int, Release]:
        """By index, the order by which a record is to be set aside. Where nobody can tell whether there is one, what
        the breaker would have to admit becomes a Retry.
        """
        counted = {
            index: each for index, each in enumerate(outcomes) if isinstance(each, Park) and each.kind not in UNCOUNTED
        }
        if not counted:
            return {}
        try:
            orders = await self._in_force()
        except Exception as failure:  # noqa: BLE001 - what cannot be decided stays, whatever the reason
            log.warning("orders cannot be read", consumer=self._consumer, error=repr(failure))
            for index in counted:
                outcomes[index] = Retry(failure)
            return {}
        found = {index: release_for(orders, records[index], park.kind) for index, park in counted.items()}
        return {index: release for index, release in found.items() if release is not None}

    async def _discard(
        self, records: Sequence[Record], outcomes: list[Outcome], released: Mapping[int, Release], now: datetime
    ) -> None:
        """Have what is discarded by an order recorded; what cannot be becomes a Retry."""
        discarded = {
            index: release
            for index, release in released.items()
            if isinstance(outcome := outcomes[index], Park) and release.discards(outcome.kind)
        }
        for release, indexes in by_release(discarded):
            try:
                fresh = await bounded(
                    self._releases.discard(release, [records[index] for index in indexes], now), self._parking_seconds
                )
            except Exception as failure:  # noqa: BLE001 - what is not recorded is not handled, whatever the reason
                log.warning(
                    "discarding failed, the records stay where they are",
                    consumer=self._consumer,
                    records=len(indexes),
                    error=repr(failure),
                )
                for index in indexes:
                    outcomes[index] = Retry(failure)
            else:
                for index in indexes:
                    outcomes[index] = DONE
                tell_of_discarded(self._metrics, self._consumer, release, [records[index] for index in indexes], fresh)

    async def _in_force(self) -> Sequence[Release]:
        """The orders that are in force: asked for once a run, and while there are any once a second. One that is known
        for that long after it was closed does no harm: it holds for what was there before it.
        """
        if self._orders is None:
            self._orders = await bounded(self._releases.in_force(self._consumer), self._parking_seconds)
            self._orders_until = self._clock.monotonic() + (ORDERS_SECONDS if self._orders else 0.0)
        return self._orders

    def _open(self) -> BreakerOpen:
        return BreakerOpen(what_to_do(self._consumer))

    def _tell(self, parked: ParkedRecord) -> None:
        self._metrics.inc(RECORDS_PARKED, group=self._consumer, topic=parked.topic, reason=parked.reason)
        if parked.release is not None:
            return  # thousands a second; the order says who wanted it, and each record which order it was
        log.warning(
            "record parked",
            consumer=self._consumer,
            parked_id=parked.id,
            reason=parked.reason,
            kind=parked.kind,
            error_class=parked.error_class,
        )

    def _admits(self, record: Record, park: Park) -> bool:
        if park.kind in UNCOUNTED or self._breaker.admit(record.origin):
            return True
        self.refused = (record, park)
        return False

    def _must_stop(self, abort: asyncio.Event, deadline: float) -> bool:
        return abort.is_set() or self._clock.monotonic() >= deadline or self._breaker.state == "open"


_HELD = KeyHeld("an earlier record of its key is not handled")


def what_to_do(consumer: str) -> str:
    """What an operator is told about an open breaker."""
    return (
        "too many records had to be parked: mend the cause and restart, or see `mailroom breaker list` and let go of "
        f"them with `mailroom breaker release {consumer} --reason … --park | --discard`"
    )


def _key(record: Record) -> _Key | None:
    return None if record.key is None else (record.topic, record.partition, record.key)


def _held(records: Sequence[Record], outcomes: Sequence[Outcome]) -> set[_Key | None]:
    """Keys of the records that are to be handed out again, as far as outcomes are known. None is never held."""
    pairs = zip(records, outcomes, strict=False)
    return {_key(record) for record, outcome in pairs if isinstance(outcome, Retry)} - {None}


def _hold_keys(records: Sequence[Record], outcomes: list[Outcome]) -> None:
    """Make every outcome after a Retry of the same key a Retry too."""
    held: set[_Key] = set()
    for index, record in enumerate(records):
        key = _key(record)
        if key is None:
            continue
        if isinstance(outcomes[index], Retry):
            held.add(key)
        elif key in held:
            outcomes[index] = Retry(_HELD)
