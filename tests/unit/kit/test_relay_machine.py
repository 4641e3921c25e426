"""Any interleaving of writers, crashes, lost answers and relays: nothing lost, nothing out of order."""

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from contracts.email.events import EmailCancelled
from contracts.ids import uuid7
from services.kit.errors import AppendOutcomeUnknown, Unavailable
from services.kit.event_store.memory import MemoryEventStore
from services.kit.event_store.port import Append, Appended, AppendResult, Draft, Stream, StreamIndex, stamp
from services.kit.event_store.relay import Relay, StreamPublisher
from services.kit.health import Progress
from services.kit.kafka.publisher import Outgoing
from services.kit.testing.clock import FakeClock

PROCESSES = 3
STREAMS = ("a", "b", "c")


class Killed(BaseException):
    """The process ends here."""


class Log:
    """Kafka as a judge: who said what in which order. Records may get lost, answers too, and some arrive late."""

    def __init__(self) -> None:
        self.versions: dict[str, list[int]] = defaultdict(list)
        self.late: list[Outgoing] = []

    def take(self, item: Outgoing) -> None:
        assert item.key is not None
        self.versions[item.key.decode()].append(json.loads(item.value)["streamversion"])


class ProcessPublisher:
    """One process's way to the log. `fates` are used up one a record: acknowledged, lost, answer lost, late, or killed
    before or after it is written; acknowledged when there are no more.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self.fates: list[str] = []
        self.healthy = True

    async def publish(self, items: Sequence[Outgoing]) -> list[Exception | None]:
        results: list[Exception | None] = []
        for item in items:
            await asyncio.sleep(0)
            results.append(self._one(item, self.fates.pop(0) if self.fates else "acknowledged"))
        return results

    def _one(self, item: Outgoing, fate: str) -> Exception | None:
        if fate == "killed before":
            raise Killed
        if fate == "late":
            self._log.late.append(item)
        elif fate != "lost":
            self._log.take(item)
        if fate == "killed after":
            raise Killed
        return None if fate == "acknowledged" else Unavailable("Kafka", fate)


class ProcessStore(MemoryEventStore):
    """The store as one process sees it: it can be killed at a mark."""

    def __init__(self, shared: MemoryEventStore, clock: FakeClock) -> None:
        super().__init__(clock)
        self._kept = shared._kept
        self.at_mark = ""

    async def mark_published(self, marks: Sequence[tuple[str, int]]) -> None:
        fate, self.at_mark = self.at_mark, ""
        if fate == "killed before":
            raise Killed
        if fate == "away":
            raise Unavailable("MongoDB", "away")
        await super().mark_published(marks)
        if fate == "killed after":
            raise Killed


class Process:
    def __init__(self, shared: MemoryEventStore, clock: FakeClock, log: Log) -> None:
        self.store = ProcessStore(shared, clock)
        self.kafka = ProcessPublisher(log)
        self.publisher = StreamPublisher(self.store, self.kafka)
        self.relay = Relay(self.store, self.publisher, clock=clock, progress=Progress(clock), batch=2)
        self.seen: dict[str, Stream] = {}
        self.unsent: list[AppendResult] = []


record_fates = st.lists(
    st.sampled_from(["acknowledged", "acknowledged", "lost", "answer lost", "late", "killed before", "killed after"]),
    max_size=5,
)
mark_fates = st.sampled_from(["", "", "away", "killed before", "killed after"])
processes = st.integers(0, PROCESSES - 1)


class Outbox(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.shared = MemoryEventStore(self.clock)
        self.log = Log()
        self.processes = [self.fresh() for _ in range(PROCESSES)]
        self.confirmed: dict[str, int] = defaultdict(int)

    def fresh(self) -> Process:
        return Process(self.shared, self.clock, self.log)

    def play(self, *acts: tuple[int, Callable[[Process], Coroutine[Any, Any, Any]]]) -> None:
        """Let processes act at the same time; whoever is killed comes back with an empty memory."""

        async def act(number: int, doing: Callable[[Process], Coroutine[Any, Any, Any]]) -> None:
            try:
                await doing(self.processes[number])
            except Killed:
                self.processes[number] = self.fresh()

        async def together() -> None:
            await asyncio.gather(*(act(number, doing) for number, doing in acts))

        asyncio.run(together())

    @rule(number=processes, name=st.sampled_from(STREAMS))
    def look(self, number: int, name: str) -> None:
        async def load(process: Process) -> None:
            process.seen[name] = await process.store.load(name)

        self.play((number, load))

    @rule(number=processes, name=st.sampled_from(STREAMS), count=st.integers(1, 3), lost=st.booleans())
    def append(self, number: int, name: str, count: int, lost: bool) -> None:
        async def write(process: Process) -> None:
            seen = process.seen.get(name) or await process.store.load(name)
            drafts = [Draft(EmailCancelled())] * count
            events = stamp(seen, drafts, now=self.clock.now(), new_id=uuid7, source="test", correlation="c")
            process.store.lose_answers = int(lost)
            result = await process.store.append(Append(seen, events, StreamIndex()))
            process.store.lose_answers = 0
            process.seen.pop(name, None)
            if isinstance(result, Appended):
                self.confirmed[name] += count
                process.seen[name] = result.stream
                process.unsent.append(result)
            elif isinstance(result, AppendOutcomeUnknown):  # written, and this process does not know
                self.confirmed[name] += count

        self.play((number, write))

    @rule(numbers=st.lists(processes, min_size=1, max_size=3, unique=True), fates=record_fates, at_mark=mark_fates)
    def publish(self, numbers: list[int], fates: list[str], at_mark: str) -> None:
        async def send(process: Process) -> None:
            process.kafka.fates = list(fates)
            process.store.at_mark = at_mark
            unsent, process.unsent = process.unsent, []
            await process.publisher.publish(unsent)
            process.kafka.fates, process.store.at_mark = [], ""

        self.play(*((number, send) for number in numbers))

    @rule(numbers=st.lists(processes, min_size=1, max_size=2, unique=True), fates=record_fates, at_mark=mark_fates)
    def relay(self, numbers: list[int], fates: list[str], at_mark: str) -> None:
        async def turn(process: Process) -> None:
            process.kafka.fates = list(fates)
            process.store.at_mark = at_mark
            await process.relay.turn()
            process.kafka.fates, process.store.at_mark = [], ""

        self.clock.move(5.1)
        self.play(*((number, turn) for number in numbers))

    @rule(number=processes)
    def kill(self, number: int) -> None:
        self.processes[number] = self.fresh()

    @rule()
    def late_records_arrive(self) -> None:
        for item in self.log.late:
            self.log.take(item)
        self.log.late.clear()

    @invariant()
    def every_stream_is_consecutive_and_holds_what_was_confirmed(self) -> None:
        for name in STREAMS:
            stream = asyncio.run(self.shared.load(name))
            assert [event.streamversion for event in stream.events] == list(range(1, stream.version + 1))
            assert stream.version == self.confirmed[name]
            assert len({event.id for event in stream.events}) == stream.version

    @invariant()
    def the_log_has_each_event_only_after_the_one_before(self) -> None:
        for versions in self.log.versions.values():
            highest = 0
            for version in versions:
                assert version <= highest + 1
                highest = max(highest, version)

    @invariant()
    def what_is_marked_is_on_the_log(self) -> None:
        for name in STREAMS:
            published = asyncio.run(self.shared.load(name)).published
            assert set(range(1, published + 1)) <= set(self.log.versions[name])

    def teardown(self) -> None:
        survivor = self.fresh()

        async def drain() -> None:
            for _ in range(20):
                self.clock.move(5.1)
                await survivor.relay.turn()
            assert await self.shared.unpublished(timedelta(0), 10) == []

        asyncio.run(drain())
        for name in STREAMS:
            assert set(self.log.versions[name]) == set(range(1, self.confirmed[name] + 1))
        self.the_log_has_each_event_only_after_the_one_before()


Outbox.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestOutbox = Outbox.TestCase
