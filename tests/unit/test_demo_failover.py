"""What the demo says of its failing provider: nothing is wrong with a fair run, and what is wrong, it finds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from deploy.local.demo.cases import Case, Run
from deploy.local.demo.doors import HttpDoor, KafkaDoor
from deploy.local.demo.failover import OTHERS, RETURNING, Failover, Wave, why
from deploy.local.simulator.client import SimulatorClient

NO = "AccountSuspendedException"


def attempt(name: str, provider: str, *passed_over: tuple[str, str]) -> dict[str, Any]:
    considered = [*passed_over, (provider, "chosen: the first in order"), ("smtp", "after the one that was chosen")]
    told = [{"provider": each, "why": said} for each, said in considered]
    return {"type": "attempt", "metadata": {"attemptId": name, "provider": provider, "considered": told}}


def refused(name: str, code: str = NO) -> dict[str, Any]:
    return {"type": "reject", "metadata": {"attemptId": name, "code": code}}


def delivered(provider: str, *events: dict[str, Any]) -> dict[str, Any]:
    """A mail as the API shows it."""
    tried = sum(each["type"] == "attempt" for each in events)
    recipients = [{"provider": provider, "attempts": tried}]
    return {"status": "delivered", "recipients": recipients, "events": list(events)}


SHOWN_AS_SES = "it is shown as carried by ['ses'], and sendgrid took it"
OF_ANOTHER = "its last attempt is another provider's than the one that took it"
SILENT = {"attemptId": "a", "provider": "sendgrid"}
UNEXPLAINED = "nothing says why sendgrid was asked"

FIRST = delivered("ses", attempt("a", "ses"))
OVER = delivered("sendgrid", attempt("a", "ses"), refused("a"), attempt("b", "sendgrid", ("ses", f"refuses ({NO})")))
PAST = delivered("sendgrid", attempt("a", "sendgrid", ("ses", f"it refuses everything now ({NO})")))


def case(name: str, found: dict[str, Any]) -> Case:
    return Case(name, "http", {}, {}, message_id=name, found=found)


def run(**changed: dict[str, Any]) -> Failover:
    """A fair run but for the mails named."""
    shown = {"well": FIRST, "over": OVER, "past": PAST} | changed
    made = Failover(Run("r", datetime.now(UTC)), *_unused(), 1)
    for name, through in (("well", ("ses",)), ("over", OTHERS), ("past", OTHERS)):
        made.failing.append(Wave(name, through, 1, cases=[case(name, shown[name])]))
    back = [case(f"back{number}", FIRST) for number in range(RETURNING)]
    made.returning.append(Wave("back", ("ses",), RETURNING, cases=back))
    return made


def _unused() -> tuple[HttpDoor, KafkaDoor, SimulatorClient]:
    return None, None, None  # type: ignore[return-value]  # nothing is sent here


def took(**changed: list[str]) -> dict[str, list[str]]:
    back = {f"back{number}": ["ses"] for number in range(RETURNING)}
    return {"well": ["ses"], "over": ["sendgrid"], "past": ["sendgrid"], **back, **changed}


def test_nothing_is_wrong_with_a_fair_run() -> None:
    assert run().problems(took()) == []


@pytest.mark.parametrize(
    ("accepted", "said"),
    [
        (took(over=[]), "over: the providers took 0 mails, not 1"),
        (took(over=["ses", "sendgrid"]), "over: the providers took 2 mails, not 1"),
        (took(well=["mailgun"]), "well: mailgun took it, not one of ses"),
        (took(back1=["sendgrid"]), "mail did not return to SES"),
    ],
)
def test_what_providers_took_is_counted(accepted: dict[str, list[str]], said: str) -> None:
    assert said in run().problems(accepted)


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        ({**OVER, "status": "sent"}, "status is sent, not delivered"),
        ({**OVER, "recipients": [{"provider": "ses", "attempts": 2}]}, SHOWN_AS_SES),
        (delivered("sendgrid", attempt("a", "ses")), OF_ANOTHER),
        (delivered("sendgrid", {**attempt("a", "sendgrid"), "metadata": SILENT}), UNEXPLAINED),
    ],
)  # fmt: skip
def test_what_is_shown_of_a_mail_is_held_against_who_took_it(shown: dict[str, Any], said: str) -> None:
    assert f"over: {said}" in run(over=shown).problems(took())


def test_each_mail_is_explained_in_a_line() -> None:
    assert why(case("well", FIRST)) == "it is the first in order"
    assert why(case("over", OVER)) == f"ses: said no ({NO})"
    assert why(case("past", PAST)) == f"ses: it refuses everything now ({NO})"
    late = delivered("sendgrid", attempt("a", "ses"), refused("a", "notCalled"), attempt("b", "sendgrid"))
    assert why(case("late", late)) == "ses: not called any more"
    assert why(case("none", {})) == "it was never attempted"
