"""Reports of mail servers: what each becomes, how it finds its attempt, and what strangers may send us."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.base import format_time
from contracts.envelope import Envelope
from contracts.registry import event_from_wire, read_json
from services.email.adapters.dsn import correlate, translate_dsn, unwrap
from services.email.domain.correlation import (
    Correlation,
    envelope_id,
    from_envelope_id,
    from_return_address,
    return_address,
)
from services.email.explain import explain_dsn
from services.kit.errors import PermanentError

from .dsn_examples import (
    ATTEMPT_ID,
    MESSAGE_ID,
    RECIPIENT,
    RETURNED,
    STATUS_OF_EXCHANGE,
    STATUS_OF_EXIM,
    postfix,
    report,
)

OURS = Correlation(MESSAGE_ID, ATTEMPT_ID, recipient=RECIPIENT)


def facts(raw: bytes, correlation: Correlation = OURS) -> tuple[Envelope, ...]:
    return translate_dsn(unwrap(raw), correlation).facts


def data(raw: bytes, correlation: Correlation = OURS) -> dict[str, Any]:
    (fact,) = facts(raw, correlation)
    return fact.data.to_wire()


# --- what it becomes ---------------------------------------------------------------------------------------------


def test_a_failure_is_a_bounce_of_the_attempt() -> None:
    (fact,) = facts(postfix())
    assert (fact.type, fact.subject, fact.causationid) == ("email.bounced", MESSAGE_ID, ATTEMPT_ID)
    assert (format_time(fact.time), fact.revision) == ("2026-11-24T10:00:02.000000Z", 1)
    assert fact.data.to_wire() == {
        "recipient": RECIPIENT,
        "provider": "smtp",
        "attemptId": ATTEMPT_ID,
        "bounceType": "permanent",
        "bounceSubType": "NoEmail",
        "status": "5.1.1",
        "diagnosticCode": "550 5.1.1 user unknown",
        "feedbackId": "<20261124100002.4FvT3K2xZz9@relay.mailroom.example>",
    }
    assert event_from_wire(read_json(fact.to_bytes())) == fact
    assert facts(postfix()) == (fact,), "the same report is the same fact"


@pytest.mark.parametrize("status", [STATUS_OF_EXIM, STATUS_OF_EXCHANGE])
def test_other_servers_say_it_in_their_own_way(status: str) -> None:
    found = data(report(status.format(recipient=RECIPIENT)))
    assert (found["bounceType"], found["bounceSubType"]) == ("permanent", "NoEmail")
    assert found["status"].startswith("5.1.1")


@pytest.mark.parametrize(
    ("status", "kind", "sub_type"),
    [
        ("5.1.1", "permanent", "NoEmail"),
        ("5.2.1", "permanent", "General"),
        ("5.0.0", "permanent", "General"),
        ("4.4.7", "transient", "General"),
        ("4.2.2", "transient", "MailboxFull"),
        ("5.2.2", "transient", "MailboxFull"),
        ("5.3.4", "transient", "MessageTooLarge"),
        ("5.7.26", "transient", "ContentRejected"),
        ("", "undetermined", "Undetermined"),
        ("9.9.9", "undetermined", "Undetermined"),
    ],
)
def test_a_bounce_is_permanent_where_the_address_is_the_trouble(status: str, kind: str, sub_type: str) -> None:
    found = data(postfix(status=status, diagnostic="it did not work"))
    assert (found["bounceType"], found["bounceSubType"]) == (kind, sub_type)


@pytest.mark.parametrize(
    ("status", "diagnostic", "expected"),
    [
        ("5.0.0", "550-5.1.1 no such user", "5.1.1"),
        ("5.0.0", "550 4.2.2 contradicts its class", "5.0.0"),
        ("", "452 4.2.2 mailbox full", "4.2.2"),
        ("", "550 no such user", "5.0.0"),
        ("5.2.1 (disabled)", "550 5.1.1 something else", "5.2.1"),
    ],
)
def test_a_general_status_is_made_better_by_the_diagnostic(status: str, diagnostic: str, expected: str) -> None:
    assert data(postfix(status=status, diagnostic=diagnostic))["status"] == expected


def test_a_delay_says_until_when_it_is_tried() -> None:
    more = "Last-Attempt-Date: Tue, 24 Nov 2026 14:00:00 +0000\nWill-Retry-Until: Sun, 29 Nov 2026 10:00:00 +0000\n"
    (fact,) = facts(postfix("delayed", "4.2.2", "452 4.2.2 full", more=more))
    assert (fact.type, format_time(fact.time)) == ("email.deliveryDelayed", "2026-11-24T14:00:00.000000Z")
    wire = fact.data.to_wire()
    assert (wire["delayType"], wire["expiresAt"]) == ("MailboxFull", "2026-11-29T10:00:00.000000Z")


def test_a_delivery_is_one_and_relaying_is_nothing() -> None:
    (fact,) = facts(postfix("delivered", "2.0.0", "250 2.0.0 ok"))
    assert (fact.type, fact.data.to_wire()["smtpResponse"]) == ("email.delivered", "250 2.0.0 ok")
    for action in ("relayed", "expanded", "unheard-of", ""):
        assert facts(postfix(action, "2.0.0")) == ()


def test_an_alias_that_fans_out_is_one_fact_with_the_most_severe_bounce() -> None:
    more = "\nFinal-Recipient: rfc822; b@inner.example\nAction: failed\nStatus: 5.1.1\n"
    found = data(postfix(status="4.2.2", recipient="a@inner.example", more=more))
    assert (found["recipient"], found["bounceType"], found["reportedAddress"]) == (
        RECIPIENT,
        "permanent",
        "b@inner.example",
    )


def test_addresses_beyond_ascii_are_read() -> None:
    raw = postfix().replace(b"message/delivery-status", b"message/global-delivery-status")
    raw = raw.replace(b"Final-Recipient: rfc822; jane@", "Final-Recipient: utf-8; jané@".encode())
    assert data(raw)["bounceType"] == "permanent"


# --- whose it is -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        postfix(returned=None),
        postfix(envelope_id="", returned=None, to=return_address(MESSAGE_ID, ATTEMPT_ID, "b.example").upper()),
        postfix(envelope_id="", returned=None, Delivered_To=return_address(MESSAGE_ID, ATTEMPT_ID, "b.example")),
        postfix(envelope_id=""),
        postfix(envelope_id="").replace(b"text/rfc822-headers", b"message/rfc822"),
    ],
    ids=["envelope id", "return address", "Delivered-To", "header that came back", "mail that came back"],
)
def test_it_finds_its_attempt_and_may_be_forged(raw: bytes) -> None:
    notification = unwrap(raw).notification
    assert notification is not None
    assert correlate(notification) == Correlation(MESSAGE_ID, ATTEMPT_ID, forgeable=True)


def test_what_a_report_says_of_another_address_counts_for_the_attempts_recipient_alone() -> None:
    found = data(postfix(recipient="boss@victim.example"))
    assert (found["recipient"], found["reportedAddress"]) == (RECIPIENT, "boss@victim.example")


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "no report"),
        (b"Subject: buy\r\n\r\nnow", "no report"),
        (postfix(envelope_id="", returned=None), "names no mail of ours"),
        (postfix(envelope_id="somebody-else's", returned="X-Mailroom-Message-Id: 1\n"), "names no mail of ours"),
        (postfix().replace(b"message/delivery-status", b"message/disposition-notification"), "of another kind"),
    ],
)
def test_what_strangers_send_is_dropped_and_not_refused(raw: bytes, why: str) -> None:
    delivered = unwrap(raw)
    assert delivered.notification is None
    assert why in str(delivered.why_none)


def test_a_report_without_a_time_has_that_of_its_transport() -> None:
    raw = postfix(Date="")
    (fact,) = translate_dsn(unwrap(raw, sqs_sent="1795514402000"), OURS).facts
    assert format_time(fact.time) == "2026-11-24T10:00:02.000000Z"
    with pytest.raises(PermanentError, match="badTime"):
        facts(raw)


@pytest.mark.parametrize("date", ["Tue, 24 Nov 9999 10:00:00 +0000", "Mon, 24 Nov 1969 10:00:00 +0000", "yesterday"])
def test_a_time_that_cannot_be_is_none(date: str) -> None:
    assert (unwrap(postfix(Date=date)).notification or {})["date"] is None


PIECES = st.sampled_from(
    [
        postfix(),
        postfix().replace(b"--=_report--", b""),
        b"Content-Type: multipart/report; boundary=x\r\n\r\n",
        b"Content-Type: message/delivery-status\r\n\r\n",
        b"--=_report\r\n",
        b"Action: failed\r\nStatus: 5.1.1\r\n",
        b"Final-Recipient: rfc822;\r\n",
        b"Date: Tue, 99 Foo 20266 25:61:61 +9999\r\n",
        b"Original-Envelope-Id: " + envelope_id(MESSAGE_ID, ATTEMPT_ID).encode() + b"\r\n",
        b"\xff\xfe\x00",
        b"=?utf-8?b?////?=",
        RETURNED.encode(),
    ]
)


@given(st.lists(st.one_of(PIECES, st.binary(max_size=60)), max_size=6).map(b"".join))
def test_whatever_comes_raises_nothing_but_a_permanent_error(raw: bytes) -> None:
    delivered = unwrap(raw)
    if delivered.notification is None:
        assert delivered.why_none
        return
    json.dumps(delivered.notification).encode()
    try:
        found = translate_dsn(delivered, OURS).facts
    except PermanentError:
        return
    for fact in found:
        assert event_from_wire(read_json(fact.to_bytes())) == fact


@given(cut=st.integers(0, 3000), at=st.integers(0, 3000), with_=st.binary(max_size=8))
def test_a_report_damaged_anywhere_raises_nothing_but_a_permanent_error(cut: int, at: int, with_: bytes) -> None:
    whole = postfix(more="Last-Attempt-Date: Tue, 24 Nov 2026 14:00:00 +0000\n")
    raw = (whole[:at] + with_ + whole[at + len(with_) :])[: max(cut, len(whole) // 2)]
    explain_dsn(raw)


def test_parts_within_parts_are_not_read() -> None:
    deep = b"".join(b"Content-Type: multipart/report; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(5_000))
    assert unwrap(deep).why_none == "a mail of too many parts"


# --- the ids of the envelope -------------------------------------------------------------------------------------


@given(st.uuids(), st.uuids(), st.booleans())
def test_ids_come_back_from_the_envelope_however_it_is_spelled(message: UUID, attempt: UUID, upper: bool) -> None:
    ids = str(message), str(attempt)
    expected = Correlation(*ids, forgeable=True)
    address, named = return_address(*ids, "b.example"), envelope_id(*ids)
    assert len(address.partition("@")[0]) <= 64
    assert len(named) <= 100
    assert from_return_address(f"<{address.upper() if upper else address}>, other@x.example") == expected
    assert from_envelope_id(named.upper() if upper else named) == expected


@given(st.text(max_size=120))
def test_other_envelopes_are_nobodys(text: str) -> None:
    assert from_envelope_id(text) is None
    assert from_return_address(text) is None


def test_an_id_that_is_no_uuid_makes_no_return_address() -> None:
    with pytest.raises(ValueError, match="UUID"):
        return_address("m-1", ATTEMPT_ID, "b.example")


# --- for people --------------------------------------------------------------------------------------------------


def test_explaining_shows_facts_or_says_why_there_are_none() -> None:
    shown = explain_dsn(postfix())
    assert json.loads(shown.lines[0])["type"] == "email.bounced"
    assert not shown.refused
    dropped = explain_dsn(b"Subject: hello\r\n\r\n")
    assert (dropped.lines, dropped.refused) == ((), False)
    assert "dropped" in str(dropped.why_none)
    assert explain_dsn(postfix(Date="")).refused
