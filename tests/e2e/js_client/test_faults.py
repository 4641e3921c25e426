"""What `clients/js/mailroom-files.js` makes of what goes wrong between it and the real stack."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import BrowserContext

from tests.e2e.js_client.bed import PART, Bed, Bench, Json, sha256_of
from tests.e2e.js_client.faults import Doing, Faults

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium on this machine"),
]

PARTS = "{category: 'document', method: 'multipart'}"
FORM = "{category: 'document'}"
SIZE = 2 * PART + 12_345
"""In three parts."""
SMALL = 700_000
URL, SIGN, LIST, DONE = (
    f"/api/files/{each}" for each in ("upload-url", "parts", "parts/list", "upload-complete")
)  # fmt: skip


def doing_to_it(usual: Doing, *others: Doing) -> pytest.MarkDecorator:
    """One fault in `make test`, the others in `make test-long`."""
    long = [pytest.param(each, marks=pytest.mark.long) for each in others]
    return pytest.mark.parametrize("doing", [usual, *long])


@pytest.fixture(autouse=True)
def _behind_the_proxy(faults: Faults) -> None:
    """All of them."""


def whole(bench: Bench, size: int = SIZE, options: str = PARTS) -> str:
    """Upload, and hold what arrived against what was sent: the fileId."""
    file = bench.upload(size, options=options)
    assert file["status"] == "completed"
    assert bench.bed.sha256(file["fileId"]) == sha256_of(size)
    return str(file["fileId"])


def give_up(bed: Bed, kept: Json) -> None:
    """Somebody else gives an upload in parts up."""
    bed.call("POST", "/api/files/abort", {"uploadToken": kept["uploadToken"]}).raise_for_status()


# --- parts -------------------------------------------------------------------------------------------------------


def test_three_parts_at_a_time_and_each_once(bench: Bench, faults: Faults) -> None:
    faults.plan("put", "hold", times=99)
    bench.start(4 * PART + 1, options=PARTS)
    bench.until(lambda: faults.count("put") == 3)
    bench.page.wait_for_timeout(300)
    faults.release()
    assert bench.end()["file"]["status"] == "completed"
    assert sorted(faults.parts()) == [1, 2, 3, 4, 5]
    assert faults.most_at_once == 3


def test_the_limit_holds_over_all_uploads_of_a_client(bench: Bench, faults: Faults) -> None:
    for at in ("put", "post"):
        faults.plan(at, "hold", times=99)
    bench.page.evaluate(
        f"""() => {{ window.all = Promise.all([1, 2, 3, 4].map((each) =>
              client.upload(make(each % 2 ? {PART} + 1 : 1000, each + ".txt"), each % 2 ? {PARTS} : {FORM}))) }}"""
    )
    bench.until(lambda: faults.count("put") + faults.count("post") == 3)
    bench.page.wait_for_timeout(300)
    faults.release()
    assert bench.page.evaluate("async () => (await all).map((file) => file.status)") == ["completed"] * 4
    assert faults.most_at_once == 3


@doing_to_it("lost", "cut", "refuse-early", 503)
def test_a_part_that_fails_is_sent_again_and_no_other(bench: Bench, faults: Faults, doing: Doing) -> None:
    faults.plan("put", doing, part=2, times=2)
    whole(bench)
    assert faults.count("put", 2) == 3
    assert faults.count("put") == 3 + 2


def test_a_part_that_fails_for_good_ends_it_and_it_can_go_on_later(bench: Bench, faults: Faults) -> None:
    bench.reload("retries: 2")
    faults.plan("put", "cut", part=2, times=3)
    error = bench.refused(SIZE, options=PARTS)
    assert (error["code"], error["again"]) == ("network", True)
    assert faults.count("put", 2) == 3
    (kept,) = bench.unfinished()
    there = bench.bed.call("POST", LIST, {"uploadToken": kept["uploadToken"]}).json()["data"]["parts"]
    faults.clear()
    assert whole(bench) == kept["fileId"]
    assert sorted(faults.parts()) == sorted({1, 2, 3} - {each["partNumber"] for each in there})


def test_what_is_always_refused_is_not_tried_for_ever(bench: Bench, faults: Faults) -> None:
    faults.plan("put", 403, part=1, times=99)
    error = bench.refused(1000, options=PARTS)
    assert (error["code"], error["status"]) == ("server", 403)
    assert faults.count("put") == 3


def test_a_transfer_that_does_not_move_counts_as_cut(bench: Bench, faults: Faults) -> None:
    bench.page.clock.install()
    bench.reload("stallMs: 20_000")
    faults.plan("put", "hold", part=1)
    bench.start(SMALL, options=PARTS)
    bench.until(lambda: faults.count("put", 1) == 1)
    bench.page.clock.fast_forward(20_000)
    bench.until(lambda: faults.count("put", 1) == 2)
    file = bench.end()["file"]
    assert file["status"] == "completed"
    assert bench.bed.sha256(file["fileId"]) == sha256_of(SMALL)


def test_an_upload_that_somebody_gave_up_says_so(bench: Bench, faults: Faults) -> None:
    faults.plan("put", "hold", part=1)
    bench.start(SMALL, options=PARTS)
    bench.until(lambda: faults.count("put") == 1)
    (kept,) = bench.page.evaluate("() => Object.values(localStorage).map((each) => JSON.parse(each))")
    give_up(bench.bed, kept)
    faults.release()
    error = bench.end()["error"]
    assert (error["code"], error["again"]) == ("expired", False)
    assert bench.page.evaluate("() => localStorage.length") == 0
    whole(bench, SMALL)


@pytest.fixture
def etags_are_hidden(bed: Bed) -> Iterator[None]:
    """By the bucket's CORS rules."""
    s3 = bed.s3()
    rules = s3.get_bucket_cors(Bucket=bed.bucket)["CORSRules"]
    hiding = [{name: value for name, value in rule.items() if name != "ExposeHeaders"} for rule in rules]
    s3.put_bucket_cors(Bucket=bed.bucket, CORSConfiguration={"CORSRules": hiding})
    yield
    s3.put_bucket_cors(Bucket=bed.bucket, CORSConfiguration={"CORSRules": rules})


def test_a_bucket_that_hides_etags(bench: Bench, faults: Faults, etags_are_hidden: None) -> None:
    whole(bench)
    assert faults.count(LIST) == 1


# --- going on ----------------------------------------------------------------------------------------------------


def stopped_after_one(bench: Bench, faults: Faults) -> Json:
    """Part 1 is there, then the page is loaded anew: what is kept."""
    for part in (2, 3):
        faults.plan("put", "hold", part=part)
    bench.start(SIZE, options=PARTS)
    bench.until(lambda: faults.count("put") == 3)
    bench.until(lambda: len(parts_in_s3(bench)) == 1)
    bench.reload()
    faults.clear()
    (kept,) = bench.unfinished()
    return dict(kept)


def parts_in_s3(bench: Bench) -> list[Json]:
    """Of the one upload that is under way."""
    (kept,) = bench.page.evaluate("() => Object.values(localStorage).map((each) => JSON.parse(each))")
    found: list[Json] = bench.bed.call("POST", LIST, {"uploadToken": kept["uploadToken"]}).json()["data"]["parts"]
    return found


def test_only_missing_parts_are_sent_after_a_reload(bench: Bench, faults: Faults) -> None:
    kept = stopped_after_one(bench, faults)
    assert whole(bench) == kept["fileId"]
    assert sorted(faults.parts()) == [2, 3]
    assert faults.count(URL) == 0
    assert {each["resumed"] for each in bench.told()[1:]} >= {PART}


def test_another_file_does_not_go_on_with_it(bench: Bench, faults: Faults) -> None:
    kept = stopped_after_one(bench, faults)
    for name, changed in (("other.txt", 1000), ("file.txt", 2000)):
        file = bench.upload(SMALL, name, PARTS, f"'text/plain', {changed}")
        assert file["fileId"] != kept["fileId"]
    assert faults.parts() == [1, 1]
    assert [each["fileId"] for each in bench.unfinished()] == [kept["fileId"]]


def test_one_that_is_over_begins_anew(bench: Bench, faults: Faults) -> None:
    kept = stopped_after_one(bench, faults)
    give_up(bench.bed, kept)
    assert whole(bench) != kept["fileId"]
    assert sorted(faults.parts()) == [1, 2, 3]


def test_one_that_is_complete_is_not_sent_again(bench: Bench, faults: Faults) -> None:
    bench.reload("retries: 0")
    faults.plan(DONE, "lost")
    assert bench.refused(SMALL, options=PARTS)["code"] == "network"
    (kept,) = bench.unfinished()
    faults.clear()
    assert whole(bench, SMALL) == kept["fileId"]
    assert faults.parts() == []
    assert bench.unfinished() == []


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
    faults.plan("put", "cut", part=1)
    assert bench.refused(SMALL, options=PARTS)["code"] == "network"
    assert bench.page.evaluate("() => localStorage.length") == 0
    (kept,) = bench.unfinished()
    assert whole(bench, SMALL) == kept["fileId"]


# --- forms and calls -----------------------------------------------------------------------------------------------


def test_the_form_has_the_fields_first_and_the_file_last(bench: Bench, faults: Faults) -> None:
    whole(bench, 1000, FORM)
    (form,) = faults.forms
    assert form[-1] == "file"
    assert form.count("file") == 1
    assert len(form) > 4


@doing_to_it("cut", "lost", 503)
def test_a_form_that_fails_is_sent_again_for_the_same_file(bench: Bench, faults: Faults, doing: Doing) -> None:
    """With `lost`, the notification may complete the file before the repetition: then nothing is sent again."""
    faults.plan("post", doing, times=2)
    file_id = whole(bench, 3_000_000, FORM)
    assert faults.count("post") == 3 or doing == "lost"
    assert set(faults.begun) == {file_id}


def test_a_form_of_which_only_the_answer_was_lost(bench: Bench, faults: Faults) -> None:
    """The notification completes the file meanwhile: asked again, the service gives the File."""
    faults.plan("post", "lost")
    bench.start(SMALL)
    bench.until(lambda: faults.begun)
    again = faults.plan(URL, "hold")
    bench.until(lambda: bench.bed.status(faults.begun[0]) == "completed")
    again.released.set()
    assert bench.end()["file"]["fileId"] == faults.begun[0]
    assert faults.count("post") == 1


@doing_to_it("lost", "cut", 503)
def test_calls_are_repeated_and_create_nothing_twice(bench: Bench, faults: Faults, doing: Doing) -> None:
    faults.plan("put", "cut", part=1)  # so that it is signed again
    for path in (URL, SIGN, DONE):
        faults.plan(path, doing, times=2)
    file_id = whole(bench, SMALL)
    assert [faults.count(path) for path in (URL, SIGN, DONE)] == [3, 3, 3]
    assert set(faults.begun) == {file_id}


def test_a_service_that_stays_away(bench: Bench, faults: Faults) -> None:
    bench.reload("retries: 2")
    faults.plan(URL, 503, times=99)
    error = bench.refused(1000)
    assert (error["code"], error["status"], error["again"]) == ("server", 503, True)
    assert faults.count(URL) == 3


def test_nothing_has_arrived_is_asked_again_but_not_for_ever(bench: Bench, faults: Faults) -> None:
    faults.plan(DONE, 409)
    whole(bench, 1000, FORM)
    assert faults.count(DONE) == 2
    faults.clear()
    faults.plan(DONE, 409, times=99)
    assert bench.refused(1000)["status"] == 409
    assert faults.count(DONE) == 3


def test_a_file_that_is_not_what_it_says(bench: Bench, faults: Faults) -> None:
    bench.page.evaluate("() => { window.make = (size, name) => new File(['\\x7fELF', new Uint8Array(size)], name) }")
    error = bench.refused(1234, options="{category: 'document', contentType: 'text/plain'}")
    assert (error["code"], error["again"]) == ("typeRefused", False)
    assert "application/x-elf" in error["message"]
    assert faults.count(DONE) == 1


def test_a_wrong_checksum(bench: Bench, faults: Faults) -> None:
    error = bench.refused(1000, options=f"{{category: 'document', checksum: '{'A' * 43}='}}")
    assert (error["code"], error["again"]) == ("server", False)
    assert "checksum" in error["message"].lower()


# --- cancelling ----------------------------------------------------------------------------------------------------


def test_cancelling_aborts_it_in_s3_too(bench: Bench, faults: Faults) -> None:
    faults.plan("put", "hold", times=3)
    bench.start(SIZE, options=PARTS)
    bench.until(lambda: faults.count("put") == 3)
    (file_id,) = faults.begun
    assert bench.bed.uploads_in_s3(file_id) == 1
    bench.page.evaluate("() => controller.abort()")
    assert bench.end()["error"]["code"] == "aborted"
    bench.until(lambda: bench.bed.uploads_in_s3(file_id) == 0)
    bench.until(lambda: bench.bed.status(file_id) == "failed")
    assert faults.count("put") == 3


def test_a_cancelled_form_is_given_up_by_its_file(bench: Bench, faults: Faults) -> None:
    faults.plan("post", "hold")
    bench.start(SMALL)
    bench.until(lambda: faults.count("post") == 1)
    bench.page.evaluate("() => controller.abort()")
    assert bench.end()["error"]["code"] == "aborted"
    bench.until(lambda: bench.bed.status(faults.begun[0]) == "failed")


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


# --- time and outages ------------------------------------------------------------------------------------------------


@pytest.fixture
def short(bed: Bed) -> Iterator[Callable[..., None]]:
    """Have the files service give less time: `short(MAILROOM_UPLOAD_MINUTES="0.05")`."""
    before = dict(bed.stack.extra)

    def make(**settings: str) -> None:
        bed.stack.extra |= settings
        bed.stack.restart("files")

    yield make
    bed.stack.extra = before
    bed.stack.restart("files")


@pytest.mark.long
def test_what_expired_on_its_way_is_signed_anew(bench: Bench, faults: Faults, short: Callable[..., None]) -> None:
    """An address of a part, and a form: with that its upload is over too, and another is begun."""
    seconds = 6
    short(MAILROOM_UPLOAD_MINUTES=str(seconds / 60))
    held = [faults.plan("put", "hold", part=1), faults.plan("post", "hold")]
    bench.page.evaluate(
        f"""() => {{ window.both = Promise.all([{PARTS}, {FORM}].map((options) =>
              client.upload(make({SMALL}, "a.txt"), options))) }}"""
    )
    bench.until(lambda: faults.count("put") == faults.count("post") == 1)
    bench.page.wait_for_timeout(1000 * (seconds + 1))
    for fault in held:
        fault.released.set()
    done = bench.page.evaluate("() => both")
    assert [each["status"] for each in done] == ["completed"] * 2
    assert {bench.bed.sha256(each["fileId"]) for each in done} == {sha256_of(SMALL)}
    assert {each["fileId"] for each in done} < set(faults.begun)
    assert faults.count("put") == faults.count("post") == 2


@pytest.mark.long
def test_a_service_that_goes_away_is_waited_for(bench: Bench) -> None:
    bench.reload("retries: 99")
    bench.bed.stack.kill("files")
    bench.start(SMALL)
    bench.page.wait_for_function("() => told.at(-1).phase === 'waiting'")
    bench.bed.stack.start(["files"], with_needs=False)
    ended = bench.end()
    assert ended["file"]["status"] == "completed", ended
