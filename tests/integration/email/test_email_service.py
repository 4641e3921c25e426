"""Mail on the real components: from a command or over HTTP to the provider's own log, and back as facts."""

from __future__ import annotations

import asyncio
import email
import email.policy
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest

from deploy.local.endpoints import AwsEndpoints
from deploy.local.simulator.faults import Fault
from services.email.handlers import list_unknown
from services.kit import metrics as m
from services.kit.parking import ParkedFilter
from tests.integration.email.conftest import Running, process, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


def at(behaviour: str) -> str:
    """An address of its own with this behaviour at the simulator."""
    return f"{behaviour}+{uuid4().hex[:12]}@simulator.amazonses.com"


async def test_a_hand_written_command_is_sent_once_and_its_content_is_in_no_log(mail: Running) -> None:
    message_id = await mail.send(at("success"), html="<p>for your eyes</p>", text="for your eyes")
    await mail.ends(message_id, "Sent")
    (accepted,) = await mail.accepted(message_id)
    raw = await mail.simulator.raw(accepted["providerMessageId"])
    assert b"for your eyes" in raw
    stream = await mail.email.store.load(message_id)
    assert [event.type for event in stream.events][:3] == ["email.requested", "email.sendAttempted", "email.sent"]
    assert "for your eyes" not in "".join(stream.wire)
    document = await mail.email.database["contents"].find_one({"messageId": message_id})
    assert document is not None
    assert b"for your eyes" not in bytes(document["sealed"])


async def test_recipients_of_one_message_have_fates_of_their_own(mail: Running) -> None:
    good, bad, angry = at("success"), at("bounce"), at("complaint")
    message_id = await mail.send(good, bad, angry)
    await mail.ends(message_id, "Sent", "Sent", "Sent")
    assert len(await mail.accepted(message_id)) == 3
    keys = [mail.email.keys.key(address) for address in (good, bad, angry)]

    async def suppressed() -> bool:
        states = await mail.email.recipients.load_many(keys)
        blocks = [states[key].blocks("notification", None, datetime.now(UTC)) for key in keys]
        return blocks == [None, "hardBounce", "complaint"]

    await until(suppressed)
    second = await mail.send(good, bad, angry)
    await mail.ends(second, "Sent", "Failed", "Failed")
    assert len(await mail.accepted(second)) == 1


async def test_cancelled_before_and_after_its_send(mail: Running) -> None:
    early, late = str(uuid4()), str(uuid4())
    await mail.command("cancel", early, lane="urgent")
    await mail.send(at("success"), message_id=late, sendAt="2100-01-01T00:00:00Z", expiresAt="2100-01-02T00:00:00Z")
    await mail.ends(late, "Queued")
    await mail.command("cancel", late, lane="urgent", reason="never mind")
    await mail.ends(late, "Failed")

    async def remembered() -> bool:
        return await mail.types(early) == ["cancelled"]

    await until(remembered)
    await mail.send(at("success"), message_id=early)
    await mail.ends(early, "Failed")
    assert await mail.accepted(early) == await mail.accepted(late) == []


async def test_a_dropped_answer_is_unknown_until_a_notification_settles_it(mail: Running) -> None:
    address = at("success")
    await mail.simulator.faults(Fault(kind="acceptThenDrop", match=address.partition("@")[0].replace("+", r"\+")))
    message_id = await mail.send(address)
    await mail.ends(message_id, "Sent")
    types = await mail.types(message_id)
    assert types[:2] == ["requested", "sendAttempted"]
    assert "attemptSettled" in types
    assert "sent" not in types
    assert len(await mail.accepted(message_id)) == 1


async def test_silence_without_notification_stays_unknown_and_is_listed(mail: Running) -> None:
    address = at("blackhole")
    await mail.simulator.faults(Fault(kind="acceptThenDrop", match="blackhole"))
    message_id = await mail.send(address)
    await mail.ends(message_id, "OutcomeUnknown")
    found, _ = await list_unknown(mail.email.streams)
    assert [(each.message_id, each.recipient) for each in found] == [(message_id, address)]
    await asyncio.sleep(1)
    assert len(await mail.accepted(message_id)) == 1


async def test_throttling_and_a_suspended_account_are_waited_out(mail: Running) -> None:
    await mail.simulator.faults(Fault(kind="throttle", count=3))
    throttled = [await mail.send(at("success")) for _ in range(5)]
    for message_id in throttled:
        await mail.ends(message_id, "Sent")
        assert len(await mail.accepted(message_id)) == 1


async def test_bad_commands_are_parked_with_their_bytes_and_the_rest_flows(mail: Running) -> None:
    bad = await mail.send("nobody", subject="Hi\nBcc: x@example.com")
    await mail.producer.send_and_wait("email.commands.normal", b"\xff\xfe", b"key")
    good = await mail.send(at("success"))
    await mail.ends(good, "Sent")

    async def parked() -> bool:
        page = await mail.email.parking.list(ParkedFilter(consumer="email-intake-normal"))
        return {"invalid", "notJson"} <= {each.reason for each in page.records}

    await until(parked)
    assert await mail.types(bad) == []


async def test_over_http_with_a_key_and_an_attachment(mail: Running) -> None:
    headers = {"Authorization": f"Bearer {mail.token()}", "Idempotency-Key": uuid4().hex}
    body = {
        "to": at("success"), "subject": "Hi", "textContent": "see attached", "category": "client-portal",
        "attachments": [{"filename": "a.txt", "contentType": "text/plain", "content": "YXR0YWNoZWQgYnl0ZXM="}],
    }  # fmt: skip
    answers = [await mail.http.post("/api/email", json=body, headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    message_id = answers[0].json()["data"]["messageId"]
    assert answers[1].json()["data"]["messageId"] == message_id
    await mail.ends(message_id, "Sent")
    (accepted,) = await mail.accepted(message_id)
    assert b"YXR0YWNoZWQgYnl0ZXM=" in await mail.simulator.raw(accepted["providerMessageId"])
    shown = await mail.http.get(f"/api/email/{message_id}/content", headers=headers)
    assert shown.json()["data"]["text"] == "see attached"
    other = await mail.http.post("/api/email", json=body | {"subject": "Other"}, headers=headers)
    assert other.status_code == 409


async def test_a_link_in_a_marketing_mail_unsubscribes(mail: Running) -> None:
    address = at("success")
    fields = {"category": "marketing", "listId": "news"}
    first = await mail.send(address, **fields)
    await mail.ends(first, "Sent")
    (accepted,) = await mail.accepted(first)
    raw = (await mail.simulator.raw(accepted["providerMessageId"])).decode()
    link = raw.partition("List-Unsubscribe: <")[2].partition(">")[0].replace("\r\n", "").replace(" ", "")
    path = link.partition("8080")[2]
    answer = await mail.http.post(path, content="List-Unsubscribe=One-Click",
                                  headers={"content-type": "application/x-www-form-urlencoded"})  # fmt: skip
    assert answer.status_code == 200
    second = await mail.send(address, **fields)
    await mail.ends(second, "Failed")
    other_list = await mail.send(address, category="marketing", listId="offers")
    await mail.ends(other_list, "Sent")


async def test_a_mail_to_the_address_in_a_marketing_mail_unsubscribes(mail: Running, aws: AwsEndpoints) -> None:
    address = at("success")
    fields = {"category": "marketing", "listId": "news"}
    first = await mail.send(address, **fields)
    await mail.ends(first, "Sent")
    (accepted,) = await mail.accepted(first)
    sent = email.message_from_bytes(
        await mail.simulator.raw(accepted["providerMessageId"]), policy=email.policy.default
    )
    offered = urlsplit(str(sent["list-unsubscribe"]).rpartition("<")[2].partition(">")[0])
    (subject,) = parse_qs(offered.query)["subject"]
    written = EmailMessage(policy=email.policy.SMTP)
    written["From"], written["To"], written["Subject"] = "me@elsewhere.example", offered.path, subject
    written.set_content("please")
    await mail.simulator.receive(
        written.as_bytes(), source="me@elsewhere.example", to=offered.path, topic_arn=aws.topic_arn
    )

    async def left() -> bool:
        key = mail.email.keys.key(address)
        state = (await mail.email.recipients.load_many([key]))[key]
        return state.blocks("marketing", "news", datetime.now(UTC)) == "unsubscribed"

    await until(left)
    second = await mail.send(address, **fields)
    await mail.ends(second, "Failed")


async def test_a_template_of_ones_own_is_sent_beside_a_broken_one(mail: Running) -> None:
    assert mail.email.metrics.value(m.TEMPLATES_BROKEN) == 1
    headers = {"Authorization": f"Bearer {mail.token()}"}
    body = {"to": at("success"), "subject": "Hi", "category": "notification", "templateData": {"name": "Grace"}}
    taken = await mail.http.post("/api/email", json=body | {"templateId": "receipt"}, headers=headers)
    assert taken.status_code == 202
    message_id = taken.json()["data"]["messageId"]
    await mail.ends(message_id, "Sent")
    (accepted,) = await mail.accepted(message_id)
    assert b"Thanks, Grace." in await mail.simulator.raw(accepted["providerMessageId"])
    refused = await mail.http.post("/api/email", json=body | {"templateId": "reminder"}, headers=headers)
    assert refused.status_code == 400
    assert "the template reminder is broken" in refused.json()["error"]
    shipped = await mail.send(at("success"), templateId="welcome", templateData={"isClient": False}, text=None)
    await mail.ends(shipped, "Sent")


async def test_scheduled_mail_goes_at_its_time(mail: Running) -> None:
    when = datetime.now(UTC) + timedelta(seconds=3)
    message_id = await mail.send(at("success"), sendAt=when.isoformat())
    await mail.ends(message_id, "Sent")
    assert (await mail.email.store.load(message_id)).events[1].time >= when


async def test_told_to_stop_it_drains_and_another_process_goes_on(mail: Running) -> None:
    message_ids = [await mail.send(at("success")) for _ in range(50)]
    async with process(mail.email.settings, "sender") as (_, stop):
        assert await stop() == 0
    for message_id in message_ids:
        await mail.ends(message_id, "Sent")
    accepted = await mail.simulator.acceptances(mail.position)
    assert len(accepted) == 50
