"""Comparing two generations in MongoDB while both are written: document by document, each at a moment of its own.

One walk over both in the order of ids settles all but a few documents, whatever their version: what `to_document`
writes is a function of an aggregate's events, so equal aggregates are equal bytes after `_rev`, and equal events are
equal bytes of `_events`. The rest (one generation was written after the other had been read, or they do differ) is
looked at again, many at a time, once each generation is past what the other one had read when the walk ended. From then
on only events that came later may be missing on one side, and one that is missing without being later is a difference.
So neither the walk nor what follows it goes on for as long as traffic does.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast

from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pydantic_core import from_json

from services.events.adapters.mongo_documents import BOOKKEEPING, Document, values_of
from services.events.adapters.mongo_read_models import FACTS, collection_name
from services.events.ports import LeaseStore, Verdict
from services.kit.clock import Clock
from services.kit.errors import PermanentError, TransientError
from services.kit.mongo import Collection, Database, foreign_errors

EXAMPLES: Final = 20
ROUNDS: Final = 10
"""How often a document is looked at whose events come faster than both generations can be read, with a pause of `PAUSE`
seconds between.
"""
PAUSE: Final = 0.2
TOGETHER: Final = 200
"""Documents that are looked at again in one question."""
READ_TOGETHER: Final = 4_000
"""Documents that one reply of the walk has, or 16 MB of them. Each reply waits for a turn of the event loop, on which
the same process may project at full speed.
"""
STILL_SECONDS: Final = 60.0
"""How long a generation that has something to read may stand still before the comparison is given up."""

_LENGTH = struct.Struct("<i")
_ID_AT, _REV_BYTES = 13, 14
_RAW: Final[CodecOptions[RawBSONDocument]] = CodecOptions(document_class=RawBSONDocument)
_OVERFLOW: Final = b"\x04_overflow\x00"

Origins = dict[str, tuple[int, int, int]]
"""Event id → partition and offset of the reading that counts, and 1 where it lies outside the document."""
Reached = Mapping[int, int]
Judgement = Literal["equal", "reshaped", "differs", "ahead"]
"""Of one document. `ahead`: one side has events that the other has not read yet, and else they have the same ones."""


class MongoComparison:
    """A `Comparison`."""

    def __init__(self, database: Database, projection: str, leases: Callable[[int], LeaseStore], clock: Clock) -> None:
        self._database = database
        self._projection = projection
        self._leases = leases
        self._clock = clock

    async def compare(self, old: int, new: int, *, same_version: bool) -> Verdict:
        """Raises PermanentError `abandoned` when a generation is dropped meanwhile, TransientError when one that is
        behind the other stands still.
        """
        walk = _Walk(same_version)
        with foreign_errors():
            async for one, other in _pairs(self._documents(old, FACTS), self._documents(new, FACTS)):
                walk.rows(one, other)
            async for one, other in _pairs(self._documents(old), self._documents(new)):
                walk.document(one, other)
        suspects = list(walk.suspects)
        if suspects:
            await self._let_both_read(old, new)
        doubted: set[str] = set()
        for _ in range(ROUNDS):
            left: list[str] = []
            for at in range(0, len(suspects), TOGETHER):
                judged = await self._judge(suspects[at : at + TOGETHER], old, new, same_version=same_version)
                for aggregate, judgement in judged:
                    if judgement == "reshaped":
                        walk.reshaped += 1
                    elif judgement == "differs" and aggregate in doubted:
                        walk.differs(aggregate)
                    elif judgement != "equal":  # a parked record may be on its way into one after the other
                        left.append(aggregate)
                        if judgement == "differs":
                            doubted.add(aggregate)
            suspects = left
            if not suspects:
                break
            await self._clock.sleep(PAUSE)
        return Verdict(walk.documents, walk.differing, walk.reshaped, tuple(walk.examples), moving=len(suspects))

    async def _let_both_read(self, old: int, new: int) -> None:
        """Return when each generation has read what the other one has read by now."""
        goal: dict[int, int] = {}
        for number in (old, new):
            for partition, at in (await self._reached(number)).items():
                goal[partition] = max(at, goal.get(partition, at))
        best, moved_at = -1, self._clock.monotonic()
        while True:
            reached = {number: await self._reached(number) for number in (old, new)}
            behind = [
                (number, partition)
                for number, at in reached.items()
                for partition, until in goal.items()
                if at.get(partition, 0) < until
            ]
            if not behind:
                return
            done = sum(min(at.get(each, 0), until) for at in reached.values() for each, until in goal.items())
            if done > best:
                best, moved_at = done, self._clock.monotonic()
            elif self._clock.monotonic() - moved_at > STILL_SECONDS:
                number, partition = behind[0]
                raise TransientError(
                    f"generation {number} of {self._projection} stands still at {reached[number].get(partition, 0)} of "
                    f"partition {partition}, the one that it is compared with is at {goal[partition]}: does the events "
                    "service run, and is the partition blocked (/readyz)?"
                )
            await self._clock.sleep(PAUSE)

    async def _judge(
        self, aggregates: Sequence[str], old: int, new: int, *, same_version: bool
    ) -> list[tuple[str, Judgement]]:
        reached = [await self._reached(old), await self._reached(new)]  # before the documents are read
        with foreign_errors():
            ones, others = await self._known(old, aggregates), await self._known(new, aggregates)
        judged: list[tuple[str, Judgement]] = []
        for aggregate in aggregates:
            one, other = ones.get(aggregate, _ABSENT), others.get(aggregate, _ABSENT)
            judgement = _held_together(one[1], other[1], reached[0], reached[1])
            if judgement == "equal" and one[0] != other[0]:
                judgement = "differs" if same_version else "reshaped"
            judged.append((aggregate, judgement))
        return judged

    async def _reached(self, generation: int) -> dict[int, int]:
        reached = {each.partition: each.next for each in await self._leases(generation).view()}
        if not reached:
            raise PermanentError("abandoned", f"generation {generation} was given up while it was compared")
        return reached

    async def _known(self, generation: int, aggregates: Sequence[str]) -> dict[str, tuple[Document | None, Origins]]:
        """Bodies and origins of those that are there, rows included."""
        found: dict[str, tuple[Document | None, Origins]] = {}
        busy: list[dict[str, Any]] = []
        async for document in self._documents(generation).find({"_id": {"$in": list(aggregates)}}):
            body = {name: value for name, value in document.items() if name not in BOOKKEEPING or name == "_permanent"}
            if "_overflow" in document:
                body["_overflow"] = document["_overflow"]
                busy.append({"_id": _prefix(document["_id"])})
            events = document["_events"]
            origins: Origins = {
                _event_id(raw): (partition, offset, 0)
                for raw, partition, offset in zip(values_of(events), events["partition"], events["offset"], strict=True)
            }
            found[document["_id"]] = body, origins
        if busy:
            wanted = {"aggregate": 1, "event": 1, "partition": 1, "offset": 1}
            async for row in self._documents(generation, FACTS).find({"$or": busy}, wanted):
                if row["aggregate"] in found:
                    origin = (row["partition"], int(row["offset"]), 1)
                    found[row["aggregate"]][1].setdefault(row["event"], origin)
        return found

    def _documents(self, generation: int, suffix: str = "") -> Collection:
        return self._database[collection_name(self._projection, generation) + suffix]


_ABSENT: Final[tuple[None, Origins]] = (None, {})


def _held_together(one: Origins, other: Origins, reached_one: Reached, reached_other: Reached) -> Judgement:
    """Whether two sides, read after `reached` was, know the same events. `ahead` when each event that only one side
    has, or has in another reading, lies where the other side has not been yet.
    """
    ahead, moved = False, False
    for event_id in one.keys() | other.keys():
        mine, theirs = one.get(event_id), other.get(event_id)
        if mine == theirs:
            continue
        if mine is not None and theirs is not None and mine[:2] == theirs[:2]:
            moved = True  # inside on one side and outside on the other, as the number of events decides
        elif _lies_beyond(mine, reached_other) or _lies_beyond(theirs, reached_one):
            ahead = True
        else:
            return "differs"
    if ahead:
        return "ahead"
    return "differs" if moved else "equal"


def _lies_beyond(origin: tuple[int, int, int] | None, reached: Reached) -> bool:
    return origin is not None and origin[1] >= reached.get(origin[0], 0)


Raw = tuple[bytes, bytes, bytes]
"""(id, all after `_rev`, all) of a document."""


@dataclass(slots=True)
class _Walk:
    """What the walk has found so far; first all `rows`, then each `document`."""

    same_version: bool
    documents: int = 0
    differing: int = 0
    reshaped: int = 0
    examples: list[str] = field(default_factory=list)
    suspects: dict[str, None] = field(default_factory=dict)
    """Aggregates to be looked at again, in order."""

    def rows(self, one: Raw | None, other: Raw | None) -> None:
        row = one or other
        if row is not None and not _same(one, other):
            self.suspects[row[0].decode().partition("\n")[0]] = None

    def document(self, one: Raw | None, other: Raw | None) -> None:
        self.documents += 1
        if _same(one, other):
            return
        found = one or other
        aggregate = "" if found is None else found[0].decode()
        if aggregate in self.suspects or one is None or other is None or not _same_events(one[2], other[2]):
            self.suspects[aggregate] = None
        elif self.same_version:
            self.differs(aggregate)
        else:
            self.reshaped += 1

    def differs(self, aggregate: str) -> None:
        self.differing += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(aggregate)


def _same(one: Raw | None, other: Raw | None) -> bool:
    return one is not None and other is not None and one[1] == other[1]


def _same_events(one: bytes, other: bytes) -> bool:
    """Whether two documents without rows were folded from the same events."""
    if _OVERFLOW in one or _OVERFLOW in other:
        return False  # or the text of a mail looks like it: it is looked at again then
    mine, theirs = (RawBSONDocument(each, _RAW)["_events"] for each in (one, other))
    return bool(mine.raw == theirs.raw)


async def _pairs(one: Collection, other: Collection) -> AsyncIterator[tuple[Raw | None, Raw | None]]:
    """Documents of one id in both, None where a side has none, in the order of ids."""
    ours, theirs = _documents(one), _documents(other)
    mine, yours = await anext(ours, None), await anext(theirs, None)
    while mine is not None or yours is not None:
        first = min(each[0] for each in (mine, yours) if each is not None)
        is_mine, is_yours = mine is not None and mine[0] == first, yours is not None and yours[0] == first
        yield (mine if is_mine else None), (yours if is_yours else None)
        if is_mine:
            mine = await anext(ours, None)
        if is_yours:
            yours = await anext(theirs, None)


async def _documents(collection: Collection) -> AsyncIterator[Raw]:
    found = collection.find_raw_batches({}, sort=[("_id", 1)], batch_size=READ_TOGETHER)
    async for batch in cast("AsyncIterator[bytes]", found):
        at = 0
        while at < len(batch):
            (length,) = _LENGTH.unpack_from(batch, at)
            (id_length,) = _LENGTH.unpack_from(batch, at + _ID_AT - 4)
            id_end = at + _ID_AT + id_length
            document = batch[at : at + length]
            yield batch[at + _ID_AT : id_end - 1], batch[id_end + _REV_BYTES : at + length], document
            at += length


def _event_id(raw: bytes) -> str:
    event_id: str = from_json(raw)["id"]
    return event_id


def _prefix(aggregate: str) -> dict[str, Any]:
    return {"$gte": f"{aggregate}\n", "$lt": f"{aggregate}\x0b"}
