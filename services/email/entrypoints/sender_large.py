"""Large mail, on its way to its turn: fetched apart from the turns, and never more of it in hand than memory allows.

What lies in S3 may take seconds to come, and as MIME, base64 and a request's body it takes several times its size. So
whoever needs it waits in a line of its own until there is room for its bytes, and has that room until its mail is over
or put off. Small files have a line and a room beside those of large ones: neither holds the other up, and no other
mail waits for either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from services.email.domain.lanes import Lanes
from services.email.entrypoints.sender_content import SHORTEST_WAIT, ContentLoader
from services.email.entrypoints.sender_work import Room, Work
from services.kit.errors import MailroomError
from services.kit.logs import get_logger

log = get_logger(__name__)

WAITING_AT_MOST = 16
"""Mails in a line, urgent ones aside: each holds a slot that other mail could have."""

PutOff = Callable[[Sequence[Work], float], Awaitable[None]]


class LargeMail:
    """One line of mails. First come, first served, urgent ones first; what is larger than the room goes alone."""

    def __init__(
        self,
        loader: ContentLoader,
        room: Room,
        ready: Callable[[Sequence[Work]], None],
        put_off: PutOff,
        refused_for: Callable[[], float],
    ) -> None:
        """`ready` takes mails whose turn may come; `refused_for`: seconds in which nothing would be sent anyway."""
        self._loader, self._room, self._ready, self._put_off = loader, room, ready, put_off
        self._refused_for = refused_for
        self._line: Lanes[Work] = Lanes()
        self._next: Work | None = None
        self._coming: set[Work] = set()
        self._news = asyncio.Event()

    def add(self, works: Sequence[Work]) -> list[Work]:
        """At the end of the line. Returns those for which it is too long."""
        turned_away: list[Work] = []
        for work in works:
            if work.lane == "urgent" or len(self._line) < WAITING_AT_MOST:
                self._line.add([work])
            else:
                turned_away.append(work)
        self._news.set()
        return turned_away

    def clear(self) -> list[Work]:
        """Everything that waits or is being fetched; for the end, after `run` was cancelled."""
        return [*self._line.clear(), *([self._next] if self._next else []), *self._coming]

    async def run(self) -> None:
        """For ever; to be cancelled. A bug ends it: see `Sender.health`."""
        async with asyncio.TaskGroup() as fetches:
            while True:
                self._news.clear()
                self._next = self._line.urgent() or self._line.other()
                if self._next is None:
                    await self._news.wait()
                    continue
                work = self._next
                await self._room.take(work)
                self._coming.add(work)
                self._next = None
                fetches.create_task(self._fetch(work))

    async def _fetch(self, work: Work) -> None:
        if (pause := self._refused_for()) > 0:
            await self._later(work, pause)
            return
        try:
            unready = await self._loader.load([work])
        except MailroomError as error:
            log.warning("large mail cannot be fetched", error=str(error))
            await self._later(work, SHORTEST_WAIT)
            return
        if unready.later:
            await self._later(work, min(unready.later))
            return
        work.refusal = unready.never.get(work)
        self._coming.discard(work)
        self._ready([work])

    async def _later(self, work: Work, seconds: float) -> None:
        self._coming.discard(work)
        await self._put_off([work], seconds)
