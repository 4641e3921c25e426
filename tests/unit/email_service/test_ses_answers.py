"""Whom a refusal of SES means: the account and its sender, or one mail."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError

from services.email.adapters.ses import outcome_of
from services.email.domain.outcomes import Rejected

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
