"""An append while no MongoDB answers, and has not for so long that its time is not known any more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from unittest.mock import AsyncMock, MagicMock

import pytest
from pymongo.errors import BulkWriteError, InvalidOperation, OperationFailure, ServerSelectionTimeoutError

from contracts.email.events import EmailCancelled
from contracts.ids import uuid7
from services.kit.errors import AppendOutcomeUnknown, PermanentError, Unavailable
from services.kit.event_store.mongo import MongoEventStore
from services.kit.event_store.port import Append, Appended, Draft, Stream, StreamIndex, stamp
from services.kit.event_store.server_time import STALE_SECONDS
from services.kit.testing import FakeClock

NOW = datetime(2026, 11, 30, tzinfo=UTC)


class Server:
    """A store before a server that knows its time until it is `away`, and meets each bulk with `error`."""

    def __init__(self, error: Exception) -> None:
        collection = MagicMock()
        self.clock = FakeClock(NOW)
        self.hello = collection.database.client.admin.command = AsyncMock(return_value={"localTime": NOW})
        self.bulk_write = collection.bulk_write = AsyncMock(side_effect=error)
        self.store = MongoEventStore(collection, clock=self.clock)
        self._find = collection.find

    def holds_nothing(self) -> None:
        """Whatever is read back is not there."""

        async def nothing() -> AsyncIterator[None]:
            for each in list[None]():
                yield each

        self._find.side_effect = lambda *_: nothing()

    async def append(self) -> list[type]:
        """What became of two appends, in one bulk."""
        streams = [Stream.absent("one"), Stream.absent("two")]
        return [type(each) for each in await self.store.append_many([_append(stream) for stream in streams])]


def _append(stream: Stream) -> Append:
    draft = Draft(EmailCancelled(reason="r"))
    return Append(
        stream, stamp(stream, [draft], now=NOW, new_id=uuid7, source="t", correlation="c"), StreamIndex()
    )  # fmt: skip


async def test_an_append_is_answered_however_long_the_store_is_away() -> None:
    """Whoever appends answers of providers goes on trying as long as that lasts: an error would end it instead."""
    server = Server(ServerSelectionTimeoutError("away"))
    assert await server.append() == [Unavailable, Unavailable]
    server.hello.side_effect = ServerSelectionTimeoutError("away")
    server.clock.move(STALE_SECONDS + 1)
    assert await server.append() == [Unavailable, Unavailable]
    assert server.bulk_write.await_count == 1


async def test_an_append_that_the_server_refuses_may_work_once_it_is_mended() -> None:
    server = Server(OperationFailure("you are over your space quota", 8000))
    assert await server.append() == [Unavailable, Unavailable]


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        (8000, AppendOutcomeUnknown),  # Atlas: over the quota
        (14031, AppendOutcomeUnknown),  # OutOfDiskSpace
        (11601, AppendOutcomeUnknown),  # Interrupted
        (9001, AppendOutcomeUnknown),  # SocketException, of a mongos and its shard
        (None, AppendOutcomeUnknown),
        (9, PermanentError),  # FailedToParse: a bug
        (17419, PermanentError),  # the stream is full
    ],
)
async def test_one_append_of_a_bulk_that_the_server_refuses_may_work_once_it_is_mended(
    code: int | None, answer: type
) -> None:
    """And whoever appends answers of providers tries again: only what can never stand is given up."""
    server = Server(BulkWriteError({"writeErrors": [{"index": 0, "code": code}]}))
    server.holds_nothing()
    assert await server.append() == [answer, Appended]


async def test_what_the_driver_refuses_is_a_bug() -> None:
    with pytest.raises(InvalidOperation):
        await Server(InvalidOperation("after close")).append()
