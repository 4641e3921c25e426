"""Waiting for foreign code with a limit, and telling our own cancellation from one that leaks out of it."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from services.kit.cancellation import cancellation_kept
from services.kit.errors import MailroomError

T = TypeVar("T")


class LeakedCancellation(MailroomError):
    """Something below cancelled itself; nobody asked *us* to stop."""


async def bounded(awaitable: Awaitable[T], seconds: float) -> T:
    """Await for `seconds` at most. Raises TimeoutError after that, and LeakedCancellation for a CancelledError that
    came out of `awaitable` without anyone cancelling this task.
    """
    try:
        with cancellation_kept():
            async with asyncio.timeout(seconds):
                return await awaitable
    except asyncio.CancelledError as cancelled:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise LeakedCancellation("a cancellation leaked out of the code below") from cancelled
