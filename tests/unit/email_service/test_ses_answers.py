"""Whom a refusal means: the account and its sender, one mail, or the way to SES; and what says nothing at all."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError

from services.email.adapters.ses import outcome_of
from services.email.domain.outcomes import Rejected, Unknown

SENDER = "Mailroom <No-Reply@mailroom.example>"
SAID = "Email address is not verified. The following identities failed the check in region US-EAST-1: "


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        ("MessageRejected", SAID + "no-reply@mailroom.example", "account"),
        ("MessageRejected", SAID + "ann@inbox.example, Mailroom <no-reply@mailroom.example>", "account"),
        ("MessageRejected", SAID + "mailroom.example", "account"),
        ("MessageRejected", SAID + "ann@inbox.example", "mail"),
        ("MessageRejected", SAID + "not.no-reply@mailroom.example", "mail"),
        ("MessageRejected", "Transaction failed: no-reply@mailroom.example sent a virus.", "mail"),
        ("MessageRejected", "", "mail"),
        ("BadRequestException", SAID + "no-reply@mailroom.example", "mail"),
        ("MailFromDomainNotVerifiedException", "", "account"),
    ],
)
def test_a_sender_that_is_not_verified_is_the_accounts_trouble(code: str, message: str, kind: str) -> None:
    answer = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": 400}}
    outcome = outcome_of(ClientError(answer, "SendEmail"), SENDER)
    assert isinstance(outcome, Rejected)
    assert (outcome.kind, outcome.code) == (kind, code)
    assert "@" not in outcome.detail


def _answered(status: int, code: str, *, by_ses: bool, message: str = "no") -> Rejected | Unknown:
    """What botocore makes of an answer; only SES's own carries a request id."""
    metadata = {"HTTPStatusCode": status, "HTTPHeaders": {}} | ({"RequestId": "6b7c…"} if by_ses else {})
    return outcome_of(
        ClientError({"Error": {"Code": code, "Message": message}, "ResponseMetadata": metadata}, "S"), SENDER
    )


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "MessageRejected"), (400, "BadRequestException"), (413, "RequestEntityTooLargeException")],
)
def test_only_what_is_documented_as_the_mail_s_own_fault_fails_it(status: int, code: str) -> None:
    outcome = _answered(status, code, by_ses=True)
    assert isinstance(outcome, Rejected)
    assert (outcome.kind, outcome.unlisted) == ("mail", False)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "RequestExpired"),
        (403, "ForbiddenException"),
        (408, "RequestTimeoutException"),
        (418, "SomethingNew"),
        (499, ""),
    ],
)
def test_a_refusal_of_ses_that_is_in_no_list_is_charged_to_the_mail_as_a_throttle(status: int, code: str) -> None:
    outcome = _answered(status, code, by_ses=True)
    assert isinstance(outcome, Rejected)
    assert (outcome.kind, outcome.unlisted, outcome.code) == ("throttle", True, code or f"http{status}")


@pytest.mark.parametrize("status", [403, 407, 421])
def test_a_proxy_that_passes_nothing_on_is_a_refusal_of_the_way(status: int) -> None:
    outcome = _answered(status, str(status), by_ses=False, message="<html>Access to ann@inbox.example denied</html>")
    assert isinstance(outcome, Rejected)
    assert (outcome.kind, outcome.code, outcome.unlisted) == ("unreachable", f"http{status}", False)
    assert "@" not in outcome.detail


@pytest.mark.parametrize(
    ("status", "code"), [(400, "400"), (404, "404"), (408, "408"), (409, ""), (413, "413"), (425, "x"), (499, "499")]
)
def test_any_other_4xx_that_is_not_from_ses_is_unknown(status: int, code: str) -> None:
    assert isinstance(_answered(status, code, by_ses=False), Unknown)
