"""Where `clients/js` is tested: the real stack, a browser, and files of any size made in the page."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Page

from deploy.local.endpoints import aws_endpoints
from deploy.local.stack import Stack
from services.kit.auth import mint_token

MIB = 1 << 20
PART = 8 * MIB
"""Of the service's uploads in parts."""

SCOPES = ("files:create", "files:read", "files:delete")
PATIENCE = 180.0

Json = dict[str, Any]


@dataclass(frozen=True)
class Bed:
    """The stack as a test's own user meets it."""

    stack: Stack
    user: str = field(default_factory=lambda: f"uploader-{uuid.uuid4()}")

    @property
    def origin(self) -> str:
        """Of the gateway: of the API and of the page."""
        return self.stack.site.url("gateway")

    @property
    def token(self) -> str:
        """Of the user."""
        return mint_token(self.stack.env()["MAILROOM_JWT_SECRET"], self.user, SCOPES)

    def call(self, method: str, path: str, body: Json | None = None) -> httpx.Response:
        """The API, past the browser."""
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.request(method, self.origin + path, json=body, headers=headers, timeout=60, trust_env=False)

    def status(self, file_id: str) -> str | None:
        """Of a file in the read model, None before it is there."""
        answer = self.call("GET", f"/api/files/{file_id}")
        return str(answer.json()["data"]["status"]) if answer.status_code == 200 else None

    def sha256(self, file_id: str) -> str:
        """Of what the file's link gives, in hexadecimal."""
        link = self.call("GET", f"/api/files/{file_id}/download").raise_for_status().json()["data"]["url"]
        digest = hashlib.sha256()
        with httpx.stream("GET", link, timeout=60, trust_env=False) as answer:
            for chunk in answer.raise_for_status().iter_bytes(MIB):
                digest.update(chunk)
        return digest.hexdigest()

    def s3(self) -> Any:
        """A client of the bucket, as the owner of the account."""
        aws = aws_endpoints(self.stack)
        return aws.client("s3")

    @property
    def bucket(self) -> str:
        """Of files."""
        return aws_endpoints(self.stack).files_bucket

    def uploads_in_s3(self, file_id: str) -> int:
        """How many uploads in parts S3 keeps open for a file."""
        found = self.s3().list_multipart_uploads(Bucket=self.bucket).get("Uploads", [])
        return sum(1 for each in found if file_id in each["Key"])


# --- files -------------------------------------------------------------------------------------------------------

# A file is text: each mebibyte begins with its number, the rest is shared, so that 300 MB take one.
_BENCH = """
async ({ token, options }) => {
  window.mailroom = await import("/mailroom-files.js");
  const MIB = 1 << 20;
  const filler = new Blob(["x".repeat(MIB - 8)]);
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
  window.client = new mailroom.MailroomFiles({ token, backoffMs: 50, ...options });
}
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


# --- the helper in a page ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bench:
    """A page with the helper in it, as the gateway serves it, and a client, `client`; `reload` makes both."""

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

    def slow_down(self, per_second: int) -> None:
        """From now on the page sends so many bytes a second, whatever the machine could."""
        session = self.page.context.new_cdp_session(self.page)
        session.send("Network.enable")
        limits = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": per_second}
        session.send("Network.emulateNetworkConditions", limits)

    def unfinished(self) -> list[Json]:
        """What can go on."""
        found: list[Json] = self.page.evaluate("() => client.unfinished()")
        return found

    def until(self, there: Callable[[], object]) -> None:
        """Wait for a condition, with the page at work."""
        deadline = time.monotonic() + PATIENCE
        while not there():
            assert time.monotonic() < deadline, "not within the time limit"
            self.page.wait_for_timeout(20)

    def reload(self, options: str = "") -> None:
        """As a person would, with a new client after it. The page itself is a blank one of the gateway's origin."""
        self.page.goto(f"{self.bed.origin}/healthz")
        self.page.evaluate(
            _BENCH, {"token": self.bed.token, "options": self.page.evaluate(f"() => ({{{options}}})")}
        )  # fmt: skip
