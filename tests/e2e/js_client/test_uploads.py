"""`clients/js/mailroom-files.js` in Chromium against the real stack, straight, with nothing between."""

from __future__ import annotations

import shutil

import pytest
from playwright.sync_api import BrowserContext

from tests.e2e.js_client.bed import MIB, PART, Bed, Bench, sha256_of

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium on this machine"),
]

PARTS = "{category: 'document', method: 'multipart'}"
LATE = 180_000


@pytest.mark.parametrize("size", [1, 1_000, 20_000_000])
def test_a_small_file_goes_in_one_form(bench: Bench, size: int) -> None:
    file = bench.upload(size)
    assert (file["status"], file["size"], file["contentType"]) == ("completed", size, "text/plain")
    assert bench.bed.sha256(file["fileId"]) == sha256_of(size)
    told = bench.told()
    assert told[0]["phase"] == "preparing"
    assert told[-1] == {"phase": "finishing", "loaded": size, "total": size, "resumed": 0, "error": None}
    assert bench.page.evaluate("() => localStorage.length") == 0


@pytest.mark.parametrize("size", [120_000_000, pytest.param(300_000_000, marks=pytest.mark.long)])
def test_a_large_file_goes_in_parts_with_progress_inside_each(bench: Bench, size: int) -> None:
    bench.slow_down(60_000_000)
    file = bench.upload(size, "large.txt")
    assert (file["status"], file["size"]) == ("completed", size)
    assert bench.bed.sha256(file["fileId"]) == sha256_of(size)
    loaded = [each["loaded"] for each in bench.told() if each["phase"] == "uploading"]
    assert any(each % PART not in (0, size % PART) for each in loaded), "progress is told within a part"
    assert loaded == sorted(loaded)
    assert loaded[-1] == size
    assert bench.page.evaluate("() => localStorage.length") == 0, "nothing is kept of what is done"


@pytest.mark.parametrize("method", ["post", "multipart"])
def test_names_are_given_back_as_they_were(bench: Bench, method: str) -> None:
    name = '請求書「四月」"最終"—’%22\'.txt'
    file = bench.upload(20_000, name, f"{{category: 'document', method: '{method}'}}")
    assert file["originalName"] == name
    assert bench.bed.sha256(file["fileId"]) == sha256_of(20_000)


def test_options_reach_the_file(bench: Bench) -> None:
    file = bench.upload(
        10, "a.csv", "{category: 'document', tags: ['april'], isPublic: false}", "'application/vnd.ms-excel'"
    )
    assert file["contentType"] == "text/csv", "what a spreadsheet program says of itself is no type of this file"
    assert file["metadata"]["tags"] == ["april"]


def test_a_checksum_is_held_against_what_arrived(bench: Bench) -> None:
    right = bench.page.evaluate(
        """async () => btoa(String.fromCharCode(...new Uint8Array(
             await crypto.subtle.digest("SHA-256", await make(5000, "a.txt").arrayBuffer()))))"""
    )
    file = bench.upload(5000, options=f"{{category: 'document', checksum: '{right}'}}")
    assert file["status"] == "completed"


@pytest.mark.parametrize(
    ("name", "kind", "category"),
    [("tool.exe", "application/x-msdownload", "document"), ("photo.png", "image/png", "contract"),
     ("page.html.txt", "text/plain", "document"), ("unknown", "", "document")],
)  # fmt: skip
def test_a_wrong_type_is_refused_before_a_byte_moves(bench: Bench, name: str, kind: str, category: str) -> None:
    sent: list[str] = []
    bench.page.on("request", lambda request: sent.append(request.method) if "/api/" not in request.url else None)
    error = bench.refused(1000, name, f"{{category: '{category}'}}", f"'{kind}'")
    assert (error["code"], error["status"], error["again"]) == ("typeRefused", 400, False)
    assert error["known"] == ["TypeRefusedError", "UploadError"]
    assert error["advice"]
    assert sent == []


def test_one_too_large_is_refused_before_a_byte_moves(bench: Bench) -> None:
    error = bench.refused(6 * MIB, "me.png", "{category: 'avatar'}", "'image/png'")
    assert (error["code"], error["status"]) == ("tooLarge", 400)
    assert str(5 * MIB) in error["message"]


def test_the_callers_own_limit_is_held_without_asking(bench: Bench) -> None:
    error = bench.refused(1001, options="{category: 'document', maxSizeBytes: 1000}")
    assert (error["code"], error.get("status")) == ("tooLarge", None)


def test_an_empty_file_is_refused(bench: Bench) -> None:
    assert bench.refused(0)["code"] == "empty"


def test_a_cancelled_upload_is_gone(bench: Bench) -> None:
    bench.start(300_000_000, "large.txt", PARTS)
    bench.page.wait_for_function("() => told.some((each) => each.loaded > 0)", timeout=LATE)
    with bench.page.expect_response("**/api/files/abort") as heard:
        bench.page.evaluate("() => controller.abort()")
    assert heard.value.ok
    error = bench.end()["error"]
    assert (error["name"], error["code"], error["again"]) == ("AbortError", "aborted", False)
    assert bench.page.evaluate("() => localStorage.length") == 0
    assert bench.upload(1000)["status"] == "completed", "its places are free again"


def test_cancelled_before_it_began(bench: Bench) -> None:
    error = bench.refused(1000, options="{category: 'document', signal: AbortSignal.abort()}")
    assert error["code"] == "aborted"


@pytest.mark.parametrize("method", ["post", "multipart"])
def test_the_network_goes_away_in_the_middle_and_comes_back(bench: Bench, context: BrowserContext, method: str) -> None:
    size = 4 * PART
    bench.page.evaluate("() => { addEventListener('online', () => { window.back = told.length }) }")
    bench.start(size, "file.txt", f"{{category: 'document', method: '{method}'}}")
    bench.page.wait_for_function("() => told.some((each) => each.loaded > 0)", timeout=LATE)
    context.set_offline(True)
    bench.page.wait_for_function("() => told.at(-1).phase === 'waiting'", timeout=LATE)
    context.set_offline(False)
    ended = bench.end()
    assert ended["file"]["status"] == "completed", ended
    assert bench.bed.sha256(ended["file"]["fileId"]) == sha256_of(size)
    assert "network" in {each.get("error") for each in bench.told()}


def test_it_goes_on_after_a_reload(bench: Bench) -> None:
    size = 6 * PART
    bench.start(size, "file.txt", PARTS)
    # Three are under way at a time: more than three parts' bytes mean that one has landed.
    bench.page.wait_for_function(f"() => told.some((each) => each.loaded > {3 * PART})", timeout=LATE)
    bench.reload()
    (kept,) = bench.page.evaluate("() => client.unfinished()")
    assert {"name": "file.txt", "size": size, "lastModified": 1000, "category": "document"}.items() <= kept.items()
    file = bench.upload(size, "file.txt", PARTS)
    assert file["fileId"] == kept["fileId"]
    assert bench.told()[-1]["resumed"] > 0
    assert bench.bed.sha256(file["fileId"]) == sha256_of(size)
    assert bench.page.evaluate("() => client.unfinished()") == []


def test_an_unfinished_upload_can_be_discarded(bench: Bench) -> None:
    bench.start(4 * PART, "file.txt", PARTS)
    bench.page.wait_for_function("() => told.some((each) => each.loaded > 0)", timeout=LATE)
    bench.reload()
    left = bench.page.evaluate(
        "async () => { const [one] = await client.unfinished(); await client.discard(one); return client.unfinished() }"
    )
    assert left == []
    assert bench.upload(1000, "file.txt", PARTS)["status"] == "completed"
    assert bench.told()[-1]["resumed"] == 0


def test_the_same_file_twice_at_a_time_is_two_files(bench: Bench) -> None:
    ids = bench.page.evaluate(
        f"""async () => (await Promise.all([1, 2].map(() => client.upload(make(2_000_000, "a.txt"), {PARTS}))))
              .map((file) => file.fileId)"""
    )
    assert len(set(ids)) == 2
    assert {bench.bed.sha256(each) for each in ids} == {sha256_of(2_000_000)}


def test_the_cookie_does_as_well(bench: Bench, bed: Bed, context: BrowserContext) -> None:
    context.add_cookies([{"name": "mailroom_session", "value": bed.token, "url": bed.origin}])
    bench.page.evaluate("() => { window.client = new mailroom.MailroomFiles() }")
    assert bench.upload(1000)["status"] == "completed"


def test_the_token_is_asked_for_each_call(bench: Bench, bed: Bed) -> None:
    bench.page.evaluate(
        """(token) => {
             window.asked = 0;
             window.client = new mailroom.MailroomFiles({ token: async () => { window.asked += 1; return token; } });
           }""",
        bed.token,
    )
    assert bench.upload(1000)["status"] == "completed"
    assert bench.page.evaluate("() => asked") == 3, "for both calls, and for whose upload it is"


def test_a_token_that_is_not_accepted(bench: Bench) -> None:
    bench.page.evaluate("() => { window.client = new mailroom.MailroomFiles({ token: 'forged' }) }")
    error = bench.refused(1000)
    assert (error["code"], error["status"]) == ("server", 401)
    assert "Sign in" in error["advice"]


OLD_INTEGRATION = """
async ({ token, name }) => {
  const file = make(2000, name);
  const call = async (path, body) => {
    const answer = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json", Authorization: `Bearer ${token}` },
      body: JSON.stringify(body),
    });
    const { success, data, error } = await answer.json();
    if (!success) throw new Error(error);
    return data;
  };
  const asked = { fileName: file.name, contentType: file.type, category: "document" };
  const { uploadUrl, fields, fileId } = await call("/api/files/upload-url", asked);
  const form = new FormData();
  Object.entries(fields).forEach(([key, value]) => form.append(key, value));
  form.append("file", file);
  const stored = await fetch(uploadUrl, { method: "POST", body: form });
  const done = await call("/api/files/upload-complete", { fileId, actualSize: file.size });
  return { status: stored.status, done };
}
"""


def test_the_old_integrations_code_works(bench: Bench) -> None:
    name = '見積書 "最終".txt'
    found = bench.page.evaluate(OLD_INTEGRATION, {"token": bench.bed.token, "name": name})
    assert found["status"] == 204
    assert (found["done"]["status"], found["done"]["originalName"]) == ("completed", name)
    assert bench.bed.sha256(found["done"]["fileId"]) == sha256_of(2000)
