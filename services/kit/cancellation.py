"""Cancellations that client libraries lose, and locks that they leave locked by one."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Condition(Protocol):
    """asyncio's, or one like it."""

    async def wait(self) -> bool: ...


@contextmanager
def cancellation_kept() -> Iterator[None]:
    """Around awaiting foreign code: a cancellation of this task that was lost inside is raised when the code ends.

    `asyncio.wait_for` before Python 3.12 returns the result of what ended in the moment of its cancelling, and the
    caller goes on as if nothing had been said (https://github.com/python/cpython/issues/86296). PyMongo and aiokafka
    wait with it. Without this, one of 65 cancelled MongoDB calls lets a lease keeper renew for ever, or a time limit
    pass unseen. What the code did stands: to its caller it is as if the cancellation had come just after it.
    """
    before = _times_cancelled()
    try:
        yield
    finally:
        if _times_cancelled() > before:
            raise asyncio.CancelledError


def _times_cancelled() -> int:
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


async def notified(condition: Condition, seconds: float | None) -> bool:
    """Wait for the condition, whose lock the caller holds; False when it was not told for so long. However it ends, by
    a cancellation as well, the caller holds the lock again.

    `asyncio.wait_for(condition.wait(), seconds)` before Python 3.12 waits in a task of its own. A caller that is
    cancelled while that task takes the lock again goes on without it: it releases a lock that is somebody else's, and
    the task leaves it locked for ever. PyMongo waits so for a server, so that one time limit that ends in the wrong
    moment while MongoDB is away stops every later operation of its client.
    """
    try:
        async with asyncio.timeout(seconds):
            return await condition.wait()
    except TimeoutError:
        return False
