"""Applying records to the documents of one generation: decode → dedupe → fold → write, one write per aggregate.

The one engine of live projection, rebuild and repair. A document is changed only where nobody else wrote it since it
was read; whoever loses reads again, unites and writes anew, so two writers of one aggregate both end in the union. What
is applied twice changes nothing. A crash at any point leaves documents that are the fold of a part of the log.

What goes wrong depends neither on how records were batched nor on the generation. A record that cannot be read is
parked, and left out by every generation until it is retried. An event that can be read is kept: where it cannot be
shown, because the fold fails on it or the document cannot be stored with it, the document shows what its other events
say (`most_of` them, in the order of the log), and the record is parked to tell of it. So what is shown is still a
function of the events that are kept. Of documents that claim one unique key, the one with the lowest id shows it.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime

from contracts.errors import ContractError
from contracts.registry import UNKNOWN_RANK
from services.events.fitting import most_of
from services.events.known_cache import KnownCache
from services.events.ports import ABSENT, LogRecord, Outcome, ReadModels, ReadRecord, Stored, Write, bytes_of
from services.events.projections.known import INLINE_PLACES, KnownEvent, Overflow, add
from services.events.projections.projection import Body, Projection
from services.events.reader import read_event
from services.events.rows import settle_rows
from services.events.setting_aside import Aside, At, Refused
from services.kit.errors import TransientError
from services.kit.kafka.records import Park
from services.kit.metrics import GUARD_FAILURES, PROJECTED_DOCUMENTS, PROJECTED_EVENTS, UNKNOWN_EVENTS, Metrics

SLICE = 2_500
"""Records whose aggregates are folded and written together, while the slice before is on its way to MongoDB. Folding
holds the event loop meanwhile, some tens of milliseconds.
"""
SLICE_BYTES = 8 << 20
"""Bytes of values that cut a slice, however few records it has: what is parsed takes several times as much."""
CACHE_EVENTS = 40_000
"""Events of the aggregates that a projector remembers between batches: about 100 MB."""
ROUNDS = 20
"""Times that an aggregate is redone because others write it too, before the batch is given up and read again."""

Groups = dict[bytes | None, list[LogRecord]]

Claim = tuple[object, ...]
"""The values of a unique index in a document."""


class _Item:
    """One aggregate of a batch.

    Attributes:
        anyway: it is written though no event is new.
        yields: claims that a document with a lower id has: it must not show them.
        strict, hidden: its document could not be stored: each event is to be tried, then it shows nothing.
        counted: buckets in which it may have been counted before.
    """

    __slots__ = (
        "anyway",
        "body",
        "counted",
        "events",
        "hidden",
        "id",
        "records",
        "stored",
        "strict",
        "write",
        "yields",
    )

    def __init__(
        self, aggregate: str, records: list[LogRecord], events: list[KnownEvent], *, anyway: bool = False
    ) -> None:
        self.id = aggregate
        self.records = records
        self.events = events
        self.stored: Stored = ABSENT
        self.write: Write | None = None
        self.body: Body | None = None
        self.anyway = anyway
        self.yields: frozenset[Claim] = frozenset()
        self.strict = self.hidden = False
        self.counted: frozenset[str] = frozenset()

    @property
    def is_plain(self) -> bool:
        """Whether nothing is known against showing all of it."""
        return not (self.yields or self.strict or self.hidden)


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

    async def apply(self, records: Sequence[LogRecord], *, fresh: bool = False, anyway: bool = False) -> None:
        """Bring the documents to the union of what they hold and `records`; they and the marks are durable at the end.

        Takes and raises what `write` does.
        """
        await self.mark(await self.write(records, fresh=fresh, anyway=anyway))

    async def mark(self, buckets: Iterable[str]) -> None:
        """Have the statistics of these buckets made anew. Raises Unavailable when MongoDB cannot be reached."""
        await self._models.mark_dirty(sorted(buckets))

    async def write(self, records: Sequence[LogRecord], *, fresh: bool = False, anyway: bool = False) -> set[str]:
        """Bring the documents to the union of what they hold and `records`; durable when this returns.

        Args:
            records: of any partitions, in any order, applied before or not.
            fresh: the documents are probably not there yet: insert before reading. A wrong guess costs time only.
            anyway: fold and write anew also where no event is new, since the fold may have been mended.

        Returns:
            The buckets of all aggregates that `records` tell of, changed or not: `mark` them before the checkpoint.

        Raises:
            Unavailable: MongoDB or the parking lot cannot be reached; write the same records again.
            Flood: too many bad records.
        """
        try:
            with _undisturbed():
                return await self._write_all(records, fresh=fresh, anyway=anyway)
        except BaseException:
            self.forget()  # what was written is not known
            raise

    async def _write_all(self, records: Sequence[LogRecord], *, fresh: bool, anyway: bool) -> set[str]:
        groups: Groups = {}
        for record in records:
            known = groups.get(record.key)
            if known is None:
                groups[record.key] = [record]
            else:
                known.append(record)
        buckets: set[str] = set()
        looking = asyncio.create_task(self._aside.left_out(records))  # beside the reading of documents
        writing: asyncio.Task[None] | None = None
        try:
            poison = await self._park_keyless(groups.pop(None, []), looking)
            for part in _slices(groups):
                items, bad = self._decode(part, anyway=anyway)
                poison += len(bad)
                await self._load(items, fresh=fresh)
                left_out = await looking
                if left_out:
                    items, bad, left = _without(items, bad, left_out)
                    poison += left
                await self._aside.park(bad)
                await self._fold(items)
                if writing is not None:
                    await writing
                writing = asyncio.create_task(self._write_slice(items, buckets))
            if writing is not None:
                await writing
        finally:
            if not looking.cancel() and not looking.cancelled():
                looking.exception()  # told by what came first, if anything did
            if writing is not None and not writing.done():
                await asyncio.wait({writing})
        if not poison:
            await self._aside.went_through()
        self._metrics.inc(PROJECTED_EVENTS, len(records), **self._labels)
        return buckets

    async def _park_keyless(self, records: list[LogRecord], looking: asyncio.Task[Collection[At]]) -> int:
        if records:
            why = Park("nullKey", "poison", "the key must be the aggregate's id")
            left_out = await looking
            await self._aside.park([(each, why) for each in records if (each.partition, each.offset) not in left_out])
        return len(records)

    def _decode(
        self, part: list[tuple[bytes | None, list[LogRecord]]], *, anyway: bool
    ) -> tuple[list[_Item], list[Refused]]:
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
                items.append(_Item(subject, records, events, anyway=anyway))
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
            if not self._shows_all(item, ordered, overflow):
                item.body, unseen = self._most(item, Write(item.id, stored.rev, ordered, overflow, has_rows, None))
                await self._aside.park(_refused(item, unseen))
            wanted = changed or item.anyway
            item.write = Write(item.id, stored.rev, ordered, overflow, has_rows, item.body) if wanted else None

    def _shows_all(self, item: _Item, ordered: list[KnownEvent], overflow: Overflow) -> bool:
        """Fill in the body of a document that shows all its events, if it can."""
        if not item.is_plain:
            return False
        try:
            item.body = self._projection.fold(ordered, overflow)
        except Exception:  # noqa: BLE001 - a bug of the fold must not stop the other aggregates
            return False
        return True

    def _most(self, item: _Item, write: Write) -> tuple[Body | None, list[tuple[KnownEvent, Park]]]:
        """The body of a document that cannot show all its events, and those that it does not show, with the reason."""
        projection, overflow = self._projection, write.overflow
        if item.hidden:
            return None, [(event, _unseen("MongoDB does not take its aggregate's document")) for event in item.events]

        def objection(events: Sequence[KnownEvent]) -> Park | None:
            try:
                body = projection.fold(sorted(events), overflow)
            except Exception as error:  # noqa: BLE001 - the event that it fails on is told of
                return _unseen(f"{type(error).__name__} in the fold, version {projection.version}", error)
            bucket = projection.bucket_of(body)
            if bucket is not None:
                item.counted |= {bucket}
            if item.yields & self._claims(body):
                return _unseen("another document, with a lower id, has its unique key")
            if item.strict and not self._models.takes(replace(write, body=body)):
                return _unseen("MongoDB cannot hold the document that shows it")
            return None

        shown, unseen = most_of(sorted(write.ordered, key=_origin), objection)
        return (projection.fold(sorted(shown), overflow) if shown else None), unseen

    def _claims(self, body: Body | None) -> frozenset[Claim]:
        if body is None:
            return frozenset()
        return frozenset(
            tuple(body.get(name) for name, _ in index) for index in self._projection.unique if index[0][0] in body
        )

    def _is_busy(self, events: Iterable[KnownEvent]) -> bool:
        types = self._projection.engagement.types
        return sum(event.type in types for event in events) > self._inline

    async def _write_slice(self, items: list[_Item], buckets: set[str]) -> None:
        todo, rounds = items, 0
        while todo:
            rounds = _once_more(rounds)
            todo = await self._write_once(todo, buckets)
            if todo:
                self._metrics.inc(GUARD_FAILURES, len(todo), projection=self._projection.name)
                await self._reload(todo)
                await self._fold(todo)
        bucket_of = self._projection.bucket_of
        buckets.update(bucket for item in items if (bucket := bucket_of(item.body)) is not None)
        for item in items:
            if item.counted:
                buckets |= item.counted

    async def _write_once(self, items: list[_Item], buckets: set[str]) -> list[_Item]:
        """Write what is to be written; those that lost to another writer, or are to show less."""
        pending = [(item, item.write) for item in items if item.write is not None]
        outcomes: list[Outcome] = await self._models.write([write for _, write in pending]) if pending else []
        lost: list[_Item] = []
        for (item, write), outcome in zip(pending, outcomes, strict=True):
            if outcome == "conflict":
                lost.append(item)
            elif outcome == "failed":
                if await self._shows_less(item, write, buckets):
                    lost.append(item)
                else:
                    item.write = None
                    why = Park("eventsUnwritable", "bug", "MongoDB cannot hold the events of its aggregate")
                    await self._aside.park([(record, why) for record in item.records])
            elif self._cache.is_used:
                known = {event.id: event for event in write.ordered}
                self._cache.put(item.id, Stored(write.expected + 1, known, write.overflow, write.has_rows))
        self._metrics.inc(PROJECTED_DOCUMENTS, len(pending) - len(lost), **self._labels)
        return lost

    async def _shows_less(self, item: _Item, write: Write, buckets: set[str]) -> bool:
        """Make of a document that can never be stored one that may; False = not even one that shows nothing can."""
        claims = self._claims(write.body)
        rivals = [each for each in await self._models.claimants(write) if each != item.id] if claims else []
        if rivals and min(rivals) < item.id:
            item.yields |= claims
        elif rivals:
            for each in rivals:
                await self._take_away(each, claims, buckets)
        elif write.body is None or not self._models.takes(replace(write, body=None)):
            return False
        elif not item.strict:
            item.strict = True
        else:
            item.hidden = True
        return True

    async def _take_away(self, aggregate: str, claims: frozenset[Claim], buckets: set[str]) -> None:
        """Have a document show these claims no more, which one with a lower id is about to show. Whoever writes it in
        the same moment shows them again: then the other one's write fails again, and comes here.
        """
        item = _Item(aggregate, [], [], anyway=True)
        item.yields = claims
        await self._reload([item])
        if item.stored.rev:
            await self._fold([item])
            await self._write_once([item], buckets)
            buckets |= item.counted


def _unseen(detail: str, error: BaseException | None = None) -> Park:
    """Why a document does not show an event that it keeps."""
    return Park("unwritable" if error is None else "foldFailed", "bug", detail, error, kept=True)


def _origin(event: KnownEvent) -> At:
    return event.partition, event.offset


def _refused(item: _Item, unseen: Iterable[tuple[KnownEvent, Park]]) -> list[Refused]:
    """The records of events that cannot be shown: as they were read, or what is kept of those read earlier."""
    at_hand = {(record.partition, record.offset): record for record in item.records}
    return [(at_hand.get(_origin(event)) or _record_of(item.id, event), why) for event, why in unseen]


def _record_of(aggregate: str, event: KnownEvent) -> LogRecord:
    milliseconds = int(datetime.fromisoformat(event.time).timestamp() * 1000)
    return ReadRecord(event.partition, event.offset, milliseconds, aggregate.encode(), event.raw, ())


def _without(
    items: list[_Item], bad: list[Refused], left_out: Collection[At]
) -> tuple[list[_Item], list[Refused], int]:
    """`items` and `bad` without the records at these places, and how many these were."""
    kept: list[_Item] = []
    dropped = 0
    for item in items:
        events = [event for event in item.events if _origin(event) not in left_out]
        dropped += len(item.events) - len(events)
        if events:
            item.events = events
            item.records = [each for each in item.records if (each.partition, each.offset) not in left_out]
            kept.append(item)
    return kept, [each for each in bad if (each[0].partition, each[0].offset) not in left_out], dropped


def _slices(groups: Groups) -> Iterator[list[tuple[bytes | None, list[LogRecord]]]]:
    part: list[tuple[bytes | None, list[LogRecord]]] = []
    records, size = 0, 0
    for group in groups.items():
        part.append(group)
        records += len(group[1])
        size += bytes_of(group[1])
        if records >= SLICE or size >= SLICE_BYTES:
            yield part
            part, records, size = [], 0, 0
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
