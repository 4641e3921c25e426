"""Handing out due streams: shares of the lanes, fresh streams at once, leases kept alive."""

import asyncio
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.email.events import EmailCancelled
from services.kit.clock import SystemIds
from services.kit.event_store.due import LEASE_FOR, DueScheduler, Shares
from services.kit.event_store.memory import MemoryEventStore
from services.kit.event_store.port import Append, Draft, Lease, Stream, StreamIndex, confirmed, stamp
from services.kit.health import Progress
from services.kit.metrics import DUE_DELAY_SECONDS, LEASES_LOST, Metrics
from services.kit.testing.clock import FakeClock

LANES = ("urgent", "high", "normal", "low")
SHARES = Shares(slots=12, kept_for_first=3, floor=1)


class Bench:
    """A scheduler over a memory store, with a clock that stands."""

    def __init__(self, shares: Shares = SHARES, queue: int = 3) -> None:
        self.clock = FakeClock(sleeping="wait")
        self.store = MemoryEventStore(self.clock)
        self.metrics = Metrics()
        self.scheduler = self.new_scheduler("me", shares, queue)

    def new_scheduler(self, owner: str, shares: Shares = SHARES, queue: int = 3) -> DueScheduler:
        return DueScheduler(self.store, owner=owner, clock=self.clock, shares=shares, queue=queue, metrics=self.metrics)

    async def add(self, name: str, lane: str, after: float = 0.0, lease: Lease | None = None) -> Stream:
        """Append a stream that is due `after` seconds from now."""
        stream = await self.store.load(name)
        events = stamp(
            stream,
            [Draft(EmailCancelled())],
            now=self.clock.now(),
            new_id=SystemIds().new,
            source="test",
            correlation="c",
        )
        index = StreamIndex(due_at=self.clock.now() + timedelta(seconds=after), lane=lane)
        return confirmed(await self.store.append(Append(stream, events, index, lease=lease)))

    async def add_many(self, lane: str, count: int) -> None:
        for n in range(count):
            await self.add(f"{lane}{n:03}", lane, after=n * 1e-6)
        self.clock.move(0.1)

    async def take(self, limit: int = 100, scheduler: DueScheduler | None = None) -> list[str]:
        """What the scheduler hands out now, [] when it waits."""
        task = asyncio.ensure_future((scheduler or self.scheduler).take(limit))
        for _ in range(20):
            await asyncio.sleep(0)
        if task.done():
            return [stream.stream_id for stream in task.result()]
        task.cancel()
        return []


def lanes_of(names: list[str]) -> dict[str, int]:
    lanes = [name.rstrip("0123456789") for name in names]
    return {lane: lanes.count(lane) for lane in LANES if lane in lanes}


class TestShares:
    @given(
        st.integers(0, 4),
        st.integers(1, 8),
        st.integers(0, 30),
        st.lists(st.tuples(st.sampled_from(LANES), st.integers(-10, 100)), max_size=30),
    )
    def test_any_load_leaves_each_lane_what_it_can_count_on(
        self, floor: int, kept: int, extra: int, changes: list[tuple[str, int]]
    ) -> None:
        shares = Shares(slots=3 * floor + kept + extra, kept_for_first=kept, floor=floor)
        in_work = dict.fromkeys(LANES, 0)
        for lane, change in changes:
            in_work[lane] += max(change, -in_work[lane]) if change < 0 else min(change, shares.room(lane, in_work))
            assert sum(in_work.values()) <= shares.slots
            assert sum(in_work[lane] for lane in LANES[1:]) <= shares.slots - kept
            for other in LANES[1:]:
                assert shares.room(other, in_work) >= floor - in_work[other]
            if not in_work["urgent"]:
                assert shares.room("urgent", in_work) >= kept - sum(shares.unmet_floors(in_work).values())

    def test_a_full_campaign_leaves_the_urgent_slots(self) -> None:
        assert {lane: SHARES.room(lane, {"low": 7, "normal": 2}) for lane in LANES} == {
            "urgent": 2,
            "high": 0,
            "normal": 0,
            "low": 0,
        }

    def test_too_few_slots_are_refused(self) -> None:
        with pytest.raises(ValueError, match="too few slots"):
            Shares(slots=3, kept_for_first=1, floor=1)


class TestPolling:
    async def test_nothing_due_waits_and_the_due_time_ends_the_wait(self) -> None:
        bench = Bench()
        await bench.add("low0", "low", after=5)
        task = asyncio.ensure_future(bench.scheduler.take(10))
        for _ in range(49):
            await bench.clock.advance(0.1)
        assert not task.done()
        for _ in range(3):
            await bench.clock.advance(0.1)
        assert [stream.stream_id for stream in await task] == ["low0"]
        assert bench.metrics.count(DUE_DELAY_SECONDS, lane="low") == 1

    async def test_urgent_comes_first_and_the_others_get_their_floor(self) -> None:
        bench = Bench()
        for lane in ("low", "urgent"):
            await bench.add_many(lane, 30)
        got = await bench.take()
        assert lanes_of(got) == {"urgent": 9, "low": 1}
        assert got[0] == "urgent000"
        assert await bench.take() == []
        bench.scheduler.finish(got[0])
        assert await bench.take() == ["urgent009"]
        bench.scheduler.finish(got[-1])
        assert lanes_of(await bench.take()) == {"low": 1}

    async def test_a_campaign_leaves_slots_for_an_urgent_one(self) -> None:
        bench = Bench()
        await bench.add_many("low", 30)
        assert lanes_of(await bench.take()) == {"low": 7}
        await bench.add("urgent0", "urgent")
        bench.clock.move(0.1)
        assert await bench.take() == ["urgent0"]

    async def test_one_at_a_time_is_urgent_first_too(self) -> None:
        bench = Bench()
        for lane in ("low", "urgent"):
            await bench.add_many(lane, 30)
        got = [name for _ in range(12) for name in await bench.take(1)]
        assert lanes_of(got) == {"urgent": 9, "low": 1}

    async def test_a_store_that_is_away_is_asked_again(self) -> None:
        bench = Bench()
        await bench.add("low0", "low")
        bench.store.away = True
        assert await bench.take() == []
        bench.store.away = False
        bench.clock.move(0.1)
        assert await bench.take() == ["low0"]

    async def test_urgent_ones_are_not_lost_when_the_second_read_fails(self) -> None:
        bench = Bench()
        await bench.add("urgent0", "urgent")
        lease_due, calls = bench.store.lease_due, 0

        async def fail_on_the_second(*arguments: object) -> list[Stream]:
            nonlocal calls
            calls += 1
            bench.store.away = calls == 2
            return await lease_due(*arguments)  # type: ignore[arg-type]

        bench.store.lease_due = fail_on_the_second  # type: ignore[method-assign,assignment]
        assert await bench.take() == ["urgent0"]

    async def test_two_processes_share_without_meeting(self) -> None:
        bench = Bench()
        other = bench.new_scheduler("other")
        await bench.add_many("low", 10)
        mine = await bench.take()
        theirs = await bench.take(100, other)
        assert sorted(mine + theirs) == [f"low{n:03}" for n in range(10)]


class TestFreshStreams:
    async def fresh(self, bench: Bench, name: str, lane: str) -> bool:
        """Append as an intake does; whether it went to the queue."""
        lease = bench.scheduler.lease(lane)
        stream = await bench.add(name, lane, lease=lease)
        if lease is not None:
            bench.scheduler.offer(stream, lane)
        return lease is not None

    async def test_a_fresh_one_is_handed_out_without_the_store(self) -> None:
        bench = Bench()
        task = asyncio.ensure_future(bench.scheduler.take(10))
        await asyncio.sleep(0)
        assert await self.fresh(bench, "high0", "high")
        bench.store.away = True
        assert [stream.stream_id for stream in await asyncio.wait_for(task, 1)] == ["high0"]

    async def test_a_full_queue_leaves_it_to_the_store(self) -> None:
        bench = Bench(queue=2)
        assert [await self.fresh(bench, f"low{n}", "low") for n in range(4)] == [True, True, False, False]
        assert await self.fresh(bench, "high0", "high")
        bench.clock.move(0.1)
        assert sorted(await bench.take()) == ["high0", "low0", "low1", "low2", "low3"]

    async def test_older_ones_in_the_store_go_first(self) -> None:
        bench = Bench()
        await bench.add_many("low", 20)
        assert len(await bench.take()) == 7
        assert bench.scheduler.lease("low") is None
        assert bench.scheduler.lease("high") is not None

    async def test_a_failed_append_gives_its_place_back(self) -> None:
        bench = Bench(queue=1)
        assert bench.scheduler.lease("low") is not None
        assert bench.scheduler.lease("low") is None
        bench.scheduler.forfeit("low")
        assert bench.scheduler.lease("low") is not None

    async def test_an_unknown_lane_is_left_to_the_store(self) -> None:
        assert Bench().scheduler.lease("express") is None


class TestLeases:
    async def run_for(self, bench: Bench, seconds: float, *, close: bool = False) -> None:
        stopping = asyncio.Event()
        task = asyncio.ensure_future(bench.scheduler.run(stopping, Progress(bench.clock)))
        await asyncio.sleep(0)
        for _ in range(int(seconds)):
            await bench.clock.advance(1)
        if close:
            stopping.set()
            await task
        else:
            task.cancel()

    async def test_leases_live_while_the_work_does(self) -> None:
        bench = Bench()
        await bench.add_many("low", 1)
        assert await bench.take() == ["low000"]
        await self.run_for(bench, 4 * LEASE_FOR.total_seconds())
        assert await bench.store.lease_due([("low", 5)], "other", LEASE_FOR, bench.clock.now()) == []

    async def test_what_a_dead_process_held_goes_to_another(self) -> None:
        bench = Bench()
        await bench.add_many("low", 1)
        assert await bench.take() == ["low000"]
        bench.clock.move(LEASE_FOR.total_seconds() + 0.1)
        assert await bench.take(5, bench.new_scheduler("other")) == ["low000"]
        await self.run_for(bench, 8)
        assert bench.metrics.value(LEASES_LOST) == 1

    async def test_what_is_given_back_can_be_taken_at_once(self) -> None:
        bench = Bench()
        await bench.add_many("low", 1)
        await bench.scheduler.give_back(await bench.take())
        assert bench.scheduler.in_work["low"] == 0
        assert await bench.take(5, bench.new_scheduler("other")) == ["low000"]

    async def test_closing_gives_back_what_nobody_began(self) -> None:
        bench = Bench()
        lease = bench.scheduler.lease("low")
        bench.scheduler.offer(await bench.add("low0", "low", lease=lease), "low")
        await self.run_for(bench, 1, close=True)
        assert await bench.scheduler.take(5) == []
        assert bench.scheduler.lease("low") is None
        assert await bench.take(5, bench.new_scheduler("other")) == ["low0"]
