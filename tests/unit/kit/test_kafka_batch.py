"""Verdicts on a batch: what is handled, what is parked, what comes again."""

import asyncio
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.kit.breaker import Breaker, BreakerState
from services.kit.errors import ExpectedVersionConflict, PermanentError, TransientError, Unavailable
from services.kit.kafka.batch import BatchRunner, BreakerOpen, KeyHeld, Verdict
from services.kit.kafka.records import DONE, BatchHandler, Outcome, Park, ParkKind, Partition, Record, Retry
from services.kit.kafka.releasing import ReleaseWatch
from services.kit.metrics import RECORDS_PARKED, Metrics
from services.kit.releases import Bound, Release, ReleaseAction, digest
from services.kit.testing.clock import FakeClock
from services.kit.testing.parking import MemoryParkingLot
from services.kit.testing.releases import MemoryReleases

NOW = datetime(2026, 11, 24, 10, 25, tzinfo=UTC)


class Bench:
    """A runner with everything around it in a test's hands."""

    def __init__(self, handler: BatchHandler, limit: int = 100) -> None:
        self.clock = FakeClock()
        self.lot = MemoryParkingLot()
        self.releases = MemoryReleases()
        self.breaker = Breaker(limit, 60.0, self.clock)
        self.metrics = Metrics()
        self.abort = asyncio.Event()
        self.calls: list[list[int]] = []

        async def counted(records: Sequence[Record]) -> Sequence[Outcome]:
            self.calls.append([record.offset for record in records])
            return await handler(records)

        self.runner = BatchRunner(
            "g",
            counted,
            self.lot,
            self.breaker,
            self.clock,
            self.metrics,
            releases=self.releases,
            attempt_seconds=0.2,
        )

    async def run(self, records: Sequence[Record]) -> list[Verdict]:
        return await self.runner.run(records, self.abort)

    def state(self) -> BreakerState:
        return self.breaker.state

    def parked(self) -> dict[int, str]:
        return {parked.offset: parked.reason for parked in self.lot.all()}


def records(count: int, key: Callable[[int], bytes | None] = lambda _: None) -> list[Record]:
    return [Record("t", 0, offset, 0, key(offset), b"v") for offset in range(count)]


def by_offset(outcomes: dict[int, Outcome | Exception]) -> BatchHandler:
    """A handler that answers as told by offset, and raises for the whole batch when an exception is in it."""

    async def handler(batch: Sequence[Record]) -> Sequence[Outcome]:
        answers = [outcomes.get(record.offset, DONE) for record in batch]
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return [answer for answer in answers if not isinstance(answer, Exception)]

    return handler


def again(verdicts: Sequence[Verdict]) -> list[int]:
    return [index for index, verdict in enumerate(verdicts) if verdict is not None]


async def test_all_done() -> None:
    bench = Bench(by_offset({}))
    assert again(await bench.run(records(5))) == []
    assert bench.calls == [[0, 1, 2, 3, 4]]


async def test_after_a_retry_later_records_of_its_key_come_again_too() -> None:
    bench = Bench(by_offset({1: Retry(TransientError("later"), after=7)}))
    verdicts = await bench.run(records(6, key=lambda n: b"odd" if n % 2 else b"even"))
    assert again(verdicts) == [1, 3, 5]
    assert verdicts[1] is not None
    assert verdicts[1].after == 7
    assert isinstance(verdicts[3] and verdicts[3].error, KeyHeld)


async def test_records_without_key_hold_nobody() -> None:
    bench = Bench(by_offset({1: Retry(TransientError("later"))}))
    assert again(await bench.run(records(4))) == [1]


async def test_the_same_key_in_another_partition_is_another_chain() -> None:
    bench = Bench(by_offset({0: Retry(TransientError("later"))}))
    batch = [Record("t", 0, 0, 0, b"k", b""), Record("t", 1, 7, 0, b"k", b""), Record("u", 0, 8, 0, b"k", b"")]
    assert again(await bench.run(batch)) == [0]


async def test_park_is_kept_and_counts_as_handled() -> None:
    bench = Bench(by_offset({2: Park("notJson", "poison", "line 1")}))
    assert again(await bench.run(records(4, key=lambda _: b"k"))) == []
    (parked,) = bench.lot.all()
    assert (parked.id, parked.reason, parked.kind, parked.detail) == ("g|t|0|2", "notJson", "poison", "line 1")
    assert parked.raw == b"v"
    assert bench.metrics.value(RECORDS_PARKED, group="g", topic="t", reason="notJson") == 1


async def test_parking_away_means_again_and_holds_the_key() -> None:
    bench = Bench(by_offset({1: Park("notJson", "poison")}))
    bench.lot.away = True
    assert again(await bench.run(records(4, key=lambda _: b"k"))) == [1, 2, 3]


async def test_nothing_is_parked_behind_a_retry_of_its_key() -> None:
    bench = Bench(by_offset({0: Retry(TransientError("later")), 1: Park("notJson", "poison")}))
    assert again(await bench.run(records(2, key=lambda _: b"k"))) == [0, 1]
    assert bench.parked() == {}


@pytest.mark.parametrize(
    "error",
    [TransientError("x"), Unavailable("MongoDB", "away"), ExpectedVersionConflict("s", 1), TimeoutError("own")],
)
async def test_a_transient_error_hands_the_batch_out_again(error: Exception) -> None:
    bench = Bench(by_offset({2: error}))
    assert again(await bench.run(records(4))) == [0, 1, 2, 3]
    assert len(bench.calls) == 1, "it is not searched for a culprit"
    assert bench.parked() == {}


async def test_retry_after_of_a_transient_error_is_kept() -> None:
    bench = Bench(by_offset({0: TransientError("x", retry_after=9)}))
    verdicts = await bench.run(records(2))
    assert [verdict and verdict.after for verdict in verdicts] == [9, 9]


async def test_a_bug_is_traced_to_its_record_which_is_parked_with_its_stack() -> None:
    bench = Bench(by_offset({13: ZeroDivisionError("division by zero")}))
    assert again(await bench.run(records(40))) == []
    (parked,) = bench.lot.all()
    assert (parked.offset, parked.reason, parked.kind) == (13, "handlerFailed", "bug")
    assert parked.error_class == "ZeroDivisionError"
    assert "ZeroDivisionError: division by zero" in parked.stack
    assert "test_kafka_batch.py" in parked.stack
    assert [13] in bench.calls
    assert bench.calls.count([13]) == 3, "it had several chances alone"
    assert bench.clock.slept == [0.1, 0.1]


async def test_a_permanent_error_keeps_its_reason() -> None:
    bench = Bench(by_offset({1: PermanentError("nullValue", "no value")}))
    assert again(await bench.run(records(3))) == []
    assert bench.parked() == {1: "nullValue"}
    assert bench.lot.all()[0].kind == "poison"


async def test_a_bug_that_goes_away_by_itself_parks_nothing() -> None:
    left = 4

    async def flaky(batch: Sequence[Record]) -> Sequence[Outcome]:
        nonlocal left
        if any(record.offset == 1 for record in batch) and (left := left - 1) > 0:
            raise KeyError("sometimes")
        return [DONE] * len(batch)

    bench = Bench(flaky)
    assert again(await bench.run(records(2))) == []
    assert bench.parked() == {}


@pytest.mark.parametrize("answer", [[DONE], [DONE, DONE, DONE], [DONE, None]])
async def test_a_wrong_answer_is_a_bug(answer: list[Outcome]) -> None:
    async def handler(batch: Sequence[Record]) -> Sequence[Outcome]:
        return answer if len(batch) == 2 or answer[1:] == [None] else [DONE] * len(batch)

    bench = Bench(handler)
    verdicts = await bench.run(records(2))
    if answer[1:] == [None]:
        assert bench.parked() == {0: "handlerFailed", 1: "handlerFailed"}
    assert again(verdicts) == []


async def test_a_cancellation_that_leaks_out_of_the_handler_is_not_ours() -> None:
    async def handler(batch: Sequence[Record]) -> Sequence[Outcome]:
        if any(record.offset == 2 for record in batch):
            raise asyncio.CancelledError
        return [DONE] * len(batch)

    bench = Bench(handler)
    assert again(await bench.run(records(4))) == []
    assert bench.parked() == {2: "handlerFailed"}
    assert bench.lot.all()[0].error_class == "LeakedCancellation"


async def test_our_own_cancellation_goes_through() -> None:
    started = asyncio.Event()

    async def handler(batch: Sequence[Record]) -> Sequence[Outcome]:
        started.set()
        await asyncio.Event().wait()
        return []

    bench = Bench(handler)
    task = asyncio.create_task(bench.run(records(1)))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_handler_that_hangs_is_given_up_and_its_batch_comes_again() -> None:
    async def handler(batch: Sequence[Record]) -> Sequence[Outcome]:
        await asyncio.Event().wait()
        return []

    bench = Bench(handler)
    assert again(await bench.run(records(3))) == [0, 1, 2]
    assert bench.runner.timed_out
    assert bench.parked() == {}


async def test_a_flood_opens_the_breaker_and_the_rest_stays() -> None:
    bench = Bench(by_offset({n: ValueError("bad") for n in range(100)}), limit=5)
    verdicts = await bench.run(records(100))
    assert again(verdicts) == list(range(5, 100))
    assert len(bench.parked()) == 5
    assert bench.state() == "open"
    assert any(isinstance(verdict and verdict.error, BreakerOpen) for verdict in verdicts)
    assert len(bench.calls) < 40, "an open breaker ends the search"


@pytest.mark.parametrize("kind", ["uncorrelated", "orphan"])
async def test_a_flood_of_parks_opens_it_too_but_early_records_do_not_count(kind: ParkKind) -> None:
    bench = Bench(by_offset({n: Park("notJson", "poison") for n in range(10)}), limit=5)
    assert again(await bench.run(records(10))) == [5, 6, 7, 8, 9]
    bench = Bench(by_offset({n: Park("noMessage", kind) for n in range(10)}), limit=5)
    assert again(await bench.run(records(10))) == []
    assert bench.state() == "closed"


async def test_a_batch_without_failures_closes_a_half_open_breaker() -> None:
    outcomes: dict[int, Outcome | Exception] = {0: ValueError("bad")}
    bench = Bench(by_offset(outcomes), limit=0)
    await bench.run(records(2))
    bench.clock.move(60.1)
    assert bench.state() == "halfOpen"
    await bench.run(records(2))
    assert bench.state() == "open", "still bad"
    outcomes.clear()
    bench.clock.move(120.1)
    await bench.run(records(2))
    assert bench.state() == "closed"


async def test_after_abort_no_further_call_is_begun() -> None:
    bench: Bench

    async def handler(batch: Sequence[Record]) -> Sequence[Outcome]:
        bench.abort.set()
        raise ValueError("bug")

    bench = Bench(handler)
    assert again(await bench.run(records(8))) == list(range(8))
    assert len(bench.calls) == 1
    assert bench.parked() == {}


ANSWERS = st.sampled_from(["done", "retry", "park", "bug", "poison"])


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c", None]), ANSWERS), min_size=1, max_size=40),
    st.integers(0, 10),
)
def test_whatever_the_handler_does(script: list[tuple[bytes | None, str]], limit: int) -> None:
    """Handled = done by the handler or parked, nothing else; and nothing handled behind a record of its key that is
    not.
    """
    made: dict[str, Outcome | Exception] = {
        "done": DONE,
        "retry": Retry(TransientError("later")),
        "park": Park("p", "conflictingRepeat"),
        "bug": RuntimeError("bug"),
        "poison": PermanentError("bad"),
    }
    batch = [Record("t", 0, offset, 0, key, b"") for offset, (key, _) in enumerate(script)]

    async def check() -> None:
        bench = Bench(by_offset({offset: made[answer] for offset, (_, answer) in enumerate(script)}), limit)
        verdicts = await bench.run(batch)
        parked = bench.parked()
        held: set[bytes] = set()
        for offset, (key, answer) in enumerate(script):
            if verdicts[offset] is None:
                assert answer == "done" or offset in parked
                assert key is None or key not in held
            else:
                assert offset not in parked
                if key is not None:
                    held.add(key)
        assert len(parked) <= limit
        if limit == 10 and not {"retry", "park", "bug", "poison"} & {answer for _, answer in script}:
            assert again(verdicts) == []

    asyncio.run(check())


# --- an operator's orders ---


def order(action: ReleaseAction, until: int = 1000, source: str | None = None, number: int = 1) -> Release:
    return Release(f"r{number}", "g", action, "wrong producer", "operator:ann", NOW, (Bound("t", 0, 0, until),), source)


def written(count: int, source: Callable[[int], str]) -> list[Record]:
    return [Record("t", 0, n, 0, None, json.dumps({"source": source(n)}).encode()) for n in range(count)]


REFUSED = Park("unknownType", "poison")


async def refuse(batch: Sequence[Record]) -> Sequence[Outcome]:
    return [REFUSED for _ in batch]


async def test_what_is_released_is_discarded_beyond_the_breaker_and_recorded() -> None:
    bench = Bench(refuse, limit=3)
    await bench.releases.order(order("discard", until=40))
    verdicts = await bench.run(records(50))
    assert [verdict is None for verdict in verdicts] == [True] * 43 + [False] * 7
    assert sorted(bench.parked()) == [40, 41, 42], "behind the order's bound the breaker decides"
    (found,) = await bench.releases.ranges("r1")
    assert (found.runs, found.reason, found.sha256) == (((0, 39),), "wrong producer", digest(records(40)))


async def test_what_is_released_is_parked_with_the_order_s_name() -> None:
    bench = Bench(refuse, limit=3)
    await bench.releases.order(order("park"))
    assert await bench.run(records(500)) == [None] * 500
    assert {each.release for each in bench.lot.all()} == {"r1"}
    assert bench.state() == "closed"
    assert bench.metrics.value(RECORDS_PARKED, group="g", topic="t", reason="unknownType") == 500


async def test_a_batch_says_whether_all_of_it_was_released() -> None:
    bench = Bench(by_offset(dict.fromkeys(range(20), REFUSED)))
    await bench.releases.order(order("discard", until=15))
    flood = records(30)
    for portion, whole in ((flood[:10], True), (flood[10:20], False), (flood[20:], False), (flood[:15], True)):
        await bench.run(portion)
        assert bench.runner.released is whole


async def test_good_records_are_never_released_and_other_sources_neither() -> None:
    bench = Bench(by_offset({n: REFUSED for n in range(60) if n % 3}), limit=10)
    await bench.releases.order(order("discard", source="/wrong"))
    verdicts = await bench.run(written(60, lambda n: "/wrong" if n % 2 else "/other"))
    gone = [n for n in range(60) if n % 3 and n % 2]
    (found,) = await bench.releases.ranges("r1")
    assert [n for first, last in found.runs for n in range(first, last + 1)] == gone
    assert len(bench.parked()) == 10, "the other producer's bad records go by the breaker"
    assert [n for n in range(60) if n % 3 == 0 and verdicts[n] is not None] == []


async def test_what_could_not_be_recorded_comes_again_and_holds_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(by_offset({0: REFUSED}))
    await bench.releases.order(order("discard"))

    async def fails(*_: object) -> int:
        raise Unavailable("MongoDB", "away")

    monkeypatch.setattr(bench.releases, "discard", fails)
    verdicts = await bench.run(records(3, key=lambda n: b"k" if n < 2 else b"other"))
    assert isinstance(verdicts[0] and verdicts[0].error, Unavailable)
    assert isinstance(verdicts[1] and verdicts[1].error, KeyHeld)
    assert verdicts[2] is None


async def test_while_orders_cannot_be_read_nothing_is_parked_that_may_be_released() -> None:
    early = Park("early", "uncorrelated")
    bench = Bench(by_offset({0: REFUSED, 1: early}))
    bench.releases.away = True
    verdicts = await bench.run(records(3))
    assert [verdict is None for verdict in verdicts] == [False, True, True]
    assert bench.parked() == {1: "early"}


async def test_batches_of_other_sizes_after_a_crash_record_each_record_once() -> None:
    bench = Bench(refuse, limit=0)
    await bench.releases.order(order("discard"))
    flood = records(100)
    await bench.run(flood[:30])
    await bench.run(flood[:70])
    await bench.run(flood[20:])
    assert [each.runs for each in await bench.releases.ranges("r1")] == [((0, 29),), ((30, 69),), ((70, 99),)]


async def test_a_flood_of_bugs_is_released_without_pauses_and_never_discarded() -> None:
    bench = Bench(by_offset({n: ValueError("a bug") for n in range(40)}), limit=0)
    await bench.releases.order(order("discard"))
    began = bench.clock.monotonic()
    assert await bench.run(records(41)) == [None] * 41
    assert bench.clock.monotonic() == began
    assert await bench.releases.ranges("r1") == []
    assert sorted(bench.parked()) == list(range(40)), "what our code failed on may be good"
    assert {each.release for each in bench.lot.all()} == {"r1"}


async def test_an_order_lets_records_flow_once_and_is_closed_behind_its_bounds() -> None:
    bench = Bench(refuse, limit=0)
    watch = ReleaseWatch(bench.releases, "g", "host:1", ("t",), bench.breaker, bench.clock)
    here = Partition("t", 0)
    await watch.turn({here: 0}, {here: -1}, None)
    assert await bench.releases.breakers(NOW) == []
    await bench.run(records(10))
    await watch.turn({here: 0}, {here: -1}, bench.runner.refused)
    (told,) = await bench.releases.breakers(NOW)
    assert (told.consumer, told.state, told.offset, told.reason) == ("g", "open", 9, "unknownType")
    await bench.releases.order(order("discard", until=5))
    await watch.turn({here: 0}, {here: -1}, None)
    assert bench.state() == "closed"
    await bench.run(records(10))
    await watch.turn({here: 5}, {here: 4}, None)
    assert bench.state() == "open", "what the order does not name opens it again, and it stays open"
    assert await bench.releases.in_force("g") != []
    await watch.turn({here: 5}, {here: 5}, None)
    assert await bench.releases.in_force("g") == []
    bench.breaker.reset()
    await watch.turn({here: 5}, {here: 5}, None)
    assert await bench.releases.breakers(NOW) == []


async def test_a_watch_survives_a_store_that_is_away() -> None:
    bench = Bench(refuse, limit=0)
    watch = ReleaseWatch(bench.releases, "g", "host:1", ("t",), bench.breaker, bench.clock)
    bench.releases.away = True
    await bench.run(records(1))
    await watch.turn({}, {}, None)
    await watch.end()
