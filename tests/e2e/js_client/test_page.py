"""The page that the gateway serves, as people meet it: in Chromium on the real stack, by mouse and by keyboard, on a
phone and on a desk, light and dark.

Set MAILROOM_SCREENSHOTS to a folder to keep a picture of each state.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from tests.e2e.js_client.bed import MIB, Bed, Bench, sha256_of, write_file
from tests.e2e.js_client.faults import Faults

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium on this machine"),
]

NAME = '請求書「四月」"最終".pdf.txt'


@pytest.fixture
def page(context: BrowserContext, bed: Bed) -> Iterator[Page]:
    """The page, signed in by cookie; nothing may be said on the console but failed requests."""
    context.add_cookies([{"name": "mailroom_session", "value": bed.token, "url": bed.origin}])
    page = context.new_page()
    page.set_default_timeout(60_000)
    broken: list[str] = []
    page.on("pageerror", lambda error: broken.append(str(error)))
    page.on("console", lambda message: None if "Failed to load" in message.text else broken.append(message.text))
    open_page(page, bed)
    yield page
    assert broken == []


def open_page(page: Page, bed: Bed) -> None:
    page.goto(f"{bed.origin}/files-page/")
    expect(page.get_by_role("heading", name="Files", exact=True)).to_be_visible()


def a_file(tmp_path: Path, size: int, name: str = "report.txt") -> Path:
    path = tmp_path / name
    write_file(path, size)
    return path


def choose(page: Page, *paths: Path) -> None:
    page.get_by_label("Choose files").set_input_files(list(paths))


def card(page: Page, name: str) -> Locator:
    return page.get_by_role("list", name="Uploads").get_by_role("listitem").filter(has_text=name)


def heard(page: Page) -> Locator:
    return page.get_by_role("status")


def wait_for(page: Page, bed: Bed, file_id: str) -> None:
    """Until the read model has it, which is what lists show."""
    Bench(page, bed).until(lambda: bed.status(file_id) == "completed")


def test_a_chosen_file_is_uploaded_listed_and_linked(page: Page, bed: Bed, tmp_path: Path) -> None:
    expect(page.get_by_text("Nothing here yet.")).to_be_visible()
    choose(page, a_file(tmp_path, 20_000, NAME))
    expect(card(page, NAME)).to_contain_text("Uploaded.")
    expect(heard(page)).to_have_text(f"{NAME}: uploaded.")
    line = page.get_by_role("list", name="Your files").get_by_role("listitem")
    expect(line).to_contain_text("20 kB · document")
    file_id = line.get_attribute("data-file-id")
    assert bed.sha256(str(file_id)) == sha256_of(20_000)
    with page.context.expect_page() as opened:
        line.get_by_role("button", name=f"Download {NAME}").click()
    opened.value.wait_for_load_state()
    assert opened.value.inner_text("body").startswith("00000000xxx")
    opened.value.close()
    wait_for(page, bed, str(file_id))
    open_page(page, bed)
    expect(page.get_by_role("list", name="Your files")).to_contain_text(NAME)


def test_several_files_at_a_time(page: Page, tmp_path: Path) -> None:
    choose(page, *(a_file(tmp_path, 1000 * each, f"file-{each}.txt") for each in range(1, 6)))
    for each in range(1, 6):
        expect(card(page, f"file-{each}.txt")).to_contain_text("Uploaded.")
    expect(page.get_by_role("list", name="Your files").get_by_role("listitem")).to_have_count(5)


def test_a_dropped_file_is_uploaded_and_the_page_stays(page: Page) -> None:
    for target in ("#drop", "h1"):
        page.evaluate(
            """(target) => {
                 const data = new DataTransfer();
                 data.items.add(new File(["hello"], "dropped.txt", { type: "text/plain" }));
                 const event = new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
                 document.querySelector(target).dispatchEvent(event);
                 window.prevented = event.defaultPrevented;
               }""",
            target,
        )
        assert page.evaluate("() => prevented")
    expect(page.get_by_role("list", name="Uploads").get_by_role("listitem")).to_have_count(1)
    expect(card(page, "dropped.txt")).to_contain_text("Uploaded.")


def test_by_keyboard_alone(page: Page, tmp_path: Path, faults: Faults) -> None:
    held = faults.plan("post", "hold")
    choose_by_key = a_file(tmp_path, 1000)
    page.on("filechooser", lambda _: None)  # caught from here on: asked for at the key press, it may come too late
    page.keyboard.press("Tab")  # Access
    page.keyboard.press("Tab")
    expect(page.get_by_label("What is it?")).to_be_focused()
    page.keyboard.press("End")
    expect(page.get_by_label("What is it?")).to_have_value("general")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Choose files")).to_be_focused()
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(choose_by_key)
    bar = page.get_by_role("progressbar", name="Progress of report.txt")
    expect(bar).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Cancel: report.txt")).to_be_focused()
    page.keyboard.press("Enter")
    expect(card(page, "report.txt")).to_contain_text("Cancelled.")
    expect(page.get_by_role("button", name="Try again: report.txt")).to_be_focused()
    held.released.set()


def test_cancelled_and_tried_again(page: Page, tmp_path: Path, faults: Faults) -> None:
    faults.plan("post", "hold")
    choose(page, a_file(tmp_path, 3 * MIB))
    row = card(page, "report.txt")
    expect(row).to_contain_text(re.compile(r"\d+ % of 3.1 MB"))
    row.get_by_role("button", name="Cancel").click()
    expect(row).to_contain_text("Cancelled.")
    faults.clear()
    row.get_by_role("button", name="Try again").click()
    expect(row).to_contain_text("Uploaded.")


def test_refusals_say_what_to_do(page: Page, tmp_path: Path) -> None:
    choose(page, a_file(tmp_path, 1000, "tool.exe"))
    expect(card(page, "tool.exe")).to_contain_text("Files of this type are not taken as “document”.")
    expect(card(page, "tool.exe")).to_contain_text("Choose a file of another type, or another category.")
    expect(card(page, "tool.exe").get_by_role("button", name="Try again")).to_be_hidden()
    page.get_by_label("What is it?").select_option("Profile picture")
    choose(page, a_file(tmp_path, 6 * MIB, "me.png"))
    expect(card(page, "me.png")).to_contain_text("at most 5.2 MB are taken")
    expect(card(page, "me.png")).to_contain_text("Choose a smaller file, or another category.")
    choose(page, a_file(tmp_path, 0, "nothing.png"))
    expect(card(page, "nothing.png")).to_contain_text("The file is empty.")
    card(page, "nothing.png").get_by_role("button", name="Hide").click()
    expect(card(page, "nothing.png")).to_have_count(0)


def test_going_on_after_a_reload(page: Page, bed: Bed, tmp_path: Path, faults: Faults) -> None:
    path = a_file(tmp_path, 101 * MIB)
    for part in range(4, 14):
        faults.plan("put", "hold", part=part)
    choose(page, path)
    expect(card(page, "report.txt")).to_contain_text(re.compile(r"\d+ % of 106 MB"))
    Bench(page, bed).until(lambda: faults.count("put") == 6)  # three at a time: the first three have landed
    page.on("dialog", lambda dialog: dialog.accept())
    page.goto("about:blank")
    faults.clear()
    open_page(page, bed)
    expect(page.get_by_role("heading", name="Not finished")).to_be_visible()
    expect(page.get_by_text("106 MB, as document")).to_be_visible()
    last = faults.plan("put", "hold", part=13)
    choose(page, path)
    expect(page.get_by_role("heading", name="Not finished")).to_be_hidden()
    row = card(page, "report.txt")
    expect(row).to_contain_text("of it from before")
    last.released.set()
    expect(row).to_contain_text("Uploaded.")
    assert faults.count("/api/files/upload-url") == 0


def test_what_is_unfinished_can_be_discarded(page: Page, bed: Bed, tmp_path: Path, faults: Faults) -> None:
    faults.plan("put", "hold", times=9)
    choose(page, a_file(tmp_path, 101 * MIB))
    expect(card(page, "report.txt")).to_contain_text(re.compile(r"\d+ % of"))
    (file_id,) = faults.begun
    assert bed.uploads_in_s3(file_id) == 1
    page.on("dialog", lambda dialog: dialog.accept())
    page.goto("about:blank")
    faults.clear()
    open_page(page, bed)
    page.get_by_role("button", name="Discard: report.txt").click()
    expect(page.get_by_role("heading", name="Not finished")).to_be_hidden()
    assert bed.uploads_in_s3(file_id) == 0


def test_the_connection_goes_and_comes_back(
    page: Page, context: BrowserContext, tmp_path: Path, faults: Faults
) -> None:
    faults.plan("post", "hold")
    choose(page, a_file(tmp_path, 5 * MIB))
    row = card(page, "report.txt")
    expect(row).to_contain_text(re.compile(r"\d+ % of"))
    context.set_offline(True)  # keeps new requests away; what is on its way is cut by hand
    faults.clear()
    expect(row).to_contain_text("You are offline. It goes on when you are back.")
    context.set_offline(False)
    expect(row).to_contain_text("Uploaded.")


def test_a_file_that_changes_meanwhile_is_to_be_chosen_again(page: Page, tmp_path: Path, faults: Faults) -> None:
    faults.plan("post", "hold")
    path = a_file(tmp_path, 5 * MIB)
    choose(page, path)
    expect(card(page, "report.txt")).to_contain_text(re.compile(r"\d+ % of"))
    path.write_text("something else")
    faults.clear()
    expect(card(page, "report.txt")).to_contain_text("changed, moved or deleted since it was chosen. Choose it again.")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_token_is_asked_for_and_kept_out_of_storage(browser: Browser, bed: Bed, tmp_path: Path, host: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{bed.origin.replace('127.0.0.1', host)}/files-page")
    expect(page.get_by_text("You are not signed in")).to_be_visible()
    look(page, "files-no-token")
    page.get_by_label("Token").fill(bed.token)
    page.get_by_role("button", name="Use it").click()
    expect(page.get_by_text("Nothing here yet.")).to_be_visible()
    choose(page, a_file(tmp_path, 1000))
    expect(card(page, "report.txt")).to_contain_text("Uploaded.")
    assert bed.token not in page.evaluate("() => JSON.stringify([{...localStorage}, {...sessionStorage}])")
    context.close()


# --- how it looks ------------------------------------------------------------------------------------------------

# Contrast by WCAG 2.2 of all visible text, over the nearest ground that covers; names and sizes of what is operated.
LOOK = """() => {
  const parse = (css) => { const n = css.match(/[\\d.]+/g).map(Number); return [n[0], n[1], n[2], n[3] ?? 1]; };
  const linear = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = (c) => 0.2126 * linear(c[0]) + 0.7152 * linear(c[1]) + 0.0722 * linear(c[2]);
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = parse(getComputedStyle(e).backgroundColor);
      if (colour[3] === 1) return colour;
    }
    return parse(getComputedStyle(document.body).backgroundColor);
  };
  const shown = (e) => e.checkVisibility() && !e.closest('.unseen, noscript, template, option, script, style');
  const pale = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !shown(element)) continue;
    const style = getComputedStyle(element);
    const [a, b] = [light(parse(style.color)), light(ground(element))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5 || parseFloat(style.fontSize) < 14) pale.push([walker.currentNode.textContent.trim(), ratio]);
  }
  const small = [...document.querySelectorAll('button, .button, select, input:not(.unseen), summary')]
    .filter((e) => shown(e) && e.getBoundingClientRect().height < 32).map((e) => e.outerHTML);
  const frame = document.documentElement;
  return { pale, small, scroll: frame.scrollWidth, width: frame.clientWidth };
}"""


def test_every_state_is_legible_and_fits(page: Page, bed: Bed, tmp_path: Path, faults: Faults) -> None:
    expect(page.get_by_text("Nothing here yet.")).to_be_visible()
    look(page, "files-empty")

    for part in (3, 4, 5):
        faults.plan("put", "hold", part=part)
    choose(page, a_file(tmp_path, 101 * MIB, "Annual accounts and everything that belongs to them, all languages.txt"))
    page.wait_for_function("() => document.querySelector('progress').value > 0.15")
    page.on("dialog", lambda dialog: dialog.accept())
    page.goto("about:blank")
    faults.clear()
    open_page(page, bed)
    for name, size in (("minutes.txt", 18_200), (NAME, 2_345_678), ("a" * 120 + ".txt", 999)):
        choose(page, a_file(tmp_path, size, name))
        expect(card(page, name)).to_contain_text("Uploaded.")
    choose(page, a_file(tmp_path, 2000, "setup.exe"))
    for part in (4, 5, 6):
        faults.plan("put", "hold", part=part)
    choose(page, a_file(tmp_path, 120 * MIB, "scan-of-the-contract.txt"))
    page.wait_for_function("() => document.querySelector('.running progress')?.value > 0.15")
    expect(page.get_by_role("heading", name="Not finished")).to_be_visible()
    page.locator("#access summary").click()
    look(page, "files-busy")


def look(page: Page, name: str) -> None:
    for width in (375, 1280):
        for scheme in ("light", "dark"):
            page.set_viewport_size({"width": width, "height": 800})
            page.emulate_media(color_scheme=scheme)
            folder = os.environ.get("MAILROOM_SCREENSHOTS")
            if folder:
                Path(folder).mkdir(parents=True, exist_ok=True)
                page.screenshot(path=Path(folder) / f"{name}-{width}-{scheme}.png", full_page=True)
            seen = page.evaluate(LOOK)
            assert seen["scroll"] <= seen["width"], f"it scrolls sideways at {width}"
            assert seen["pale"] == [], scheme
            assert seen["small"] == [], width
