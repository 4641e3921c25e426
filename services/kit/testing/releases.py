"""Releases in memory; they pass the same suite as those in MongoDB."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from services.kit.errors import Unavailable
from services.kit.kafka.records import Partition, Record
from services.kit.releases import BreakerReport, DiscardedRange, Release, offsets_in


class MemoryReleases:
    """`Releases` that forget with the process. `away = True` makes every call raise Unavailable."""

    def __init__(self) -> None:
        self._orders: dict[str, Release] = {}
        self._ranges: list[DiscardedRange] = []
        self._breakers: dict[tuple[str, str], BreakerReport] = {}
        self.away = False

    async def order(self, release: Release) -> None:
        self._reach()
        self._orders.setdefault(release.id, release)

    async def show(self, release_id: str) -> Release | None:
        self._reach()
        return self._orders.get(release_id)

    async def in_force(self, consumer: str) -> Sequence[Release]:
        self._reach()
        found = (each for each in self._orders.values() if each.consumer == consumer and each.closed_at is None)
        return sorted(found, key=lambda each: each.id)

    async def passed(self, release_id: str, partitions: Collection[Partition], at: datetime) -> None:
        self._reach()
        order = self._orders[release_id]
        if order.closed_at is None:
            behind = order.passed | frozenset(partitions)
            over = {each.where for each in order.bounds} <= behind
            self._orders[release_id] = replace(order, passed=behind, closed_at=at if over else None)

    async def discard(self, release: Release, records: Sequence[Record], at: datetime) -> int:
        self._reach()
        by_partition: dict[Partition, list[Record]] = {}
        for record in sorted(records, key=lambda each: each.offset):
            if record.offset not in self._recorded(release.consumer, record.topic, record.partition, [record.offset]):
                by_partition.setdefault(Partition(record.topic, record.partition), []).append(record)
        for where, fresh in by_partition.items():
            place = (release.consumer, *where)
            number = 1 + sum((each.consumer, each.topic, each.partition) == place for each in self._ranges)
            self._ranges.append(DiscardedRange.of(release, number, fresh, at))
        return sum(map(len, by_partition.values()))

    async def discarded(
        self, consumer: str, topic: str, offsets: Mapping[int, Collection[int]]
    ) -> set[tuple[int, int]]:
        self._reach()
        return {
            (partition, offset)
            for partition, wanted in offsets.items()
            for offset in self._recorded(consumer, topic, partition, wanted)
        }

    async def any_from(self, consumer: str, topic: str, offsets: Mapping[int, int]) -> bool:
        self._reach()
        return any(
            (each.consumer, each.topic) == (consumer, topic)
            and each.partition in offsets
            and each.runs[-1][1] >= offsets[each.partition]
            for each in self._ranges
        )

    async def report(self, report: BreakerReport) -> None:
        self._reach()
        self._breakers[report.consumer, report.member] = report

    async def withdraw(self, consumer: str, member: str) -> None:
        self._reach()
        self._breakers.pop((consumer, member), None)

    async def breakers(self, now: datetime) -> Sequence[BreakerReport]:
        self._reach()
        return [self._breakers[key] for key in sorted(self._breakers)]

    async def ranges(self, release_id: str) -> Sequence[DiscardedRange]:
        self._reach()
        found = (each for each in self._ranges if each.release == release_id)
        return sorted(found, key=lambda each: (each.topic, each.partition, each.number))

    def _recorded(self, consumer: str, topic: str, partition: int, offsets: Collection[int]) -> set[int]:
        place = (consumer, topic, partition)
        found = [each for each in self._ranges if (each.consumer, each.topic, each.partition) == place]
        return offsets_in([run for each in found for run in each.runs], offsets)

    def _reach(self) -> None:
        if self.away:
            raise Unavailable("releases", "switched off by the test")
