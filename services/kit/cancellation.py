"""Cancellations that client libraries lose."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


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
