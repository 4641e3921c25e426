"""`mailroom files` on the real stack: up, down, listed, deleted, restored, shared, and S3 held against it all."""

from __future__ import annotations

import json
import os
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest

from deploy.local.site import ROOT
from deploy.local.stack import Stack

SECONDS = 120.0
Mailroom = Callable[..., "subprocess.CompletedProcess[str]"]
PDF = b"%PDF-1.7\n" + b"x" * 5000


@pytest.fixture
def mailroom(stack: Stack, tmp_path: Path) -> Mailroom:
    """`./mailroom` on this stack, as a new user with a home of their own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MAILROOM_", "AWS_"))}
    env = {**kept, "MAILROOM_STATE_DIR": str(stack.site.state_dir), "COLUMNS": "140", "HOME": str(tmp_path)}
    user = f"cli-{uuid.uuid4().hex[:8]}"

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        person = [] if words[1] == "reconcile" else ["--as", user]
        command = [str(ROOT / "mailroom"), *words, *person]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=SECONDS, check=False)

    return call


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
    large.write_bytes(PDF + os.urandom(1 << 20) * 105)
    done = told(mailroom("files", "upload", str(small), str(large), "--category", "document", "--tag", "t", "--json"))
    assert [each["status"] for each in done["files"]] == ["completed", "completed"]
    assert [each["size"] for each in done["files"]] == [small.stat().st_size, large.stat().st_size]
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


def test_what_is_refused_is_told_and_the_others_go_on(mailroom: Mailroom, tmp_path: Path) -> None:
    lie, good = tmp_path / "lie.pdf", tmp_path / "good.pdf"
    lie.write_bytes(b"just words")
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


def test_an_object_of_nobody_is_an_orphan_and_left_alone(mailroom: Mailroom, stack: Stack, s3: Any) -> None:
    bucket, key = stack.env()["AWS_S3_BUCKET"], f"strange/{uuid.uuid4()}"
    version = s3.put_object(Bucket=bucket, Key=key, Body=b"x", ServerSideEncryption="AES256")["VersionId"]
    found = told(mailroom("files", "reconcile", "--older-than", "0", "--fix", "--json"), 1)
    assert [each["kind"] for each in found if each["key"] == key] == ["orphaned"]
    assert s3.head_object(Bucket=bucket, Key=key, VersionId=version)["ContentLength"] == 1
    s3.delete_object(Bucket=bucket, Key=key, VersionId=version)
