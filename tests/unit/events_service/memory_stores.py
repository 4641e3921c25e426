"""Leases in memory: they pass the suite of the real ones (`tests/ports`).

Nothing awaits inside a call, so each is one step, as it is in MongoDB.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from services.events.ports import Lease, LeaseView
from services.kit.clock import Clock


@dataclass
class _Kept:
    """A lease as it is stored."""

    next: int
    begin: int
    owner: str | None = None
    epoch: int = 0
    until: float = -1.0


@dataclass
class MemoryLeases:
    """The leases of one generation."""

    clock: Clock
    lease_seconds: float = 10.0
    kept: dict[int, _Kept] = field(default_factory=dict)
    beats: dict[str, float] = field(default_factory=dict)

    async def seed(self, begins: Mapping[int, int]) -> None:
        for partition, begin in begins.items():
            self.kept.setdefault(partition, _Kept(begin, begin))

    async def beat(self, owner: str) -> int:
        now = self.clock.monotonic()
        self.beats[owner] = now
        return sum(at > now - self.lease_seconds for at in self.beats.values())

    async def leave(self, owner: str) -> None:
        self.beats.pop(owner, None)
        for each in self.kept.values():
            if each.owner == owner:
                self._free(each)

    async def acquire(self, owner: str, partition: int) -> Lease | None:
        each = self.kept.get(partition)
        if each is None or (self._is_held(each) and each.owner != owner):
            return None
        each.owner, each.until = owner, self._until()
        each.epoch += 1
        return Lease(partition, each.epoch, each.next)

    async def renew(self, owner: str, leases: Sequence[Lease]) -> set[int]:
        for lease in leases:
            if self._stands(owner, lease):
                self.kept[lease.partition].until = self._until()
        return {lease.partition for lease in leases if not self._stands(owner, lease)}

    async def checkpoint(self, owner: str, leases: Sequence[Lease]) -> set[int]:
        for lease in leases:
            if self._stands(owner, lease):
                self.kept[lease.partition].next = lease.next
        return await self.renew(owner, leases)

    async def release(self, owner: str, leases: Sequence[Lease]) -> None:
        for lease in leases:
            if self._stands(owner, lease):
                self._free(self.kept[lease.partition])

    async def step_over(self, partition: int, to: int) -> bool:
        each = self.kept.get(partition)
        if each is None or each.next >= to:
            return False
        each.next = to
        each.epoch += 1
        self._free(each)
        return True

    async def view(self) -> list[LeaseView]:
        return [
            LeaseView(partition, each.owner, each.epoch, each.next, each.begin, self._is_held(each))
            for partition, each in sorted(self.kept.items())
        ]

    def clear(self) -> None:
        """Drop them all."""
        self.kept.clear()
        self.beats.clear()

    def _stands(self, owner: str, lease: Lease) -> bool:
        each = self.kept.get(lease.partition)
        return each is not None and (each.owner, each.epoch) == (owner, lease.epoch)

    def _is_held(self, each: _Kept) -> bool:
        return each.until >= self.clock.monotonic()

    def _until(self) -> float:
        return self.clock.monotonic() + self.lease_seconds

    def _free(self, each: _Kept) -> None:
        each.owner, each.until = None, -1.0
