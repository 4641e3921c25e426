"""Two processes that append to one stream publish each what is theirs, in order, and nothing twice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from contracts.email.events import EmailCancelled
from services.kit.clock import SystemIds
from services.kit.event_store.memory import MemoryEventStore
from services.kit.event_store.outbox import Outbox
from services.kit.event_store.port import Append, Draft, Stream, StreamIndex, confirmed, stamp
from services.kit.event_store.relay import PATIENCE, Relay, StreamPublisher
from services.kit.health import Progress
from services.kit.testing import FakeClock
from services.kit.testing.publisher import MemoryPublisher


class Process:
    """An outbox of its own over what all share."""

    def __init__(self, world: World, *, mark_at_once: bool = False) -> None:
        self.world, self.stopping = world, asyncio.Event()
        publisher = StreamPublisher(world.store, world.kafka)
        self.outbox = Outbox(publisher, world.clock, Progress(world.clock), mark_at_once=mark_at_once)
        self.relay = Relay(world.store, publisher, clock=world.clock, progress=Progress(world.clock))

    async def append(self, seen: Stream) -> Stream:
        """Append to the stream as it was seen, and have it published."""
        drafts = [Draft(EmailCancelled())]
        events = stamp(seen, drafts, now=self.world.clock.now(), new_id=SystemIds().new, source="test", correlation="c")
        stream = confirmed(await self.world.store.append(Append(seen, events, StreamIndex())))
        self.outbox.put([stream])
        return stream


class World:
    def __init__(self) -> None:
        self.clock = FakeClock(sleeping="wait")
        self.store = MemoryEventStore(self.clock)
        self.kafka = MemoryPublisher()

    def log(self, name: str = "m") -> list[int]:
        return [json.loads(item.value)["streamversion"] for item in self.kafka.published if item.key == name.encode()]

    async def pass_(self, seconds: float) -> None:
        """Let everybody live through so many seconds."""
        for _ in range(round(seconds / 0.02)):
            await self.clock.advance(0.02)
            for _ in range(20):
                await asyncio.sleep(0)

    @contextmanager
    def running(self, *processes: Process) -> Iterator[None]:
        tasks = [asyncio.ensure_future(process.outbox.run(process.stopping)) for process in processes]
        with ExitStack() as stack:
            for task in tasks:
                stack.callback(task.cancel)
            yield


@pytest.mark.parametrize("mark_at_once", [True, False])
async def test_what_one_process_appends_the_next_one_does_not_publish_again(mark_at_once: bool) -> None:
    """The intake appends, and the sender before it is noted that Kafka has it."""
    world = World()
    intake, sender = Process(world, mark_at_once=mark_at_once), Process(world)
    with world.running(intake, sender):
        await intake.append(await world.store.load("m"))
        seen = await world.store.load("m")
        assert seen.published == 0
        attempted = await sender.append(seen)
        await sender.append(attempted)
        await world.pass_(4)
    assert world.log() == [1, 2, 3]
    assert (await world.store.load("m")).published == 3


async def test_nothing_goes_out_before_what_another_process_has_still_to_publish() -> None:
    world = World()
    intake, sender = Process(world), Process(world)
    first = await intake.append(await world.store.load("m"))
    with world.running(sender):
        await sender.append(first)
        await sender.append(await world.store.load("other"))
        await world.pass_(2)
        assert (world.log(), world.log("other")) == ([], [1]), "nobody else waits with it"
        with world.running(intake):
            await world.pass_(2)
    assert world.log() == [1, 2]


async def test_what_a_process_that_is_gone_has_left_is_the_relay_s_and_goes_out_once() -> None:
    world = World()
    gone, sender = Process(world), Process(world)
    first = await gone.append(await world.store.load("m"))
    with world.running(sender):
        second = await sender.append(first)
        await world.pass_(PATIENCE.total_seconds() + 1)
        assert world.log() == []
        await Process(world).relay.turn()
        assert world.log() == [1, 2]
        await sender.append(second)
        await world.pass_(2)
    assert world.log() == [1, 2, 3]


async def test_what_a_process_could_not_publish_is_still_its_own() -> None:
    world = World()
    process = Process(world)
    with world.running(process):
        world.kafka.away = True
        first = await process.append(await world.store.load("m"))
        await world.pass_(1)
        world.kafka.away = False
        await process.append(first)
        await world.pass_(1)
    assert world.log() == [1, 2]


async def test_a_process_that_stops_publishes_what_it_may_and_leaves_the_rest() -> None:
    world = World()
    intake, sender = Process(world), Process(world)
    await sender.append(await intake.append(await world.store.load("m")))
    await sender.append(await world.store.load("own"))
    sender.stopping.set()
    await sender.outbox.run(sender.stopping)
    assert (world.log(), world.log("own")) == ([], [1])
