"""The sender over the real list: whoever is suppressed by the time an attempt would be recorded is not written to."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from contracts.email.values import Category
from services.email.adapters.suppressions import StreamSuppressionList
from services.email.domain import recipient
from services.email.handlers import RecipientStreams, suppress
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
        self.post.suppressions = StreamSuppressionList(self.store, self.keys)  # type: ignore[assignment]

    async def suppress(self, address: str, scope: str = recipient.ALL) -> None:
        await suppress(self.recipients, address, scope, cause="ticket-1", now=self.post.clock.now(), actor="admin:ops")

    async def ends(self, message_id: str, phase: str, seconds: float = 5.0) -> None:
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


async def test_a_recipient_who_cannot_be_read_is_waited_for() -> None:
    """A stream that a newer build wrote may hold a suppression that this one does not understand."""
    world = World()
    strange = Stream(world.keys.key(A), 1, ('{"type": "recipient.suppressed", "dataversion": 99}',))
    kept: Any = type("Kept", (), {"stream": strange, "pending_since": None})()
    world.store._kept[strange.stream_id] = kept
    (message_id,) = await world.post.queue()
    (other,) = await world.post.queue(to=["b@example.com"])
    sender = world.post.sender()
    await sender.start()

    async def told() -> bool:
        return "waiting" in str(sender.health().detail["state"])

    await until(told)
    assert world.post.provider.calls == []
    assert await world.post.types(message_id) == ["requested"]
    del world.store._kept[strange.stream_id]
    await world.ends(message_id, "Sent", seconds=10)
    await world.ends(other, "Sent", seconds=10)
    await sender.stop(3.0)


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
