"""The tree of commands, and how errors end: a sentence on standard error and an exit status, never a traceback.

Exit status: 0 done; 1 the answer is no (refused, not found, differs); 2 wrong usage; 3 something is away, try again;
78 the environment is not fit (EX_CONFIG of sysexits.h); 70 a bug of ours (EX_SOFTWARE); 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from services.cli import (
    breaker,
    contracts,
    cost,
    explain,
    files,
    lag,
    parked,
    providers,
    rebuild,
    sends,
    settings,
    skip,
    templates,
    token,
    topics,
    verify,
    why,
)
from services.kit.pipes import reader_is_gone

REFUSED, AWAY, BUG, SETTINGS, INTERRUPTED = 1, 3, 70, 78, 130
DEBUG = "MAILROOM_DEBUG"


class MailroomGroup(TyperGroup):
    """Turns every error into what a person at a terminal can use."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except OSError as error:
            if isinstance(error, BrokenPipeError) and reader_is_gone():
                raise typer.Exit(0) from None
            if os.environ.get(DEBUG):
                raise
            raise _end(REFUSED, f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}") from None
        except Exception as error:
            ended = _known(error)
            if ended is None:
                raise
            raise ended from None


def _known(error: Exception) -> typer.Exit | None:
    """How the command ends for this error; None for the framework's own, which it tells by itself."""
    from services.kit.errors import MailroomError, PermanentError, SettingsError, TransientError

    if isinstance(error, typer.Exit | typer.Abort) or type(error).__module__.startswith("typer."):
        return None
    if isinstance(error, SettingsError):
        remedy = "\n./mailroom takes them from a running local stack (make up); elsewhere, set them in the environment."
        return _end(SETTINGS, f"{error}{remedy}")
    if isinstance(error, TransientError):
        return _end(AWAY, f"{error}")
    if isinstance(error, PermanentError):
        return _end(REFUSED, error.detail or error.reason)
    if isinstance(error, MailroomError):
        return _end(REFUSED, str(error))
    if os.environ.get(DEBUG):
        return None
    told = f"{type(error).__name__}: {error}"
    return _end(BUG, f"this should not happen: {told}\nWith {DEBUG}=1 in the environment it shows where.")


def _end(status: int, message: str) -> typer.Exit:
    sys.stderr.write(f"mailroom: {message}\n")
    return typer.Exit(status)


app = typer.Typer(
    name="mailroom",
    cls=MailroomGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Operate Mailroom. Every command reads its settings from the environment and knows --json.",
)
app.add_typer(topics.app, name="topics")
app.add_typer(contracts.app, name="contracts")
app.add_typer(templates.app, name="templates")
app.add_typer(explain.app, name="explain")
app.add_typer(verify.app, name="verify")
app.add_typer(sends.app, name="sends")
app.add_typer(parked.app, name="parked")
app.add_typer(providers.app, name="providers")
app.add_typer(breaker.app, name="breaker")
app.add_typer(cost.app, name="cost")
app.add_typer(why.app, name="why")
app.add_typer(files.app, name="files")
app.add_typer(rebuild.app, name="rebuild")
app.command("lag")(lag.lag)
app.command("skip")(skip.skip)
app.command("token")(token.token)
app.command("settings")(settings.settings)
