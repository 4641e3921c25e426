"""Aggregates remembered between batches, so that the next event of a message needs no read."""

from __future__ import annotations

from collections import OrderedDict

from services.events.ports import Stored


class KnownCache:
    """Keeps the aggregates used last, up to `limit` events in all."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._events = 0
        self._stored: OrderedDict[str, Stored] = OrderedDict()  # the one used longest ago comes first

    @property
    def is_used(self) -> bool:
        """Whether anything is ever remembered."""
        return self._limit > 0

    def __len__(self) -> int:
        return len(self._stored)

    def take(self, aggregate: str) -> Stored | None:
        """What is remembered, and no more from now on: whoever takes it is about to change it."""
        stored = self._stored.pop(aggregate, None)
        if stored is not None:
            self._events -= len(stored.known)
        return stored

    def put(self, aggregate: str, stored: Stored) -> None:
        """Remember; forgets those used longest ago where there is no room."""
        self.take(aggregate)
        self._stored[aggregate] = stored
        self._events += len(stored.known)
        while self._events > self._limit:
            _, oldest = self._stored.popitem(last=False)
            self._events -= len(oldest.known)

    def clear(self) -> None:
        """Forget everything."""
        self._stored.clear()
        self._events = 0
