"""The HTTP application of a service: FastAPI with Mailroom's envelope, limits, health, metrics and documents.

Routes are made on a `router()` and handed to `create_app`; they return `Answer(data=…)` and raise `kit.errors`.
"""

from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, FastAPI, Header, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.middleware.cors import CORSMiddleware
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from services.kit.admission import Admission
from services.kit.answers import REFUSALS, Answer, Refusal, answer_errors
from services.kit.auth import Authenticator, anybody, asked_first
from services.kit.bodies import Bodies, hold_to_values, largest_body, limit_of
from services.kit.clock import Clock, Ids, SystemClock, SystemIds
from services.kit.docs_page import add_docs
from services.kit.errors import ApiError, InvalidRequest
from services.kit.health import Health
from services.kit.metrics import CONTENT_TYPE, Metrics
from services.kit.request_edge import CORRELATION_ID, REQUEST_ID, RequestEdge
from services.kit.request_limits import RequestLimits
from services.kit.tracing import Tracing

__all__ = ["Answer", "IdempotencyKey", "Refusal", "correlation_id", "create_app", "router"]

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="One value for one intended creation: repeating the request with it creates nothing twice.",
    ),
]
"""The parameter of every route that creates something."""


class _JsonRequest(Request):
    """Reads JSON as RFC 8259 has it: no NaN, no lone surrogates, no endless nesting (orjson stops at 1024); not too
    many values; and no NUL, which nothing stores.
    """

    async def json(self) -> Any:
        body = await self.body()
        hold_to_values(body)
        if _holds_nul(body):
            raise InvalidRequest(details=[{"field": "body", "message": "holds a NUL character (\\u0000)"}])
        return orjson.loads(body)


def _holds_nul(body: bytes) -> bool:
    """Whether valid JSON holds an escaped NUL. Two backslashes are one that escapes nothing; fast, for large bodies."""
    return b"\\u0000" in body and b"\\u0000" in body.replace(b"\\\\", b"")


class _JsonRoute(APIRoute):
    """Says who may call it, and asks that before it reads a byte of the body: FastAPI would ask after it was parsed."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        questions = asked_first(_calls(self.dependant))
        limit = limit_of(self.endpoint)

        async def handle_strictly(request: Request) -> Response:
            for ask in questions:
                await ask(request)
            bodies: Bodies = request.app.state.bodies
            with bodies.taking(request, limit) as receive:
                try:
                    return await handle(_JsonRequest(request.scope, receive))
                except HTTPException as error:
                    cause = error.__cause__  # FastAPI wraps what reading a body raises
                    if isinstance(cause, ApiError | ClientDisconnect):
                        raise cause from None
                    raise

        return handle_strictly


def _calls(dependant: Dependant) -> Iterator[object]:
    """All that a route depends on."""
    for each in dependant.dependencies:
        yield each.call
        yield from _calls(each)


def router(prefix: str = "", *, tag: str | None = None) -> APIRouter:
    """A router for `create_app`. `tag` groups its routes in the documents.

    Each route depends on `auth.require(…)`, `request_limits.limited(…)` or `auth.anybody`: a ValueError else. Its body
    has `bodies.SMALL` bytes at most, or what `bodies.body_limit` declares.
    """
    return APIRouter(prefix=prefix, tags=[tag] if tag else None, route_class=_JsonRoute, redirect_slashes=False)


def correlation_id(request: Request) -> str:
    """The id of the whole journey that this request is part of: the caller's, else one made for it."""
    found: str = request.state.correlation_id
    return found


_TOO_MANY: dict[int | str, dict[str, Any]] = {
    429: {"model": Refusal, "description": "Too many requests of this kind; repeat after Retry-After seconds"}
}
_EVERY_CALL = (
    'Answers are `{"success": true, "data": …}` or `{"success": false, "error": "…", "details": […]}`, where each '
    "wrong field has a line of its own in `details`, a hundred of them at most, and `error` tells the first. A call "
    "needs a token with the scope that it names (`mailroom token` makes one for development). `X-Correlation-Id` is "
    "taken over into everything that follows from a call."
)


def create_app(
    *,
    title: str,
    service: str,
    version: str,
    authenticator: Authenticator,
    health: Health,
    metrics: Metrics,
    routers: Sequence[APIRouter],
    limits: RequestLimits | None = None,
    tracing: Tracing | None = None,
    ids: Ids | None = None,
    body_bytes_in_flight: int = 60_000_000,
    body_bytes_per_second: int = 20_000,
    clock: Clock | None = None,
    cors_origins: Sequence[str] = (),
    lifespan: Lifespan | None = None,
    requests_in_flight: int = 64,
) -> FastAPI:
    """The application, with `/healthz`, `/readyz`, `/metrics`, `/docs` and `/openapi.json` beside the routes given.

    Args:
        title, version: for the documents.
        service: for metrics.
        authenticator: what `auth.require` asks.
        routers: made by `router()`; another kind would not read JSON strictly and is refused with a ValueError, and so
            is a route whose `body_limit` could never be taken.
        body_bytes_in_flight: bytes of the bodies of all requests together; beyond them 503.
        body_bytes_per_second: how fast a body must come on average; a slower one is 408.
        cors_origins: pages elsewhere that may call with a bearer token; none by default, and never with the cookie.
        limits: what callers are held to; unless given, nothing.
        lifespan: entered when the server starts.
        requests_in_flight: requests answered at a time; more are refused at once (`admission`).
    """
    app = FastAPI(
        title=title,
        description=_EVERY_CALL,
        version=version,
        responses={**REFUSALS, **_TOO_MANY},
        redoc_url=None,
        docs_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        separate_input_output_schemas=False,
    )
    app.state.authenticator = authenticator
    app.state.bodies = Bodies(
        service=service,
        metrics=metrics,
        clock=clock or SystemClock(),
        in_flight=body_bytes_in_flight,
        per_second=body_bytes_per_second,
    )
    app.state.limits = limits or RequestLimits.off(SystemClock())
    answer_errors(app)
    most = largest_body(body_bytes_in_flight)
    for each in (*routers, _operations(title, health, metrics)):
        if each.route_class is not _JsonRoute:
            raise ValueError("make the application's routers with kit.http.router()")
        if any(limit_of(route.endpoint) > most for route in each.routes if isinstance(route, APIRoute)):
            raise ValueError(f"a route takes bodies above {most} bytes, the most that body_bytes_in_flight allows")
        app.include_router(each)
    _describe_what_there_is(app)
    app.add_middleware(
        RequestEdge,
        service=service,
        metrics=metrics,
        tracing=tracing or Tracing.off(),
        ids=ids or SystemIds(),
    )
    app.add_middleware(Admission, service=service, metrics=metrics, most=requests_in_flight)
    if cors_origins:
        # Around all else: a page can read only what carries these headers, a 503 of `Admission` not excepted.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(cors_origins),
            allow_methods=["GET", "POST", "PATCH", "DELETE"],
            allow_headers=[
                "Authorization",
                "Content-Type",
                "Idempotency-Key",
                "If-None-Match",
                CORRELATION_ID,
                REQUEST_ID,
            ],
            expose_headers=[REQUEST_ID, CORRELATION_ID, "ETag", "Retry-After", "RateLimit", "RateLimit-Policy"],
            max_age=600,
        )
    return app


def _operations(title: str, health: Health, metrics: Metrics) -> APIRouter:
    """What machines and operators ask; without a token, and without anything personal."""
    operations = APIRouter(route_class=_JsonRoute, include_in_schema=False, dependencies=[Depends(anybody)])

    @operations.get("/healthz")
    async def live() -> JSONResponse:
        fine, detail = health.liveness()
        return JSONResponse(detail, status_code=200 if fine else 503)

    @operations.get("/readyz")
    async def ready() -> JSONResponse:
        fine, detail = await health.readiness()
        return JSONResponse(detail, status_code=200 if fine else 503)

    @operations.get("/metrics")
    async def rendered() -> Response:
        return Response(metrics.render(), media_type=CONTENT_TYPE)

    add_docs(operations, title)
    return operations


def _describe_what_there_is(app: FastAPI) -> None:
    """FastAPI documents a 422 for every route with parameters; ours answer 400 in the envelope. And it documents the
    refusals of the whole application for every route: without a token or a body nothing is wrong with them.
    """

    def describe() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            for path in document["paths"].values():
                for operation in path.values():
                    scopes = [scope for needed in operation.get("security", ()) for scope in needed.get("token", ())]
                    if scopes:
                        told = operation.get("description", "")
                        operation["description"] = f"{told}\n\nScope: `{'`, `'.join(scopes)}`".strip()
                    never = {"422"}
                    never |= set() if "security" in operation else {"401", "403"}
                    never |= set() if "requestBody" in operation else {"408", "413", "415"}
                    for status in never:
                        operation["responses"].pop(status, None)
            for unused in ("HTTPValidationError", "ValidationError"):
                document.get("components", {}).get("schemas", {}).pop(unused, None)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = describe  # type: ignore[method-assign]
