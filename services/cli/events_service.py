"""The reading side, put together by the events service's composition root and not started, for commands."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.events.app import Foundation


@asynccontextmanager
async def events_service() -> AsyncIterator[Foundation]:
    """What the service stands on; nothing projects. Raises SettingsError, and Unavailable when MongoDB is away."""
    from services.events.app import foundation
    from services.events.settings import EventsSettings
    from services.kit.mongo import ping
    from services.kit.settings import load

    base = foundation(load(EventsSettings))
    try:
        await ping(base.client)
        yield base
    finally:
        await base.client.close()
        await base.patient.close()
