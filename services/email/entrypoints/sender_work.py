"""What the sender's stages hand to one another: messages at hand, waves of attempts, and the places for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from services.email.domain.commands import PlannedAttempt
from services.email.domain.content import MessageContent
from services.email.domain.outcomes import Outcome
from services.email.ports import ContentKey, OutgoingMail
from services.email.streams import Held
from services.kit.event_store.due import LEASE_FOR

Attached = tuple[str, str, bytes]
"""An attachment's name, type and bytes."""

SMALL_BYTES = 1_000_000
"""Of a mail with its attachments: smaller ones do not wait in the line of larger ones."""

SMALL_SHARE = 5
"""One part in so many of `Limits.bytes_in_hand` is the small ones'."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long and how many; seconds.

    Attributes:
        concurrency: attempts of this process that are recorded and not yet answered, at most.
        licence: how long after its append was begun an attempt may still be called.
        call: how long one call may take. `licence` + `call` must end before `Policy.call_window` does.
        flush: how long the answers of a wave wait for the slowest of them.
        gather: how long the first answer waits for others, to be written with them.
        lease: for how long messages at hand are leased; renewed every third of it.
        attachment_bytes: bytes of all attachments of a mail that has some by `fileId`; the others' were counted when
            they came.
        bytes_in_hand: bytes of contents and attachments of large mail that are in memory at once; a single mail may
            have more. What is made of them takes about six times as much.
    """

    concurrency: int = 32
    licence: float = 5.0
    call: float = 15.0
    flush: float = 0.25
    gather: float = 0.002
    lease: timedelta = LEASE_FOR
    attachment_bytes: int = 10_000_000
    bytes_in_hand: int = 50_000_000


@dataclass(slots=True, eq=False)
class Work:
    """A message that this process has leased.

    Attributes:
        mail: built once, when its content is at hand.
        weight: bytes of what is fetched for it apart from the turns; 0 where nothing is.
        refusal: why it can never be sent, where that was found out before its turn.
        unreadable: recipients of whom nobody can tell here whether they are suppressed: left alone while it is held.
    """

    held: Held
    lane: str
    content: MessageContent | None = None
    mail: OutgoingMail | None = None
    weight: int = 0
    refusal: str | None = None
    unreadable: frozenset[str] = frozenset()

    def forget(self) -> None:
        """Nothing more is done with it here. Its bytes go now, whoever still has the work in hand: a worker that waits
        for another call has its last one.
        """
        self.mail = self.content = None

    @property
    def content_key(self) -> ContentKey | None:
        """Where its content lies; None where it never had any."""
        ref = self.held.message.request.content
        return None if ref is None else ContentKey(self.held.message_id, ref.ref)

    @property
    def content_bytes(self) -> int:
        """How large its content is; 0 where it has none."""
        ref = self.held.message.request.content
        return 0 if ref is None else ref.size

    def file_keys(self) -> list[ContentKey]:
        """Where the attachments lie that are not in the content itself."""
        files = self.content.attachments if self.content else ()
        return [ContentKey(self.held.message_id, file.ref) for file in files if file.ref is not None]

    def file_ids(self) -> list[str]:
        """The attachments that the files service keeps; known without the content."""
        files = self.held.message.request.attachments or ()
        return [file.file_id for file in files if file.file_id is not None]

    @property
    def stored_bytes(self) -> int:
        """How large its content is, and the attachments that are stored with the message."""
        files = self.held.message.request.attachments or ()
        return self.content_bytes + sum(file.size or 0 for file in files if file.ref is not None)

    def build(
        self, files: Mapping[ContentKey, bytes], attached: Mapping[str, Attached], date: datetime
    ) -> OutgoingMail | None:
        """What is handed to a provider, of attachments stored with the message and of files by their id; None where a
        stored one is gone.
        """
        assert self.content is not None  # noqa: S101 - loaded before
        parts: list[Attached] = []
        for file in self.content.attachments:
            if file.file_id is not None:
                parts.append(attached[file.file_id])
                continue
            data = file.content if file.ref is None else files.get(ContentKey(self.held.message_id, file.ref))
            if data is None:
                return None
            parts.append((file.filename, file.content_type, data))
        request = self.held.message.request
        return OutgoingMail(
            message_id=request.message_id,
            from_=request.from_,
            to=tuple(request.to),
            cc=tuple(request.cc or ()),
            reply_to=request.reply_to,
            subject=request.subject,
            category=request.category,
            user_id=request.user_id,
            list_id=request.list_id,
            date=date,
            content=self.content,
            files=tuple(parts),
            tags=request.tags or {},
        )


@dataclass(frozen=True, slots=True)
class Counted:
    """In which limit of a day recipients were counted, and in which day."""

    key: str
    day: date


@dataclass(slots=True, eq=False)
class Wave:
    """Attempts that were licensed by one append.

    Attributes:
        begun: when that append was begun, on the monotonic clock.
        counted: the limits of a day in which each of the attempts counts.
        failures: how often in a row its answers could not be written down.
        retry_at: not tried again before this, on the monotonic clock.
    """

    work: Work
    begun: float
    attempts: tuple[PlannedAttempt, ...]
    counted: tuple[Counted, ...] = ()
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    recorded: set[str] = field(default_factory=set)
    first_answer_at: float | None = None
    failures: int = 0
    retry_at: float = float("-inf")

    @property
    def mail(self) -> OutgoingMail:
        """What is handed to a provider; until the wave is over."""
        assert self.work.mail is not None  # noqa: S101 - built before it was licensed
        return self.work.mail

    @property
    def unrecorded(self) -> dict[str, Outcome]:
        """Answers that are not written down yet."""
        return {name: outcome for name, outcome in self.outcomes.items() if name not in self.recorded}

    @property
    def answered(self) -> bool:
        """Whether every attempt has an answer."""
        return len(self.outcomes) == len(self.attempts)

    @property
    def over(self) -> bool:
        """Whether every answer is written down."""
        return len(self.recorded) == len(self.attempts)


class Room:
    """Bytes that large mails may have in memory together; see `Limits.bytes_in_hand`."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._held: dict[Work, int] = {}
        self._freed = asyncio.Event()

    @property
    def taken(self) -> int:
        """Bytes that are in hand."""
        return sum(self._held.values())

    async def take(self, work: Work) -> None:
        """Wait until there is room for its weight; alone where it is larger than all of the room. From one task."""
        while self._held and self.taken + work.weight > self.limit:
            self._freed.clear()
            await self._freed.wait()
        self._held[work] = work.weight

    def give_back(self, work: Work) -> None:
        """It is not in hand any more. Doing it twice, or for one that has none, changes nothing."""
        if self._held.pop(work, None) is not None:
            self._freed.set()


class Places:
    """The open attempts of this process: a place is taken before an attempt is recorded, given back when answered."""

    def __init__(self, limit: int, freed: Callable[[], None]) -> None:
        """`freed` is told when there is room again."""
        self.limit = limit
        self.taken = 0
        self._reserved = 0
        self._freed = freed

    @property
    def free(self) -> int:
        """How many more attempts may be recorded."""
        return self.limit - self.taken - self._reserved

    def reserve(self, count: int) -> None:
        """Keep `count`, of which there are enough, for attempts that are being prepared."""
        assert count <= self.free, "more attempts than places"  # noqa: S101
        self._reserved += count

    def release(self, count: int) -> None:
        """Of the reserved ones, these were not needed. Nobody is told: whoever reserved them looks again anyway."""
        self._reserved -= count

    def take(self, count: int) -> None:
        """Take `count` of the reserved ones."""
        assert count <= self._reserved, "more attempts than places"  # noqa: S101
        self._reserved -= count
        self.taken += count

    def give_back(self, count: int) -> None:
        """They are answered, or were never recorded."""
        self.taken -= count
        self._freed()
