"""`/api/email` on the real stack, through the gateway: what pages and services of the CRM rely on."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import re
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

from aiokafka import AIOKafkaProducer

from contracts.ids import uuid7
from contracts.registry import EVENTS
from deploy.local.simulator.faults import Fault
from tests.e2e.callers import SHARED, Callers, data, fields, refused, until
from tests.e2e.traffic import command

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


pytestmark = SHARED


# --- the pages of the CRM ------------------------------------------------------------------------------------------


def hook_bodies(address: str) -> dict[str, dict[str, Any]]:
    """What the CRM's `useEmail` hook posts, word for word."""
    return {
        "Security Code - DepLLC CRM": {
            "templateId": "2fa-code",
            "templateData": {"name": "Ada", "token": "482913", "expiresInMinutes": 10},
            "category": "auth",
            "priority": "high",
        },
        "Welcome to DepLLC CRM": {
            "templateId": "welcome",
            "templateData": {"name": "Ada", "isClient": False},
            "category": "auth",
            "priority": "normal",
        },
        "Welcome to DepLLC CRM Client Portal": {
            "templateId": "welcome",
            "templateData": {"name": "Ada", "isClient": True},
            "category": "client-portal",
            "priority": "normal",
        },
        "Password Reset - DepLLC CRM": {
            "templateId": "password-reset",
            "templateData": {"name": "Ada", "resetToken": "r3set-t0ken", "expiresInHours": 24},
            "category": "auth",
            "priority": "high",
        },
    }


async def test_the_old_integrations_hook_works_unchanged_from_a_page(callers: Callers) -> None:
    origin = callers.stack.site.url("gateway")
    callers.http.cookies.set("mailroom_session", callers.token("ann"))
    for subject, body in hook_bodies("").items():
        to = callers.address()
        answer = await callers.http.post(
            "/api/email", json={"to": to, "subject": subject, **body}, headers={"Origin": origin}
        )
        result = data(answer, 202)
        assert result["messageId"] == result["emailLogId"]
        mail = await callers.mime(to)
        assert mail["Subject"] == subject
        text = mail.get_body(("plain",))
        assert text is not None
        expected = {"2fa-code": "482913", "password-reset": "r3set-t0ken"}.get(body["templateId"], "Ada")
        assert expected in text.get_content()
        await callers.becomes(result["messageId"], "delivered")


async def test_another_sites_page_cannot_use_the_cookie(callers: Callers) -> None:
    callers.http.cookies.set("mailroom_session", callers.token("ann"))
    body = {"to": callers.address(), "subject": "s", "textContent": "t", "category": "system"}
    for headers in ({}, {"Origin": "https://evil.example"}, {"Origin": "null"}):
        refused(await callers.http.post("/api/email", json=body, headers=headers), 403)
        refused(await callers.http.delete(f"/api/email/{uuid7()}", headers=headers), 403)
    assert (await callers.http.get("/api/email")).status_code == 200  # reading changes nothing


async def test_a_refusal_tells_the_page_what_to_show_and_a_program_every_field(callers: Callers) -> None:
    answer = await callers.post(to=["x"], subject="", surprise=1)
    assert refused(answer, 400)["error"]
    assert fields(answer) == {"to[0]", "subject", "surprise"}


# --- files ---------------------------------------------------------------------------------------------------------


async def test_ten_megabytes_of_files_arrive_and_a_byte_more_is_refused(callers: Callers) -> None:
    contents = [os.urandom(5_000_000), os.urandom(5_000_000)]
    files = [
        {"filename": f"scan {n}.pdf", "contentType": "application/pdf", "content": base64.b64encode(raw).decode()}
        for n, raw in enumerate(contents)
    ]
    to = callers.address()
    message_id = await callers.send(to=to, attachments=files)
    await callers.becomes(message_id, "delivered")
    got = [part.get_content() for part in (await callers.mime(to)).iter_attachments()]
    assert [hashlib.sha256(raw).hexdigest() for raw in got] == [hashlib.sha256(raw).hexdigest() for raw in contents]
    log = await callers.becomes(message_id, "delivered")
    assert [(file["filename"], file["size"]) for file in log["attachments"]] == [
        ("scan 0.pdf", 5_000_000),
        ("scan 1.pdf", 5_000_000),
    ]
    more = {"filename": "x.txt", "contentType": "text/plain", "content": "eA=="}
    refused(await callers.post(attachments=[*files, more]), 413)


async def test_a_body_beyond_all_limits_is_413_also_when_its_length_is_not_told(callers: Callers) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b'{"to": "a@b.example", "subject": "'
        for _ in range(28):
            yield b"x" * 1_000_000

    direct = callers.stack.site.url("email")
    headers = {**callers.as_("ann"), "Content-Type": "application/json"}
    refused(await callers.http.post(f"{direct}/api/email", content=body(), headers=headers), 413)
    length = await callers.http.post(f"{direct}/api/email", content=b"x" * 28_000_000, headers=headers)
    refused(length, 413)


# --- once ----------------------------------------------------------------------------------------------------------


async def test_ten_posts_at_once_under_one_key_are_one_mail(callers: Callers) -> None:
    key, to = str(uuid.uuid4()), callers.address()
    answers = await asyncio.gather(*(callers.post(key=key, to=to) for _ in range(10)))
    ids = {data(answer, 202)["messageId"] for answer in answers}
    assert len(ids) == 1
    (message_id,) = ids
    await callers.becomes(message_id, "delivered")
    assert len(await callers.accepted(message_id)) == 1
    other = refused(await callers.post(key=key, to=to, subject="Another"), 409)
    assert other["details"] == [{"messageId": message_id}]
    assert data(await callers.post("bob", key=key, to=to), 202)["messageId"] != message_id


async def test_a_key_outlives_the_process(callers: Callers) -> None:
    key, to = str(uuid.uuid4()), callers.address()
    message_id = await callers.send(key=key, to=to)
    await callers.becomes(message_id, "delivered")
    await asyncio.to_thread(callers.stack.restart, "email")
    assert await callers.send(key=key, to=to) == message_id
    refused(await callers.post(key=key, to=to, subject="Another"), 409)
    # Behind the repetition on the same lane comes another mail: when that is sent, the repetition was read.
    await callers.becomes(await callers.send(), "delivered")
    assert len(await callers.accepted(message_id)) == 1


# --- reading -------------------------------------------------------------------------------------------------------


async def test_what_was_just_sent_can_be_read_by_its_owner_alone(callers: Callers) -> None:
    message_id = await callers.send(htmlContent="<p>for you alone</p>", category="client-portal")
    log, content = f"/api/email/{message_id}", f"/api/email/{message_id}/content"

    async def both_there() -> bool:
        return {(await callers.get(each)).status_code for each in (log, content)} == {200}

    await until(both_there)
    assert data(await callers.get(log))["messageId"] == message_id
    assert data(await callers.get(content)) == {"messageId": message_id, "html": "<p>for you alone</p>"}
    for part in ("", "/history", "/content"):
        path = f"/api/email/{message_id}{part}"
        refused(await callers.get(path, "bob"), 404)
        refused(await callers.get(path, "crm", role="service"), 404)
        assert (await callers.get(path, "root", role="admin")).status_code == 200


async def test_what_does_not_exist_is_404(callers: Callers) -> None:
    for part in ("", "/history", "/content"):
        refused(await callers.get(f"/api/email/{uuid7()}{part}"), 404)


async def test_content_of_auth_is_shown_to_nobody_and_kept_for_nobody(callers: Callers) -> None:
    message_id = await callers.send(category="auth", textContent="Your code is 482913")
    await callers.becomes(message_id, "delivered")
    refused(await callers.get(f"/api/email/{message_id}/content"), 403)
    refused(await callers.get(f"/api/email/{message_id}/content", "root", role="admin"), 403)

    async def deleted() -> bool:
        return await callers.observer.email["contents"].count_documents({"messageId": message_id}) == 0

    await until(deleted)


async def test_content_after_its_retention_is_410(callers: Callers) -> None:
    message_id = await callers.send()
    await callers.becomes(message_id, "delivered")
    assert (await callers.get(f"/api/email/{message_id}/content")).status_code == 200
    await callers.observer.email["contents"].delete_many({"messageId": message_id})  # as MongoDB does when it is over
    refused(await callers.get(f"/api/email/{message_id}/content"), 410)


# --- cancelling ----------------------------------------------------------------------------------------------------


async def test_a_scheduled_mail_is_stopped_once_by_those_who_may(callers: Callers) -> None:
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    path = f"/api/email/{await callers.send(sendAt=later)}"
    message_id = path.rpartition("/")[2]
    await callers.becomes(message_id, "queued")
    refused(await callers.http.delete(path, headers=callers.as_("bob")), 404)
    answer = await callers.http.delete(path, params={"reason": "no longer"}, headers=callers.as_("ann"))
    assert data(answer, 202) == {"messageId": message_id, "status": "cancelRequested"}
    log = await callers.becomes(message_id, "failed")
    assert {"cancel", "fail"} <= {event["type"] for event in log["events"]}
    refused(await callers.http.delete(path, headers=callers.as_("ann")), 409)
    assert await callers.accepted(message_id) == []
    for headers in (callers.as_("root", role="admin"), callers.as_("crm", role="service")):
        another = await callers.send(sendAt=later)
        await callers.becomes(another, "queued")
        assert (await callers.http.delete(f"/api/email/{another}", headers=headers)).status_code == 202
        await callers.becomes(another, "failed")


async def test_what_was_sent_cannot_be_stopped(callers: Callers) -> None:
    message_id = await callers.send()
    await callers.becomes(message_id, "delivered")
    refused(await callers.http.delete(f"/api/email/{message_id}", headers=callers.as_("ann")), 409)


async def test_a_cancel_before_its_mail_counts_if_it_is_the_owners(callers: Callers) -> None:
    kafka = callers.stack.env()["MAILROOM_KAFKA_BOOTSTRAP"]
    fates = {"ann": "failed", "bob": "delivered"}
    async with AIOKafkaProducer(bootstrap_servers=kafka, acks="all") as producer:
        for who, fate in fates.items():
            message_id = uuid7()
            cancelled = await callers.http.delete(f"/api/email/{message_id}", headers=callers.as_(who))
            assert cancelled.status_code == 202

            async def remembered(message_id: str = message_id) -> bool:
                return message_id in await callers.observer.streams([message_id])

            await until(remembered)
            mail = {"to": callers.address(), "subject": "s", "text": "t", "category": "system"}
            owned = {"messageId": message_id, "userId": callers.name("ann"), **mail}
            await producer.send_and_wait("email.commands.normal", command(message_id, owned), key=message_id.encode())
            await callers.becomes(message_id, fate)


# --- ids of the journey --------------------------------------------------------------------------------------------


async def test_a_callers_correlation_and_trace_go_through_to_the_log(callers: Callers) -> None:
    given = {"X-Correlation-Id": f"order-{callers.run}", "traceparent": TRACEPARENT}
    to = callers.address("click")
    # The provider's answer gets lost, so that a fact of its must settle the attempt.
    await callers.observer.simulator.faults(Fault(kind="acceptThenDrop", match=re.escape(to), count=1))
    answer = await callers.post(headers=given, to=to)
    assert answer.headers["X-Correlation-Id"] == given["X-Correlation-Id"]
    message_id = data(answer, 202)["messageId"]

    async def clicked_and_settled() -> bool:
        found = await callers.get(f"/api/email/{message_id}")
        return {"click", "settle"} <= {event["type"] for event in found.json().get("data", {}).get("events", [])}

    await until(clicked_and_settled)
    events = await callers.events(message_id)
    kinds = {event["type"]: EVENTS[event["type"]].kind for event in events}
    assert kinds.keys() >= {"email.requested", "email.sendAttempted", "email.attemptSettled", "email.clicked"}
    decisions = [event for event in events if kinds[event["type"]] == "decision"]
    assert {event["correlationid"] for event in decisions} == {given["X-Correlation-Id"]}
    assert {event.get("traceparent") for event in decisions} == {TRACEPARENT}
    assert decisions[0]["actor"] == f"user:{callers.name('ann')}"
    history = data(await callers.get(f"/api/email/{message_id}/history"))["events"]
    assert {item["event"]["id"] for item in history} == {event["id"] for event in events}


async def test_without_one_the_request_is_its_own_journey(callers: Callers) -> None:
    answer = await callers.post(headers={"X-Correlation-Id": "not an id!"})
    assert answer.headers["X-Correlation-Id"] == answer.headers["X-Request-Id"] != "not an id!"
    message_id = data(answer, 202)["messageId"]
    await callers.becomes(message_id, "delivered")
    assert answer.headers["X-Correlation-Id"] == (await callers.events(message_id))[0]["correlationid"]
