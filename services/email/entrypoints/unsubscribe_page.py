"""The way out of a list: a page for people and RFC 8058's one-click POST for mail programs.

    GET, HEAD /unsubscribe/{token}    shows what will happen and a button. Changes nothing: mail scanners follow links.
    POST /unsubscribe/{token}         `List-Unsubscribe=One-Click` (RFC 8058 §3.1, urlencoded or multipart) from a mail
                                      program, which may leave the body out, `confirm=unsubscribe` from the page's
                                      button. Answers 200 only after the injected `unsubscribe` has returned, 503 when
                                      it could not record the wish.

The pages work without scripts, set no cookies, load nothing, and tell nobody where the visitor came from.
"""

import asyncio
import base64
import hashlib
from collections.abc import Awaitable, Callable
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any, Literal, Protocol
from urllib.parse import parse_qs

import structlog
from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from services.email.domain.unsubscribe import (
    InvalidUnsubscribeToken,
    UnsubscribeClaims,
    UnsubscribeSource,
    UnsubscribeTokens,
)
from services.kit.bodies import body_limit
from services.kit.http import router as strict_router
from services.kit.request_limits import limited

LONGEST_FORM = 8_192
"""Bytes of a POST's body; a one-click form has under 200."""

State = Literal["ask", "done", "invalid", "unclear", "unavailable"]

_STATUS: dict[State, int] = {"ask": 200, "done": 200, "invalid": 404, "unclear": 400, "unavailable": 503}
_HTML = {"text/html": {"schema": {"type": "string"}}}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    400: {"description": "The form asks for nothing that is known here", "content": _HTML},
    404: {"description": "The link is not one of ours, or was cut short", "content": _HTML},
    503: {"description": "The wish was not recorded; repeat after Retry-After seconds", "content": _HTML},
}
_FORM: dict[str, Any] = {
    "requestBody": {
        "content": {
            "application/x-www-form-urlencoded": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "List-Unsubscribe": {"type": "string", "description": "One-Click, from a mail program"},
                        "confirm": {"type": "string", "description": "unsubscribe, from the page's button"},
                    },
                }
            }
        }
    }
}
_PAGES = Path(__file__).with_name("pages")

_log = structlog.get_logger(__name__)


class Unsubscribe(Protocol):
    """Appends the suppression; returns when it is acknowledged, and may be called again with the same claims."""

    def __call__(self, claims: UnsubscribeClaims, source: UnsubscribeSource) -> Awaitable[None]: ...


def unsubscribe_router(
    tokens: UnsubscribeTokens,
    unsubscribe: Unsubscribe,
    *,
    product_name: str,
    time_limit: float = 10.0,
) -> APIRouter:
    """The routes above. `product_name`: what people know the sender as. `time_limit` bounds `unsubscribe`, seconds."""
    router = strict_router(tag="unsubscribe")
    held = [Depends(limited("unsubscribe"))]
    page = _page_writer(product_name)

    @router.head("/unsubscribe/{token}", response_class=HTMLResponse, dependencies=held, include_in_schema=False)
    @router.get(
        "/unsubscribe/{token}",
        response_class=HTMLResponse,
        dependencies=held,
        responses=_ANSWERS,
        summary="The page for people",
    )
    async def show(token: str) -> HTMLResponse:
        """The page with the button."""
        try:
            return page("ask", tokens.verify(token))
        except InvalidUnsubscribeToken:
            return page("invalid", None)

    @router.post(
        "/unsubscribe/{token}",
        response_class=HTMLResponse,
        dependencies=held,
        responses=_ANSWERS,
        openapi_extra=_FORM,
        summary="Leave the list",
    )
    @body_limit(LONGEST_FORM)
    async def leave(token: str, request: Request) -> HTMLResponse:
        """Record the wish, then say so."""
        try:
            claims = tokens.verify(token)
        except InvalidUnsubscribeToken:
            return page("invalid", None)
        source = await _source(request)
        if source is None:
            return page("unclear", claims)
        try:
            async with asyncio.timeout(time_limit):
                await unsubscribe(claims, source)
        except Exception:  # noqa: BLE001 - whatever went wrong, the wish was not recorded, and the person must hear it
            _log.exception("unsubscribe_not_recorded", message_id=claims.message_id, scope=claims.scope, source=source)
            return page("unavailable", claims)
        return page("done", claims)

    return router


async def _source(request: Request) -> UnsubscribeSource | None:
    """Who pressed the button, None where the form says neither. People press ours: what posts without a body is a mail
    program that leaves RFC 8058's out, and the token says the rest.
    """
    body = await request.body()
    if not body.strip():
        return "oneClick"
    fields = _form(request.headers.get("content-type", ""), body)
    if fields.get("List-Unsubscribe") == "One-Click":
        return "oneClick"
    return "page" if fields.get("confirm") == "unsubscribe" else None


def _form(content_type: str, body: bytes) -> dict[str, str]:
    """The text fields of a small form; nothing for a body that is none."""
    if not content_type.lower().startswith("multipart/form-data"):
        return {name: values[0].strip() for name, values in parse_qs(body.decode("utf-8", "replace")).items()}
    head = f"Content-Type: {content_type}\r\n\r\n".encode("latin-1", "replace")
    parsed = message_from_bytes(head + body, policy=policy.HTTP)
    fields: dict[str, str] = {}
    for part in parsed.iter_parts():
        name, payload = part.get_param("name", header="content-disposition"), part.get_payload(decode=True)
        if isinstance(name, str) and isinstance(payload, bytes):
            fields[name] = payload.decode("utf-8", "replace").strip()
    return fields


def _page_writer(product_name: str) -> Callable[[State, UnsubscribeClaims | None], HTMLResponse]:
    environment = Environment(loader=FileSystemLoader(_PAGES), autoescape=True, undefined=StrictUndefined)
    template = environment.get_template("unsubscribe.html")
    style = (_PAGES / "unsubscribe.css").read_text(encoding="utf-8")
    style_hash = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    headers = {
        "Cache-Control": "no-store",
        "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{style_hash}'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Robots-Tag": "noindex, nofollow",
    }

    def write(state: State, claims: UnsubscribeClaims | None) -> HTMLResponse:
        html = template.render(
            state=state, product_name=product_name, list_id=claims.list_id if claims else None, style=style
        )
        extra = {"Retry-After": "60"} if state == "unavailable" else {}
        return HTMLResponse(html, status_code=_STATUS[state], headers=headers | extra)

    return write
