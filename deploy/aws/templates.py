"""The templates: which there are, in which order they are deployed, and what one stack hands to the next."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

FOLDER: Final = Path(__file__).parent
LIMIT: Final = 51_200
"""Bytes of a template that CloudFormation takes without a bucket to fetch it from."""


@dataclass(frozen=True, slots=True)
class Part:
    """One template and the stack made of it. `suffix` follows the name that the stacks of an installation share."""

    file: str
    suffix: str

    def stack(self, name: str) -> str:
        """Its stack's name."""
        return f"{name}{self.suffix}"

    @property
    def path(self) -> Path:
        return FOLDER / self.file

    @property
    def body(self) -> str:
        return self.path.read_text()


EMAIL: Final = Part("email.yaml", "")
"""With what both share. Its stack has the plain name, as the one stack of earlier versions, which becomes this one."""
FILES: Final = Part("files.yaml", "-files")
COPY: Final = Part("copy.yaml", "-copy")
"""In another region, and only where asked for."""
PARTS: Final = (EMAIL, FILES)

HANDED: Final = {
    "AlarmTopicArn": "AlarmTopicArn",
    "ServiceRoleArn": "EmailRoleArn",
    "ReplicaBucketArn": "ReplicaBucketArn",
}
"""Output of one stack → parameter of a later one that has it, where nobody says otherwise."""


class _Loader(yaml.SafeLoader):
    """Reads `!Sub x` as {"Fn::Sub": "x"}."""


def _function(loader: yaml.SafeLoader, tag: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        raise TypeError(node)
    if tag == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {tag if tag in ("Ref", "Condition") else f"Fn::{tag}": value}


_Loader.add_multi_constructor("!", _function)


def load(text: str) -> dict[str, Any]:
    """A template in YAML or JSON, with the short forms of functions written out, so that it can be put as JSON."""
    found: dict[str, Any] = yaml.load(text, _Loader)  # noqa: S506 - a safe loader
    return found


@cache
def source(part: Part) -> dict[str, Any]:
    """A template as `load` reads it. Not to be changed."""
    return load(part.body)
