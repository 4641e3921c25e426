"""`GET /api/email…` on a real MongoDB: filters, pages, sums, waiting, ETags, history, and who sees what."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest

from contracts.email import events as mail
from services.events.adapters import mongo_statistics
from services.events.adapters.mongo_email_queries import MongoEmailDocuments, query_of
from services.events.adapters.mongo_statistics import FRESH_SECONDS, MongoStatistics
from services.events.analytics import MEASURES, Row
from services.events.email_queries import EmailFilter, EmailQueries
from services.events.entrypoints.http_email import email_router
from services.events.projections.projection import EMAIL_LOG
from services.events.queries import SUM_SECONDS, WAIT_SECONDS
from services.kit.errors import TooMuch
from services.kit.mongo import connect
from tests.integration.events.reading_api import Api, WaitingClock, reading_api
from tests.integration.events.stored_mails import Mails
from tests.unit.events_service.events import ANN, BOB, attempted, bounced, fact, failed, sent

CAT = "cat@example.net"


@pytest.fixture
async def mails(mongo_url: str) -> AsyncIterator[Mails]:
    client = connect(mongo_url)
    name = f"test_http_email_{uuid4().hex[:8]}"
    try:
        mails = Mails(client[name])
        await mails.begin()
        yield mails
    finally:
        await client.drop_database(name)
        await client.close()


@pytest.fixture
async def api(mails: Mails) -> AsyncIterator[Api]:
    clock = WaitingClock()
    routes = email_router(EmailQueries(MongoEmailDocuments(mails.database), clock))
    async with reading_api(routes, clock, "email", "emails", "messageId") as api:
        yield api


# --- pages ---------------------------------------------------------------------------------------------------------


async def test_pages_by_number_and_by_cursor_are_the_same_latest_first_and_complete(mails: Mails, api: Api) -> None:
    at = [0, 5, 5, 5, 5, 9, 9, 12, 30, 30, 31]
    by_age = [(second, await mails.add(at=second)) for second in at]
    expected = [found_id for _, found_id in sorted(by_age, reverse=True)]
    for limit in (1, 2, 3, 4, 10, 11, 100):
        numbered: list[str] = []
        for page in range(1, -(-len(at) // limit) + 2):
            numbered += await api.ids(page=page, limit=limit)
        assert numbered == expected
        found, cursor = [], None
        while True:
            answer = await api.page(limit=limit, **({"cursor": cursor} if cursor else {}))
            found += [email["messageId"] for email in answer["emails"]]
            assert answer["total"] == len(at)
            assert answer["limit"] == limit
            cursor = answer.get("nextCursor")
            if cursor is None:
                break
            assert len(answer["emails"]) == limit
        assert found == expected


async def test_a_cursor_neither_repeats_nor_skips_when_mails_are_added_meanwhile(mails: Mails, api: Api) -> None:
    old = [await mails.add(at=second) for second in (1, 2, 2, 2, 3)]
    first = await api.page(limit=2)
    await mails.add(at=50)
    await mails.add(at=3)
    second = await api.page(limit=100, cursor=first["nextCursor"])
    assert "page" not in second
    shown = [email["messageId"] for email in first["emails"] + second["emails"]]
    assert [found_id for found_id in shown if found_id in old] == [old[4], old[3], old[2], old[1], old[0]]
    assert len(shown) == len(set(shown))


@pytest.mark.parametrize("cursor", ["x", "AAAA", "!!!!", "MQ", "MQAAAAAAAAAA", "é"])
async def test_a_cursor_that_no_list_gave_is_refused(api: Api, cursor: str) -> None:
    assert await api.refused(cursor=cursor) == ["cursor"]


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ({"limit": 101}, ["limit"]),
        ({"limit": 0}, ["limit"]),
        ({"page": 0}, ["page"]),
        ({"page": 102, "limit": 100}, ["page"]),
        ({"page": 1, "cursor": "abc"}, ["query"]),
        ({"category": "spam", "status": "lost", "limit": "x"}, ["category", "limit", "status"]),
        ({"startDate": "yesterday"}, ["startDate"]),
        ({"endDate": "2026-11-24T10:00:00"}, ["endDate"]),
        ({"startDate": "2026-11-25", "endDate": "2026-11-24"}, ["query"]),
        ({"startDate": "0001-01-01T00:00:00+14:00"}, ["startDate"]),
        ({"startDate": "9999-12-31"}, ["startDate"]),
        ({"q": ""}, ["q"]),
        ({"subject": "typing mistake"}, ["subject"]),
    ],
)
async def test_every_wrong_parameter_is_listed(api: Api, query: dict[str, Any], fields: list[str]) -> None:
    assert sorted(await api.refused(**query)) == fields


async def test_nothing_is_there_before_the_first_generation(mails: Mails, api: Api) -> None:
    await mails.database["projections"].drop()
    answer = await api.page()
    assert (answer["emails"], answer["total"], answer["analytics"]["sent"]) == ([], 0, 0)
    assert (await api.get("/some-id/history")).status_code == 404


# --- filters -------------------------------------------------------------------------------------------------------


async def test_each_filter_takes_what_it_names_and_nothing_else(mails: Mails, api: Api) -> None:
    plain = await mails.add(at=1)
    other = await mails.add(
        attempted(),
        sent(),
        at=2,
        category="marketing",
        client_id="client-7",
        subject="50 % (off) [today]",
        to=[ANN, BOB],
    )
    assert await api.ids(category="marketing") == [other]
    assert await api.ids(category="auth") == []
    assert await api.ids(status="queued") == [other, plain]  # BOB's is still queued
    assert await api.ids(clientId="client-7") == [other]
    assert await api.ids(to=BOB) == [other]
    assert await api.ids(to="ann@EXAMPLE.com") == [other, plain]
    assert await api.ids(to="ANN@example.com") == []
    assert await api.ids(q="(OFF) [t") == [other]
    assert await api.ids(q=".*") == []
    assert await api.ids(q="hello") == [plain]
    assert await api.ids(category="marketing", q="hello") == []


async def test_days_and_moments_count_to_their_end(mails: Mails, api: Api) -> None:
    before = await mails.add(at=datetime(2026, 11, 22, 23, 59, 59, 999_999, UTC))
    first = await mails.add(at=datetime(2026, 11, 23, tzinfo=UTC))
    last = await mails.add(at=datetime(2026, 11, 23, 23, 59, 59, 999_999, UTC))
    after = await mails.add(at=datetime(2026, 11, 24, tzinfo=UTC))
    assert await api.ids(startDate="2026-11-23", endDate="2026-11-23") == [last, first]
    assert await api.ids(startDate="2026-11-24") == [after]
    assert await api.ids(endDate="2026-11-22") == [before]
    assert await api.ids(startDate="2026-11-23T00:00:00Z", endDate="2026-11-23T23:59:59.999Z") == [last, first]
    assert await api.ids(startDate="2026-11-23T02:00:00+02:00", endDate="2026-11-23T01:00:00Z") == [first]


async def test_what_is_not_to_be_seen_is_nowhere(mails: Mails, api: Api) -> None:
    hidden = await mails.add_facts_alone(fact(mail.EmailDelivered))
    seen = await mails.add(at=1)
    admin = api.like("boss", "admin")
    assert await admin.ids() == [seen]
    assert (await admin.page())["total"] == 1
    assert (await admin.get(f"/{hidden}")).status_code == 404
    assert (await admin.get(f"/{hidden}/history")).status_code == 404


async def test_no_bookkeeping_is_shown(mails: Mails, api: Api) -> None:
    found_id = await mails.add(attempted(), sent(), bounced(), at=1)
    one = (await api.get(f"/{found_id}")).json()["data"]
    assert one["recipients"][0]["status"] == "bounced"
    assert not [name for name in one if name.startswith("_")]
    assert (await api.page())["emails"] == [one]


@pytest.mark.parametrize(
    "where",
    [
        EmailFilter(),
        EmailFilter(category="marketing"),
        EmailFilter(status="bounced"),
        EmailFilter(user_id="user-1"),
        EmailFilter(user_id="user-1", category="marketing", status="sent"),
        EmailFilter(client_id="client-7"),
        EmailFilter(to=ANN),
        EmailFilter(since=datetime(2026, 11, 1, tzinfo=UTC)),
    ],
)
async def test_a_page_is_found_along_an_index_and_never_sorted_whole(mails: Mails, where: EmailFilter) -> None:
    await mails.add(at=1)
    walk = mails.collection.find({"$and": [query_of(where)]}, {"createdAt": 1, "_id": 0}).sort("createdAt", -1)
    plan = str((await walk.limit(21).explain())["queryPlanner"]["winningPlan"])
    assert "IXSCAN" in plan
    assert "'SORT'" not in plan
    assert "COLLSCAN" not in plan


# --- sums ----------------------------------------------------------------------------------------------------------


async def test_sums_count_recipients_as_the_contract_says(mails: Mails, api: Api) -> None:
    delivered = fact(mail.EmailDelivered)
    await mails.add(attempted(), sent(), delivered, fact(mail.EmailOpened), fact(mail.EmailOpened), at=1)
    await mails.add(attempted(), sent(), delivered, fact(mail.EmailOpened, machine=True), at=2)
    await mails.add(attempted(), sent(), delivered, fact(mail.EmailClicked), fact(mail.EmailComplained), at=3)
    await mails.add(attempted(), sent(), bounced(), at=4)
    await mails.add(attempted(), sent(), bounced("transient"), at=5)
    await mails.add(
        attempted(),
        sent(),
        attempted("b1", BOB),
        sent("b1", BOB),
        failed("suppressed", CAT),
        fact(mail.EmailDelivered, BOB, attempt_id="b1"),
        at=6,
        to=[ANN, BOB, CAT],
    )
    await mails.add(at=7)
    answer = await api.page(limit=1)
    assert answer["total"] == 7
    assert answer["analytics"] == {
        "sent": 7,
        "delivered": 4,
        "bounced": 2,
        "complained": 1,
        "failed": 1,
        "opened": 1,
        "clicked": 1,
        "cost": {"amount": 700, "currency": "USD"},
        "deliveryRate": 4 / 7,
        "bounceRate": 1 / 7,
        "complaintRate": 1 / 4,
        "openRate": 1 / 4,
        "clickRate": 1 / 4,
    }


async def test_sums_are_of_the_filter_and_a_rate_of_nothing_is_null(mails: Mails, api: Api) -> None:
    await mails.add(attempted(), sent(), at=1, category="marketing")
    await mails.add(at=2)
    analytics = (await api.page(category="notification"))["analytics"]
    assert (analytics["sent"], analytics["deliveryRate"], analytics["openRate"]) == (0, None, None)
    assert (await api.page(category="marketing"))["analytics"]["deliveryRate"] == 0


async def test_sums_of_whole_days_come_from_clean_buckets_and_else_from_the_mails(mails: Mails, api: Api) -> None:
    admin = api.like("boss", "admin")
    for number in range(3):
        await mails.add(attempted(), sent(), fact(mail.EmailDelivered), at=number, category="marketing")
    await mails.add(at=4)
    buckets = ["2026-11-24/marketing", "2026-11-24/notification"]
    await mails.mark(buckets)
    live = (await admin.page())["analytics"]  # they are dirty, and not to be trusted
    await mails.refresh(buckets)
    await mails.collection.delete_many({})  # only the buckets can tell now
    for query in ({}, {"startDate": "2026-11-24"}, {"endDate": "2026-11-24"}, {"category": "marketing"}):
        assert (await admin.page(**query))["analytics"]["delivered"] == live["delivered"] == 3
    assert (await admin.page())["analytics"] == live
    assert (await admin.page())["total"] == 4
    for query in ({"startDate": "2026-11-25"}, {"userId": "user-1"}, {"startDate": "2026-11-24T01:00:00Z"}, {"q": "e"}):
        assert (await admin.page(**query))["analytics"]["delivered"] == 0


@pytest.fixture
async def two_days(mails: Mails) -> Mails:
    """Two delivered mails of one day that only their bucket tells of, and one of the next, whose bucket is dirty."""
    for number in range(2):
        await mails.add(attempted(), sent(), fact(mail.EmailDelivered), at=number, category="marketing")
    await mails.mark(["2026-11-24/marketing"])
    await mails.refresh(["2026-11-24/marketing"])
    await mails.collection.delete_many({})
    await mails.add(attempted(), sent(), fact(mail.EmailDelivered), at=86_400, category="marketing")
    await mails.mark(["2026-11-25/marketing"])
    return mails


async def test_a_dirty_bucket_is_summed_up_and_the_clean_ones_beside_it_are_not(two_days: Mails, api: Api) -> None:
    admin = api.like("boss", "admin")
    assert (await admin.page())["analytics"]["delivered"] == 3
    assert (await admin.page(category="marketing"))["total"] == 3
    assert (await admin.page(startDate="2026-11-25"))["total"] == 1


async def test_what_cannot_be_summed_up_in_time_is_told_as_it_was(
    two_days: Mails, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin, summed = api.like("boss", "admin"), MongoStatistics._summed
    tried: list[tuple[list[str], float]] = []

    async def slow(self: MongoStatistics, buckets: Sequence[str], seconds: float) -> list[Row]:
        tried.append((list(buckets), seconds))
        if seconds < SUM_SECONDS:
            raise TooMuch("the sums cannot be read within 2 s")
        return await summed(self, buckets, seconds)

    monkeypatch.setattr(MongoStatistics, "_summed", slow)
    assert (await admin.page())["total"] == 3, "what was never summed up has the whole time"
    assert tried == [(["2026-11-25/marketing"], FRESH_SECONDS), (["2026-11-25/marketing"], SUM_SECONDS)]
    await two_days.refresh(["2026-11-25/marketing"])
    await two_days.add(at=86_401, category="marketing")
    await two_days.mark(["2026-11-25/marketing"])
    assert (await admin.page())["total"] == 3


async def test_sums_by_other_rules_are_made_anew_and_those_by_later_ones_left_alone(
    mails: Mails, monkeypatch: pytest.MonkeyPatch
) -> None:
    await mails.add(at=1)
    bucket = "2026-11-24/notification"
    await mails.mark([bucket])
    before = MongoStatistics(mails.database, EMAIL_LOG.name, 1)
    assert await before.refresh(bucket)
    measures = MEASURES[EMAIL_LOG.name]
    later = replace(measures, version=measures.version + 1, sums={**measures.sums, "twice": 2})
    monkeypatch.setattr(mongo_statistics, "MEASURES", {EMAIL_LOG.name: later})
    after = MongoStatistics(mails.database, EMAIL_LOG.name, 1)
    assert await after.dirty() == [bucket]
    assert await before.dirty() == []
    assert [row["sums"]["twice"] for row in await after.rows(None, None, None) or ()] == [2]
    assert await after.refresh(bucket)
    assert await after.dirty() == []
    await mails.add(at=2)
    await mails.mark([bucket])
    assert (await before.dirty(), await after.dirty()) == ([], [bucket])
    assert not await before.refresh(bucket)
    told = await before.rows(None, None, None) or []
    assert [row["sums"]["messages"] for row in told] == [2]
    assert "twice" not in told[0]["sums"]


# --- one mail ------------------------------------------------------------------------------------------------------


async def test_a_mail_that_comes_within_a_second_is_waited_for(mails: Mails, api: Api) -> None:
    found_id = "0192f0c1-0000-7000-8000-00000000abcd"
    api.clock.meanwhile = partial(mails.add, message_id=found_id)
    answer = await api.get(f"/{found_id}")
    assert (answer.status_code, answer.json()["data"]["messageId"]) == (200, found_id)
    assert 0 < api.clock.monotonic() < WAIT_SECONDS


async def test_none_and_anothers_are_told_apart_neither_by_answer_nor_by_time(mails: Mails, api: Api) -> None:
    anothers = await mails.add(user_id="user-2")
    answers, waits = [], []
    for path in (f"/{anothers}", "/never-was", f"/{anothers}/history", "/never-was/history"):
        began = api.clock.monotonic()
        answer = await api.get(path)
        answers.append((answer.status_code, answer.text))
        waits.append(api.clock.monotonic() - began)
    assert len(set(answers)) == 1
    assert answers[0][0] == 404
    assert waits == [pytest.approx(WAIT_SECONDS)] * 4


async def test_an_unchanged_mail_is_not_sent_again(mails: Mails, api: Api) -> None:
    found_id = await mails.add()
    first = await api.get(f"/{found_id}")
    tag = first.headers["etag"]
    assert first.headers["cache-control"] == "private, no-cache"
    for given in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = await api.get(f"/{found_id}", **{"If-None-Match": given})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    await mails.collection.update_one({"_id": found_id}, {"$set": {"_rev": 2}})
    assert (await api.get(f"/{found_id}", **{"If-None-Match": tag})).status_code == 304
    await mails.collection.update_one({"_id": found_id}, {"$set": {"status": "sent"}})
    changed = await api.get(f"/{found_id}", **{"If-None-Match": tag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != tag


async def test_an_unchanged_list_is_not_sent_again(mails: Mails, api: Api) -> None:
    found_id = await mails.add(at=1)
    for path in ("", "?limit=1&category=notification", f"/{found_id}/history"):
        first = await api.get(path)
        tag = first.headers["etag"]
        assert first.headers["cache-control"] == "private, no-cache"
        again = await api.get(path, **{"If-None-Match": tag})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    tag = (await api.get()).headers["etag"]
    await mails.add(at=2)
    assert (await api.get(**{"If-None-Match": tag})).status_code == 200


async def test_the_history_has_every_event_in_fold_order_with_its_origin(mails: Mails, api: Api) -> None:
    found_id = await mails.add(attempted(), fact(mail.EmailOpened, ip_address="192.0.2.1"), sent(), at=1)
    events = (await api.get(f"/{found_id}/history")).json()["data"]["events"]
    assert [each["event"]["type"] for each in events] == [
        "email.requested",
        "email.sendAttempted",
        "email.opened",
        "email.sent",
    ]
    assert [each["kind"] for each in events] == ["decision", "decision", "fact", "decision"]
    assert [each["origin"]["offset"] for each in events] == [0, 1, 2, 3]
    assert {each["origin"]["topic"] for each in events} == {"email.events"}
    assert events[2]["event"]["data"]["ipAddress"] == "192.0.2.1"
    assert events[0]["event"]["subject"] == found_id
    assert not any(each["retracted"] for each in events)


async def test_a_long_history_comes_in_pages(mails: Mails, api: Api) -> None:
    found_id = await mails.add(*[fact(mail.EmailDelivered) for _ in range(6)], at=1)
    whole = (await api.get(f"/{found_id}/history")).json()["data"]["events"]
    found, more = [], ""
    while True:
        page = (await api.get(f"/{found_id}/history?limit=3{more}")).json()["data"]
        found += page["events"]
        if "nextCursor" not in page:
            break
        more = f"&cursor={page['nextCursor']}"
    assert found == whole
    assert len(found) == 7
    assert (await api.get(f"/{found_id}/history?cursor=MQ")).status_code == 400


async def test_what_was_taken_back_is_in_the_history_and_says_so(mails: Mails, api: Api) -> None:
    wrong = mail.EventRetracted(event_id="event-0002", up_to_revision=1, reason="mistranslated")
    found_id = await mails.add(bounced(), wrong, at=1)
    events = (await api.get(f"/{found_id}/history")).json()["data"]["events"]
    assert [(each["event"]["type"], each["retracted"]) for each in events] == [
        ("email.requested", False),
        ("email.bounced", True),
        ("event.retracted", False),
    ]


# --- whose ---------------------------------------------------------------------------------------------------------


async def test_only_admins_see_mails_of_others(mails: Mails, api: Api) -> None:
    mine = await mails.add(at=1)
    anothers = await mails.add(at=2, user_id="user-2")
    admin, service = api.like("boss", "admin"), api.like("user-2", "service")
    assert await admin.ids() == [anothers, mine]
    assert await admin.ids(userId="user-2") == [anothers]
    assert await api.ids() == [mine]
    assert await api.ids(userId="user-2") == [mine]
    assert await service.ids() == [anothers]
    assert (await admin.get(f"/{anothers}")).status_code == 200
    assert (await service.get(f"/{quote(anothers)}")).status_code == 200
