"""The intake: commands become streams once, whatever comes twice, late, wrong or before a crash."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from contracts.base import to_micros
from contracts.email.commands import SendEmail
from contracts.email.events import EmailFailed, EmailRequested
from contracts.topics import LANES
from services.email.domain.content import MessageContent, SealedBody
from services.email.domain.request import SenderIdentity, request_hash
from services.email.entrypoints.intake import FreshMail, Intake
from services.email.ports import Checkpoints, ContentKey, NewContent, NoCheckpoints
from services.kit.actors import Role
from services.kit.kafka.records import DONE, Outcome, Park, Record, Retry
from services.kit.testing import FakeClock
from tests.unit.email_service.fakes import Crash, CrashAt, PlainRenderer, Post, until

IDENTITY = SenderIdentity.of("Mailroom <crm@example.com>", "help@example.com", ["sales@example.com"])
IDS = [f"0192f0c1-2b7a-7d3e-9c1a-{n:012d}" for n in range(100)]


class Door:
    """An intake on stores in memory, and records for it."""

    def __init__(
        self,
        *,
        checkpoints: Checkpoints | None = None,
        post: Post | None = None,
        roles: dict[str, tuple[Role, ...]] | None = None,
    ) -> None:
        self.post = post or Post()
        self.roles = roles
        self.handler = self.process(checkpoints or NoCheckpoints())
        self.offset = 0

    def process(self, checkpoints: Checkpoints, sender: FreshMail | None = None) -> Intake:
        return Intake(
            self.post.streams,
            self.post.contents,
            PlainRenderer(),
            IDENTITY,
            self.post.clock,
            checkpoints,
            sender=sender,
            roles=self.roles,
        )

    def record(
        self, kind: str, message_id: str, *, lane: str = "normal", actor: str | None = None, **data: Any
    ) -> Record:
        self.offset += 1
        envelope: dict[str, Any] = {
            "specversion": "1.0",
            "id": f"cmd-{self.offset}",
            "source": "crm",
            "type": f"email.{kind}",
            "subject": message_id,
            "data": {"messageId": message_id, **data},
        }
        if actor:
            envelope["actor"] = actor
        now_ms = to_micros(self.post.clock.now()) // 1000
        return Record(LANES[lane].name, 0, self.offset, now_ms, message_id.encode(), json.dumps(envelope).encode())

    def send(self, message_id: str, *, lane: str = "normal", **fields: Any) -> Record:
        data: dict[str, Any] = {
            "to": "a@example.com", "subject": "Hello", "text": "hi", "category": "notification",
            "userId": "u1", "priority": lane,
        }  # fmt: skip
        return self.record("send", message_id, lane=lane, **{k: v for k, v in (data | fields).items() if v is not None})

    def cancel(self, message_id: str, actor: str | None = "user:u1") -> Record:
        return self.record("cancel", message_id, lane="urgent", actor=actor)

    async def handle(self, *records: Record) -> list[Outcome]:
        return list(await self.handler(records))

    async def events(self, message_id: str) -> list[Any]:
        return [event.data for event in (await self.post.store.load(message_id)).events]

    async def request(self, message_id: str) -> EmailRequested:
        found = next(data for data in await self.events(message_id) if isinstance(data, EmailRequested))
        assert isinstance(found, EmailRequested)
        return found


def reasons(outcomes: list[Outcome]) -> list[str]:
    return [outcome.reason if isinstance(outcome, Park) else "" for outcome in outcomes]


async def test_a_command_becomes_a_stream_with_content_and_a_time_to_be_looked_at() -> None:
    door = Door()
    assert await door.handle(door.send(IDS[0], html="<p>hi</p>", tags={"k": "v"}, customData={"n": 1})) == [DONE]
    stream = await door.post.store.load(IDS[0])
    request = await door.request(IDS[0])
    assert request.from_ == "Mailroom <crm@example.com>"
    assert (request.reply_to, request.priority, request.tags) == ("help@example.com", "normal", {"k": "v"})
    assert stream.index.due_at is not None
    assert (stream.index.lane, stream.index.owner_user) == ("normal", "u1")
    assert stream.events[0].causationid == "cmd-1"
    assert request.content is not None
    key = ContentKey(IDS[0], request.content.ref)
    content = MessageContent.from_bytes(door.post.contents.bytes_of(key))
    assert (content.html, content.text) == ("<p>hi</p>", "hi")
    assert "hi" not in stream.wire[0]
    assert door.post.published[IDS[0]].version == 1


@pytest.mark.parametrize(
    ("category", "lifetime"), [("auth", timedelta(minutes=15)), ("notification", timedelta(days=3))]
)
async def test_when_nobody_says_when_it_expires(category: str, lifetime: timedelta) -> None:
    door = Door()
    await door.handle(door.send(IDS[0], category=category))
    request = await door.request(IDS[0])
    assert abs(request.expires_at - door.post.clock.now() - lifetime) < timedelta(seconds=5)


async def test_a_code_that_lay_in_kafka_for_an_hour_has_expired() -> None:
    door = Door()
    record = door.send(IDS[0], category="auth")
    late = Record(record.topic, 0, 1, record.timestamp_ms - 3_600_000, record.key, record.value)
    await door.handle(late)
    assert (await door.request(IDS[0])).expires_at < door.post.clock.now()


def by_broker(record: Record, at: datetime) -> Record:
    """The record as the broker wrote it at this moment, whatever its producer said."""
    return replace(record, timestamp_ms=int(at.timestamp() * 1000), log_append_time=True)


@pytest.mark.parametrize(("category", "lifetime"), [("auth", timedelta(minutes=15)), ("marketing", timedelta(days=3))])
@pytest.mark.parametrize("ahead", [timedelta(), timedelta(minutes=20), timedelta(minutes=-20)], ids=str)
async def test_a_default_expiry_counts_from_the_brokers_clock(
    category: str, lifetime: timedelta, ahead: timedelta
) -> None:
    """Whatever the clocks of the producer (an hour behind here) and of this process say."""
    clock = FakeClock()
    door = Door(post=Post(clock=clock))
    broker = clock.now()
    clock.jump(ahead.total_seconds())
    record = door.send(IDS[0], category=category, listId="news" if category == "marketing" else None)
    command = json.loads(record.value or b"{}") | {"time": "2025-12-31T23:00:00Z"}
    await door.handle(by_broker(replace(record, value=json.dumps(command).encode()), broker))
    assert (await door.request(IDS[0])).expires_at == broker + lifetime


async def test_a_code_that_lay_in_kafka_for_an_hour_is_over_by_the_brokers_clock() -> None:
    clock = FakeClock()
    door = Door(post=Post(clock=clock))
    record = by_broker(door.send(IDS[0], category="auth"), clock.now())
    clock.move(3600)
    await door.handle(record)
    assert (await door.request(IDS[0])).expires_at == clock.now() - timedelta(minutes=45)


async def test_a_repeat_changes_nothing_and_another_content_is_parked() -> None:
    door = Door()
    assert await door.handle(door.send(IDS[0]), door.send(IDS[0])) == [DONE, DONE]
    assert await door.handle(door.send(IDS[0])) == [DONE]
    outcomes = await door.handle(door.send(IDS[0], subject="Other"), door.send(IDS[1]))
    assert reasons(outcomes) == ["conflictingRepeat", ""]
    assert isinstance(outcomes[0], Park)
    assert outcomes[0].kind == "conflictingRepeat"
    assert len(await door.events(IDS[0])) == 1
    assert len(door.post.contents.kept) == 2


async def test_what_a_repeat_is_does_not_depend_on_the_door() -> None:
    body = SealedBody(html="<p>hi</p>", template_data={"b": 1, "a": None})
    base: dict[str, Any] = {
        "message_id": IDS[0],
        "to": ["a@EXAMPLE.com"],
        "subject": "s",
        "category": "system",
        "user_id": "u",
    }
    post = Post()
    sealed, file = await post.contents.put_many(
        [NewContent(IDS[0], "system", "sealed", body.to_bytes()), NewContent(IDS[0], "system", "attachment", b"pdf")]
    )
    name = {"filename": "f", "contentType": "a/b"}
    inline = SendEmail.model_validate(
        base
        | {"html": "<p>hi</p>", "templateData": {"a": None, "b": 1}}
        | {"attachments": [name | {"content": base64.b64encode(b"pdf").decode()}]}
    )
    stored = SendEmail.model_validate(
        base
        | {"sealed": {"ref": sealed.ref, "sha256": sealed.sha256}, "priority": "normal"}
        | {"attachments": [name | {"ref": file.ref, "sha256": file.sha256, "size": 3}]}
    )
    assert request_hash(inline) == request_hash(stored)
    for other in ({"subject": "t"}, {"to": ["b@example.com"]}, {"priority": "high"}, {"cc": ["b@example.com"]}):
        assert request_hash(stored.model_copy(update=other)) != request_hash(stored)


@pytest.mark.parametrize(
    ("body", "hashed"),
    [
        ({"text": "How are you?"}, "40ada8f5313d005a"),
        ({"html": "<p>x</p>", "text": " \n"}, "2c1eab38f4493902"),
        ({"html": "", "text": "x"}, "a2d6f2d45e550dd6"),
        (
            {"to": ["Ann@Bücher.Example", "b@INBOX.example"], "text": "x",
             "attachments": [{"filename": "a.txt", "contentType": "Text/Plain", "content": "eA=="}]},
            "3252f3336319422f",
        ),
    ],
)  # fmt: skip
def test_a_repeat_is_told_as_the_versions_before_this_one_tell_it(body: dict[str, Any], hashed: str) -> None:
    """Else a command that was taken before an upgrade, and comes again after it, would be parked as another one."""
    command = {
        "messageId": "0192f0c1-2b7a-7d3e-9c1a-5b8f3e2d1c0b", "userId": "ann", "to": "ann@inbox.example",
        "subject": "Hello", "category": "notification",
    }  # fmt: skip
    assert request_hash(SendEmail.model_validate(command | body)).startswith(hashed)


async def test_sealed_bodies_are_read_under_their_own_message_only() -> None:
    door = Door()
    body = SealedBody(text="secret")
    (ref,) = await door.post.contents.put_many([NewContent(IDS[0], "notification", "sealed", body.to_bytes())])
    sealed = {"ref": ref.ref, "sha256": ref.sha256}
    assert await door.handle(
        door.send(IDS[0], text=None, sealed=sealed), door.send(IDS[1], text=None, sealed=sealed)
    ) == [DONE, DONE]
    assert (await door.request(IDS[0])).content is not None
    assert [type(data) for data in await door.events(IDS[1])] == [EmailRequested, EmailFailed]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"templateId": "broken", "text": None}, "renderingFailed"),
        ({"from": "stranger@example.com"}, "invalid"),
    ],
)
async def test_what_can_never_be_sent_is_accepted_and_fails_at_once(fields: dict[str, Any], reason: str) -> None:
    door = Door()
    assert await door.handle(door.send(IDS[0], to=["a@example.com", "b@example.com"], **fields)) == [DONE]
    requested, *failed = await door.events(IDS[0])
    assert requested.content is None
    assert [data.reason for data in failed] == [reason, reason]
    assert (await door.post.store.load(IDS[0])).index.due_at is None


async def test_a_file_by_its_id_is_only_named() -> None:
    door = Door()
    inline = {"filename": "a.txt", "contentType": "text/plain", "content": "YQ=="}
    assert await door.handle(door.send(IDS[0], attachments=[{"fileId": IDS[9]}, inline])) == [DONE]
    request = await door.request(IDS[0])
    assert [each.file_id for each in request.attachments or ()] == [IDS[9], None]
    assert request.content is not None
    stored = MessageContent.from_bytes(door.post.contents.bytes_of(ContentKey(IDS[0], request.content.ref)))
    assert [(each.file_id, each.content) for each in stored.attachments] == [(IDS[9], None), (None, b"a")]


async def test_bad_commands_are_parked_and_their_neighbours_go_on() -> None:
    door = Door()
    good = door.send(IDS[0])
    wrong_lane = Record(LANES["low"].name, 0, 51, 0, good.key, good.value)
    other_key = Record(good.topic, 0, 52, 0, IDS[1].encode(), good.value)
    not_json = Record(good.topic, 0, 53, 0, b"k", b"{")
    null = Record(good.topic, 0, 54, 0, b"k", None, (("h", None), ("g", b"\xff")))
    unknown_field = door.send(IDS[2], colour="red")
    unknown_type = door.record("explode", IDS[3])
    subject = json.loads(good.value or b"{}")
    subject["data"]["messageId"] = IDS[4]
    wrong_subject = Record(good.topic, 0, 55, 0, good.key, json.dumps(subject).encode())
    cancel_elsewhere = door.record("cancel", IDS[5], lane="low")
    outcomes = await door.handle(
        wrong_lane, other_key, not_json, null, unknown_field, unknown_type, wrong_subject, cancel_elsewhere, good
    )
    assert reasons(outcomes) == [
        "wrongLane", "wrongKey", "notJson", "nullValue", "invalid", "unknownType", "wrongSubject", "wrongLane", "",
    ]  # fmt: skip
    assert {outcome.kind for outcome in outcomes if isinstance(outcome, Park)} == {"poison"}
    assert outcomes[-1] == DONE


async def test_what_a_topic_does_not_let_claim_is_parked_and_says_what_it_does() -> None:
    door = Door(roles={LANES["normal"].name: ("user",), LANES["urgent"].name: ("service", "user")})
    outcomes = await door.handle(
        door.send(IDS[0], actor="user:ann"),
        door.send(IDS[1], actor="admin:x"),
        door.send(IDS[2]),
        door.send(IDS[3], actor="robot:x"),
        door.send(IDS[4], lane="urgent"),
        door.cancel(IDS[5], actor="admin:x"),
        door.send(IDS[6], lane="low", actor="admin:x"),
    )
    no = "roleNotAllowed"
    assert reasons(outcomes) == ["", no, no, no, "", no, ""]
    assert isinstance(outcomes[2], Park)
    assert outcomes[2].detail == (
        "it claims no actor, which counts as service; on email.commands.normal these may be claimed: user"
    )


async def test_commands_of_one_message_take_effect_in_their_order() -> None:
    door = Door()
    send = door.send(IDS[0], lane="urgent")
    assert await door.handle(send, door.cancel(IDS[0]), door.send(IDS[1], lane="urgent")) == [DONE] * 3
    assert (await door.post.types(IDS[0])) == ["requested", "cancelled", "failed"]
    assert (await door.post.types(IDS[1])) == ["requested"]


async def test_a_cancel_before_its_send_is_remembered_with_its_actor() -> None:
    door = Door()
    await door.handle(door.cancel(IDS[0], "user:u1"), door.cancel(IDS[1], "user:u2"))
    await door.handle(door.send(IDS[0]), door.send(IDS[1]))
    assert (await door.post.types(IDS[0])) == ["cancelled", "requested", "failed"]
    assert (await door.post.types(IDS[1])) == ["cancelled", "requested"]


@pytest.mark.parametrize("what", ["store", "contents"])
async def test_a_dependency_that_is_away_hands_the_whole_batch_back(what: str) -> None:
    door = Door()
    getattr(door.post, what).away = True
    outcomes = await door.handle(door.send(IDS[0]), door.send(IDS[1]))
    assert [type(outcome) for outcome in outcomes] == [Retry, Retry]
    getattr(door.post, what).away = False
    assert await door.handle(door.send(IDS[0]), door.send(IDS[1])) == [DONE, DONE]


async def test_a_sealed_body_that_cannot_be_had_waits_alone_and_in_its_order() -> None:
    door = Door()
    body = SealedBody(html="x" * door.post.contents.LARGE)
    (ref,) = await door.post.contents.put_many([NewContent(IDS[0], "notification", "sealed", body.to_bytes())])
    door.post.contents.large_away = True
    large = door.send(IDS[0], text=None, sealed={"ref": ref.ref, "sha256": ref.sha256})
    records = (large, door.send(IDS[1]), door.send(IDS[0], text="another one under the same id"))
    outcomes = await door.handle(*records)
    assert [type(outcome) for outcome in outcomes] == [Retry, type(DONE), Retry]
    assert await door.post.types(IDS[0]) == []
    assert await door.post.types(IDS[1]) == ["requested"]
    door.post.contents.large_away = False
    assert reasons(await door.handle(*records)) == ["", "", "conflictingRepeat"]
    assert await door.post.types(IDS[0]) == ["requested"]


async def test_what_is_planned_tells_the_store_until_when() -> None:
    door = Door()
    await door.handle(
        door.send(IDS[0]),
        door.send(IDS[1], sendAt="2031-01-01T00:00:00Z"),
        door.send(IDS[2], sendAt="2031-01-01T00:00:00Z", expiresAt="2031-02-01T00:00:00Z"),
    )
    until = {key.message_id: time for key, time in door.post.contents.needed_until.items()}
    assert {name: time and time.date().isoformat() for name, time in until.items()} == {
        IDS[0]: None,
        IDS[1]: "2031-01-01",
        IDS[2]: "2031-02-01",
    }


@pytest.mark.parametrize("switch", ["lose_answers", "lose_appends"])
async def test_an_append_without_answer_is_read_back(switch: str) -> None:
    door = Door()
    setattr(door.post.store, switch, 1)
    assert await door.handle(door.send(IDS[0])) == [DONE]
    assert (await door.post.types(IDS[0])) == ["requested"]


@pytest.mark.parametrize("point", ["intake.stored", "intake.append", "intake.appended"])
async def test_a_crash_between_two_effects_loses_and_doubles_nothing(point: str) -> None:
    door = Door(checkpoints=CrashAt(point))
    records = [door.send(IDS[n]) for n in range(5)]
    with pytest.raises(Crash):
        await door.handle(*records)
    door.handler = door.process(NoCheckpoints())
    assert await door.handle(*records) == [DONE] * 5
    for n in range(5):
        assert (await door.post.types(IDS[n])) == ["requested"]
    assert len(door.post.contents.kept) == 5


async def test_fresh_mail_goes_to_the_sender_in_the_same_process() -> None:
    post = Post()
    await post.rates.set_limit("ses", 10_000)
    door = Door(post=post)
    sender = post.sender()
    door.handler = door.process(NoCheckpoints(), sender)
    await door.handle(
        door.send(IDS[0], lane="urgent"), door.send(IDS[1]), door.send(IDS[2], sendAt="2100-01-01T00:00:00Z")
    )
    leased = [(await post.store.load(IDS[n])).leased_by for n in range(3)]
    assert leased == ["sender-1", "sender-1", None]
    await post.contents.delete_messages([IDS[0], IDS[1]])  # the content is at hand: nothing is read again
    await sender.start()
    try:
        await _sent(post, IDS[:2])
    finally:
        await sender.stop(3.0)


async def _sent(post: Post, message_ids: list[str]) -> None:
    async def sent() -> bool:
        return set(await post.phases(message_ids)) == {"Sent"}

    await until(sent)


@pytest.mark.parametrize("sender", ["Mail\x85room <crm@example.com>", "Mail\nroom <crm@example.com>", "Mailroom <crm>"])
def test_a_sender_that_no_mail_could_be_written_with_is_refused_at_the_start(sender: str) -> None:
    with pytest.raises(ValueError):
        SenderIdentity.of(sender, None, ())


def test_a_sender_may_be_quoted() -> None:
    assert SenderIdentity.of('"a<b"@Example.com', None, ()).verified == {'"a<b"@example.com'}
    assert SenderIdentity.of('Mailroom <"a b"@example.com>', None, ()).verified == {'"a b"@example.com'}
