"""Applying records to the documents of one generation: decode → dedupe → fold → write, one write per aggregate.

The one engine of live projection, rebuild and repair. A document is changed only where nobody else wrote it since it
was read; whoever loses reads again, unites and writes anew, so two writers of one aggregate both end in the union. What
is applied twice changes nothing. A crash at any point leaves documents that are the fold of a part of the log.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from contracts.errors import ContractError
from contracts.registry import UNKNOWN_RANK
from services.events.known_cache import KnownCache
from services.events.ports import ABSENT, LogRecord, Outcome, ReadModels, Stored, Write
from services.events.projections.known import INLINE_PLACES, KnownEvent, add
from services.events.projections.projection import Body, Projection
from services.events.reader import read_event
from services.events.rows import settle_rows
from services.events.setting_aside import Aside, Refused
from services.kit.errors import TransientError
from services.kit.kafka.records import Park
from services.kit.metrics import GUARD_FAILURES, PROJECTED_DOCUMENTS, PROJECTED_EVENTS, UNKNOWN_EVENTS, Metrics

SLICE = 2_500
"""Records whose aggregates are folded and written together, while the slice before is on its way to MongoDB. Folding
holds the event loop meanwhile, some tens of milliseconds.
"""
CACHE_EVENTS = 40_000
"""Events of the aggregates that a projector remembers between batches: about 100 MB."""
ROUNDS = 20
"""Times that an aggregate is redone because others write it too, before the batch is given up and read again."""

Groups = dict[bytes | None, list[LogRecord]]


class _Item:
    """One aggregate of a batch."""

    __slots__ = ("body", "events", "id", "records", "stored", "write")

    def __init__(self, aggregate: str, records: list[LogRecord], events: list[KnownEvent]) -> None:
        self.id = aggregate
        self.records = records
        self.events = events
        self.stored: Stored = ABSENT
        self.write: Write | None = None
        self.body: Body | None = None


class Aggregates:
    """Applies records of one projection to one generation. For one task at a time."""

    def __init__(
        self,
        projection: Projection,
        models: ReadModels,
        aside: Aside,
        metrics: Metrics,
        *,
        generation: int,
        cache_events: int = CACHE_EVENTS,
        inline: int = INLINE_PLACES,
    ) -> None:
        self._projection = projection
        self._models = models
        self._aside = aside
        self._metrics = metrics
        self._labels = {"projection": projection.name, "generation": str(generation)}
        self._cache = KnownCache(cache_events)
        self._inline = inline

    def forget(self) -> None:
        """Others may write what is remembered here: read it again when it is needed."""
        self._cache.clear()

    async def apply(self, records: Sequence[LogRecord], *, fresh: bool = False) -> None:
        """Bring the documents to the union of what they hold and `records`; they and the marks are durable at the end.

        Takes and raises what `write` does.
        """
        await self.mark(await self.write(records, fresh=fresh))

    async def mark(self, buckets: Iterable[str]) -> None:
        """Have the statistics of these buckets made anew. Raises Unavailable when MongoDB cannot be reached."""
        await self._models.mark_dirty(sorted(buckets))

    async def write(self, records: Sequence[LogRecord], *, fresh: bool = False) -> set[str]:
        """Bring the documents to the union of what they hold and `records`; durable when this returns.

        Args:
            records: of any partitions, in any order, applied before or not.
            fresh: the documents are probably not there yet: insert before reading. A wrong guess costs time only.

        Returns:
            The buckets of all aggregates that `records` tell of, changed or not: `mark` them before the checkpoint.

        Raises:
            Unavailable: MongoDB or the parking lot cannot be reached; write the same records again.
            Flood: too many bad records.
        """
        try:
            with _undisturbed():
                return await self._write_all(records, fresh=fresh)
        except BaseException:
            self.forget()  # what was written is not known
            raise

    async def _write_all(self, records: Sequence[LogRecord], *, fresh: bool) -> set[str]:
        groups: Groups = {}
        for record in records:
            known = groups.get(record.key)
            if known is None:
                groups[record.key] = [record]
            else:
                known.append(record)
        poison = await self._park_keyless(groups.pop(None, []))
        buckets: set[str] = set()
        writing: asyncio.Task[None] | None = None
        try:
            for part in _slices(groups):
                items, bad = self._decode(part)
                poison += len(bad)
                await self._aside.park(bad)
                await self._load(items, fresh=fresh)
                await self._fold(items)
                if writing is not None:
                    await writing
                writing = asyncio.create_task(self._write_slice(items, buckets))
            if writing is not None:
                await writing
        finally:
            if writing is not None and not writing.done():
                await asyncio.wait({writing})
        if not poison:
            await self._aside.went_through()
        self._metrics.inc(PROJECTED_EVENTS, len(records), **self._labels)
        return buckets

    async def _park_keyless(self, records: list[LogRecord]) -> int:
        why = Park("nullKey", "poison", "the key must be the aggregate's id")
        await self._aside.park([(record, why) for record in records])
        return len(records)

    def _decode(self, part: list[tuple[bytes | None, list[LogRecord]]]) -> tuple[list[_Item], list[Refused]]:
        items: list[_Item] = []
        bad: list[Refused] = []
        strange = 0
        for key, records in part:
            try:
                subject = (key or b"").decode()
            except UnicodeDecodeError as error:
                bad += [(record, Park("badKey", "poison", "the key is not UTF-8", error)) for record in records]
                continue
            events: list[KnownEvent] = []
            for record in records:
                try:
                    event = read_event(record.value, record.partition, record.offset, subject)
                except ContractError as error:
                    bad.append((record, Park(error.reason, "poison", error.detail, error)))
                    continue
                events.append(event)
                strange += event.rank == UNKNOWN_RANK
            if events:
                items.append(_Item(subject, records, events))
        if strange:
            self._metrics.inc(UNKNOWN_EVENTS, strange, topic=self._projection.topic)
        return items, bad

    async def _load(self, items: Iterable[_Item], *, fresh: bool) -> None:
        missing: list[_Item] = []
        for item in items:
            stored = self._cache.take(item.id)
            if stored is not None:
                item.stored = stored
            elif not fresh:
                missing.append(item)
        if missing:
            await self._reload(missing)

    async def _reload(self, items: list[_Item]) -> None:
        found = await self._models.load([item.id for item in items])
        for item in items:
            item.stored = found.get(item.id, ABSENT)

    async def _fold(self, items: Iterable[_Item]) -> None:
        """Fill in each item's body and, if there is anything to write, its write."""
        for item in items:
            stored = item.stored
            known, overflow, has_rows = stored.known.copy(), stored.overflow, stored.has_rows
            changed = False
            for event in item.events:
                changed |= add(known, event)
            if has_rows or (len(known) > self._inline and self._is_busy(known.values())):
                settled = None
                rounds = 0
                while settled is None:
                    rounds = _once_more(rounds)
                    settled = await settle_rows(
                        self._models,
                        item.id,
                        stored,
                        item.events,
                        engagement=self._projection.engagement,
                        inline=self._inline,
                    )
                known, has_rows = settled.known, True
                changed = known != stored.known or settled.overflow != overflow or not stored.has_rows
                overflow = settled.overflow
            ordered = sorted(known.values())
            try:
                item.body = self._projection.fold(ordered, overflow)
            except Exception as error:  # noqa: BLE001 - a bug of the fold must not stop the other aggregates
                await self._park_all(item, Park("foldFailed", "bug", f"{type(error).__name__} in the fold", error))
                continue
            item.write = Write(item.id, stored.rev, ordered, overflow, has_rows, item.body) if changed else None

    async def _park_all(self, item: _Item, why: Park) -> None:
        item.write = None
        await self._aside.park([(record, why) for record in item.records])

    def _is_busy(self, events: Iterable[KnownEvent]) -> bool:
        types = self._projection.engagement.types
        return sum(event.type in types for event in events) > self._inline

    async def _write_slice(self, items: list[_Item], buckets: set[str]) -> None:
        todo, rounds = items, 0
        while todo:
            rounds = _once_more(rounds)
            todo = await self._write_once(todo)
            if todo:
                self._metrics.inc(GUARD_FAILURES, len(todo), projection=self._projection.name)
                await self._reload(todo)
                await self._fold(todo)
        bucket_of = self._projection.bucket_of
        buckets.update(bucket for item in items if (bucket := bucket_of(item.body)) is not None)

    async def _write_once(self, items: list[_Item]) -> list[_Item]:
        """Write what is to be written; those that lost to another writer."""
        pending = [(item, item.write) for item in items if item.write is not None]
        outcomes: list[Outcome] = await self._models.write([write for _, write in pending]) if pending else []
        lost: list[_Item] = []
        for (item, write), outcome in zip(pending, outcomes, strict=True):
            if outcome == "conflict":
                lost.append(item)
            elif outcome == "failed":
                await self._park_all(item, Park("unwritable", "bug", "its aggregate's document cannot be written"))
            elif self._cache.is_used:
                known = {event.id: event for event in write.ordered}
                self._cache.put(item.id, Stored(write.expected + 1, known, write.overflow, write.has_rows))
        self._metrics.inc(PROJECTED_DOCUMENTS, len(pending) - len(lost), **self._labels)
        return lost


def _slices(groups: Groups) -> Iterator[list[tuple[bytes | None, list[LogRecord]]]]:
    part: list[tuple[bytes | None, list[LogRecord]]] = []
    records = 0
    for group in groups.items():
        part.append(group)
        records += len(group[1])
        if records >= SLICE:
            yield part
            part, records = [], 0
    if part:
        yield part


def _once_more(rounds: int) -> int:
    if rounds >= ROUNDS:
        raise TransientError("an aggregate is written by others all the time: reading the batch again")
    return rounds + 1


@contextmanager
def _undisturbed() -> Iterator[None]:
    """No garbage collection while a batch is worked on: it makes next to no cycles, and scanning it costs a third."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
