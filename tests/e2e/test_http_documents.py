"""The services' APIs against their own OpenAPI documents, on the running stack: schemathesis sends what the document
allows and what it does not, and every answer must be a documented one and never an error of ours.
"""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.core.result import Ok

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
EXAMPLES = {"email": 20, "files": 12, "events": 8}
"""A request each; the events API has a suite of its own in `tests/integration/events`."""

ANYTHING_GOES = {"/unsubscribe/{token}"}
"""There is nothing that their documents do not allow."""


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=str)
@pytest.mark.parametrize("service", list(EXAMPLES))
def test_every_answer_is_documented(stack: Stack, service: str, mode: schemathesis.GenerationMode) -> None:
    schema = schemathesis.openapi.from_url(f"{stack.site.url(service)}/openapi.json")
    operations = [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]
    assert len(operations) == len(list(schema.get_all_operations())) > 5
    checks: list[Any] = [check for check in schemathesis.checks.CHECKS.get_all() if check.__name__ in CHECKS]
    assert len(checks) == len(CHECKS)
    token = mint_token(stack.env()["MAILROOM_JWT_SECRET"], "schemathesis", OPERATOR)
    for operation in operations:
        if operation.path.endswith(("/rebuild", "/rollback")):
            continue  # they would be done, to everybody's read model: see the suite named above
        if mode is schemathesis.GenerationMode.NEGATIVE and operation.path in ANYTHING_GOES:
            continue

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=EXAMPLES[service],
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
            database=None,
        )
        def holds(case: schemathesis.Case[Any]) -> None:
            case.call_and_validate(headers={"Authorization": f"Bearer {token}"}, checks=checks)

        holds()
