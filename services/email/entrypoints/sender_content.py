"""Getting the mails of a turn ready: each by itself, so that one whose content cannot be had holds up no other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from services.email.domain.content import MessageContent
from services.email.entrypoints.sender_work import Work
from services.email.ports import ContentKey, ContentStore
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


@dataclass(slots=True)
class Unready:
    """What is not ready to be sent.

    Attributes:
        gone: their content is not stored any more.
        late: their content is stored and cannot be had now: nobody's fault but the store's.
        seconds: when to try the late ones again.
    """

    gone: list[Work] = field(default_factory=list)
    late: list[Work] = field(default_factory=list)
    seconds: float = SHORTEST_WAIT


class ContentLoader:
    """Reads contents and attachments and builds `Work.mail`."""

    def __init__(self, contents: ContentStore, clock: Clock, metrics: Metrics) -> None:
        self._contents, self._clock, self._metrics = contents, clock, metrics
        self._logged_at = float("-inf")

    async def read_ahead(self, works: Sequence[Work]) -> None:
        """Give those whose content is small (at most `AHEAD_BYTES`) their content, so that their turn need not wait for
        it. What cannot be had now is `load`'s business.
        """
        small = [work for work in works if work.content is None and work.content_bytes <= AHEAD_BYTES]
        with suppress(MailroomError):
            await self._read(small)

    async def load(self, works: Sequence[Work]) -> Unready:
        """Give each its mail, but for those that it returns. Raises TransientError when nothing at all can be read."""
        building = [work for work in works if work.mail is None]
        found = await self._read([work for work in building if work.content is None])
        files = await self._get([key for work in building for key in work.file_keys()])
        errors = {
            key.message_id: error for key, error in {**found, **files}.items() if isinstance(error, TransientError)
        }
        stored = {key: data for key, data in files.items() if isinstance(data, bytes)}
        unready = Unready()
        for work in building:
            if work.held.message_id in errors:
                unready.late.append(work)
            elif work.content is None or (mail := work.build(stored, self._clock.now())) is None:
                unready.gone.append(work)
            else:
                work.mail = mail
        if errors:
            self._note(list(errors.values()), unready)
        return unready

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

    def _note(self, errors: Sequence[TransientError], unready: Unready) -> None:
        asked = max(error.retry_after or 0.0 for error in errors)
        unready.seconds = min(LONGEST_WAIT, max(SHORTEST_WAIT, asked))
        self._metrics.inc(m.CONTENT_WAITS, len(unready.late))
        now = self._clock.monotonic()
        if now - self._logged_at >= LOG_EVERY:
            self._logged_at = now
            log.warning(
                "mail waits for its content",
                mails=len(unready.late),
                error=str(errors[0]),
                seconds=round(unready.seconds, 1),
            )


def _content(raw: bytes) -> MessageContent | None:
    try:
        return MessageContent.from_bytes(raw)
    except PermanentError:
        return None
