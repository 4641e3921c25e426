"""Makes two stacks of the one that earlier versions deployed: what holds something, or is known to others by its id or
ARN, is moved as it is; the rest is made anew by the deployment that follows.

As CloudFormation documents it ("Moving resources between stacks"): what moves is told to stay when it leaves its stack,
leaves it, and is imported into the other one. Between the last two it belongs to no stack, so what is to be imported is
written to a file first, and a run that was interrupted there goes on with it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

from deploy.aws.stacks import CAPABILITIES, DeployError, Stacks, outputs_of, parameters_of
from deploy.aws.templates import EMAIL, FILES, load, source

IDENTIFIERS: Final = {
    "AWS::S3::Bucket": "BucketName",
    "AWS::SQS::Queue": "QueueUrl",
    "AWS::IAM::Role": "RoleName",
    "AWS::IAM::ManagedPolicy": "PolicyArn",
    "AWS::CloudFront::OriginAccessControl": "Id",
    "AWS::CloudFront::PublicKey": "Id",
    "AWS::CloudFront::KeyGroup": "Id",
    "AWS::CloudFront::CachePolicy": "Id",
    "AWS::CloudFront::ResponseHeadersPolicy": "Id",
    "AWS::CloudFront::Function": "FunctionARN",
    "AWS::CloudFront::Distribution": "Id",
}
"""What is moved, by the property that names it in an import. Policies of the bucket and of the queues, those within
roles, alarms and the scan are made anew: until then S3's notifications are not heard; what the files service did not
hear of, its sweeper looks at.
"""


def move(
    stacks: Stacks, given: Mapping[str, str], record: Path, *, not_imported: Collection[str] = ()
) -> dict[str, str]:
    """Move the resources of files into a stack of their own, then deploy both; all outputs.

    `record`: the file that holds what is under way, gone at the end. Parameters are those of the one stack; `given` may
    change them, as for a deployment. `not_imported`: types that this CloudFormation cannot import; they are made anew,
    and the former ones stay behind in the account, in no stack. Can be repeated until it succeeds. Raises DeployError.
    """
    if record.exists():
        stacks.say(f"going on with {record}")
        moving = json.loads(record.read_text())
    elif stacks.is_one():
        moving = _found(stacks)
        _tell_to_stay(stacks, moving)
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps(moving))
    else:
        raise DeployError(f"There is nothing to move: {stacks.name} is not the one stack of earlier versions.")
    previous: dict[str, str] = moving["parameters"]
    if stacks.is_one():
        stacks.say(f"{stacks.name}: files leave it, and stay as they are")
        kept = [
            {"ParameterKey": name, "ParameterValue": given.get(name, previous.get(name, ""))}
            for name in source(EMAIL)["Parameters"]
            if name in given or name in previous
        ]
        stacks.settle(EMAIL, EMAIL.body, kept)
    if stacks.describe(FILES) is None:
        stacks.say(f"{FILES.stack(stacks.name)}: takes them")
        _import(stacks, moving, not_imported)
    files = {name: value for name, value in previous.items() if name in source(FILES)["Parameters"]}
    if key := previous.get("CloudFrontPublicKey"):
        files["CloudFrontPublicKeyA"] = key
    if "ServiceRoleArn" in outputs_of(stacks.describe(EMAIL) or {}):
        files.pop("EmailRoleArn", None)  # the role that was made counts, and not what stood unused beside it
    if not files.get("AlarmTopicArn"):
        files.pop("AlarmTopicArn", None)
    outputs = stacks.deploy({**files, **given})
    record.unlink(missing_ok=True)
    return outputs


def _found(stacks: Stacks) -> dict[str, Any]:
    """What is to be moved: the template that imports it, each resource's name, the one stack's parameters."""
    template = _deployed(stacks)
    made = stacks.resources(EMAIL)
    moving = {
        name: each
        for name, each in template["Resources"].items()
        if name.startswith("Files") and name in made and each["Type"] in IDENTIFIERS
    }
    return {
        "template": template,
        "parameters": parameters_of(stacks.describe(EMAIL)),
        "resources": [
            {
                "ResourceType": each["Type"],
                "LogicalResourceId": name,
                "ResourceIdentifier": {IDENTIFIERS[each["Type"]]: made[name]},
            }
            for name, each in moving.items()
        ],
    }


def _tell_to_stay(stacks: Stacks, moving: Mapping[str, Any]) -> None:
    stacks.say(f"{stacks.name}: files are told to stay")
    template = copy.deepcopy(moving["template"])
    names = [each["LogicalResourceId"] for each in moving["resources"]]
    for name in names:
        resource = template["Resources"][name]
        resource["DeletionPolicy"] = "Retain"
        # CloudFormation may take a change of that attribute alone for no change.
        resource["Metadata"] = {**resource.get("Metadata", {}), "Moves": FILES.stack(stacks.name)}
    same = [{"ParameterKey": name, "UsePreviousValue": True} for name in moving["parameters"]]
    stacks.settle(EMAIL, _put(template), same)
    told = _deployed(stacks)["Resources"]
    if deaf := [name for name in names if told[name].get("DeletionPolicy") != "Retain"]:
        raise DeployError(f"{stacks.name}: CloudFormation would delete {', '.join(deaf)}. Nothing was moved.")


def _deployed(stacks: Stacks) -> dict[str, Any]:
    """The template of the one stack, as it was sent."""
    sent = stacks.client.get_template(StackName=stacks.name, TemplateStage="Original")["TemplateBody"]
    return dict(sent) if isinstance(sent, dict) else load(sent)


def _import(stacks: Stacks, moving: Mapping[str, Any], not_imported: Collection[str]) -> None:
    """A stack of what is moved, just as the one stack had it; the deployment that follows makes it what it is to be."""
    one = moving["template"]
    imported = [each for each in moving["resources"] if each["ResourceType"] not in not_imported]
    left = {
        each["LogicalResourceId"]: next(iter(each["ResourceIdentifier"].values()))
        for each in moving["resources"]
        if each not in imported
    }
    resources = {}
    for name in (each["LogicalResourceId"] for each in imported):
        resources[name] = {**_named(one["Resources"][name], left), "DeletionPolicy": "Retain"}
        resources[name].pop("DependsOn", None)
    template = {
        "AWSTemplateFormatVersion": one["AWSTemplateFormatVersion"],
        "Parameters": one["Parameters"],
        "Conditions": one["Conditions"],
        "Resources": resources,
    }
    it = {"StackName": FILES.stack(stacks.name), "ChangeSetName": "move"}
    stacks.client.create_change_set(
        **it,
        ChangeSetType="IMPORT",
        TemplateBody=_put(template),
        Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in moving["parameters"].items()],
        ResourcesToImport=imported,
        Capabilities=CAPABILITIES,
    )
    found = stacks.change_set(it)
    if found["Status"] == "FAILED":
        stacks.client.delete_change_set(**it)
        raise DeployError(f"{it['StackName']} cannot take the resources of files: {found.get('StatusReason', '')}")
    stacks.client.execute_change_set(**it)
    stacks.settled(FILES)


def _named(node: Any, names: Mapping[str, str]) -> Any:
    """A part of a template with references to these resources replaced by what they are called."""
    if isinstance(node, dict):
        if node.keys() == {"Ref"} and node["Ref"] in names:
            return names[node["Ref"]]
        return {key: _named(each, names) for key, each in node.items()}
    return [_named(each, names) for each in node] if isinstance(node, list) else node


def _put(template: Mapping[str, Any]) -> str:
    """JSON without a blank: as YAML with its comments the one template filled what CloudFormation takes."""
    return json.dumps(template, separators=(",", ":"))
