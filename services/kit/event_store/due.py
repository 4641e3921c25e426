"""Handing out the streams whose time has come: urgent first, a floor for the others, fresh ones at once.

A scheduler holds leases on at most `slots` streams in work. Of these slots some are kept for the first lane, so that
urgent mail never waits for a campaign to free one, and each other lane has a floor that no earlier lane can take, so
that a flood of urgent mail cannot starve it.

A process that appends a stream which is due at once asks `lease` first and takes the lease in that very append, so that
the stream goes straight to this process's sender (`offer`). Everything else, and whatever a crashed process held, is
found by a poll: at once while there is more, else after 10 to 100 ms.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from contracts.topics import LANES
from services.kit import metrics as m
from services.kit.clock import Clock
from services.kit.errors import TransientError
from services.kit.event_store.port import EventStore, Lease, Stream
from services.kit.event_store.waiting import first_of
from services.kit.health import Progress
from services.kit.logs import get_logger
from services.kit.metrics import Metrics

log = get_logger(__name__)

LEASE_FOR = timedelta(seconds=15)
FASTEST_POLL = 0.01
SLOWEST_POLL = 0.1


@dataclass(frozen=True, slots=True)
class Shares:
    """How the slots are shared among the lanes, the first of which goes first.

    Attributes:
        slots: streams in work at most.
        kept_for_first: slots that only the first lane may take.
        floor: slots of each other lane that no lane before it may take.
        lanes: in the order of their importance.
    """

    slots: int = 96
    kept_for_first: int = 8
    floor: int = 2
    lanes: tuple[str, ...] = tuple(LANES)

    def __post_init__(self) -> None:
        if self.slots < self.kept_for_first + self.floor * (len(self.lanes) - 1) or self.kept_for_first < 1:
            raise ValueError("too few slots: every lane needs one it can count on")

    @property
    def worth(self) -> int:
        """So many free slots are worth a look in the store for more of the lanes that have their floors: streams taken
        one by one as slots fall free would cost several queries each.
        """
        return self.slots // 4

    def room(self, lane: str, in_work: Mapping[str, int]) -> int:
        """How many more streams of this lane may be taken into work now."""
        rest = self.shared_room(in_work) if lane != self.lanes[0] else self.slots - sum(in_work.values())
        return max(0, rest - sum(need for other, need in self.unmet_floors(in_work).items() if other != lane))

    def shared_room(self, in_work: Mapping[str, int]) -> int:
        """How many more may be taken of all lanes but the first together."""
        others = sum(in_work.get(lane, 0) for lane in self.lanes[1:])
        return max(0, min(self.slots - sum(in_work.values()), self.slots - self.kept_for_first - others))

    def unmet_floors(self, in_work: Mapping[str, int]) -> dict[str, int]:
        """How many of its floor each lane does not use now."""
        return {lane: max(0, self.floor - in_work.get(lane, 0)) for lane in self.lanes[1:]}


class DueScheduler:
    """What a sender takes its work from. `run` (as a `LoopComponent`) keeps the leases alive meanwhile."""

    def __init__(
        self,
        store: EventStore,
        *,
        owner: str,
        clock: Clock,
        shares: Shares | None = None,
        queue: int = 100,
        lease_for: timedelta = LEASE_FOR,
        metrics: Metrics | None = None,
    ) -> None:
        """`owner`: unique to this process's life. `queue`: fresh streams that may wait in memory, per lane."""
        self._store = store
        self._owner = owner
        self._clock = clock
        self._shares = shares or Shares()
        self._room_in_queue = queue
        self._lease_for = lease_for
        self._metrics = metrics
        self._queues: dict[str, deque[Stream]] = {lane: deque() for lane in self._shares.lanes}
        self._promised = dict.fromkeys(self._shares.lanes, 0)
        self._backlog: set[str] = set()
        self._in_work: dict[str, str] = {}  # stream id → lane
        self._news = asyncio.Event()
        self._closed = asyncio.Event()
        self._next_poll = clock.monotonic()
        self._pause = FASTEST_POLL

    # --- fresh streams ---------------------------------------------------------------------------------------------

    def lease(self, lane: str) -> Lease | None:
        """The lease to append a stream with that is due at once, or None: append without, and it will be found.

        Each lease must be followed by `offer` or `forfeit`. None when the lane's queue is full, or when older streams
        of the lane wait in the store: those go first.
        """
        if self._closed.is_set() or lane not in self._queues or lane in self._backlog:
            return None
        if len(self._queues[lane]) + self._promised[lane] >= self._room_in_queue:
            return None
        self._promised[lane] += 1
        return Lease(self._owner, self._lease_for)

    def offer(self, stream: Stream, lane: str) -> None:
        """Hand over a stream that was just appended with the lease from `lease(lane)`."""
        self._promised[lane] -= 1
        self._queues[lane].append(stream)
        self._news.set()

    def begin(self, stream: Stream, lane: str) -> bool:
        """`offer`, and take it in the same moment: whether there is a slot and nobody of its lane before it. If not,
        nothing has happened: offer it.
        """
        if self._closed.is_set() or self._queues[lane] or self._shares.room(lane, self.in_work) <= 0:
            return False
        self._promised[lane] -= 1
        self._begin(stream, lane)
        return True

    def forfeit(self, lane: str) -> None:
        """The append that `lease(lane)` was for did not succeed (or nobody knows: the lease then runs out)."""
        self._promised[lane] -= 1

    # --- work ------------------------------------------------------------------------------------------------------

    async def take(self, limit: int) -> list[Stream]:
        """Wait until something is due and there is a slot, then return 1 to `limit` leased streams, urgent first.

        An empty list after `close`. Each stream holds its slot until `finish`. Use it from one task only.
        """
        while not self._closed.is_set():
            self._news.clear()
            taken = self._from_queues(self._shares.lanes[:1], limit)
            if self._clock.monotonic() >= self._next_poll:
                taken += await self._poll(limit - len(taken))
            taken += self._from_queues(self._shares.lanes[1:], limit - len(taken))
            if taken:
                return taken
            await first_of(self._clock, max(0.001, self._next_poll - self._clock.monotonic()), self._news, self._closed)
        return []

    def finish(self, stream_id: str) -> None:
        """The stream is no longer in work: its lease was dropped by an append, or is about to be given back."""
        if self._in_work.pop(stream_id, None) is not None:
            if self._shares.lanes[0] in self._backlog or (self._backlog and self._is_worth_it()):
                self._next_poll = self._clock.monotonic()
            self._news.set()

    async def give_back(self, stream_ids: Collection[str]) -> None:
        """Finish these and give back their leases, so that others may take them at once.

        Raises nothing: a lease that cannot be given back runs out.
        """
        for stream_id in stream_ids:
            self.finish(stream_id)
        try:
            await self._store.release(stream_ids, self._owner)
        except TransientError as error:
            log.warning("leases could not be given back and run out", streams=len(stream_ids), error=str(error))

    @property
    def in_work(self) -> Mapping[str, int]:
        """How many streams are in work, by lane."""
        counts = dict.fromkeys(self._shares.lanes, 0)
        for lane in self._in_work.values():
            counts[lane] += 1
        return counts

    # --- life ------------------------------------------------------------------------------------------------------

    async def run(self, stopping: asyncio.Event, progress: Progress) -> None:
        """Keep all leases alive until told to stop; then take nothing more, and give back what nobody has begun."""
        every = self._lease_for.total_seconds() / 3
        while not stopping.is_set():
            await first_of(self._clock, every, stopping)
            try:
                await self._renew()
                progress.progressed()
            except TransientError as error:
                progress.waiting(str(error))
        await self.close()

    async def close(self) -> None:
        """Take nothing more; give back what waits in the queues. What is in work goes on, without renewals."""
        self._closed.set()
        waiting = [stream.stream_id for queue in self._queues.values() for stream in queue]
        for queue in self._queues.values():
            queue.clear()
        await self.give_back(waiting)

    async def _renew(self) -> None:
        waiting = [stream.stream_id for queue in self._queues.values() for stream in queue]
        asked = {*waiting, *self._in_work}
        held = await self._store.renew(asked, self._owner, self._lease_for)
        lost = {name for name in asked - held if name in self._in_work}
        for lane, queue in self._queues.items():
            self._queues[lane] = deque(s for s in queue if s.stream_id in held or s.stream_id not in asked)
        if lost:
            log.info("streams in work whose lease is gone", streams=len(lost))
            if self._metrics is not None:
                self._metrics.inc(m.LEASES_LOST, len(lost))

    # --- where work comes from -------------------------------------------------------------------------------------

    def _from_queues(self, lanes: Sequence[str], limit: int) -> list[Stream]:
        taken: list[Stream] = []
        for lane in lanes:
            queue = self._queues[lane]
            while queue and len(taken) < limit and self._shares.room(lane, self.in_work) > 0:
                stream = queue.popleft()
                if stream.stream_id not in self._in_work:
                    self._begin(stream, lane)
                    taken.append(stream)
        return taken

    async def _poll(self, limit: int) -> list[Stream]:
        shares, taken = self._shares, list[Stream]()
        first, *others = shares.lanes
        try:
            floors = [(lane, need) for lane, need in shares.unmet_floors(self.in_work).items() if need]
            empty = await self._lease_into(taken, [(first, shares.room(first, self.in_work)), *floors], limit)
            if self._is_worth_it():
                room = shares.shared_room(self.in_work) - sum(shares.unmet_floors(self.in_work).values())
                await self._lease_into(taken, [(lane, room) for lane in others if lane not in empty], limit, room)
        except TransientError as error:
            log.warning("due streams cannot be read", error=str(error))
            self._pause = SLOWEST_POLL
        else:
            self._pause = FASTEST_POLL if taken else min(SLOWEST_POLL, self._pause * 2)
        self._next_poll = self._clock.monotonic() + (0.0 if self._backlog and taken else self._pause)
        return taken

    def _is_worth_it(self) -> bool:
        in_work = self.in_work
        return self._shares.shared_room(in_work) >= self._shares.worth or not any(in_work.values())

    async def _lease_into(
        self, taken: list[Stream], rooms: Sequence[tuple[str, int]], limit: int, total: int | None = None
    ) -> set[str]:
        """Lease what is due, `total` at most and until `taken` has `limit`; put it into work and append it to `taken`.

        Returns the lanes in which nothing more is due; the others are noted as having a backlog.
        """
        most = limit - len(taken) if total is None else min(total, limit - len(taken))
        asked = [(lane, min(room, most)) for lane, room in rooms if min(room, most) > 0]
        if not asked:
            return set()
        leased = await self._store.lease_due(asked, self._owner, self._lease_for, self._clock.now(), most)
        found = Counter(stream.index.lane for stream in leased)
        empty = {lane for lane, room in asked if found[lane] < room and len(leased) < most}
        self._backlog = (self._backlog | {lane for lane, _ in asked}) - empty
        for stream in leased:
            if stream.stream_id not in self._in_work:  # else its lease ran out here, and its work goes on
                self._begin(stream, stream.index.lane or asked[0][0])
                taken.append(stream)
        return empty

    def _begin(self, stream: Stream, lane: str) -> None:
        self._in_work[stream.stream_id] = lane
        due = stream.index.due_at
        if self._metrics is not None and due is not None:
            self._metrics.observe(m.DUE_DELAY_SECONDS, max(0.0, (self._clock.now() - due).total_seconds()), lane=lane)
