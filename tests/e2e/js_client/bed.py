"""Where `clients/js` is tested: a service that answers uploads, a browser, and files of any size made in the page."""

from __future__ import annotations

import contextlib
import hashlib
import mimetypes
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from playwright.sync_api import BrowserContext, Page, Route

from deploy.local.stack import Stack
from services.kit.auth import mint_token
from tests.e2e.js_client.fake_http import Handler, serving
from tests.e2e.js_client.fake_s3 import FakeS3
from tests.e2e.js_client.fake_service import FakeService
from tests.e2e.js_client.faults import Faults

CLIENT = Path(__file__).resolve().parents[3] / "clients" / "js"
MIB = 1 << 20
PART = 8 * MIB
SCOPES = ("files:create", "files:read", "files:delete")
PATIENCE = 60.0

Json = dict[str, Any]


@dataclass(frozen=True)
class Bed:
    """A service that takes uploads: a fake one, or the real stack.

    Attributes:
        origin: of the API; pages are shown under it too.
        token: of somebody who may upload.
        sha256: of a completed file's bytes in S3, by fileId, in hexadecimal.
        faults: what goes wrong on demand, and what was asked; the real stack has none.
    """

    origin: str
    token: str
    sha256: Callable[[str], str]
    faults: Faults | None = None


@dataclass(frozen=True)
class FakeBed(Bed):
    """With hands in both fakes."""

    service: FakeService | None = None
    s3: FakeS3 | None = None


@contextlib.contextmanager
def fake_bed(part_size: int = PART) -> Iterator[FakeBed]:
    """Both fakes on free ports, S3 on an origin of its own as in life."""
    faults = Faults()
    s3 = FakeS3(faults)
    service = FakeService(s3, faults, part_size)

    def service_handler(origin: str) -> type[Handler]:
        return service.handler(origin)

    with serving(service_handler) as origin, serving(lambda _: s3.handler(origin)) as s3_origin:
        service.s3_origin = s3_origin

        def sha256(file_id: str) -> str:
            return s3.objects[service.files[file_id].key].sha256

        try:
            yield FakeBed(origin, service.token, sha256, faults, service, s3)
        finally:
            faults.clear()


def stack_bed(stack: Stack) -> Bed:
    """The real services behind the gateway. The bucket's CORS rules must name the gateway's origin."""
    origin = stack.site.url("gateway")
    token = mint_token(stack.env()["MAILROOM_JWT_SECRET"], "uploader", SCOPES)

    def sha256(file_id: str) -> str:
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=origin, headers=headers, timeout=60, trust_env=False) as http:
            link = http.get(f"/api/files/{file_id}/download").raise_for_status().json()["data"]["url"]
        digest = hashlib.sha256()
        with httpx.stream("GET", link, timeout=60, trust_env=False) as answer:
            for chunk in answer.raise_for_status().iter_bytes():
                digest.update(chunk)
        return digest.hexdigest()

    return Bed(origin, token, sha256)


# --- files -------------------------------------------------------------------------------------------------------

_BENCH = """<!DOCTYPE html><meta charset="utf-8"><title>bench</title><link rel="icon" href="data:,">
<script type="module" src="bench.js"></script>"""

# A file is text: each mebibyte begins with its number, the rest is shared, so that 300 MB take one.
_BENCH_JS = """
import * as mailroom from "./mailroom-files.js";
const MIB = 1 << 20;
const filler = new Blob(["x".repeat(MIB - 8)]);
window.mailroom = mailroom;
window.make = (size, name, type = "text/plain", lastModified = 1000) => {
  const blocks = [];
  for (let block = 0; block * MIB < size; block += 1) blocks.push(String(block).padStart(8, "0"), filler);
  return new File([new Blob(blocks).slice(0, size)], name, { type, lastModified });
};
window.told = [];
window.upload = async (client, file, options) => {
  window.told = [];
  window.controller = new AbortController();
  const onProgress = (progress) => window.told.push({ ...progress, error: progress.error?.code });
  try {
    return { file: await client.upload(file, { signal: window.controller.signal, onProgress, ...options }) };
  } catch (error) {
    const { name, code, message, advice, status, again } = error;
    const known = Object.keys(mailroom).filter((each) => each.endsWith("Error") && error instanceof mailroom[each]);
    return { error: { name, code, message, advice, status, again, known } };
  }
};
"""


def sha256_of(size: int) -> str:
    """Of a file that the bench makes."""
    digest = hashlib.sha256()
    filler = b"x" * (MIB - 8)
    for block in range(-(-size // MIB)):
        digest.update((b"%08d" % block + filler)[: size - block * MIB])
    return digest.hexdigest()


def write_file(path: Path, size: int) -> None:
    """The same file on disk."""
    filler = b"x" * (MIB - 8)
    with path.open("wb") as out:
        for block in range(-(-size // MIB)):
            out.write((b"%08d" % block + filler)[: size - block * MIB])


# --- pages -------------------------------------------------------------------------------------------------------


def serve_client(context: BrowserContext, bed: Bed) -> None:
    """Show `clients/js` under the API's own origin, as an installation would."""

    def fulfil(route: Route) -> None:
        path = urlsplit(route.request.url).path.removeprefix("/clients/js/")
        made = {"bench.html": _BENCH, "bench.js": _BENCH_JS}
        body = made[path] if path in made else (CLIENT / path).read_text()
        kind = mimetypes.guess_type(path)[0] or "text/plain"
        policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self' http://127.0.0.1:*"
        route.fulfill(body=body, content_type=f"{kind}; charset=utf-8", headers={"Content-Security-Policy": policy})

    context.route(f"{bed.origin}/clients/js/**", fulfil)


@dataclass(frozen=True)
class Bench:
    """A page with the helper in it and a client, `client`; made by `open_bench`."""

    page: Page
    bed: Bed

    def start(self, size: int, name: str = "file.txt", options: str = "{category: 'document'}", more: str = "") -> None:
        """Begin an upload. `options` and `more` (further arguments of `make`) are JavaScript."""
        made = f"make({size}, name{', ' + more if more else ''})"
        self.page.evaluate(f"(name) => {{ window.running = upload(client, {made}, {options}) }}", name)

    def end(self) -> Json:
        """How it ended: `{file}` or `{error}`."""
        found: Json = self.page.evaluate("() => window.running")
        return found

    def upload(
        self, size: int, name: str = "file.txt", options: str = "{category: 'document'}", more: str = ""
    ) -> Json:
        """Both: the File."""
        self.start(size, name, options, more)
        ended = self.end()
        assert "file" in ended, ended
        file: Json = ended["file"]
        return file

    def refused(
        self, size: int, name: str = "file.txt", options: str = "{category: 'document'}", more: str = ""
    ) -> Json:
        """Both: the error."""
        self.start(size, name, options, more)
        ended = self.end()
        assert "error" in ended, ended
        error: Json = ended["error"]
        return error

    def told(self) -> list[Json]:
        """What `onProgress` heard."""
        found: list[Json] = self.page.evaluate("() => window.told")
        return found

    def until(self, there: Callable[[], object]) -> None:
        """Wait for a condition, with the page at work."""
        deadline = time.monotonic() + PATIENCE
        while not there():
            assert time.monotonic() < deadline, "not within the time limit"
            self.page.wait_for_timeout(20)

    def reload(self, options: str = "") -> None:
        """As a person would, with a new client after it."""
        self.page.goto(f"{self.bed.origin}/clients/js/bench.html")
        self.page.wait_for_function("() => window.make")
        self.page.evaluate(
            "([token, options]) => { window.client = new mailroom.MailroomFiles({token, backoffMs: 50, ...options}) }",
            [self.bed.token, self.page.evaluate(f"() => ({{{options}}})")],
        )
