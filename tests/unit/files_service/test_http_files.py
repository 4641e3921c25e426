"""Links, changes and deletion over HTTP; the settler, the sweeper and commands on the same files; and crashes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from contracts.files.events import FileDownloadIssued
from services.files.adapters.s3_objects import CALL_SECONDS
from services.files.domain.categories import DEFAULTS
from services.files.domain.commands import Look, Update
from services.files.domain.seen import ObjectVersion
from services.files.entrypoints.commands import CommandIntake
from services.files.entrypoints.settler import Settler
from services.files.entrypoints.sweeper import AT_ONCE, BATCH, Sweeper
from services.files.handlers import TOGETHER
from services.kit import metrics as m
from services.kit.errors import Unavailable
from services.kit.health import Progress
from services.kit.kafka.records import DONE, Outcome, Park, Record, Retry
from services.kit.request_limits import Limit
from tests.unit.files_service.door import PDF, Door, as_
from tests.unit.files_service.fakes import MemoryObjects

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + b"\0" * 100


@pytest.fixture
def door() -> Door:
    return Door()


def command(kind: str, file_id: str, *, actor: str | None = None, subject: str | None = None, **data: Any) -> Record:
    subject = subject or file_id
    envelope = {
        "specversion": "1.0", "id": str(uuid4()), "source": "crm", "type": f"file.{kind}", "subject": subject,
        "data": {"fileId": file_id, **data},
    }  # fmt: skip
    if actor is not None:
        envelope["actor"] = actor
    return Record("files.commands", 0, 0, 0, subject.encode(), json.dumps(envelope).encode(), ())


def fact(kind: str, file_id: str, **data: Any) -> Record:
    envelope = {
        "specversion": "1.0", "id": str(uuid4()), "source": "/mailroom/files", "type": f"file.{kind}",
        "subject": file_id, "time": "2026-11-29T10:00:00Z", "correlationid": file_id, "revision": 1,
        "data": {"bucket": "b", "key": "k", "eventName": "x", **data},
    }  # fmt: skip
    return Record("files.events", 0, 0, 0, file_id.encode(), json.dumps(envelope).encode(), ())


async def settle(door: Door, *records: Record) -> list[Outcome]:
    return list(await Settler(door.files)(records))


async def test_a_link_goes_to_the_verified_version_and_is_told_before_it_is_given(door: Door) -> None:
    file_id = await door.uploaded(fileName='x "ä".pdf')
    answer = await door.client.get(f"/api/files/{file_id}/download")
    assert answer.status_code == 200
    url = answer.json()["data"]["url"]
    assert "versionId=v0" in url
    assert "inline" in url
    assert "filename*=UTF-8''x%20%22%C3%A4%22.pdf" in url
    (told,) = door.told()
    assert isinstance(told, FileDownloadIssued)
    assert told.user_id == "ann"
    door.publisher.away = True
    assert (await door.client.get(f"/api/files/{file_id}/download")).status_code == 503


async def test_what_may_not_go_out_says_why() -> None:
    door = Door(changes={"document": {"scan": True}})
    asked = (await door.ask()).json()["data"]
    assert (await door.client.get(f"/api/files/{asked['fileId']}/download")).status_code == 409
    file_id = await door.uploaded()
    path = f"/api/files/{file_id}/download"
    waiting = await door.client.get(path)
    assert (waiting.status_code, "malware" in waiting.json()["error"]) == (409, True)
    assert await settle(door, fact("scanned", file_id, versionId="v0", result="clean")) == [DONE]
    assert (await door.client.get(path)).status_code == 200
    assert (await door.client.get(path, headers=as_("bob"))).status_code == 404
    assert (await door.client.get(path, headers=as_("root", role="admin"))).status_code == 200
    assert (await door.client.get(path, headers=as_("ann", "files:create"))).status_code == 403
    await door.client.delete(f"/api/files/{file_id}")
    assert (await door.client.get(path)).status_code == 410
    assert (await door.client.get(f"/api/files/{uuid4()}/download")).status_code == 404
    assert (await door.client.get("/api/files/none/download")).status_code == 400


async def test_links_to_public_files_are_held_by_address_and_changes_by_user() -> None:
    door = Door(limits={"public": Limit(2, 60), "upload": Limit(4, 60)})
    file_id = await door.uploaded(category="general", isPublic=True)
    links = [(await door.client.get(f"/api/files/{file_id}/public")).status_code for _ in range(3)]
    assert links == [302, 302, 429]
    changes = [(await door.client.patch(f"/api/files/{file_id}", json={"tags": ["a"]})).status_code for _ in range(3)]
    assert changes == [200, 200, 429], "asking for the upload and saying that it is done were the first two"


async def test_a_public_file_is_for_everybody_and_no_other_one_is(door: Door) -> None:
    file_id = await door.uploaded(PNG, category="avatar", contentType="image/png", fileName="me.png", isPublic=True)
    nobody = {"authorization": ""}
    answer = await door.client.get(f"/api/files/{file_id}/public", headers=nobody)
    assert (answer.status_code, "versionId=v0" in answer.headers["location"]) == (302, True)
    assert door.objects.key((await door.file(file_id)).request.key).what["v0"].is_public
    hidden = await door.client.patch(f"/api/files/{file_id}", json={"isPublic": False})
    assert hidden.json()["data"]["isPublic"] is False
    assert (await door.client.get(f"/api/files/{file_id}/public", headers=nobody)).status_code == 404


async def test_looking_at_a_public_file_leaves_nothing_but_a_number(door: Door) -> None:
    file_id = await door.uploaded(PNG, category="avatar", contentType="image/png", fileName="me.png", isPublic=True)
    before, door.publisher.away = await door.events(file_id), True
    for _ in range(3):
        answer = await door.client.get(f"/api/files/{file_id}/public", headers={"authorization": ""})
        assert answer.status_code == 302
    assert answer.headers["cache-control"] == "public, max-age=150", "half of the link's five minutes"
    assert (door.publisher.published, await door.events(file_id)) == ([], before)
    assert door.metrics.value(m.PUBLIC_VIEWS) == 3


async def test_a_redirect_is_kept_no_longer_than_the_credentials_of_its_link(door: Door) -> None:
    file_id = await door.uploaded(PNG, category="avatar", contentType="image/png", fileName="me.png", isPublic=True)
    for left, kept in ((60, 30), (1, 0), (-5, 0)):
        door.signer.end = door.clock.now() + timedelta(seconds=left)
        answer = await door.client.get(f"/api/files/{file_id}/public")
        assert answer.headers["cache-control"] == f"public, max-age={kept}"


async def test_what_is_not_recognised_is_nobodys_and_an_attachment(door: Door) -> None:
    asked: dict[str, Any] = {"category": "avatar", "contentType": "image/png", "fileName": "a.png", "isPublic": True}
    file_id = await door.uploaded(b"no picture", **asked)
    shown = (await door.complete(file_id, 10)).json()["data"]
    assert (shown["status"], shown["isPublic"]) == ("completed", False)
    path = f"/api/files/{file_id}"
    link = (await door.client.get(f"{path}/download")).json()["data"]["url"]
    assert "d=attachment" in link
    assert "inline" not in link
    assert (await door.client.get(f"{path}/public")).status_code == 404
    refused = await door.client.patch(path, json={"isPublic": True})
    assert (refused.status_code, "recognised" in refused.json()["error"]) == (409, True)
    command_ = command("update", file_id, isPublic=True)
    (parked,) = await CommandIntake(door.files, DEFAULTS)([command_])
    assert isinstance(parked, Park)
    assert parked.reason == "notRecognised"


async def test_changes(door: Door) -> None:
    file_id = await door.uploaded()
    path = f"/api/files/{file_id}"
    changed = await door.client.patch(path, json={"name": "Büro/1.pdf", "tags": ["x"]})
    data = changed.json()["data"]
    assert (data["originalName"], data["fileName"], data["metadata"]["tags"]) == ("Büro/1.pdf", "Büro_1.pdf", ["x"])
    for bad in ({}, {"isPublic": True}, {"name": "a.exe"}, {"name": "a.png"}, {"tags": ["a", "a"]}, {"no": 1}):
        assert (await door.client.patch(path, json=bad)).status_code == 400, bad
    assert (await door.client.patch(path, json={"tags": []}, headers=as_("bob"))).status_code == 404


async def test_deleted_and_restored(door: Door) -> None:
    file_id = await door.uploaded()
    path = f"/api/files/{file_id}"
    for _ in range(2):
        gone = (await door.client.delete(path)).json()["data"]
        assert (gone["status"], gone["recoverable"]) == ("deleted", True)
    assert (await door.client.patch(path, json={"tags": ["a"]})).status_code == 409
    for _ in range(2):
        back = await door.client.post(f"{path}/restore")
        assert (back.status_code, back.json()["data"]["status"]) == (200, "completed")
    await door.client.delete(path)
    key = door.objects.key((await door.file(file_id)).request.key)
    key.delete(["v0"])
    assert (await door.client.post(f"{path}/restore")).status_code == 410


async def test_a_batch_is_answered_item_by_item(door: Door) -> None:
    mine = [await door.uploaded() for _ in range(3)]
    stranger = str(uuid4())
    body = {"action": "tag", "fileIds": [*mine, stranger], "tags": ["2026"]}
    answer = (await door.client.post("/api/files/batch", json=body)).json()["data"]
    assert [each["success"] for each in answer["results"]] == [True, True, True, False]
    assert (answer["succeeded"], answer["failed"]) == (3, 1)
    gone = await door.client.post("/api/files/batch", json={"action": "delete", "fileIds": mine})
    assert gone.json()["data"]["succeeded"] == 3
    for scope in ("files:create", "files:delete"):
        lacking = await door.client.post("/api/files/batch", json=body, headers=as_("ann", scope))
        assert lacking.status_code == 403
    for bad in ({"action": "delete", "fileIds": []}, {"action": "tag", "fileIds": mine}, {"action": "x"}):
        assert (await door.client.post("/api/files/batch", json=bad)).status_code == 400
    many = {"action": "delete", "fileIds": [str(uuid4()) for _ in range(1001)]}
    assert (await door.client.post("/api/files/batch", json=many)).status_code == 400


async def test_notifications_alone_complete_and_delete(door: Door) -> None:
    asked = (await door.ask()).json()["data"]
    file_id = asked["fileId"]
    assert await settle(door, fact("objectCreated", file_id)) == [DONE]
    door.objects.store(door.signer.puts[-1], PDF)
    assert await settle(door, fact("objectCreated", file_id), fact("objectCreated", file_id)) == [DONE, DONE]
    key = door.objects.key(asked["fileKey"])
    key.mark()
    await settle(door, fact("objectExpired", file_id))
    file = await door.file(file_id)
    assert (file.phase, file.removal, file.recoverable) == ("deleted", "lifecycle", True)
    assert await door.events(file_id) == ["uploadRequested", "uploaded", "deleted"]
    assert (await door.complete(file_id)).status_code == 410


async def test_the_settler_lets_no_record_stop_another(door: Door) -> None:
    file_id = await door.uploaded()
    bad = Record("files.events", 0, 0, 0, b"x", b"{", ())
    door.objects.key((await door.file(file_id)).request.key).mark()
    outcomes = await settle(door, bad, fact("deleteMarkerCreated", file_id), fact("objectTagged", str(uuid4())))
    assert isinstance(outcomes[0], Park)
    assert outcomes[1:] == [DONE, DONE]
    door.objects.away = True
    (away,) = await settle(door, fact("objectCreated", file_id))
    assert isinstance(away, Retry)


async def test_a_scan_of_another_version_says_nothing(door: Door) -> None:
    file_id = await door.uploaded()
    await settle(door, fact("scanned", file_id, versionId="other", result="infected"))
    assert (await door.file(file_id)).scan is None
    await settle(door, fact("scanned", file_id, versionId="v0", result="infected"))
    file = await door.file(file_id)
    assert (file.scan, file.phase, file.recoverable) == ("infected", "deleted", False)
    assert door.objects.key(file.request.key).stack == []


async def test_commands_on_kafka(door: Door) -> None:
    file_id = await door.uploaded()
    intake = CommandIntake(door.files, DEFAULTS)
    assert await intake([command("update", file_id, name="b.pdf")]) == [DONE]
    assert (await door.file(file_id)).original_name == "b.pdf"
    assert await intake([command("delete", file_id, actor="user:ann")]) == [DONE]
    assert (await door.file(file_id)).removal == "user"
    assert await intake([command("restore", file_id, actor="service:crm")]) == [DONE]
    refused = await intake(
        [
            command("delete", file_id, actor="user:bob"),
            command("delete", str(uuid4())),
            command("delete", file_id, subject=str(uuid4())),
            command("update", file_id, isPublic=True),
            command("update", file_id, name="b.exe"),
            command("update", file_id),
            Record("files.commands", 0, 0, 0, None, None, ()),
        ]
    )
    assert all(isinstance(each, Park) for each in refused)
    assert (await door.file(file_id)).phase == "completed"
    door.objects.away = True
    assert isinstance((await intake([command("delete", file_id)]))[0], Retry)


async def test_roles_that_may_not_be_claimed_on_kafka_are_parked(door: Door) -> None:
    file_id = await door.uploaded()
    intake = CommandIntake(door.files, DEFAULTS, {"files.commands": ("user",), "email.commands.low": ("service",)})
    refused = await intake([command("delete", file_id, actor="admin:x"), command("delete", file_id)])
    assert [each.reason for each in refused if isinstance(each, Park)] == ["roleNotAllowed"] * 2
    assert await intake([command("delete", file_id, actor="user:ann")]) == [DONE]


async def test_the_sweeper_ends_what_never_came_and_closes_the_rest(door: Door) -> None:
    never = (await door.ask()).json()["data"]["fileId"]
    done = await door.uploaded()
    parts = (await door.ask(size=120 << 20)).json()["data"]["fileId"]
    sweeper = Sweeper(door.files, "me", door.clock, Progress(door.clock))
    assert not await sweeper.sweep()
    assert (await door.file(never)).phase == "uploading"
    door.clock.move(timedelta(hours=2).total_seconds())
    await sweeper.sweep()
    assert await door.events(never) == ["uploadRequested", "uploadFailed", "uploadClosed"]
    assert await door.events(done) == ["uploadRequested", "uploaded", "uploadClosed"]
    door.clock.move(timedelta(hours=24).total_seconds())
    await sweeper.sweep()
    assert (await door.file(parts)).failure == "expired"
    assert (await door.file(parts)).closed
    assert door.objects.uploads == {}
    assert (await door.store.due_counts(["uploads"], door.clock.now()))["uploads"] == 0


@pytest.mark.parametrize("where", ["files.append", "files.appended"])
@pytest.mark.parametrize("what", ["good", "bad", "delete", "restore"])
async def test_killed_between_two_steps_the_next_look_makes_it_true(where: str, what: str) -> None:
    door = Door()
    if what in ("good", "bad"):
        asked = (await door.ask()).json()["data"]
        file_id = asked["fileId"]
        door.objects.store(door.signer.puts[-1], PDF if what == "good" else b"<html>of another kind")
        path, method, body = "/api/files/upload-complete", "POST", {"fileId": file_id, "actualSize": len(PDF)}
    else:
        file_id = await door.uploaded()
        if what == "restore":
            await door.client.delete(f"/api/files/{file_id}")
        path, method, body = f"/api/files/{file_id}", "DELETE", None
        if what == "restore":
            path, method = f"{path}/restore", "POST"
    door.kills.at = where
    killed = await door.client.request(method, path, json=body)
    assert killed.status_code == 500
    assert not door.kills.at
    await settle(door, fact("objectCreated", file_id))
    await settle(door, fact("objectCreated", file_id))
    file = await door.file(file_id)
    stack = door.objects.key(file.request.key).stack
    expected = {
        "good": ("completed", [False]),
        "bad": ("failed", []),
        "delete": ("deleted", [True, False]),
        "restore": ("completed", [False]),
    }[what]
    assert (file.phase, [each.is_marker for each in stack]) == expected
    before = (await door.store.load(file_id)).version
    assert (await door.files.look(file_id, lambda seen: Look(seen, "sweeper"))).stream.version == before


async def test_the_sweeper_looks_at_several_files_at_once_and_at_no_more(door: Door) -> None:
    for _ in range(BATCH):
        await door.ask()
    door.clock.move(timedelta(hours=2).total_seconds())
    running: list[int] = [0]
    peaks: list[int] = []
    look = door.objects.versions

    async def watched(key: str) -> tuple[ObjectVersion, ...]:
        running[0] += 1
        for _ in range(100):  # a turn of everybody who may run
            await asyncio.sleep(0)
        peaks.append(running[0])
        running[0] -= 1
        return await look(key)

    door.objects.versions = watched  # type: ignore[method-assign]
    await Sweeper(door.files, "me", door.clock, Progress(door.clock)).sweep()
    assert max(peaks) == AT_ONCE
    assert (await door.store.due_counts(["uploads"], door.clock.now()))["uploads"] == 0


async def delete_all(door: Door, *file_ids: str) -> list[tuple[bool, str | None]]:
    answer = await door.client.post("/api/files/batch", json={"action": "delete", "fileIds": list(file_ids)})
    assert answer.status_code == 200
    return [(each["success"], each.get("error")) for each in answer.json()["data"]["results"]]


async def test_many_files_are_deleted_by_few_calls_and_not_looked_at(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [await door.uploaded() for _ in range(TOGETHER + 1)]
    calls: list[int] = []
    mark_all = door.objects.mark_all

    async def counted(keys: Sequence[str]) -> frozenset[str]:
        calls.append(len(keys))
        return await mark_all(keys)

    monkeypatch.setattr(door.objects, "mark_all", counted)
    for name in ("versions", "inspect", "mark"):
        monkeypatch.delattr(MemoryObjects, name)
    assert await delete_all(door, *files) == [(True, None)] * len(files)
    assert calls == [TOGETHER, 1]
    for file_id in files:
        file = await door.file(file_id)
        assert (file.phase, file.removal, file.recoverable) == ("deleted", "user", True)
        assert [each.is_marker for each in door.objects.key(file.request.key).stack] == [True, False]
    marked = [fact("deleteMarkerCreated", file_id) for file_id in files]
    assert await settle(door, *marked) == [DONE] * len(files), (
        "a marker on a deleted file is no news, and costs no look"
    )


async def test_of_many_files_each_has_its_own_fate(door: Door) -> None:
    private, refused = await door.uploaded(), await door.uploaded()
    public = await door.uploaded(PNG, category="avatar", contentType="image/png", fileName="a.png", isPublic=True)
    uploading = (await door.ask()).json()["data"]["fileId"]
    door.objects.refused = frozenset({(await door.file(refused)).request.key})
    door.client.headers.update(as_("bob"))
    bobs = await door.uploaded()
    door.client.headers.update(as_("ann"))
    asked = [private, private, refused, public, uploading, bobs, str(uuid4())]
    done = await delete_all(door, *asked)
    assert [good for good, _ in done] == [True, True, False, True, True, False, False]
    assert [done[n][1] for n in (2, 5)] == [
        "This cannot be done at the moment: repeat later.",
        "There is no such file.",
    ]
    assert not door.objects.key((await door.file(public)).request.key).what["v0"].is_public
    phases = [(await door.file(each)).phase for each in (private, refused, public, uploading, bobs)]
    assert phases == ["deleted", "completed", "deleted", "failed", "completed"]


@pytest.mark.parametrize("where", ["files.append", "files.appended"])
async def test_killed_while_many_are_deleted_what_s3_tells_makes_it_true(door: Door, where: str) -> None:
    files = [await door.uploaded() for _ in range(3)]
    door.kills.at = where
    killed = await door.client.post("/api/files/batch", json={"action": "delete", "fileIds": files})
    assert killed.status_code == 500
    await settle(door, *(fact("deleteMarkerCreated", file_id) for file_id in files))
    assert [(await door.file(each)).phase for each in files] == ["deleted"] * 3


async def test_who_changes_a_file_while_it_is_deleted_among_many_does_not_save_it(door: Door) -> None:
    files = [await door.uploaded() for _ in range(3)]
    mark_all = door.objects.mark_all

    async def in_between(keys: Sequence[str]) -> frozenset[str]:
        await door.files.update(files[1], Update(tags=("late",)))
        return await mark_all(keys)

    door.objects.mark_all = in_between  # type: ignore[method-assign]
    assert await delete_all(door, *files) == [(True, None)] * 3
    assert [(await door.file(each)).phase for each in files] == ["deleted"] * 3
    assert (await door.file(files[1])).tags == ("late",)


async def test_one_file_that_s3_refuses_keeps_nobody_else_from_being_swept(door: Door) -> None:
    bad, good = (await door.ask()).json()["data"], (await door.ask()).json()["data"]
    door.objects.refused = frozenset({bad["fileKey"]})
    door.clock.move(timedelta(hours=2).total_seconds())
    sweeper = Sweeper(door.files, "me", door.clock, Progress(door.clock))
    with pytest.raises(Unavailable):
        await sweeper.sweep()
    assert (await door.file(good["fileId"])).closed
    assert (await door.file(bad["fileId"])).phase == "uploading"
    door.objects.refused = frozenset()
    door.clock.move(timedelta(minutes=6).total_seconds())
    await sweeper.sweep()
    assert (await door.file(bad["fileId"])).closed


@pytest.mark.parametrize("answers", [True, False])
async def test_a_sweeper_to_whom_s3_answers_slowly_or_not_at_all_is_alive(door: Door, answers: bool) -> None:
    """A restart would mend nothing, and every batch would begin anew."""
    for _ in range(BATCH):
        await door.ask()
    door.clock.move(timedelta(hours=2).total_seconds())
    progress = Progress(door.clock, stuck_after=600)
    alive: list[bool] = []
    look = door.objects.versions

    async def slowly(key: str) -> tuple[ObjectVersion, ...]:
        door.clock.move(CALL_SECONDS)
        alive.append(progress.report().live)
        if not answers:
            raise Unavailable("S3", "cannot be reached")
        return await look(key)

    door.objects.versions = slowly  # type: ignore[method-assign]
    sweeper = Sweeper(door.files, "me", door.clock, progress)
    if answers:
        await sweeper.sweep()
    else:
        with pytest.raises(Unavailable):
            await sweeper.sweep()
        assert not progress.report().ready
    assert len(alive) >= BATCH
    assert all(alive)


@pytest.mark.parametrize("result", ["infected", "unsupported", "error"])
async def test_only_what_the_scan_found_clean_goes_out(result: str) -> None:
    door = Door(changes={"avatar": {"scan": True}})
    file_id = await door.uploaded(PNG, category="avatar", contentType="image/png", fileName="me.png", isPublic=True)
    await settle(door, fact("scanned", file_id, versionId="v0", result=result))
    status = 410 if result == "infected" else 409
    assert (await door.client.get(f"/api/files/{file_id}/download")).status_code == status
    nobody = {"authorization": ""}
    assert (await door.client.get(f"/api/files/{file_id}/public", headers=nobody)).status_code == status


async def test_a_service_that_looks_into_another_bucket_decides_nothing(door: Door) -> None:
    file_id = await door.uploaded()
    door.objects.bucket = "another"
    (outcome,) = await settle(door, fact("objectCreated", file_id))
    assert isinstance(outcome, Park)
    assert outcome.reason == "otherBucket"
    (outcome,) = await CommandIntake(door.files, DEFAULTS)([command("delete", file_id)])
    assert isinstance(outcome, Park), "a command for it stops no other"
    assert outcome.reason == "otherBucket"
    assert (await door.client.delete(f"/api/files/{file_id}")).status_code == 503
    assert (await door.complete(file_id)).status_code == 503
    assert (await door.file(file_id)).phase == "completed"


async def test_the_sweeper_ends_lifetimes_and_nobody_else_has_to() -> None:
    door = Door({"document": {"lifetimeDays": 30}})
    mortal, lasting = await door.uploaded(), await door.uploaded(category="general")
    sweeper = Sweeper(door.files, "me", door.clock, Progress(door.clock))
    door.clock.move(timedelta(days=29).total_seconds())
    await sweeper.sweep()
    assert (await door.client.get(f"/api/files/{mortal}/download")).status_code == 200
    door.clock.move(timedelta(days=1).total_seconds())
    await sweeper.sweep()
    assert await door.events(mortal) == ["uploadRequested", "uploaded", "uploadClosed", "deleted"]
    assert await door.events(lasting) == ["uploadRequested", "uploaded", "uploadClosed"]
    assert (await door.client.get(f"/api/files/{mortal}/download")).status_code == 410
    assert (await door.store.due_counts(["uploads"], door.clock.now()))["uploads"] == 0
    restored = (await door.client.post(f"/api/files/{mortal}/restore")).json()["data"]
    assert (restored["status"], "keptUntil" in restored) == ("completed", False)
    door.clock.move(timedelta(days=100).total_seconds())
    await sweeper.sweep()
    assert (await door.file(mortal)).phase == "completed"
