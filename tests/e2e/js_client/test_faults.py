"""What `clients/js/mailroom-files.js` makes of what goes wrong. Over the fakes alone: they can be told to."""

from __future__ import annotations

import shutil
import time

import pytest
from playwright.sync_api import BrowserContext

from tests.e2e.js_client.bed import MIB, Bed, Bench, FakeBed, sha256_of
from tests.e2e.js_client.fake_s3 import FakeS3
from tests.e2e.js_client.fake_service import FakeService
from tests.e2e.js_client.faults import Faults

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium on this machine"),
]

PARTS = "{category: 'document', method: 'multipart'}"
PART = MIB
SIZE = 5 * PART - 12_345
"""In five parts."""
URL, SIGN, LIST, DONE = (
    f"/api/files/{each}" for each in ("upload-url", "parts", "parts/list", "upload-complete")
)  # fmt: skip


@pytest.fixture
def part_size() -> int:
    return PART


@pytest.fixture
def bed(fake: FakeBed) -> Bed:
    return fake


@pytest.fixture
def faults(fake: FakeBed) -> Faults:
    assert fake.faults is not None
    return fake.faults


@pytest.fixture
def s3(fake: FakeBed) -> FakeS3:
    assert fake.s3 is not None
    return fake.s3


@pytest.fixture
def service(fake: FakeBed) -> FakeService:
    assert fake.service is not None
    return fake.service


def whole(bench: Bench, size: int = SIZE, options: str = PARTS) -> str:
    """Upload, and hold what arrived against what was sent: the fileId."""
    file = bench.upload(size, options=options)
    assert file["status"] == "completed"
    assert bench.bed.sha256(file["fileId"]) == sha256_of(size)
    return str(file["fileId"])


# --- parts -------------------------------------------------------------------------------------------------------


def test_three_parts_at_a_time_and_each_once(bench: Bench, faults: Faults) -> None:
    faults.plan("put", "hold", times=99)
    bench.start(12 * PART, options=PARTS)
    bench.until(lambda: faults.count("put") == 3)
    bench.page.wait_for_timeout(300)
    faults.release()
    assert bench.end()["file"]["status"] == "completed"
    assert sorted(faults.parts()) == list(range(1, 13))
    assert faults.most_at_once == 3


def test_the_limit_holds_over_all_uploads_of_a_client(bench: Bench, faults: Faults) -> None:
    for at in ("put", "post"):
        faults.plan(at, "hold", times=99)
    bench.page.evaluate(
        f"""() => {{ window.all = Promise.all([1, 2, 3, 4].map((each) =>
              client.upload(make(2 * {PART}, each + ".txt"), each % 2 ? {PARTS} : {{category: 'document'}}))) }}"""
    )
    bench.until(lambda: faults.count("put") + faults.count("post") == 3)
    bench.page.wait_for_timeout(300)
    faults.release()
    assert bench.page.evaluate("async () => (await all).map((file) => file.status)") == ["completed"] * 4
    assert faults.most_at_once == 3


@pytest.mark.parametrize("doing", ["cut", "lost", "refuse-early", 500, 503])
def test_a_part_that_fails_is_sent_again_and_no_other(bench: Bench, faults: Faults, doing: int) -> None:
    faults.plan("put", doing, part=2, times=2)
    whole(bench)
    assert faults.count("put", 2) == 3
    assert faults.count("put") == 5 + 2


def test_a_part_that_fails_for_good_ends_it_and_it_can_go_on_later(bench: Bench, faults: Faults, s3: FakeS3) -> None:
    bench.reload("retries: 2")
    faults.plan("put", "cut", part=3, times=3)
    error = bench.refused(SIZE, options=PARTS)
    assert (error["code"], error["again"]) == ("network", True)
    assert faults.count("put", 3) == 3
    (kept,) = bench.page.evaluate("() => client.unfinished()")
    (there,) = [set(each.parts) for each in s3.uploads.values()]
    faults.asked.clear()
    assert whole(bench) == kept["fileId"]
    assert 3 in faults.parts()
    assert there.isdisjoint(faults.parts()), "what has arrived is not sent again"


def test_urls_that_expired_are_asked_for_again(bench: Bench, faults: Faults, s3: FakeS3) -> None:
    held = [faults.plan("put", "hold", part=part) for part in (1, 2, 3)]
    bench.start(SIZE, options=PARTS)
    bench.until(lambda: faults.count("put") == 3)
    s3.expire_everything()
    for fault in held:
        fault.released.set()
    ended = bench.end()
    assert ended["file"]["status"] == "completed", ended
    assert bench.bed.sha256(ended["file"]["fileId"]) == sha256_of(SIZE)
    assert [faults.count("put", part) for part in (1, 2, 3)] == [2, 2, 2]


def test_what_is_always_refused_is_not_tried_for_ever(bench: Bench, faults: Faults) -> None:
    faults.plan("put", 403, part=1, times=99)
    error = bench.refused(1000, options=PARTS)
    assert (error["code"], error["status"]) == ("server", 403)
    assert faults.count("put") == 3


def test_a_transfer_that_does_not_move_counts_as_cut(bench: Bench, faults: Faults) -> None:
    bench.reload("stallMs: 700")
    faults.plan("put", "hold", part=1)
    whole(bench)
    assert faults.count("put", 1) == 2


def test_a_slow_transfer_is_left_alone(bench: Bench, faults: Faults) -> None:
    bench.reload("stallMs: 3000")
    faults.plan("put", "slow", part=1)
    whole(bench, PART)
    assert faults.count("put") == 1


def test_an_upload_that_is_over_says_so(bench: Bench, faults: Faults, service: FakeService) -> None:
    held = faults.plan("put", "hold", part=1)
    bench.start(SIZE, options=PARTS)
    bench.until(lambda: faults.count("put") >= 3)
    for known in service.files.values():
        if known.status == "uploading":
            service.end(known, "failed", "expired")
    held.released.set()
    error = bench.end()["error"]
    assert (error["code"], error["again"]) == ("expired", False)
    assert bench.page.evaluate("() => localStorage.length") == 0
    faults.clear()
    whole(bench)


def test_a_bucket_that_hides_etags(bench: Bench, faults: Faults, s3: FakeS3) -> None:
    s3.exposes_etag = False
    try:
        whole(bench)
    finally:
        s3.exposes_etag = True
    assert faults.count(LIST) == 1


# --- going on ----------------------------------------------------------------------------------------------------


def stopped_after_two(bench: Bench, faults: Faults) -> str:
    """Parts 1 and 2 are there, then the page is loaded anew: the fileId."""
    for part in (3, 4, 5):
        faults.plan("put", "hold", part=part)
    bench.start(SIZE, options=PARTS)
    bench.until(lambda: faults.count("put") == 5)
    bench.reload()
    faults.clear()
    (kept,) = bench.page.evaluate("() => client.unfinished()")
    return str(kept["fileId"])


def test_only_missing_parts_are_sent_after_a_reload(bench: Bench, faults: Faults) -> None:
    file_id = stopped_after_two(bench, faults)
    assert whole(bench) == file_id
    assert sorted(faults.parts()) == [3, 4, 5]
    assert faults.count(URL) == 0
    assert {each["resumed"] for each in bench.told()[1:]} >= {2 * PART}


@pytest.mark.parametrize("other", ["other.txt", "file.txt"])
def test_another_file_does_not_go_on_with_it(bench: Bench, faults: Faults, other: str) -> None:
    file_id = stopped_after_two(bench, faults)
    file = bench.upload(SIZE, other, PARTS, "'text/plain', 2000")
    assert file["fileId"] != file_id
    assert sorted(faults.parts()) == [1, 2, 3, 4, 5]


def test_one_that_is_over_begins_anew(bench: Bench, faults: Faults, service: FakeService) -> None:
    file_id = stopped_after_two(bench, faults)
    service.end(service.files[file_id], "failed", "expired")
    assert whole(bench) != file_id
    assert sorted(faults.parts()) == [1, 2, 3, 4, 5]


def test_one_that_is_complete_is_not_sent_again(bench: Bench, faults: Faults) -> None:
    bench.reload("retries: 0")
    faults.plan(DONE, "lost")
    assert bench.refused(SIZE, options=PARTS)["code"] == "network"
    (kept,) = bench.page.evaluate("() => client.unfinished()")
    faults.asked.clear()
    assert whole(bench) == kept["fileId"]
    assert faults.parts() == []
    assert bench.page.evaluate("() => client.unfinished()") == []


def test_a_store_of_the_callers(bench: Bench, faults: Faults) -> None:
    bench.page.evaluate(
        """(token) => {
             const kept = new Map();
             const store = {
               get: async (key) => kept.get(key), set: async (key, record) => void kept.set(key, record),
               remove: async (key) => void kept.delete(key), entries: async () => [...kept],
             };
             window.client = new mailroom.MailroomFiles({ token, store, retries: 0 });
           }""",
        bench.bed.token,
    )
    faults.plan("put", "cut", part=5)
    assert bench.refused(SIZE, options=PARTS)["code"] == "network"
    assert bench.page.evaluate("() => localStorage.length") == 0
    (kept,) = bench.page.evaluate("() => client.unfinished()")
    assert whole(bench) == kept["fileId"]


# --- forms and calls -----------------------------------------------------------------------------------------------


def test_the_form_has_the_fields_first_and_the_file_last(bench: Bench, s3: FakeS3) -> None:
    whole(bench, 1000, "{category: 'document'}")
    assert s3.forms[-1][-1] == "file"
    assert s3.forms[-1].count("file") == 1
    assert len(s3.forms[-1]) > 4


@pytest.mark.parametrize("doing", ["cut", "lost", 500])
def test_a_form_that_fails_is_sent_again_for_the_same_file(
    bench: Bench, faults: Faults, service: FakeService, doing: int
) -> None:
    before = len(service.files)
    faults.plan("post", doing, times=2)
    whole(bench, 3 * MIB, "{category: 'document'}")
    assert faults.count("post") == 3
    assert len(service.files) == before + 1


def test_a_form_that_expired_is_signed_anew(bench: Bench, faults: Faults, s3: FakeS3, service: FakeService) -> None:
    before = len(service.files)
    held = faults.plan("post", "hold")
    bench.start(MIB)
    bench.until(lambda: faults.count("post") == 1)
    s3.expire_everything()
    held.released.set()
    assert bench.end()["file"]["status"] == "completed"
    assert (faults.count("post"), len(service.files)) == (2, before + 1)


def test_a_form_of_which_only_the_answer_was_lost(bench: Bench, faults: Faults, service: FakeService) -> None:
    """The notification completed the file meanwhile: asked again, the service gives the File."""
    faults.plan("post", "lost")
    bench.reload("backoffMs: 1500")
    bench.start(MIB)
    bench.until(lambda: faults.count("post") == 1 and any(f.status == "uploading" for f in service.files.values()))
    time.sleep(0.3)
    (known,) = [each for each in service.files.values() if each.status == "uploading" and not each.upload_id]
    service.end(known, "completed")
    assert bench.end()["file"]["fileId"] == known.file_id
    assert faults.count("post") == 1


@pytest.mark.parametrize("path", [URL, SIGN, DONE])
@pytest.mark.parametrize("doing", ["cut", "lost", 503])
def test_calls_are_repeated_and_create_nothing_twice(
    bench: Bench, faults: Faults, service: FakeService, path: str, doing: int
) -> None:
    before = len(service.files)
    faults.plan(path, doing, times=2)
    whole(bench)
    assert len(service.files) == before + 1


def test_a_service_that_stays_away(bench: Bench, faults: Faults) -> None:
    bench.reload("retries: 2")
    faults.plan(URL, 503, times=99)
    error = bench.refused(1000)
    assert (error["code"], error["status"], error["again"]) == ("server", 503, True)
    assert faults.count(URL) == 3


def test_nothing_has_arrived_is_asked_again_but_not_for_ever(bench: Bench, faults: Faults) -> None:
    faults.plan(DONE, 409)
    whole(bench, 1000, "{category: 'document'}")
    assert faults.count(DONE) == 2
    faults.clear()
    faults.plan(DONE, 409, times=99)
    assert bench.refused(1000)["status"] == 409
    assert faults.count(DONE) == 3


def test_a_file_that_is_not_what_it_says(bench: Bench, faults: Faults, service: FakeService) -> None:
    service.sniffs[sha256_of(1234)] = "application/x-msdownload"
    error = bench.refused(1234)
    assert (error["code"], error["again"]) == ("typeRefused", False)
    assert "looks like application/x-msdownload" in error["message"]
    assert faults.count(DONE) == 1


def test_a_wrong_checksum(bench: Bench) -> None:
    error = bench.refused(1000, options=f"{{category: 'document', checksum: '{'A' * 43}='}}")
    assert (error["code"], error["again"]) == ("server", False)
    assert "checksum" in error["message"]


def test_cancelling_aborts_it_in_s3_too(bench: Bench, faults: Faults, s3: FakeS3, service: FakeService) -> None:
    for part in (1, 2, 3):
        faults.plan("put", "hold", part=part)
    bench.start(SIZE, options=PARTS)
    bench.until(lambda: faults.count("put") == 3)
    bench.page.evaluate("() => controller.abort()")
    assert bench.end()["error"]["code"] == "aborted"
    bench.until(lambda: not s3.uploads)
    assert faults.count("put") == 3
    assert {each.status for each in service.files.values()} <= {"completed", "failed"}


def test_a_cancelled_form_is_given_up_by_its_file(bench: Bench, faults: Faults, service: FakeService) -> None:
    faults.plan("post", "hold")
    bench.start(MIB)
    bench.until(lambda: faults.count("post") == 1)
    bench.page.evaluate("() => controller.abort()")
    assert bench.end()["error"]["code"] == "aborted"
    bench.until(lambda: all(each.status != "uploading" for each in service.files.values()))


def test_cancelled_while_it_waits_to_try_again(bench: Bench, faults: Faults) -> None:
    bench.reload("backoffMs: 60000")
    faults.plan("post", 503)
    bench.start(1000)
    bench.page.wait_for_function("() => told.some((each) => each.phase === 'waiting')")
    bench.page.evaluate("() => controller.abort()")
    assert bench.end()["error"]["code"] == "aborted"


def test_cancelled_while_it_waits_for_its_turn(bench: Bench, faults: Faults) -> None:
    bench.reload("parallel: 1")
    held = faults.plan("post", "hold")
    bench.page.evaluate("() => { window.first = client.upload(make(1000, 'a.txt'), {category: 'document'}) }")
    bench.until(lambda: faults.count("post") == 1)
    bench.start(1000, "b.txt")
    bench.page.evaluate("() => controller.abort()")
    held.released.set()
    assert bench.end()["error"]["code"] == "aborted"
    assert bench.page.evaluate("async () => (await first).status") == "completed"
    assert faults.count("post") == 1


def test_a_page_in_the_place_of_the_service(bench: Bench, context: BrowserContext) -> None:
    context.route(
        "**/api/files/upload-url", lambda route: route.fulfill(body="<h1>Sign in</h1>", content_type="text/html")
    )
    error = bench.refused(1000)
    assert (error["code"], error["again"]) == ("server", False)
    assert "address" in error["advice"]
