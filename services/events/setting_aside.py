"""Parking on the reading side: a bad record stops nobody, and a flood of them stops everybody."""

from __future__ import annotations

from asyncio import gather
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final, NoReturn, Protocol

from services.events.ports import LogRecord
from services.kit.breaker import Breaker
from services.kit.clock import Clock
from services.kit.errors import TransientError
from services.kit.kafka.batch import what_to_do
from services.kit.kafka.records import Park, Record
from services.kit.kafka.releasing import report_of, tell_of_discarded
from services.kit.logs import get_logger
from services.kit.metrics import BREAKER_OPEN, RECORDS_PARKED, Metrics
from services.kit.parking import ParkedRecord, ParkingLot, parked_id
from services.kit.process_name import process_name
from services.kit.releases import NoReleases, Release, Releases, by_release, release_for

log = get_logger(__name__)


class Flood(TransientError):
    """Too many bad records in a short time: the cause is rather ours, or a writer's, than theirs."""


Refused = tuple[LogRecord, Park]
"""A record that cannot be applied, and why."""

At = tuple[int, int]
"""A record's partition and offset."""

LOOK_SECONDS: Final = 1.0
"""How long it counts that nothing was set aside from some offsets on."""

_FIRST_VERSION: Final = 1
_OF_THE_FIRST_VERSION: Final = frozenset({"foldFailed", "unwritable"})
"""Reasons for which builds that kept no such event parked it, all of their folds being of version 1: these records are
left out by generations of that version only, so that a mended fold takes them.
"""


class Aside(Protocol):
    """Where records go that cannot be applied."""

    async def left_out(self, records: Sequence[LogRecord]) -> Collection[At]:
        """Where those of `records` lie that were set aside before, by whichever generation, and are not to be applied
        until they are retried.
        """
        ...

    async def park(self, refused: Sequence[Refused]) -> None:
        """Set them aside."""
        ...

    async def went_through(self) -> None:
        """A batch had nothing to park."""
        ...


class SettingAside:
    """Parks records of one projection, or discards them where an operator has ordered it."""

    def __init__(
        self,
        consumer: str,
        topic: str,
        lot: ParkingLot,
        breaker: Breaker,
        clock: Clock,
        metrics: Metrics,
        *,
        releases: Releases | None = None,
        generation: int = 0,
        version: int = _FIRST_VERSION,
    ) -> None:
        """`generation`: whose records these are, for people who look at several breakers of one consumer. `version`: of
        its fold.
        """
        self._ahead = False
        self._looked_from: dict[int, int] = {}
        self._looked_until = float("-inf")
        self._read: dict[int, int] = {}
        self._consumer = consumer
        self._topic = topic
        self._lot = lot
        self._breaker = breaker
        self._clock = clock
        self._metrics = metrics
        self._releases: Releases = releases or NoReleases()
        self._member = f"{process_name()}:g{generation}"
        self._version = version
        self._since: datetime | None = None

    async def left_out(self, records: Sequence[LogRecord]) -> Collection[At]:
        """As `Aside` says: what waits in the parking lot or was given up there, and what was discarded by an order.

        Raises:
            Unavailable: the parking lot, or where orders are kept, cannot be reached.
        """
        firsts: dict[int, int] = {}
        for each in records:
            if each.offset < firsts.setdefault(each.partition, each.offset):
                firsts[each.partition] = each.offset
        if not await self._any_ahead(firsts):
            return ()
        offsets = _by_partition((each.partition, each.offset) for each in records)
        spans = {partition: (first, max(offsets[partition])) for partition, first in firsts.items()}
        parked, discarded = await gather(
            self._lot.left_out(self._consumer, self._topic, spans),
            self._releases.discarded(self._consumer, self._topic, offsets),
        )
        later = self._version > _FIRST_VERSION
        return discarded.union(at for at, reason in parked.items() if not (later and reason in _OF_THE_FIRST_VERSION))

    async def _any_ahead(self, firsts: Mapping[int, int]) -> bool:
        """Whether anything was set aside from these offsets on. Who reads the end of the log asks once a second, and
        not with each of many small batches, whichever partitions these are of. What another process has set aside
        within that second lies there because it is bad, and is found to be so here as well.
        """
        self._read |= firsts
        over = self._clock.monotonic() >= self._looked_until
        looked = self._looked_from
        if over or any(first < looked.get(partition, first + 1) for partition, first in firsts.items()):
            asked = self._read if over else looked | self._read
            parked, discarded = await gather(
                self._lot.any_from(self._consumer, self._topic, asked),
                self._releases.any_from(self._consumer, self._topic, asked),
            )
            self._ahead = parked or discarded
            self._looked_from, self._looked_until = asked, self._clock.monotonic() + LOOK_SECONDS
            if over:
                self._read = {}  # what is read no more is asked about no more
        return self._ahead

    async def park(self, refused: Sequence[Refused]) -> None:
        """Set these aside; durable when this returns. What was parked or discarded before is not counted again, so that
        a rebuild comes past the bad records of all time.

        Raises:
            Flood: the breaker does not admit all of them, and no operator's order holds for the others. Those that it
                admits, or that are released, are set aside before.
            Unavailable: the parking lot, or where orders are kept, cannot be reached.
        """
        if not refused:
            return
        now = self._clock.now()
        found = {(each.partition, each.offset): (as_record(self._topic, each), why) for each, why in refused}
        lying = await self._lying(found)
        passed = await self._releases.discarded(self._consumer, self._topic, _by_partition(found))
        new = {at: each for at, each in found.items() if at not in lying and at not in passed}
        released = await self._released(new)
        admitted = {at for at in new if at not in released and self._breaker.admit(at)}
        discarded = {at: release for at, release in released.items() if release.discards(found[at][1].kind)}
        for release, places in by_release(discarded):
            records = [found[at][0] for at in places]
            fresh = await self._releases.discard(release, records, now)
            tell_of_discarded(self._metrics, self._consumer, release, records, fresh)
        await self._park(
            [
                ParkedRecord.of(self._consumer, record, why, now, released[at].id if at in released else None)
                for at, (record, why) in found.items()
                if at in lying or at in admitted or (at in released and at not in discarded)
            ],
            new.keys(),
        )
        held = [each for at, each in new.items() if at not in released and at not in admitted]
        if held:
            await self._stop(held[-1], now)
        if released:
            self._breaker.reset()
            await self.went_through()

    async def went_through(self) -> None:
        """A batch had nothing to park."""
        if self._breaker.state != "closed":
            self._breaker.succeeded()
        if self._breaker.state == "closed":
            self._metrics.set(BREAKER_OPEN, 0, consumer=self._consumer)
            if self._since is not None:
                await self._releases.withdraw(self._consumer, self._member)
                self._since = None

    async def _lying(self, found: Mapping[At, tuple[Record, Park]]) -> set[At]:
        """Those that are in the parking lot, whatever became of them."""
        ids = {parked_id(self._consumer, record): at for at, (record, _) in found.items()}
        return {ids[each] for each in await self._lot.known(ids.keys())}

    async def _released(self, new: Mapping[At, tuple[Record, Park]]) -> dict[At, Release]:
        orders = await self._releases.in_force(self._consumer) if new else ()
        holding = {at: release_for(orders, record, why.kind) for at, (record, why) in new.items()}
        return {at: release for at, release in holding.items() if release is not None}

    async def _park(self, parked: Sequence[ParkedRecord], new: Collection[At]) -> None:
        if not parked:
            return
        await self._lot.park(parked)
        for each in parked:
            if (each.partition, each.offset) not in new:
                continue
            self._metrics.inc(RECORDS_PARKED, group=self._consumer, topic=self._topic, reason=each.reason)
            if each.release is None:  # of those that are released there are thousands
                log.warning(
                    "record parked",
                    consumer=self._consumer,
                    partition=each.partition,
                    offset=each.offset,
                    reason=each.reason,
                    detail=each.detail,
                )

    async def _stop(self, last: tuple[Record, Park], now: datetime) -> NoReturn:
        self._metrics.set(BREAKER_OPEN, 1, consumer=self._consumer)
        self._since = self._since or now
        await self._releases.report(
            report_of(self._consumer, self._member, self._breaker.state, (self._topic,), self._since, now, last)
        )
        record, why = last
        raise Flood(
            f"{self._consumer}: the breaker is open at partition {record.partition} offset {record.offset} "
            f"({why.reason}): {what_to_do(self._consumer)}",
            retry_after=5.0,
        )


def _by_partition(found: Iterable[At]) -> dict[int, set[int]]:
    offsets: dict[int, set[int]] = {}
    for partition, offset in found:
        offsets.setdefault(partition, set()).add(offset)
    return offsets


def as_record(topic: str, record: LogRecord) -> Record:
    """A log record in the kit's form."""
    headers = tuple((name, value) for name, value in record.headers)
    return Record(topic, record.partition, record.offset, record.timestamp, record.key, record.value, headers)
