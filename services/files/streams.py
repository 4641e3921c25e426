"""Files in the event store: read, decided, appended, handed to the log. Nobody else stamps events of a file."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from contracts.envelope import Envelope
from services.files.domain.decisions import Drafts
from services.files.domain.file import File, Policy, State, due_at, fold
from services.kit.clock import Clock, Ids
from services.kit.errors import MailroomError, PermanentError
from services.kit.event_store.port import Append, Appended, EventStore, Stream, StreamIndex, has_grown, stamp
from services.kit.logs import get_logger

log = get_logger(__name__)

SOURCE = "/mailroom/files"
LANE = "uploads"
"""The lane in which files wait for the end of their upload."""

KEPT = "kept"
"""The look-up value of files whose verified version lies in S3."""


@dataclass(frozen=True, slots=True)
class Held:
    """A file as this process last saw it: its stream, and the state folded from it."""

    stream: Stream
    state: State

    @property
    def file_id(self) -> str:
        """The stream's id."""
        return self.stream.stream_id

    @property
    def file(self) -> File:
        """The state of a file that was asked for. AssertionError where it was not: a bug."""
        assert isinstance(self.state, File)  # noqa: S101
        return self.state


class FileStreams:
    """Reads and appends files. `publish` is told of every confirmed append; it must not block."""

    def __init__(
        self,
        store: EventStore,
        clock: Clock,
        ids: Ids,
        policy: Policy,
        publish: Callable[[Iterable[Stream]], None],
    ) -> None:
        self.store, self.policy = store, policy
        self._clock, self._ids, self._publish = clock, ids, publish

    async def load(self, file_id: str) -> Held:
        """One file, an absent one too. Raises Unavailable, PermanentError `unreadableStream`."""
        held = hold(await self.store.load(file_id))
        if isinstance(held, PermanentError):
            raise held
        return held

    async def load_many(self, file_ids: Collection[str]) -> dict[str, Held | PermanentError]:
        """Every file; PermanentError `unreadableStream` for one that this build cannot read. Raises Unavailable."""
        return {file_id: hold(stream) for file_id, stream in (await self.store.load_many(file_ids)).items()}

    async def append(
        self, held: Held, drafts: Drafts, *, correlation: str | None = None, traceparent: str | None = None
    ) -> Held | MailroomError:
        """Append to a file as it was held; what the append made of it, or why it did not stand (as
        `EventStore.append_many`). `correlation` and `traceparent` matter for the first event; later ones carry on.
        """
        (result,) = await self.append_many([(held, drafts)], correlation=correlation, traceparent=traceparent)
        return result

    async def append_many(
        self,
        changes: Sequence[tuple[Held, Drafts]],
        *,
        correlation: str | None = None,
        traceparent: str | None = None,
    ) -> list[Held | MailroomError]:
        """`append` to several files, in one call of the store; each has its own result, in the order asked."""
        results: list[Held | MailroomError] = [held for held, _ in changes]
        wanted: list[tuple[int, State, Append]] = []
        for n, (held, drafts) in enumerate(changes):
            if drafts:
                events = self._stamped(held.stream, drafts, correlation, traceparent)
                state = fold(events, held.state)
                wanted.append((n, state, Append(held.stream, events, self.index(state))))
        told = await self.store.append_many([each for _, _, each in wanted]) if wanted else []
        for (n, state, append), result in zip(wanted, told, strict=True):
            if isinstance(result, Appended):
                results[n] = hold(result.stream) if has_grown(append, result) else Held(result.stream, state)
            else:
                results[n] = result
        self._publish([each.stream for each in told if isinstance(each, Appended)])
        return results

    def _stamped(
        self, stream: Stream, drafts: Drafts, correlation: str | None, traceparent: str | None
    ) -> tuple[Envelope, ...]:
        if stream.version:
            correlation, traceparent = stream.events[0].correlationid, stream.events[0].traceparent
        return stamp(
            stream,
            drafts,
            now=self._clock.now(),
            new_id=self._ids.new,
            source=SOURCE,
            correlation=correlation or stream.stream_id,
            traceparent=traceparent,
        )

    def index(self, state: State) -> StreamIndex:
        """By what a file in this state is found."""
        if not isinstance(state, File):
            return StreamIndex()
        due = due_at(state, self.policy)
        kept = state.phase == "completed" or state.recoverable
        return StreamIndex(due, None if due is None else LANE, (KEPT,) if kept else (), state.request.user_id)


def hold(stream: Stream) -> Held | PermanentError:
    """The file in a stream; PermanentError `unreadableStream`."""
    try:
        return Held(stream, fold(stream.events))
    except PermanentError as error:
        log.error("a stream cannot be read", aggregate_id=stream.stream_id, error=str(error))  # noqa: TRY400
        return error
