"""What lies in S3 against what the streams say, both ways.

The streams and not the read model are held against S3: they are what the service decides by, and the read model follows
them. What is younger than a cut-off is left alone: it may be on its way. Mending is one more look, which decides as any
other does; what nobody can decide (a key that is no file's) is told and never touched.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from services.files.domain.commands import Look
from services.files.domain.decisions import Decision, decide
from services.files.domain.file import File
from services.files.domain.names import file_of
from services.files.domain.scans import VALIDATION_KEY
from services.files.handlers import LOOKS_TO_CLOSE, Files
from services.files.ports import Listed, Multipart
from services.files.streams import KEPT, Held, hold
from services.kit.errors import PermanentError, RefusedHere, TransientError
from services.kit.event_store.port import Stream

PAGE: Final = 500

Kind = Literal["orphaned", "missing", "mismatched", "unreadable"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it must be.

    Attributes:
        kind: `orphaned`: something under a key that no file has, or an upload in parts that none names; `missing`: a
            file whose version is not in S3; `mismatched`: versions, markers or tags that a look would change;
            `unreadable`: a stream that this build cannot read, an object that S3 does not show, a file of another
            bucket.
        key: "" where only the stream is known, and cannot be read.
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
        """Everything that differs, first by what lies in S3, then by what should. Raises TransientError where S3 or the
        streams cannot be listed; trouble with one file keeps nobody from looking at the others.
        """
        found: set[str] = set()
        unreadable: set[str | None] = set()  # told once, though met on both ways
        async for listed in self.files.objects.everything():
            found.add(listed.key)
            if listed.newest_at < self.cut_off and (
                finding := await _readable(listed.key, file_of(listed.key), self._of_key(listed))
            ):
                if finding.kind == "unreadable":
                    unreadable.add(finding.file_id)
                yield finding
            self.seen()
        async for upload in self.files.objects.multiparts():
            file_id = file_of(upload.key)
            if upload.begun_at < self.cut_off and (
                finding := await _readable(upload.key, file_id, self._of_upload(upload, file_id))
            ):
                yield finding
        after: str | None = None
        while True:
            streams = await self.files.streams.store.list_by_lookup(KEPT, after, PAGE)
            for stream in streams:
                finding = await _readable("", stream.stream_id, self._of_stream(stream, found))
                if finding and finding.file_id not in unreadable:
                    yield finding
                self.seen()
            if len(streams) < PAGE:
                return
            after = streams[-1].stream_id

    async def _of_key(self, listed: Listed) -> Finding | None:
        if listed.key == VALIDATION_KEY:
            return None
        file_id = file_of(listed.key)
        if file_id is None:
            return Finding("orphaned", listed.key, None, "its key is none that Mailroom gives out")
        held = await self.files.streams.load(file_id)
        if not isinstance(held.state, File) or held.state.request.key != listed.key:
            return Finding("orphaned", listed.key, file_id, "no file was ever to lie under this key")
        if held.state.requested_at >= self.cut_off:
            return None
        return await self._looked_at(held, "mismatched")

    async def _of_upload(self, upload: Multipart, file_id: str | None) -> Finding | None:
        """One in parts that no file names is what a crash before the append leaves: its parts cost, and nobody can add
        to them.
        """
        if file_id is None:
            return Finding("orphaned", upload.key, None, "an upload in parts to a key that Mailroom never gives out")
        held = await self.files.streams.load(file_id)
        if isinstance(held.state, File) and held.state.request.upload_id == upload.upload_id:
            return None  # the sweeper gives it up in time
        if self.fix:
            await self.files.objects.abort_multipart(upload.key, upload.upload_id)
        return Finding("orphaned", upload.key, file_id, "an upload in parts that no file names", mended=self.fix)

    async def _of_stream(self, stream: Stream, found: set[str]) -> Finding | None:
        held = hold(stream)
        if isinstance(held, PermanentError):
            raise held
        file = held.file
        if file.request.key in found or file.verified is None or file.verified.at >= self.cut_off:
            return None  # what is there was looked at, or may be on its way
        return await self._looked_at(held, "missing")

    async def _looked_at(self, held: Held, kind: Kind) -> Finding | None:
        """What a look would change, and with `fix` has changed. A file whose upload is not over is left to itself."""
        file = held.file
        if file.phase == "uploading" and not self._is_over(file):
            return None
        detail = await self._differs(file)
        if not detail:
            return None
        return Finding(kind, file.request.key, held.file_id, detail, mended=self.fix and await self._mend(held.file_id))

    async def _mend(self, file_id: str) -> bool:
        """Look until a look finds nothing to do; whether one did."""
        for _ in range(LOOKS_TO_CLOSE):
            held = await self.files.look(file_id, lambda seen: Look(seen, "sweeper"))
            if not await self._differs(held.file):
                return True
        return False

    async def _differs(self, file: File) -> str:
        seen = await self.files.see(file)
        return _told(decide(file, Look(seen, "sweeper"), self.files.clock.now(), self.files.streams.policy))

    def _is_over(self, file: File) -> bool:
        return self.files.clock.now() >= file.request.expires_at + self.files.streams.policy.upload_grace


async def _readable(key: str, file_id: str | None, looked: Awaitable[Finding | None]) -> Finding | None:
    """What a look at one file found, or that it could not be taken."""
    try:
        return await looked
    except (TransientError, PermanentError, RefusedHere) as error:
        return Finding("unreadable", key, file_id, str(error))


def _told(decision: Decision) -> str:
    """What a decision would do, in words; "" = nothing. That the upload is closed is no difference."""
    drafts = [type(each.data).__name__.removeprefix("File") for each in decision.drafts]
    words = [each for each in drafts if each != "UploadClosed"]
    if decision.foreign:
        words.append(f"{decision.foreign} foreign version(s) deleted")
    if decision.public is not None:
        words.append("tag `public` set right")
    if decision.verified is not None:
        words.append("tag `verified` set right")
    return ", ".join(words)
