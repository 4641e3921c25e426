"""The catalogue of mail templates: loaded once when the process starts, rendered once for each message.

Data is hostile: it is checked against the manifest first (`template_data`), rendered in Jinja's sandbox with HTML
escaped, and what comes out is bounded. Nothing a caller gives is ever compiled as a template.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import jinja2
import jinja2.nodes
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment

from services.email.adapters.template_data import DataField, DataProblem, check, is_one_line, one_line
from services.email.adapters.template_loading import (
    HTML,
    MANIFEST,
    TEXT,
    BrokenTemplate,
    Manifest,
    TemplateSource,
    read_template,
)
from services.email.domain.content import UNSUBSCRIBE_PLACEHOLDER
from services.kit.errors import PermanentError, SettingsError

DIRECTORY = Path(__file__).parents[1] / "templates"
"""The templates that ship."""

_WAY_OUT = "unsubscribeUrl"
MAX_OUTPUT = 1_000_000
"""Characters of html, and of text, that a template may write."""
MAX_SUBJECT = 200


@dataclass(frozen=True, slots=True)
class Site:
    """What templates say about the product that sends: settings, the same for every mail.

    `crm_url` is where people sign in; `portal_url` where clients do (None: the same). The link of `password-reset` is
    `crm_url` + `reset_path` + `?token=…`. URLs are http(s), without query.
    """

    crm_url: str
    product_name: str = "DepLLC CRM"
    portal_url: str | None = None
    reset_path: str = "/reset-password"
    support_address: str | None = None

    def __post_init__(self) -> None:
        for url in (self.crm_url, self.portal_url):
            parts = urlsplit(url or self.crm_url)
            if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
                raise SettingsError(["the CRM's and the portal's URL start with https:// and have no query"])

    def names(self) -> dict[str, object]:
        """The names under which templates see it."""
        crm = self.crm_url.rstrip("/")
        return {
            "productName": self.product_name,
            "crmUrl": crm,
            "portalUrl": (self.portal_url or crm).rstrip("/"),
            "resetUrl": f"{crm}/{self.reset_path.lstrip('/')}",
            "supportAddress": self.support_address,
            _WAY_OUT: UNSUBSCRIBE_PLACEHOLDER,
        }


@dataclass(frozen=True, slots=True)
class Rendered:
    """One message's bodies. `subject` is one line of 1 to 200 characters."""

    html: str
    text: str
    subject: str
    template_version: str


@dataclass(frozen=True, slots=True)
class Template:
    """A loaded template. Its data's names and types are those of the wire (`templateData`)."""

    source: TemplateSource
    html: jinja2.Template
    text: jinja2.Template
    subject: jinja2.Template
    own: bool = False
    """Whether it is an operator's, beside those that ship."""

    @property
    def manifest(self) -> Manifest:
        return self.source.manifest

    @property
    def template_id(self) -> str:
        return self.source.manifest.template_id

    @property
    def version(self) -> str:
        return self.source.version

    @property
    def data(self) -> Mapping[str, DataField]:
        return self.source.manifest.data


class TemplateCatalogue:
    """All templates of a process, by id. Immutable after loading; safe to use from several threads.

    `broken`: folder → everything that is wrong with an operator's template that cannot be used.
    """

    def __init__(self, templates: Mapping[str, Template], broken: Mapping[str, tuple[str, ...]] | None = None) -> None:
        self._templates = dict(sorted(templates.items()))
        self.broken = dict(sorted((broken or {}).items()))

    @classmethod
    def load(cls, directory: Path, site: Site, own: Path | None = None) -> Self:
        """Load every folder with a template: of `directory`, which ships, and of `own`, an operator's.

        Raises SettingsError naming everything wrong with any that ships, or where `own` cannot be read. A broken
        template of an operator takes nothing down: it is in `broken`, and all others can be used.
        """
        environments = _environment(site, escape=True), _environment(site, escape=False)
        templates, broken = cls._read(directory, environments)
        problems = [f"template {problem}" for found in broken.values() for problem in found]
        if not templates and not problems:
            problems.append("there is no template in the templates' directory")
        if problems:
            raise SettingsError(problems)
        if own is None:
            return cls(templates)
        added, broken = cls._read(own, environments, directory)
        for template_id in added.keys() & templates.keys():
            broken[template_id] = (f"{template_id}: a template that ships has this id; give yours another one",)
            del added[template_id]
        return cls(templates | {each: replace(template, own=True) for each, template in added.items()}, broken)

    @classmethod
    def _read(
        cls, directory: Path, environments: tuple[jinja2.Environment, jinja2.Environment], *shared: Path
    ) -> tuple[dict[str, Template], dict[str, tuple[str, ...]]]:
        templates: dict[str, Template] = {}
        broken: dict[str, tuple[str, ...]] = {}
        for folder in _folders(directory):
            try:
                template = _compile(read_template(folder, *shared), *environments)
                cls({template.template_id: template}).preview(template.template_id)
                templates[template.template_id] = template
            except BrokenTemplate as error:
                broken[folder.name] = error.problems
            except PermanentError as error:
                broken[folder.name] = (error.detail,)
            except Exception as error:  # noqa: BLE001 - whatever it is, it takes no other template down
                broken[folder.name] = (f"{folder.name}: {type(error).__name__}: {error}",)
        return templates, broken

    def list(self) -> tuple[Template, ...]:
        """Every template, by id."""
        return tuple(self._templates.values())

    def get(self, template_id: str) -> Template:
        """One template. Raises PermanentError `invalid` for an id that there is none of, or only a broken one."""
        template = self._templates.get(template_id)
        if template is None and template_id in self.broken:
            raise PermanentError("invalid", f"the template {template_id} is broken; the log of the last start says why")
        if template is None:
            raise PermanentError("invalid", f"there is no such template; there are {', '.join(self._templates)}")
        return template

    def problems(
        self, template_id: str, data: Mapping[str, object], *, category: str | None = None
    ) -> tuple[DataProblem, ...]:
        """Everything that would keep these data from being rendered, for an answer that lists every field.

        Raises PermanentError `invalid` for an unknown template.
        """
        template = self.get(template_id)
        _, problems = check(template.data, data)
        found = [DataProblem(f"templateData.{p.field}", p.message) for p in problems]
        if category is not None and category not in template.manifest.categories:
            allowed = ", ".join(template.manifest.categories)
            found.append(DataProblem("category", f"must be one of those of the template {template_id}: {allowed}"))
        return tuple(found)

    def render(self, template_id: str, data: Mapping[str, object], *, subject: str | None = None) -> Rendered:
        """Render for one message. `subject` is the caller's, taken as it is, never as a template; None: the default.

        Raises PermanentError `invalid` (no such template; a subject with line breaks, empty or too long) or
        `renderingFailed` (all that is missing or of the wrong type in one message; the sandbox; too long an output).
        The messages name fields and never repeat values.
        """
        template = self.get(template_id)
        values, problems = check(template.data, data)
        if problems:
            raise _failed(template, "; ".join(map(str, problems)))
        if subject is None:
            subject = one_line(_write(template, template.subject, values))[:MAX_SUBJECT].strip()
        elif not is_one_line(subject) or not 0 < len(subject) <= MAX_SUBJECT:
            raise PermanentError("invalid", f"a subject is one line of 1 to {MAX_SUBJECT} characters")
        html = _write(template, template.html, {**values, "subject": subject})
        text = _tidy(_write(template, template.text, {**values, "subject": subject}))
        return Rendered(html, text, subject, template.version)

    def preview(self, template_id: str, data: Mapping[str, object] | None = None) -> Rendered:
        """Render with the manifest's sample, in which `data` replaces what it names."""
        return self.render(template_id, {**self.get(template_id).manifest.sample, **(data or {})})


def _folders(directory: Path) -> Iterator[Path]:
    """Those that hold a file of a template. Raises SettingsError where the directory cannot be read."""
    try:
        folders = sorted(path for path in directory.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise SettingsError([f"the templates' directory {directory} cannot be read: {error.strerror}"]) from None
    for folder in folders:
        if any(os.path.lexists(folder / name) for name in (MANIFEST, HTML, TEXT)) or not os.access(folder, os.X_OK):
            yield folder


def _environment(site: Site, *, escape: bool) -> jinja2.Environment:
    environment = ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined, autoescape=escape, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals = dict(site.names())  # nothing of Jinja's own: no range(10**9), no lipsum
    return environment


def _compile(source: TemplateSource, html: jinja2.Environment, text: jinja2.Environment) -> Template:
    """Raises BrokenTemplate for a syntax error or a name that neither the manifest nor the site has."""
    known = {*source.manifest.data, *html.globals, "subject"}
    parts = [
        (html, source.html, HTML),
        (text, source.text, TEXT),
        (text, source.manifest.subject, "subject"),
    ]
    compiled: list[jinja2.Template] = []
    problems: list[str] = []
    for environment, part, name in parts:
        where = f"{source.manifest.template_id}, {name}"
        try:
            parsed = environment.parse(part)
            compiled.append(environment.from_string(part))
        except jinja2.TemplateError as error:
            problems.append(f"{where}: {error}")
            continue
        if unknown := find_undeclared_variables(parsed) - known:
            problems.append(f"{where}: not declared in the manifest's data: {', '.join(sorted(unknown))}")
        names = {name.name for name in parsed.find_all(jinja2.nodes.Name)} - source.manifest.data.keys()
        if _WAY_OUT in names and set(source.manifest.categories) != {"marketing"}:
            problems.append(f"{where}: {_WAY_OUT} is for templates whose only category is marketing")
    if problems:
        raise BrokenTemplate(problems)
    html_part, text_part, subject = compiled
    return Template(source, html_part, text_part, subject)


def _write(template: Template, part: jinja2.Template, values: Mapping[str, object]) -> str:
    pieces: list[str] = []
    length = 0
    try:
        for piece in part.generate(values):
            pieces.append(piece)
            length += len(piece)
            if length > MAX_OUTPUT:
                break
    except jinja2.UndefinedError as error:
        raise _failed(template, str(error.message)) from None
    except Exception as error:  # noqa: BLE001 - an expression met data it cannot work with: they will always fail
        raise _failed(template, f"{type(error).__name__} while rendering") from None
    if length > MAX_OUTPUT:
        raise _failed(template, f"writes more than {MAX_OUTPUT} characters")
    return "".join(pieces)


def _failed(template: Template, told: str) -> PermanentError:
    return PermanentError("renderingFailed", f"template {template.template_id}: {told}")


def _tidy(text: str) -> str:
    """Lines without trailing spaces, never more than one empty line, one line break at the end."""
    lines: list[str] = []
    for line in (line.rstrip() for line in text.strip().split("\n")):
        if line or (lines and lines[-1]):
            lines.append(line)
    return "\n".join(lines) + "\n"
