"""Several providers on the real components: mail goes on when one refuses, and reports settle what got no answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from contracts.email.events import EmailAttemptSettled, EmailSendAttempted
from deploy.local.endpoints import AwsEndpoints
from deploy.local.simulator.client import SimulatorClient
from deploy.local.simulator.faults import Fault
from services.email.settings import EmailSettings
from services.kit.kafka.topics_admin import apply
from tests.integration.email.conftest import Running, plain_clients, process, until

NEWS = "news@new.mailroom.example"
"""Of a domain that is being warmed up, with three recipients a day."""

KEY = "a webhook signing key for tests only, 0123456789"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def both(settings: EmailSettings, aws: AwsEndpoints) -> AsyncIterator[Running]:
    """A process with SES and, after it, Mailgun, which reports to it."""
    more = {
        "providers": ("ses", "mailgun"),
        "mailgun_key": "key",
        "mailgun_domain": "mailroom.example",
        "mailgun_url": aws.ses_endpoint_url,
        "mailgun_keys": (KEY,),
        "mailgun_ask_after": 1,
        "sender_addresses": (NEWS,),
        "ramps": {NEWS.partition("@")[2]: {"from": datetime.now(UTC).date().isoformat(), "daily": [3, 3]}},
    }
    fields = type(settings).model_fields
    given = settings.model_dump(by_alias=False) | more | {"database": f"{settings.database}_both"}
    changed = type(settings).model_validate({fields[name].alias or name: value for name, value in given.items()})
    await apply(settings.kafka_bootstrap)
    async with SimulatorClient(aws.ses_endpoint_url) as simulator:
        await simulator.settings(maxSendRate=1000)
        async with process(changed) as (email, _), plain_clients(changed, email) as (producer, http):
            await simulator.webhook("mailgun", f"http://127.0.0.1:{email.server.port}/api/webhooks/mailgun", KEY)
            yield Running(email, producer, simulator, http, await simulator.position())


@pytest_asyncio.fixture(loop_scope="module")
async def mail(both: Running) -> Running:
    await both.simulator.faults()
    both.position = await both.simulator.position()
    return both


async def carriers(mail: Running, message_id: str) -> list[str]:
    """Through which providers a message went out, by the simulator's log."""
    return [each.get("provider", "ses") for each in await mail.accepted(message_id)]


async def goes_through(mail: Running, provider: str, **fields: Any) -> None:
    """Wait until such mail does."""

    async def does() -> bool:
        message_id = await mail.send("somebody@inbox.example", **fields)
        await mail.ends(message_id, "Sent")
        return await carriers(mail, message_id) == [provider]

    await until(does)


async def events(mail: Running, message_id: str) -> list[object]:
    return [each.data for each in (await mail.email.store.load(message_id)).events]


@pytest.mark.asyncio(loop_scope="module")
async def test_when_one_suspends_the_account_in_the_middle_all_mail_goes_on_through_the_other(mail: Running) -> None:
    first = [await mail.send(f"a{n}@inbox.example") for n in range(10)]
    for message_id in first:
        await mail.ends(message_id, "Sent")
    assert {tuple(await carriers(mail, each)) for each in first} == {("ses",)}
    await mail.simulator.faults(Fault(kind="accountSuspended"))
    second = [await mail.send(f"b{n}@inbox.example", lane="urgent") for n in range(10)]
    for message_id in second:
        await mail.ends(message_id, "Sent")
    assert {tuple(await carriers(mail, each)) for each in second} == {("mailgun",)}

    async def it_is_told() -> bool:
        shown = await mail.http.get("/api/providers", headers={"Authorization": f"Bearer {mail.token()}"})
        ses, mailgun = shown.json()["data"]["providers"]
        assert (mailgun["provider"], mailgun["takesMail"]) == ("mailgun", "yes")
        return bool(ses["takesMail"].startswith("no: AccountSuspendedException"))

    await until(it_is_told)
    await mail.simulator.faults()

    await goes_through(mail, "ses")


@pytest.mark.asyncio(loop_scope="module")
async def test_without_an_answer_nobody_else_is_asked_and_the_providers_report_settles_it(mail: Running) -> None:
    headers = {"Authorization": f"Bearer {mail.token()}"}
    answer = await mail.http.put("/api/providers/ses/off", headers=headers, json={"why": "a test"})
    assert answer.status_code == 200, answer.text
    try:
        await goes_through(mail, "mailgun")
        await mail.simulator.faults(Fault(kind="acceptThenDrop", operation="MailgunSend", count=1))
        message_id = await mail.send("e@inbox.example")
        await mail.ends(message_id, "Sent")
    finally:
        await mail.http.delete("/api/providers/ses/off", headers=headers)
    assert await carriers(mail, message_id) == ["mailgun"]
    said = await events(mail, message_id)
    (attempted,) = [each for each in said if isinstance(each, EmailSendAttempted)]
    assert attempted.provider == "mailgun"
    (settled,) = [each for each in said if isinstance(each, EmailAttemptSettled)]
    assert (settled.outcome, settled.by) == ("accepted", "notification")


@pytest.mark.asyncio(loop_scope="module")
async def test_a_report_that_never_came_is_asked_for(mail: Running) -> None:
    headers = {"Authorization": f"Bearer {mail.token()}"}
    pin = {"provider": "mailgun", "why": "a test"}
    answer = await mail.http.put("/api/providers/pins/system", headers=headers, json=pin)
    assert answer.status_code == 200, answer.text
    try:
        await goes_through(mail, "mailgun", category="system")
        await mail.simulator.faults(
            Fault(kind="acceptThenDrop", operation="MailgunSend", count=1),
            Fault(kind="silent", operation="MailgunSend"),
        )
        message_id = await mail.send("h@inbox.example", category="system")
        await mail.ends(message_id, "Sent")
    finally:
        await mail.http.delete("/api/providers/pins/system", headers=headers)
    assert await carriers(mail, message_id) == ["mailgun"]
    (settled,) = [each for each in await events(mail, message_id) if isinstance(each, EmailAttemptSettled)]
    assert (settled.outcome, settled.by) == ("accepted", "notification")


@pytest.mark.asyncio(loop_scope="module")
async def test_orders_are_refused_with_what_to_do_and_heard_once_given(mail: Running) -> None:
    headers = {"Authorization": f"Bearer {mail.token()}"}
    unknown = await mail.http.put("/api/providers/pigeons/off", headers=headers, json={"why": "a test"})
    assert (unknown.status_code, unknown.json()["error"]) == (404, "pigeons is not one of ses, mailgun")
    wrong = await mail.http.put(
        "/api/providers/pins/gossip", headers=headers, json={"provider": "ses", "why": "a test"}
    )
    assert (wrong.status_code, wrong.json()["details"][0]["field"]) == (400, "what")
    pinned = await mail.http.put(
        "/api/providers/pins/system", headers=headers, json={"provider": "mailgun", "why": "a test"}
    )
    assert pinned.json()["data"]["providers"][1]["pinned"] == ["system"]
    try:
        await goes_through(mail, "mailgun", category="system")
    finally:
        await mail.http.delete("/api/providers/pins/system", headers=headers)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_domain_that_is_warmed_up_sends_what_its_ramp_allows_and_operators_see_it(mail: Running) -> None:
    sent = [await mail.send(f"g{n}@inbox.example", **{"from": NEWS}) for n in range(3)]
    for message_id in sent:
        await mail.ends(message_id, "Sent")
    held = [await mail.send(f"h{n}@inbox.example", **{"from": NEWS}) for n in range(3)]
    password = await mail.send("i@inbox.example", category="auth", lane="urgent", **{"from": NEWS})
    other = await mail.send("j@inbox.example")
    for message_id in (password, other):
        await mail.ends(message_id, "Sent")

    async def all_are_put_off() -> bool:
        soon = mail.email.clock.now() + timedelta(seconds=30)
        streams = (await mail.email.store.load_many(held)).values()
        return all(each.leased_until is not None and each.leased_until > soon for each in streams)

    await until(all_are_put_off)
    assert [await mail.types(message_id) for message_id in held] == [["requested"]] * 3
    shown = await mail.http.get("/api/providers", headers={"Authorization": f"Bearer {mail.token()}"})
    assert shown.json()["data"]["warmingUp"] == [{"domain": "new.mailroom.example", "used": 4, "limit": 3}]

    async def is_measured() -> bool:
        return 'mailroom_warm_up_used{domain="new.mailroom.example"} 4.0' in (await mail.http.get("/metrics")).text

    await until(is_measured)
