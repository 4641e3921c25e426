"""`mailroom files` on the real stack: up, down, listed, deleted, restored, shared, and S3 held against it all."""

from __future__ import annotations

import json
import os
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import httpx
import pytest

from deploy.local.site import ROOT
from deploy.local.stack import Stack
from tests.e2e.js_client.fault_proxy import fault_proxy
from tests.e2e.js_client.faults import Asked, Doing, Faults

SECONDS = 180.0
PDF = b"%PDF-1.7\n" + b"x" * 5000


@dataclass(frozen=True)
class Mailroom:
    """`./mailroom`."""

    env: dict[str, str]
    user: str

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._command(words), env=self.env, capture_output=True, text=True, timeout=SECONDS, check=False
        )

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """The same, under way."""
        return subprocess.Popen(
            self._command(words), env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def _command(self, words: Sequence[str]) -> list[str]:
        person = [] if words[1] == "reconcile" else ["--as", self.user]
        return [str(ROOT / "mailroom"), *words, *person]


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


@pytest.fixture
def mailroom(stack: Stack, tmp_path: Path) -> Mailroom:
    """It on this stack, as a new user with a home of their own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MAILROOM_", "AWS_"))}
    env = {**kept, "MAILROOM_STATE_DIR": str(stack.site.state_dir), "COLUMNS": "140", "HOME": str(tmp_path)}
    return Mailroom(env, f"cli-{uuid.uuid4().hex[:8]}")


@dataclass
class Proxied:
    """`./mailroom` behind a proxy, with what is to go wrong there."""

    mailroom: Mailroom
    faults: Faults


@pytest.fixture
def proxied(mailroom: Mailroom, stack: Stack) -> Iterator[Proxied]:
    faults = Faults()
    with fault_proxy(urlsplit(stack.env()["AWS_ENDPOINT_URL"]).netloc, faults) as proxy:
        env = {**mailroom.env, "HTTP_PROXY": proxy, "NO_PROXY": ""}
        yield Proxied(Mailroom(env, mailroom.user), faults)


@pytest.fixture
def s3(stack: Stack) -> Any:
    """Whoever may do anything with the bucket."""
    env = stack.env()
    return boto3.client(
        "s3",
        endpoint_url=env["AWS_ENDPOINT_URL"],
        aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
        region_name=env["AWS_REGION"],
    )


def told(done: subprocess.CompletedProcess[str], status: int = 0) -> Any:
    assert done.returncode == status, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_a_file_up_and_down_and_everything_between(mailroom: Mailroom, tmp_path: Path) -> None:
    small, large = tmp_path / "Büro „1“.pdf", tmp_path / "large.pdf"
    small.write_bytes(PDF)
    large.write_bytes(PDF + os.urandom(1 << 20) * 105)  # more than one form takes: 14 parts
    done = told(mailroom("files", "upload", str(small), str(large), "--category", "document", "--tag", "t", "--json"))
    assert [each["status"] for each in done["files"]] == ["completed", "completed"]
    assert [each["size"] for each in done["files"]] == [small.stat().st_size, large.stat().st_size]
    assert [each["metadata"]["checksum"].partition("=")[2] for each in done["files"]] == ["", "-14"]
    first, second = [each["fileId"] for each in done["files"]]
    listed = mailroom("files", "ls", "--tag", "t")
    assert first in listed.stdout
    assert "Büro „1“.pdf" in listed.stdout
    target = tmp_path / "back"
    target.mkdir()
    told(mailroom("files", "download", first, second, "--into", str(target), "--json"))
    assert sorted(each.read_bytes() for each in target.iterdir()) == sorted([small.read_bytes(), large.read_bytes()])
    assert told(mailroom("files", "rm", first, "--yes", "--json"))["files"][0]["status"] == "deleted"
    assert told(mailroom("files", "restore", first, "--json"))["files"][0]["status"] == "completed"
    assert "versionId=" in mailroom("files", "share", first).stdout


def test_what_compresses_lies_compressed_and_comes_back_as_it_was(
    mailroom: Mailroom, stack: Stack, tmp_path: Path
) -> None:
    text = tmp_path / "measurements.csv"
    text.write_bytes(b"".join(b"%d;Ann;%d\r\n" % (n, n * n) for n in range(200_000)))
    noise = tmp_path / "noise.bin"
    noise.write_bytes(os.urandom(1 << 20))
    done = told(mailroom("files", "upload", str(text), str(noise), "--category", "backup", "--json"))
    first, second = done["files"]
    assert (first["contentEncoding"], first["originalSize"]) == ("gzip", text.stat().st_size)
    assert first["size"] < text.stat().st_size / 2
    assert (second["size"], "contentEncoding" in second) == (noise.stat().st_size, False), "it would not pay"
    target = tmp_path / "back"
    target.mkdir()
    told(mailroom("files", "download", first["fileId"], "--into", str(target), "--json"))
    assert (target / "measurements.csv").read_bytes() == text.read_bytes()
    link = mailroom("files", "share", first["fileId"]).stdout.strip()
    assert httpx.get(link).content == text.read_bytes(), "browsers decode by themselves"
    listed = mailroom("files", "ls", "--name", "measurements").stdout
    assert f"{text.stat().st_size:,}" in listed
    assert f"{first['size']:,}" in listed
    plain = told(mailroom("files", "upload", str(text), "--category", "backup", "--no-compress", "--json"))["files"][0]
    assert (plain["size"], "contentEncoding" in plain) == (text.stat().st_size, False)
    small = told(mailroom("files", "upload", str(text), "--category", "email", "--json"))["files"][0]
    assert "contentEncoding" not in small, "the category does not take it"
    assert list((tmp_path / ".cache" / "mailroom" / "uploads").iterdir()) == []


@pytest.mark.long
def test_a_packed_upload_that_broke_off_goes_on_with_the_same_bytes(
    mailroom: Mailroom, proxied: Proxied, tmp_path: Path
) -> None:
    """Killed while its parts go up, and run again: what is there is not sent twice, and the file is whole."""
    large = tmp_path / "large.sql"
    noise = os.urandom(1 << 20)
    with large.open("wb") as out:  # noise in base 16: half of it packs away, and it takes more than one form
        for n in range(93):
            out.write((noise[n:] + noise[:n]).hex().encode())
    state = tmp_path / ".cache" / "mailroom" / "uploads"
    words = ("files", "upload", str(large), "--category", "backup", "--type", "text/plain", "--json")
    running = proxied.mailroom.start(*words)
    until(lambda: any(each.at == "put" for each in proxied.faults.asked))
    running.kill()
    running.wait()
    (pack,) = state.glob("*.gz")
    before = pack.read_bytes()
    (file_id,) = proxied.faults.begun
    done = told(mailroom(*words))["files"][0]
    assert (done["fileId"], done["size"]) == (file_id, len(before))
    assert (done["contentEncoding"], done["originalSize"]) == ("gzip", large.stat().st_size)
    assert list(state.iterdir()) == []
    target = tmp_path / "again.sql"
    told(mailroom("files", "download", done["fileId"], "--into", str(target), "--json"))
    assert target.read_bytes() == large.read_bytes()


@pytest.mark.parametrize(
    ("at", "do", "times"),
    [
        ("/api/files/upload-complete", "lost", 2),
        pytest.param("/api/files/upload-url", "lost", 1, marks=pytest.mark.long),
        pytest.param("post", "lost", 1, marks=pytest.mark.long),
        pytest.param("/api/files/upload-complete", 503, 2, marks=pytest.mark.long),
        pytest.param("post", "cut", 1, marks=pytest.mark.long),
        pytest.param("post", 503, 2, marks=pytest.mark.long),
    ],
)
def test_whatever_answer_gets_lost_one_file_comes_of_it(
    proxied: Proxied, tmp_path: Path, at: str, do: Doing, times: int
) -> None:
    path = tmp_path / "minutes.txt"
    path.write_bytes(os.urandom(40_000).hex().encode())
    proxied.faults.plan(at, do, times=times)
    done = told(proxied.mailroom("files", "upload", str(path), "--json"))["files"][0]
    assert set(proxied.faults.begun) == {done["fileId"]}
    assert proxied.faults.asked.count(Asked(at)) > times
    listed = told(proxied.mailroom("files", "ls", "--status", "completed", "--json"))
    assert done["fileId"] in {each["fileId"] for each in listed}
    assert len(listed) == 1


def test_run_again_after_it_was_killed_a_form_is_the_same_file(proxied: Proxied, tmp_path: Path) -> None:
    path = tmp_path / "minutes.txt"
    path.write_bytes(os.urandom(40_000).hex().encode())
    held = proxied.faults.plan("/api/files/upload-complete", "hold")
    running = proxied.mailroom.start("files", "upload", str(path), "--json")
    until(lambda: Asked(held.at) in proxied.faults.asked)
    running.kill()
    running.wait()
    held.dropped = True
    held.released.set()
    done = told(proxied.mailroom("files", "upload", str(path), "--json"))["files"][0]
    assert set(proxied.faults.begun) == {done["fileId"]}


def test_a_download_goes_on_where_it_broke_off_and_what_is_spoilt_is_not_kept(proxied: Proxied, tmp_path: Path) -> None:
    path = tmp_path / "noise.bin"
    path.write_bytes(os.urandom(300_000))
    words = ("--category", "backup", "--type", "application/octet-stream", "--json")
    file_id = told(proxied.mailroom("files", "upload", str(path), *words))["files"][0]["fileId"]
    proxied.faults.plan("get", "cut", times=2)
    target = tmp_path / "again.bin"
    told(proxied.mailroom("files", "download", file_id, "--into", str(target), "--json"))
    assert target.read_bytes() == path.read_bytes()
    assert proxied.faults.asked.count(Asked("get")) == 3
    proxied.faults.plan("get", "spoil")
    spoilt = tmp_path / "spoilt.bin"
    told_of = proxied.mailroom("files", "download", file_id, "--into", str(spoilt), "--json")
    assert told_of.returncode == 1
    assert "not what was verified" in json.loads(told_of.stdout)["problems"][0]
    assert not spoilt.exists()
    assert not list(tmp_path.glob(".*.part"))


def test_what_is_refused_is_told_and_the_others_go_on(mailroom: Mailroom, tmp_path: Path) -> None:
    lie, good = tmp_path / "lie.pdf", tmp_path / "good.pdf"
    lie.write_bytes(b"<html>just words")
    good.write_bytes(PDF)
    done = mailroom("files", "upload", str(lie), str(good), "--category", "document")
    assert done.returncode == 1
    assert "typeMismatch" in done.stderr
    assert "uploaded: " in done.stdout
    wrong = mailroom("files", "upload", str(good), "--category", "avatar")
    assert "contentType: application/pdf is not taken" in wrong.stderr
    assert mailroom("files", "download", str(uuid.uuid4()), "--into", str(tmp_path)).returncode == 1


def differences(mailroom: Mailroom, ids: dict[str, str], *options: str) -> dict[str, tuple[str, bool]]:
    """What `reconcile` tells of these files, by their names here."""
    done = mailroom("files", "reconcile", "--json", *options)
    assert done.returncode in (0, 1), done.stderr
    names = {file_id: name for name, file_id in ids.items()}
    found = [each for each in json.loads(done.stdout) if each["fileId"] in names]
    assert len(found) == len({each["fileId"] for each in found})
    return {names[each["fileId"]]: (each["kind"], each["mended"]) for each in found}


@pytest.mark.long
def test_what_differs_is_told_and_put_right_only_when_asked(
    mailroom: Mailroom, stack: Stack, s3: Any, tmp_path: Path
) -> None:
    bucket, names = stack.env()["AWS_S3_BUCKET"], ("lost", "swapped", "hidden", "tagged", "whole")
    for name in names:
        (tmp_path / f"{name}.pdf").write_bytes(PDF + name.encode())
    paths = [str(tmp_path / f"{name}.pdf") for name in names]
    made = told(mailroom("files", "upload", *paths, "--category", "document", "--tag", "reconciled", "--json"))["files"]
    ids = {each["originalName"].removesuffix(".pdf"): each["fileId"] for each in made}
    assert sorted(ids) == sorted(names)
    keys = {name: each["key"] for name in names for each in made if each["fileId"] == ids[name]}
    verified = {name: each["s3Info"]["versionId"] for name in names for each in made if each["fileId"] == ids[name]}

    def lies(name: str) -> list[str]:
        found = s3.list_object_versions(Bucket=bucket, Prefix=keys[name])
        return [each["VersionId"] for each in found.get("Versions", ())]

    stack.stop(["files"])  # it would hear of what is done now, and mend it unasked
    try:
        s3.delete_object(Bucket=bucket, Key=keys["lost"], VersionId=verified["lost"])
        swap = s3.put_object(Bucket=bucket, Key=keys["swapped"], Body=b"swapped", ServerSideEncryption="AES256")
        s3.delete_object(Bucket=bucket, Key=keys["hidden"])
        public = {"TagSet": [{"Key": "public", "Value": "true"}]}
        s3.put_object_tagging(Bucket=bucket, Key=keys["tagged"], VersionId=verified["tagged"], Tagging=public)

        assert differences(mailroom, ids, "--older-than", "1", "--fix") == {}  # all that is too young to be judged
        wrong = {"lost": "missing", "swapped": "mismatched", "hidden": "mismatched", "tagged": "mismatched"}
        looked = differences(mailroom, ids, "--older-than", "0")
        assert looked == {name: (kind, False) for name, kind in wrong.items()}
        assert sorted(lies("swapped")) == sorted([verified["swapped"], swap["VersionId"]])
        mended = differences(mailroom, ids, "--older-than", "0", "--fix")
        assert mended == {name: (kind, True) for name, kind in wrong.items()}
        assert differences(mailroom, ids, "--older-than", "0") == {}
        assert lies("swapped") == [verified["swapped"]]
        assert lies("hidden") == [verified["hidden"]]  # only deleted: it can be restored
        tags = s3.get_object_tagging(Bucket=bucket, Key=keys["tagged"], VersionId=verified["tagged"])
        assert tags["TagSet"] == []
    finally:
        stack.start(["files"])

    ends = {"lost": "deleted", "swapped": "completed", "hidden": "deleted", "tagged": "completed", "whole": "completed"}
    found: dict[str, str] = {}
    for _ in range(20):
        listed = told(mailroom("files", "ls", "--tag", "reconciled", "--json"))
        found = {name: each["status"] for name in names for each in listed if each["fileId"] == ids[name]}
        if found == ends:
            break
        time.sleep(1)
    assert found == ends
    assert told(mailroom("files", "restore", ids["hidden"], "--json"))["files"][0]["status"] == "completed"
    assert mailroom("files", "restore", ids["lost"]).returncode == 1


@pytest.mark.long
def test_an_object_of_nobody_is_an_orphan_and_left_alone(mailroom: Mailroom, stack: Stack, s3: Any) -> None:
    bucket, key = stack.env()["AWS_S3_BUCKET"], f"strange/{uuid.uuid4()}"
    version = s3.put_object(Bucket=bucket, Key=key, Body=b"x", ServerSideEncryption="AES256")["VersionId"]
    found = told(mailroom("files", "reconcile", "--older-than", "0", "--fix", "--json"), 1)
    assert [each["kind"] for each in found if each["key"] == key] == ["orphaned"]
    assert s3.head_object(Bucket=bucket, Key=key, VersionId=version)["ContentLength"] == 1
    s3.delete_object(Bucket=bucket, Key=key, VersionId=version)
