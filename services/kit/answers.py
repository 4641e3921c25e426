"""What every HTTP answer looks like: `{"success": true, "data": …}` or `{"success": false, "error": …, "details":
[…]}`.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Generic, Literal, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from services.kit.errors import (
    MOST_DETAILS,
    ApiError,
    Detail,
    ExpectedVersionConflict,
    InvalidRequest,
    NotFound,
    RefusedHere,
    ServiceUnavailable,
    TransientError,
    Unavailable,
    UnsupportedMediaType,
)
from services.kit.logs import get_logger

T = TypeVar("T")
log = get_logger(__name__)

RETRY_SECONDS = 5
"""`Retry-After` where nobody knows better."""


class Answer(BaseModel, Generic[T]):
    """The request was done, or taken on."""

    success: Literal[True] = True
    data: T


class Refusal(BaseModel):
    """The request was not done; `details` says why, field by field where fields are wrong."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "success": False,
                "error": "to[0]: What to do about it.",
                "details": [{"field": "to[0]", "message": "What to do about it."}],
            }
        }
    )

    success: Literal[False] = False
    error: str
    details: Annotated[list[dict[str, Any]], Field(default_factory=list)]
    omitted_details: Annotated[
        int | None, Field(alias="omittedDetails", description="how many more there were; absent: these are all")
    ] = None


REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Refusal, "description": "The request is not valid; wrong fields are listed, the first in `error`"},
    401: {"model": Refusal, "description": "No token, or one that is not accepted"},
    403: {"model": Refusal, "description": "The token lacks a scope"},
    404: {"model": Refusal, "description": "There is no such thing, or it belongs to somebody else"},
    408: {"model": Refusal, "description": "The body came too slowly"},
    413: {"model": Refusal, "description": "The body is too large"},
    415: {"model": Refusal, "description": "The body is not JSON"},
    503: {"model": Refusal, "description": "A dependency is away; repeat after Retry-After seconds"},
}
"""For the OpenAPI document."""


def refuse(error: ApiError) -> JSONResponse:
    """An ApiError as the answer it stands for."""
    body = {"success": False, "error": error.error, "details": [dict(detail) for detail in error.details]}
    if error.omitted:
        body["omittedDetails"] = error.omitted
    return JSONResponse(body, status_code=error.status, headers=error.headers)


def answer_errors(app: FastAPI) -> None:
    """Let `app` answer every error in the envelope. What nobody expected is left to `RequestEdge`: 500."""

    @app.exception_handler(ApiError)
    async def api_error(_request: Request, error: ApiError) -> JSONResponse:
        return refuse(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return refuse(_invalid(request, error.errors()))

    @app.exception_handler(HTTPException)
    async def framework(_request: Request, error: HTTPException) -> JSONResponse:
        return refuse(_from_framework(error))

    @app.exception_handler(TransientError)
    async def transient(_request: Request, error: TransientError) -> JSONResponse:
        log.warning("answered 503", error_type=type(error).__name__, error=str(error))
        what = f"{error.dependency} is not available" if isinstance(error, Unavailable) else "This cannot be done"
        retry_after = math.ceil(error.retry_after or RETRY_SECONDS)
        return refuse(ServiceUnavailable(f"{what} at the moment: repeat later.", retry_after=retry_after))

    @app.exception_handler(RefusedHere)
    async def refused_here(_request: Request, error: RefusedHere) -> JSONResponse:
        log.error("answered 503: this process cannot, another one may", reason=error.reason, error=error.detail)
        return refuse(ServiceUnavailable("This cannot be done at the moment: repeat later."))

    @app.exception_handler(ExpectedVersionConflict)
    async def conflict(_request: Request, _error: ExpectedVersionConflict) -> JSONResponse:
        return refuse(ServiceUnavailable("Somebody else was changing this too: repeat.", retry_after=1))


def _from_framework(error: HTTPException) -> ApiError:
    if error.status_code == 404:
        return NotFound("There is nothing at this address.")
    if error.status_code == 405:
        return ApiError(405, "This method is not allowed here.", headers=error.headers)
    return ApiError(error.status_code, str(error.detail), headers=error.headers)


def _invalid(request: Request, errors: Sequence[Mapping[str, Any]]) -> ApiError:
    only_body = [error for error in errors if tuple(error["loc"]) == ("body",)]
    if only_body and len(only_body) == len(errors) and not _is_json(request) and errors[0]["type"] != "missing":
        return UnsupportedMediaType("Send JSON, with Content-Type: application/json.")
    told = [_detail(error) for error in errors[:MOST_DETAILS]]
    return InvalidRequest(details=told, omitted=len(errors) - len(told))


def _is_json(request: Request) -> bool:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


_BRANCH = re.compile(
    r"(?:str|int|float|bool|bytes|dict|list|tuple|set)(?:\[.*\])?|(?:function|constrained|tagged)-.*", re.DOTALL
)


_LONGEST_FIELD = 200


def _detail(error: Mapping[str, Any]) -> Detail:
    """One of pydantic's errors as `{"field": "attachments[0].filename", "message": …}`, without the value sent."""
    where, *path = error["loc"]
    if error["type"] == "json_invalid":
        return {"field": "body", "message": f"not valid JSON: {error['ctx']['error']}"}
    field = ""
    for part in path:
        if isinstance(part, int):
            field += f"[{part}]"
        elif not _BRANCH.fullmatch(part):  # pydantic also names the branch of a union that it tried
            field += f".{part}" if field else part
    message = str(error["msg"]).removeprefix("Value error, ")
    if len(field) > _LONGEST_FIELD:  # a name that the caller made up
        field = f"{field[:_LONGEST_FIELD]}…"
    detail: dict[str, object] = {"field": field or str(where), "message": message}
    if where != "body":
        detail["in"] = where
    return detail
