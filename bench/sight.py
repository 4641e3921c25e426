"""When something can be seen: a change stream says that a document changed, a look says what it shows then.

So each look is worth it, everything awaited is looked for, and what is looked at pays for one request and not for a
poll. A measured time holds the change stream's delay and the look itself, so it errs on the side of too long.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, Self

from pymongo import AsyncMongoClient
from pymongo.asynchronous.collection import AsyncCollection

from bench.results import BenchFailed

Look = Callable[[str], Awaitable[set[datetime]]]
"""From a document's id to the times of the events that it shows now."""

UNSEEN_SECONDS = 15.0
_PIPELINE = [{"$project": {"_id": 1, "documentKey": 1}}]


class Sight:
    """Waits for events to show in documents of one collection. An async context manager."""

    def __init__(self, mongo_url: str, database: str, collection: str, look: Look) -> None:
        self._client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(mongo_url)
        self._collection: AsyncCollection[dict[str, Any]] = self._client[database][collection]
        self._look = look
        self._awaited: dict[str, dict[datetime, float]] = {}
        self._looking: dict[str, bool] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._changes: asyncio.Task[None] | None = None
        self.looks = 0
        self.seconds: list[float] = []
        """From `expect` to the look that showed it."""

    async def __aenter__(self) -> Self:
        opened = asyncio.Event()
        self._changes = asyncio.create_task(self._watch(opened))
        await asyncio.wait_for(opened.wait(), 20)
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in (self._changes, *self._tasks):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
        await self._client.close()

    def expect(self, document: str, event: datetime) -> None:
        """From now on, wait for the document to show an event of that time."""
        self._awaited.setdefault(document, {})[event] = time.monotonic()

    async def all_seen(self) -> None:
        """BenchFailed if something does not show within 15 s from now, or a look failed."""
        deadline = time.monotonic() + UNSEEN_SECONDS
        while self._awaited and time.monotonic() < deadline:
            if self._changes is not None and self._changes.done():
                self._changes.result()
            await asyncio.sleep(0.05)
        if self._awaited:
            unseen = sum(map(len, self._awaited.values()))
            raise BenchFailed(f"{unseen} events never showed; {len(self.seconds)} did")

    async def _watch(self, opened: asyncio.Event) -> None:
        async with await self._collection.watch(_PIPELINE) as changes:
            await changes.try_next()
            opened.set()
            async for change in changes:
                document = str(change["documentKey"]["_id"])
                if document in self._looking:
                    self._looking[document] = True
                elif document in self._awaited:
                    self._looking[document] = False
                    task = asyncio.create_task(self._see(document))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)

    async def _see(self, document: str) -> None:
        """Look, and again if the document changed meanwhile."""
        while True:
            self._looking[document] = False
            shown = await self._look(document)
            self.looks += 1
            now = time.monotonic()
            awaited = self._awaited.get(document, {})
            for event in awaited.keys() & shown:
                self.seconds.append(now - awaited.pop(event))
            if not awaited:
                self._awaited.pop(document, None)
            if not self._looking[document] or not awaited:
                del self._looking[document]
                return


def times_of(document: Mapping[str, Any]) -> set[datetime]:
    """The times of an EmailLog's events, as JSON."""
    return {datetime.fromisoformat(event["timestamp"]) for event in document["events"]}
