"""The one stack that earlier versions deployed becomes two, on the emulator, and everything that it held is there
afterwards.

The emulator imports buckets and queues; roles, policies and what belongs to the distribution it does not. How those are
moved is asked in `tests/unit/test_aws_stacks.py`. None of it has been run on AWS.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from deploy.aws.move import move
from deploy.aws.stacks import DeployError, Stacks, outputs_of
from deploy.aws.templates import COPY, EMAIL, FILES, PARTS, source
from deploy.local.endpoints import AwsEndpoints
from deploy.local.resources import deploy
from deploy.local.site import StackError
from deploy.processes import STACK_NAME
from tests.integration.test_files_bucket import client

pytestmark = pytest.mark.usefixtures("no_services")


def one_template() -> str:
    """Both templates as one, with what one hands to the other written into it, as it once was."""
    one: dict[str, Any] = {"AWSTemplateFormatVersion": "2010-09-09"}
    for section in ("Parameters", "Conditions", "Resources", "Outputs"):
        one[section] = {name: each for part in PARTS for name, each in source(part)[section].items()}
    one["Parameters"]["CloudFrontPublicKey"] = one["Parameters"].pop("CloudFrontPublicKeyA")
    text = json.dumps(one).replace('"CloudFrontPublicKeyA"', '"CloudFrontPublicKey"')
    role = '{"Fn::If": ["MakesRole", {"Fn::GetAtt": ["ServiceRole", "Arn"]}, {"Ref": "EmailRoleArn"}]}'
    assert text.count('{"Ref": "EmailRoleArn"}') == 1
    return text.replace('{"Ref": "EmailRoleArn"}', role)


@pytest.fixture(name="aws")
def an_account_of_its_own(aws: AwsEndpoints) -> AwsEndpoints:
    """In which nothing is deployed yet."""
    return replace(aws, access_key_id="202611290014")


@pytest.fixture
def stacks(aws: AwsEndpoints) -> Stacks:
    """The local stack's, as earlier versions deployed it; with roles, which the two have to know of each other."""
    stacks = Stacks(client(aws, "cloudformation"), STACK_NAME, seconds=60, poll=0.1)
    given = {"RequireTls": "false", "FilesOrigins": "", "ServiceRoleTrustedService": "ecs-tasks.amazonaws.com"}
    parameters = [{"ParameterKey": name, "ParameterValue": value} for name, value in given.items()]
    stacks.settle(EMAIL, one_template(), parameters)
    return stacks


@pytest.fixture
def filled(aws: AwsEndpoints, stacks: Stacks) -> dict[str, str]:
    """Logical → physical name of what the one stack made. A file lies in the bucket, a message in the queue."""
    made = stacks.resources(EMAIL)
    client(aws, "s3").put_object(Bucket=made["FilesBucket"], Key="general/a", Body=b"hello")
    client(aws, "s3").put_object(Bucket=made["ContentBucket"], Key="content/a", Body=b"hello")
    for queue in ("FilesQueue", "NotificationsQueue"):
        client(aws, "sqs").send_message(QueueUrl=made[queue], MessageBody=f"before, in {queue}")
    return made


def assert_whole(aws: AwsEndpoints, stacks: Stacks, before: dict[str, str]) -> None:
    """Two stacks hold what one did, under the same names, and nothing in it is gone."""
    email, files = stacks.resources(EMAIL), stacks.resources(FILES)
    assert set(email) | set(files) == set(before)
    assert not set(email) & set(files)
    assert set(files) <= set(source(FILES)["Resources"])
    kept = ("FilesBucket", "FilesQueue", "FilesDeadLetterQueue")
    assert {name: files[name] for name in kept} == {name: before[name] for name in kept}
    assert email == {name: before[name] for name in email}
    s3, sqs = client(aws, "s3"), client(aws, "sqs")
    assert s3.get_object(Bucket=before["FilesBucket"], Key="general/a")["Body"].read() == b"hello"
    assert s3.get_object(Bucket=before["ContentBucket"], Key="content/a")["Body"].read() == b"hello"
    assert s3.get_bucket_notification_configuration(Bucket=before["FilesBucket"])["QueueConfigurations"]
    policy = json.loads(s3.get_bucket_policy(Bucket=before["FilesBucket"])["Policy"])
    denied = {each["Sid"]: each for each in policy["Statement"]}
    readers = denied["ReadOnlyByOurs"]["Condition"]["ArnNotLike"]["aws:PrincipalArn"]
    made, iam = {**email, **files}, client(aws, "iam")
    roles = [iam.get_role(RoleName=made[name])["Role"]["Arn"] for name in ("FilesRole", "ServiceRole")]
    assert readers == roles
    for queue in ("FilesQueue", "NotificationsQueue"):
        bodies: list[str] = []
        while not any(body == f"before, in {queue}" for body in bodies):
            answer = sqs.receive_message(QueueUrl=before[queue], MaxNumberOfMessages=10, WaitTimeSeconds=2)
            bodies += [each["Body"] for each in answer.get("Messages", ())]


def test_one_stack_becomes_two_at_the_next_start_and_what_it_holds_stays(
    aws: AwsEndpoints, stacks: Stacks, filled: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted where it matters: when the files belong to no stack."""
    with pytest.raises(DeployError, match="Run `move` first"):
        stacks.deploy({})
    assert stacks.resources(EMAIL) == filled, "nothing was touched"
    start = partial(deploy, aws.endpoint_url, access_key=aws.access_key_id, record=tmp_path / "moving.json")

    def fail(*_: object) -> None:
        raise DeployError("interrupted")

    with monkeypatch.context() as patched:
        patched.setattr("deploy.aws.move._import", fail)
        with pytest.raises(StackError, match="interrupted"):
            start()
    assert stacks.describe(FILES) is None
    assert "FilesBucket" not in stacks.resources(EMAIL)
    made = start()
    assert (made.files_bucket, made.queue_url) == (filled["FilesBucket"], filled["NotificationsQueue"])
    assert not (tmp_path / "moving.json").exists()
    assert_whole(aws, stacks, filled)
    assert start() == made, "from here on it is deployed like any other"
    with pytest.raises(DeployError, match="nothing to move"):
        move(stacks, {}, tmp_path / "moving.json")


def test_the_copy_s_bucket_is_handed_to_files(aws: AwsEndpoints) -> None:
    """And a parameter that no template has is told before anything is made."""
    stacks = Stacks(client(aws, "cloudformation"), "copied", seconds=60, poll=0.1)
    given = {"CreateIdentity": "false", "RequireTls": "false", "EnvironmentName": "copied"}
    with pytest.raises(DeployError, match="No template has a parameter FileOrigins"):
        stacks.deploy({**given, "FileOrigins": "https://crm.example"})
    assert stacks.describe(EMAIL) is None
    own = {name: given[name] for name in ("EnvironmentName", "RequireTls")}
    handed = stacks.deploy(own, parts=(COPY,))
    assert handed == {"ReplicaBucketArn": f"arn:aws:s3:::mailroom-copied-copy-{aws.access_key_id}"}
    try:
        stacks.deploy(given, handed=handed)
        assert {"FilesReplicationRole", "FilesReplicationPolicy"} <= set(stacks.resources(FILES))
        assert outputs_of(stacks.describe(FILES) or {})["FilesTagUploads"] == "true"
        planned = stacks.plan({"FilesRecoverableDays": "10"})
        assert planned[0] == "copied: nothing"
        assert planned[1].startswith("copied-files: Modify FilesBucket (AWS::S3::Bucket)")
    finally:
        for part in (FILES, EMAIL, COPY):
            stacks.delete(part)
