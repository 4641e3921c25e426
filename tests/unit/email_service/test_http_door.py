"""The email door: what it publishes and stores, and what it does when something behind it is away."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import pytest

from contracts.email.commands import CancelEmail, StoredAttachment
from contracts.topics import COMMANDS_URGENT, LANES
from services.email.domain.content import MessageContent, SealedBody
from services.email.entrypoints.send_request import SendRequest
from services.email.ports import ContentKey, NewContent
from services.kit.idempotency import body_hash
from services.kit.kafka.codec import CONTENT_TYPE
from services.kit.testing import captured_logs
from tests.unit.email_service.door import BODY, Door, as_, attached
from tests.unit.email_service.mail import MESSAGE_ID

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    door = Door(max_attachment_bytes=1000)
    async with door.client:
        yield door


# --- sending -------------------------------------------------------------------------------------------------------


async def test_a_message_is_stored_sealed_and_published_by_reference(door: Door) -> None:
    answer = await door.send(htmlContent="<p>secret</p>", attachments=[attached(b"bytes")], priority="high")
    assert answer.status_code == 202
    data = answer.json()["data"]
    assert data == {"messageId": data["messageId"], "emailLogId": data["messageId"], "status": "queued"}
    (command,) = door.sends()
    assert (command.message_id, command.user_id, command.priority) == (data["messageId"], "ann", "high")
    assert (command.html, command.text, command.template_data) == (None, None, None)
    assert command.sealed is not None
    assert command.attachments
    (stored,) = command.attachments
    assert isinstance(stored, StoredAttachment)
    sealed, file = ContentKey(command.message_id, command.sealed.ref), ContentKey(command.message_id, stored.ref)
    contents = door.post.contents
    assert SealedBody.from_bytes(contents.bytes_of(sealed)) == SealedBody(html="<p>secret</p>", text="How are you?")
    assert contents.bytes_of(file) == b"bytes"
    assert b"secret" not in door.publisher.published[0].value


@pytest.mark.parametrize("priority", ["low", "normal", "high", "urgent"])
async def test_each_priority_has_its_lane_and_the_message_is_the_key(door: Door, priority: str) -> None:
    message_id = (await door.send(priority=priority)).json()["data"]["messageId"]
    (record,) = door.publisher.published
    assert (record.topic, record.key) == (f"email.commands.{priority}", message_id.encode())


async def test_the_command_says_who_asked_and_belongs_to_the_callers_journey(door: Door) -> None:
    given = {"X-Correlation-Id": "order-4711", "traceparent": TRACEPARENT}
    answer = await door.send(headers={**as_("crm", role="service"), **given})
    assert answer.headers["x-correlation-id"] == "order-4711"
    (record,) = door.publisher.published
    envelope = json.loads(record.value)
    assert (envelope["correlationid"], envelope["traceparent"]) == ("order-4711", TRACEPARENT)
    assert (envelope["actor"], envelope["data"]["userId"]) == ("service:crm", "crm")
    assert dict(record.headers) == {"content-type": CONTENT_TYPE, "traceparent": TRACEPARENT.encode()}


async def test_copies_and_all_further_fields_reach_the_command(door: Door) -> None:
    more: dict[str, Any] = {
        "cc": "cc@inbox.example",
        "bcc": ["bcc@INBOX.example"],
        "replyTo": "desk@crm.example",
        "clientId": "c-1",
        "tags": {"a": "b"},
        "customData": {"deep": [1, {"er": None}]},
        "sendAt": "2030-01-01T10:00:00+02:00",
        "expiresAt": "2030-01-02T00:00:00Z",
        "category": "marketing",
        "listId": "news",
        "attachments": [{"fileId": MESSAGE_ID.upper()}],
    }
    assert (await door.send(**more)).status_code == 202
    wire = door.sends()[0].to_wire()
    expected = {**more, "cc": ["cc@inbox.example"], "bcc": ["bcc@inbox.example"]}
    expected |= {"sendAt": "2030-01-01T08:00:00.000000Z", "expiresAt": "2030-01-02T00:00:00.000000Z"}
    expected["attachments"] = [{"fileId": MESSAGE_ID}]
    assert {name: wire.get(name) for name in expected} == expected


async def test_a_user_id_as_long_as_any_that_logs_in_is_taken(door: Door) -> None:
    assert (await door.send(headers=as_("u" * 128))).status_code == 202
    assert (await door.send(headers=as_("u" * 129))).status_code == 401


async def test_an_installation_may_demand_a_scope_for_a_category_and_for_urgent() -> None:
    door = Door(scoped=("auth", "urgent"))
    urgent: dict[str, Any] = {"category": "auth", "priority": "urgent"}
    assert (await door.send()).status_code == 202, "what is not named needs no more than before"
    refused = await door.send("k", **urgent)
    assert (refused.status_code, refused.json()["details"]) == (
        403,
        [{"missingScope": "email:create:auth"}, {"missingScope": "email:create:urgent"}],
    )
    half = await door.send("k", headers=as_("ann", "email:create", "email:create:urgent"), **urgent)
    assert half.json()["details"] == [{"missingScope": "email:create:auth"}]
    assert len(door.publisher.published) == 1, "nothing of what was refused"
    both = as_("ann", "email:create", "email:create:auth", "email:create:urgent")
    assert (await door.send("k", headers=both, **urgent)).status_code == 202
    alone = await door.send(headers=as_("ann", "email:create:auth"), category="auth")
    assert alone.json()["details"] == [{"missingScope": "email:create"}], "it is no scope to send by itself"


async def test_a_role_that_may_not_be_claimed_on_the_topic_is_refused_at_the_door() -> None:
    door = Door(roles={LANES["normal"].name: ("admin",), COMMANDS_URGENT.name: ("admin",)})
    taken = await door.send(headers=as_("root", role="admin"))
    message_id = taken.json()["data"]["messageId"]
    for refused in (await door.send("k"), await door.client.delete(f"/api/email/{message_id}")):
        assert refused.status_code == 403
        assert refused.json()["error"].startswith("The role user may not write to email.commands.")
    assert len(door.publisher.published) == 1
    assert (await door.send("k", priority="low")).status_code == 202, "a topic that is not named takes all"


# --- once ----------------------------------------------------------------------------------------------------------


async def test_one_key_and_body_is_one_message(door: Door) -> None:
    first = (await door.send("k", to=["ann@inbox.example"])).json()["data"]["messageId"]
    # The same once more, written differently: order of fields, one address or a list of one.
    again = (await door.send("k", category="notification", to="ann@inbox.example")).json()["data"]["messageId"]
    assert first == again
    assert {command.message_id for command in door.sends()} == {first}
    assert len({command.sealed for command in door.sends()}) == 1


async def test_another_body_is_refused_and_told_what_the_first_became(door: Door) -> None:
    message_id = (await door.send("k")).json()["data"]["messageId"]
    other = await door.send("k", subject="Something else")
    assert (other.status_code, other.json()["details"]) == (409, [{"messageId": message_id}])
    assert len(door.publisher.published) == 1


@pytest.mark.parametrize(
    ("body", "hashed"),
    [
        ({}, "c448c34ee5c80bc9"),
        ({"textContent": " \n", "htmlContent": "<p>x</p>"}, "771910be8703e11d"),
        ({"textContent": "x", "htmlContent": ""}, "1c90edfa6bfe7ab1"),
        (
            {"to": ["Ann@Bücher.Example", "b@INBOX.example"], "cc": "c@inbox.example", "tags": {"a": "b"},
             "textContent": "x"},
            "6dc82ba92544e5d8",
        ),
        (
            {"textContent": "x", "attachments": [{"filename": "a.txt", "contentType": "Text/Plain", "content": "eA=="},
                                                 {"fileId": "0192F0C1-2b7a-7d3e-9c1a-5b8f3e2d1c0b"}]},
            "d2182ca31c7b84a4",
        ),
    ],
)  # fmt: skip
def test_a_repetition_is_told_as_the_versions_before_this_one_tell_it(body: dict[str, Any], hashed: str) -> None:
    """Else a key that was used before an upgrade would be answered with 409 after it, and while it is going on."""
    assert body_hash(SendRequest.model_validate(BODY | body).to_wire()).startswith(hashed)


async def test_a_key_is_its_users_own(door: Door) -> None:
    mine, yours = await door.send("k"), await door.send("k", headers=as_("bob"))
    assert (mine.status_code, yours.status_code) == (202, 202)
    assert mine.json()["data"]["messageId"] != yours.json()["data"]["messageId"]


async def test_without_a_key_each_post_is_a_message_of_its_own(door: Door) -> None:
    assert (await door.send()).json()["data"]["messageId"] != (await door.send()).json()["data"]["messageId"]


async def test_what_stands_already_stores_and_publishes_nothing_more(door: Door) -> None:
    message_id = (await door.send("k")).json()["data"]["messageId"]
    await door.stands(message_id)
    await door.post.contents.delete_messages([message_id])
    door.publisher.away = True  # not even Kafka is needed for the answer
    again = await door.send("k")
    assert (again.status_code, again.json()["data"]["messageId"]) == (202, message_id)
    assert len(door.publisher.published) == 1
    assert door.post.contents.kept == {}


async def test_an_invalid_body_uses_no_key_up(door: Door) -> None:
    assert (await door.send("k", subject="")).status_code == 400
    assert (await door.send("k", attachments=[attached(b"x" * 1001)])).status_code == 413
    assert (await door.send("k")).status_code == 202


# --- something is away ---------------------------------------------------------------------------------------------


async def test_with_kafka_away_nothing_is_done_and_said_so(door: Door) -> None:
    door.publisher.away = True
    answer = await door.send("k")
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert "nothing was sent" in answer.json()["error"]
    (detail,) = answer.json()["details"]
    assert door.post.contents.kept == {}
    door.publisher.away = False
    assert (await door.send("k")).json()["data"]["messageId"] == detail["messageId"]
    door.publisher.away = True
    assert (await door.send()).json()["details"] == []  # nothing will ever stand under an id that was just made


async def test_a_lost_acknowledgement_is_an_unknown_outcome_and_repeating_it_is_safe(door: Door) -> None:
    door.publisher.losing_answers = True
    answer = await door.send("k")
    assert answer.status_code == 503
    assert answer.json()["error"] == "Outcome unknown: repeat with the same key."
    (detail,) = answer.json()["details"]
    door.publisher.losing_answers = False
    assert (await door.send("k")).json()["data"]["messageId"] == detail["messageId"]
    assert {command.message_id for command in door.sends()} == {detail["messageId"]}
    door.publisher.losing_answers = True
    keyless = await door.send()
    assert keyless.json()["details"][0]["messageId"] in keyless.json()["error"]


async def test_with_the_content_store_away_nothing_is_published(door: Door) -> None:
    door.post.contents.away = True
    answer = await door.send("k")
    assert (answer.status_code, door.publisher.published) == (503, [])
    assert "contents" in answer.json()["error"]


async def test_the_largest_command_that_passes_fits_into_a_record(door: Door) -> None:
    people = [f"{'x' * 60}{n}@{'y' * 60}.{'z' * 60}.{'w' * 60}.example" for n in range(50)]
    files = [attached(str(n).encode(), filename=f"{n}{'é' * 240}.txt") for n in range(50)]
    free = {"text": "\U0001f600" * 15_990}
    answer = await door.send(to=people, cc=people, subject="é" * 200, attachments=files, customData=free)
    assert answer.status_code == 202
    assert len(door.publisher.published[0].value) > 100_000


# --- cancelling ----------------------------------------------------------------------------------------------------


async def test_a_cancel_is_published_on_the_urgent_lane(door: Door) -> None:
    await door.stands(MESSAGE_ID)
    answer = await door.cancel(MESSAGE_ID.upper(), reason="changed my mind")
    assert answer.status_code == 202
    assert answer.json()["data"] == {"messageId": MESSAGE_ID, "status": "cancelRequested"}
    assert door.publisher.published[0].topic == "email.commands.urgent"
    assert door.commands() == [CancelEmail(message_id=MESSAGE_ID, reason="changed my mind")]


async def test_whom_a_mail_belongs_to_and_who_serves_them_may_cancel_it(door: Door) -> None:
    await door.stands(MESSAGE_ID)
    callers = {
        "owner": as_("ann"),
        "stranger": as_("bob"),
        "admin": as_("root", role="admin"),
        "service": as_("crm", role="service"),
    }
    found = {name: (await door.cancel(MESSAGE_ID, headers)).status_code for name, headers in callers.items()}
    assert found == {"owner": 202, "stranger": 404, "admin": 202, "service": 202}


async def test_a_cancel_of_what_is_not_known_yet_is_passed_on_with_its_actor(door: Door) -> None:
    assert (await door.cancel(MESSAGE_ID)).status_code == 202
    assert json.loads(door.publisher.published[0].value)["actor"] == "user:ann"


async def test_where_nothing_is_left_to_stop_it_is_409(door: Door) -> None:
    await door.stands(MESSAGE_ID, cancelled=True)
    answer = await door.cancel(MESSAGE_ID)
    assert (answer.status_code, door.publisher.published) == (409, [])


async def test_a_cancel_that_nobody_can_take_is_503(door: Door) -> None:
    door.publisher.away = True
    assert "nothing was stopped" in (await door.cancel(MESSAGE_ID)).json()["error"]
    door.publisher.away, door.publisher.losing_answers = False, True
    assert (await door.cancel(MESSAGE_ID)).json()["error"] == "Outcome unknown: repeat."


@pytest.mark.parametrize("reason", ["", "x" * 501, "two\nlines"])
async def test_a_reason_is_one_short_line(door: Door, reason: str) -> None:
    answer = await door.cancel(MESSAGE_ID, reason=reason)
    if reason:
        assert answer.status_code == 400
        assert [(d["field"], d["in"]) for d in answer.json()["details"]] == [("reason", "query")]
    else:
        assert answer.status_code == 202


# --- content -------------------------------------------------------------------------------------------------------


async def test_the_content_is_shown_to_its_owner_and_the_reading_noted(door: Door) -> None:
    raw = MessageContent(html="<p>Hi</p>").to_bytes()
    (ref,) = await door.post.contents.put_many([NewContent(MESSAGE_ID, "system", "message", raw)])
    await door.stands(MESSAGE_ID, category="system", content=ref)
    with captured_logs() as captured:
        answer = await door.client.get(f"/api/email/{MESSAGE_ID}/content")
    assert answer.json()["data"] == {"messageId": MESSAGE_ID, "html": "<p>Hi</p>"}
    assert answer.headers["cache-control"] == "no-store"
    (line,) = captured.named("content.read")
    assert (line["actor"], line["found"], line["aggregate_id"]) == ("user:ann", True, MESSAGE_ID)
    assert "Hi" not in captured.text
    found = {
        role: (await door.client.get(f"/api/email/{MESSAGE_ID}/content", headers=headers)).status_code
        for role, headers in {
            "stranger": as_("bob"),
            "service": as_("crm", role="service"),
            "admin": as_("root", role="admin"),
        }.items()
    }
    assert found == {"stranger": 404, "service": 404, "admin": 200}


async def test_content_that_cannot_be_had_now_is_503_and_not_gone(door: Door) -> None:
    raw = MessageContent(html="x" * door.post.contents.LARGE).to_bytes()
    (ref,) = await door.post.contents.put_many([NewContent(MESSAGE_ID, "system", "message", raw)])
    await door.stands(MESSAGE_ID, category="system", content=ref)
    door.post.contents.large_away = True
    assert (await door.client.get(f"/api/email/{MESSAGE_ID}/content")).status_code == 503
    door.post.contents.large_away = False
    assert (await door.client.get(f"/api/email/{MESSAGE_ID}/content")).status_code == 200


async def test_what_is_planned_tells_the_store_until_when(door: Door) -> None:
    await door.send(sendAt="2031-01-01T00:00:00Z", attachments=[attached(b"bytes")])
    await door.send(sendAt="2031-01-01T00:00:00Z", expiresAt="2031-02-01T00:00:00Z")
    await door.send()
    dates = sorted({None if until is None else until.date().isoformat() for until in _until(door)}, key=str)
    assert dates == ["2031-01-01", "2031-02-01", None]


def _until(door: Door) -> list[datetime | None]:
    return list(door.post.contents.needed_until.values())


async def test_content_after_its_retention_is_gone(door: Door) -> None:
    await door.stands(MESSAGE_ID)
    assert (await door.client.get(f"/api/email/{MESSAGE_ID}/content")).status_code == 410


async def test_content_of_auth_is_shown_to_nobody(door: Door) -> None:
    await door.stands(MESSAGE_ID, category="auth")
    for headers in (as_("ann"), as_("root", role="admin")):
        assert (await door.client.get(f"/api/email/{MESSAGE_ID}/content", headers=headers)).status_code == 403
    assert (await door.client.get(f"/api/email/{MESSAGE_ID}/content", headers=as_("bob"))).status_code == 404


async def test_a_mail_that_was_never_rendered_has_no_content(door: Door) -> None:
    await door.stands(MESSAGE_ID, content=None)
    assert (await door.client.get(f"/api/email/{MESSAGE_ID}/content")).status_code == 404


async def test_what_is_not_there_yet_is_waited_for_at_most_a_second(door: Door) -> None:
    assert (await door.client.get(f"/api/email/{MESSAGE_ID}/content")).status_code == 404
    assert sum(door.clock.slept) == pytest.approx(1.0, abs=0.11)


# --- the session cookie --------------------------------------------------------------------------------------------


async def test_a_page_sends_with_its_cookie_and_its_origin(door: Door) -> None:
    del door.client.headers["authorization"]
    door.client.cookies.set("mailroom_session", as_("ann")["authorization"].removeprefix("Bearer "))
    ours = {"Origin": "https://crm.example"}
    statuses = [
        (await door.send(headers=headers)).status_code for headers in ({}, {"Origin": "https://evil.example"}, ours)
    ]
    assert statuses == [403, 403, 202]
    assert (await door.cancel(MESSAGE_ID)).status_code == 403
    assert (await door.cancel(MESSAGE_ID, ours)).status_code == 202
