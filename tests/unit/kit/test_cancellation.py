"""A cancellation that the code below swallows is raised all the same, and no other one is made up."""

import asyncio
from collections.abc import Awaitable, Callable
from types import ModuleType

import pytest
from pymongo.asynchronous import pool, topology

from services.kit.cancellation import cancellation_kept
from services.kit.kafka.bounded import bounded
from services.kit.mongo import connect


async def swallowing(asleep: asyncio.Event, failure: Exception | None = None) -> str:
    """Like `asyncio.wait_for` before Python 3.12, whose inner call ended in the same moment."""
    try:
        asleep.set()
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        if failure is not None:
            raise failure from None
    return "the result"


async def kept(call: Awaitable[str]) -> str:
    with cancellation_kept():
        return await call


async def within_a_limit(call: Awaitable[str]) -> str:
    return await bounded(call, 60)


@pytest.mark.parametrize("around", [kept, within_a_limit])
@pytest.mark.parametrize("failure", [None, OSError("lost")])
async def test_the_task_ends_cancelled(
    around: Callable[[Awaitable[str]], Awaitable[str]], failure: Exception | None
) -> None:
    asleep = asyncio.Event()

    async def work() -> None:
        while True:
            await around(swallowing(asleep, failure))

    task = asyncio.create_task(work())
    await asleep.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_time_limit_is_one_that_ends_what_it_limits() -> None:
    async def work() -> None:
        async with asyncio.timeout(0.01):
            while True:
                await kept(swallowing(asyncio.Event()))

    with pytest.raises(TimeoutError):
        await work()


async def test_a_result_is_not_lost_to_a_limit_inside() -> None:
    asleep = asyncio.Event()
    assert await bounded(swallowing(asleep), 0.01) == "the result"


async def test_what_is_done_after_a_cancellation_is_done_in_peace() -> None:
    """A cancelled task gives back what it holds, with calls of the same kind."""
    given_back = asyncio.Event()
    asleep = asyncio.Event()

    async def work() -> None:
        try:
            await kept(swallowing(asleep))
        finally:
            with cancellation_kept():
                await asyncio.sleep(0)
            given_back.set()

    task = asyncio.create_task(work())
    await asleep.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert given_back.is_set()


@pytest.mark.parametrize("module", [pool, topology])
async def test_a_time_limit_while_mongodb_is_waited_for_leaves_its_clients_lock_free(module: ModuleType) -> None:
    """In the one moment that matters: the time to wait is over, and the lock is not had again yet."""
    await connect("mongodb://127.0.0.1:9").close()  # it has PyMongo wait as it should
    lock = asyncio.Lock()
    condition = asyncio.Condition(lock)

    async def select_a_server() -> None:
        async with lock:
            await module._async_cond_wait(condition, 0.01)

    selecting = asyncio.create_task(select_a_server())
    await asyncio.sleep(0)
    async with lock:
        async with asyncio.timeout(60):
            while not lock._waiters:  # noqa: ASYNC110
                await asyncio.sleep(0)
        selecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await selecting
    for _ in range(10):
        await asyncio.sleep(0)
    assert not lock.locked(), "every later operation of the client hangs"
