"""Sending: due messages are leased, licensed, called and written down, many at once and each attempt exactly once.

    due streams ─▶ tend ──────────▶ lanes ─▶ plan (place, token, suppression, append) ─▶ call ─▶ record ─▶ done, or
                     └▶ large mail ──┘         sender_plan.py             sender_calls.py  sender_record.py  lanes again
                        sender_large.py

What a crash leaves behind: a lease that runs out, or an attempt without answer, which whoever finds it after its time
limit writes down as unknown. It is never sent again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from datetime import timedelta

from contracts.topics import LANES
from services.email.domain.commands import Expire, RecordOutcome, TimeOut
from services.email.domain.content import MessageContent
from services.email.domain.decisions import Drafts
from services.email.domain.message import Message, Open, is_live
from services.email.domain.outcomes import NotCalled
from services.email.entrypoints.sender_calls import Caller
from services.email.entrypoints.sender_content import AHEAD_BYTES, SHORTEST_WAIT, ContentLoader
from services.email.entrypoints.sender_files import AttachedFiles
from services.email.entrypoints.sender_large import LargeMail
from services.email.entrypoints.sender_plan import IDLE_SECONDS, Planner
from services.email.entrypoints.sender_providers import Providers
from services.email.entrypoints.sender_record import Recorder
from services.email.entrypoints.sender_work import SMALL_BYTES, SMALL_SHARE, Limits, Places, Room, Wave, Work
from services.email.ports import Checkpoints, ContentStore, FileBytes, KnownFiles, MailProvider, SuppressionList
from services.email.right_of_way import RightOfWay
from services.email.streams import Held, MessageStreams, Step, hold
from services.kit import metrics as m
from services.kit.clock import Clock, Ids
from services.kit.errors import PermanentError, TransientError
from services.kit.event_store.due import DueScheduler, Shares
from services.kit.event_store.port import Lease, Stream
from services.kit.health import Progress, Report
from services.kit.logs import get_logger
from services.kit.metrics import Metrics
from services.kit.rate import RateBudget

log = get_logger(__name__)

TAKE_AT_MOST = 64
FRESH_KEPT = 2_000
"""Contents of fresh messages kept in memory until their turn comes; older ones are read from the store."""

UNREADABLE_SECONDS = 300.0
TIDY_SECONDS = 0.25
LONG_PAUSE = 5.0
"""While a provider refuses everything for longer than this, messages at hand make room for others."""


class Sender:
    """A component. `lease`, `give` and `forfeit` are for an intake in the same process."""

    def __init__(
        self,
        streams: MessageStreams,
        contents: ContentStore,
        files: KnownFiles,
        file_bytes: FileBytes,
        suppressions: SuppressionList,
        providers: Sequence[MailProvider],
        rate: RateBudget,
        clock: Clock,
        ids: Ids,
        metrics: Metrics,
        checkpoints: Checkpoints,
        *,
        owner: str,
        lanes: Sequence[str] = tuple(LANES),
        limits: Limits | None = None,
        right_of_way: RightOfWay | None = None,
    ) -> None:
        """`owner`: unique to this process's life. `lanes`: what it sends, the most urgent first."""
        self._streams, self._contents, self._clock, self._metrics = streams, contents, clock, metrics
        self._owner = owner
        self._wakes = (asyncio.Event(), asyncio.Event())  # of urgent mail's turns, and of all other's
        self._answered = asyncio.Event()
        self._stopping = asyncio.Event()
        self._limits = limits or Limits()
        right_of_way = right_of_way or RightOfWay(clock)
        self._progress = Progress(clock)
        self._scheduler = DueScheduler(
            streams.store,
            owner=owner,
            clock=clock,
            shares=Shares(lanes=tuple(lanes)),
            lease_for=self._limits.lease,
            metrics=metrics,
        )
        self._urgent_progress = Progress(clock)
        self._places = Places(self._limits.concurrency, freed=self._wake)
        self.providers = Providers(providers)
        self._recorder = Recorder(
            streams, self._places, self._limits, clock, checkpoints, self._over, self.providers.elsewhere
        )
        self._caller = Caller(
            self.providers, self._limits, clock, metrics, checkpoints, self._recorder.heard, right_of_way
        )
        attached = AttachedFiles(files, file_bytes, streams.policy, clock, most_bytes=self._limits.attachment_bytes)
        self._loader = ContentLoader(contents, attached, providers, clock, metrics)
        self._planner = Planner(
            streams, self._loader, suppressions, self.providers, rate, self._places, self._limits, clock,
            ids, metrics, checkpoints, lambda: Lease(owner, self._limits.lease), right_of_way,
        )  # fmt: skip
        small = self._limits.bytes_in_hand // SMALL_SHARE
        self._rooms = Room(small), Room(self._limits.bytes_in_hand - small)
        self._small, self._large = (
            LargeMail(self._loader, room, self._begin, self._let_go, self._refused_for) for room in self._rooms
        )
        self._fresh: OrderedDict[str, MessageContent] = OrderedDict()
        self._forget: set[str] = set()
        self._given_back: list[str] = []
        self._tasks: dict[str, asyncio.Task[None]] = {}

    # --- for the intake ---

    def lease(self, lane: str) -> Lease | None:
        """The lease to append a fresh message with, or None when it is to wait in the store. See `DueScheduler`."""
        return self._scheduler.lease(lane)

    def give(self, held: Held, content: MessageContent, lane: str) -> None:
        """Take a message that was appended under `lease(lane)`. Urgent mail does not wait until others were taken."""
        work = Work(held, lane, content)
        if work.stored_bytes > AHEAD_BYTES or work.file_ids():
            self._scheduler.offer(held.stream, lane)
            return
        if lane == "urgent" and self._scheduler.begin(held.stream, lane):
            self._begin([work])
            return
        self._fresh[held.message_id] = content
        while len(self._fresh) > FRESH_KEPT:
            self._fresh.popitem(last=False)
        self._scheduler.offer(held.stream, lane)

    def forfeit(self, lane: str) -> None:
        """Nothing was appended under `lease(lane)`."""
        self._scheduler.forfeit(lane)

    # --- life ---

    async def start(self) -> None:
        """Begin sending."""
        self._caller.start()
        loops = {
            "leases": self._scheduler.run(self._stopping, Progress(self._clock)),
            "take": self._take(),
            "plan-urgent": self._plan(self._wakes[0], self._urgent_progress, urgent=True),
            "plan": self._plan(self._wakes[1], self._progress, urgent=False),
            "small-files": self._small.run(),
            "large-mail": self._large.run(),
            "record": self._recorder.run(),
            "tidy": self._tidy(),
        }
        self._tasks = {name: asyncio.create_task(loop, name=f"sender-{name}") for name, loop in loops.items()}

    async def stop(self, timeout: float) -> None:
        """Begin no call, close unused licences, wait for open calls, write down every answer, give back the rest."""
        deadline = self._clock.monotonic() + timeout
        self._stopping.set()
        self._wake()
        self._caller.stop_calling()
        if not self._tasks:
            return
        beginning = [self._tasks[name] for name in ("leases", "take", "plan-urgent", "plan")]
        await asyncio.wait(beginning, timeout=max(0.1, timeout - 2.0))
        await self._cancel("small-files", "large-mail")
        self._recorder.drain()
        await self._until_answered(deadline - 1.5)
        await self._caller.cut_off()
        await self._until_answered(deadline - 0.3)
        left = [*self._planner.clear(), *self._small.clear(), *self._large.clear()]
        await self._scheduler.give_back([*(work.held.message_id for work in left), *self._given_back])
        await self._cancel(*self._tasks)
        if self._places.taken:
            log.warning("attempts are left without answer", attempts=self._places.taken)

    def health(self) -> Report:
        """Live while it plans; `died` names a loop that ended by itself."""
        detail = {
            "openAttempts": self._places.taken,
            "atHand": len(self._planner),
            "bytesInHand": self._bytes_in_hand,
            "circuits": {name: circuit.reason for name, circuit in self.providers.circuits.items() if circuit.is_open},
        }
        urgent, other = self._urgent_progress.report(), self._progress.report(detail, died=self._died())
        return Report(urgent.live and other.live, urgent.ready and other.ready, other.detail, other.died)

    @property
    def _bytes_in_hand(self) -> int:
        return sum(room.taken for room in self._rooms)

    def _died(self) -> str | None:
        if self._stopping.is_set():
            return None
        for name, task in self._tasks.items():
            if task.done():
                error = None if task.cancelled() else task.exception()
                return f"the loop {name} ended: {error!r}"
        return None

    async def _cancel(self, *names: str) -> None:
        for name in names:
            self._tasks[name].cancel()
        await asyncio.gather(*(self._tasks[name] for name in names), return_exceptions=True)

    async def _until_answered(self, deadline: float) -> None:
        """Return when no attempt of ours is open, or at the deadline (monotonic)."""
        while self._places.taken and self._clock.monotonic() < deadline:
            self._answered.clear()
            await self._pause(0.1, self._answered)

    # --- what is due ---

    async def _take(self) -> None:
        while streams := await self._scheduler.take(TAKE_AT_MOST):
            try:
                works = await self._tend(streams)
                await self._loader.weigh(works)
            except TransientError as error:
                self._progress.waiting(str(error))
                await self._scheduler.give_back([stream.stream_id for stream in streams])
                await self._pause(1.0, self._stopping)
                continue
            works = await self._apart(works)
            urgent = [work for work in works if work.lane == "urgent"]
            others = [work for work in works if work.lane != "urgent"]
            self._begin(urgent)
            await self._loader.read_ahead(others)
            self._begin(others)

    def _begin(self, works: Sequence[Work]) -> None:
        self._planner.lanes.add(works)
        self._wake()

    async def _apart(self, works: Sequence[Work]) -> list[Work]:
        """Put what has to be fetched into its line; the rest."""
        heavy = [work for work in works if work.weight]
        turned_away = [
            *self._small.add([work for work in heavy if work.weight <= SMALL_BYTES]),
            *self._large.add([work for work in heavy if work.weight > SMALL_BYTES]),
        ]
        await self._let_go(turned_away, SHORTEST_WAIT)
        return [work for work in works if not work.weight]

    def _refused_for(self) -> float:
        seconds = self._planner.refused_for()
        return seconds if seconds > LONG_PAUSE else 0.0

    async def _let_go(self, works: Sequence[Work], seconds: float) -> None:
        self._drop(works)
        await self._put_off([work.held.message_id for work in works], seconds)

    def _drop(self, works: Iterable[Work]) -> None:
        """They are not in hand any more: what they weigh, others may."""
        for work in works:
            work.forget()
            for room in self._rooms:
                room.give_back(work)

    async def _tend(self, streams: Sequence[Stream]) -> list[Work]:
        """Do what is due without a call (time-outs, expiry, our own unused attempts); the rest is work."""
        steps: list[Step] = []
        for stream in streams:
            held = hold(stream)
            if isinstance(held, PermanentError):
                await self._put_off([stream.stream_id], UNREADABLE_SECONDS)
                continue
            steps.append(Step(held, self._due_decisions(held), keep_lease=True))
        works: list[Work] = []
        done: list[str] = []
        nothing: list[str] = []
        for step, result in zip(steps, await self._streams.append(steps), strict=True):
            held = result if isinstance(result, Held) else step.held
            if isinstance(result, Held) and self._streams.ready(held.state):
                content = self._fresh.pop(held.message_id, None)
                works.append(Work(held, held.message.request.priority, content))
            elif step.drafts:
                done.append(held.message_id)
                self._note_end(held)
            else:
                nothing.append(held.message_id)
        if done:
            await self._scheduler.give_back(done)
        if nothing:
            # Due, and yet there is nothing to do: another process's clock is ahead of ours, or a race is on.
            await self._put_off(nothing, LONG_PAUSE)
        return works

    def _due_decisions(self, held: Held) -> Drafts:
        state = held.state
        if isinstance(state, Message) and not any(d.attempts for d in state.deliveries.values()):
            return self._streams.decide(held, Expire())  # nothing was attempted: nothing can have timed out
        unused: list[RecordOutcome] = []
        if self._planner.ghosts and isinstance(state, Message):
            for delivery in state.deliveries.values():
                newest = delivery.attempts[-1].attempt_id if isinstance(delivery, Open) else None
                if newest in self._planner.ghosts:
                    del self._planner.ghosts[newest]
                    unused.append(RecordOutcome(newest, NotCalled("its append was given up before it was confirmed")))
        return self._streams.decide(held, *unused, TimeOut(), Expire())

    # --- the stages' loop ---

    async def _plan(self, wake: asyncio.Event, progress: Progress, *, urgent: bool) -> None:
        while not self._stopping.is_set():
            wake.clear()
            turn = await self._planner.turn(urgent=urgent)
            self._caller.call(turn.waves)
            self._metrics.set(m.OPEN_ATTEMPTS, self._places.taken)
            self._metrics.set(m.BYTES_IN_HAND, self._bytes_in_hand)
            if turn.released:
                self._drop(turn.released)
                for work in turn.released:
                    self._note_end(work.held)
                await self._scheduler.give_back([work.held.message_id for work in turn.released])
            for seconds, works in turn.put_off.items():
                await self._let_go(works, seconds)
            if turn.waiting:
                progress.waiting(turn.waiting)
            elif turn.pause is None:
                progress.progressed()
            else:
                progress.idle()
            if turn.pause is not None:
                if turn.pause > LONG_PAUSE:
                    await self._let_go(self._planner.clear(), turn.pause)
                await self._pause(min(turn.pause, IDLE_SECONDS), wake)

    def _over(self, wave: Wave) -> None:
        """Every answer of a wave stands: its message goes on, or is left alone."""
        work = wave.work
        if self._streams.ready(work.held.state) and not self._stopping.is_set():
            self._planner.lanes.put_back([work])
            self._wake()
            return
        self._drop([work])
        if work.held.stream.leased_by == self._owner:
            self._given_back.append(work.held.message_id)
        else:
            self._scheduler.finish(work.held.message_id)
        self._note_end(work.held)
        self._wake()

    def _note_end(self, held: Held) -> None:
        state = held.state
        if isinstance(state, Message) and state.request.category == "auth" and not is_live(state):
            self._forget.add(held.message_id)

    async def _tidy(self) -> None:
        """What need not be done at once: leases of no use any more, contents that nobody may read again."""
        while True:
            await asyncio.sleep(TIDY_SECONDS)
            leases, self._given_back = self._given_back, []
            if leases:
                await self._scheduler.give_back(leases)
            gone, self._forget = self._forget, set()
            if gone:
                with contextlib.suppress(TransientError):  # the sweeper deletes what is left
                    await self._contents.delete_messages(list(gone))

    async def _put_off(self, message_ids: Sequence[str], seconds: float) -> None:
        """Keep these from everybody for a while, and make room for others. Should we die, the leases run out."""
        if not message_ids:
            return
        with contextlib.suppress(TransientError):
            await self._streams.store.renew(message_ids, self._owner, timedelta(seconds=seconds), shorten=True)
        for message_id in message_ids:
            self._scheduler.finish(message_id)

    def _wake(self) -> None:
        """There is something new: work, a free place, an answer, the end."""
        for event in (*self._wakes, self._answered):
            event.set()

    async def _pause(self, seconds: float, unless: asyncio.Event) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await unless.wait()
