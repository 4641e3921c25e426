"""The files service hears facts like anyone else: each makes it look at S3, and decide what it finds there.

What a notification says is never believed: it may be late, doubled, or about a version that is gone. Settling something
settled does nothing, so a batch may come again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from contracts.envelope import Envelope
from contracts.files.events import FileObjectExpired, FileScanned
from contracts.files.values import ScanResult
from services.files.domain.commands import Command, Look
from services.files.domain.file import File
from services.files.domain.seen import Seen
from services.files.handlers import Files
from services.kit.errors import MailroomError, PermanentError, RefusedHere
from services.kit.kafka.codec import decode
from services.kit.kafka.records import DONE, Outcome, Park, Record, Retry
from services.kit.logs import get_logger

log = get_logger(__name__)

AT_ONCE: Final = 8
"""Files of a batch that are looked at at the same time."""

LOOKED_AT: Final = frozenset(
    {
        "file.objectCreated",
        "file.objectRemoved",
        "file.deleteMarkerCreated",
        "file.objectExpired",
        "file.objectTagged",
        "file.scanned",
    }
)
"""Facts from which a decision may follow."""

_MARKED: Final = "file.deleteMarkerCreated"


class Settler:
    """Batch handler of the group that reads `files.events`."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._places = asyncio.Semaphore(AT_ONCE)

    async def __call__(self, records: Sequence[Record]) -> Sequence[Outcome]:
        """One outcome a record, in order. All facts of one file in a batch are one look."""
        outcomes: list[Outcome] = [DONE] * len(records)
        by_file: dict[str, list[tuple[int, Envelope]]] = {}
        for n, record in enumerate(records):
            try:
                event = decode(record)
            except PermanentError as error:
                outcomes[n] = Park(error.reason, kind="poison", detail=error.detail)
                continue
            if event.type in LOOKED_AT:
                by_file.setdefault(event.subject, []).append((n, event))
        results = await asyncio.gather(*(self._settle(name, found) for name, found in by_file.items()))
        for found, outcome in zip(by_file.values(), results, strict=True):
            for n, _ in found:
                outcomes[n] = outcome
        return outcomes

    async def _settle(self, file_id: str, found: Sequence[tuple[int, Envelope]]) -> Outcome:
        facts = [event for _, event in found]
        async with self._places:
            try:
                if all(fact.type == _MARKED for fact in facts) and await self._is_hidden(file_id):
                    return DONE
                await self._files.look(file_id, lambda seen: _command(facts, seen))
            except RefusedHere as error:
                return Park(error.reason, kind="poison", detail=error.detail)
            except PermanentError as error:
                return Park(error.reason, kind="bug", detail=error.detail, error=error)
            except MailroomError as error:
                return Retry(error)
        return DONE

    async def _is_hidden(self, file_id: str) -> bool:
        """Whether a marker is no news: the file is deleted. What else happened to its versions has facts of its own."""
        state = (await self._files.streams.load(file_id)).state
        return isinstance(state, File) and state.phase == "deleted"


def _command(facts: Sequence[Envelope], seen: Seen) -> Command:
    expired = any(isinstance(fact.data, FileObjectExpired) for fact in facts)
    return Look(
        seen,
        "notification",
        removal="lifecycle" if expired else "admin",
        scan=_scan(facts, seen),
        cause=facts[-1].id,
    )


def _scan(facts: Sequence[Envelope], seen: Seen) -> ScanResult | None:
    """The latest word on the scan of the version that was looked at."""
    if seen.inspected is None:
        return None
    version = seen.inspected.version_id
    words = [
        (fact.time, fact.data.result)
        for fact in facts
        if isinstance(fact.data, FileScanned) and fact.data.version_id == version
    ]
    return max(words)[1] if words else None
