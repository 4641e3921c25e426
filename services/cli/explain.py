"""`mailroom explain`: what a raw notification would become."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from services.cli.output import Json, print_json, refuse, say

app = typer.Typer(no_args_is_help=True, help="What a raw notification would become. Touches nothing.")


@app.callback()
def _group() -> None:
    """What a raw notification would become. Touches nothing."""


@app.command("ses")
def ses(
    file: Annotated[
        Path | None, typer.Argument(help="The notification; standard input when left out.", exists=True, dir_okay=False)
    ] = None,
    correlation: Annotated[
        str | None,
        typer.Option(metavar="MESSAGEID[,ATTEMPTID]", help="What it is about, where it does not say so itself."),
    ] = None,
    json: Json = False,
) -> None:
    """Print the CloudEvents that an SES notification (bare, in an SNS envelope, or an SQS body) becomes, one a line; or
    why none, on standard error. Exit status 1 when it would be refused.
    """
    from services.email.domain.correlation import Correlation
    from services.email.explain import explain_ses

    if file is None and sys.stdin.isatty():
        raise refuse("give a file, or the notification on standard input: mailroom explain ses < notification.json")
    raw = sys.stdin.buffer.read() if file is None else file.read_bytes()
    given = None
    if correlation is not None:
        message_id, _, attempt_id = correlation.partition(",")
        if not message_id.strip():
            raise typer.BadParameter("messageId, or messageId,attemptId", param_hint="--correlation")
        given = Correlation(message_id.strip(), attempt_id.strip() or None)
    explained = explain_ses(raw, given)
    if json:
        events = [jsonlib.loads(line) for line in explained.lines]
        print_json({"events": events, "whyNone": explained.why_none, "refused": explained.refused})
    else:
        for line in explained.lines:
            say(line)
        if explained.why_none is not None:
            sys.stderr.write(f"{explained.why_none}\n")
    raise typer.Exit(1 if explained.refused else 0)
