"""Attempts, their outcomes and time: what the decider licenses, and what it writes down whatever comes."""

from __future__ import annotations

from datetime import timedelta

import pytest

from contracts.email.events import EmailFailed, EmailSendAttempted, EmailSendRejected, EmailSent
from services.email.domain.commands import Expire, PlanAttempts, TimeOut
from services.email.domain.decisions import WAVE, backoff, ready
from services.email.domain.message import Policy, due_at, is_live, lookups
from services.email.domain.outcomes import Rejected
from services.kit.errors import PermanentError
from tests.unit.email_service.mail import (
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

A = "a@example.com"
MANY = [f"r{n}@example.com" for n in range(25)]


def test_a_queued_delivery_is_licensed_once() -> None:
    mail = given()
    (attempted,) = mail.plan("t1")
    assert isinstance(attempted, EmailSendAttempted)
    assert mail.phase() == "Open"
    assert ready(mail.state, mail.now, mail.policy) == ()
    for provider in ("ses", "mailgun"):
        with pytest.raises(PermanentError, match="notReady"):
            mail.do(plan_for([(A, "t2")], provider))


def test_an_attempt_id_is_good_for_one_attempt() -> None:
    mail = given()
    mail.plan("t1")
    mail.do(heard("t1", UNCALLED))
    with pytest.raises(PermanentError, match="notReady"):
        mail.plan("t1")


def test_an_accepted_attempt_ends_the_delivery_and_is_found_by_its_provider_id() -> None:
    mail = given()
    mail.plan("t1")
    (sent,) = mail.do(heard("t1", YES))
    assert isinstance(sent, EmailSent)
    assert mail.phase() == "Sent"
    assert due_at(mail.state, POLICY) is None
    assert lookups(mail.state) == ("ses:ses-t1",)
    assert not is_live(mail.state)


def test_the_same_answer_twice_is_one_event() -> None:
    mail = given()
    mail.plan("t1")
    mail.do(heard("t1", YES))
    assert mail.do(heard("t1", YES)) == []
    assert mail.do(heard("t1", THROTTLED)) == []


@pytest.mark.parametrize("refusal", [THROTTLED, SUSPENDED, UNCALLED])
def test_what_says_not_taken_allows_another_attempt(refusal: object) -> None:
    mail = given()
    mail.plan("t1")
    (rejected,) = mail.do(heard("t1", refusal))
    assert isinstance(rejected, EmailSendRejected)
    assert rejected.next == "retry"
    mail.wait(minutes=20)
    mail.plan("t2")
    assert mail.phase() == "Open"


def test_only_throttling_uses_up_the_budget() -> None:
    mail = MailSpec(policy=Policy(attempts_limit=2))
    mail = _requested(mail)
    for n in range(6):
        mail.plan(f"a{n}")
        mail.do(heard(f"a{n}", SUSPENDED if n % 2 else UNCALLED))
    mail.plan("t1")
    mail.do(heard("t1", THROTTLED))
    mail.wait(minutes=11)
    mail.plan("t2")
    rejected, failed = mail.do(heard("t2", THROTTLED))
    assert isinstance(rejected, EmailSendRejected)
    assert rejected.next == "giveUp"
    assert failed == EmailFailed(recipient=A, reason="attemptsExhausted", detail=THROTTLED.code)


def test_a_refused_mail_is_over() -> None:
    mail = given()
    mail.plan("t1")
    rejected, failed = mail.do(heard("t1", REFUSED))
    assert isinstance(rejected, EmailSendRejected)
    assert isinstance(failed, EmailFailed)
    assert (rejected.next, failed.reason, mail.phase()) == ("giveUp", "rejected", "Failed")


def test_the_provider_says_when_to_come_back() -> None:
    mail = given()
    mail.plan("t1")
    mail.do(heard("t1", Rejected("Throttling", "", "throttle", retry_after=90.0)))
    assert due_at(mail.state, POLICY) == mail.now + timedelta(seconds=90)


def test_backoff_doubles_to_its_limit_with_a_spread() -> None:
    pauses = [backoff(spent, "salt", POLICY) for spent in range(1, 40)]
    assert all(POLICY.first_backoff / 2 <= pause <= POLICY.longest_backoff for pause in pauses)
    assert pauses == sorted(pauses)
    assert len({backoff(5, f"s{n}", POLICY) for n in range(50)}) > 40


def test_silence_is_never_sent_again() -> None:
    mail = given()
    mail.plan("t1")
    mail.do(heard("t1", SILENCE))
    assert mail.phase() == "OutcomeUnknown"
    mail.wait(hours=23)
    assert ready(mail.state, mail.now, mail.policy) == ()
    assert mail.do(TimeOut()) == []


def test_an_attempt_left_alone_becomes_unknown_when_its_call_must_be_over() -> None:
    mail = given()
    mail.plan("t1")
    assert due_at(mail.state, POLICY) == mail.now + POLICY.call_window
    mail.wait(seconds=29)
    assert mail.do(TimeOut()) == []
    mail.wait(seconds=1)
    assert [type(data).__name__ for data in mail.do(TimeOut())] == ["EmailSendOutcomeUnknown"]
    assert mail.do(TimeOut()) == []


@pytest.mark.parametrize(("category", "after"), [("auth", timedelta(minutes=10)), ("notification", timedelta(days=1))])
def test_an_unknown_attempt_ends_as_failed(category: str, after: timedelta) -> None:
    mail = given(category=category)
    mail.plan("t1")
    mail.do(heard("t1", SILENCE))
    assert due_at(mail.state, POLICY) == mail.now + after
    mail.wait(seconds=after.total_seconds() - 1)
    assert mail.do(TimeOut()) == []
    mail.wait(seconds=1)
    assert mail.do(TimeOut()) == [EmailFailed(recipient=A, reason="outcomeUnknown")]
    assert due_at(mail.state, POLICY) is None


def test_a_late_yes_counts_even_after_the_end() -> None:
    mail = given()
    mail.plan("t1")
    mail.wait(hours=1)
    mail.do(TimeOut())
    mail.wait(hours=25)
    mail.do(TimeOut())
    assert mail.phase() == "Failed"
    mail.do(heard("t1", YES))
    assert mail.phase() == "Sent"


def test_a_late_no_makes_an_unknown_delivery_queued_again_but_not_a_failed_one() -> None:
    mail = given()
    mail.plan("t1")
    mail.wait(minutes=1)
    mail.do(TimeOut(), heard("t1", THROTTLED))
    assert mail.phase() == "Queued"
    failed = given()
    failed.plan("t1")
    failed.wait(minutes=1)
    failed.do(TimeOut())
    failed.wait(hours=24)
    failed.do(TimeOut())
    (rejected,) = failed.do(heard("t1", THROTTLED))
    assert isinstance(rejected, EmailSendRejected)
    assert (rejected.next, failed.phase()) == ("giveUp", "Failed")


def test_waves_of_ten_one_after_the_other() -> None:
    mail = given(to=MANY[:20], cc=MANY[20:])
    first = ready(mail.state, mail.now, mail.policy)
    assert len(first) == WAVE
    mail.plan(*(f"t{n}" for n in range(WAVE)))
    assert ready(mail.state, mail.now, mail.policy) == ()
    mail.do(*(heard(f"t{n}", YES) for n in range(WAVE - 1)))
    assert ready(mail.state, mail.now, mail.policy) == ()
    mail.do(heard(f"t{WAVE - 1}", SILENCE))
    assert ready(mail.state, mail.now, mail.policy) == tuple(MANY[10:20])


def test_a_suppressed_recipient_fails_in_the_append_that_licenses_the_others() -> None:
    mail = given(to=MANY[:3])
    plan = PlanAttempts(plan_for([(MANY[0], "t0"), (MANY[2], "t2")]).attempts, {MANY[1]: "complaint"})
    failed, *licences = mail.do(plan)
    assert failed == EmailFailed(recipient=MANY[1], reason="suppressed", detail="complaint")
    assert [type(data).__name__ for data in licences] == ["EmailSendAttempted"] * 2


def test_send_at_makes_it_due_later_and_expires_at_ends_it() -> None:
    mail = given(send_at=NOW + timedelta(hours=1), expires_at=NOW + timedelta(hours=2))
    assert due_at(mail.state, POLICY) == NOW + timedelta(hours=1)
    assert ready(mail.state, mail.now, mail.policy) == ()
    assert mail.do(Expire()) == []
    mail.wait(hours=1)
    assert ready(mail.state, mail.now, mail.policy) == (A,)
    mail.wait(hours=1)
    assert ready(mail.state, mail.now, mail.policy) == ()
    assert mail.do(Expire()) == [EmailFailed(recipient=A, reason="expired")]


def test_a_retry_that_would_come_after_the_end_is_due_at_the_end() -> None:
    mail = given(expires_at=NOW + timedelta(seconds=10))
    mail.plan("t1")
    mail.do(heard("t1", Rejected("Throttling", "", "throttle", retry_after=90.0)))
    assert due_at(mail.state, POLICY) == NOW + timedelta(seconds=10)


def test_a_no_after_the_end_is_not_tried_again() -> None:
    mail = given(expires_at=NOW + timedelta(seconds=10))
    mail.plan("t1")
    mail.wait(seconds=11)
    rejected, failed = mail.do(heard("t1", THROTTLED))
    assert isinstance(rejected, EmailSendRejected)
    assert rejected.next == "giveUp"
    assert failed == EmailFailed(recipient=A, reason="expired", detail=THROTTLED.code)


def _requested(mail: MailSpec) -> MailSpec:
    other = given()
    mail.stream, mail.now = other.stream, other.now
    return mail
