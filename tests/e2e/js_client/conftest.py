"""A browser, and something to upload to. MAILROOM_JS_BED=stack takes the real stack where a test can do with it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, sync_playwright

from tests.e2e.js_client.bed import PART, Bed, Bench, FakeBed, fake_bed, serve_client, stack_bed


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # The page is handed over by the test, so Chromium does not see that it comes from this machine as S3 does.
        local = "--disable-features=LocalNetworkAccessChecks"
        flags = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", local]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        yield browser
        browser.close()


@pytest.fixture
def part_size() -> int:
    """Of the fakes' multipart uploads."""
    return PART


@pytest.fixture
def fake(part_size: int) -> Iterator[FakeBed]:
    """The fakes, new, with nothing wrong yet."""
    with fake_bed(part_size) as bed:
        yield bed


@pytest.fixture
def bed(request: pytest.FixtureRequest) -> Bed:
    """What a test uploads to: the real stack if it is asked for, else the fakes."""
    if os.environ.get("MAILROOM_JS_BED") == "stack":
        return stack_bed(request.getfixturevalue("stack"))
    found: FakeBed = request.getfixturevalue("fake")
    return found


@pytest.fixture
def context(browser: Browser, bed: Bed) -> Iterator[BrowserContext]:
    context = browser.new_context()
    serve_client(context, bed)
    yield context
    context.close()


@pytest.fixture
def bench(context: BrowserContext, bed: Bed) -> Bench:
    """The helper in a page of its own."""
    bench = Bench(context.new_page(), bed)
    bench.reload()
    return bench
