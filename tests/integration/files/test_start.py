"""What the files service refuses to start on, as whoever starts it sees it: the process itself, on the emulator."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any
from uuid import uuid4

import boto3
import pytest

from deploy.local.site import ROOT
from deploy.local.stack import Stack
from services.kit.lifecycle import EXIT_SETTINGS


def start(env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MAILROOM_", "AWS_"))}
    command = [sys.executable, "-m", "services.files", "all"]
    return subprocess.run(
        command, env={**kept, **env}, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("status", [None, "Suspended"])
def test_a_bucket_without_versions_is_refused_with_the_command_that_mends_it(
    test_stack: Stack, status: str | None
) -> None:
    test_stack.start(["aws"])
    bucket = f"plain-{uuid4().hex[:12]}"
    env = {**test_stack.env(), "AWS_S3_BUCKET": bucket, "MAILROOM_FILES_QUEUE_URL": "http://127.0.0.1:1/none"}
    s3: Any = boto3.client(
        "s3",
        endpoint_url=env["AWS_ENDPOINT_URL"],
        aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
        region_name=env["AWS_REGION"],
    )
    s3.create_bucket(Bucket=bucket)
    if status is not None:
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": status})
    done = start(env)
    assert done.returncode == EXIT_SETTINGS, done.stderr
    command = f"aws s3api put-bucket-versioning --bucket {bucket} --versioning-configuration Status=Enabled"
    assert (f"AWS_S3_BUCKET: the bucket {bucket} keeps no versions" in done.stderr, command in done.stderr) == (
        True,
        True,
    ), done.stderr
