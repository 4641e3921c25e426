"""Two sending processes on a real MongoDB keep together to a domain's ramp and to a provider's day."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import uuid4

import pytest

from services.email.domain.warm_up import Ramp, domain_key, provider_key
from services.email.entrypoints.sender import Sender
from services.kit.clock import SystemClock
from services.kit.daily import until_next_day
from services.kit.daily_mongo import MongoDailyCounts
from services.kit.event_store.mongo import MongoEventStore
from services.kit.mongo import connect
from services.kit.rate_mongo import MongoRateLimits
from tests.unit.email_service.fakes import FakeProvider, Post, until

NEW, OLD = "crm@new.example", "crm@old.example"
RAMP, DAILY = 150, 120
HANG = 180.0


@dataclass
class World:
    """Two processes' senders, each with a MongoDB client of its own, on one database."""

    post: Post = field(default_factory=Post)
    senders: list[Sender] = field(default_factory=list)

    async def phases(self, message_ids: list[str], phase: str, count: int) -> None:
        async def there() -> bool:
            return (await self.post.phases(message_ids)).count(phase) == count

        await until(there, HANG)

    async def put_off(self, message_ids: list[str]) -> set[str]:
        """Those that are left alone for longer than any work in hand is leased."""
        soon = self.post.clock.now() + timedelta(seconds=60)
        streams = await self.post.store.load_many(message_ids)
        return {
            message_id
            for message_id, stream in streams.items()
            if stream.leased_until is not None and stream.leased_until > soon
        }


@pytest.fixture
async def world(mongo_url: str) -> AsyncIterator[World]:
    if (left := until_next_day(SystemClock().now())) < 120:  # one day for the whole test
        await asyncio.sleep(left)
    name = f"daily_{uuid4().hex[:12]}"
    world, post = World(), Post()
    world.post = post
    async with AsyncExitStack() as stack:
        post.ramps = {"new.example": Ramp(post.clock.now().date(), (RAMP,))}
        post.daily_limits = {"mailgun": DAILY}
        post.provider, post.others = FakeProvider(name="mailgun"), [FakeProvider(name="ses")]
        for _ in range(2):
            client = connect(mongo_url)
            stack.push_async_callback(client.close)
            stack.push_async_callback(client.drop_database, name)
            database = client[name]
            store = MongoEventStore(database["streams"])
            post.store = post.streams.store = store  # type: ignore[assignment]
            post.rates = MongoRateLimits(database["rates"])  # type: ignore[assignment]
            post.daily = MongoDailyCounts(database["daily_counts"], post.clock)
            await store.prepare()
            world.senders.append(post.sender())
        yield world
        await asyncio.gather(*(sender.stop(5) for sender in world.senders))


async def test_two_processes_together_keep_to_the_ramp_and_to_the_provider_s_day(world: World) -> None:
    post = world.post
    auth = await post.queue(10, from_=NEW, category="auth", priority="urgent")
    warmed = await post.queue(300, from_=NEW)
    others = await post.queue(100, from_=OLD)
    await asyncio.gather(*(sender.start() for sender in world.senders))
    await world.phases(others, "Sent", len(others))
    await world.phases(auth, "Sent", len(auth))

    async def over() -> bool:
        phases = await post.phases(warmed)
        return phases.count("Sent") + len(await world.put_off(warmed)) == len(warmed)

    await until(over, HANG)
    accepted = {provider.name: provider.accepted for provider in (post.provider, *post.others)}
    from_new = [message_id for taken in accepted.values() for message_id, _ in taken if message_id not in set(others)]
    sent = (await post.phases(warmed)).count("Sent")

    async def settled() -> bool:
        return (await post.daily.used([provider_key("mailgun")]))[provider_key("mailgun")].used == len(
            accepted["mailgun"]
        )

    await until(settled, HANG)
    used = await post.daily.used([domain_key("new.example"), provider_key("mailgun")])
    # What is of category auth goes out whatever is left, and is counted: the ramp's 150 are passed by it at most.
    assert RAMP - len(auth) <= sent <= RAMP
    assert len(from_new) == used[domain_key("new.example")].used == sent + len(auth)
    assert 0 < len(accepted["mailgun"]) == used[provider_key("mailgun")].used <= DAILY
    assert len(accepted["ses"]) + len(accepted["mailgun"]) == len(from_new) + len(others)

    more = await post.queue(DAILY, from_=OLD)
    await world.phases(more, "Sent", len(more))
    assert len(accepted["mailgun"]) <= DAILY
    assert (await post.phases(warmed)).count("Sent") == sent, "what waits goes on waiting"
