"""Who projects which partition: each process its fair share, and whoever lost a lease moves no checkpoint any more.

A lease lasts 10 s by the server's clock and is the checkpoint too, so that taking a partition over and knowing where it
stands is one read. Documents need no fence: they are guarded one by one, and what a zombie writes is in the log anyway.

Only leases that this process knows that it has, by partition and epoch, are renewed. One that is recorded under its
name and that it does not read (its release failed, or the answer of its acquisition was lost) lapses and goes to
whoever takes it.

A share counts all whose heartbeat is young, and of those some may be dead. So what has been free for `PATIENCE` of a
lease is taken beyond the share, and kept for a lease, in which their heartbeats grow old.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil
from typing import Final

from services.events.ports import Lease, LeaseStore, LeaseView
from services.kit.clock import Clock
from services.kit.logs import get_logger
from services.kit.metrics import FENCED, PARTITION_LEASES, Metrics

log = get_logger(__name__)

PATIENCE: Final = 0.4
"""The part of a lease for which a free partition is left to those who have less than their share."""


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
        lease: float = 10.0,
        processes: int = 1,
    ) -> None:
        """`lease`: seconds that a lease lasts in the store. After 80 % of them without a word from the store the leases
        count as lost, since they lapse soon and to read on would be in vain. `processes`: how many are known to share,
        if more than show up.
        """
        self.owner = owner
        self.held: dict[int, Lease] = {}
        self.changed = False
        """Set when partitions came or went; whoever reads them sets it back and starts each from its `next`."""
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._labels = {"projection": projection, "generation": str(generation)}
        self._lease = lease
        self._trust = 0.8 * lease
        self._processes = processes
        self._surplus = 0
        self._trusted_at = clock.monotonic()
        self._unread_since: dict[int | None, float] = {}  # None: there are no leases at all
        self._free_since: dict[int, float] = {}
        self._beyond: dict[int, float] = {}  # when what was taken beyond the share was taken

    async def turn(self) -> None:
        """Show that we live, prolong what we have, take up to our share.

        Raises:
            Unavailable: the store is away; after a while of that everything counts as lost.
        """
        asked_at = self._clock.monotonic()
        try:
            live = max(self._processes, await self._store.beat(self.owner))
            held = list(self.held.values())
            lost = await self._store.renew(self.owner, held)
        except Exception:
            if self._clock.monotonic() - self._trusted_at > self._trust:
                self._drop(list(self.held), "the store is away")
            raise
        self._trusted_at = asked_at
        self._drop([each.partition for each in held if each.partition in lost and self._has(each)], "taken over")
        leases = await self._store.view()
        share = ceil(len(leases) / live)
        self._surplus = self._beyond_share(share)
        self._note_unread(leases)
        for lease in leases:
            if lease.partition in self.held or (lease.held and lease.owner != self.owner):
                continue
            if len(self.held) >= share:
                if lease.held or not self._is_late(lease.partition):
                    continue
                self._beyond[lease.partition] = self._clock.monotonic()
            taken = await self._store.acquire(self.owner, lease.partition)
            if taken is not None:
                self.held[lease.partition] = taken
                self._unread_since.pop(lease.partition, None)
                self.changed = True
        self._metrics.set(PARTITION_LEASES, len(self.held), **self._labels)

    def trouble(self) -> str:
        """Why partitions may have had no reader for longer than a lease lasts, for people; "" when each has one."""
        now = self._clock.monotonic()
        silent = now - self._trusted_at
        if silent > self._lease:
            return f"the leases could not be looked at for {silent:.0f} s"
        late = {each: now - since for each, since in self._unread_since.items() if now - since > self._lease}
        if None in late:
            return f"there have been no leases for {late[None]:.0f} s"
        named = ", ".join(f"{each} for {seconds:.0f} s" for each, seconds in late.items())
        return f"nobody reads partition {named}" if named else ""

    async def checkpoint(self, positions: Mapping[int, int]) -> None:
        """Record how far these partitions are; those that went to another process meanwhile are dropped."""
        moved = [replace(self.held[each], next=at) for each, at in positions.items() if each in self.held]
        lost = await self._store.checkpoint(self.owner, moved)
        for lease in moved:
            if lease.partition not in lost and self._has(lease):
                self.held[lease.partition] = lease
        if lost:
            self._metrics.inc(FENCED, len(lost), projection=self._labels["projection"])
            fenced = [lease.partition for lease in moved if lease.partition in lost and self._has(lease)]
            self._drop(fenced, "fenced at the checkpoint")

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

    def _beyond_share(self, share: int) -> int:
        """How many of those held are to be given back."""
        recent = self._clock.monotonic() - self._lease
        self._beyond = {each: at for each, at in self._beyond.items() if at > recent and each in self.held}
        return max(0, len(self.held) - share - len(self._beyond))

    def _is_late(self, partition: int) -> bool:
        now = self._clock.monotonic()
        return now - self._free_since.get(partition, now) > PATIENCE * self._lease

    def _has(self, lease: Lease) -> bool:
        """Whether it is still held. Meanwhile it may have been lost and taken again, with a higher epoch."""
        held = self.held.get(lease.partition)
        return held is not None and held.epoch == lease.epoch

    def _note_unread(self, leases: Sequence[LeaseView]) -> None:
        """What is recorded as ours and not held here is read by nobody."""
        unread: list[int | None] = [
            each.partition
            for each in leases
            if each.partition not in self.held and (not each.held or each.owner == self.owner)
        ]
        if not leases:
            unread = [None]
        now = self._clock.monotonic()
        self._unread_since = {each: self._unread_since.get(each, now) for each in unread}
        free = [each.partition for each in leases if not each.held]
        self._free_since = {each: self._free_since.get(each, now) for each in free}

    def _drop(self, partitions: list[int], why: str) -> None:
        for partition in partitions:
            self.held.pop(partition, None)
        if partitions:
            self.changed = True
            log.info("leases gone", partitions=partitions, why=why, **self._labels)
