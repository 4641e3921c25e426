"""`/docs` of the running services in Chromium: whole without the internet, under its own policy, and of use.

Set MAILROOM_SCREENSHOTS to a folder to keep a picture of each.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from deploy.local.stack import Stack
from services.kit.auth import mint_token
from tests.e2e.callers import OPERATOR

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (Debian: apt-get install chromium)"),
]

PATIENCE_MS = 180_000
A_CALL = {"email": "/api/suppressions", "events": "/api/projections"}
"""Which GET is tried out."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.parametrize("service", list(A_CALL))
def test_the_docs_work_without_the_internet(stack: Stack, browser: Browser, service: str) -> None:
    origin = stack.site.url(service)
    context = browser.new_context(viewport={"width": 1200, "height": 1400})
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    told: list[str] = []
    page.on("console", lambda message: told.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: told.append(str(error)))
    strangers: list[str] = []
    page.on("request", lambda request: None if _ours(request.url, origin) else strangers.append(request.url))
    page.goto(f"{origin}/docs")
    expect(page.locator(".opblock").first).to_be_visible(timeout=PATIENCE_MS)
    _keep(page, f"docs-{service}")
    _try_out(page, A_CALL[service], mint_token(stack.env()["MAILROOM_JWT_SECRET"], "reader", OPERATOR))
    _keep(page, f"docs-{service}-tried")
    assert (told, strangers) == ([], [])
    context.close()


def _try_out(page: Page, path: str, token: str) -> None:
    """Authorize as a person would, and make a call."""
    page.get_by_role("button", name="Authorize").first.click()
    page.locator(".auth-container input").fill(token)
    page.locator(".auth-btn-wrapper .authorize").click()
    page.locator(".auth-btn-wrapper .btn-done").click()
    block = page.locator(".opblock-get").filter(has=page.locator(f'[data-path="{path}"]'))
    block.locator(".opblock-summary").click()
    block.get_by_role("button", name="Try it out").click()
    block.get_by_role("button", name="Execute").click()
    expect(block.locator(".live-responses-table tbody .response-col_status").first).to_contain_text(
        "200", timeout=PATIENCE_MS
    )


def _ours(url: str, origin: str) -> bool:
    return url.startswith((f"{origin}/", "data:"))


def _keep(page: Page, name: str) -> None:
    folder = os.environ.get("MAILROOM_SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)
