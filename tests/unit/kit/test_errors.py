"""The error tree answers its one question for every error there is."""

import inspect
from typing import get_args

import pytest

from services.kit import errors

TREE = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, errors.MailroomError) and kind is not errors.MailroomError
]


@pytest.mark.parametrize("kind", TREE)
def test_every_error_is_drawn_and_answers(kind: type[errors.MailroomError]) -> None:
    assert kind.answer in get_args(errors.Answer)
    assert kind.__name__ in (errors.__doc__ or "")


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (errors.Unavailable("Kafka", "no answer"), "again"),
        (errors.AppendOutcomeUnknown("m1"), "again"),
        (errors.ExpectedVersionConflict("m1", 3), "again"),
        (errors.RefusedHere("accountSuspended"), "elsewhere"),
        (errors.PermanentError("notJson"), "never"),
        (errors.NotFound(), "never"),
        (errors.ServiceUnavailable("away"), "again"),
    ],
)
def test_answers(error: errors.MailroomError, answer: str) -> None:
    assert error.answer == answer


def test_messages_say_what_happened_and_what_to_do() -> None:
    assert str(errors.Unavailable("Kafka", "no broker answers")) == "Kafka: no broker answers"
    assert "read it back" in str(errors.AppendOutcomeUnknown("m1", "connection lost"))
    assert "version 5, not at 3" in str(errors.ExpectedVersionConflict("m1", 3, 5))
    assert str(errors.SettingsError(["A is not set.", "B is wrong."])).count("\n  - ") == 2


@pytest.mark.parametrize(
    ("details", "error"),
    [
        ([], "The request is not valid."),
        ([{"field": "to[0]", "message": "must be an address"}], "to[0]: must be an address."),
        ([{"message": "Give one or the other."}, {"field": "b"}], "Give one or the other (and 1 more problem)."),
        ([{"field": "a"}, {"field": "b"}, {"field": "c"}], "a: is not valid (and 2 more problems)."),
    ],
)
def test_what_is_wrong_first_is_said_in_the_error(details: list[errors.Detail], error: str) -> None:
    assert errors.InvalidRequest(details=details).error == error
    assert errors.InvalidRequest("Told otherwise.", details).error == "Told otherwise."


def test_the_first_hundred_details_are_kept_and_the_others_counted() -> None:
    few, many = ([{"field": f"f{n}"} for n in range(count)] for count in (100, 20_000))
    assert (len(errors.InvalidRequest(details=few).details), errors.InvalidRequest(details=few).omitted) == (100, 0)
    refused = errors.InvalidRequest(details=many, omitted=7)
    assert (len(refused.details), refused.omitted) == (100, 19_907)
    assert refused.error == "f0: is not valid (and 20,006 more problems)."


def test_answers_to_http_callers_carry_their_headers() -> None:
    assert errors.Unauthenticated("no token").headers == {"WWW-Authenticate": "Bearer"}
    assert errors.TooManyRequests("slow down", retry_after=7).headers == {"Retry-After": "7"}
    unavailable = errors.ServiceUnavailable("away", retry_after=3, details=[{"messageId": "m1"}])
    assert (unavailable.status, unavailable.headers, unavailable.details) == (
        503,
        {"Retry-After": "3"},
        [{"messageId": "m1"}],
    )
