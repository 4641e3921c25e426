"""Contents that nobody needs: named by no stream, of category auth when all is over, or beyond their retention.

What a stream names is kept for its category's retention, which begins when its mail is over: now, or when it expires
where it may still be sent. Bodies that the HTTP door sealed for a command that no intake
has taken yet are named by nobody, and still needed: they stay as long as Kafka keeps commands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

from contracts.topics import COMMANDS_LOW
from services.email.domain.message import Message, is_live
from services.email.ports import ContentKey, ContentStore, ReviewedTo, StoredContent
from services.email.streams import Held, MessageStreams
from services.kit.clock import Clock
from services.kit.errors import PermanentError, TransientError
from services.kit.event_store.waiting import first_of
from services.kit.health import Progress
from services.kit.logs import get_logger

log = get_logger(__name__)

UNNAMED_FOR = timedelta(hours=1)
"""How long an intake may take from storing content to naming it, many times over."""

COMMANDS_KEPT = timedelta(days=3)
assert COMMANDS_LOW.retention_ms == COMMANDS_KEPT / timedelta(milliseconds=1)  # noqa: S101 - the two are one rule

AUTH_SETTLES_IN = timedelta(seconds=30)
"""Younger auth content is the sender's own business: it deletes what it ends."""

EVERY_SECONDS = 30.0
BATCH = 500
PAGES = 20
"""Of so many contents, at most, in one sweep: then the others have their turn, and this one goes on from there."""


class Sweeper:
    """Run as a `LoopComponent`. Several at once are harmless."""

    def __init__(self, streams: MessageStreams, contents: ContentStore, clock: Clock, progress: Progress) -> None:
        self._streams, self._contents, self._clock, self._progress = streams, contents, clock, progress
        self._unnamed_to: ReviewedTo | None = None
        self._auth_to: ReviewedTo | None = None

    async def run(self, stopping: asyncio.Event) -> None:
        """Sweep until told to stop."""
        while not stopping.is_set():
            more, trouble = False, ""
            for sweep in (self.sweep_unnamed, self.sweep_auth, self.sweep_ended):
                try:
                    more |= await sweep()
                except TransientError as error:
                    trouble = str(error)
            if trouble:
                self._progress.waiting(trouble)
            else:
                self._progress.progressed()
            await first_of(self._clock, 0.1 if more else EVERY_SECONDS, stopping)

    async def sweep_unnamed(self) -> bool:
        """Keep what a stream names, delete what is of no use; whether there is more to look at. Raises TransientError.

        What has to stay for now is walked past, however much of it there is; after the last one it begins anew.
        """
        before = self._clock.now() - UNNAMED_FOR
        for _ in range(PAGES):
            found = await self._contents.to_review(before, BATCH, after=self._unnamed_to)
            self._unnamed_to = ReviewedTo.past(self._unnamed_to, found) if len(found) == BATCH else None
            if await self._sweep_unnamed(found, before) or self._unnamed_to is None:
                break
        return self._unnamed_to is not None

    async def _sweep_unnamed(self, found: Sequence[StoredContent], before: datetime) -> bool:
        """Whether anything was kept or deleted."""
        now = self._clock.now()
        named: dict[ContentKey, datetime] = {}
        useless: list[ContentKey] = []
        for content, held in await self._with_messages(found):
            if isinstance(held, PermanentError):
                continue  # nobody can tell: it waits
            if isinstance(held.state, Message):
                if content.key.ref in _refs(held.state):
                    named[content.key] = _over_at(held.state, now)
                else:
                    useless.append(content.key)
            elif content.kind == "message" or content.touched_at < now - COMMANDS_KEPT - UNNAMED_FOR:
                useless.append(content.key)
        await self._contents.keep(named)
        gone = await self._contents.discard(useless, before) if useless else 0
        if gone:
            log.info("contents swept", deleted=gone, kept=len(named))
        return bool(named or gone)

    async def sweep_auth(self) -> bool:
        """Delete auth content of messages that are over; whether there is more to look at. Raises TransientError.

        Walks past what has to stay, as `sweep_unnamed` does.
        """
        before = self._clock.now() - AUTH_SETTLES_IN
        for _ in range(PAGES):
            found = await self._contents.to_review(before, BATCH, categories=["auth"], after=self._auth_to)
            self._auth_to = ReviewedTo.past(self._auth_to, found) if len(found) == BATCH else None
            over = {
                held.message_id
                for _, held in await self._with_messages(found)
                if isinstance(held, Held) and isinstance(held.state, Message) and not is_live(held.state)
            }
            await self._contents.delete_messages(sorted(over))
            if over or self._auth_to is None:
                break
        return self._auth_to is not None

    async def sweep_ended(self) -> bool:
        """Delete what has outlived its retention; whether there is more. Raises TransientError."""
        return await self._contents.end_retention(BATCH) == BATCH

    async def _with_messages(self, found: Sequence[StoredContent]) -> list[tuple[StoredContent, Held | PermanentError]]:
        messages = await self._streams.load_many({content.key.message_id for content in found}) if found else {}
        return [(content, messages[content.key.message_id]) for content in found]


def _over_at(state: Message, now: datetime) -> datetime:
    """From when on nothing of it can be sent any more."""
    return max(now, state.request.expires_at) if is_live(state) else now


def _refs(state: Message) -> set[str]:
    """The contents that a message names."""
    request = state.request
    attachments = {info.ref for info in request.attachments or () if info.ref is not None}
    return attachments | ({request.content.ref} if request.content else set())
