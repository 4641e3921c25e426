"""Keep every connection of a MongoDB client busy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from uuid import uuid4

from services.kit.mongo import Database

BUSY_MS = 300_000
"""Longer than any test needs: the server gives up when the client hangs up."""


@asynccontextmanager
async def all_connections_taken(database: Database, connections: int) -> AsyncIterator[Callable[[], bool]]:
    """Have as many queries under way as the database's client has connections; the value says if all still are."""
    collection = database[f"busy_{uuid4().hex[:8]}"]
    await collection.insert_one({"_id": 1})
    tasks = [
        asyncio.create_task(collection.find_one({"$where": f"sleep({BUSY_MS}) || true"})) for _ in range(connections)
    ]
    await asyncio.sleep(0.3)
    assert not any(task.done() for task in tasks)
    try:
        yield lambda: not any(task.done() for task in tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await collection.drop()
