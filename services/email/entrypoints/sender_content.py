"""Getting the mails of a turn ready: each by itself, so that one that lacks its content or a file holds up no other."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from services.email.domain.content import MessageContent
from services.email.domain.files import Usable
from services.email.entrypoints.sender_files import AttachedFiles, gone
from services.email.entrypoints.sender_work import Attached, Work
from services.email.ports import ContentKey, ContentStore, MailProvider, OutgoingMail
from services.kit import metrics as m
from services.kit.clock import Clock
from services.kit.errors import MailroomError, PermanentError, TransientError
from services.kit.logs import get_logger
from services.kit.metrics import Metrics

log = get_logger(__name__)

SHORTEST_WAIT = 5.0
LONGEST_WAIT = 60.0
LOG_EVERY = 10.0
AHEAD_BYTES = 50_000
"""Of a content that is read before its mail's turn: some hundred of these wait at a time, and none of them in S3."""

LIGHT_BYTES = 200_000
"""Of a mail that is read in its turn: what is larger may lie in S3, and is fetched apart from the turns."""


@dataclass(slots=True)
class Unready:
    """What is not ready to be sent.

    Attributes:
        never: mails that cannot be sent for good, with why.
        later: seconds until another try → mails that lack something now, which is nobody's fault but the store's or the
            file's.
    """

    never: dict[Work, str] = field(default_factory=dict)
    later: dict[float, list[Work]] = field(default_factory=dict)


class ContentLoader:
    """Reads contents and attachments and builds `Work.mail`."""

    def __init__(
        self,
        contents: ContentStore,
        files: AttachedFiles,
        providers: Collection[MailProvider],
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._contents, self._files, self._clock, self._metrics = contents, files, clock, metrics
        self._providers = providers
        self._logged_at = float("-inf")

    async def weigh(self, works: Sequence[Work]) -> None:
        """Say of each how many bytes have to be fetched for it apart from the turns. Raises Unavailable."""
        attaching = [work for work in works if work.file_ids()]
        sizes = await self._files.sizes({file_id for work in attaching for file_id in work.file_ids()})
        for work in works:
            stored, file_ids = work.stored_bytes, work.file_ids()
            if file_ids or stored > LIGHT_BYTES:
                work.weight = stored + sum(sizes[file_id] for file_id in file_ids) or 1

    async def read_ahead(self, works: Sequence[Work]) -> None:
        """Give those whose content is small (at most `AHEAD_BYTES`) their content, so that their turn need not wait for
        it. What cannot be had now is `load`'s business.
        """
        small = [work for work in works if work.content is None and work.content_bytes <= AHEAD_BYTES]
        with suppress(MailroomError):
            await self._read(small)

    async def load(self, works: Sequence[Work]) -> Unready:
        """Give each its mail, but for those that it returns, which have none then. Files by `fileId` are looked up for
        all, those that have their mail from an earlier attempt too. Raises TransientError when nothing at all can be
        read.
        """
        refused = {work: work.refusal for work in works if work.refusal is not None}
        works = [work for work in works if work not in refused]
        found = await self._read([work for work in works if work.content is None])
        looked = await self._files.look([work for work in works if work.content is not None])
        unready = Unready(refused | looked.never, looked.waiting)
        for work in works:
            if looked.stops(work):
                work.mail = None
        self._metrics.inc(m.FILE_WAITS, sum(map(len, looked.waiting.values())))
        building = [work for work in works if work.mail is None and not looked.stops(work)]
        await self._build(building, looked.usable, _errors(found), unready)
        return unready

    async def _build(
        self, works: Sequence[Work], usable: Mapping[str, Usable], errors: dict[str, TransientError], unready: Unready
    ) -> None:
        """`errors`: message id → why its content cannot be had."""
        stored = await self._get([key for work in works for key in work.file_keys()])
        wanted = {file_id: usable[file_id] for work in works for file_id in work.file_ids()}
        read = await self._files.read(wanted)
        errors |= _errors(stored)
        ours = {key: data for key, data in stored.items() if isinstance(data, bytes)}
        late: list[Work] = []
        now = self._clock.now()
        for work in works:
            files = {file_id: read.get(file_id) for file_id in work.file_ids()}
            missing = next((file_id for file_id, data in files.items() if data is None), None)
            errors |= _errors({ContentKey(work.held.message_id, name): data for name, data in files.items()})
            if work.held.message_id in errors:
                late.append(work)
            elif missing is not None:
                unready.never[work] = gone(missing)
            elif work.content is None or (mail := work.build(ours, _attached(usable, files), now)) is None:
                unready.never[work] = "its content is not stored any more"
            elif (why_not := self._nobody_carries(mail)) is not None:
                unready.never[work] = why_not
            else:
                work.mail = mail
        if late:
            seconds = self._note(late, list(errors.values()))
            unready.later.setdefault(seconds, []).extend(late)

    def _nobody_carries(self, mail: OutgoingMail) -> str | None:
        """Why no provider takes it, as the last of them says."""
        found = [provider.cannot_carry(mail) for provider in self._providers]
        return found[-1] if all(found) else None

    async def _read(self, works: Sequence[Work]) -> Mapping[ContentKey, bytes | TransientError]:
        """Fill in `content` where it can be had now; what the store gave."""
        found = await self._get([work.content_key for work in works])
        for work in works:
            raw = None if work.content_key is None else found.get(work.content_key)
            if isinstance(raw, bytes):
                work.content = _content(raw)
        return found

    async def _get(self, keys: Sequence[ContentKey | None]) -> Mapping[ContentKey, bytes | TransientError]:
        wanted = [key for key in keys if key is not None]
        return await self._contents.get_many(wanted) if wanted else {}

    def _note(self, late: Sequence[Work], errors: Sequence[TransientError]) -> float:
        """Tell, and say when to try again."""
        asked = max(error.retry_after or 0.0 for error in errors)
        seconds = min(LONGEST_WAIT, max(SHORTEST_WAIT, asked))
        self._metrics.inc(m.CONTENT_WAITS, len(late))
        now = self._clock.monotonic()
        if now - self._logged_at >= LOG_EVERY:
            self._logged_at = now
            log.warning("mail waits for its content", mails=len(late), error=str(errors[0]), seconds=round(seconds, 1))
        return seconds


def _errors(found: Mapping[ContentKey, bytes | TransientError | None]) -> dict[str, TransientError]:
    """By message id."""
    return {key.message_id: error for key, error in found.items() if isinstance(error, TransientError)}


def _attached(usable: Mapping[str, Usable], files: Mapping[str, bytes | TransientError | None]) -> dict[str, Attached]:
    return {
        file_id: (usable[file_id].name, usable[file_id].content_type, data)
        for file_id, data in files.items()
        if isinstance(data, bytes)
    }


def _content(raw: bytes) -> MessageContent | None:
    try:
        return MessageContent.from_bytes(raw)
    except PermanentError:
        return None
