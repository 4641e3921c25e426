"""Suppression over HTTP on the real stack: the way out of a list from the mail itself, and the operators' routes."""

from __future__ import annotations

import asyncio
import re
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from deploy.local.endpoints import aws_endpoints
from tests.e2e.callers import SHARED, Callers, data, fields, refused, until
from tests.e2e.judge import Json

NEWS: dict[str, Any] = {"category": "marketing", "listId": "spring-news"}
ONE_CLICK = {"List-Unsubscribe": "One-Click"}


pytestmark = SHARED


async def way_out(callers: Callers, to: str) -> str:
    """The link of the one mail that `to` got, out of its raw headers."""
    mail = await callers.mime(to)
    assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    found = re.search(r"<(https?://[^>]+)>", mail["List-Unsubscribe"])
    assert found, mail["List-Unsubscribe"]
    assert to not in found[1]
    return found[1]


async def fate(callers: Callers, to: str, **body: Any) -> Json:
    """What becomes of a mail to `to`."""
    message_id = await callers.send(to=to, **{"priority": "urgent", **body})
    return await callers.becomes(message_id, "delivered", "failed")


async def suppressions(callers: Callers, address: str) -> list[Json]:
    answer = await callers.get("/api/suppressions", "olga", "email:operate", address=address)
    found: list[Json] = data(answer)["suppressions"]
    return found


# --- the way out ---------------------------------------------------------------------------------------------------


async def test_the_link_in_a_marketing_mail_ends_that_list_and_nothing_else(callers: Callers) -> None:
    to = callers.address()
    message_id = (await fate(callers, to, **NEWS))["messageId"]
    link = await way_out(callers, to)
    assert link.startswith(callers.stack.site.url("gateway"))

    shown = await callers.http.get(link)
    assert shown.status_code == 200
    assert "spring-news" in shown.text
    assert to not in shown.text
    assert (await callers.http.head(link)).status_code == 200
    assert await suppressions(callers, to) == []  # looking changes nothing

    done = await callers.http.post(link, data=ONE_CLICK)
    assert (done.status_code, "You are unsubscribed" in done.text) == (200, True)
    (held,) = await suppressions(callers, to)  # it stands before the page answers
    assert (held["scope"], held["reason"]) == ("list:spring-news", "unsubscribed")

    log = await fate(callers, to, **NEWS)
    assert (log["status"], [event["type"] for event in log["events"]][-1]) == ("failed", "fail")
    assert await callers.accepted(log["messageId"]) == []
    (failed,) = [e for e in await callers.events(log["messageId"]) if e["type"] == "email.failed"]
    assert failed["data"]["reason"] == "suppressed"
    assert (await fate(callers, to, **{**NEWS, "listId": "autumn-news"}))["status"] == "delivered"
    for category in ("notification", "auth", "system", "client-portal"):
        assert (await fate(callers, to, category=category))["status"] == "delivered"

    facts = [event for event in await callers.events(message_id) if event["type"] == "email.unsubscribed"]
    assert [fact["data"]["source"] for fact in facts] == ["oneClick"]
    assert (facts[0]["data"]["recipient"], facts[0]["data"]["listId"]) == (to, "spring-news")
    assert held["cause"] == f"{message_id}:{facts[0]['id']}"

    async def told() -> bool:
        found = data(await callers.get(f"/api/email/{message_id}"))
        return "unsubscribe" in [event["type"] for event in found["events"]]

    await until(told)


async def test_the_decision_is_on_the_recipients_log_under_a_key_that_tells_no_address(callers: Callers) -> None:
    to = callers.address()
    await fate(callers, to, **NEWS)
    await callers.http.post(await way_out(callers, to), data={"confirm": "unsubscribe"})

    async def published() -> list[Any]:
        log = await callers.observer.log("recipients.events", callers.since)
        return [entry for entry in log if to.encode() in (entry.value or b"")]

    (entry,) = await until(published)
    assert b"recipient.suppressed" in entry.value
    assert to.partition("@")[0].encode() not in entry.key


async def test_leaving_twice_is_leaving_and_an_operator_lets_them_back_in(callers: Callers) -> None:
    to = callers.address()
    await fate(callers, to, **NEWS)
    link = await way_out(callers, to)
    for _ in range(2):
        assert (await callers.http.post(link, data=ONE_CLICK)).status_code == 200
    assert len(await suppressions(callers, to)) == 1
    lifted = {"address": to.upper(), "scope": "list:spring-news"}
    answer = await callers.http.delete("/api/suppressions", params=lifted, headers=callers.as_("olga", "email:operate"))
    assert data(answer)["scope"] == "list:spring-news"
    assert (await fate(callers, to, **NEWS))["status"] == "delivered"
    await callers.http.post(link, data=ONE_CLICK)  # each press is a cause of its own
    assert (await fate(callers, to, **NEWS))["status"] == "failed"


async def test_a_forged_or_foreign_link_does_nothing(callers: Callers) -> None:
    to = callers.address()
    await fate(callers, to, **NEWS)
    link = await way_out(callers, to)
    for broken in (
        link[:-1],
        link[:-2] + ("AA" if link[-2:] != "AA" else "BB"),
        link + "x",
        link.rpartition("/")[0] + "/x",
    ):
        for answer in (await callers.http.get(broken), await callers.http.post(broken, data=ONE_CLICK)):
            assert (answer.status_code, answer.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert (await callers.http.post(link, data={"hello": "world"})).status_code == 400
    assert await suppressions(callers, to) == []


async def test_mail_that_is_no_marketing_has_no_way_out(callers: Callers) -> None:
    to = callers.address()
    await fate(callers, to)
    assert (await callers.mime(to))["List-Unsubscribe"] is None


# --- operators -----------------------------------------------------------------------------------------------------


async def operate(callers: Callers, method: str, key: str | None = None, **more: Any) -> httpx.Response:
    headers = callers.as_("olga", "email:operate") | ({"Idempotency-Key": key} if key else {})
    return await callers.http.request(method, "/api/suppressions", headers=headers, **more)


async def test_a_suppressed_address_gets_nothing_until_it_is_lifted(callers: Callers) -> None:
    to = callers.address()
    made = data(await operate(callers, "POST", json={"address": to, "reason": "asked on the phone"}), 201)
    assert [(each["address"], each["scope"], each["reason"]) for each in made["suppressions"]] == [
        (to, "all", "manual")
    ]
    assert (await fate(callers, to.replace("success", "Success"), category="auth"))["status"] == "failed"
    data(await operate(callers, "DELETE", params={"address": to, "reason": "asked again"}))
    assert await suppressions(callers, to) == []
    assert (await fate(callers, to))["status"] == "delivered"


async def test_lifting_reaches_the_providers_own_list(callers: Callers) -> None:
    to = callers.address()
    at = aws_endpoints(callers.stack)
    ses = at.client("sesv2", at.ses_endpoint_url)
    await asyncio.to_thread(ses.put_suppressed_destination, EmailAddress=to, Reason="BOUNCE")
    assert (await fate(callers, to))["status"] == "failed"

    async def held() -> list[str]:
        return [each["reason"] for each in await suppressions(callers, to)]

    assert await until(held) == ["providerList"]
    data(await operate(callers, "DELETE", params={"address": to}))
    assert (await fate(callers, to))["status"] == "delivered"
    ses.close()


async def test_one_key_suppresses_once(callers: Callers) -> None:
    to, key = callers.address(), str(uuid.uuid4())
    until_then = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    body = {"address": to, "scope": "marketing", "until": until_then}
    first = data(await operate(callers, "POST", key, json=body), 201)
    assert data(await operate(callers, "POST", key, json=body), 201) == first
    assert len(first["suppressions"]) == 1
    refused(await operate(callers, "POST", key, json={**body, "address": callers.address()}), 409)
    data(await operate(callers, "DELETE", params={"address": to, "scope": "marketing"}))
    assert data(await operate(callers, "POST", key, json=body), 201)["suppressions"] == []  # lifted stays lifted


async def test_all_that_is_suppressed_comes_page_by_page(callers: Callers) -> None:
    mine = {callers.address() for _ in range(5)}
    for address in mine:
        data(await operate(callers, "POST", json={"address": address}), 201)
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = data(await operate(callers, "GET", params={"limit": "4", **cursor}))
        people = {each["address"] for each in page["suppressions"]}
        assert len(people) <= 4
        found += people
        if "nextCursor" not in page:
            break
        cursor = {"cursor": page["nextCursor"]}
    assert mine <= set(found)
    assert len(set(found)) == len(found)


async def test_what_is_wrong_is_named(callers: Callers) -> None:
    over = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    for body, wrong in (
        ({}, {"address"}),
        ({"address": "x", "scope": "everything", "reason": "a\nb"}, {"address", "scope", "reason"}),
        ({"address": callers.address(), "until": over}, {"until"}),
        ({"address": callers.address(), "forever": True}, {"forever"}),
    ):
        assert fields(await operate(callers, "POST", json=body)) == wrong
    assert fields(await operate(callers, "DELETE", params={"scope": "x", "reason": ""})) == {
        "address",
        "scope",
        "reason",
    }
    assert fields(await operate(callers, "GET", params={"limit": "0", "cursor": "ä"})) == {"limit", "cursor"}
