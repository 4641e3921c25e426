"""The types of `clients/js` are the contracts', and the code has them. The rest is tested in Chromium: e2e."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, get_args

import pytest
from playwright._impl._driver import compute_driver_executable

from contracts.files.values import FileCategory

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "clients" / "js"
TYPES = (FOLDER / "mailroom-files.d.ts").read_text()
COMPILERS = (FOLDER / "node_modules/.bin/tsc", Path(shutil.which("tsc") or "/nowhere"))
TSC = next((each for each in COMPILERS if each.exists()), None)

USE = """
import { MailroomFiles, TooLargeError, UploadError, type MailroomFile, type Progress } from "./mailroom-files.js";
const mailroom = new MailroomFiles({ token: async () => "t" });
const seen: Progress[] = [];
export const file: MailroomFile = await mailroom.upload(new File(["a"], "a.txt"), {
  category: "document", onProgress: (progress) => seen.push(progress),
});
export const advice = (error: unknown): string => (error instanceof UploadError ? error.advice : "");
export const large = (error: UploadError): boolean => error instanceof TooLargeError && error.code === "tooLarge";
// @ts-expect-error -- a category is needed
await mailroom.upload(new Blob(["a"]), { name: "a.txt" });
// @ts-expect-error -- there is no such category
await mailroom.upload(new Blob(["a"]), { name: "a.txt", category: "letter" });
"""


def test_a_file_has_the_fields_of_the_read_model() -> None:
    schema = json.loads((ROOT / "contracts/schemas/view.file.json").read_text())
    body = re.search(r"interface MailroomFile \{(.*?)\n\}", TYPES, re.DOTALL)
    assert body is not None
    fields = dict(re.findall(r"^  (\w+)(\??):", body[1], re.MULTILINE))
    assert fields.keys() == schema["properties"].keys()
    assert {name for name, optional in fields.items() if not optional} == set(schema["required"])


def test_the_categories_are_those_of_the_contracts() -> None:
    declared = re.search(r"type Category = ([^;]+);", TYPES)
    assert declared is not None
    assert tuple(re.findall(r'"(\w+)"', declared[1])) == get_args(FileCategory)


def test_what_is_declared_is_exported() -> None:
    exported = r"^export (?:declare )?class (\w+)"
    code = (FOLDER / "mailroom-files.js").read_text()
    assert re.findall(exported, TYPES, re.MULTILINE)
    assert set(re.findall(exported, TYPES, re.MULTILINE)) == set(re.findall(exported, code, re.MULTILINE))


@pytest.mark.skipif(TSC is None, reason="no tsc on this machine (cd clients/js && npm install)")
def test_the_types_hold_in_the_code_and_for_its_users(tmp_path: Path) -> None:
    copied = shutil.copytree(FOLDER, tmp_path / "js", ignore=shutil.ignore_patterns("node_modules"))
    (copied / "use.ts").write_text(USE)
    settings = json.loads((copied / "tsconfig.json").read_text())
    settings["include"].append("use.ts")
    (copied / "tsconfig.json").write_text(json.dumps(settings))
    done = subprocess.run([str(TSC), "-p", "."], cwd=copied, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout


_BROWSER = """
import { MailroomFiles, LocalStore } from "./mailroom-files.js";
const kept = new Map();
globalThis.localStorage = new Proxy({}, {
  get: (_, name) => ({
    getItem: (key) => kept.get(key) ?? null,
    setItem: (key, text) => kept.set(key, text),
    removeItem: (key) => kept.delete(key),
  })[name],
  ownKeys: () => [...kept.keys()],
  getOwnPropertyDescriptor: () => ({ enumerable: true, configurable: true }),
});
const asked = [];
let answer = () => ({});
globalThis.fetch = async (url, { body, headers }) => {
  const call = { path: new URL(url, "http://x").pathname, body: body ? JSON.parse(body) : null };
  asked.push(call);
  const data = answer(call, headers.get("Authorization"));
  const there = data !== null;
  return new Response(JSON.stringify({ success: there, data, error: "" }), { status: there ? 200 : 404 });
};
class Sent {
  upload = {};
  status = 200;
  responseText = "";
  open(_, url) { this.url = url; }
  setRequestHeader(name, value) { sent.push([this.url, name, value]); }
  getResponseHeader() { return "e"; }
  send() { queueMicrotask(() => this.onload()); }
  abort() {}
}
const sent = [];
globalThis.XMLHttpRequest = Sent;
const token = (sub) => `h.${btoa(JSON.stringify({ sub })).replaceAll("=", "")}.s`;
const report = (value) => console.log(JSON.stringify(value));
"""


def in_node(script: str) -> Any:
    """What a script told, run beside the client by the Node.js that Playwright brings."""
    node, _ = compute_driver_executable()
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(FOLDER / "mailroom-files.js", folder)
        (Path(folder) / "package.json").write_text('{"type": "module"}')
        (Path(folder) / "run.js").write_text(_BROWSER + script)
        done = subprocess.run([node, "run.js"], cwd=folder, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_nobody_sees_the_unfinished_uploads_of_who_used_the_browser_before() -> None:
    """Each begins one in parts that breaks off, with the same file; what is kept is told to its user alone."""
    told = in_node("""
let number = 0;
answer = ({ path, body }, caller) => {
  if (path === "/api/files/parts") return undefined;
  if (path === "/api/files/parts/list") return body.uploadToken === `of ${caller}` ? { parts: [] } : null;
  return {
    fileId: `f${++number}`, method: "multipart", uploadToken: `of ${caller}`, partSize: 8, partCount: 1, parts: [],
    expiresAt: new Date(Date.now() + 1e6).toISOString(),
  };
};
const file = (name) => new File(["abc"], name === "opaque" ? "b.txt" : "a.txt", { lastModified: 1 });
const clients = {
  ann: new MailroomFiles({ token: () => token("ann") }), bob: new MailroomFiles({ token: token("bob") }),
  cookie: new MailroomFiles({ user: () => "ann" }), opaque: new MailroomFiles({ token: "opaque" }),
  cookieAlone: new MailroomFiles(),
};
for (const name of ["ann", "bob", "opaque", "cookieAlone"]) {
  await clients[name].upload(file(name), { category: "document", method: "multipart" }).catch(() => undefined);
}
const expiresAt = new Date(Date.now() + 1e6).toISOString();
new LocalStore().set("of an earlier version", { fileId: "old", uploadToken: "of null", expiresAt });
const shown = {};
for (const name of Object.keys(clients)) shown[name] = (await clients[name].unfinished()).map((each) => each.fileId);
report(shown);
""")
    assert told == {
        "ann": ["f1"],
        "bob": ["f2"],
        "cookie": ["f1", "f4", "old"],
        "opaque": ["f3"],
        "cookieAlone": ["f4", "old"],
    }


def test_a_large_upload_with_a_checksum_is_held_to_those_of_its_parts() -> None:
    size = 100 * (1 << 20) + 1
    told = in_node(f"""
const file = new File([new Uint8Array({size}).fill(97)], "a.bin", {{ lastModified: 1 }});
const begun = {{
  fileId: "f", method: "multipart", uploadToken: "t", partSize: 8 << 20, partCount: 13, parts: [],
  expiresAt: "2999-01-01T00:00:00Z",
}};
const part = (number, checksum) => (
  {{ partNumber: number, size: 1, url: `http://s3/${{number}}`, headers: {{ "x-amz-checksum-sha256": checksum }} }});
answer = ({{ path, body }}) => {{
  if (path === "/api/files/upload-url") return begun;
  if (path !== "/api/files/parts") return {{ status: "completed" }};
  return {{ parts: body.partNumbers.map((number, n) => part(number, body.checksums[n])) }};
}};
const options = {{ category: "backup", checksum: "{"A" * 43}=" }};
await new MailroomFiles({{ token: token("ann") }}).upload(file, options);
const headers = Object.fromEntries(sent.map(([url, , value]) => [url, value]));
report({{ asked: asked[0].body.metadata.checksum, sent: headers }});
""")
    parts = [b"a" * each for each in [8 << 20] * 12 + [size - 12 * (8 << 20)]]
    digests = [hashlib.sha256(each).digest() for each in parts]
    assert told["asked"] == base64.b64encode(hashlib.sha256(b"".join(digests)).digest()).decode() + "-13"
    assert told["sent"] == {f"http://s3/{n}": base64.b64encode(each).decode() for n, each in enumerate(digests, 1)}
