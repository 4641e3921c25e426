"""Deploy Mailroom's templates to AWS, or show what that would change.

python -m deploy.aws deploy mailroom-production EnvironmentName=production SenderDomain=example.com …
python -m deploy.aws plan   mailroom-production FilesRecoverableDays=180
python -m deploy.aws move   mailroom-production

Account, region and credentials are found as every AWS client finds them. A parameter goes to every template that
declares it; one that is not given keeps its value. `deploy` prints the outputs of all stacks, and can be run again at
any time. `move` makes two stacks of the one of earlier versions, once.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from deploy.aws.move import move
from deploy.aws.stacks import DeployError, Stacks
from deploy.aws.templates import COPY, PARTS, source


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    asked, more = parser.parse_known_args(arguments)  # parameters behind an option: argparse leaves them over
    if wrong := [each for each in more if each.startswith("-")]:
        parser.error(f"unrecognized arguments: {' '.join(wrong)}")
    given: dict[str, str] = {}
    for each in (*asked.parameters, *more):
        name, equals, value = each.partition("=")
        if not equals:
            print(f"{each}: a parameter is given as Name=Value", file=sys.stderr)
            return 2
        given[name] = value
    try:
        outputs = _run(asked, given)
    except (DeployError, BotoCoreError, ClientError) as error:
        print(error, file=sys.stderr)
        return 1
    if outputs is not None:
        print(json.dumps(outputs, indent=2))
    return 0


def _run(asked: argparse.Namespace, given: dict[str, str]) -> dict[str, str] | None:
    stacks = Stacks(_client(None), asked.name, say=_say)
    if asked.command == "plan":
        print("\n".join(stacks.plan(given)))
        return None
    if asked.command == "move":
        return move(stacks, given, Path(f"{asked.name}.move.json"))
    handed: dict[str, str] = {}
    if asked.copy_region:
        own = {name: value for name, value in given.items() if name in source(COPY)["Parameters"]}
        there = Stacks(_client(asked.copy_region), asked.name, say=_say)
        handed = there.deploy(own, parts=(COPY,))
        known = {name for part in PARTS for name in source(part)["Parameters"]}
        given = {name: value for name, value in given.items() if name in known or name not in own}
    return stacks.deploy(given, handed=handed)


def _client(region: str | None) -> Any:
    return boto3.client("cloudformation", region_name=region)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.aws", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, about in (
        ("deploy", "make the stacks, or bring them up to date"),
        ("plan", "show what `deploy` would change, and change nothing"),
        ("move", "make two stacks of the one that earlier versions made"),
    ):
        command = commands.add_parser(name, help=about, description=about)
        command.add_argument("name", help="what the names of the stacks begin with, for instance mailroom-production")
        command.add_argument("parameters", nargs="*", metavar="Name=Value", help="parameters of the templates")
        if name == "deploy":
            command.add_argument(
                "--copy-region",
                metavar="REGION",
                help="make the bucket for the copy there, first",
            )
    return parser


if __name__ == "__main__":
    sys.exit(main())
