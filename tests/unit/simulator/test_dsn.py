"""Reports of mail servers as the simulator writes them, read by the adapter that reads real ones."""

from __future__ import annotations

import pytest

from contracts.registry import read_json
from deploy.local.simulator.dsn import report, reported
from services.email.adapters import dsn
from services.email.domain.correlation import Correlation, envelope_id, return_address
from services.email.domain.notifications import Json

MESSAGE, ATTEMPT = "0192f0c1-2b7a-7d3e-9c1a-5b8f3e2d1c0b", "0192f0c1-2b7a-7d3e-9c1a-5b8f3e2d1c0c"
SENDER = return_address(MESSAGE, ATTEMPT, "bounces.mailroom.example")
ENVID = f"ENVID={envelope_id(MESSAGE, ATTEMPT)}"
RAW = (
    f"From: no-reply@mailroom.example\r\nTo: bounce@inbox.example\r\nX-Mailroom-Message-Id: {MESSAGE}\r\n"
    f"X-Mailroom-Attempt-Id: {ATTEMPT}\r\nSubject: Hello\r\n\r\nhello\r\n"
).encode()


def facts(recipient: str, parameters: list[str], sender: str = SENDER) -> list[Json]:
    """What the adapter makes of all that is reported of a mail to this recipient."""
    found = []
    for _, whom, told in reported(SENDER, [recipient], parameters):
        delivered = dsn.unwrap(report(told, sender, whom, parameters, RAW))
        assert delivered.notification is not None, delivered.why_none
        named = dsn.correlate(delivered.notification)
        assert named == Correlation(MESSAGE, ATTEMPT, forgeable=True)
        found += [read_json(fact.to_bytes()) for fact in dsn.translate_dsn(delivered, named).facts]
    return found


@pytest.mark.parametrize(
    ("behaviour", "kind", "status"),
    [("bounce", "permanent", "5.1.1"), ("softbounce", "transient", "4.2.2"), ("latebounce", "permanent", "5.1.1")],
)
def test_a_bounce_is_read_as_one(behaviour: str, kind: str, status: str) -> None:
    (bounced,) = facts(f"{behaviour}@inbox.example", ["NOTIFY=FAILURE,DELAY", ENVID])
    assert bounced["type"] == "email.bounced"
    assert bounced["data"]["recipient"] == f"{behaviour}@inbox.example"
    assert (bounced["data"]["bounceType"], bounced["data"]["status"]) == (kind, status)


def test_a_delay_is_read_as_one_and_told_only_where_it_was_asked_for() -> None:
    (delayed,) = facts("delay@inbox.example", ["NOTIFY=FAILURE,DELAY", ENVID])
    assert delayed["type"] == "email.deliveryDelayed"
    assert facts("delay@inbox.example", ["NOTIFY=FAILURE", ENVID]) == []


def test_it_finds_the_attempt_by_the_return_address_or_by_the_mail_that_came_back() -> None:
    assert facts("bounce@inbox.example", []) != []
    assert facts("bounce@inbox.example", [], sender="no-reply@mailroom.example") != []


@pytest.mark.parametrize("parameters", [["NOTIFY=NEVER"], ["NOTIFY=SUCCESS"]])
def test_nobody_is_told_who_did_not_ask(parameters: list[str]) -> None:
    assert reported(SENDER, ["bounce@inbox.example"], parameters) == []


def test_a_mail_without_return_address_and_a_good_one_are_not_reported() -> None:
    assert reported("", ["bounce@inbox.example"], []) == []
    assert reported(SENDER, ["success@inbox.example", "blackhole@inbox.example"], []) == []
