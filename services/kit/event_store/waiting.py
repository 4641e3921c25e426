"""Waiting for whichever comes first."""

import asyncio

from services.kit.clock import Clock


async def first_of(clock: Clock, seconds: float, *events: asyncio.Event) -> None:
    """Return when one of the events is set or `seconds` have passed."""
    if any(event.is_set() for event in events):
        return
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    waits_or_time = [*waits, asyncio.ensure_future(clock.sleep(seconds))]
    try:
        await asyncio.wait(waits_or_time, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits_or_time:
            wait.cancel()
        await asyncio.gather(*waits_or_time, return_exceptions=True)
