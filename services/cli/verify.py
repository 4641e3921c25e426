"""`mailroom verify`: whether a provider has signed a POST to a webhook."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from services.cli.environment import run
from services.cli.output import Json, print_json, refuse, say

if TYPE_CHECKING:
    from services.email.verify import Kind

app = typer.Typer(no_args_is_help=True, help="Whether a provider has signed what was POSTed to a webhook.")

UNDECIDED = 3


@app.callback()
def _group() -> None:
    """Whether a provider has signed what was POSTed to a webhook. The body comes on standard input, as the bytes that
    came: a newline more or less is another body.
    """


Headers = Annotated[
    Path | None,
    typer.Option(help="A file with the POST's headers, `Name: value` a line.", exists=True, dir_okay=False),
]
At = Annotated[
    datetime | None,
    typer.Option(help="Judge the age at this time (UTC) and not now.", formats=["%Y-%m-%dT%H:%M:%S"]),
]
AnyAge = Annotated[bool, typer.Option("--any-age", help="Let pass whatever its age is.")]


@app.command("sns")
def sns(
    headers: Headers = None,
    topic: Annotated[
        list[str] | None,
        typer.Option(help="ARN of a topic that may send; several times. Default: MAILROOM_SNS_TOPICS."),
    ] = None,
    certificate: Annotated[
        Path | None,
        typer.Option(help="SNS's certificate (PEM); left out, it is fetched.", exists=True, dir_okay=False),
    ] = None,
    at: At = None,
    any_age: AnyAge = False,
    json: Json = False,
) -> None:
    """Verify a message that SNS POSTed. Exit status 0: genuine; 1: forged, or too old; 3: nobody can tell now."""
    given = {} if topic is None else {"MAILROOM_SNS_TOPICS": ",".join(topic)}
    _verify("sns", given, headers, at, any_age, json, None if certificate is None else certificate.read_bytes())


@app.command("sendgrid")
def sendgrid(
    headers: Headers = None,
    key: Annotated[
        list[str] | None,
        typer.Option(help="A verification key (base64); twice for two. Default: MAILROOM_SENDGRID_WEBHOOK_KEYS."),
    ] = None,
    at: At = None,
    any_age: AnyAge = False,
    json: Json = False,
) -> None:
    """Verify a batch that SendGrid POSTed; its headers are needed. Exit status as of `sns`."""
    if headers is None:
        raise refuse("give the POST's headers (--headers FILE): SendGrid's signature is one of them")
    given = {} if key is None else {"MAILROOM_SENDGRID_WEBHOOK_KEYS": ",".join(key)}
    _verify("sendgrid", given, headers, at, any_age, json)


@app.command("mailgun")
def mailgun(headers: Headers = None, at: At = None, any_age: AnyAge = False, json: Json = False) -> None:
    """Verify an event that Mailgun POSTed, with MAILROOM_MAILGUN_WEBHOOK_KEYS. Exit status as of `sns`. Whether its
    token was used before, only the running service knows.
    """
    _verify("mailgun", {}, headers, at, any_age, json)


def _verify(
    kind: Kind,
    given: Mapping[str, str],
    headers: Path | None,
    at: datetime | None,
    any_age: bool,
    json: bool,
    certificate: bytes | None = None,
) -> NoReturn:
    from services.email.domain.webhooks import Forged, Taken
    from services.email.verify import headers_of, verify, webhook_of
    from services.email.webhook_settings import WebhookSettings
    from services.kit.settings import load

    settings = load(WebhookSettings, {**os.environ, **given}, others=os.environ)
    now = datetime.now(UTC) if at is None else at.replace(tzinfo=UTC)
    try:
        webhook = webhook_of(kind, settings, at=now, any_age=any_age, certificate=certificate)
    except ValueError:
        raise refuse("the certificate is not one in PEM") from None
    if sys.stdin.isatty():
        raise refuse(f"give the body on standard input: mailroom verify {kind} < body")
    found_headers = {} if headers is None else headers_of(headers.read_text("utf-8", "replace"))
    found = run(verify(webhook, sys.stdin.buffer.read(), found_headers))
    verdict: Literal["genuine", "forged", "undecided"]
    if isinstance(found, Taken):
        verdict, reason, detail, status = "genuine", None, found.by, 0
    else:
        verdict, status = ("forged", 1) if isinstance(found, Forged) else ("undecided", UNDECIDED)
        reason, detail = found.reason, found.detail
    events = len(found.records) if isinstance(found, Taken) else 0
    if json:
        print_json({"verdict": verdict, "reason": reason, "detail": detail, "events": events})
    elif reason is None:
        say(f"genuine: {detail}, {events} event{'' if events == 1 else 's'}")
    else:
        say(f"{verdict}: {reason}, {detail}")
    raise typer.Exit(status)
