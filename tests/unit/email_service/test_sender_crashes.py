"""The sending process dies between any two effects: nothing goes out twice, and everything ends somewhere."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta

import pytest

from contracts.email.events import EmailSendRejected
from services.email.domain.message import Policy
from services.email.entrypoints.sender import Sender
from services.email.entrypoints.sender_work import Limits
from services.email.ports import OutgoingAttempt
from tests.unit.email_service.fakes import Answer, CrashAt, FakeProvider, Post, until

POLICY = Policy(call_window=timedelta(seconds=0.6), unknown_after=timedelta(hours=1))
LIMITS = Limits(licence=0.25, call=0.25, lease=timedelta(seconds=0.3))
POINTS = ["sender.attempt", "sender.attempted", "sender.call", "sender.called", "sender.record", "sender.recorded"]


def sender_of(post: Post, checkpoints: CrashAt | None = None) -> Sender:
    return post.sender(limits=LIMITS, checkpoints=checkpoints)


async def die(sender: Sender) -> None:
    """End every task of a process at once, as kill -9 does."""
    tasks = [*sender._tasks.values(), *sender._caller._workers]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("nth", [1, 2, 5])
@pytest.mark.parametrize("point", POINTS)
async def test_a_crash_doubles_nothing_and_everything_ends(point: str, nth: int) -> None:
    post = Post(policy=POLICY)
    message_ids = await post.queue(10) + await post.queue(4, to=["a@example.com", "b@example.com", "c@example.com"])
    crash = CrashAt(point, nth)
    first = sender_of(post, crash)
    await first.start()

    async def crashed() -> bool:
        return crash.crashed or set(await post.phases(message_ids)) == {"Sent"}

    await until(crashed)
    await die(first)
    second = sender_of(post)
    await second.start()

    async def ended() -> bool:
        return set(await post.phases(message_ids)) <= {"Sent", "OutcomeUnknown"}

    await until(ended)
    await second.stop(3.0)
    assert max(Counter(post.provider.accepted).values(), default=0) <= 1
    phases = Counter(await post.phases(message_ids))
    assert phases["OutcomeUnknown"] <= (LIMITS.concurrency if crash.crashed else 0)
    assert len(post.provider.accepted) >= phases["Sent"]


async def test_many_crashes_in_a_row() -> None:
    post = Post(policy=POLICY)
    message_ids = await post.queue(120)
    kills = 0
    for round_ in range(12):
        crash = CrashAt(POINTS[round_ % len(POINTS)], 1 + round_ % 4)
        sender = sender_of(post, crash)
        await sender.start()
        try:
            await until(_crashed(crash), seconds=1.0)
        except AssertionError:
            pass
        await die(sender)
        kills += crash.crashed
    last = sender_of(post)
    await last.start()

    async def ended() -> bool:
        return set(await post.phases(message_ids)) <= {"Sent", "OutcomeUnknown"}

    await until(ended)
    await last.stop(3.0)
    assert kills >= 3
    assert max(Counter(post.provider.accepted).values(), default=0) <= 1
    assert Counter(await post.phases(message_ids))["OutcomeUnknown"] <= kills * LIMITS.concurrency


async def test_a_licence_that_lapsed_is_not_used_and_closed() -> None:
    """The process is held up between the append and the call: the clock that counts is looked at last."""
    post = Post(policy=POLICY)
    held_up = asyncio.Event()

    async def hold(attempt: OutgoingAttempt) -> Answer:
        if not held_up.is_set():
            held_up.set()
            time_lost = 0.4
            loop = asyncio.get_running_loop()
            end = loop.time() + time_lost
            while loop.time() < end:
                pass  # the whole process stands still, as under SIGSTOP
        return post.provider.take(attempt)

    post.provider = FakeProvider(hold)
    message_ids = await post.queue(8)
    sender = sender_of(post)
    await sender.start()

    async def ended() -> bool:
        return set(await post.phases(message_ids)) == {"Sent"}

    await until(ended)
    await sender.stop(3.0)
    assert max(Counter(post.provider.accepted).values(), default=0) <= 1
    codes = [
        event.data.code
        for message_id in message_ids
        for event in (await post.store.load(message_id)).events
        if isinstance(event.data, EmailSendRejected)
    ]
    assert codes
    assert set(codes) == {"notCalled"}


def _crashed(crash: CrashAt):  # type: ignore[no-untyped-def]
    async def crashed() -> bool:
        return crash.crashed

    return crashed
