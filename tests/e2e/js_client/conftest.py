"""A browser, and the stack to upload to, with or without a proxy between them that makes things go wrong."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, expect, sync_playwright

from deploy.local.stack import Stack
from tests.e2e.js_client.bed import Bed, Bench
from tests.e2e.js_client.fault_proxy import fault_proxy
from tests.e2e.js_client.faults import Faults

LATE = 180_000
"""Milliseconds that only a hang takes."""

expect.set_options(timeout=LATE)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        yield browser
        browser.close()


@pytest.fixture
def bed(stack: Stack) -> Bed:
    """The stack, and a user who has no files yet."""
    return Bed(stack)


@pytest.fixture
def faults() -> Faults:
    """What goes wrong. A test that asks for it has its browser behind the proxy; all others go straight."""
    return Faults()


@pytest.fixture
def context(request: pytest.FixtureRequest, browser: Browser, bed: Bed) -> Iterator[BrowserContext]:
    if "faults" not in request.fixturenames:
        context = browser.new_context()
        context.set_default_timeout(LATE)
        yield context
        context.close()
        return
    with fault_proxy(f"127.0.0.1:{bed.stack.site.ports['aws']}", request.getfixturevalue("faults")) as proxy:
        context = browser.new_context(proxy={"server": proxy, "bypass": "<-loopback>"})
        context.set_default_timeout(LATE)
        yield context
        context.close()


@pytest.fixture
def bench(context: BrowserContext, bed: Bed) -> Bench:
    """The helper in a page of its own."""
    bench = Bench(context.new_page(), bed)
    bench.reload()
    return bench
