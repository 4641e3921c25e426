"""The judge itself: it finds nothing wrong with a fair run, and each thing that can be wrong, it finds."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import bson
import pytest
from bson.codec_options import CodecOptions

from contracts.email.events import Considered, EmailDelivered, EmailSendAttempted
from services.email.domain.correlation import ATTEMPT_TAG, MESSAGE_TAG
from services.events.adapters.mongo_documents import to_document
from services.events.ports import Write
from services.events.projections import email_log
from services.events.projections.known import Known, add
from services.events.reader import read_event
from tests.e2e.judge import Entry, Evidence, Expected, problems
from tests.unit.events_service import events as make

MESSAGE, ANN, BOB = make.MESSAGE, make.ANN, make.BOB
EXPECTED = Expected({MESSAGE: frozenset({ANN})})
DATES: CodecOptions[dict[str, Any]] = CodecOptions(tz_aware=True)


def entries(*data: Any, start: int = 0) -> list[Entry]:
    """One log of these events, in one partition."""
    log = make.Log()
    return [Entry(3, start + n, MESSAGE.encode(), log.raw(each)) for n, each in enumerate(data)]


def evidence(*data: Any) -> Evidence:
    """A fair run that left these events: the stream, the read model and the provider's log agree with them."""
    log = entries(*data)
    events = [json.loads(entry.value or b"") for entry in log]
    decisions = [
        (entry.value or b"").decode() for entry, event in zip(log, events, strict=True) if "streamversion" in event
    ]
    attempts = [event["data"] for event in events if event["type"] == "email.sendAttempted"]
    accepted = {event["data"]["attemptId"] for event in events if event["type"] in ("email.sent", "email.delivered")}
    return Evidence(
        acceptances=[acceptance(each) for each in attempts if each["attemptId"] in accepted],
        notifications=[
            {"eventType": "Delivery", "providerMessageId": f"ses-{each['attemptId']}", "faults": []}
            for each in attempts
            if each["attemptId"] in accepted
        ],
        log=log,
        documents={MESSAGE: document(log)},
        streams={MESSAGE: {"version": len(decisions), "published": len(decisions), "events": decisions}},
    )


def acceptance(attempt: dict[str, Any]) -> dict[str, Any]:
    return {
        "providerMessageId": f"ses-{attempt['attemptId']}",
        "destination": [attempt["recipient"]],
        "tags": {MESSAGE_TAG: MESSAGE, ATTEMPT_TAG: attempt["attemptId"]},
    }


def document(log: list[Entry]) -> dict[str, Any]:
    known: Known = {}
    for entry in log:
        add(known, read_event(entry.value, entry.partition, entry.offset))
    ordered = sorted(known.values())
    stored = to_document(Write(MESSAGE, 0, ordered, (), False, email_log.fold(ordered)))
    return bson.decode(bson.encode(stored), DATES)


def delivered(attempt: str = "a1") -> Any:
    return make.fact(EmailDelivered, attempt_id=attempt, provider_message_id=f"ses-{attempt}")


def fair() -> Evidence:
    return evidence(make.requested(), make.attempted(), make.sent(), delivered())


def test_a_fair_run_has_no_contradiction() -> None:
    assert problems(fair(), EXPECTED) == []


@pytest.mark.parametrize(
    "events",
    [
        (make.attempted(), make.unknown(), make.settled("accepted"), delivered()),
        (make.failed("suppressed"),),
        (make.attempted(), make.refused(), make.failed("attemptsExhausted")),
        (make.attempted(), make.refused(), make.attempted("a2"), make.sent("a2"), delivered("a2")),
    ],
)
def test_other_fair_ends(events: tuple[Any, ...]) -> None:
    assert problems(evidence(make.requested(), *events), replace(EXPECTED, kills=1)) == []


def test_an_acceptance_without_notification_may_stay_unknown() -> None:
    silent = "blackhole@example.com"
    found = evidence(make.requested(silent), make.attempted(recipient=silent), make.unknown(recipient=silent))
    found = replace(found, acceptances=[acceptance({"attemptId": "a1", "recipient": silent})])
    assert problems(found, Expected({MESSAGE: frozenset({silent})}, kills=1)) == []


def only(found: list[str], *said: str) -> None:
    assert found, "nothing was found"
    assert all(any(part in each for part in said) for each in found), found


def test_a_delivery_accepted_twice() -> None:
    run = fair()
    only(problems(replace(run, acceptances=[*run.acceptances, *run.acceptances]), EXPECTED), "accepted 2 times")


def test_an_acknowledged_message_that_is_nowhere() -> None:
    only(problems(Evidence(), EXPECTED), "is not on the log")


def test_other_recipients_than_asked_for() -> None:
    only(problems(fair(), Expected({MESSAGE: frozenset({ANN, BOB})})), "other recipients")


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ((), "ends queued"),
        ((make.attempted(),), "ends open"),
        ((make.attempted(), make.refused()), "ends queued"),
    ],
)
def test_a_delivery_without_end(events: tuple[Any, ...], said: str) -> None:
    only(problems(evidence(make.requested(), *events), EXPECTED), said)


def test_unknown_without_a_kill() -> None:
    run = evidence(make.requested(), make.attempted(), make.unknown())
    only(problems(run, EXPECTED), "1 attempts had no answer")


def test_an_acceptance_without_attempt_on_the_log() -> None:
    run = fair()
    extra = acceptance({"attemptId": "a9", "recipient": BOB})
    only(problems(replace(run, acceptances=[*run.acceptances, extra]), EXPECTED), "not on the log (a9)")


def test_an_accepted_delivery_that_ends_as_rejected() -> None:
    run = evidence(make.requested(), make.attempted(), make.refused(), make.failed("rejected"))
    run = replace(run, acceptances=[acceptance({"attemptId": "a1", "recipient": ANN})])
    only(problems(run, EXPECTED), "was accepted and ends failed")


def test_a_success_that_the_provider_knows_nothing_of() -> None:
    only(problems(replace(fair(), acceptances=[]), EXPECTED), "which nobody accepted")


def test_an_acceptance_by_another_provider_than_the_attempt_s() -> None:
    run = fair()
    elsewhere = {**run.acceptances[0], "provider": "mailgun"}
    only(problems(replace(run, acceptances=[elsewhere]), EXPECTED), "mailgun accepted a1, which is ses's")


@pytest.mark.parametrize("first", [(), (make.unknown(),), (make.sent(),)])
def test_another_attempt_without_a_no(first: tuple[Any, ...]) -> None:
    run = evidence(make.requested(), make.attempted(), *first, make.attempted("a2"), make.sent("a2"), delivered("a2"))
    run = replace(run, acceptances=run.acceptances[-1:], notifications=run.notifications[-1:])
    found = problems(run, replace(EXPECTED, kills=1))
    assert f"{MESSAGE}: a2 began though an earlier attempt for it had no no" in found


def once_more(*before: Any, category: str = "auth", provider: str = "mailgun") -> tuple[list[str], list[str]]:
    """What is wrong with a run whose a2 is a resend after these, where operators asked for that, and where not."""
    again = make.attempted("a2", provider=provider, reason="resend")
    after = (again, make.sent("a2", provider=provider), delivered("a2"))
    run = evidence(make.requested(category=category), *before, *after)
    carried_by = {each.attempt_id: each.provider for each in (*before, again) if isinstance(each, EmailSendAttempted)}
    run = replace(
        run,
        acceptances=[{**each, "provider": carried_by[each["tags"][ATTEMPT_TAG]]} for each in run.acceptances],
    )
    expected = replace(EXPECTED, kills=1)
    return problems(run, replace(expected, resends=True)), problems(run, expected)


def test_a_resend_is_fair_where_operators_asked_for_it_and_nowhere_else() -> None:
    asked, unasked = once_more(make.attempted(), make.unknown())
    assert asked == []
    only(unasked, "a2 is a resend that nobody asked for")
    other_category, _ = once_more(make.attempted(), make.unknown(), category="notification")
    only(other_category, "a2 is a resend that nobody asked for")


def test_both_attempts_may_be_taken_where_the_second_is_a_resend_and_neither_twice() -> None:
    silence = (make.requested(category="auth"), make.attempted(), make.unknown())
    again = make.attempted("a2", provider="mailgun", reason="resend")
    run = evidence(*silence, again, make.sent("a2", provider="mailgun"), make.settled("accepted"), delivered("a2"))
    first = acceptance({"attemptId": "a1", "recipient": ANN})
    second = acceptance({"attemptId": "a2", "recipient": ANN}) | {"provider": "mailgun"}
    expected = replace(EXPECTED, kills=1, resends=True)
    assert problems(replace(run, acceptances=[first, second]), expected) == []
    for twice in ([first, second, second], [first, first, second]):
        only(problems(replace(run, acceptances=twice), expected), "accepted 2 times")


@pytest.mark.parametrize(
    ("before", "provider"),
    [
        ((), "mailgun"),
        ((make.attempted(),), "mailgun"),
        ((make.attempted(), make.refused()), "mailgun"),
        ((make.attempted(), make.unknown(), make.settled("accepted")), "mailgun"),
        ((make.attempted(), make.unknown()), "ses"),
        (
            (
                make.attempted(),
                make.unknown(),
                make.attempted("a3", provider="sendgrid", reason="resend"),
                make.unknown("a3"),
            ),
            "mailgun",
        ),
    ],
    ids=["first", "open", "refused", "accepted", "same provider", "resent before"],
)
def test_a_resend_that_earlier_attempts_do_not_allow(before: tuple[Any, ...], provider: str) -> None:
    asked, _ = once_more(*before, provider=provider)
    assert f"{MESSAGE}: a2 is a resend that earlier attempts did not allow" in asked


def test_a_resend_after_one_that_was_refused_is_fair() -> None:
    refused = (make.attempted("a3", provider="sendgrid", reason="resend"), make.refused("a3"))
    asked, _ = once_more(make.attempted(), make.unknown(), *refused)
    assert asked == []


def test_an_attempt_that_nothing_explains_where_there_are_several_providers() -> None:
    several = replace(EXPECTED, several=True)
    only(problems(fair(), several), "nothing says why a1 went to ses")
    attempt = make.attempted()
    for provider, said in (("ses", ""), ("mailgun", "nothing says why a1 went to ses")):
        told = [Considered(provider=provider, why="chosen: the first in order")]
        found = problems(
            evidence(make.requested(), attempt.model_copy(update={"considered": told}), make.sent(), delivered()),
            several,
        )
        assert [said in each for each in found] == [True] * bool(said), found


def test_an_acceptance_of_which_nothing_was_told_may_stay_unknown_where_providers_are_silent() -> None:
    run = evidence(make.requested(), make.attempted(), make.unknown())
    run = replace(run, acceptances=[acceptance({"attemptId": "a1", "recipient": ANN})])
    silent = replace(EXPECTED, kills=1, unreported=True)
    assert problems(run, silent) == []
    only(problems(run, replace(EXPECTED, kills=1)), "was accepted and ends unknown")
    told = [{"eventType": "Unsubscribed", "providerMessageId": "ses-a1", "faults": []}]
    only(problems(replace(run, notifications=told), silent), "was accepted and ends unknown")


def test_a_notification_that_became_no_fact() -> None:
    run = evidence(make.requested(), make.attempted(), make.sent())
    lost = {"eventType": "Delivery", "providerMessageId": "ses-a1", "faults": []}
    only(problems(replace(run, notifications=[lost]), EXPECTED), "became no fact")


def test_a_fact_that_is_not_in_the_read_model() -> None:
    run = fair()
    only(
        problems(replace(run, documents={MESSAGE: document(list(run.log[:-1]))}), EXPECTED),
        "events, the log has",
        "not the fold",
    )


def test_no_document_at_all() -> None:
    only(problems(replace(fair(), documents={}), EXPECTED), "no document")


def test_a_wrong_origin() -> None:
    run = fair()
    moved = document([replace(entry, offset=entry.offset + 1) for entry in run.log])
    only(problems(replace(run, documents={MESSAGE: moved}), EXPECTED), "other content or origin")


def test_a_body_that_is_not_the_fold() -> None:
    run = fair()
    wrong = {**run.documents[MESSAGE], "status": "sent"}
    only(problems(replace(run, documents={MESSAGE: wrong}), EXPECTED), "not the fold of the log in status")


def test_a_document_that_remembers_a_later_copy_of_a_repeated_event() -> None:
    run = fair()
    again = Entry(3, 9, MESSAGE.encode(), run.log[-1].value)
    assert problems(replace(run, log=[*run.log, again]), EXPECTED) == []
    late = document([*run.log[:-1], again])
    only(problems(replace(run, log=[*run.log, again], documents={MESSAGE: late}), EXPECTED), "other content or origin")


def test_a_stored_decision_that_was_not_published() -> None:
    run = fair()
    stream = run.streams[MESSAGE]
    longer = {**stream, "version": 4, "events": [*stream["events"], stream["events"][-1]]}
    found = problems(replace(run, streams={MESSAGE: longer}), EXPECTED)
    only(found, "are not the 4 of its stream", "counts 3 of 4")


def test_decisions_out_of_order() -> None:
    run = fair()
    first, second, *rest = run.log
    swapped = [replace(first, offset=1), replace(second, offset=0), *rest]
    run = replace(run, log=swapped, documents={MESSAGE: document(swapped)})
    only(problems(run, EXPECTED), "not on the log in their order")


def test_a_stream_that_still_waits_to_be_published() -> None:
    run = fair()
    waiting = {**run.streams[MESSAGE], "published": 2, "pending": True}
    only(problems(replace(run, streams={MESSAGE: waiting}), EXPECTED), "counts 2 of 3")


def test_two_messages_of_one_request() -> None:
    other = "0192f0c1-2b7a-7d3e-9c1a-5b8f3e2d1c0c"
    run = evidence(make.requested(tags={"n": "r-1"}), make.failed("suppressed"))
    second = [
        Entry(3, 50 + n, other.encode(), _of_another(entry.value or b"", other)) for n, entry in enumerate(run.log)
    ]
    found = problems(replace(run, log=[*run.log, *second]), EXPECTED)
    assert "request r-1 made 2 messages" in found


def _of_another(raw: bytes, message_id: str) -> bytes:
    return raw.replace(MESSAGE.encode(), message_id.encode()).replace(b'"event-', b'"other-')


def test_what_is_left_over() -> None:
    run = replace(fair(), parked=["email email.commands.low notJson"], lag={"intake": 3}, queues={"the queue": 1})
    found = problems(run, replace(EXPECTED, parked=["events email.events notJson"]))
    assert len(found) == 4
    only(found, "should not be", "should be parked, and is not", "3 records behind", "1 messages are left")
