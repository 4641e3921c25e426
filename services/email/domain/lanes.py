"""In which order messages at hand get the next attempts: by lane, urgent first, and yet each lane gets its share."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Generic, Protocol, TypeVar

from contracts.topics import LANES

FLOOR_EVERY = 8
"""Each eighth pick of what is not urgent goes to the lane that was picked from longest ago."""


class InLane(Protocol):
    """Something that waits in a lane."""

    @property
    def lane(self) -> str:
        """Its lane."""
        ...


W = TypeVar("W", bound=InLane)


class Lanes(Generic[W]):
    """One queue for each lane. `urgent` is drawn from apart, since it has tokens of its own."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[W]] = {lane: deque() for lane in LANES}
        self._others = [lane for lane in LANES if lane != "urgent"]
        self._last_pick = dict.fromkeys(self._others, 0)
        self._picks = 0

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def __iter__(self) -> Iterator[W]:
        for queue in self._queues.values():
            yield from queue

    def add(self, works: Iterable[W]) -> None:
        """At the end of their lanes."""
        for work in works:
            self._queues[work.lane].append(work)

    def put_back(self, works: Iterable[W]) -> None:
        """At the front of their lanes, in the order given: they were picked, and could not go yet."""
        for work in reversed(list(works)):
            self._queues[work.lane].appendleft(work)

    def urgent(self) -> W | None:
        """The next of the urgent ones."""
        queue = self._queues["urgent"]
        return queue.popleft() if queue else None

    def other(self) -> W | None:
        """The next of those that are not urgent."""
        waiting = [lane for lane in self._others if self._queues[lane]]
        if not waiting:
            return None
        self._picks += 1
        floor = self._picks % FLOOR_EVERY == 0
        lane = min(waiting, key=lambda name: self._last_pick[name]) if floor else waiting[0]
        self._last_pick[lane] = self._picks
        return self._queues[lane].popleft()

    def clear(self) -> list[W]:
        """Take everything out."""
        taken = list(self)
        for queue in self._queues.values():
            queue.clear()
        return taken
