"""Parking on the reading side: a bad record stops nobody, and a flood of them stops everybody."""

from __future__ import annotations

from typing import Protocol

from services.events.ports import LogRecord
from services.kit.breaker import Breaker
from services.kit.clock import Clock
from services.kit.errors import TransientError
from services.kit.kafka.records import Park, Record
from services.kit.logs import get_logger
from services.kit.metrics import BREAKER_OPEN, RECORDS_PARKED, Metrics
from services.kit.parking import ParkedRecord, ParkingLot

log = get_logger(__name__)


class Flood(TransientError):
    """Too many bad records in a short time: the cause is rather ours, or a writer's, than theirs."""


class Aside(Protocol):
    """Where records go that cannot be applied."""

    async def park(self, record: LogRecord, why: Park) -> None:
        """Set `record` aside."""
        ...

    def went_through(self) -> None:
        """A batch had nothing to park."""
        ...


class SettingAside:
    """Parks records of one projection."""

    def __init__(
        self, consumer: str, topic: str, lot: ParkingLot, breaker: Breaker, clock: Clock, metrics: Metrics
    ) -> None:
        self._consumer = consumer
        self._topic = topic
        self._lot = lot
        self._breaker = breaker
        self._clock = clock
        self._metrics = metrics

    async def park(self, record: LogRecord, why: Park) -> None:
        """Set `record` aside; durable when this returns. One that lies there already is not counted again, so that a
        rebuild comes past the bad records of all time.

        Raises:
            Flood: the breaker does not admit it.
            Unavailable: the parking lot cannot be reached.
        """
        parked = ParkedRecord.of(self._consumer, as_record(self._topic, record), why, self._clock.now())
        before = await self._lot.show(parked.id)
        if before is None and not self._breaker.admit(parked.id):
            self._metrics.set(BREAKER_OPEN, 1, consumer=self._consumer)
            raise Flood(
                f"{self._consumer}: too many bad records in a short time, the last at partition {record.partition} "
                f"offset {record.offset} ({why.reason}); look at the parked ones, mend the cause, then restart",
                retry_after=5.0,
            )
        await self._lot.park([parked])
        self._metrics.inc(RECORDS_PARKED, group=self._consumer, topic=self._topic, reason=why.reason)
        log.warning(
            "record parked",
            consumer=self._consumer,
            partition=record.partition,
            offset=record.offset,
            reason=why.reason,
            detail=why.detail,
        )

    def went_through(self) -> None:
        """A batch had nothing to park."""
        if self._breaker.state != "closed":
            self._breaker.succeeded()
        if self._breaker.state == "closed":
            self._metrics.set(BREAKER_OPEN, 0, consumer=self._consumer)


def as_record(topic: str, record: LogRecord) -> Record:
    """A log record in the kit's form."""
    headers = tuple((name, value) for name, value in record.headers)
    return Record(topic, record.partition, record.offset, record.timestamp, record.key, record.value, headers)
