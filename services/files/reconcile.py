"""What lies in S3 against what the streams say, both ways.

The streams and not the read model are held against S3: they are what the service decides by, and the read model follows
them. What is younger than a cut-off is left alone: it may be on its way. Mending is one more look, which decides as any
other does; what nobody can decide (a key that is no file's) is told and never touched.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from services.files.domain.commands import Look
from services.files.domain.decisions import Decision, decide
from services.files.domain.file import File
from services.files.domain.names import file_of
from services.files.domain.scans import VALIDATION_KEY
from services.files.handlers import Files
from services.files.ports import Listed
from services.files.streams import KEPT, Held, hold
from services.kit.errors import TransientError

PAGE: Final = 500

Kind = Literal["orphaned", "missing", "mismatched", "unreadable"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it must be.

    Attributes:
        kind: `orphaned`: something under a key that no file has; `missing`: a file whose version is not in S3;
            `mismatched`: versions, markers or tags that a look would change; `unreadable`: a stream that this build
            cannot read, or an object that S3 does not show.
        mended: whether a look has put it right.
    """

    kind: Kind
    key: str
    file_id: str | None
    detail: str
    mended: bool = False


@dataclass(frozen=True, slots=True)
class Reconciling:
    """One run. `seen` is told after each key and each file, for progress."""

    files: Files
    cut_off: datetime
    fix: bool
    seen: Callable[[], None]

    async def run(self) -> AsyncIterator[Finding]:
        """Everything that differs, first by what lies in S3, then by what should. Raises TransientError."""
        found: set[str] = set()
        async for listed in self.files.objects.everything():
            found.add(listed.key)
            if listed.newest_at < self.cut_off and (finding := await self._safely(listed)) is not None:
                yield finding
            self.seen()
        after: str | None = None
        while True:
            streams = await self.files.streams.store.list_by_lookup(KEPT, after, PAGE)
            for stream in streams:
                held = hold(stream)
                if isinstance(held, Held) and (finding := await self._of_file(held, found)) is not None:
                    yield finding
                self.seen()
            if len(streams) < PAGE:
                return
            after = streams[-1].stream_id

    async def _safely(self, listed: Listed) -> Finding | None:
        """One object that S3 does not show keeps nobody from looking at the others."""
        try:
            return await self._of_key(listed)
        except TransientError as error:
            return Finding("unreadable", listed.key, file_of(listed.key), str(error))

    async def _of_key(self, listed: Listed) -> Finding | None:
        if listed.key == VALIDATION_KEY:
            return None
        file_id = file_of(listed.key)
        if file_id is None:
            return Finding("orphaned", listed.key, None, "its key is none that Mailroom gives out")
        held = hold(await self.files.streams.store.load(file_id))
        if not isinstance(held, Held):
            return Finding("unreadable", listed.key, file_id, held.detail)
        if not isinstance(held.state, File) or held.state.request.key != listed.key:
            return Finding("orphaned", listed.key, file_id, "no file was ever to lie under this key")
        if held.state.requested_at >= self.cut_off:
            return None
        return await self._looked_at(held, "mismatched")

    async def _of_file(self, held: Held, found: set[str]) -> Finding | None:
        file = held.file
        if file.request.key in found or file.verified is None or file.verified.at >= self.cut_off:
            return None  # what is there was looked at, or may be on its way
        return await self._looked_at(held, "missing")

    async def _looked_at(self, held: Held, kind: Kind) -> Finding | None:
        """What a look would change, and with `fix` has changed. A file whose upload is not over is left to itself."""
        file = held.file
        if file.phase == "uploading" and not self._is_over(file):
            return None
        seen = await self.files.see(file)
        decision = decide(file, Look(seen, "sweeper"), self.files.clock.now(), self.files.streams.policy)
        detail = _told(decision)
        if not detail:
            return None
        if self.fix:
            await self.files.look(held.file_id, lambda seen: Look(seen, "sweeper"))
        return Finding(kind, file.request.key, held.file_id, detail, mended=self.fix)

    def _is_over(self, file: File) -> bool:
        return self.files.clock.now() >= file.request.expires_at + self.files.streams.policy.upload_grace


def _told(decision: Decision) -> str:
    """What a decision would do, in words; "" = nothing. That the upload is closed is no difference."""
    drafts = [type(each.data).__name__.removeprefix("File") for each in decision.drafts]
    words = [each for each in drafts if each != "UploadClosed"]
    if decision.foreign:
        words.append(f"{decision.foreign} foreign version(s) deleted")
    if decision.public is not None:
        words.append("tag `public` set right")
    return ", ".join(words)
