"""The sender over the real list: whoever is suppressed by the time an attempt would be recorded is not written to."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest

from contracts.email.values import Category
from services.email.adapters.suppressions import StreamSuppressionList
from services.email.domain import recipient
from services.email.domain.decisions import WAVE
from services.email.handlers import RecipientStreams, suppress
from services.email.ports import Blocked, SuppressionQuery
from services.kit.addresses import RecipientKeys
from services.kit.clock import SystemClock
from services.kit.event_store.memory import MemoryEventStore
from services.kit.event_store.port import Stream
from tests.unit.email_service.fakes import Post, until

A = "a@example.com"


class World:
    """A sending side whose suppressions are read from recipients' streams."""

    def __init__(self) -> None:
        self.post = Post()
        self.keys = RecipientKeys(b"k" * 32)
        self.store = MemoryEventStore(SystemClock())
        self.recipients = RecipientStreams(self.store, self.keys, self.post.clock, self.post.ids, self.post._publish)
        self.list = StreamSuppressionList(self.store, self.keys)
        self.post.suppressions = self  # type: ignore[assignment]
        self.looks = 0
        self._unreadable: set[str] = set()

    async def blocked(self, queries: Sequence[SuppressionQuery], now: datetime) -> list[Blocked]:
        """As the list says it; how often it was asked for one who cannot be read is counted."""
        self.looks += sum(bool(self._unreadable & {*query.addresses}) for query in queries)
        return await self.list.blocked(queries, now)

    def make_unreadable(self, address: str) -> None:
        strange = Stream(self.keys.key(address), 1, ('{"type": "recipient.suppressed", "dataversion": 99}',))
        kept: Any = type("Kept", (), {"stream": strange, "pending_since": None})()
        self.store._kept[strange.stream_id] = kept
        self._unreadable.add(address)

    def make_readable(self, address: str) -> None:
        del self.store._kept[self.keys.key(address)]
        self._unreadable.remove(address)

    async def is_put_off(self, message_id: str) -> bool:
        """Whether it is left alone for longer than any work in hand is leased."""
        until = (await self.post.store.load(message_id)).leased_until
        return until is not None and until > self.post.clock.now() + timedelta(seconds=30)

    async def suppress(self, address: str, scope: str = recipient.ALL) -> None:
        await suppress(self.recipients, address, scope, cause="ticket-1", now=self.post.clock.now(), actor="admin:ops")

    async def ends(self, message_id: str, phase: str, seconds: float = 60.0) -> None:
        async def there() -> bool:
            return await self.post.phases([message_id]) == [phase]

        await until(there, seconds)


async def test_a_suppression_counts_until_the_very_step_that_records_the_attempt() -> None:
    world = World()
    (before,) = await world.post.queue()
    sender = world.post.sender()
    await sender.start()
    await world.ends(before, "Sent")  # free, when it was looked up first
    (waiting,) = await world.post.queue(send_at=world.post.clock.now() + timedelta(seconds=0.3))
    await world.suppress(A)
    await world.ends(waiting, "Failed")
    await sender.stop(3.0)
    assert [message_id for message_id, _ in world.post.provider.accepted] == [before]
    assert (await world.post.types(waiting)) == ["requested", "failed"]


async def test_any_spelling_is_the_same_recipient() -> None:
    world = World()
    await world.suppress("A@Example.COM")
    (message_id,) = await world.post.queue(to=["a@example.com"])
    sender = world.post.sender()
    await sender.start()
    await world.ends(message_id, "Failed")
    await sender.stop(3.0)
    assert world.post.provider.calls == []


async def test_a_recipient_who_cannot_be_read_is_waited_for_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that a newer build wrote may hold a suppression that this one does not understand."""
    world = World()
    world.make_unreadable(A)
    (message_id,) = await world.post.queue()
    (both,) = await world.post.queue(to=[A, "c@example.com"])
    others = await world.post.queue(30, to=["b@example.com"])
    sender = world.post.sender()
    await sender.start()
    for other in others:
        await world.ends(other, "Sent", seconds=60)
    for waiting in (message_id, both):
        await until(partial(world.is_put_off, waiting), 60)
    assert await world.post.phases([message_id, both]) == ["Queued", "Queued", "Sent"]
    assert await world.post.types(message_id) == ["requested"]
    assert world.looks == 2, "one look, and one token, for each of the two mails"
    assert sender.health().ready
    await sender.stop(3.0)
    world.make_readable(A)
    monkeypatch.setattr(world.post.store, "_in_force", lambda stream: stream.leased_by == "sender-2")
    later = world.post.sender()
    await later.start()
    await world.ends(message_id, "Sent", seconds=60)
    await later.stop(3.0)


async def test_more_who_cannot_be_read_than_a_wave_has_hold_up_no_other_recipient() -> None:
    world = World()
    strangers = [f"s{n}@example.com" for n in range(WAVE + 2)]
    for each in strangers:
        world.make_unreadable(each)
    (message_id,) = await world.post.queue(to=[*strangers, A])
    sender = world.post.sender()
    await sender.start()
    await until(partial(world.is_put_off, message_id), 60)
    await sender.stop(3.0)
    assert [recipient for _, recipient in world.post.provider.accepted] == [A]
    assert (await world.post.types(message_id)) == ["requested", "sendAttempted", "sent"]


async def test_each_scope_stops_what_it_is_about() -> None:
    world = World()
    await world.suppress("all@example.com")
    await world.suppress("marketing@example.com", recipient.MARKETING)
    await world.suppress("list@example.com", recipient.list_scope("news"))
    to = ["all@example.com", "marketing@example.com", "list@example.com"]
    kinds: list[tuple[Category, str | None]] = [
        ("notification", None), ("auth", None), ("marketing", "news"), ("marketing", "offers"),
    ]  # fmt: skip
    message_ids = [(await world.post.queue(to=to, category=c, list_id=name))[0] for c, name in kinds]
    sender = world.post.sender()
    await sender.start()

    async def ended() -> bool:
        return set(await world.post.phases(message_ids)) <= {"Sent", "Failed"}

    await until(ended)
    await sender.stop(3.0)
    assert [await world.post.phases([each]) for each in message_ids] == [
        ["Failed", "Sent", "Sent"],
        ["Failed", "Sent", "Sent"],
        ["Failed", "Failed", "Failed"],
        ["Failed", "Failed", "Sent"],
    ]
