"""Requests, cancels and settling: by notifications and by operators."""

from __future__ import annotations

from datetime import timedelta

import pytest

from contracts.base import Money
from contracts.email.events import EmailAttemptSettled, EmailCancelled, EmailFailed, EmailSendRejected
from services.email.domain.commands import Cancel, Command, Fail, Request, SettleByFact, SettleByOperator, TimeOut
from services.email.domain.decisions import ready
from services.email.domain.message import Absent
from services.kit.errors import PermanentError
from tests.unit.email_service.mail import (
    COST,
    NOW,
    SILENCE,
    THROTTLED,
    UNCALLED,
    YES,
    MailSpec,
    given,
    heard,
    requested,
)

A = "a@example.com"


def fact(attempt_id: str | None = "t1", recipient: str = A, provider: str = "ses") -> SettleByFact:
    return SettleByFact("fact-1", recipient, provider, attempt_id, "ses-9", 900, COST)


def by_operator(outcome: str, attempt_id: str = "t1") -> SettleByOperator:
    return SettleByOperator(attempt_id, outcome, "looked at the console", "admin:ops")  # type: ignore[arg-type]


def unknown() -> MailSpec:
    mail = given()
    mail.plan("t1")
    mail.do(heard("t1", SILENCE))
    mail.wait(minutes=1)
    return mail


# --- requests and cancels ----------------------------------------------------------------------------------------


def test_a_repeat_says_nothing_and_another_content_is_a_conflict() -> None:
    mail = given()
    assert mail.do(Request(requested())) == []
    with pytest.raises(PermanentError, match="conflictingRepeat"):
        mail.do(Request(requested(request_hash="h2")))


def test_a_request_that_cannot_be_rendered_fails_for_everybody_at_once() -> None:
    mail = MailSpec()
    mail.do(Request(requested(to=[A, "b@example.com"], content=None), ("renderingFailed", "no such template")))
    assert mail.types == ["email.requested", "email.failed", "email.failed"]
    assert ready(mail.state, mail.now, mail.policy) == ()


@pytest.mark.parametrize("actor", ["user:u1", "admin:boss", "service:crm", None])
def test_a_cancel_that_came_first_counts_if_its_actor_may(actor: str | None) -> None:
    mail = MailSpec()
    mail.do(Cancel(actor, "changed my mind"))
    assert mail.types == ["email.cancelled"]
    mail.do(Request(requested()))
    assert mail.types == ["email.cancelled", "email.requested", "email.failed"]
    assert mail.phase() == "Failed"


@pytest.mark.parametrize("actor", ["user:u2", "u1", "user:", ""])
def test_a_cancel_by_a_stranger_never_counts(actor: str) -> None:
    early = MailSpec()
    early.do(Cancel(actor), Request(requested()))
    assert early.phase() == "Queued"
    late = given()
    assert late.do(Cancel(actor)) == []


def test_a_stranger_cannot_hide_the_owner_s_cancel() -> None:
    mail = MailSpec()
    mail.do(Cancel("user:u2"), Cancel("user:u2"), Cancel("user:u1"), Request(requested()))
    assert mail.types[:3] == ["email.cancelled", "email.cancelled", "email.requested"]
    assert mail.phase() == "Failed"


def test_a_cancel_stops_the_queued_and_lets_the_others_end() -> None:
    mail = given(to=[f"r{n}@example.com" for n in range(12)])
    mail.plan(*(f"t{n}" for n in range(10)))
    mail.do(heard("t0", YES))
    cancelled, *failed = mail.do(Cancel("user:u1"))
    assert isinstance(cancelled, EmailCancelled)
    assert [data.recipient for data in failed if isinstance(data, EmailFailed)] == [
        "r10@example.com",
        "r11@example.com",
    ]
    assert mail.do(Cancel("user:u1")) == []
    rejected, ended = mail.do(heard("t1", THROTTLED))
    assert isinstance(rejected, EmailSendRejected)
    assert ended == EmailFailed(recipient="r1@example.com", reason="cancelled", detail=THROTTLED.code)


def test_there_is_nothing_to_cancel_when_all_is_over() -> None:
    mail = given()
    mail.plan("t1")
    mail.do(heard("t1", YES))
    assert mail.do(Cancel("user:u1")) == []


@pytest.mark.parametrize("command", [heard("t1", YES), fact(), by_operator("accepted"), TimeOut(), Fail("invalid")])
def test_nothing_happens_to_what_was_never_requested(command: Command) -> None:
    mail = MailSpec()
    assert mail.do(command) == []
    assert mail.state == Absent()


# --- settling ----------------------------------------------------------------------------------------------------


def test_a_fact_settles_an_open_and_an_unknown_attempt_as_accepted_once() -> None:
    for mail in (given(), unknown()):
        if not ready(mail.state, mail.now, mail.policy):
            assert mail.phase() == "OutcomeUnknown"
        else:
            mail.plan("t1")
        (settled,) = mail.do(fact())
        assert isinstance(settled, EmailAttemptSettled)
        assert (settled.outcome, settled.by, settled.evidence) == ("accepted", "notification", "fact-1")
        assert settled.cost == Money(amount=100, currency="USD")
        assert mail.phase() == "Sent"
        assert mail.do(fact()) == []


def test_a_fact_about_an_answered_attempt_changes_nothing() -> None:
    mail = given()
    mail.plan("t1")
    mail.do(heard("t1", YES))
    assert mail.do(fact()) == []
    assert mail.do(fact("t9")) == []
    assert mail.do(fact(None)) == []


@pytest.mark.parametrize("outcome", [THROTTLED, UNCALLED, SILENCE])
def test_the_caller_s_late_answer_never_undoes_a_proof(outcome: object) -> None:
    mail = given()
    mail.plan("t1")
    mail.do(fact())
    late = mail.do(heard("t1", outcome))
    assert [type(data).__name__ for data in late] == ([] if outcome is SILENCE else ["EmailSendRejected"])
    assert mail.phase() == "Sent"
    mail.wait(hours=1)
    assert ready(mail.state, mail.now, mail.policy) == ()


def test_the_caller_s_late_yes_is_written_down_beside_the_proof() -> None:
    mail = given()
    mail.plan("t1")
    mail.do(fact())
    assert [type(data).__name__ for data in mail.do(heard("t1", YES))] == ["EmailSent"]


def test_a_fact_without_attempt_settles_the_recipient_s_unanswered_one() -> None:
    mail = given()
    mail.plan("t1")
    mail.do(heard("t1", THROTTLED))
    mail.wait(minutes=5)
    mail.plan("t2")
    (settled,) = mail.do(fact(None))
    assert isinstance(settled, EmailAttemptSettled)
    assert settled.attempt_id == "t2"
    assert unknown().do(fact(None, recipient="stranger@example.com")) == []
    assert unknown().do(fact(None, provider="mailgun")) == []


def test_a_fact_that_contradicts_a_no_stops_the_retry() -> None:
    mail = given()
    mail.plan("t1")
    mail.do(heard("t1", THROTTLED), fact())
    assert mail.phase() == "Sent"


def test_a_fact_wins_over_failed_outcome_unknown() -> None:
    mail = unknown()
    mail.wait(hours=24)
    mail.do(TimeOut())
    assert mail.phase() == "Failed"
    mail.do(fact())
    assert mail.phase() == "Sent"


def test_an_operator_s_no_allows_another_attempt() -> None:
    mail = unknown()
    mail.do(by_operator("notAccepted"))
    assert mail.phase() == "Queued"
    mail.plan("t2")
    mail.do(fact("t1"))  # the operator was wrong
    assert mail.phase() == "Sent"
    assert mail.do(heard("t2", THROTTLED)) != []
    assert mail.phase() == "Sent"


def test_a_late_no_of_an_older_attempt_does_not_end_the_open_one() -> None:
    mail = unknown()
    mail.do(by_operator("notAccepted"))
    mail.plan("t2")
    mail.do(heard("t1", THROTTLED))
    assert mail.phase() == "Open"
    mail.wait(minutes=20)
    assert ready(mail.state, mail.now, mail.policy) == ()


def test_an_operator_settles_only_after_the_call_must_be_over_and_only_the_unknown() -> None:
    mail = given()
    mail.plan("t1")
    with pytest.raises(PermanentError, match="callMayBeUnderWay"):
        mail.do(by_operator("notAccepted"))
    mail.do(heard("t1", YES))
    mail.wait(minutes=1)
    with pytest.raises(PermanentError, match="notUnknown"):
        mail.do(by_operator("notAccepted"))
    with pytest.raises(PermanentError, match="notUnknown"):
        mail.do(by_operator("notAccepted", "t9"))


def test_what_had_ended_is_not_sent_after_all() -> None:
    mail = unknown()
    mail.wait(hours=24)
    mail.do(TimeOut())
    settled, failed = mail.do(by_operator("notAccepted"))
    assert isinstance(settled, EmailAttemptSettled)
    assert failed == EmailFailed(recipient=A, reason="expired")
    assert mail.phase() == "Failed"


@pytest.mark.parametrize(("spoil", "reason"), [("cancel", "cancelled"), ("expire", "expired")])
def test_an_operator_s_no_does_not_revive_what_was_stopped(spoil: str, reason: str) -> None:
    mail = given(expires_at=NOW + timedelta(hours=1))
    mail.plan("t1")
    mail.do(heard("t1", SILENCE))
    mail.wait(minutes=2)
    if spoil == "cancel":
        mail.do(Cancel("user:u1"))
    else:
        mail.wait(hours=1)
    _, failed = mail.do(by_operator("notAccepted"))
    assert isinstance(failed, EmailFailed)
    assert failed.reason == reason
