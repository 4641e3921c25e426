"""What `python -m deploy.aws` asks of CloudFormation, where the emulator cannot follow: keys of the distribution, and
moving all that belongs to it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from deploy.aws.__main__ import main
from deploy.aws.move import IDENTIFIERS, move
from deploy.aws.stacks import DeployError, Stacks
from deploy.aws.templates import COPY, EMAIL, FILES, PARTS, source


class CloudFormation:
    """Holds stacks as CloudFormation does, without making anything of them; every resource is called made-<its id>."""

    def __init__(self) -> None:
        self.stacks: dict[str, dict[str, Any]] = {}
        self.imports: list[dict[str, Any]] = []
        self.updates: list[tuple[str, dict[str, Any]]] = []

    class exceptions:  # noqa: N801 - boto3's name
        class AlreadyExistsException(Exception):
            """As boto3 has it."""

    def describe_stacks(self, StackName: str) -> dict[str, Any]:  # noqa: N803
        if StackName not in self.stacks:
            raise ClientError({"Error": {"Code": "ValidationError", "Message": "does not exist"}}, "describe")
        stack = self.stacks[StackName]
        said = [{"ParameterKey": name, "ParameterValue": value} for name, value in stack["parameters"].items()]
        outputs = [{"OutputKey": name, "OutputValue": f"made-{name}"} for name in stack["template"].get("Outputs", {})]
        return {"Stacks": [{"StackStatus": "UPDATE_COMPLETE", "Parameters": said, "Outputs": outputs}]}

    def create_stack(self, **asked: Any) -> None:
        self.put(asked["StackName"], asked["TemplateBody"], asked["Parameters"])

    def update_stack(self, **asked: Any) -> None:
        self.put(asked["StackName"], asked["TemplateBody"], asked["Parameters"])

    def put(self, name: str, body: str, parameters: list[dict[str, Any]]) -> None:
        template = _template(body)
        before = self.stacks.get(name, {"parameters": {}})["parameters"]
        values = {
            each["ParameterKey"]: each.get("ParameterValue", before.get(each["ParameterKey"], ""))
            for each in parameters
        }
        declared = {key: str(each.get("Default", "")) for key, each in template["Parameters"].items()}
        self.stacks[name] = {"template": template, "parameters": {**declared, **values}}
        self.updates.append((name, template))

    def get_template(self, StackName: str, TemplateStage: str) -> dict[str, Any]:  # noqa: N803
        return {"TemplateBody": self.stacks[StackName]["template"]}

    def get_paginator(self, name: str) -> CloudFormation:
        return self

    def paginate(self, StackName: str) -> Iterator[dict[str, Any]]:  # noqa: N803
        names = self.stacks[StackName]["template"]["Resources"]
        yield {
            "StackResourceSummaries": [
                {"LogicalResourceId": each, "PhysicalResourceId": f"made-{each}", "ResourceStatus": "CREATE_COMPLETE"}
                for each in names
            ]
        }

    def create_change_set(self, **asked: Any) -> None:
        self.imports.append(asked)

    def describe_change_set(self, **_: Any) -> dict[str, Any]:
        return {"Status": "CREATE_COMPLETE", "Changes": []}

    def execute_change_set(self, **_: Any) -> None:
        asked = self.imports[-1]
        self.put(asked["StackName"], asked["TemplateBody"], asked["Parameters"])


def _template(body: str) -> dict[str, Any]:
    if body.startswith("{"):
        found: dict[str, Any] = json.loads(body)
        return found
    return next(source(part) for part in (COPY, *PARTS) if part.body == body)


def one_template() -> dict[str, Any]:
    """Both templates as one: what earlier versions deployed, near enough."""
    one: dict[str, Any] = {"AWSTemplateFormatVersion": "2010-09-09"}
    for section in ("Parameters", "Conditions", "Resources", "Outputs"):
        one[section] = {name: each for part in PARTS for name, each in source(part)[section].items()}
    renamed: dict[str, Any] = json.loads(json.dumps(one).replace('"CloudFrontPublicKeyA"', '"CloudFrontPublicKey"'))
    return renamed


def references(node: Any) -> Iterator[str]:
    """The names that a part of a template refers to; `Fn::Sub` is looked into."""
    if isinstance(node, Mapping):
        for key, each in node.items():
            match key, each:
                case "Ref", str():
                    yield each
                case "Fn::GetAtt", list():
                    yield each[0]
                case "Fn::Sub", str():
                    yield from (part.partition("}")[0].partition(".")[0] for part in each.split("${")[1:])
                case _:
                    yield from references(each)
    elif isinstance(node, list):
        for each in node:
            yield from references(each)


@pytest.fixture
def cloud() -> CloudFormation:
    return CloudFormation()


@pytest.fixture
def stacks(cloud: CloudFormation) -> Stacks:
    return Stacks(cloud, "production", seconds=1, poll=0)


def test_a_parameter_goes_to_every_template_that_has_it_and_stays_until_it_is_given_again(
    cloud: CloudFormation, stacks: Stacks
) -> None:
    stacks.deploy({"EnvironmentName": "production", "FilesBucketName": "our-files", "FilesRecoverableDays": "30"})
    stacks.deploy({"FilesRecoverableDays": "60"})
    email, files = (cloud.stacks[part.stack("production")]["parameters"] for part in PARTS)
    assert {email["EnvironmentName"], files["EnvironmentName"]} == {"production"}
    assert {email["FilesBucketName"], files["FilesBucketName"]} == {"our-files"}
    assert files["FilesRecoverableDays"] == "60"
    assert (files["EmailRoleArn"], files["AlarmTopicArn"]) == ("made-ServiceRoleArn", "made-AlarmTopicArn"), "handed on"
    stacks.deploy({"EmailRoleArn": "arn:aws:iam::1:role/ours"})
    assert cloud.stacks["production-files"]["parameters"]["EmailRoleArn"] == "arn:aws:iam::1:role/ours"


def test_the_command_deploys_the_copy_elsewhere_and_tells_files_of_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clouds = {None: CloudFormation(), "eu-west-1": CloudFormation()}
    monkeypatch.setattr("deploy.aws.__main__._client", clouds.__getitem__)
    given = ["EnvironmentName=production", "UnverifiedDays=20"]
    assert main(["deploy", "production", "--copy-region", "eu-west-1", *given]) == 0
    assert json.loads(capsys.readouterr().out)["FilesTagUploads"] == "made-FilesTagUploads"
    (copied,) = clouds["eu-west-1"].stacks.values()
    assert (copied["parameters"]["EnvironmentName"], copied["parameters"]["UnverifiedDays"]) == ("production", "20")
    here = clouds[None].stacks
    assert here.keys() == {"production", "production-files"}
    assert here["production-files"]["parameters"]["ReplicaBucketArn"] == "made-ReplicaBucketArn"
    assert main(["deploy", "production", "FilesRecoverableDays=30"]) == 0
    assert here["production-files"]["parameters"]["ReplicaBucketArn"] == "made-ReplicaBucketArn", "it stays"


def test_what_the_command_does_not_understand_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud = CloudFormation()
    monkeypatch.setattr("deploy.aws.__main__._client", lambda region: cloud)
    assert main(["deploy", "production", "EnvironmentName"]) == 2
    assert "Name=Value" in capsys.readouterr().err
    assert main(["deploy", "production", "FileOrigins=x"]) == 1
    assert "No template has a parameter FileOrigins" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["deploy", "production", "--copy-regoin", "eu-west-1"])
    assert main(["plan", "production"]) == 0
    assert capsys.readouterr().out == "production: would be made\nproduction-files: would be made\n"
    assert cloud.stacks == {}


def test_a_key_is_not_changed_where_it_is(cloud: CloudFormation, stacks: Stacks) -> None:
    stacks.deploy({"CloudFrontPublicKeyA": "first"})
    done = len(cloud.updates)
    with pytest.raises(DeployError, match="Put the new one into CloudFrontPublicKeyB"):
        stacks.deploy({"CloudFrontPublicKeyA": "second"})
    assert len(cloud.updates) == done, "before anything is changed"
    stacks.deploy({"CloudFrontPublicKeyA": "first\n", "CloudFrontPublicKeyB": "second"})
    stacks.deploy({"CloudFrontPublicKeyA": ""})
    stacks.deploy({"CloudFrontPublicKeyA": "third"})
    parameters = cloud.stacks["production-files"]["parameters"]
    assert (parameters["CloudFrontPublicKeyA"], parameters["CloudFrontPublicKeyB"]) == ("third", "second")


def test_nothing_leaves_a_stack_that_would_delete_it(
    cloud: CloudFormation, stacks: Stacks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = json.dumps(one_template())
    cloud.put("production", one, [{"ParameterKey": "EnvironmentName", "ParameterValue": "production"}])
    no_change = ClientError(
        {"Error": {"Code": "ValidationError", "Message": "No updates are to be performed."}}, "update"
    )

    def nothing(**_: Any) -> None:
        raise no_change

    monkeypatch.setattr(cloud, "update_stack", nothing)
    with pytest.raises(DeployError, match="would delete FilesBucket"):
        move(stacks, {}, tmp_path / "moving.json")
    assert cloud.stacks.keys() == {"production"}
    assert cloud.stacks["production"]["template"] == json.loads(one)


def test_what_is_moved_is_imported_as_it_was_and_refers_to_nothing_else(
    cloud: CloudFormation, stacks: Stacks, tmp_path: Path
) -> None:
    before = one_template()
    given = [
        {"ParameterKey": "EnvironmentName", "ParameterValue": "production"},
        {"ParameterKey": "CloudFrontPublicKey", "ParameterValue": "first"},
        {"ParameterKey": "EmailRoleArn", "ParameterValue": "arn:aws:iam::1:role/unused"},
    ]
    cloud.put("production", json.dumps(before), given)
    with pytest.raises(DeployError, match="Run `move` first"):
        stacks.deploy({})
    assert len(cloud.updates) == 1
    move(stacks, {}, tmp_path / "moving.json")
    (told, left) = [template for name, template in cloud.updates[1:] if name == "production"][:2]
    (asked,) = cloud.imports
    moved = {each["LogicalResourceId"]: each for each in asked["ResourcesToImport"]}
    # What people's links, ECS's tasks and S3 know by name:
    assert {
        "FilesBucket",
        "FilesQueue",
        "FilesDeadLetterQueue",
        "FilesRole",
        "FilesPolicy",
        "FilesDistribution",
    } <= set(moved)
    named = {name for name, each in before["Resources"].items() if each["Type"].startswith("AWS::CloudFront::")}
    assert named <= set(moved), "their names are taken as long as the distribution is there"
    assert all(told["Resources"][name]["DeletionPolicy"] == "Retain" for name in moved)
    assert all("Metadata" in told["Resources"][name] for name in moved), "else CloudFormation may see no change"
    assert left == source(EMAIL)
    imported = json.loads(asked["TemplateBody"])
    assert imported["Resources"].keys() == moved.keys()
    assert "Outputs" not in imported
    for name, each in imported["Resources"].items():
        assert each["Properties"] == before["Resources"][name]["Properties"]
        assert each["DeletionPolicy"] == "Retain"
        assert "DependsOn" not in each
        assert moved[name]["ResourceIdentifier"] == {IDENTIFIERS[each["Type"]]: f"made-{name}"}
    known = {*imported["Resources"], *imported["Parameters"]}
    assert {each for each in references(imported["Resources"]) if not each.startswith("AWS::")} <= known
    assert len(asked["TemplateBody"]) < 51_200
    parameters = cloud.stacks["production-files"]["parameters"]
    assert (parameters["CloudFrontPublicKeyA"], parameters["EnvironmentName"]) == ("first", "production")
    assert parameters["EmailRoleArn"] == "made-ServiceRoleArn", "the role that was made"
    assert cloud.stacks["production-files"]["template"] == source(FILES)
