"""Fakes of the email service's ports, and a sender put together from them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from contracts.base import EventData
from contracts.email.commands import SendEmail
from contracts.email.events import EmailSendAttempted
from contracts.email.values import AttachmentInfo, Category, ContentRef
from contracts.recipients.events import SuppressionReason
from services.email.adapters.content import RETENTION
from services.email.domain.capabilities import Capabilities
from services.email.domain.commands import Command, Request
from services.email.domain.content import MessageContent, SealedBody
from services.email.domain.files import KnownFile, Usable, evolve
from services.email.domain.message import Policy
from services.email.domain.outcomes import Accepted, Cost, Rejected, Unknown
from services.email.domain.routing import Wishes
from services.email.domain.warm_up import Ramp
from services.email.entrypoints.sender import Sender
from services.email.entrypoints.sender_content import ContentLoader, Unready
from services.email.entrypoints.sender_daily import DailyLimits
from services.email.entrypoints.sender_files import AttachedFiles
from services.email.entrypoints.sender_work import Limits, Work
from services.email.ports import (
    Blocked,
    Board,
    Checkpoints,
    ContentKey,
    NewContent,
    NoCheckpoints,
    Order,
    OutgoingAttempt,
    OutgoingMail,
    Quota,
    Rendered,
    ReviewedTo,
    Shut,
    StoredContent,
    SuppressionQuery,
)
from services.email.streams import Held, MessageStreams, Step
from services.kit.addresses import RecipientKeys
from services.kit.clock import Clock, SystemClock, SystemIds
from services.kit.daily import DailyCounts, MemoryDailyCounts
from services.kit.errors import PermanentError, TransientError, Unavailable
from services.kit.event_store.memory import MemoryEventStore
from services.kit.event_store.port import Stream
from services.kit.metrics import Metrics
from services.kit.rate import MemoryRateLimits, RateBudget
from tests.unit.email_service.mail import COST, requested

Answer = Accepted | Rejected | Unknown
Behaviour = Callable[[OutgoingAttempt], Awaitable[Answer]]


class MemoryContents:
    """`ContentStore` in a dictionary.

    `away`: every call raises Unavailable. `large_away`: what is larger than `LARGE` cannot be read, and the error asks
    to come again in `retry_after`. `broken`: reading raises this.
    """

    LARGE = 200_000

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.kept: dict[ContentKey, tuple[StoredContent, bytes, bool]] = {}
        self.since: dict[ContentKey, datetime] = {}
        self.needed_until: dict[ContentKey, datetime | None] = {}
        self.reads: list[ContentKey] = []
        self.away = self.large_away = False
        self.retry_after: float | None = None
        self.broken: Exception | None = None

    async def put_many(self, items: Sequence[NewContent]) -> list[ContentRef]:
        self._answer()
        refs: list[ContentRef] = []
        for item in items:
            sha = hashlib.sha256(item.data).hexdigest()
            ref = ContentRef(ref=f"{item.kind}:{sha}", sha256=sha, size=len(item.data))
            key = ContentKey(item.message_id, ref.ref)
            kept = self.kept[key][2] if key in self.kept else False
            self.kept[key] = (StoredContent(key, item.category, item.kind, self._clock.now()), item.data, kept)
            self.needed_until[key] = item.needed_until
            refs.append(ref)
        return refs

    async def get_many(self, keys: Sequence[ContentKey]) -> dict[ContentKey, bytes | TransientError]:
        self._answer()
        if self.broken is not None:
            raise self.broken
        self.reads += keys
        return {key: self._read(self.kept[key][1]) for key in keys if key in self.kept}

    def bytes_of(self, key: ContentKey) -> bytes:
        """What is stored there."""
        return self.kept[key][1]

    def _read(self, data: bytes) -> bytes | TransientError:
        if self.large_away and len(data) > self.LARGE:
            return Unavailable("S3", "switched away", retry_after=self.retry_after)
        return data

    async def delete_messages(self, message_ids: Sequence[str]) -> None:
        self._answer()
        for key in [key for key in self.kept if key.message_id in message_ids]:
            del self.kept[key]
            self.since.pop(key, None)

    async def to_review(
        self,
        touched_before: datetime,
        limit: int,
        *,
        categories: Sequence[Category] | None = None,
        after: ReviewedTo | None = None,
    ) -> list[StoredContent]:
        self._answer()
        found = [
            stored
            for stored, _, kept in self.kept.values()
            if stored.touched_at < touched_before
            and ((not kept) if categories is None else stored.category in categories)
            and (after is None or (stored.touched_at >= after.touched_at and stored.key not in after.keys))
        ]
        return sorted(found, key=lambda stored: stored.touched_at)[:limit]

    async def keep(self, since: Mapping[ContentKey, datetime]) -> None:
        self._answer()
        for key, begin in since.items():
            if key in self.kept:
                stored, data, _ = self.kept[key]
                self.kept[key] = (stored, data, True)
                self.since[key] = begin

    async def end_retention(self, limit: int) -> int:
        self._answer()
        now = self._clock.now()
        over = [key for key, since in self.since.items() if since + RETENTION[self.kept[key][0].category] <= now]
        for key in over[:limit]:
            del self.kept[key], self.since[key]
        return len(over[:limit])

    async def discard(self, keys: Sequence[ContentKey], touched_before: datetime) -> int:
        self._answer()
        gone = [key for key in keys if key in self.kept and self.kept[key][0].touched_at < touched_before]
        for key in gone:
            del self.kept[key]
            self.since.pop(key, None)
        return len(gone)

    def _answer(self) -> None:
        if self.away:
            raise Unavailable("contents", "switched away")


class MemoryFiles:
    """`KnownFiles` in a dictionary. `away`: every call raises Unavailable. `lose`: so many writes lose their race."""

    def __init__(self) -> None:
        self.known: dict[str, KnownFile] = {}
        self.away = False
        self.lose = 0
        self.looks: list[str] = []

    async def load_many(self, file_ids: Collection[str]) -> dict[str, KnownFile]:
        self._answer()
        self.looks += file_ids
        return {file_id: self.known.get(file_id, KnownFile(file_id)) for file_id in file_ids}

    async def save_many(self, changes: Sequence[tuple[KnownFile, KnownFile]]) -> set[str]:
        self._answer()
        lost: set[str] = set()
        for before, after in changes:
            if self.lose or self.known.get(before.file_id, KnownFile(before.file_id)) != before:
                self.lose = max(0, self.lose - 1)
                lost.add(before.file_id)
            else:
                self.known[before.file_id] = after
        return lost

    def hear(self, file_id: str, *decisions: EventData) -> None:
        """These come next on the file's stream."""
        for data in decisions:
            known = self.known.get(file_id, KnownFile(file_id))
            self.known[file_id] = evolve(known, data, known.version + 1)

    def _answer(self) -> None:
        if self.away:
            raise Unavailable("known files", "switched away")


class MemoryFileBytes:
    """`FileBytes` in a dictionary by (bucket, key, version id). `away`: nothing can be read now. `hold`: nothing comes
    before this is set.
    """

    def __init__(self) -> None:
        self.stored: dict[tuple[str, str, str], bytes] = {}
        self.reads: list[str] = []
        self.away = False
        self.hold: asyncio.Event | None = None

    async def read_many(self, files: Sequence[Usable]) -> dict[str, bytes | TransientError]:
        self.reads += [file.file_id for file in files]
        if self.hold is not None:
            await self.hold.wait()
        if self.away:
            return {file.file_id: Unavailable("S3", "switched away") for file in files}
        places = {file.file_id: (file.bucket, file.key, file.version_id) for file in files}
        return {file_id: self.stored[place] for file_id, place in places.items() if place in self.stored}


class PlainRenderer:
    """Takes the bodies as they are; a template named `broken` cannot be rendered."""

    def render(self, command: SendEmail, sealed: SealedBody | None) -> Rendered:
        if command.template_id == "broken":
            raise PermanentError("renderingFailed", "the template is broken")
        body = sealed or SealedBody(html=command.html, text=command.text)
        return Rendered(body.html, body.text, "v1" if command.template_id else None)


@dataclass
class FixedSuppressions:
    """`SuppressionList` of a dictionary; `away`: it cannot be read."""

    reasons: dict[str, SuppressionReason] = field(default_factory=dict)
    away: bool = False

    async def blocked(self, queries: Sequence[SuppressionQuery], now: datetime) -> list[Blocked]:
        if self.away:
            raise Unavailable("suppressions", "switched away")
        return [Blocked({a: self.reasons[a] for a in query.addresses if a in self.reasons}) for query in queries]


class FakeProvider:
    """`MailProvider` that answers by `behaviour` and remembers whom it took a mail for."""

    def __init__(self, behaviour: Behaviour | None = None, rate: float = 100_000.0, name: str = "ses") -> None:
        self.name = name
        self.behaviour = behaviour
        self.rate = rate
        self.calls: list[OutgoingAttempt] = []
        self.accepted: list[tuple[str, str]] = []
        self.open = 0
        self.most_open = 0
        self.capabilities = Capabilities("mime", 1 << 30)

    async def send(self, attempt: OutgoingAttempt) -> Answer:
        why_not = self.cannot_carry(attempt.mail) or ("a line break" if "\n" in attempt.mail.subject else None)
        if why_not is not None:
            return Rejected("invalid", why_not, "mail")
        self.calls.append(attempt)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            answer = await self.behaviour(attempt) if self.behaviour else self.take(attempt)
        finally:
            self.open -= 1
        return answer

    def take(self, attempt: OutgoingAttempt) -> Accepted:
        """Accept, and remember it."""
        self.accepted.append((attempt.mail.message_id, attempt.recipient))
        return Accepted(f"{self.name}-{attempt.attempt_id}", 1000, COST)

    def cannot_carry(self, mail: OutgoingMail) -> str | None:
        size, most = sum(4 * len(data) // 3 for _, _, data in mail.files), self.capabilities.most_bytes
        return f"{size} bytes, of {most}, are too many" if size > most else None

    async def quota(self) -> Quota:
        return Quota(self.rate, 1_000_000, 0)

    def estimate_cost(self, attachment_bytes: int, at: datetime) -> Cost:
        return COST


class MemoryProviderBoard:
    """`ProviderBoard` within one process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._shut: dict[str, tuple[float, str]] = {}
        self._probes: dict[str, float] = {}
        self._probers: dict[str, str] = {}
        self._off: dict[str, Order] = {}
        self._pins: dict[str, Order] = {}

    async def read(self) -> Board:
        now = self._clock.monotonic()
        shut = {name: Shut(until - now, reason) for name, (until, reason) in self._shut.items()}
        return Board(shut, dict(self._off), dict(self._pins))

    async def shut(self, provider: str, seconds: float, reason: str) -> None:
        until = self._clock.monotonic() + seconds
        self._shut[provider] = (max(until, self._shut.get(provider, (until, ""))[0]), reason)
        self._probes.pop(provider, None)

    async def take_probe(self, provider: str, owner: str, seconds: float) -> bool:
        now = self._clock.monotonic()
        if provider not in self._shut or self._shut[provider][0] > now or self._probes.get(provider, now) > now:
            return False
        self._probes[provider] = now + seconds
        self._probers[provider] = owner
        return True

    async def leave_probe(self, provider: str, owner: str) -> None:
        if self._probers.get(provider) == owner:
            self._probes.pop(provider, None)

    async def reopen(self, provider: str) -> None:
        self._shut.pop(provider, None)
        self._probes.pop(provider, None)

    async def switch_off(self, provider: str, actor: str, why: str) -> None:
        self._off.setdefault(provider, Order(provider, actor, self._clock.now(), why))

    async def switch_on(self, provider: str) -> bool:
        return self._off.pop(provider, None) is not None

    async def pin(self, what: str, provider: str, actor: str, why: str) -> None:
        self._pins[what] = Order(provider, actor, self._clock.now(), why)

    async def unpin(self, what: str) -> bool:
        return self._pins.pop(what, None) is not None


class Crash(BaseException):
    """The process is gone: nothing catches it."""


class CrashAt:
    """`Checkpoints` that end the process the n-th time a point is reached."""

    def __init__(self, name: str, nth: int = 1) -> None:
        self._name, self._left = name, nth
        self.crashed = False

    def reach(self, name: str) -> None:
        if self.crashed:
            raise Crash(name)
        if name == self._name:
            self._left -= 1
            if not self._left:
                self.crashed = True
                raise Crash(name)


class Post:
    """A whole sending side in memory. `sender(…)` makes further processes on the same stores."""

    def __init__(self, *, clock: Clock | None = None, policy: Policy | None = None) -> None:
        self.clock = clock or SystemClock()
        self.ids = SystemIds()
        self.store = MemoryEventStore(self.clock)
        self.contents = MemoryContents(self.clock)
        self.files = MemoryFiles()
        self.file_bytes = MemoryFileBytes()
        self.suppressions = FixedSuppressions()
        self.provider = FakeProvider()
        self.others: list[FakeProvider] = []
        """Further providers, after the primary."""

        self.rates = MemoryRateLimits(self.clock)
        self.daily: DailyCounts = MemoryDailyCounts(self.clock)
        self.ramps: dict[str, Ramp] = {}
        self.daily_limits: dict[str, int] = {}
        self.metrics = Metrics()
        self.published: dict[str, Stream] = {}
        self.keys = RecipientKeys(b"k" * 32)
        self.streams = MessageStreams(self.store, self.clock, self.ids, policy or Policy(), self.keys, self._publish)
        self._senders = 0

    def sender(self, *, limits: Limits | None = None, checkpoints: Checkpoints | None = None, **more: Any) -> Sender:
        self._senders += 1
        return Sender(
            self.streams,
            self.contents,
            self.files,
            self.file_bytes,
            self.suppressions,
            [self.provider, *self.others],
            RateBudget(self.rates, self.clock),
            DailyLimits(
                self.daily,
                self.clock,
                ramps=self.ramps,
                providers=self.daily_limits,
                carriers=[each.name for each in (self.provider, *self.others)],
            ),
            self.clock,
            self.ids,
            self.metrics,
            checkpoints or NoCheckpoints(),
            owner=f"sender-{self._senders}",
            limits=limits,
            **more,
        )

    async def loaded(self, *message_ids: str) -> tuple[dict[str, Work], Unready]:
        """What comes of loading these mails together: each, and those that have no mail now."""
        files = AttachedFiles(self.files, self.file_bytes, self.streams.policy, self.clock, most_bytes=1 << 20)
        loader = ContentLoader(self.contents, files, [self.provider, *self.others], self.clock, self.metrics)
        works = {each: Work(await self.streams.load(each), "normal") for each in message_ids}
        return works, await loader.load(list(works.values()))

    async def queue(
        self, count: int = 1, body: MessageContent | None = None, *, actor: str | None = None, **fields: Any
    ) -> list[str]:
        """Requested messages with content, due now."""
        message_ids = [self.ids.new() for _ in range(count)]
        steps: list[Step] = []
        for message_id in message_ids:
            content = body or MessageContent(text="hello")
            category = fields.get("category", "notification")
            (ref,) = await self.contents.put_many([NewContent(message_id, category, "message", content.to_bytes())])
            fields.setdefault("expires_at", self.clock.now() + timedelta(days=3))
            attached = [
                AttachmentInfo(
                    filename=each.filename, content_type=each.content_type, size=each.size, file_id=each.file_id,
                    ref=each.ref,
                )
                for each in content.attachments
            ]  # fmt: skip
            fields.setdefault("attachments", attached or None)
            request = requested(message_id=message_id, **{**fields, "content": fields.get("content", ref)})
            held = Held(Stream.absent(message_id), (await self.streams.load(message_id)).state)
            steps.append(Step(held, self.streams.decide(held, Request(request, actor=actor))))
        for result in await self.streams.append(steps):
            assert isinstance(result, Held)
        for provider in (self.provider, *self.others):
            await self.rates.set_limit(provider.name, provider.rate)
        return message_ids

    async def do(self, message_id: str, *commands: Command) -> None:
        """Decide and append on a message as it stands."""
        held = await self.streams.load(message_id)
        (result,) = await self.streams.append([Step(held, self.streams.decide(held, *commands))])
        assert isinstance(result, Held)

    async def attempts(self, message_id: str) -> list[EmailSendAttempted]:
        """Those of a message, the oldest first."""
        events = (await self.streams.load(message_id)).stream.events
        return [each.data for each in events if isinstance(each.data, EmailSendAttempted)]

    async def phases(self, message_ids: Iterable[str]) -> list[str]:
        """The phase of every delivery."""
        found = await self.streams.load_many(list(message_ids))
        return [
            type(delivery).__name__
            for held in found.values()
            if isinstance(held, Held)
            for delivery in held.message.deliveries.values()
        ]

    async def types(self, message_id: str) -> list[str]:
        return [event.type.removeprefix("email.") for event in (await self.store.load(message_id)).events]

    def _publish(self, streams: Iterable[Stream]) -> None:
        self.published |= {stream.stream_id: stream for stream in streams}


@asynccontextmanager
async def running(post: Post, wishes: Wishes | None = None, *, limits: Limits | None = None) -> AsyncIterator[Sender]:
    """A sender of the post, while inside."""
    sender = post.sender(limits=limits)
    if wishes is not None:
        sender.providers.wishes = wishes
    await sender.start()
    try:
        yield sender
    finally:
        await sender.stop(5)


async def are(post: Post, message_ids: Sequence[str], phase: str) -> None:
    """Wait until all deliveries of these are in that phase."""

    async def done() -> bool:
        return set(await post.phases(message_ids)) == {phase}

    await until(done)


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 60.0) -> None:
    """Wait for a condition; AssertionError after `seconds`."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not await condition():
        assert asyncio.get_running_loop().time() < deadline, "not within the time limit"
        await asyncio.sleep(0.01)
