"""Limits count recipients; faults strike whom, when and how often they were told to."""

import orjson
import pytest
from pydantic import ValidationError

from deploy.local.simulator import faults
from deploy.local.simulator.account import Account
from deploy.local.simulator.errors import SesError
from deploy.local.simulator.faults import Fault, Faults, malform


def test_the_rate_counts_recipients() -> None:
    account = Account(max_send_rate=10, max_24_hour_send=0, verified=())
    account.take(6)
    with pytest.raises(SesError) as caught:
        account.take(6)
    assert (caught.value.code, caught.value.status) == ("TooManyRequestsException", 429)
    account.take(4)


def test_what_was_refused_is_not_counted() -> None:
    account = Account(max_send_rate=1, max_24_hour_send=0, verified=())
    account.take(1)
    with pytest.raises(SesError):
        account.take(1)
    assert account.sent_last_24_hours() == 1


def test_the_quota_counts_recipients() -> None:
    account = Account(max_send_rate=0, max_24_hour_send=5, verified=())
    account.take(5)
    with pytest.raises(SesError) as caught:
        account.take(1)
    assert caught.value.code == "LimitExceededException"
    quota = account.describe(sending=True, healthy=True)["SendQuota"]
    assert quota == {"Max24HourSend": 5, "MaxSendRate": 100_000.0, "SentLast24Hours": 5.0}


@pytest.mark.parametrize("source", ["a@ok.example", "Name <who@OK.example>", "one@other.example"])
def test_verified_senders_may_send(source: str) -> None:
    Account(0, 0, ("ok.example", "one@other.example")).check_sender(source)


def test_others_may_not() -> None:
    with pytest.raises(SesError) as caught:
        Account(0, 0, ("ok.example",)).check_sender("a@not-ok.example")
    assert caught.value.code == "MailFromDomainNotVerifiedException"


def test_the_suppression_list_is_read_in_pages_and_by_reason() -> None:
    account = Account(0, 0, ())
    for number in range(5):
        account.suppress(f"R{number}@x.example", "BOUNCE" if number % 2 else "COMPLAINT")
    first = account.list_suppressed([], 2, None)
    second = account.list_suppressed([], 2, first["NextToken"])
    third = account.list_suppressed([], 2, second["NextToken"])
    pages = [row["EmailAddress"] for page in (first, second, third) for row in page["SuppressedDestinationSummaries"]]
    assert pages == [f"R{number}@x.example" for number in range(5)]
    assert "NextToken" not in third
    assert len(account.list_suppressed(["BOUNCE"], 10, None)["SuppressedDestinationSummaries"]) == 2
    assert account.on_list(("r1@X.example", "other@x.example")) == frozenset(["r1@X.example"])
    account.unsuppress("r1@x.example")
    assert account.on_list(("r1@x.example",)) == frozenset()


def strikes(rules: Faults, address: str = "a@x.example", times: int = 1) -> list[bool]:
    return [rules.draw(faults.REQUEST, "SendEmail", (address,)) is not None for _ in range(times)]


def test_a_count_is_used_up() -> None:
    rules = Faults(seed=1)
    rules.replace([Fault(kind="throttle", count=2)])
    assert strikes(rules, times=4) == [True, True, False, False]
    assert rules.describe() == [{"kind": "throttle", "count": 2, "fired": 2}]


def test_a_match_chooses_recipients() -> None:
    rules = Faults(seed=1)
    rules.replace([Fault(kind="serverError", match=r"^slow\+")])
    assert strikes(rules, "slow+1@x.example") == [True]
    assert strikes(rules, "fast@x.example") == [False]


def test_the_same_seed_gives_the_same_run() -> None:
    runs = []
    for _ in range(2):
        rules = Faults(seed=0)
        rules.replace([Fault(kind="acceptThenDrop", probability=0.5), Fault(kind="throttle", probability=0.5)], seed=7)
        runs.append(strikes(rules, times=50))
    assert runs[0] == runs[1]
    assert 5 < sum(runs[0]) < 45


def test_a_fault_concerns_its_operation() -> None:
    rules = Faults(seed=1)
    rules.replace([Fault(kind="serverError", operation="SuppressedDestination")])
    assert rules.draw(faults.REQUEST, "SendEmail", ("a@x.example",)) is None
    assert rules.draw(faults.REQUEST, "SuppressedDestination", ("a@x.example",)) is not None


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "unheardOf"},
        {"kind": "slow"},
        {"kind": "refuseConnections"},
        {"kind": "throttle", "probability": 2},
        {"kind": "throttle", "typo": 1},
        {"kind": "throttle", "match": "("},
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Fault.model_validate(wrong)


@pytest.mark.parametrize("how", ["notJson", "truncated", "noMail", "wrongTypes", "deep"])
def test_malformed_is_no_ses_event(how: str) -> None:
    message = malform(b'{"eventType":"Send","mail":{"messageId":"m"},"send":{}}\n', how)
    try:
        event = orjson.loads(message)
    except orjson.JSONDecodeError:
        return
    assert not isinstance(event.get("mail"), dict)
