"""Whom an answer of Mailgun means: the account, one mail, or the way to it; and what says nothing at all."""

from __future__ import annotations

from datetime import UTC, datetime

import httpx
import pytest

from services.email.adapters.mailgun import accepted_as, refusal_of
from services.email.domain.outcomes import Rejected, Unknown

NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)
NOT_ALLOWED = "Domain mg.mailroom.example is not allowed to send: "


def refusal(status: int, message: str) -> Rejected | Unknown:
    """What is made of Mailgun's own answer."""
    return refusal_of(httpx.Response(status, json={"message": message}), NOW)


def test_a_200_with_an_id_and_queued_is_the_only_acceptance() -> None:
    answer = httpx.Response(200, json={"id": "<20261201.1@mg.mailroom.example>", "message": "Queued. Thank you."})
    assert accepted_as(answer) == "20261201.1@mg.mailroom.example"


@pytest.mark.parametrize(
    "said",
    [
        {"id": "<a@b>", "message": "Thank you."},
        {"id": "<a@b>"},
        {"message": "Queued. Thank you."},
        {"id": None, "message": "Queued. Thank you."},
        {"id": "<>", "message": "Queued. Thank you."},
        [],
    ],
)
def test_any_other_200_is_no_acceptance_and_may_hide_one(said: object) -> None:
    answer = httpx.Response(200, json=said)
    assert accepted_as(answer) is None
    assert isinstance(refusal_of(answer, NOW), Unknown)


def test_the_200_of_a_wrong_path_sent_nothing() -> None:
    answer = httpx.Response(200, text="Mailgun Magnificent API")
    assert accepted_as(answer) is None
    outcome = refusal_of(answer, NOW)
    assert isinstance(outcome, Rejected)
    assert (outcome.kind, outcome.code) == ("account", "wrongPath")


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, NOT_ALLOWED + "The domain is unverified and requires DNS configuration."),
        (400, NOT_ALLOWED + "Sandbox subdomains are for test purposes only."),
        (400, NOT_ALLOWED + "Please activate your Mailgun account."),
        (400, NOT_ALLOWED + "recipient limit exceeded"),
        (400, "Please activate your Mailgun account. Check your inbox."),
        (400, "Free accounts are for test purposes only."),
        (400, "Sending is disabled. Please contact support."),
        (402, NOT_ALLOWED + "recipient limit exceeded"),
        (403, "Domain mg.mailroom.example is not allowed to send large batches yet"),
        (403, "Rejected: IP 192.0.2.1 can't be used to send the message"),
        (404, "Domain not found: mg.mailroom.example"),
        (420, NOT_ALLOWED + "recipient limit exceeded"),
    ],
)
def test_what_is_about_domain_or_account_is_the_accounts(status: int, message: str) -> None:
    outcome = refusal(status, message)
    assert isinstance(outcome, Rejected)
    assert (outcome.kind, outcome.code, outcome.unlisted) == ("account", f"http{status}", False)


@pytest.mark.parametrize(
    "message",
    [
        "to parameter is not a valid address. please check documentation",
        "'to' parameter is not a valid address: account@your-account.example",
        "Header name must be pure ASCII: X-Account",
        "Send options (parameters starting with o:, h:, or v:) are limited to 16 kB total",
        "",
    ],
)
def test_any_other_400_is_the_mails(message: str) -> None:
    outcome = refusal(400, message)
    assert isinstance(outcome, Rejected)
    assert (outcome.kind, outcome.unlisted) == ("mail", False)
    assert "@" not in outcome.detail


@pytest.mark.parametrize(
    ("message", "wait"),
    [
        (NOT_ALLOWED + "request limit exceeded, try again after Tue, 01 Dec 2026 12:01:30 UTC", 90.0),
        (NOT_ALLOWED + "bytes limit exceeded, try again after Tue, 01 Dec 2026 11:00:00 UTC", 0.0),
        (NOT_ALLOWED + "recipient limit exceeded, try again after Mon, 07 Dec 2026 12:00:00 UTC", 3600.0),
        (NOT_ALLOWED + "request limit exceeded, try again after 120 seconds", 120.0),
        (NOT_ALLOWED + "request limit exceeded, try again after 1 second", 1.0),
        (NOT_ALLOWED + "request limit exceeded, try again after lunch", None),
        (NOT_ALLOWED + "request limit exceeded, try again after Tue, 99 Dec 2026 12:01:30 UTC", None),
        ("try again after Tue, 01 Dec 2026 12:01:30 +99999999999999", None),
        ("Too many requests", None),
    ],
)
def test_a_throttle_says_in_its_text_how_long_to_wait(message: str, wait: float | None) -> None:
    outcome = refusal(429, message)
    assert isinstance(outcome, Rejected)
    assert (outcome.kind, outcome.retry_after) == ("throttle", wait)


@pytest.mark.parametrize("status", [402, 409, 415, 422])
def test_a_refusal_that_is_in_no_list_is_charged_to_the_mail_as_a_throttle(status: int) -> None:
    outcome = refusal(status, "something new")
    assert isinstance(outcome, Rejected)
    assert (outcome.kind, outcome.unlisted) == ("throttle", True)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, "account"), (403, "unreachable"), (407, "unreachable"), (413, "mail"), (421, "unreachable")],
)
def test_what_says_no_without_mailguns_json(status: int, kind: str) -> None:
    outcome = refusal_of(httpx.Response(status, text="Forbidden"), NOW)
    assert isinstance(outcome, Rejected)
    assert (outcome.kind, outcome.detail) == (kind, "")


@pytest.mark.parametrize("status", [400, 404, 405, 408, 409, 425, 499])
def test_any_other_4xx_that_is_not_from_mailgun_is_unknown(status: int) -> None:
    for answer in (httpx.Response(status, text="no"), httpx.Response(status, json={"error": "no"})):
        assert isinstance(refusal_of(answer, NOW), Unknown)


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, text="<html>Welcome to this network</html>"),
        httpx.Response(202, json={"id": "<a@b>", "message": "Queued. Thank you."}),
        httpx.Response(302, headers={"Location": "https://elsewhere.example"}),
        httpx.Response(500, json={"message": "Internal Server Error"}),
        httpx.Response(502, text="Bad Gateway"),
        httpx.Response(503, json={"message": "request limit exceeded"}),
    ],
    ids=lambda answer: str(answer.status_code),
)
def test_whatever_may_hide_an_accepted_mail_is_unknown(answer: httpx.Response) -> None:
    assert accepted_as(answer) is None
    assert isinstance(refusal_of(answer, NOW), Unknown)
