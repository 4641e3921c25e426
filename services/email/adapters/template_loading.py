"""From a template's files to its source for sending: layout and macros applied, CSS inlined, once, when it is loaded.

Files of a template `<id>` under a directory of templates:

    <id>/manifest.json    what it is, its default subject, the data it takes, a sample
    <id>/mail.html        with blocks for layout.html
    <id>/mail.txt         with blocks for layout.txt

Layouts and style sheets lie beside the folders. What a directory lacks of them is taken from where the templates that
ship are, so that one's own templates may use the layout that ships, or bring their own under the same name.

Two rounds with two pairs of marks: `[% … %]` and `[[ … ]]` are resolved here (layout, macros); `{{ … }}` and `{% … %}`
stay, and are resolved for each mail. While CSS is inlined they are hidden from the HTML parser: `{% … %}` as a comment,
which may stand between the rows of a table, `{{ … }}` as a word, which may stand in an attribute.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import css_inline
from jinja2 import FileSystemLoader, StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contracts.email.values import Category
from services.email.adapters.template_data import DataField, unfit_defaults

_EXPRESSION = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)
MANIFEST, HTML, TEXT = "manifest.json", "mail.html", "mail.txt"
_NAME = r"^[a-zA-Z][a-zA-Z0-9_]{0,63}$"


class BrokenTemplate(ValueError):
    """A template that cannot be used. `problems` holds a sentence for everything that was found wrong with it."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(problems))


class Manifest(BaseModel):
    """What a template says of itself, in manifest.json."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    template_id: Annotated[str, Field(alias="templateId", pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    version: Annotated[int, Field(ge=1)]
    description: Annotated[str, Field(min_length=1)]
    categories: Annotated[tuple[Category, ...], Field(min_length=1)]
    subject: Annotated[str, Field(min_length=1, max_length=500)]
    data: dict[Annotated[str, Field(pattern=_NAME)], DataField]
    sample: dict[str, Any]


@dataclass(frozen=True, slots=True)
class TemplateSource:
    """A template ready for the second round. `version` changes with any change of what it sends."""

    manifest: Manifest
    version: str
    html: str
    text: str


def read_template(folder: Path, *shared: Path) -> TemplateSource:
    """Read and build one template; `shared`: directories of further layouts and style sheets.

    Raises BrokenTemplate saying what is wrong with each of its files.
    """
    problems: list[str] = []
    manifest = _read_manifest(folder, problems)
    html = _build(folder, HTML, shared, problems)
    text = _build(folder, TEXT, shared, problems)
    if manifest is None or html is None or text is None or problems:
        raise BrokenTemplate(problems)
    content = json.dumps([manifest.model_dump(mode="json"), html, text], sort_keys=True)
    digest = hashlib.sha256(content.encode()).hexdigest()[:12]
    return TemplateSource(manifest, f"{manifest.version}-{digest}", html, text)


def _read_manifest(folder: Path, problems: list[str]) -> Manifest | None:
    """Adds to `problems`, and returns None where there is no manifest to go on with."""
    where = f"{folder.name}/{MANIFEST}"
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except OSError as error:
        problems.append(f"{where} cannot be read: {error.strerror}")
        return None
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'the file'}: {e['msg']}" for e in error.errors())
        problems.append(f"{where}: {wrong}")
        return None
    problems += [f"{where}: {unfit}" for unfit in unfit_defaults(manifest.data)]
    if manifest.template_id != folder.name:
        problems.append(f"{where}: templateId must be the folder's name")
    return manifest


def _build(folder: Path, name: str, shared: Sequence[Path], problems: list[str]) -> str | None:
    """The source for the second round; None where it cannot be made, which adds to `problems`."""
    try:
        built = _first_round(folder, name, shared)
        return _inlined(built) if name == HTML else built
    except TemplateError as error:
        problems.append(f"{folder.name}/{name}: {error} ({getattr(error, 'name', None) or name})")
    except OSError as error:
        problems.append(f"{folder.name}/{name} cannot be read: {error.strerror}")
    except RecursionError:
        problems.append(f"{folder.name}/{name} includes itself")
    except ValueError as error:
        problems.append(f"{folder.name}/{name}: {error}")
    except Exception as error:  # noqa: BLE001 - an expression met what it cannot work with, whatever that is
        problems.append(f"{folder.name}/{name}: {type(error).__name__}: {error}")
    return None


def _first_round(folder: Path, name: str, shared: Sequence[Path]) -> str:
    """No escaping: files of templates alone take part, no data."""
    environment = ImmutableSandboxedEnvironment(
        loader=FileSystemLoader([folder.parent, *shared]),
        undefined=StrictUndefined,
        block_start_string="[%",
        block_end_string="%]",
        variable_start_string="[[",
        variable_end_string="]]",
        comment_start_string="[#",
        comment_end_string="#]",
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(f"{folder.name}/{name}").render()


def _inlined(html: str) -> str:
    hidden: list[str] = []

    def hide(match: re.Match[str]) -> str:
        hidden.append(match[0])
        number = len(hidden) - 1
        return f"mailroomexpression{number}x" if match[0].startswith("{{") else f"<!--mailroomstatement{number}x-->"

    def show(match: re.Match[str]) -> str:
        return hidden[int(match[1] or match[2])]

    inliner = css_inline.CSSInliner(load_remote_stylesheets=False)
    inlined = inliner.inline(_EXPRESSION.sub(hide, html))
    shown, count = re.subn(r"<!--mailroomstatement(\d+)x-->|mailroomexpression(\d+)x", show, inlined)
    if count != len(hidden):
        raise ValueError("a {{ … }} or {% … %} of mail.html stands where HTML lets nothing stand")
    return shown
