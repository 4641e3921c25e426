"""What a consumer loop does about operators' orders beside handling batches: tells of its breaker, hears of orders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from services.kit.breaker import Breaker, BreakerState
from services.kit.clock import Clock
from services.kit.kafka.binding import source_of
from services.kit.kafka.bounded import bounded
from services.kit.kafka.records import Park, Partition, Record
from services.kit.logs import get_logger
from services.kit.metrics import RECORDS_DISCARDED, Metrics
from services.kit.releases import BreakerReport, Release, Releases, note_passed

log = get_logger(__name__)

EVERY: Final = 5
"""Turns from one look at the orders, or word on the breaker, to the next while nothing has changed."""

_SECONDS: Final = 5.0


class ReleaseWatch:
    """For one consumer of one process; `turn` is called every second.

    An order is carried out by `BatchRunner`, which asks for it when the handler refuses something. What is missing is
    that records flow: an open breaker holds them all. So the first time that an order holds for what lies ahead, the
    breaker is reset. Not a second time: when it opens again, it was records that the order does not name.
    """

    def __init__(
        self, releases: Releases, consumer: str, member: str, topics: tuple[str, ...], breaker: Breaker, clock: Clock
    ) -> None:
        self._releases = releases
        self._consumer = consumer
        self._member = member
        self._topics = topics
        self._breaker = breaker
        self._clock = clock
        self._heard: set[str] = set()
        self._turns = 0
        self._told: BreakerState = "closed"
        self._since: datetime | None = None

    async def turn(
        self,
        positions: Mapping[Partition, int],
        committed: Mapping[Partition, int],
        refused: tuple[Record, Park] | None,
    ) -> None:
        """Look and tell. Never raises: where orders are kept may be away.

        Args:
            positions: of the partitions that are assigned here: the first offset that is not handled.
            committed: of the same: what is committed, -1 = nothing.
            refused: the last record that the breaker did not admit.
        """
        state = self._breaker.state
        regular = self._turns % EVERY == 0
        self._turns += 1
        try:
            if state != self._told or (state != "closed" and regular):
                await bounded(self._tell(state, refused), _SECONDS)
            if state != "closed" or regular:
                await bounded(self._hear(positions, committed), _SECONDS)
        except Exception as failure:  # noqa: BLE001 - it is tried again in a second, and the loop must go on
            log.warning("orders about floods cannot be looked at", group=self._consumer, error=repr(failure))

    async def end(self) -> None:
        """The consumer stops: nothing of its breaker is to be seen any more. Never raises."""
        if self._told != "closed":
            try:
                await bounded(self._releases.withdraw(self._consumer, self._member), 1.0)
            except Exception as failure:  # noqa: BLE001 - it is forgotten by itself
                log.info("the breaker's last word stays for a while", group=self._consumer, error=repr(failure))

    async def _tell(self, state: BreakerState, refused: tuple[Record, Park] | None) -> None:
        if state == "closed":
            await self._releases.withdraw(self._consumer, self._member)
            self._since = None
        else:
            now = self._clock.now()
            self._since = self._since or now
            report = report_of(self._consumer, self._member, state, self._topics, self._since, now, refused)
            await self._releases.report(report)
        self._told = state

    async def _hear(self, positions: Mapping[Partition, int], committed: Mapping[Partition, int]) -> None:
        orders = await self._releases.in_force(self._consumer)
        await note_passed(self._releases, orders, committed, self._clock.now())
        for order in orders:
            if order.id not in self._heard and _is_ahead(order, positions):
                self._heard.add(order.id)
                self._breaker.reset()
                log.warning(
                    "an operator lets go of a flood",
                    group=self._consumer,
                    release=order.id,
                    action=order.action,
                    by=order.by,
                )


def tell_of_discarded(metrics: Metrics, consumer: str, release: Release, records: Sequence[Record], fresh: int) -> None:
    """Count and log these records of one topic, `fresh` of which were not recorded before."""
    metrics.inc(RECORDS_DISCARDED, fresh, group=consumer, topic=records[0].topic)
    log.warning(
        "records discarded by an operator's order",
        consumer=consumer,
        release=release.id,
        records=len(records),
        recorded_before=len(records) - fresh,
    )


def report_of(
    consumer: str,
    member: str,
    state: BreakerState,
    topics: tuple[str, ...],
    since: datetime,
    now: datetime,
    refused: tuple[Record, Park] | None,
) -> BreakerReport:
    """What is to be told of a breaker that is not closed, with the last record that it did not admit."""
    if refused is None:
        return BreakerReport(consumer, member, state, topics, since, now)
    record, park = refused
    return BreakerReport(
        consumer,
        member,
        state,
        topics,
        since,
        now,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        reason=park.reason,
        source=source_of(record),
    )


def _is_ahead(order: Release, positions: Mapping[Partition, int]) -> bool:
    return any(positions.get(each.where, each.until) < each.until for each in order.bounds)
