"""What entrypoints ask of files. Everything that changes an object or a file's stream goes through here.

Every function is safe to repeat, and returns only after what it decided is acknowledged by a majority. It reads the
stream, looks at S3, decides, changes in S3 what can be undone, appends, and then deletes what the decision gives up;
where somebody else appended meanwhile it begins again, and has destroyed nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from contracts.files.events import FileUploadRequested
from services.files.domain.commands import Command, Look, Remove, Request, Update
from services.files.domain.decisions import Decision, decide
from services.files.domain.file import Absent, File, State
from services.files.domain.names import folder_of
from services.files.domain.parts import is_of_parts
from services.files.domain.seen import Seen, as_told, wanted
from services.files.ports import REFUSED_SECONDS, Checkpoints, ChecksumOf, Objects
from services.files.quotas import UploadQuotas
from services.files.streams import FileStreams, Held
from services.kit import metrics as m
from services.kit.clock import Clock
from services.kit.errors import MailroomError, PermanentError, RefusedHere, TransientError, Unavailable
from services.kit.event_store.port import is_race
from services.kit.logs import get_logger
from services.kit.metrics import Metrics

log = get_logger(__name__)

TRIES = 8
"""How often a lost race is run again before it is somebody else's turn."""

LOOKS = 3
"""How often S3 is looked at again where an object went away between two calls."""

LOOKS_TO_CLOSE = 4
"""After so many, one after the other, nothing is left to do: one ends the upload or the lifetime, one deletes what is
foreign, one closes; one more for what comes between.
"""

TOGETHER = 100
"""Files that are deleted by one call to S3 and one append: so many markers may lie there untold for a moment."""

AT_ONCE = 16
"""Files of a batch that are worked on one by one at the same time."""

Decide = Callable[[Seen], Command]


@dataclass(frozen=True, slots=True)
class Files:
    """See the module."""

    streams: FileStreams
    objects: Objects
    clock: Clock
    metrics: Metrics
    checkpoints: Checkpoints
    quotas: UploadQuotas = field(default_factory=UploadQuotas)

    async def request(
        self,
        file_id: str,
        request: FileUploadRequested,
        *,
        actor: str | None,
        correlation: str | None = None,
        traceparent: str | None = None,
    ) -> Held:
        """Record that somebody may upload. Asked again with the same content, the file comes back as it stands.

        Raises PermanentError `conflictingRepeat`, TransientError.
        """
        for _ in range(TRIES):
            held = await self.streams.load(file_id)
            decision = decide(held.state, Request(request, actor=actor), self.clock.now(), self.streams.policy)
            result = await self.streams.append(
                held, decision.drafts, correlation=correlation, traceparent=traceparent
            )  # fmt: skip
            if not is_race(result):
                return _confirmed(result)
        raise TransientError("others keep writing to this file")

    async def update(self, file_id: str, change: Update) -> Held:
        """Change what people see of a file. Raises PermanentError `notFound`, `ended`, `notRecognised`;
        TransientError.
        """
        return await self._change(file_id, lambda _: change, looks=False)

    async def look(self, file_id: str, command: Decide) -> Held:
        """Look at what S3 has under the file's key, and decide `command` of it.

        An unknown file comes back as it is where the command is a `Look`. Raises PermanentError `notFound`,
        `notDeleted`, `unrecoverable`; TransientError; RefusedHere `otherBucket`.
        """
        return await self._change(file_id, command, looks=True)

    async def remove_many(self, files: Sequence[Held], remove: Callable[[File], Remove]) -> list[Held | MailroomError]:
        """Delete files that lie in S3 as their streams say without looking at each: a call to S3 and one to the store
        for up to `TOGETHER` of them. What happened to one meanwhile, S3 tells of by itself, and the look that follows
        puts it right. All others (uploads under way, public ones, those that somebody else writes to) go one by one.
        The results are in the order of `files`.
        """
        results: list[Held | MailroomError] = list(files)
        places = asyncio.Semaphore(AT_ONCE)

        async def one(n: int) -> None:
            async with places:
                try:
                    asked = remove(files[n].file)
                    results[n] = await self.look(files[n].file_id, lambda seen: replace(asked, seen=seen))
                except MailroomError as error:
                    results[n] = error

        apart = [n for n, held in enumerate(files) if not self._lies_as_told(held.file)]
        together = sorted(set(range(len(files))) - set(apart))
        for start in range(0, len(together), TOGETHER):
            those = together[start : start + TOGETHER]
            try:
                done = await self._remove_together([files[n] for n in those], remove)
            except MailroomError as error:
                done = [error] * len(those)
            for n, result in zip(those, done, strict=True):
                results[n] = result
                if isinstance(result, MailroomError) and is_race(result):
                    apart.append(n)
        await asyncio.gather(*(one(n) for n in apart))
        return results

    def _lies_as_told(self, file: File) -> bool:
        """Whether a deletion needs no look: there is a verified version to hide, and nobody can read it by its tag."""
        request = file.request
        return file.phase == "completed" and not file.is_public and request.bucket == self.objects.bucket

    async def _remove_together(
        self, files: Sequence[Held], remove: Callable[[File], Remove]
    ) -> list[Held | MailroomError]:
        """Hide all, then append: as for one, a crash between the two leaves markers, of which S3 tells."""
        now, policy = self.clock.now(), self.streams.policy
        decided: list[tuple[Held, Remove, Decision]] = []
        for held in files:
            asked = replace(remove(held.file), seen=as_told(held.file))
            decided.append((held, asked, decide(held.state, asked, now, policy)))
        refused = await self.objects.mark_all([held.file.request.key for held in files])
        self.checkpoints.reach("files.append")
        hidden = [each for each in decided if each[0].file.request.key not in refused]
        told = await self.streams.append_many([(held, decision.drafts) for held, _, decision in hidden])
        self.checkpoints.reach("files.appended")
        results: dict[str, Held | MailroomError] = {}
        for (held, asked, decision), result in zip(hidden, told, strict=True):
            results[held.file_id] = result
            if isinstance(result, Held):
                self._count(result.state, decision, asked)
        away = Unavailable("S3", "did not hide the file", retry_after=REFUSED_SECONDS)
        return [results.get(held.file_id, away) for held in files]

    async def _change(self, file_id: str, command: Decide, *, looks: bool) -> Held:
        for _ in range(TRIES):
            held = await self.streams.load(file_id)
            seen = await self.see(held.state) if looks and isinstance(held.state, File) else Seen()
            asked = command(seen)
            decision = decide(held.state, asked, self.clock.now(), self.streams.policy)
            if isinstance(held.state, Absent):
                return held
            key = held.file.request.key
            await self._before(key, decision)
            self.checkpoints.reach("files.append")
            result = await self.streams.append(held, decision.drafts)
            self.checkpoints.reach("files.appended")
            if is_race(result):
                continue
            changed = _confirmed(result)
            if held.file.phase == "uploading" and changed.file.phase != "uploading":
                await self.quotas.end(file_id, changed.file)
            await self._after(key, decision)
            self._count(changed.state, decision, asked)
            return changed
        raise TransientError("others keep writing to this file")

    # --- S3 ---

    async def see(self, state: File) -> Seen:
        """What S3 shows of the key now, with the version that matters. Raises TransientError; RefusedHere for a file
        that was asked for while AWS_S3_BUCKET named another bucket.
        """
        if state.request.bucket != self.objects.bucket:
            # Looking into another one would find the file gone.
            raise RefusedHere("otherBucket", f"the file lies in bucket {state.request.bucket}, not where this looks")
        key, uploading = state.request.key, state.verified is None
        for _ in range(LOOKS):
            versions = await self.objects.versions(key)
            chosen = wanted(state, versions)
            if chosen is None:
                return Seen(versions)
            checksum = _checksum_of(state) if uploading else None
            found = await self.objects.inspect(key, chosen, sniff=uploading, checksum=checksum)
            if found is not None:
                return Seen(versions, found)
        raise TransientError("S3: the object comes and goes while it is looked at")

    async def _before(self, key: str, decision: Decision) -> None:
        if decision.abort:
            await self._abort_uploads(key)
        if decision.unmark:
            await self.objects.delete(key, decision.unmark)
        if decision.public is not None:
            await self.objects.tag_public(key, *decision.public)
        if decision.verified is not None:
            await self.objects.tag_verified(key, decision.verified)
        if decision.mark:
            await self.objects.mark(key)

    async def _abort_uploads(self, key: str) -> None:
        """Abort every multipart upload of the file, under whatever nonce.

        The stream names one. S3 has others where it began an upload and the answer was lost: the AWS client then begins
        one more under the same key, and a caller that repeats its request one under another nonce. Nobody knows their
        ids, so nobody can add parts to them or complete them.
        """
        uploads = [each async for each in self.objects.multiparts(folder_of(key))]
        for each in uploads:
            await self.objects.abort_multipart(each.key, each.upload_id)
        if uploads:
            log.info("multipart uploads aborted", count=len(uploads))

    async def _after(self, key: str, decision: Decision) -> None:
        if decision.delete:
            await self.objects.delete(key, decision.delete)

    def _count(self, state: State, decision: Decision, asked: Command) -> None:
        if decision.foreign and isinstance(state, File):
            self.metrics.inc(m.FOREIGN_VERSIONS, decision.foreign)
            log.warning("versions that nobody verified were deleted", count=decision.foreign)
        for draft in decision.drafts:
            self.metrics.inc(m.FILE_DECISIONS, type=type(draft.data).__name__.removeprefix("File"))
        if isinstance(asked, Look) and decision.drafts:
            log.info("decided after a look", by=asked.by, count=len(decision.drafts))


def _checksum_of(state: File) -> ChecksumOf | None:
    wanted = state.request.metadata.checksum
    if wanted is None:
        return None
    return "parts" if is_of_parts(wanted) else "whole"


def _confirmed(result: Held | MailroomError) -> Held:
    if isinstance(result, PermanentError | TransientError):
        raise result
    assert isinstance(result, Held)  # noqa: S101 - races were dealt with
    return result
