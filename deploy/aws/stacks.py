"""Deploys the templates: each as a stack of its own, one after the other, with what one hands to the next."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from botocore.exceptions import ClientError

from deploy.aws.templates import EMAIL, FILES, HANDED, PARTS, Part, source

_PENDING: Final = "_IN_PROGRESS"
_DONE: Final = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE")
BROKEN: Final = ("ROLLBACK_COMPLETE", "CREATE_FAILED", "DELETE_FAILED", "ROLLBACK_FAILED")
_KEYS: Final = ("CloudFrontPublicKeyA", "CloudFrontPublicKeyB")
CAPABILITIES: Final = ["CAPABILITY_IAM"]
Stack = Mapping[str, Any]


class DeployError(Exception):
    """The templates could not be deployed; the message says why and what to do."""


def _silent(line: str) -> None:
    """Says nothing."""


@dataclass(frozen=True, slots=True)
class Stacks:
    """The stacks of one installation.

    Attributes:
        client: of CloudFormation, in boto3's way.
        name: what the names of its stacks begin with.
        seconds: how long one of them may take.
        poll: seconds between two looks at one.
        say: is told what is being done.
    """

    client: Any
    name: str
    seconds: float = 3600
    poll: float = 5
    say: Callable[[str], None] = field(default=_silent)

    def deploy(
        self, given: Mapping[str, str], *, parts: Sequence[Part] = PARTS, handed: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """Make the stacks, or bring them up to date; all their outputs.

        `given` are parameters by name, for every template that declares them; what is not given keeps the value that it
        has. Can be repeated at any time; a stack that fails is rolled back by CloudFormation and leaves those before it
        as they have become. Raises DeployError.
        """
        self.check(given, parts)
        outputs: dict[str, str] = dict(handed or {})
        for part in parts:
            self.say(f"{part.stack(self.name)}: {part.file}")
            settled = self.settle(part, part.body, self.parameters(part, given, outputs))
            outputs |= outputs_of(settled)
        return outputs

    def plan(self, given: Mapping[str, str], *, parts: Sequence[Part] = PARTS) -> list[str]:
        """What `deploy` would change, a line each. Changes nothing."""
        self.check(given, parts)
        outputs: dict[str, str] = {}
        lines: list[str] = []
        for part in parts:
            stack = self.describe(part)
            if stack is None:
                lines.append(f"{part.stack(self.name)}: would be made")
                continue
            lines += self._changes(part, self.parameters(part, given, outputs))
            outputs |= outputs_of(stack)
        return lines

    def check(self, given: Mapping[str, str], parts: Sequence[Part]) -> None:
        """Refuse, before anything is changed, what would go wrong on the way. Raises DeployError."""
        known = {name for part in parts for name in source(part)["Parameters"]}
        if unknown := sorted(set(given) - known):
            raise DeployError(
                f"No template has a parameter {', '.join(unknown)}; there are {', '.join(sorted(known))}."
            )
        if self.is_one():
            raise DeployError(
                f"The stack {self.name} holds email and files together, as earlier versions made it. Updating it would "
                f"delete the resources of files. Run `move` first: see deploy/aws/README.md."
            )
        previous = parameters_of(self.describe(FILES))
        for key, other in zip(_KEYS, reversed(_KEYS), strict=True):
            if key in given and previous.get(key) and given[key].strip() not in ("", previous[key].strip()):
                raise DeployError(
                    f"{key} has a key, and CloudFront changes none. Put the new one into {other}, and empty {key} when "
                    f"nothing is signed with it any more: docs/operating.md, rotating CloudFront's key."
                )

    def is_one(self) -> bool:
        """Whether the first stack is the one of earlier versions, that holds the resources of files too."""
        return self.describe(EMAIL) is not None and "FilesBucket" in self.resources(EMAIL)

    def parameters(self, part: Part, given: Mapping[str, str], outputs: Mapping[str, str]) -> list[dict[str, Any]]:
        """The parameters of a template, for CloudFormation: as given, as another stack says, as they are."""
        declared = source(part)["Parameters"]
        handed: dict[str, str] = {}
        if part is not EMAIL:
            handed = {HANDED[name]: value for name, value in outputs.items() if name in HANDED}
        if part is FILES:
            handed.setdefault("AlarmTopicArn", "")  # what the other stack has is what there is
        said = {**handed, **given}
        previous = parameters_of(self.describe(part))
        return [
            {"ParameterKey": name, "ParameterValue": said[name]}
            if name in said
            else {"ParameterKey": name, "UsePreviousValue": True}
            for name in declared
            if name in said or name in previous
        ]

    # --- one stack ---

    def settle(self, part: Part, body: str, parameters: Sequence[Mapping[str, Any]]) -> Stack:
        """Make one stack or bring it up to date, and wait for it. Raises DeployError with CloudFormation's reasons."""
        name, stack = part.stack(self.name), self.describe(part)
        if stack and str(stack["StackStatus"]) in BROKEN:
            raise DeployError(
                f"The stack {name} is at {stack['StackStatus']}. See why in its events, delete it (buckets that hold "
                f"something stay: aws cloudformation delete-stack --stack-name {name}), and deploy again."
            )
        arguments = {
            "StackName": name,
            "TemplateBody": body,
            "Capabilities": CAPABILITIES,
            "Parameters": list(parameters),
        }
        if stack is None:
            try:
                self.client.create_stack(**arguments)
            except self.client.exceptions.AlreadyExistsException:
                pass  # a first call went through, and its answer came too late
        else:
            try:
                self.client.update_stack(**arguments)
            except ClientError as error:
                if "No updates" not in str(error):
                    raise
        return self.settled(part)

    def settled(self, part: Part) -> Stack:
        """The stack once CloudFormation has done with it. Raises DeployError where that went wrong."""
        stack = self.wait(part)
        if stack is None or stack["StackStatus"] not in _DONE:
            raise DeployError(f"{part.file} could not be deployed: {self._reasons(part, stack)}")
        return stack

    def describe(self, part: Part) -> Stack | None:
        """The stack; None where there is none."""
        try:
            stacks: list[Stack] = self.client.describe_stacks(StackName=part.stack(self.name))["Stacks"]
        except ClientError as error:
            if "does not exist" in str(error):
                return None
            raise
        gone = ("DELETE_COMPLETE", "REVIEW_IN_PROGRESS")
        return next((each for each in stacks if each["StackStatus"] not in gone), None)

    def resources(self, part: Part) -> dict[str, str]:
        """Logical → physical name of what a stack holds."""
        pages = self.client.get_paginator("list_stack_resources").paginate(StackName=part.stack(self.name))
        return {
            each["LogicalResourceId"]: each.get("PhysicalResourceId", "")
            for page in pages
            for each in page["StackResourceSummaries"]
            if not each["ResourceStatus"].startswith("DELETE")
        }

    def delete(self, part: Part) -> None:
        """Delete one stack, and wait for its end."""
        self.client.delete_stack(StackName=part.stack(self.name))
        self.wait(part)

    def wait(self, part: Part) -> Stack | None:
        """The stack once nothing is under way. Raises DeployError after `seconds`."""
        deadline = time.monotonic() + self.seconds
        while True:
            stack = self.describe(part)
            if stack is None or not str(stack["StackStatus"]).endswith(_PENDING):
                return stack
            if time.monotonic() > deadline:
                raise DeployError(
                    f"{part.file}: CloudFormation is still at {stack['StackStatus']} after {self.seconds:.0f} s."
                )
            time.sleep(self.poll)

    def _reasons(self, part: Part, stack: Stack | None) -> str:
        if stack is None:
            return "the stack is gone"
        events = self.client.describe_stack_events(StackName=part.stack(self.name))["StackEvents"]
        failed = [event for event in events if str(event.get("ResourceStatus", "")).endswith("_FAILED")]
        lines = [f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason', '')}" for event in failed]
        return "; ".join(lines) or f"{stack['StackStatus']} {stack.get('StackStatusReason', '')}"

    def _changes(self, part: Part, parameters: Sequence[Mapping[str, Any]]) -> list[str]:
        it = {"StackName": part.stack(self.name), "ChangeSetName": f"plan-{time.time_ns()}"}
        self.client.create_change_set(
            **it, TemplateBody=part.body, Parameters=list(parameters), Capabilities=CAPABILITIES
        )
        try:
            found = self.change_set(it)
            if found["Status"] == "FAILED" and not found.get("Changes"):
                reason = str(found.get("StatusReason", ""))
                if "didn't contain changes" not in reason and "No updates" not in reason:
                    raise DeployError(f"{part.file}: {reason}")
            changes = [each["ResourceChange"] for each in found.get("Changes", ())]
            return [
                f"{it['StackName']}: {each['Action']} {each['LogicalResourceId']} ({each['ResourceType']})"
                + (f", replaced: {each['Replacement']}" if each.get("Replacement", "False") != "False" else "")
                for each in changes
            ] or [f"{it['StackName']}: nothing"]
        finally:
            self.client.delete_change_set(**it)

    def change_set(self, it: Mapping[str, str]) -> Mapping[str, Any]:
        """A change set, with all its changes, once it is made or has failed."""
        deadline = time.monotonic() + self.seconds
        while True:
            found: dict[str, Any] = self.client.describe_change_set(**it)
            if not str(found["Status"]).endswith(("_PENDING", _PENDING)):
                break
            if time.monotonic() > deadline:
                raise DeployError(f"The change set of {it['StackName']} is still at {found['Status']}.")
            time.sleep(self.poll)
        page = found
        while token := page.get("NextToken"):
            page = self.client.describe_change_set(**it, NextToken=token)
            found["Changes"] += page["Changes"]
        return found


def outputs_of(stack: Stack) -> dict[str, str]:
    """A stack's outputs by name."""
    return {str(each["OutputKey"]): str(each["OutputValue"]) for each in stack.get("Outputs", ())}


def parameters_of(stack: Stack | None) -> dict[str, str]:
    """The parameters that a stack has; none where there is none."""
    given = stack.get("Parameters", ()) if stack else ()
    return {str(each["ParameterKey"]): str(each.get("ParameterValue", "")) for each in given}
