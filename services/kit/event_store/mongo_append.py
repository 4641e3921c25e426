"""One bulk of appends to MongoDB, followed through until each item's fate is known or cannot be known.

An item whose answer was lost may still be on its way. So it is read back, and while its stream is unchanged it is
written again: of the same append sent twice only one can pass the guard, and whichever does is ours. What decides is
the stored strings at our versions: ours means appended, another's means that we lost the race.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pymongo.errors import BulkWriteError, DocumentTooLarge, OperationFailure, PyMongoError, WriteConcernError

from contracts.base import from_micros
from services.kit.cancellation import cancellation_kept
from services.kit.clock import Clock
from services.kit.errors import AppendOutcomeUnknown, ExpectedVersionConflict, PermanentError, Unavailable
from services.kit.event_store.documents import GUARD_FAILED, append_operation, read_stream
from services.kit.event_store.port import Append, Appended, AppendResult, Stream
from services.kit.mongo import OF_THE_DOCUMENT, Collection, foreign_errors, is_transient, is_unsent

SETTLE_SECONDS = 4.0
"""How long lost answers are followed up, counted from the first write. A licence to send lapses after 5 s."""

MAX_APPEND_BYTES = 8_000_000
_BULK_OPERATIONS = 1_000
_BULK_BYTES = 24_000_000
"""PyMongo splits a bulk at 48 MB, and inserts from updates; ours never is, so "not sent" is true of the whole bulk."""
_TOO_LARGE = frozenset({10334, 17419, 17420})
_PAUSE_SECONDS = 0.1


@dataclass(slots=True)
class Item:
    """One append under way."""

    append: Append
    wire: tuple[str, ...]
    size: int
    result: AppendResult | None = None
    detail: str = ""

    @property
    def version(self) -> int:
        """The version that the stream has when this stands."""
        return self.append.stream.version + len(self.wire)


class BulkAppend:
    """The items of one `append_many`; `run` gives each a result."""

    def __init__(self, collection: Collection, clock: Clock, appends: Sequence[Append], server_micros: int) -> None:
        self._collection = collection
        self._clock = clock
        self._server_micros = server_micros
        self._items = [_item(append) for append in appends]

    async def run(self) -> list[AppendResult]:
        """Write, and follow up what got no answer.

        Raises:
            PyMongoError: the driver refuses the command itself, which is a bug. What the server refuses (a full disk, a
                quota, a bad name) may work once somebody has mended it: Unavailable.
        """
        going = [item for item in self._items if item.result is None]
        first = [item for item in going if item.append.stream.version == 0]
        later = [item for item in going if item.append.stream.version > 0]
        for bulk in (*_bulks(first), *_bulks(later)):
            give_up = self._clock.monotonic() + SETTLE_SECONDS
            lost = await self._write(bulk, again=False)
            while lost:
                lost = await self._settle(lost, give_up)
        return [item.result for item in self._items if item.result is not None]

    async def _write(self, items: Sequence[Item], *, again: bool) -> list[Item]:
        """Write the items; returns those whose fate is open. `again`: an earlier write of theirs may still land."""
        operations = [append_operation(item.append, item.wire, self._server_micros) for item in items]
        try:
            with cancellation_kept():
                await self._collection.bulk_write(operations, ordered=False)
        except BulkWriteError as error:
            details: Mapping[str, Any] = error.details or {}
            codes = {failure["index"]: failure.get("code") or 0 for failure in details.get("writeErrors", ())}
            acknowledged = not details.get("writeConcernErrors")
        except DocumentTooLarge:
            codes, acknowledged = dict.fromkeys(range(len(items)), 17419), True
        except PyMongoError as error:
            if is_unsent(error) and not again:
                for item in items:
                    item.result = Unavailable("MongoDB", "no primary answers; nothing was written")
                return []
            if not is_transient(error) and not isinstance(error, WriteConcernError):
                if not isinstance(error, OperationFailure):
                    raise
                if not again:
                    for item in items:
                        item.result = Unavailable("MongoDB", f"the server refuses to write (code {error.code})")
                    return []
            return _open(items, type(error).__name__)
        else:
            codes, acknowledged = {}, True
        return [
            item
            for index, item in enumerate(items)
            if not self._judge(item, codes.get(index), acknowledged=acknowledged, again=again)
        ]

    def _judge(self, item: Item, code: int | None, *, acknowledged: bool, again: bool) -> bool:
        """Set the item's result by what the server said of it; False where that says nothing final."""
        if code is None and acknowledged:
            item.result = Appended(self._appended(item))
        elif code in _TOO_LARGE:
            item.result = PermanentError("streamTooLarge", f"stream {item.append.stream.stream_id} holds no more")
        elif code in GUARD_FAILED and acknowledged and not again:
            item.result = ExpectedVersionConflict(item.append.stream.stream_id, item.append.stream.version)
        elif code in OF_THE_DOCUMENT:
            item.result = PermanentError("appendRefused", f"stream {item.append.stream.stream_id}: code {code}")
        else:  # an election, a full disk, a quota, an interrupted operation: whether it stands says the stream
            item.detail = "no majority acknowledged it" if code is None else f"code {code}"
            return False
        return True

    async def _settle(self, lost: Sequence[Item], give_up: float) -> list[Item]:
        """Read the items back, write again those whose stream is unchanged; returns those still open."""
        if self._clock.monotonic() >= give_up:
            for item in lost:
                item.result = AppendOutcomeUnknown(item.append.stream.stream_id, item.detail)
            return []
        try:
            with foreign_errors():
                found = self._collection.find({"_id": {"$in": [item.append.stream.stream_id for item in lost]}})
                streams = {document["_id"]: read_stream(document) async for document in found}
        except Unavailable:
            await self._clock.sleep(_PAUSE_SECONDS)
            return list(lost)
        unchanged = [item for item in lost if not _recognise(item, streams.get(item.append.stream.stream_id))]
        if not unchanged:
            return []
        still_lost = await self._write(unchanged, again=True)
        if still_lost:
            await self._clock.sleep(_PAUSE_SECONDS)
        return still_lost

    def _appended(self, item: Item) -> Stream:
        append, before = item.append, item.append.stream
        owner, until = (before.leased_by, before.leased_until) if append.keep_lease else (None, None)
        if append.lease is not None:
            owner = append.lease.owner
            until = from_micros(self._server_micros) + append.lease.lasts
        return before.extended(append.events, item.wire, index=append.index, leased_by=owner, leased_until=until)


def _item(append: Append) -> Item:
    wire = tuple(event.to_bytes().decode() for event in append.events)
    item = Item(append, wire, sum(map(len, wire)))
    if item.size > MAX_APPEND_BYTES:
        item.result = PermanentError("streamTooLarge", f"{item.size} characters in one append")
    return item


def _recognise(item: Item, found: Stream | None) -> bool:
    """Set the item's result by what is stored; False while its stream is as it was before."""
    before = item.append.stream
    version = 0 if found is None else found.version
    if version == before.version:
        return False
    if found is not None and found.wire[before.version : item.version] == item.wire:
        item.result = Appended(replace(found, others=before.version))
    else:
        item.result = ExpectedVersionConflict(before.stream_id, before.version, version)
    return True


def _open(items: Sequence[Item], detail: str) -> list[Item]:
    for item in items:
        item.detail = detail
    return list(items)


def _bulks(items: Sequence[Item]) -> Iterator[list[Item]]:
    bulk: list[Item] = []
    size = 0
    for item in items:
        if bulk and (len(bulk) == _BULK_OPERATIONS or size + item.size > _BULK_BYTES):
            yield bulk
            bulk, size = [], 0
        bulk.append(item)
        size += item.size
    if bulk:
        yield bulk
