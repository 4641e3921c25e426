"""Who projects which partition: each process its fair share, and whoever lost a lease moves no checkpoint any more.

A lease lasts 10 s by the server's clock and is the checkpoint too, so that taking a partition over and knowing where it
stands is one read. Documents need no fence: they are guarded one by one, and what a zombie writes is in the log anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import ceil

from services.events.ports import Lease, LeaseStore
from services.kit.clock import Clock
from services.kit.logs import get_logger
from services.kit.metrics import FENCED, PARTITION_LEASES, Metrics

log = get_logger(__name__)


class LeaseKeeper:
    """The leases of one process in one generation. One task calls `turn` every second or so, another one the rest."""

    def __init__(
        self,
        store: LeaseStore,
        owner: str,
        clock: Clock,
        metrics: Metrics,
        *,
        projection: str,
        generation: int,
        trust: float = 8.0,
        processes: int = 1,
    ) -> None:
        """`trust`: seconds without a word from the store after which the leases count as lost, since they lapse soon
        and to read on would be in vain. `processes`: how many are known to share, if more than show up.
        """
        self.owner = owner
        self.held: dict[int, Lease] = {}
        self.changed = False
        """Set when partitions came or went; whoever reads them sets it back and starts each from its `next`."""
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._labels = {"projection": projection, "generation": str(generation)}
        self._trust = trust
        self._processes = processes
        self._surplus = 0
        self._trusted_at = clock.monotonic()

    async def turn(self) -> None:
        """Show that we live, prolong what we have, take up to our share.

        Raises:
            Unavailable: the store is away; after a while of that everything counts as lost.
        """
        asked_at = self._clock.monotonic()
        try:
            live = max(self._processes, await self._store.beat(self.owner))
            epochs = await self._store.renew(self.owner)
        except Exception:
            if self._clock.monotonic() - self._trusted_at > self._trust:
                self._drop(list(self.held), "the store is away")
            raise
        self._trusted_at = asked_at
        self._drop([each for each, lease in self.held.items() if epochs.get(each) != lease.epoch], "taken over")
        leases = await self._store.view()
        share = ceil(len(leases) / live)
        self._surplus = max(0, len(self.held) - share)
        for lease in leases:
            if len(self.held) >= share:
                break
            if lease.partition not in self.held and (not lease.held or lease.owner == self.owner):
                taken = await self._store.acquire(self.owner, lease.partition)
                if taken is not None:
                    self.held[lease.partition] = taken
                    self.changed = True
        self._metrics.set(PARTITION_LEASES, len(self.held), **self._labels)

    async def checkpoint(self, positions: Mapping[int, int]) -> None:
        """Record how far these partitions are; those that went to another process meanwhile are dropped."""
        moved = [replace(self.held[each], next=at) for each, at in positions.items() if each in self.held]
        lost = await self._store.checkpoint(self.owner, moved)
        for lease in moved:
            if lease.partition not in lost and lease.partition in self.held:
                self.held[lease.partition] = lease
        if lost:
            self._metrics.inc(FENCED, len(lost), projection=self._labels["projection"])
            self._drop([each for each in lost if each in self.held], "fenced at the checkpoint")

    @property
    def has_surplus(self) -> bool:
        """Whether `give_back` has anything to do."""
        return self._surplus > 0

    async def give_back(self) -> None:
        """Give back what is more than our share. To be called when nothing read is unrecorded."""
        surplus, self._surplus = self._surplus, 0
        if surplus:
            leases = [self.held[each] for each in sorted(self.held)[-surplus:]]
            self._drop([lease.partition for lease in leases], "another process lives")
            await self._store.release(self.owner, leases)

    async def leave(self) -> None:
        """Give everything back, at the end."""
        self._drop(list(self.held), "leaving")
        await self._store.leave(self.owner)

    def _drop(self, partitions: list[int], why: str) -> None:
        for partition in partitions:
            self.held.pop(partition, None)
        if partitions:
            self.changed = True
            log.info("leases gone", partitions=partitions, why=why, **self._labels)
