"""From commands on Kafka to streams: one consumer loop per lane, so that a full lane holds no other up.

A batch is decoded, its streams are read at once, what is new is rendered and stored, and all of it is appended in one
bulk. A record is done when its effect stands in its stream (acknowledged by a majority), parked when it can never have
one. After a crash anywhere the batch comes again: content is insert-only and named by its hash, and a stream that has
its request takes no second one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from contracts.email.commands import CancelEmail, SendEmail
from contracts.email.events import EmailRequested, FailureReason
from contracts.email.values import ContentRef
from contracts.envelope import CommandEnvelope
from contracts.topics import COMMANDS_URGENT, LANES
from services.email.domain.commands import Cancel, Request
from services.email.domain.content import MessageContent, SealedBody
from services.email.domain.message import Message
from services.email.domain.request import SenderIdentity, check_sender, content_of, request_hash, requested
from services.email.ports import Checkpoints, ContentKey, ContentStore, NewContent, Renderer
from services.email.right_of_way import RightOfWay
from services.email.streams import Held, MessageStreams, Step
from services.kit.actors import Role
from services.kit.clock import Clock
from services.kit.command_roles import check_claim
from services.kit.errors import MailroomError, PermanentError, TransientError
from services.kit.event_store.port import Lease, is_race
from services.kit.kafka.codec import decode_command
from services.kit.kafka.records import DONE, Outcome, Park, Record, Retry

ROUNDS = 4
"""How often records whose race was lost are decided again before they are handed back."""

SMALL_BATCH = 50
"""Commands at a time of a lane that is not urgent while urgent mail keeps coming."""

SLICE_SECONDS = 0.01
"""After so long of rendering the event loop gets a turn: the consumer's heartbeat runs on it."""


class FreshMail(Protocol):
    """The sender in the same process, if there is one: it sends at once what it has room for."""

    def lease(self, lane: str) -> Lease | None:
        """The lease to append with, or None: the message then waits in the store. `give` or `forfeit` follows."""
        ...

    def give(self, held: Held, content: MessageContent, lane: str) -> None:
        """Take a message that was appended under `lease(lane)`."""
        ...

    def forfeit(self, lane: str) -> None:
        """Nothing was appended under `lease(lane)`."""
        ...


@dataclass(slots=True)
class _Job:
    """One command on its way."""

    record: Record
    envelope: CommandEnvelope
    outcome: Outcome | None = None
    held: Held | None = None
    hashed: str = ""
    content: MessageContent | None = None
    ref: ContentRef | None = None
    template_version: str | None = None
    failure: tuple[FailureReason, str] | None = None
    leased: bool = False

    @property
    def send(self) -> SendEmail | None:
        """The command, if it is to send."""
        return self.envelope.data if isinstance(self.envelope.data, SendEmail) else None

    @property
    def lane(self) -> str:
        """Where it is sent from."""
        return self.send.priority if self.send else "urgent"


class Intake:
    """Batch handler of the groups that read `email.commands.*`."""

    def __init__(
        self,
        streams: MessageStreams,
        contents: ContentStore,
        renderer: Renderer,
        identity: SenderIdentity,
        clock: Clock,
        checkpoints: Checkpoints,
        *,
        sender: FreshMail | None = None,
        right_of_way: RightOfWay | None = None,
        roles: Mapping[str, tuple[Role, ...]] | None = None,
    ) -> None:
        """`roles`: which may be claimed by topic; one that is not there takes every claim."""
        self._streams, self._contents, self._renderer = streams, contents, renderer
        self._identity, self._clock, self._checkpoints, self._sender = identity, clock, checkpoints, sender
        self._right_of_way = right_of_way or RightOfWay(clock)
        self._roles = roles or {}

    async def __call__(self, records: Sequence[Record]) -> Sequence[Outcome]:
        """One outcome a record, in order. Commands about one message take effect in the order of their records."""
        jobs: list[_Job] = []
        outcomes: dict[tuple[str, int, int], Outcome] = {}
        for record in records:
            read = _read(record, self._roles)
            if isinstance(read, Park):
                outcomes[record.origin] = read
            else:
                jobs.append(_Job(record, read))
        urgent = any(job.lane == "urgent" for job in jobs)
        if urgent:
            self._right_of_way.claim(job.envelope.subject for job in jobs if job.send)
        waiting: set[str] = set()
        try:
            for everything in _turns(jobs):
                turn = [job for job in everything if job.envelope.subject not in waiting]
                begin = 0
                while begin < len(turn):
                    size = len(turn) if urgent else self._right_of_way.at_once(len(turn), SMALL_BATCH)
                    began = self._clock.monotonic()
                    await self._handle(turn[begin : begin + size])
                    begin += size
                    if not urgent:
                        await self._right_of_way.rest(self._clock.monotonic() - began)
                waiting |= {job.envelope.subject for job in turn if isinstance(job.outcome, Retry)}
        except TransientError as error:
            for job in jobs:
                job.outcome = job.outcome or Retry(error)
        for job in jobs:
            outcomes[job.record.origin] = job.outcome or Retry(TransientError("not reached"))
        return [outcomes[record.origin] for record in records]

    async def _handle(self, jobs: Sequence[_Job]) -> None:
        """Commands about different messages, all at once."""
        for _ in range(ROUNDS):
            going = [job for job in jobs if job.outcome is None]
            if not going:
                return
            await self._give_way(jobs)
            await self._load(going)
            await self._render([job for job in going if _needs_content(job)])
            await self._store([job for job in going if _needs_content(job) and job.content is not None])
            self._checkpoints.reach("intake.stored")
            await self._give_way(jobs)
            await self._append([job for job in going if job.outcome is None])
        for job in jobs:
            job.outcome = job.outcome or Retry(TransientError("others keep writing to this message"), after=0.1)

    async def _give_way(self, jobs: Sequence[_Job]) -> None:
        if jobs[0].lane != "urgent":
            await self._right_of_way.step_aside()

    async def _load(self, jobs: Sequence[_Job]) -> None:
        found = await self._streams.load_many([job.envelope.subject for job in jobs])
        for job in jobs:
            held = found[job.envelope.subject]
            if isinstance(held, PermanentError):
                job.outcome = Park(held.reason, kind="bug", detail=held.detail, error=held)
            else:
                job.held = held

    # --- content ---

    async def _render(self, jobs: Sequence[_Job]) -> None:
        sealed = await self._sealed(jobs)
        began = self._clock.monotonic()
        for job in jobs:
            command = job.send
            if command is None or job.content is not None or job.failure is not None:
                continue
            raw = None if command.sealed is None else sealed.get(ContentKey(command.message_id, command.sealed.ref))
            if isinstance(raw, TransientError):
                job.outcome = Retry(raw)  # it waits, and the others go on
                continue
            try:
                check_sender(command, self._identity)
                body = None if command.sealed is None else _open(raw)
                rendered = self._renderer.render(command, body)
                job.content = content_of(command, rendered.html, rendered.text)
                job.template_version = rendered.template_version
            except PermanentError as error:
                reason: FailureReason = "invalid" if error.reason == "invalid" else "renderingFailed"
                job.failure = (reason, error.detail)
            if self._clock.monotonic() - began > SLICE_SECONDS:
                await self._clock.sleep(0)
                began = self._clock.monotonic()

    async def _sealed(self, jobs: Sequence[_Job]) -> Mapping[ContentKey, bytes | TransientError]:
        keys = [ContentKey(c.message_id, c.sealed.ref) for c in (job.send for job in jobs) if c and c.sealed]
        return await self._contents.get_many(keys) if keys else {}

    async def _store(self, jobs: Sequence[_Job]) -> None:
        new = [job for job in jobs if job.ref is None]
        items = [
            NewContent(
                job.envelope.subject,
                job.send.category,
                "message",
                job.content.to_bytes(),
                job.send.expires_at or job.send.send_at,
            )
            for job in new
            if job.send and job.content
        ]
        refs = await self._contents.put_many(items) if items else []
        for job, ref in zip(new, refs, strict=True):
            job.ref = ref.model_copy(update={"template_version": job.template_version})

    # --- the append ---

    async def _append(self, jobs: Sequence[_Job]) -> None:
        steps: list[tuple[_Job, Step]] = []
        try:
            for job in jobs:
                step = self._decide(job)
                if step is not None:
                    steps.append((job, step))
            self._checkpoints.reach("intake.append")
            results = await self._streams.append([step for _, step in steps])
            self._checkpoints.reach("intake.appended")
            for (job, _), result in zip(steps, results, strict=True):
                if isinstance(result, Held):
                    job.outcome = DONE
                elif not is_race(result):
                    job.outcome = _refused(result)
                if job.leased and self._sender is not None and isinstance(result, Held) and job.content is not None:
                    job.leased = False
                    self._sender.give(result, job.content, job.lane)
        finally:  # cancelled too, when the batch took too long: a slot that is not handed back is lost to the lane
            for job in jobs:
                if job.leased and self._sender is not None:
                    job.leased = False
                    self._sender.forfeit(job.lane)

    def _decide(self, job: _Job) -> Step | None:
        """The append of a command; None where its outcome is known without one."""
        held = job.held
        assert held is not None  # noqa: S101 - loaded a moment ago
        try:
            command = self._command(job)
            drafts = self._streams.decide(held, command)
        except PermanentError as error:
            job.outcome = Park(error.reason, kind="conflictingRepeat", detail=error.detail)
            return None
        if not drafts:
            job.outcome = DONE
            return None
        lease = self._sender.lease(job.lane) if self._sender and self._goes_at_once(job, len(drafts)) else None
        job.leased = lease is not None
        return Step(
            held,
            drafts,
            lease=lease,
            keep_lease=lease is None,
            correlation=job.envelope.correlationid,
            traceparent=job.envelope.traceparent,
        )

    def _goes_at_once(self, job: _Job, drafts: int) -> bool:
        command = job.send
        return drafts == 1 and command is not None and (command.send_at is None or command.send_at <= self._clock.now())

    def _command(self, job: _Job) -> Request | Cancel:
        envelope, data = job.envelope, job.envelope.data
        if isinstance(data, SendEmail):
            return Request(self._request(job, data), job.failure, causation=envelope.id, actor=envelope.actor)
        assert isinstance(data, CancelEmail)  # noqa: S101 - the registry knows no third command
        return Cancel(envelope.actor, data.reason, causation=envelope.id)

    def _request(self, job: _Job, command: SendEmail) -> EmailRequested:
        # A code that lay in Kafka for an hour is no use to anybody: its 15 minutes begin when the broker has it, by the
        # broker's clock. A producer's may be slow, and this process's is not that of the one that sends.
        published = datetime.fromtimestamp(job.record.timestamp_ms / 1000, UTC)
        if not job.record.log_append_time:  # the producer's word, until `mailroom topics apply` has mended the topic
            now = self._clock.now()
            published = min(now, published) if command.category == "auth" else now
        return requested(command, self._identity, job.ref, _hash(job), published)


def _read(record: Record, roles: Mapping[str, tuple[Role, ...]]) -> CommandEnvelope | Park:
    """The command of a record, or why it can never be one of this lane's."""
    try:
        envelope = decode_command(record)
        check_claim(roles, record.topic, envelope.actor)
    except PermanentError as error:
        return Park(error.reason, kind="poison", detail=error.detail)
    data = envelope.data
    if not isinstance(data, SendEmail | CancelEmail) or data.message_id != envelope.subject:
        return Park("wrongSubject", kind="poison", detail="subject and key must be the data's messageId")
    lane = LANES[data.priority] if isinstance(data, SendEmail) else COMMANDS_URGENT
    if record.topic != lane.name:
        return Park("wrongLane", kind="poison", detail=f"this command belongs on {lane.name}")
    return envelope


def _turns(jobs: Sequence[_Job]) -> list[list[_Job]]:
    """The jobs in turns: each message at most once in a turn, its commands in their order."""
    turns: list[list[_Job]] = []
    seen: dict[str, int] = {}
    for job in jobs:
        turn = seen.get(job.envelope.subject, 0)
        seen[job.envelope.subject] = turn + 1
        if turn == len(turns):
            turns.append([])
        turns[turn].append(job)
    return turns


def _needs_content(job: _Job) -> bool:
    """Only a stream without request stores content."""
    return job.outcome is None and job.send is not None and job.held is not None and not _is_requested(job.held)


def _is_requested(held: Held) -> bool:
    return isinstance(held.state, Message)


def _hash(job: _Job) -> str:
    if not job.hashed and job.send is not None:
        job.hashed = request_hash(job.send)
    return job.hashed


def _open(raw: bytes | None) -> SealedBody:
    if raw is None:
        raise PermanentError("renderingFailed", "the sealed bodies are not stored under this messageId (any more)")
    return SealedBody.from_bytes(raw)


def _refused(error: MailroomError) -> Outcome:
    if isinstance(error, PermanentError):
        return Park(error.reason, kind="bug", detail=error.detail, error=error)
    return Retry(error)
