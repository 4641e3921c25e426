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


def test_answers_to_http_callers_carry_their_headers() -> None:
    assert errors.Unauthenticated("no token").headers == {"WWW-Authenticate": "Bearer"}
    assert errors.TooManyRequests("slow down", retry_after=7).headers == {"Retry-After": "7"}
    unavailable = errors.ServiceUnavailable("away", retry_after=3, details=[{"messageId": "m1"}])
    assert (unavailable.status, unavailable.headers, unavailable.details) == (
        503,
        {"Retry-After": "3"},
        [{"messageId": "m1"}],
    )
