"""S3 against the streams, both ways: what differs is told, what can be decided is put right, the rest is left alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from services.files.domain.scans import VALIDATION_KEY
from services.files.domain.seen import ObjectVersion
from services.files.reconcile import Finding, Reconciling
from tests.unit.files_service.door import PDF, Door


@pytest.fixture
def door() -> Door:
    return Door()


async def reconciled(door: Door, *, fix: bool = False, hours: float = 2) -> list[Finding]:
    cut_off = door.clock.now() - timedelta(hours=hours)
    return [each async for each in Reconciling(door.files, cut_off, fix, lambda: None).run()]


async def a_day_later(door: Door) -> None:
    door.clock.move(24 * 3600)
    door.objects.newest_at = door.clock.now() - timedelta(hours=23)


async def test_where_all_is_right_nothing_is_told(door: Door) -> None:
    await door.uploaded()
    deleted = await door.uploaded()
    await door.client.delete(f"/api/files/{deleted}")
    await door.ask()
    await a_day_later(door)
    assert await reconciled(door) == []


async def test_what_guardduty_tries_the_bucket_with_is_nobodys_orphan(door: Door) -> None:
    await a_day_later(door)
    door.objects.key(VALIDATION_KEY).stack.append(ObjectVersion("x"))
    assert await reconciled(door) == []
    door.objects.key(f"{VALIDATION_KEY}2").stack.append(ObjectVersion("x"))
    assert [(each.kind, each.key) for each in await reconciled(door)] == [("orphaned", f"{VALIDATION_KEY}2")]


async def test_each_kind_is_told_and_what_a_look_can_mend_is_mended(door: Door) -> None:
    lost, swapped, hidden = [await door.uploaded() for _ in range(3)]
    files = {file_id: await door.file(file_id) for file_id in (lost, swapped, hidden)}
    await a_day_later(door)
    door.objects.key(files[lost].request.key).stack.clear()
    door.objects.store(door.signer.puts[1], PDF + b"swapped")
    door.objects.key(files[hidden].request.key).mark()
    door.objects.key("somebody/elses").stack.append(ObjectVersion("x"))
    key = files[lost].request.key
    door.objects.key(key[:-1] + ("A" if key[-1] != "A" else "B")).stack.append(ObjectVersion("y"))
    found = await reconciled(door)
    assert sorted((each.kind, each.file_id in files, each.mended) for each in found) == [
        ("mismatched", True, False),
        ("mismatched", True, False),
        ("missing", True, False),
        ("orphaned", False, False),
        ("orphaned", True, False),
    ]
    mended = await reconciled(door, fix=True)
    assert sorted((each.kind, each.mended) for each in mended) == [
        ("mismatched", True),
        ("mismatched", True),
        ("missing", True),
        ("orphaned", False),
        ("orphaned", False),
    ]
    assert {each.kind for each in await reconciled(door)} == {"orphaned"}
    assert (await door.file(lost)).recoverable is False
    assert (await door.file(swapped)).phase == "completed"
    assert (await door.file(hidden)).phase == "deleted"
    assert len(door.objects.key(files[swapped].request.key).stack) == 1


async def test_what_is_young_is_left_alone(door: Door) -> None:
    file_id = await door.uploaded()
    door.objects.store(door.signer.puts[0], PDF + b"swapped")
    door.objects.newest_at = door.clock.now()
    assert await reconciled(door, fix=True) == []
    door.objects.key((await door.file(file_id)).request.key).stack.clear()
    assert await reconciled(door, fix=True) == []


async def test_an_upload_that_is_not_over_is_left_to_itself(door: Door) -> None:
    await door.ask(size=120 << 20)
    door.objects.store(door.signer.puts[0] if door.signer.puts else next(iter(door.objects.uploads.values()))[0], PDF)
    door.clock.move(3 * 3600)
    door.objects.newest_at = door.clock.now() - timedelta(hours=3)
    assert await reconciled(door, fix=True) == []


async def test_what_cannot_be_read_is_told_and_the_rest_is_looked_at(door: Door) -> None:
    """Streams that this build does not know, one whose object is there and one whose object is gone."""
    lost, kept, hidden = [await door.uploaded() for _ in range(3)]
    keys = {file_id: (await door.file(file_id)).request.key for file_id in (lost, kept, hidden)}
    await a_day_later(door)
    for file_id in (lost, kept):
        entry = door.store._kept[file_id]
        entry.stream = replace(entry.stream, wire=('{"from": "another build"}', *entry.stream.wire[1:]))
    door.objects.key(keys[lost]).stack.clear()
    door.objects.key(keys[hidden]).mark()
    found = await reconciled(door, fix=True)
    assert sorted((each.kind, each.file_id, each.mended) for each in found) == sorted(
        [("unreadable", lost, False), ("unreadable", kept, False), ("mismatched", hidden, True)]
    )


async def test_files_of_another_bucket_are_told_and_never_touched(door: Door) -> None:
    file_ids = [await door.uploaded() for _ in range(2)]
    keys = [(await door.file(file_id)).request.key for file_id in file_ids]
    await a_day_later(door)
    door.objects.bucket = "another"
    door.objects.key(keys[0]).stack.clear()
    found = await reconciled(door, fix=True)
    assert {(each.kind, each.file_id) for each in found} == {("unreadable", file_id) for file_id in file_ids}
    assert [(await door.file(file_id)).phase for file_id in file_ids] == ["completed", "completed"]


async def test_what_one_look_does_not_mend_is_looked_at_again(door: Door) -> None:
    file_id = await door.uploaded()
    file = await door.file(file_id)
    await a_day_later(door)
    for _ in range(3):
        door.objects.store(door.signer.puts[0], PDF + b"swapped")
    door.objects.key(file.request.key).mark()
    (finding,) = await reconciled(door, fix=True)
    assert finding.mended
    assert await reconciled(door) == []
    assert [each.is_marker for each in door.objects.key(file.request.key).stack] == [True, False]


async def test_an_upload_in_parts_that_no_file_names_is_given_up(door: Door) -> None:
    asked = (await door.ask(size=120 << 20)).json()["data"]
    put = door.objects.uploads[asked["uploadId"]][0]
    left_over = await door.objects.begin_multipart(put)
    stranger = await door.objects.begin_multipart(replace(put, key="somebody/elses"))
    door.clock.move(3 * 3600)
    door.objects.newest_at = door.clock.now() - timedelta(hours=3)
    told = [(each.kind, each.file_id, each.mended) for each in await reconciled(door, fix=True)]
    assert told == [("orphaned", asked["fileId"], True), ("orphaned", None, False)]
    assert set(door.objects.uploads) == {asked["uploadId"], stranger}
    assert left_over not in door.objects.uploads
