"""Marks and checkpoints beside the next batch: none is lost, none comes early, and what fails is said."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from services.events.closing import Closing
from services.kit.errors import Unavailable

Closed = tuple[list[str], dict[int, int]]


class Store:
    """Closes when `open`, notes what it was given, and fails as often as `failures` says."""

    def __init__(self, failures: int = 0) -> None:
        self.closed: list[Closed] = []
        self.open = asyncio.Event()
        self.open.set()
        self.failures = failures

    async def close(self, buckets: list[str], positions: dict[int, int]) -> None:
        await self.open.wait()
        if self.failures:
            self.failures -= 1
            raise Unavailable("MongoDB", "away")
        self.closed.append((buckets, positions))


async def test_settled_means_durable_and_one_closing_stands_for_several_batches() -> None:
    store = Store()
    closing = Closing(store.close, spacing=60)
    await closing.add({"b"}, {0: 5}, 5)
    await closing.add({"a", "b"}, {0: 9, 3: 2}, 6)
    assert store.closed == []
    assert not closing.is_settled
    await closing.settle()
    assert store.closed == [(["a", "b"], {0: 9, 3: 2})]
    assert closing.is_settled


async def test_what_comes_while_one_runs_is_closed_by_the_next() -> None:
    store = Store()
    store.open.clear()
    closing = Closing(store.close, spacing=0)
    await closing.add({"a"}, {0: 1}, 1)
    await asyncio.sleep(0.01)
    await closing.add({"b"}, {0: 2}, 1)
    store.open.set()
    await closing.settle()
    assert store.closed == [(["a"], {0: 1}), (["b"], {0: 2})]


async def test_it_closes_by_itself_while_batches_go_on() -> None:
    store = Store()
    closing = Closing(store.close, spacing=0.001)
    await closing.add({"a"}, {0: 1}, 1)
    await asyncio.sleep(0.02)
    assert store.closed == [(["a"], {0: 1})]


async def test_when_too_much_is_open_the_next_batch_waits() -> None:
    store = Store()
    store.open.clear()
    closing = Closing(store.close, spacing=60, most=10)
    await closing.add({"a"}, {0: 9}, 9)
    adding = asyncio.create_task(closing.add({"a"}, {0: 10}, 1))
    await asyncio.sleep(0.02)
    assert not adding.done()
    store.open.set()
    await adding
    assert closing.is_settled
    assert store.closed == [(["a"], {0: 10})]


@pytest.mark.parametrize("call", ["look", "settle", "add"])
async def test_a_failure_is_raised_by_the_next_call_and_dropping_leaves_nothing(call: str) -> None:
    store = Store(failures=1)
    closing = Closing(store.close, spacing=0)
    await closing.add({"a"}, {0: 1}, 1)
    await asyncio.sleep(0.01)
    calls: dict[str, Callable[[], Awaitable[None]]] = {
        "look": closing.look,
        "settle": closing.settle,
        "add": lambda: closing.add({"b"}, {0: 2}, 1),
    }
    with pytest.raises(Unavailable):
        await calls[call]()
    await closing.drop()
    assert closing.is_settled
    await closing.settle()
    assert store.closed == []


async def test_dropping_stops_what_runs() -> None:
    store = Store()
    store.open.clear()
    closing = Closing(store.close, spacing=0)
    await closing.add({"a"}, {0: 1}, 1)
    await asyncio.sleep(0.01)
    await closing.drop()
    store.open.set()
    await asyncio.sleep(0.01)
    assert store.closed == []
