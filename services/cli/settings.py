"""`mailroom settings`: every variable that a service reads, from the classes that read them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.cli.output import Json, console, print_json, say, table

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable of the environment. `default`: as it would be written, "" = none; `service`: who reads it."""

    name: str
    service: str
    needed: bool
    default: str
    meaning: str


Markdown = Annotated[bool, typer.Option("--markdown", help="As the table of docs/operating.md.")]


def settings(markdown: Markdown = False, json: Json = False) -> None:
    """Every variable of the environment that the services read, what it means, and what holds without it."""
    found = variables()
    if json:
        print_json([asdict(each) for each in found])
    elif markdown:
        for line in as_markdown(found):
            say(line)
    else:
        shown = table("variable", "service", "default", "meaning", whole=("variable", "service"))
        for each in found:
            shown.add_row(each.name, each.service, "(needed)" if each.needed else each.default, each.meaning)
        console().print(shown)


def variables() -> list[Variable]:
    """Those of all services first, in the order in which they are declared; each once, with those who read it."""
    from services.email.settings import EmailSettings
    from services.events.settings import EventsSettings
    from services.files.settings import FilesSettings
    from services.kit.settings import KitSettings

    shared = KitSettings.model_fields
    found = {str(field.alias): _variable("all", field) for field in shared.values()}
    for service, declared in (("email", EmailSettings), ("files", FilesSettings), ("events", EventsSettings)):
        for name, field in declared.model_fields.items():
            if name in shared:
                continue
            known = found.get(str(field.alias))
            if known is None:
                found[str(field.alias)] = _variable(service, field)
                continue
            readers, needed = f"{known.service}, {service}", known.needed or field.is_required()
            same = known.meaning == field.description
            meaning = known.meaning if same else f"{known.service}: {known.meaning}; {service}: {field.description}"
            found[known.name] = replace(known, service=readers, needed=needed, meaning=meaning)
    return list(found.values())


def as_markdown(found: list[Variable]) -> list[str]:
    """The lines of a table."""
    lines = ["| variable | read by | default | |", "|---|---|---|---|"]
    for each in found:
        default = "**needed**" if each.needed else f"`{each.default}`" if each.default else ""
        lines.append(f"| `{each.name}` | {each.service} | {default} | {each.meaning} |")
    return lines


def _variable(service: str, field: FieldInfo) -> Variable:
    needed = field.is_required()
    default = "" if needed or field.default_factory is not None else _written(field.default)
    return Variable(str(field.alias), service, needed, default, field.description or "")


def _written(value: Any) -> str:
    if value is None:
        return ""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
