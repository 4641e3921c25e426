"""The types of `clients/js` are the contracts', and the code has them. The rest is tested in Chromium: e2e."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import get_args

import pytest

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
