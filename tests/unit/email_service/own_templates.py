"""Templates of an operator's own, in a directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HTML = """[% extends "layout.html" %]
[% block content %]<p class="text">Thanks, {{ name }}.</p>[% endblock %]
"""


def write_own(
    directory: Path,
    template_id: str,
    *,
    html: str | None = HTML,
    text: str | None = "Thanks, {{ name }}.",
    **manifest: Any,
) -> Path:
    """Write a template, good unless told otherwise; None leaves a file out. Returns its folder."""
    folder = directory / template_id
    folder.mkdir(exist_ok=True)
    whole: dict[str, Any] = {
        "templateId": template_id,
        "version": 1,
        "description": "Thanks for an order.",
        "categories": ["notification"],
        "subject": "Your order",
        "data": {"name": {"type": "string"}},
        "sample": {"name": "Ada"},
    }
    (folder / "manifest.json").write_text(json.dumps(whole | manifest))
    for name, content in (("mail.html", html), ("mail.txt", text)):
        if content is None:
            (folder / name).unlink(missing_ok=True)
        else:
            (folder / name).write_text(content)
    return folder
