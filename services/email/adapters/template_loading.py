"""From a template's files to its source for sending: layout and macros applied, CSS inlined, once, when it is loaded.

Files of a template `<id>` under the templates' directory:

    <id>/manifest.json    what it is, its default subject, the data it takes, a sample
    <id>/mail.html        with blocks for layout.html
    <id>/mail.txt         with blocks for layout.txt

Two rounds with two pairs of marks: `[% … %]` and `[[ … ]]` are resolved here (layout, macros); `{{ … }}` and `{% … %}`
stay, and are resolved for each mail. While CSS is inlined they are hidden from the HTML parser: `{% … %}` as a comment,
which may stand between the rows of a table, `{{ … }}` as a word, which may stand in an attribute.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import css_inline
from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contracts.email.values import Category
from services.email.adapters.template_data import DataField, unfit_defaults

_EXPRESSION = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)
_NAME = r"^[a-zA-Z][a-zA-Z0-9_]{0,63}$"


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


def read_template(folder: Path) -> TemplateSource:
    """Read and build one template. Raises ValueError saying what is wrong with which file."""
    path = folder / "manifest.json"
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ValueError(f"{folder.name}/manifest.json cannot be read: {error.strerror}") from None
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'the file'}: {e['msg']}" for e in error.errors())
        raise ValueError(f"{folder.name}/manifest.json: {wrong}") from None
    if unfit := unfit_defaults(manifest.data):
        raise ValueError(f"{folder.name}/manifest.json: {'; '.join(unfit)}")
    if manifest.template_id != folder.name:
        raise ValueError(f"{folder.name}/manifest.json: templateId must be the folder's name")
    try:
        html = _inlined(_build(folder, "mail.html"))
        text = _build(folder, "mail.txt")
    except TemplateError as error:
        raise ValueError(f"{folder.name}: {error} ({getattr(error, 'name', None) or 'mail'})") from None
    except ValueError as error:
        raise ValueError(f"{folder.name}: {error}") from None
    content = json.dumps([manifest.model_dump(mode="json"), html, text], sort_keys=True)
    digest = hashlib.sha256(content.encode()).hexdigest()[:12]
    return TemplateSource(manifest, f"{manifest.version}-{digest}", html, text)


def _build(folder: Path, name: str) -> str:
    """The first round. No escaping: only our own files take part."""
    environment = Environment(  # noqa: S701 - what it writes is a template's source, escaped in the second round
        loader=FileSystemLoader(folder.parent),
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
