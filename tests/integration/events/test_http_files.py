"""`GET /api/files…` on a real MongoDB: filters, pages, totals, waiting, ETags, history, and who sees what.

Pages, waiting and cursors are those of mails and tested there (`test_http_email.py`); here what is files' own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import uuid4

import pytest

from contracts.files import events as files
from services.events.adapters.mongo_file_queries import MongoFileDocuments, query_of
from services.events.entrypoints.http_files import files_router
from services.events.file_queries import FileFilter, FileQueries
from services.events.queries import WAIT_SECONDS
from services.kit.mongo import connect
from tests.integration.events.reading_api import Api, WaitingClock, reading_api
from tests.integration.events.stored_files import Files
from tests.unit.events_service.events import retracted
from tests.unit.events_service.file_events import (
    VERSION,
    deleted,
    download,
    object_fact,
    restored,
    scan_settled,
    upload_failed,
    uploaded,
)


@pytest.fixture
async def stored(mongo_url: str) -> AsyncIterator[Files]:
    client = connect(mongo_url)
    name = f"test_http_files_{uuid4().hex[:8]}"
    try:
        stored = Files(client[name])
        await stored.begin()
        yield stored
    finally:
        await client.drop_database(name)
        await client.close()


@pytest.fixture
async def api(stored: Files) -> AsyncIterator[Api]:
    clock = WaitingClock()
    routes = files_router(FileQueries(MongoFileDocuments(stored.database), clock))
    async with reading_api(routes, clock, "files", "files", "fileId") as api:
        yield api


async def test_pages_by_number_and_by_cursor_are_the_same_latest_first_and_complete(stored: Files, api: Api) -> None:
    by_age = [(second, await stored.add(at=second)) for second in (0, 5, 5, 5, 9, 30, 30)]
    expected = [file_id for _, file_id in sorted(by_age, reverse=True)]
    for limit in (1, 3, 100):
        numbered: list[str] = []
        for page in range(1, -(-len(expected) // limit) + 2):
            numbered += await api.ids(page=page, limit=limit)
        assert numbered == expected
        found, cursor = [], None
        while True:
            answer = await api.page(limit=limit, **({"cursor": cursor} if cursor else {}))
            found += [each["fileId"] for each in answer["files"]]
            assert (answer["total"], answer["limit"]) == (len(expected), limit)
            cursor = answer.get("nextCursor")
            if cursor is None:
                break
        assert found == expected


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ({"limit": 101}, ["limit"]),
        ({"page": 102, "limit": 100}, ["page"]),
        ({"page": 1, "cursor": "abc"}, ["query"]),
        ({"cursor": "x"}, ["cursor"]),
        ({"category": "spam", "status": "lost"}, ["category", "status"]),
        ({"startDate": "2026-11-25", "endDate": "2026-11-24"}, ["query"]),
        ({"tag": "", "q": ""}, ["q", "tag"]),
        ({"to": "typing mistake"}, ["to"]),
    ],
)
async def test_every_wrong_parameter_is_listed(api: Api, query: dict[str, Any], fields: list[str]) -> None:
    assert sorted(await api.refused(**query)) == fields


async def test_nothing_is_there_before_the_first_generation(stored: Files, api: Api) -> None:
    await stored.database["projections"].drop()
    answer = await api.page()
    assert (answer["files"], answer["total"]) == ([], 0)
    assert (await api.get("/some-id/history")).status_code == 404


async def test_each_filter_takes_what_it_names_and_nothing_else(stored: Files, api: Api) -> None:
    plain = await stored.add(at=1)
    other = await stored.add(
        uploaded(),
        at=2,
        category="invoice",
        client_id="client-7",
        original_name="Rechnung (50 %) [März].pdf",
        file_name="Rechnung_50.pdf",
        tags=["2026", "März"],
    )
    gone = await stored.add(uploaded(), files.FileUpdated(tags=["2026"]), deleted(), at=3, tags=["old"])
    failed = await stored.add(upload_failed(), at=4)
    assert await api.ids() == [failed, gone, other, plain]
    assert await api.ids(category="invoice") == [other]
    assert await api.ids(category="avatar") == []
    for status, found in (("uploading", plain), ("completed", other), ("deleted", gone), ("failed", failed)):
        assert await api.ids(status=status) == [found]
        assert (await api.page(status=status))["total"] == 1
    assert await api.ids(tag="2026") == [gone, other]
    assert await api.ids(tag="März") == [other]
    assert await api.ids(tag="old") == []
    assert await api.ids(clientId="client-7") == [other]
    assert await api.ids(q="(50 %) [m") == [other]
    assert await api.ids(q="nung_50") == [other]
    assert await api.ids(q=".*") == []
    assert await api.ids(q="report") == [failed, gone, plain]
    assert await api.ids(tag="2026", status="completed", q="report") == []


async def test_days_and_moments_count_to_their_end(stored: Files, api: Api) -> None:
    first = await stored.add(at=datetime(2026, 11, 23, tzinfo=UTC))
    last = await stored.add(at=datetime(2026, 11, 23, 23, 59, 59, 999_999, UTC))
    after = await stored.add(at=datetime(2026, 11, 24, tzinfo=UTC))
    assert await api.ids(startDate="2026-11-23", endDate="2026-11-23") == [last, first]
    assert await api.ids(startDate="2026-11-24") == [after]
    assert await api.ids(endDate="2026-11-23T00:00:00Z") == [first]


async def test_what_is_not_to_be_seen_is_nowhere(stored: Files, api: Api) -> None:
    hidden = [await stored.add_facts_alone(uploaded(), download()) for _ in range(2)]
    seen = await stored.add(at=1)
    admin = api.like("boss", "admin")
    assert await admin.ids() == [seen]
    assert (await admin.page())["total"] == 1
    assert (await admin.get(f"/{hidden[0]}")).status_code == 404
    assert (await admin.get(f"/{hidden[0]}/history")).status_code == 404
    assert [each["_id"] async for each in stored.database["file"].find()] == [seen]


async def test_a_file_as_the_contract_shows_it(stored: Files, api: Api) -> None:
    created = object_fact(files.FileObjectCreated)
    file_id = await stored.add(
        created, uploaded(storage_class="STANDARD"), scan_settled(), download(30), deleted(), restored(), tags=["a"]
    )
    one = (await api.get(f"/{file_id}")).json()["data"]
    assert one == {
        "fileId": file_id,
        "key": f"document/2026/11/{file_id}/nonce",
        "fileName": "report.pdf",
        "originalName": "Report.pdf",
        "contentType": "application/pdf",
        "size": 900,
        "category": "document",
        "status": "completed",
        "scanStatus": "clean",
        "isPublic": False,
        "userId": "user-1",
        "metadata": {"uploadedBy": "user-1", "tags": ["a"]},
        "s3Info": {
            "bucket": "mailroom-files",
            "region": "eu-central-1",
            "etag": "e1",
            "versionId": VERSION,
            "storageClass": "STANDARD",
        },
        "access": {
            "downloadCount": 1,
            "lastAccessed": "2026-11-24T10:00:04Z",
            "expiresAt": "2026-11-24T10:30:00Z",
        },
        "createdAt": "2026-11-24T10:00:00Z",
        "updatedAt": "2026-11-24T10:00:06Z",
    }
    assert (await api.page())["files"] == [one]
    shown = await stored.database["file"].find_one({"_id": file_id})
    assert shown is not None
    assert shown.keys() == one.keys() | {"_id"}


@pytest.mark.parametrize(
    "where",
    [
        FileFilter(),
        FileFilter(category="invoice"),
        FileFilter(status="completed"),
        FileFilter(user_id="user-1"),
        FileFilter(user_id="user-1", category="invoice", status="completed"),
        FileFilter(client_id="client-7"),
        FileFilter(tag="a"),
        FileFilter(user_id="user-1", tag="a"),
        FileFilter(since=datetime(2026, 11, 1, tzinfo=UTC)),
    ],
)
async def test_a_page_is_found_along_an_index_and_never_sorted_whole(stored: Files, where: FileFilter) -> None:
    await stored.add(at=1, tags=["a"])
    walk = stored.collection.find({"$and": [query_of(where)]}, {"createdAt": 1, "_id": 0}).sort("createdAt", -1)
    plan = str((await walk.limit(21).explain())["queryPlanner"]["winningPlan"])
    assert "IXSCAN" in plan
    assert "'SORT'" not in plan
    assert "COLLSCAN" not in plan


async def test_totals_of_whole_days_come_from_clean_buckets_and_else_from_the_files(stored: Files, api: Api) -> None:
    admin = api.like("boss", "admin")
    for number in range(3):
        await stored.add(uploaded(size=100), download(), download(), at=number, category="invoice")
    await stored.add(uploaded(size=7), deleted(), at=4)
    await stored.add(upload_failed(), at=5)
    buckets = ["2026-11-24/document", "2026-11-24/invoice"]
    await stored.mark(buckets)
    await stored.refresh(buckets)
    rows = await stored.statistics.rows(None, None, "invoice")
    assert rows == [
        {
            "sums": {
                "files": 3, "uploading": 0, "completed": 3, "failed": 0, "deleted": 0, "infected": 0,
                "size": 300, "downloads": 6,
            },
        }
    ]  # fmt: skip
    (documents,) = await stored.statistics.rows(None, None, "document") or []
    assert {name: documents["sums"][name] for name in ("files", "failed", "deleted", "size")} == {
        "files": 2, "failed": 1, "deleted": 1, "size": 0,
    }  # fmt: skip
    await stored.collection.delete_many({})  # only the buckets can tell now
    assert (await admin.page())["total"] == 5
    assert (await admin.page(startDate="2026-11-24", category="invoice"))["total"] == 3
    assert (await admin.page(userId="user-1"))["total"] == 0
    await stored.mark(buckets)
    assert (await admin.page())["total"] == 0


async def test_a_file_that_comes_within_a_second_is_waited_for(stored: Files, api: Api) -> None:
    file_id = "0192f0c1-0000-7000-8000-00000000abcd"
    api.clock.meanwhile = partial(stored.add, file_id=file_id)
    answer = await api.get(f"/{file_id}")
    assert (answer.status_code, answer.json()["data"]["fileId"]) == (200, file_id)


async def test_none_and_anothers_are_told_apart_neither_by_answer_nor_by_time(stored: Files, api: Api) -> None:
    anothers = await stored.add(user_id="user-2", is_public=True)
    answers, waits = [], []
    for path in (f"/{anothers}", "/never-was", f"/{anothers}/history", "/never-was/history"):
        began = api.clock.monotonic()
        answer = await api.get(path)
        answers.append((answer.status_code, answer.text))
        waits.append(api.clock.monotonic() - began)
    assert len(set(answers)) == 1
    assert answers[0][0] == 404
    assert waits == [pytest.approx(WAIT_SECONDS)] * 4


@pytest.mark.parametrize("path", ["/{}", "", "?status=completed&limit=1", "/{}/history"])
async def test_what_is_unchanged_is_not_sent_again(stored: Files, api: Api, path: str) -> None:
    file_id = await stored.add(uploaded(), at=1)
    path = path.format(file_id)
    first = await api.get(path)
    tag = first.headers["etag"]
    assert (first.status_code, first.headers["cache-control"]) == (200, "private, no-cache")
    for given in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = await api.get(path, **{"If-None-Match": given})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert (await api.get(path, **{"If-None-Match": '"other"'})).status_code == 200
    if path.endswith("history"):
        return
    await stored.collection.update_one({"_id": file_id}, {"$set": {"originalName": "Other.pdf"}})
    changed = await api.get(path, **{"If-None-Match": tag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != tag


async def test_the_history_has_every_event_in_fold_order_with_its_origin(stored: Files, api: Api) -> None:
    facts = [object_fact(files.FileObjectCreated), uploaded(), download(), retracted("event-0004")]
    file_id = await stored.add(*facts, at=1)
    history = (await api.get(f"/{file_id}/history")).json()["data"]
    assert history["fileId"] == file_id
    assert [(each["event"]["type"], each["kind"], each["retracted"]) for each in history["events"]] == [
        ("file.uploadRequested", "decision", False),
        ("file.objectCreated", "fact", False),
        ("file.uploaded", "decision", False),
        ("file.downloadIssued", "fact", True),
        ("event.retracted", "fact", False),
    ]
    assert {each["origin"]["topic"] for each in history["events"]} == {"files.events"}
    assert [each["origin"]["offset"] for each in history["events"]] == [0, 1, 2, 3, 4]


async def test_the_history_of_a_busy_file_comes_whole_in_pages(stored: Files, api: Api) -> None:
    file_id = await stored.add(uploaded(), *[download(number) for number in range(1200)], at=1)
    access = (await api.get(f"/{file_id}")).json()["data"]["access"]
    assert access["downloadCount"] == 1200
    found, more = 0, ""
    while True:
        page = (await api.get(f"/{file_id}/history?limit=500{more}")).json()["data"]
        found += len(page["events"])
        if "nextCursor" not in page:
            break
        more = f"&cursor={page['nextCursor']}"
    assert found == 1202
    assert (await api.get(f"/{file_id}/history?cursor=MQ")).status_code == 400


async def test_only_admins_see_files_of_others(stored: Files, api: Api) -> None:
    mine = await stored.add(at=1)
    anothers = await stored.add(at=2, user_id="user-2")
    admin, service = api.like("boss", "admin"), api.like("user-2", "service")
    assert await admin.ids() == [anothers, mine]
    assert await admin.ids(userId="user-2") == [anothers]
    assert await api.ids() == [mine]
    assert await api.ids(userId="user-2") == [mine]
    assert await service.ids() == [anothers]
    assert (await admin.get(f"/{anothers}")).status_code == 200
    assert (await service.get(f"/{anothers}")).status_code == 200
