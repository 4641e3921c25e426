"""Mails and the unsubscribe page as people see them: in Chromium, on a phone and on a desk, light and dark.

Set MAILROOM_SCREENSHOTS to a folder to keep a picture of each.
"""

import contextlib
import os
import re
import shutil
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, sync_playwright

from services.email.adapters.templates import DIRECTORY, Rendered, Site, TemplateCatalogue
from services.email.domain.unsubscribe import UnsubscribeClaims, UnsubscribeSource, UnsubscribeTokens
from services.email.entrypoints.unsubscribe_page import unsubscribe_router
from services.kit.auth import Authenticator, SecretVerifier
from services.kit.clock import SystemClock
from services.kit.errors import Unavailable
from services.kit.health import Health
from services.kit.http import create_app
from services.kit.metrics import Metrics

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (Debian: apt-get install chromium)"),
]

Scheme = Literal["light", "dark"]
SITE = Site(
    crm_url="https://crm.example.com", portal_url="https://portal.example.com", support_address="help@example.com"
)
CATALOGUE = TemplateCatalogue.load(DIRECTORY, SITE)

LONG = "Wolfeschlegelsteinhausenbergerdorff" * 3
MAILS: dict[str, tuple[str, dict[str, object]]] = {
    "2fa-code": ("2fa-code", {"name": "Ada Lovelace", "token": "482913", "expiresInMinutes": 10}),
    "2fa-code-long": ("2fa-code", {"name": LONG, "token": "W" * 64, "expiresInMinutes": 1}),
    "welcome": ("welcome", {"name": "Ada Lovelace", "isClient": False}),
    "welcome-client": ("welcome", {"name": "ليلى <b>&", "isClient": True}),
    "password-reset": (
        "password-reset",
        {"name": "Ada Lovelace", "resetToken": "hT4v-9sQm2Zr7cXwLk1eYpNbD8uGaJfo", "expiresInHours": 24},
    ),
    "password-reset-long": ("password-reset", {"name": LONG, "resetToken": "x" * 2048, "expiresInHours": 1}),
}

# Contrast by WCAG 2.2 (relative luminance), over the backgrounds that lie under each visible text, blended.
LOOK = """() => {
  const parse = (css) => { const n = css.match(/[\\d.]+/g).map(Number); return [n[0], n[1], n[2], n[3] ?? 1]; };
  const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3])).concat(1);
  const linear = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = (c) => 0.2126 * linear(c[0]) + 0.7152 * linear(c[1]) + 0.0722 * linear(c[2]);
  const backgrounds = (element) => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) {
      const layer = parse(getComputedStyle(e).backgroundColor);
      if (layer[3] > 0) layers.push(layer);
      if (layer[3] === 1) return layers;
    }
    return null;
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim();
    const element = walker.currentNode.parentElement;
    if (!text || !element.checkVisibility({ opacityProperty: true }) || element.closest('style, script')) continue;
    const layers = backgrounds(element);
    if (layers === null) { found.push({ text, contrast: 0, size: 0 }); continue; }
    const under = layers.reverse().reduce((low, layer) => over(layer, low));
    const [a, b] = [light(over(parse(getComputedStyle(element).color), under)), light(under)].sort((x, y) => y - x);
    found.push({ text, contrast: (a + 0.05) / (b + 0.05), size: parseFloat(getComputedStyle(element).fontSize) });
  }
  const frame = document.documentElement;
  const images = document.querySelectorAll('img, script, link, iframe, object, svg').length;
  return { found, scroll: frame.scrollWidth, width: frame.clientWidth, images };
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@contextlib.contextmanager
def a_page(browser: Browser, width: int, scheme: Scheme) -> Iterator[Page]:
    context = browser.new_context(
        viewport={"width": width, "height": 720}, color_scheme=scheme, java_script_enabled=True
    )
    requests: list[str] = []
    page = context.new_page()
    page.on("request", lambda request: requests.append(request.url))
    try:
        yield page
        assert not [url for url in requests if not url.startswith(("http://127.0.0.1:", "about:", "data:"))]
    finally:
        context.close()


def looked_at(page: Page, name: str) -> dict[str, Any]:
    folder = os.environ.get("MAILROOM_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)
    seen: dict[str, Any] = page.evaluate(LOOK)
    assert seen["found"], "nothing is visible"
    assert seen["scroll"] <= seen["width"], "it scrolls sideways"
    assert [t for t in seen["found"] if t["contrast"] < 4.5] == []
    assert [t for t in seen["found"] if t["size"] < 12] == []
    assert seen["images"] == 0
    return seen


def render(mail: str) -> tuple[Rendered, dict[str, object]]:
    template_id, data = MAILS[mail]
    return CATALOGUE.render(template_id, data), data


def words(data: dict[str, object]) -> list[str]:
    return [str(value) for value in data.values() if not isinstance(value, bool)]


LOOKS = pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (375, "light"),
        (640, "dark"),
        pytest.param(375, "dark", marks=pytest.mark.long),
        pytest.param(640, "light", marks=pytest.mark.long),
    ],
)
"""Pixels of the window, and what the reader's system prefers."""


@LOOKS
@pytest.mark.parametrize("mail", MAILS)
def test_a_mail_is_legible_and_fits(browser: Browser, mail: str, width: int, scheme: Scheme) -> None:
    rendered, data = render(mail)
    with a_page(browser, width, scheme) as page:
        page.set_content(rendered.html)
        seen = looked_at(page, f"{mail}-{width}-{scheme}")
        visible = " ".join(text["text"] for text in seen["found"])
        shown = page.evaluate("getComputedStyle(document.querySelector('td.card')).backgroundColor")
    for word in words(data):
        assert word in visible
        assert word in rendered.text
    assert (shown == "rgb(255, 255, 255)") == (scheme == "light")


def test_every_template_that_ships_is_looked_at() -> None:
    assert {template_id for template_id, _ in MAILS.values()} == {t.template_id for t in CATALOGUE.list()}


def test_a_client_that_drops_style_blocks_still_shows_the_design(browser: Browser) -> None:
    rendered, _ = render("password-reset")
    without = re.sub(r"<style.*?</style>", "", rendered.html, flags=re.DOTALL)
    with a_page(browser, 640, "light") as page:
        page.set_content(without)
        looked_at(page, "password-reset-without-style")
        assert page.evaluate("getComputedStyle(document.querySelector('a.button')).color") == "rgb(255, 255, 255)"


# --- the unsubscribe page, served --------------------------------------------------------------------------------

TOKENS = UnsubscribeTokens(b"k" * 32)


class Recorder:
    def __init__(self) -> None:
        self.recorded: list[tuple[str, UnsubscribeSource]] = []
        self.away = False

    async def __call__(self, claims: UnsubscribeClaims, source: UnsubscribeSource) -> None:
        if self.away:
            raise Unavailable("MongoDB", "away")
        self.recorded.append((claims.scope, source))


RECORDER = Recorder()


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    app = create_app(
        title="Mailroom: email",
        service="email",
        version="1",
        authenticator=Authenticator(SecretVerifier("s" * 32)),
        health=Health(SystemClock()),
        metrics=Metrics(),
        routers=[unsubscribe_router(TOKENS, RECORDER, product_name="DepLLC CRM")],
    )
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        thread.join(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


def link(origin: str, scope: str) -> str:
    claims = UnsubscribeClaims(
        "5f" * 32, scope, "0192f0c1-2b7a-7d3e-9c1a-5b8f3e2d1c0b", datetime(2026, 11, 24, tzinfo=UTC)
    )
    return f"{origin}/unsubscribe/{TOKENS.issue(claims)}"


@LOOKS
def test_the_unsubscribe_page_asks_and_confirms(browser: Browser, origin: str, width: int, scheme: Scheme) -> None:
    RECORDER.recorded.clear()
    RECORDER.away = False
    with a_page(browser, width, scheme) as page:
        page.goto(link(origin, "list:spring-news"))
        looked_at(page, f"unsubscribe-ask-{width}-{scheme}")
        assert RECORDER.recorded == []
        page.get_by_role("button", name="Unsubscribe").click()
        page.get_by_role("heading", name="You are unsubscribed").wait_for()
        looked_at(page, f"unsubscribe-done-{width}-{scheme}")
    assert RECORDER.recorded == [("list:spring-news", "page")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_says_when_it_could_not_be_recorded_and_works_again(
    browser: Browser, origin: str, scheme: Scheme
) -> None:
    RECORDER.recorded.clear()
    RECORDER.away = True
    with a_page(browser, 375, scheme) as page:
        page.goto(link(origin, "marketing"))
        page.get_by_role("button", name="Unsubscribe").click()
        page.get_by_role("heading", name="That did not work").wait_for()
        looked_at(page, f"unsubscribe-unavailable-375-{scheme}")
        RECORDER.away = False
        page.get_by_role("button", name="Try again").click()
        page.get_by_role("heading", name="You are unsubscribed").wait_for()
    assert RECORDER.recorded == [("marketing", "page")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_broken_link_says_so(browser: Browser, origin: str, scheme: Scheme) -> None:
    with a_page(browser, 375, scheme) as page:
        page.goto(link(origin, "marketing")[:-5])
        looked_at(page, f"unsubscribe-invalid-375-{scheme}")
        assert page.get_by_role("button").count() == 0


def test_the_page_works_without_scripts(browser: Browser, origin: str) -> None:
    RECORDER.recorded.clear()
    RECORDER.away = False
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(link(origin, "marketing"))
    page.locator("button").click()
    page.wait_for_load_state()
    assert "You are unsubscribed" in page.content()
    assert context.cookies() == []
    context.close()
    assert RECORDER.recorded == [("marketing", "page")]
