"""`mailroom templates`: what mail templates there are, and what they look like."""

from __future__ import annotations

import json as jsonlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from services.cli.output import Json, console, print_json, refuse, say, table

if TYPE_CHECKING:
    from services.email.adapters.templates import Template, TemplateCatalogue

app = typer.Typer(no_args_is_help=True, help="The mail templates: those that ship, and yours.")

SITE = "https://crm.example.com"
DIRECTORY = "MAILROOM_TEMPLATES_DIR"


@app.command("list")
def list_templates(json: Json = False) -> None:
    """Every template with its data and version: those that ship, and those in MAILROOM_TEMPLATES_DIR. Exit status 1
    when one of the latter cannot be used; what is wrong with it is on standard error.
    """
    catalogue = _catalogue()
    found = catalogue.list()
    if json:
        print_json([_as_json(template) for template in found])
    else:
        _show(found)
    if catalogue.broken:
        raise refuse("\n".join(problem for problems in catalogue.broken.values() for problem in problems))


def _show(found: Sequence[Template]) -> None:
    rows = table("template", "version", "ships", "categories", "templateData", "about")
    for template in found:
        data = ", ".join(
            f"{name} ({field.type}{', optional' if field.default is not None else ''})"
            for name, field in template.data.items()
        )
        rows.add_row(
            template.template_id,
            template.version,
            "" if template.own else "yes",
            ", ".join(template.manifest.categories),
            data,
            template.manifest.description,
        )
    console().print(rows)


@app.command("preview")
def preview(
    template_id: Annotated[str, typer.Argument(metavar="TEMPLATE")],
    data: Annotated[
        Path | None,
        typer.Option(help="JSON file of templateData that replaces parts of the sample.", exists=True, dir_okay=False),
    ] = None,
    form: Annotated[Literal["html", "text"], typer.Option("--as", help="Which of the two bodies.")] = "html",
    out: Annotated[Path | None, typer.Option(help="The file to write; standard output when left out.")] = None,
    json: Json = False,
) -> None:
    """Render a template with its sample, as it would be sent."""
    catalogue = _catalogue()
    if template_id in catalogue.broken and template_id not in (each.template_id for each in catalogue.list()):
        raise refuse("\n".join(catalogue.broken[template_id]))
    rendered = catalogue.preview(template_id, _read(data))
    if json:
        told = {"templateId": template_id, "templateVersion": rendered.template_version, "subject": rendered.subject}
        print_json({**told, "html": rendered.html, "text": rendered.text})
        return
    body = rendered.html if form == "html" else rendered.text
    if out is None:
        typer.echo(body, nl=False)
    else:
        out.write_text(body)
        say(f"{out}: {template_id} {rendered.template_version}, subject: {rendered.subject}")


def _catalogue() -> TemplateCatalogue:
    from services.email.adapters import templates
    from services.kit.errors import SettingsError

    own = os.environ.get(DIRECTORY, "").strip()
    if own and not Path(own).is_dir():
        raise SettingsError([f"{DIRECTORY} is wrong: there is no directory {own}"])
    site = templates.Site(crm_url=os.environ.get("MAILROOM_CRM_URL", "").strip() or SITE)
    return templates.TemplateCatalogue.load(templates.DIRECTORY, site, Path(own) if own else None)


def _read(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        found = jsonlib.loads(path.read_text())
    except ValueError as error:
        raise refuse(f"{path} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise refuse(f"{path} must hold an object of templateData")
    return found


def _as_json(template: Any) -> dict[str, Any]:
    manifest = template.manifest
    return {
        "templateId": manifest.template_id,
        "version": template.version,
        "own": template.own,
        "description": manifest.description,
        "categories": list(manifest.categories),
        "subject": manifest.subject,
        "data": {name: field.model_dump(by_alias=True, exclude_none=True) for name, field in manifest.data.items()},
        "sample": manifest.sample,
    }
