"""`mailroom explain`: what a raw notification would become."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from services.cli.output import Json, print_json, refuse, say

if TYPE_CHECKING:
    from services.email.domain.correlation import Correlation
    from services.kit.explanation import Explanation

app = typer.Typer(no_args_is_help=True, help="What a raw notification would become. Touches nothing.")


@app.callback()
def _group() -> None:
    """What a raw notification would become. Touches nothing."""


File = Annotated[
    Path | None, typer.Argument(help="The notification; standard input when left out.", exists=True, dir_okay=False)
]
About = Annotated[
    str | None,
    typer.Option(metavar="MESSAGEID[,ATTEMPTID]", help="What it is about, where it does not say so itself."),
]


@app.command("ses")
def ses(file: File = None, correlation: About = None, json: Json = False) -> None:
    """Print the CloudEvents that an SES notification (bare, in an SNS envelope, or an SQS body) becomes, one a line; or
    why none, on standard error. Exit status 1 when it would be refused.
    """
    from services.email.explain import explain_ses

    _tell(explain_ses(_read(file, "ses"), _about(correlation)), json)


@app.command("sendgrid")
def sendgrid(file: File = None, correlation: About = None, json: Json = False) -> None:
    """Print the CloudEvents that events of SendGrid's (the array that its webhook posts, or one of them) become, one a
    line; or why none, on standard error. Exit status 1 when one of them would be refused.
    """
    from services.email.explain import explain_sendgrid

    _tell(explain_sendgrid(_read(file, "sendgrid"), _about(correlation)), json)


@app.command("mailgun")
def mailgun(file: File = None, correlation: About = None, json: Json = False) -> None:
    """Print the CloudEvents that an event of Mailgun's (the body of its webhook, or an item of its events API) becomes,
    one a line; or why none, on standard error. Exit status 1 when it would be refused.
    """
    from services.email.explain import explain_mailgun

    _tell(explain_mailgun(_read(file, "mailgun"), _about(correlation)), json)


@app.command("dsn")
def dsn(
    file: File = None,
    correlation: Annotated[
        str | None,
        typer.Option(metavar="MESSAGEID[,ATTEMPTID]", help="What it is about, instead of what it says itself."),
    ] = None,
    json: Json = False,
) -> None:
    """Print the CloudEvents that a delivery status notification (the mail as it came, RFC 3464) becomes, one a line; or
    why none, on standard error. Exit status 1 when it would be refused.
    """
    from services.email.explain import explain_dsn

    _tell(explain_dsn(_read(file, "dsn"), _about(correlation)), json)


@app.command("s3")
def s3(
    file: File = None,
    bucket: Annotated[
        str | None, typer.Option(help="The bucket of the files service; whichever it names when left out.")
    ] = None,
    json: Json = False,
) -> None:
    """Print the CloudEvents that a notification of S3 or of GuardDuty's scan (a record, Records, in an SNS envelope, an
    EventBridge event, or an SQS body) becomes, one a line; or why none, on standard error. Exit status 1 when one of
    its records would be refused.
    """
    from services.files.explain import explain_s3

    _tell(explain_s3(_read(file, "s3"), bucket), json)


def _about(given: str | None) -> Correlation | None:
    from services.email.domain.correlation import Correlation

    if given is None:
        return None
    message_id, _, attempt_id = given.partition(",")
    if not message_id.strip():
        raise typer.BadParameter("messageId, or messageId,attemptId", param_hint="--correlation")
    return Correlation(message_id.strip(), attempt_id.strip() or None)


def _read(file: Path | None, command: str) -> bytes:
    if file is None and sys.stdin.isatty():
        raise refuse(
            f"give a file, or the notification on standard input: mailroom explain {command} < notification.json"
        )
    return sys.stdin.buffer.read() if file is None else file.read_bytes()


def _tell(explained: Explanation, json: bool) -> NoReturn:
    if json:
        events = [jsonlib.loads(line) for line in explained.lines]
        print_json({"events": events, "whyNone": explained.why_none, "refused": explained.refused})
    else:
        for line in explained.lines:
            say(line)
        if explained.why_none is not None:
            sys.stderr.write(f"{explained.why_none}\n")
    raise typer.Exit(1 if explained.refused else 0)
