"""The services' APIs against their own OpenAPI documents, on the running stack: schemathesis sends what the document
allows and what it does not, and every answer must be a documented one and never an error of ours.

What the document allows is hardly ever about a file that there is. So the files API is sent such cases as well, and
each of its operations must have succeeded in some.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.core.result import Ok

from contracts.ids import uuid7
from deploy.local.demo.files import PDF, PNG
from deploy.local.stack import Stack
from services.kit.auth import mint_token
from tests.e2e.callers import OPERATOR

CHECKS = {
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "negative_data_rejection",
}
EXAMPLES = {"email": 6, "files": 5, "events": 4}
MANY = 5
"""Requests of each sort to a route in `make test`, and how many times as many in `make test-long`. The events API has a
suite of its own in `tests/integration/events`.
"""

ANYTHING_GOES = {"/unsubscribe/{token}"}
"""There is nothing that their documents do not allow."""


PICTURE = {"fileName": "me.png", "contentType": "image/png", "category": "avatar", "isPublic": True}
IN_PARTS = {
    "fileName": "a.pdf", "contentType": "application/pdf", "category": "document", "method": "multipart",
    "size": len(PDF),
}  # fmt: skip


@dataclass(frozen=True)
class Shelf:
    """Files of the caller's own, a new one for each operation, and what to ask of it."""

    http: httpx.Client

    def good(self, method: str, path: str) -> tuple[dict[str, str], Any]:
        """Path parameters and a body with which the operation succeeds, as often as it is sent."""
        match method, path:
            case "POST", "/api/files/upload-url":
                return {}, IN_PARTS
            case "POST", "/api/files/parts":
                return {}, {"uploadToken": self.in_parts(), "partNumbers": [1]}
            case "POST", "/api/files/parts/list" | "/api/files/abort":
                return {}, {"uploadToken": self.in_parts()}
            case "POST", "/api/files/upload-complete":
                return {}, {"fileId": self.picture(), "actualSize": len(PNG)}
            case "POST", "/api/files/batch":
                return {}, {"action": "tag", "fileIds": [self.picture(), uuid7()], "tags": ["a"]}
            case "PATCH", _:
                return {"file_id": self.picture()}, {"name": "you.png", "tags": ["a", "b"]}
            case "POST", "/api/files/{file_id}/restore":
                deleted = self.picture()
                self.call("DELETE", f"/api/files/{deleted}")
                return {"file_id": deleted}, None
            case _:
                return {"file_id": self.picture()}, None

    def call(self, method: str, path: str, **options: Any) -> Any:
        """The data of the answer."""
        return self.http.request(method, path, **options).raise_for_status().json()["data"]

    def in_parts(self) -> str:
        """The token of an upload of which a part is there."""
        asked = self.call("POST", "/api/files/upload-url", json=IN_PARTS)
        httpx.put(asked["parts"][0]["url"], content=PDF, trust_env=False).raise_for_status()
        return str(asked["uploadToken"])

    def picture(self) -> str:
        """The id of a file for everybody."""
        asked = self.call("POST", "/api/files/upload-url", json=PICTURE)
        form = httpx.post(asked["uploadUrl"], data=asked["fields"], files={"file": ("f", PNG)}, trust_env=False)
        form.raise_for_status()
        body = {"fileId": asked["fileId"], "actualSize": len(PNG)}
        return str(self.call("POST", "/api/files/upload-complete", json=body)["fileId"])


Change = Callable[[Any, bool], None]
"""Makes a case one about what there is; or, where so told, one that succeeds."""


def sent(
    operation: Any,
    mode: schemathesis.GenerationMode,
    headers: dict[str, str],
    examples: int,
    change: Change = lambda case, succeeds: None,
) -> set[int]:
    """Send cases, hold every answer against the document, and tell which statuses there were."""
    statuses: set[int] = set()
    checks: list[Any] = [check for check in schemathesis.checks.CHECKS.get_all() if check.__name__ in CHECKS]
    assert len(checks) == len(CHECKS)

    @given(case=operation.as_strategy(generation_mode=mode), succeeds=st.booleans())
    @settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        database=None,
    )
    def holds(case: schemathesis.Case[Any], succeeds: bool) -> None:
        change(case, succeeds)
        statuses.add(case.call_and_validate(headers=headers, checks=checks).status_code)

    holds()
    return statuses


def about(path: dict[str, str], body: Any) -> Change:
    """Cases about the file, or the upload, that these name; with all of this body, those that are to succeed."""
    named = {name: value for name, value in (body or {}).items() if name in ("uploadToken", "fileId", "fileIds")}

    def change(case: Any, succeeds: bool) -> None:
        case.path_parameters.update(path)
        if body is not None and succeeds:
            case.body = body
        elif body is not None and isinstance(case.body, dict):
            case.body = {**case.body, **named}

    return change


def operations(url: str) -> list[Any]:
    """All of a service's."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    found = [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]
    assert len(found) == len(list(schema.get_all_operations())) > 5
    return found


def bearer(stack: Stack) -> dict[str, str]:
    """Headers of a caller who may do everything, with what is their own."""
    return {"Authorization": f"Bearer {mint_token(stack.env()['MAILROOM_JWT_SECRET'], 'schemathesis', OPERATOR)}"}


@pytest.mark.parametrize("times", [1, pytest.param(MANY, marks=pytest.mark.long)])
@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=str)
@pytest.mark.parametrize(
    "service",  # that of events is asked in tests/integration/events/test_http_schema.py
    [pytest.param(each, marks=pytest.mark.long) if each == "events" else each for each in EXAMPLES],
)
def test_every_answer_is_documented(stack: Stack, service: str, mode: schemathesis.GenerationMode, times: int) -> None:
    headers = bearer(stack)
    for operation in operations(stack.site.url(service)):
        if operation.path.endswith(("/rebuild", "/rollback")):
            continue  # they would be done, to everybody's read model: see the suite named above
        if mode is schemathesis.GenerationMode.NEGATIVE and operation.path in ANYTHING_GOES:
            continue
        sent(operation, mode, headers, times * EXAMPLES[service])


def test_what_succeeds_with_files_is_documented_too(stack: Stack) -> None:
    url, headers = stack.site.url("files"), bearer(stack)
    statuses: dict[tuple[str, str], set[int]] = {}
    with httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False) as http:
        shelf = Shelf(http)
        for operation in operations(url):
            what = (operation.method.upper(), operation.path)
            change = about(*shelf.good(*what))
            statuses[what] = sent(operation, schemathesis.GenerationMode.POSITIVE, headers, 12, change)
    assert {what: found for what, found in statuses.items() if min(found) >= 400} == {}
