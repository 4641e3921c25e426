"""Whom an answer of SendGrid means: the account, one mail, or the way to it; and what says nothing at all."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from services.email.adapters.sendgrid import refusal_of
from services.email.domain.outcomes import Rejected, Unknown

NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)
UNVERIFIED = "The from address does not match a verified Sender Identity. Mail cannot be sent until this is resolved."


def refusal(status: int, *errors: dict[str, Any], headers: dict[str, str] | None = None) -> Rejected | Unknown:
    """What is made of SendGrid's own answer."""
    return refusal_of(httpx.Response(status, json={"errors": list(errors)}, headers=headers), NOW)


@pytest.mark.parametrize("status", [401, 403, 404, 405, 406])
def test_what_is_about_credentials_rights_or_the_url_is_the_accounts(status: int) -> None:
    outcome = refusal(status, {"field": None, "message": "no"})
    assert outcome == Rejected(f"http{status}", "no", "account")


@pytest.mark.parametrize(
    ("errors", "kind", "code", "unlisted"),
    [
        ([{"field": "personalizations.0.to.0.email", "message": "bad"}], "mail", "personalizations.to.email", False),
        ([{"field": "content.value", "message": "empty"}], "mail", "content.value", False),
        ([{"field": "attachments[0].filename", "message": "bad"}], "mail", "attachments.filename", False),
        ([{"field": "a b@c.example", "message": "bad"}], "mail", "http400", False),
        ([{"field": "asm.group_id", "message": "none of yours"}], "account", "asm.group_id", False),
        ([{"field": "ip_pool_name", "message": "none of yours"}], "account", "ip_pool_name", False),
        ([{"field": "from", "message": UNVERIFIED}], "account", "from", False),
        ([{"field": None, "message": UNVERIFIED}], "account", "http400", False),
        ([{"field": None, "message": "Bad Request"}], "throttle", "http400", True),
        ([{"message": "Bad Request"}], "throttle", "http400", True),
        ([], "throttle", "http400", True),
    ],
)
def test_a_400_fails_a_mail_only_where_it_names_something_of_it(
    errors: list[dict[str, Any]], kind: str, code: str, unlisted: bool
) -> None:
    outcome = refusal(400, *errors)
    assert isinstance(outcome, Rejected)
    assert (outcome.kind, outcome.code, outcome.unlisted) == (kind, code, unlisted)


def test_the_detail_has_what_was_said_without_addresses() -> None:
    outcome = refusal(400, {"field": "to", "message": "jane@inbox.example is bad"}, {"field": "x", "message": "too"})
    assert isinstance(outcome, Rejected)
    assert outcome.detail == "(address) is bad; too"


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"X-RateLimit-Reset": str(int(NOW.timestamp()) + 42)}, 42.0),
        ({"X-RateLimit-Reset": str(int(NOW.timestamp()) - 5)}, 0.0),
        ({"X-RateLimit-Reset": "99999999999"}, 3600.0),
        ({"X-RateLimit-Reset": "soon"}, None),
        ({"X-RateLimit-Reset": "9" * 5000}, None),
        ({}, None),
    ],
)
def test_a_throttle_says_when_the_counter_begins_again(headers: dict[str, str], wait: float | None) -> None:
    outcome = refusal(429, {"message": "too many requests"}, headers=headers)
    assert outcome == Rejected("http429", "too many requests", "throttle", wait)


def test_the_sandbox_sends_nothing_and_that_is_the_accounts_trouble() -> None:
    outcome = refusal_of(httpx.Response(200), NOW)
    assert isinstance(outcome, Rejected)
    assert (outcome.kind, outcome.code) == ("account", "sandboxMode")


@pytest.mark.parametrize("status", [402, 409, 415, 422])
def test_a_refusal_that_is_in_no_list_is_charged_to_the_mail_as_a_throttle(status: int) -> None:
    outcome = refusal(status, {"field": None, "message": "new"})
    assert isinstance(outcome, Rejected)
    assert (outcome.kind, outcome.unlisted) == ("throttle", True)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, "account"), (403, "unreachable"), (407, "unreachable"), (413, "mail"), (421, "unreachable")],
)
def test_what_says_no_without_being_sendgrid(status: int, kind: str) -> None:
    outcome = refusal_of(httpx.Response(status, html="<p>ann@inbox.example is denied</p>"), NOW)
    assert isinstance(outcome, Rejected)
    assert (outcome.kind, outcome.detail) == (kind, "")


@pytest.mark.parametrize("status", [400, 404, 405, 406, 408, 409, 425, 499])
def test_any_other_4xx_that_is_not_from_sendgrid_is_unknown(status: int) -> None:
    for body in (b"no", b'{"errors": ["no"]}', b"[" * 100_000, b"\xff"):
        answer = httpx.Response(status, content=body)
        assert isinstance(refusal_of(answer, NOW), Unknown)


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, text="<html>Welcome to this network</html>"),
        httpx.Response(201),
        httpx.Response(204),
        httpx.Response(302, headers={"Location": "https://elsewhere.example"}),
        httpx.Response(500, json={"errors": [{"message": "try later"}]}),
        httpx.Response(502, text="Bad Gateway"),
        httpx.Response(503, json={"errors": [{"message": "try later"}]}),
        httpx.Response(504),
    ],
    ids=lambda answer: str(answer.status_code),
)
def test_whatever_may_hide_an_accepted_mail_is_unknown(answer: httpx.Response) -> None:
    assert isinstance(refusal_of(answer, NOW), Unknown)
