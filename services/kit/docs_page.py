"""`/docs`: Swagger UI over the OpenAPI document, from our own origin alone, so that it works without the internet.

Its files come with the package fastapi-offline, pinned and hashed like every other. Nothing inline runs, nothing is
loaded from elsewhere, and a token that is typed in stays in that tab's memory.
"""

from collections.abc import Awaitable, Callable
from html import escape
from importlib.resources import as_file, files
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse, HTMLResponse, Response

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_CACHED = {"Cache-Control": "public, max-age=3600"}
_FILES = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}
_START = """\
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  persistAuthorization: false,
  validatorUrl: null,
});
"""
_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<noscript>This page needs scripts. The document itself is <a href="openapi.json">openapi.json</a>.</noscript>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""


def add_docs(routes: APIRouter, title: str) -> None:
    """Add the page and its files to `routes`."""
    page = _PAGE.format(title=escape(title))

    @routes.get("/docs")
    async def docs() -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": _POLICY})

    @routes.get("/docs/start.js")
    async def start() -> Response:
        return Response(_START, media_type="text/javascript", headers=_CACHED)

    for name, kind in _FILES.items():
        routes.add_api_route(f"/docs/{name}", _sender(_file(name), kind), methods=["GET"], response_model=None)


def _sender(path: Path, kind: str) -> Callable[[], Awaitable[FileResponse]]:
    async def send() -> FileResponse:
        return FileResponse(path, media_type=kind, headers=_CACHED)

    return send


def _file(name: str) -> Path:
    with as_file(files("fastapi_offline") / "static" / name) as path:
        return path
