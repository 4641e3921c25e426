"""Generations, the pointer and leases in memory: they pass the suites of the real ones (`tests/ports`).

Nothing awaits inside a call, so each is one step, as it is in MongoDB.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from services.events.ports import (
    FILLING,
    GONE,
    Generation,
    Lease,
    LeaseView,
    Pointer,
    Progress,
    Standing,
    Trouble,
)
from services.kit.clock import Clock
from services.kit.errors import PermanentError


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


@dataclass
class MemoryGenerations:
    """The generations of one projection and the pointer.

    Attributes:
        dropping: called for a generation whose documents and leases are to be dropped.
        shown: the generation that the view shows.
    """

    clock: Clock
    projection: str = "email_log"
    dropping: Callable[[int], None] = lambda _number: None
    generations: dict[int, Generation] = field(default_factory=dict)
    pointed: Pointer = field(default_factory=lambda: Pointer(None, None, 0))
    shown: int | None = None
    indexed: set[int] = field(default_factory=set)

    async def pointer(self) -> Pointer:
        return self.pointed

    async def list(self) -> list[Generation]:
        return [self.generations[number] for number in sorted(self.generations)]

    async def get(self, number: int) -> Generation | None:
        return self.generations.get(number)

    async def create(self, version: int, number: int | None = None) -> Generation:
        if number is None:
            number = self.pointed.generation + 1
        self.pointed = replace(self.pointed, generation=max(number, self.pointed.generation))
        made = Generation(self.projection, number, version, "created", self.clock.now())
        return self.generations.setdefault(number, made)

    async def change(self, step: Callable[[Standing], Standing], *, grace: float) -> Standing:
        until = self.clock.now() + timedelta(seconds=grace)
        after = step(Standing(self.pointed, dict(self.generations)))
        for number, each in after.generations.items():
            if each.stage != self.generations[number].stage:
                kept_until = until if each.stage == "grace" else None
                self._set(number, replace(self.generations[number], stage=each.stage, grace_until=kept_until))
        self.pointed = replace(self.pointed, active=after.pointer.active, previous=after.pointer.previous)
        return after

    async def note(
        self, number: int, *, progress: Progress | None = None, report: Mapping[str, object] | None = None
    ) -> None:
        if number in self.generations:
            before = self.generations[number]
            self._set(number, replace(before, progress=progress or before.progress, report=report or before.report))

    async def note_trouble(self, number: int, trouble: Trouble | None) -> None:
        if number in self.generations:
            self._set(number, replace(self.generations[number], trouble=trouble))

    async def pause(self, number: int, *, paused: bool) -> bool:
        found = self.generations.get(number)
        if found is None or (paused and found.stage not in FILLING):
            return False
        self._set(number, replace(found, paused=paused))
        return True

    async def follow(self) -> None:
        self.shown = self.pointed.active

    async def ensure_unique(self, number: int) -> None:
        pass

    async def ensure_indexes(self, number: int) -> None:
        self.indexed.add(number)

    async def drop(self, number: int) -> None:
        found = self.generations.get(number)
        if found is None:
            raise PermanentError("noGeneration", f"there is no generation {number}")
        if self.pointed.active == number:
            raise PermanentError("generationActive", f"{number} is what is read")
        if found.stage not in GONE:
            raise PermanentError("wrongStage", f"{number} is {found.stage}")
        self.dropping(number)

    def _set(self, number: int, generation: Generation) -> None:
        self.generations[number] = generation
