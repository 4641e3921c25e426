"""A licence lapses five seconds after its append was begun, whatever the store did meanwhile, and is then closed."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta

import pytest

from contracts.email.events import EmailSendRejected
from services.email.domain.message import Policy
from services.email.entrypoints.sender_work import Limits
from services.email.ports import OutgoingAttempt
from services.kit.clock import Clock
from services.kit.errors import AppendOutcomeUnknown, Unavailable
from services.kit.event_store.memory import MemoryEventStore
from services.kit.event_store.port import Append, Appended, AppendResult, Stream
from tests.unit.email_service.fakes import Answer, FakeProvider, Post, until

POLICY = Policy(call_window=timedelta(seconds=1.2), unknown_after=timedelta(hours=1))
LIMITS = Limits(licence=0.5, call=0.5, lease=timedelta(seconds=0.6))
TOO_LONG = 0.7


class TroubledStore(MemoryEventStore):
    """Written, and the answer is late (`slow_append`) or lost (`lose`), for the first append of an attempt alone; then
    the reading back takes `slow_read` seconds, or fails (`no_read`).
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.slow_append = self.slow_read = 0.0
        self.lose = self.no_read = False
        self._troubled: str | None = None

    async def append_many(self, appends: Sequence[Append]) -> list[AppendResult]:
        results = await super().append_many(appends)
        attempts = any(event.type == "email.sendAttempted" for append in appends for event in append.events)
        if attempts and self._troubled is None:
            self._troubled = appends[0].stream.stream_id
            await asyncio.sleep(self.slow_append)
            if self.lose:
                return [AppendOutcomeUnknown(append.stream.stream_id, "lost on purpose") for append in appends]
        return results

    async def load_many(self, stream_ids: Collection[str]) -> Mapping[str, Stream]:
        if self._troubled in stream_ids:
            await asyncio.sleep(self.slow_read)
            self.slow_read = 0.0
            if self.no_read:
                self.no_read = False
                raise Unavailable("memory", "the reading back fails")
        return await super().load_many(stream_ids)


def post_on(store: TroubledStore, post: Post) -> None:
    post.store = post.streams.store = store


async def sent_after_closing(post: Post) -> tuple[str, list[str]]:
    """One mail, sent in the end; its stream's types, and the codes with which attempts were closed."""
    (message_id,) = await post.queue()
    sender = post.sender(limits=LIMITS)
    await sender.start()

    async def ended() -> bool:
        return await post.phases([message_id]) in (["Sent"], ["OutcomeUnknown"])

    try:
        await until(ended)
    finally:
        await sender.stop(3.0)
    events = (await post.store.load(message_id)).events
    closed = [event.data.code for event in events if isinstance(event.data, EmailSendRejected)]
    return message_id, closed


@pytest.mark.parametrize("trouble", ["slow append", "slow read-back"])
async def test_a_licence_counts_from_the_beginning_of_its_append(trouble: str) -> None:
    """Confirmed too late, directly or by reading back: not called, closed by its holder, and attempted anew."""
    post = Post(policy=POLICY)
    store = TroubledStore(post.clock)
    post_on(store, post)
    if trouble == "slow append":
        store.slow_append = TOO_LONG
    else:
        store.lose, store.slow_read = True, TOO_LONG
    message_id, closed = await sent_after_closing(post)
    assert closed == ["notCalled"]
    assert await post.phases([message_id]) == ["Sent"]
    assert len(post.provider.calls) == 1
    first = next(e.data for e in (await post.store.load(message_id)).events if e.type == "email.sendAttempted")
    assert post.provider.calls[0].attempt_id != first.attempt_id  # type: ignore[attr-defined]


async def test_an_attempt_that_turns_up_late_is_closed_by_its_holder() -> None:
    """Neither confirmed nor found when read back, and in the stream after all: it was never called, and says so."""
    post = Post(policy=POLICY)
    store = TroubledStore(post.clock)
    post_on(store, post)
    store.lose, store.no_read = True, True
    message_id, closed = await sent_after_closing(post)
    assert closed == ["notCalled"]
    assert await post.phases([message_id]) == ["Sent"]
    assert len(post.provider.calls) == 1


class CountingStore(MemoryEventStore):
    """`most_open`: attempts that stood without an answer at one time, at most."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.open = self.most_open = 0

    async def append_many(self, appends: Sequence[Append]) -> list[AppendResult]:
        results = await super().append_many(appends)
        for append, result in zip(appends, results, strict=True):
            types = [event.type for event in append.events] if isinstance(result, Appended) else []
            self.open += types.count("email.sendAttempted")
            self.open -= sum(name in ("email.sent", "email.sendRejected", "email.sendOutcomeUnknown") for name in types)
        self.most_open = max(self.most_open, self.open)
        return results


async def test_no_more_attempts_are_recorded_than_there_are_places() -> None:
    """A crash leaves at most so many unknown: what is recorded counts, whether its call has begun or not."""
    post = Post()
    post.store = post.streams.store = store = CountingStore(post.clock)

    async def slow(attempt: OutgoingAttempt) -> Answer:
        await asyncio.sleep(0.02)
        return post.provider.take(attempt)

    post.provider = FakeProvider(slow)
    message_ids = await post.queue(40)
    sender = post.sender(limits=Limits(concurrency=7))
    await sender.start()

    async def sent() -> bool:
        return set(await post.phases(message_ids)) == {"Sent"}

    await until(sent)
    await sender.stop(3.0)
    assert store.open == 0
    assert 1 < store.most_open <= 7
