"""Mail of an unknown outcome that is sent once more: when, through whom, and what comes of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from contracts.email.events import AttemptReason, EmailFailed, EmailSendAttempted, EmailSendRejected
from services.email.domain.commands import Cancel, PlanAttempts, SettleByFact, SettleByOperator, TimeOut
from services.email.domain.decisions import ready
from services.email.domain.message import Policy, due_at
from services.kit.errors import PermanentError
from tests.unit.email_service.mail import (
    COST,
    NOW,
    POLICY,
    REFUSED,
    SILENCE,
    SUSPENDED,
    THROTTLED,
    UNCALLED,
    YES,
    MailSpec,
    given,
    heard,
    plan_for,
)

RESENDING = Policy(resend=frozenset({"auth"}))
WHO = "a@example.com"
WAIT = RESENDING.resend_after.total_seconds()


def unknown(policy: Policy = RESENDING, **fields: Any) -> MailSpec:
    """A mail whose first attempt, through ses, got no answer."""
    mail = given(policy=policy, **({"category": "auth"} | fields))
    mail.plan("t1")
    mail.do(heard("t1", SILENCE))
    return mail


def waiting(mail: MailSpec) -> tuple[str, ...]:
    return ready(mail.state, mail.now, mail.policy)


def plan(mail: MailSpec, attempt_id: str, provider: str, reason: AttemptReason = "resend") -> list[Any]:
    return mail.do(plan_for([(WHO, attempt_id)], provider, reason))


def resent(**fields: Any) -> MailSpec:
    """The same, and its second attempt, through sendgrid, is open."""
    mail = unknown(**fields)
    mail.wait(seconds=WAIT + 1)
    plan(mail, "t2", "sendgrid")
    return mail


def test_after_the_wait_it_is_sent_once_more_through_another_provider() -> None:
    mail = unknown()
    assert waiting(mail) == ()
    due = due_at(mail.state, mail.policy)
    mail.wait(seconds=WAIT + 1)
    assert due is not None
    assert due <= mail.now
    assert waiting(mail) == (WHO,)
    (attempted,) = plan(mail, "t2", "sendgrid")
    assert isinstance(attempted, EmailSendAttempted)
    assert attempted.reason == "resend"
    assert mail.phase() == "Open"
    mail.do(heard("t2", YES))
    assert mail.phase() == "Sent"


def test_urgent_mail_waits_for_less() -> None:
    mail = unknown(priority="urgent")
    mail.wait(seconds=RESENDING.resend_after_urgent.total_seconds() + 1)
    assert waiting(mail) == (WHO,)


def test_no_call_may_be_under_way() -> None:
    hasty = Policy(resend=frozenset({"auth"}), resend_after=timedelta())
    mail = unknown(hasty)
    mail.wait(seconds=hasty.call_window.total_seconds() - 2)
    assert waiting(mail) == ()
    mail.wait(seconds=2)
    assert waiting(mail) == (WHO,)


@pytest.mark.parametrize(
    ("policy", "fields"),
    [
        (POLICY, {}),
        (RESENDING, {"category": "notification"}),
        (RESENDING, {"expires_at": NOW + timedelta(seconds=WAIT)}),
    ],
)
def test_it_is_held_unless_its_category_was_named_and_it_is_in_time(policy: Policy, fields: dict[str, Any]) -> None:
    mail = unknown(policy, **fields)
    for _ in range(30):
        mail.wait(seconds=60)
        assert waiting(mail) == ()
        with pytest.raises(PermanentError, match="may not be attempted now"):
            plan(mail, "t2", "sendgrid")


def test_a_cancelled_one_is_held() -> None:
    mail = unknown()
    mail.do(Cancel("user:u1"))
    mail.wait(seconds=WAIT + 1)
    assert waiting(mail) == ()


def test_the_provider_that_may_have_it_gets_it_no_second_time() -> None:
    mail = unknown()
    mail.wait(seconds=WAIT + 1)
    with pytest.raises(PermanentError, match="ses may have taken"):
        plan(mail, "t2", "ses")


@pytest.mark.parametrize("reason", ["cheapest", "failover"])
def test_it_says_that_it_is_one(reason: AttemptReason) -> None:
    mail = unknown()
    mail.wait(seconds=WAIT + 1)
    with pytest.raises(PermanentError, match="resend"):
        plan(mail, "t2", "sendgrid", reason)


def test_a_first_attempt_is_none() -> None:
    mail = given(policy=RESENDING, category="auth")
    with pytest.raises(PermanentError, match="resend"):
        plan(mail, "t1", "ses")


def test_it_does_not_fail_as_suppressed() -> None:
    mail = unknown()
    mail.wait(seconds=WAIT + 1)
    with pytest.raises(PermanentError, match="suppressed"):
        mail.do(PlanAttempts([], {WHO: "bounce"}))


def test_once_is_all() -> None:
    mail = resent()
    mail.do(heard("t2", SILENCE))
    assert mail.phase() == "OutcomeUnknown"
    for _ in range(3):
        mail.wait(seconds=WAIT + 1)
        assert waiting(mail) == ()
    mail.wait(minutes=10)
    (failed,) = mail.do(TimeOut())
    assert isinstance(failed, EmailFailed)
    assert failed.reason == "outcomeUnknown"


@pytest.mark.parametrize("late", ["t1", "t2"])
def test_once_is_all_though_one_of_both_turns_out_refused(late: str) -> None:
    mail = resent()
    mail.do(heard("t2", SILENCE), heard(late, THROTTLED))
    mail.wait(seconds=WAIT + 1)
    assert waiting(mail) == (() if late == "t1" else (WHO,))  # only where the second one was certainly not taken


@pytest.mark.parametrize("no", [THROTTLED, SUSPENDED, UNCALLED])
def test_what_is_refused_for_now_leaves_it_unknown_and_may_be_tried_again(no: Any) -> None:
    mail = resent()
    (rejected,) = mail.do(heard("t2", no))
    assert isinstance(rejected, EmailSendRejected)
    assert rejected.next == "retry"
    assert mail.phase() == "OutcomeUnknown"
    mail.wait(seconds=35)
    assert waiting(mail) == (WHO,)
    plan(mail, "t3", "mailgun")
    mail.do(heard("t3", YES))
    assert mail.phase() == "Sent"


def test_what_is_refused_for_good_leaves_it_unknown_and_no_more() -> None:
    mail = resent()
    (rejected,) = mail.do(heard("t2", REFUSED))
    assert isinstance(rejected, EmailSendRejected)
    assert rejected.next == "giveUp"
    assert mail.phase() == "OutcomeUnknown"
    mail.wait(seconds=WAIT + 1)
    assert waiting(mail) == ()
    mail.wait(minutes=10)
    mail.do(TimeOut())
    assert mail.phase() == "Failed"
    assert mail.types[-1] == "email.failed"


def test_a_report_of_the_first_one_stops_it() -> None:
    mail = unknown()
    mail.do(SettleByFact("f", WHO, "ses", "t1", "ses-1", 900, COST))
    mail.wait(seconds=WAIT + 1)
    assert waiting(mail) == ()
    assert mail.phase() == "Sent"


def test_both_are_written_down_where_both_were_taken() -> None:
    mail = resent()
    mail.do(SettleByFact("f", WHO, "ses", "t1", "ses-1", 900, COST), heard("t2", YES))
    assert mail.types[-2:] == ["email.attemptSettled", "email.sent"]
    mail = resent()
    mail.do(heard("t2", YES), SettleByFact("f", WHO, "ses", "t1", "ses-1", 900, COST))
    assert mail.types[-2:] == ["email.sent", "email.attemptSettled"]
    assert mail.phase() == "Sent"


def test_a_late_no_of_the_first_one_leaves_the_second_as_the_only_one() -> None:
    mail = resent()
    mail.do(heard("t1", THROTTLED))
    assert mail.phase() == "Open"
    mail.do(heard("t2", REFUSED))
    assert mail.phase() == "Failed"
    mail = resent()
    mail.do(heard("t2", REFUSED), heard("t1", THROTTLED))
    assert mail.phase() == "Queued"


@pytest.mark.parametrize("ended", [False, True])
def test_an_operator_s_word_on_one_of_two_ends_nothing(ended: bool) -> None:
    mail = resent()
    mail.do(heard("t2", SILENCE))
    mail.wait(minutes=11 if ended else 1)
    mail.do(TimeOut())
    before = mail.phase()
    mail.do(SettleByOperator("t2", "notAccepted", "console", "admin:ops"))
    assert mail.phase() == before == ("Failed" if ended else "OutcomeUnknown")
    assert mail.types[-1] == "email.attemptSettled"


def test_those_who_were_never_tried_go_first() -> None:
    mail = given(policy=RESENDING, category="auth", to=[WHO, "b@example.com"])
    mail.do(plan_for([(WHO, "t1"), ("b@example.com", "t2")]))
    mail.do(heard("t1", SILENCE), heard("t2", THROTTLED))
    mail.wait(seconds=WAIT + 1)
    assert waiting(mail) == ("b@example.com",)
