"""`mailroom contracts`: the published schemas."""

from __future__ import annotations

import contextlib
import io

import typer

from services.cli.output import Json, print_json, say

app = typer.Typer(no_args_is_help=True, help="The published schemas: JSON Schema of each type, AsyncAPI of all topics.")


@app.command("export")
def export(json: Json = False) -> None:
    """Write contracts/schemas from the models."""
    from services.cli import asyncapi

    _, told = _json_schemas()
    wanted = asyncapi.text()
    changed = not asyncapi.FILE.exists() or asyncapi.FILE.read_text() != wanted
    if changed:
        asyncapi.FILE.write_text(wanted)
    if json:
        print_json({"schemas": told.strip(), "asyncapiChanged": changed})
    else:
        say(told.strip())
        say(f"asyncapi.json {'written' if changed else 'unchanged'}")


@app.command("check")
def check(json: Json = False) -> None:
    """Tell what differs from the models; exit status 1 when something does."""
    from services.cli import asyncapi

    _, told = _json_schemas("--check")
    differs = told.strip().splitlines()
    if not asyncapi.FILE.exists() or asyncapi.FILE.read_text() != asyncapi.text():
        differs.append("contracts/schemas/asyncapi.json is not what the models say; run: mailroom contracts export")
    if json:
        print_json({"differs": differs})
    else:
        for line in differs or ["contracts/schemas are what the models say"]:
            say(line)
    raise typer.Exit(1 if differs else 0)


def _json_schemas(*arguments: str) -> tuple[int, str]:
    """Status and words of `python -m contracts.schemas`."""
    from contracts.schemas.__main__ import main

    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        status = main(list(arguments))
    return status, told.getvalue()
