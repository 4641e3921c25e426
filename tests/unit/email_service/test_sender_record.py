"""Answers are written down whatever becomes of another mail's stream, and each wave has a verdict of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from contracts.email.events import EmailCancelled
from services.email.domain.commands import PlanAttempts, PlannedAttempt
from services.email.entrypoints.sender import Sender
from services.email.ports import OutgoingAttempt
from services.email.streams import Held, Step
from services.kit.clock import Clock
from services.kit.errors import AppendOutcomeUnknown, PermanentError
from services.kit.event_store.memory import MemoryEventStore
from services.kit.event_store.port import Append, Appended, AppendResult, Draft, Stream, StreamIndex, stamp
from tests.unit.email_service.fakes import Answer, FakeProvider, Post, until

STRANGE = '{"type": "email.sent", "dataversion": 99}'


def appended_elsewhere(post: Post, message_id: str) -> None:
    """A newer build appends an event that this one cannot read."""
    kept = post.store._kept[message_id]
    stream = kept.stream
    kept.stream = replace(stream, version=stream.version + 1, wire=(*stream.wire, STRANGE))


class ForgetfulStore(MemoryEventStore):
    """Nobody knows what came of the appends to one stream, once it is set."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.forgotten: str | None = None

    async def append_many(self, appends: Sequence[Append]) -> list[AppendResult]:
        names = [append.stream.stream_id for append in appends]
        going = [append for append in appends if append.stream.stream_id != self.forgotten]
        results = iter(await super().append_many(going))
        return [AppendOutcomeUnknown(name) if name == self.forgotten else next(results) for name in names]


async def test_a_stream_that_became_unreadable_holds_up_no_other_answer() -> None:
    post = Post()
    (strange,) = await post.queue(to=["strange@example.com"])

    async def meanwhile(attempt: OutgoingAttempt) -> Answer:
        if attempt.recipient == "strange@example.com":
            appended_elsewhere(post, strange)
        return post.provider.take(attempt)

    sender = await _others_go_past(post, strange, meanwhile)

    async def all_told() -> bool:
        return sender.health().detail["openAttempts"] == 0

    await until(all_told, 60)
    assert sender.health().died is None
    await sender.stop(5.0)
    assert (await post.store.load(strange)).wire[-1] == STRANGE, "nothing was appended behind what nobody here can read"


async def test_an_answer_that_cannot_be_written_down_yet_holds_up_no_other() -> None:
    post = Post()
    store = ForgetfulStore(post.clock)
    post.store = post.streams.store = store
    (forgotten,) = await post.queue(to=["forgotten@example.com"])

    async def meanwhile(attempt: OutgoingAttempt) -> Answer:
        if attempt.recipient == "forgotten@example.com":
            store.forgotten = forgotten
        return post.provider.take(attempt)

    sender = await _others_go_past(post, forgotten, meanwhile)
    assert await post.phases([forgotten]) == ["Open"]
    store.forgotten = None
    await until(lambda: _are(post, [forgotten], "Sent"), 60)
    await sender.stop(5.0)


@pytest.mark.parametrize("readable", [True, False])
async def test_what_is_read_back_and_has_grown_is_held_as_it_stands(
    monkeypatch: pytest.MonkeyPatch, readable: bool
) -> None:
    """Our append stands, its answer was lost, and another process has cancelled the mail before it was read back."""
    post = Post()
    (message_id,) = await post.queue(to=["a@example.com", "b@example.com"])
    held = await post.streams.load(message_id)
    append = post.store.append_many

    async def read_back(appends: Sequence[Append]) -> list[AppendResult]:
        (result,) = await append(appends)
        assert isinstance(result, Appended)
        stream = result.stream
        more: Any = stamp(
            stream, [Draft(EmailCancelled(reason="r"))], now=post.clock.now(), new_id=post.ids.new, source="t",
            correlation="c",
        )  # fmt: skip
        wire = more[0].to_bytes().decode() if readable else STRANGE
        grown = Stream(message_id, stream.version + 1, (*stream.wire, wire), index=StreamIndex())
        return [Appended(grown)]

    monkeypatch.setattr(post.store, "append_many", read_back)
    plan = PlanAttempts([PlannedAttempt("a@example.com", "t1", "ses", "cheapest")])
    (result,) = await post.streams.append([Step(held, post.streams.decide(held, plan))])
    if readable:
        assert isinstance(result, Held)
        assert result.message.cancelled
    else:
        assert isinstance(result, PermanentError)
        assert result.reason == "unreadableStream"


async def _others_go_past(
    post: Post, message_id: str, meanwhile: Callable[[OutgoingAttempt], Awaitable[Answer]]
) -> Sender:
    """A sender that has called for this mail and got `meanwhile`, and has sent all others."""
    post.provider = FakeProvider(meanwhile)
    sender = post.sender()
    await sender.start()
    await until(lambda: _called(post, message_id), 60)
    others = await post.queue(20)
    await until(lambda: _are(post, others, "Sent"), 60)
    return sender


async def _are(post: Post, message_ids: Sequence[str], phase: str) -> bool:
    return set(await post.phases(message_ids)) == {phase}


async def _called(post: Post, message_id: str) -> bool:
    return message_id in {accepted for accepted, _ in post.provider.accepted}
