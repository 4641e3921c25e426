"""The `Renderer` port over the catalogue of templates: a template's bodies, or the caller's own as they are."""

from __future__ import annotations

from contracts.email.commands import SendEmail
from contracts.email.values import blank_is_absent
from services.email.adapters.templates import TemplateCatalogue
from services.email.domain.content import SealedBody
from services.email.ports import Rendered
from services.kit.errors import PermanentError


class CatalogueRenderer:
    """Renders commands. Immutable; safe to use from several threads."""

    def __init__(self, templates: TemplateCatalogue) -> None:
        self._templates = templates

    def render(self, command: SendEmail, sealed: SealedBody | None) -> Rendered:
        """See the port. The subject is always the command's."""
        body = sealed or SealedBody(html=command.html, text=command.text, template_data=command.template_data)
        if command.template_id is None:
            html, text = blank_is_absent(body.html), blank_is_absent(body.text)
            if html is None and text is None:
                raise PermanentError("invalid", "neither html nor text nor a template")
            return Rendered(html, text)
        allowed = self._templates.get(command.template_id).manifest.categories
        if command.category not in allowed:
            raise PermanentError("invalid", f"the template {command.template_id} is for {', '.join(allowed)}")
        found = self._templates.render(command.template_id, body.template_data or {}, subject=command.subject)
        return Rendered(found.html, found.text, found.template_version)
