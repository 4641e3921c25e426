"""The CloudFormation templates as CloudFormation would see them: parameters, conditions and functions put in.

All are looked at as one, in which what one stack hands to the next is there already. What is made by a deployment, such
as a distribution's id, gets a name of this module's making. A function or attribute that is not known here raises
KeyError.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import yaml

from deploy.aws.templates import COPY, EMAIL, FILES, Part

ACCOUNT: Final = "111122223333"
REGION: Final = "eu-central-1"
_PSEUDO: Final = {
    "AWS::AccountId": ACCOUNT,
    "AWS::Partition": "aws",
    "AWS::Region": REGION,
    "AWS::URLSuffix": "amazonaws.com",
}
_NOTHING: Final = object()
_NAMES: Final = {
    "AWS::S3::Bucket": "BucketName",
    "AWS::SES::ConfigurationSet": "Name",
    "AWS::SNS::Topic": "TopicName",
    "AWS::SQS::Queue": "QueueName",
}


class _Loader(yaml.SafeLoader):
    """Reads `!Sub x` as a `_Call`."""


class _Call(tuple[str, Any]):
    """(function, argument)."""


def _call(loader: yaml.SafeLoader, tag: str, node: yaml.Node) -> _Call:
    if isinstance(node, yaml.ScalarNode):
        return _Call((tag, loader.construct_scalar(node)))
    if isinstance(node, yaml.SequenceNode):
        return _Call((tag, loader.construct_sequence(node, deep=True)))
    raise TypeError(node)


_Loader.add_multi_constructor("!", _call)


@cache
def of_part(part: Part) -> dict[str, Any]:
    """One template, with functions as they are."""
    found: dict[str, Any] = yaml.load(part.body, _Loader)  # noqa: S506 - a safe loader
    return found


@cache
def source() -> dict[str, Any]:
    """All templates as one, with functions as they are."""
    found: dict[str, Any] = {}
    for part in (COPY, EMAIL, FILES):
        for section in ("Parameters", "Rules", "Conditions", "Resources", "Outputs"):
            found.setdefault(section, {}).update(of_part(part).get(section, {}))
    return found


class Rendered:
    """The templates with these parameters; those that are not given have their defaults."""

    def __init__(self, **parameters: str) -> None:
        declared = source()["Parameters"]
        if unknown := set(parameters) - set(declared):
            raise KeyError(*unknown)
        self._parameters: dict[str, Any] = {}
        for name, each in declared.items():
            value = parameters.get(name, str(each["Default"]))
            self._parameters[name] = value.split(",") if each["Type"] == "CommaDelimitedList" else value
        if "EmailRoleArn" not in parameters and self.has("ServiceRole"):
            self._parameters["EmailRoleArn"] = self.arn("ServiceRole")

    def has(self, logical: str) -> bool:
        """Whether the resource is made."""
        condition = source()["Resources"][logical].get("Condition")
        return condition is None or self._condition(condition)

    def properties(self, logical: str) -> dict[str, Any]:
        """A resource's properties. Raises KeyError where it is not made."""
        if not self.has(logical):
            raise KeyError(logical)
        found: dict[str, Any] = self._value(source()["Resources"][logical]["Properties"])
        return found

    def arn(self, logical: str) -> str:
        """A resource's ARN."""
        return str(self._attribute(logical, "Arn"))

    def outputs(self) -> dict[str, str]:
        """The names and values of the outputs."""
        declared: Mapping[str, Any] = source()["Outputs"]
        return {
            name: self._value(each["Value"])
            for name, each in declared.items()
            if "Condition" not in each or self._condition(each["Condition"])
        }

    def _condition(self, name: str) -> bool:
        return bool(self._value(source()["Conditions"][name]))

    def _value(self, node: Any) -> Any:
        if isinstance(node, _Call):
            return self._function(*node)
        if isinstance(node, dict):
            found = {key: self._value(each) for key, each in node.items()}
            return {key: each for key, each in found.items() if each is not _NOTHING}
        if isinstance(node, list):
            return [each for each in map(self._value, node) if each is not _NOTHING]
        return node

    def _function(self, name: str, argument: Any) -> Any:
        match name:
            case "Ref":
                return self._reference(argument)
            case "GetAtt":
                return self._attribute(*argument.split(".", 1))
            case "Sub":
                return re.sub(r"\$\{([^}!]+)\}", self._substituted, argument)
            case "If":
                condition, then, otherwise = argument
                return self._value(then if self._condition(condition) else otherwise)
            case "Condition":
                return self._condition(argument)
            case "Equals":
                first, second = map(self._value, argument)
                return first == second
            case "Not":
                return not self._value(argument[0])
            case "And":
                return all(map(self._value, argument))
            case "Or":
                return any(map(self._value, argument))
            case "Select":
                return self._value(argument[1])[argument[0]]
        raise KeyError(name)

    def _substituted(self, match: re.Match[str]) -> str:
        logical, _, attribute = match[1].partition(".")
        return str(self._attribute(logical, attribute) if attribute else self._reference(logical))

    def _reference(self, name: str) -> Any:
        if name == "AWS::NoValue":
            return _NOTHING
        if name in _PSEUDO:
            return _PSEUDO[name]
        if name in self._parameters:
            return self._parameters[name]
        kind = source()["Resources"][name]["Type"]
        if kind not in _NAMES:
            return f"made-{name}"
        named = self._value(source()["Resources"][name]["Properties"][_NAMES[kind]])
        return f"arn:aws:sns:{REGION}:{ACCOUNT}:{named}" if kind == "AWS::SNS::Topic" else named

    def _attribute(self, logical: str, attribute: str) -> str:
        match source()["Resources"][logical]["Type"], attribute:
            case "AWS::S3::Bucket", "Arn":
                return f"arn:aws:s3:::{self._reference(logical)}"
            case "AWS::SQS::Queue", "Arn":
                return f"arn:aws:sqs:{REGION}:{ACCOUNT}:{self._reference(logical)}"
            case "AWS::IAM::Role", "Arn":
                return f"arn:aws:iam::{ACCOUNT}:role/made-{logical}"
            case _, "QueueName":
                return str(self._reference(logical))
            case _, "RegionalDomainName" | "DomainName" | "FunctionMetadata.FunctionARN" | "Arn":
                return f"made-{logical}-{attribute}"
        raise KeyError(f"{logical}.{attribute}")
