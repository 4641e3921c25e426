"""The event store in memory: the same promises within one process, and lost answers on demand. For tests."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from services.kit.clock import Clock
from services.kit.errors import AppendOutcomeUnknown, ExpectedVersionConflict, Unavailable
from services.kit.event_store.port import DUE_COUNTED, Append, Appended, AppendResult, Stream


@dataclass(slots=True)
class _Kept:
    stream: Stream
    pending_since: datetime | None


class MemoryEventStore:
    """`EventStore` in a dictionary. The clock's wall time stands for the server's.

    `lose_answers` makes coming appends be written and reported as AppendOutcomeUnknown, `lose_appends` makes them
    vanish and reported so; both count items. While `away` is True everything raises Unavailable.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: dict[str, _Kept] = {}
        self.lose_answers = 0
        self.lose_appends = 0
        self.away = False

    async def load(self, stream_id: str) -> Stream:
        self._answer()
        kept = self._kept.get(stream_id)
        return Stream.absent(stream_id) if kept is None else kept.stream

    async def load_many(self, stream_ids: Collection[str]) -> Mapping[str, Stream]:
        return {stream_id: await self.load(stream_id) for stream_id in stream_ids}

    async def append(self, append: Append) -> AppendResult:
        return (await self.append_many([append]))[0]

    async def append_many(self, appends: Sequence[Append]) -> list[AppendResult]:
        if len({append.stream.stream_id for append in appends}) != len(appends):
            raise ValueError("a stream is named twice in one call: append its events together")
        if self.away:
            return [Unavailable("memory", "switched away; nothing was written") for _ in appends]
        return [self._append(append) for append in appends]

    async def find_by_lookup(self, value: str) -> str | None:
        self._answer()
        return next((name for name, kept in self._kept.items() if value in kept.stream.index.lookup), None)

    async def list_by_lookup(self, value: str, after: str | None, limit: int) -> list[Stream]:
        self._answer()
        found = sorted(
            (kept.stream for kept in self._kept.values() if value in kept.stream.index.lookup),
            key=lambda stream: stream.stream_id,
        )
        return [stream for stream in found if after is None or stream.stream_id > after][:limit]

    async def mark_published(self, marks: Sequence[tuple[str, int]]) -> None:
        self._answer()
        for stream_id, version in marks:
            kept = self._kept.get(stream_id)
            if kept is None or kept.stream.version < version:
                continue
            kept.stream = replace(kept.stream, published=max(kept.stream.published, version))
            if kept.stream.version == version:
                kept.pending_since = None

    async def unpublished(self, older_than: timedelta, limit: int) -> list[Stream]:
        self._answer()
        before = self._clock.now() - older_than
        old = [
            (kept.pending_since, kept.stream)
            for kept in self._kept.values()
            if kept.pending_since is not None and kept.pending_since <= before
        ]
        return [stream for _, stream in sorted(old, key=lambda entry: entry[0])][:limit]

    async def postpone_publishing(self, stream_ids: Collection[str], delay: timedelta) -> None:
        self._answer()
        for stream_id in stream_ids:
            kept = self._kept.get(stream_id)
            if kept is not None and kept.pending_since is not None:
                kept.pending_since = self._clock.now() + delay

    async def lease_due(
        self,
        lanes: Sequence[tuple[str, int]],
        owner: str,
        lease_for: timedelta,
        now: datetime,
        total: int | None = None,
    ) -> list[Stream]:
        self._answer()
        leased: list[Stream] = []
        for lane, limit in lanes:
            due = [
                (kept.stream.index.due_at, name)
                for name, kept in self._kept.items()
                if kept.stream.index.lane == lane
                and kept.stream.index.due_at is not None
                and kept.stream.index.due_at <= now
                and not self._in_force(kept.stream)
            ]
            room = limit if total is None else min(limit, total - len(leased))
            for _, name in sorted(due)[: max(0, room)]:
                leased.append(self._lease(name, owner, lease_for))
        return leased

    async def due_counts(self, lanes: Sequence[str], now: datetime) -> dict[str, int]:
        self._answer()
        due = [
            kept.stream.index.lane
            for kept in self._kept.values()
            if kept.stream.index.due_at is not None
            and kept.stream.index.due_at <= now
            and not self._in_force(kept.stream)
        ]
        return {lane: min(DUE_COUNTED, due.count(lane)) for lane in lanes}

    async def renew(
        self, stream_ids: Collection[str], owner: str, lease_for: timedelta, *, shorten: bool = False
    ) -> set[str]:
        self._answer()
        held = {name for name in stream_ids if self._holder(name) == owner}
        for name in held:
            until = self._kept[name].stream.leased_until
            if shorten or until is None or until < self._clock.now() + lease_for:
                self._lease(name, owner, lease_for)
        return held

    async def release(self, stream_ids: Collection[str], owner: str) -> None:
        self._answer()
        for name in stream_ids:
            if self._holder(name) == owner:
                kept = self._kept[name]
                kept.stream = replace(kept.stream, leased_by=None, leased_until=None)

    def _answer(self) -> None:
        if self.away:
            raise Unavailable("memory", "switched away")

    def _append(self, append: Append) -> AppendResult:
        stream_id = append.stream.stream_id
        kept = self._kept.get(stream_id)
        now = self._clock.now()
        version = 0 if kept is None else kept.stream.version
        if self.lose_appends:
            self.lose_appends -= 1
            return AppendOutcomeUnknown(stream_id, "lost on purpose")
        if version != append.stream.version:
            return ExpectedVersionConflict(stream_id, append.stream.version, version)
        stored = Stream.absent(stream_id) if kept is None else kept.stream
        owner, until = (stored.leased_by, stored.leased_until) if append.keep_lease else (None, None)
        if append.lease is not None:
            owner, until = append.lease.owner, now + append.lease.lasts
        wire = tuple(event.to_bytes().decode() for event in append.events)
        grown = stored.extended(append.events, wire, index=append.index, leased_by=owner, leased_until=until)
        since = now if kept is None or kept.pending_since is None else min(now, kept.pending_since)
        self._kept[stream_id] = _Kept(grown, since)
        if self.lose_answers:
            self.lose_answers -= 1
            return AppendOutcomeUnknown(stream_id, "its answer was lost on purpose")
        return Appended(grown)

    def _in_force(self, stream: Stream) -> bool:
        return stream.leased_until is not None and stream.leased_until >= self._clock.now()

    def _holder(self, stream_id: str) -> str | None:
        kept = self._kept.get(stream_id)
        return None if kept is None else kept.stream.leased_by

    def _lease(self, stream_id: str, owner: str, lease_for: timedelta) -> Stream:
        kept = self._kept[stream_id]
        kept.stream = replace(kept.stream, leased_by=owner, leased_until=self._clock.now() + lease_for)
        return kept.stream
