"""What every mail provider promises about the outcome of a call, held by SMTP to the simulator over real sockets.

The simulator's server runs in the test's own process; its journal of acceptances is the judge. Two tests hold the
adapter to aiosmtpd's server, which shares no code with the simulator's.
"""

from __future__ import annotations

import asyncio
import email
import email.policy
import itertools
import json
import ssl
import sys
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from aiosmtpd import smtp as aiosmtpd

from deploy.local.simulator.client import SimulatorClient
from deploy.local.simulator.faults import Fault, Faults
from deploy.local.simulator.journal import Journal
from deploy.local.simulator.mailbox import Mailbox
from deploy.local.simulator.smtp import SmtpServer
from services.email.adapters.prices import DatedPrices
from services.email.adapters.smtp import Limits, SmtpProvider
from services.email.adapters.writing import MailWriter
from services.email.domain.content import MessageContent
from services.email.domain.correlation import (
    ATTEMPT_HEADER,
    ATTEMPT_TAG,
    MESSAGE_HEADER,
    MESSAGE_TAG,
    Correlation,
    envelope_id,
    from_return_address,
)
from services.email.domain.unsubscribe import UnsubscribeTokens
from services.email.ports import Accepted, MailProvider, OutgoingAttempt, OutgoingMail, Rejected, Unknown
from services.kit.addresses import RecipientKeys
from services.kit.prices import Price, Prices, Tier

HANG = 180.0
"""Seconds that only something that hangs takes."""

FOREVER_MS = 1000 * HANG
PATIENT = Limits(before_dot=HANG, answer=HANG)
PRICE = Price(
    provider="smtp", plan="own", version="smtp-test", since=date(2020, 1, 1), tiers=(Tier(each=7),), source="a test"
)
PRICES = DatedPrices(Prices([PRICE], {"smtp": "own"}))
WRITER = MailWriter(
    keys=RecipientKeys(b"r" * 32), tokens=UnsubscribeTokens(b"k" * 32), public_url="https://mail.example.org"
)


class Place:
    """The simulator's server, and providers that send to it."""

    def __init__(self, folder: Path, most_bytes: int = 1_000_000) -> None:
        self.rules, self.mailbox = Faults(seed=1), Mailbox(50_000_000)
        self.journal = Journal(folder / "acceptances.jsonl", sync=True)
        self.server = SmtpServer(
            host="127.0.0.1",
            port=0,
            folder=folder,
            rules=self.rules,
            acceptances=self.journal,
            mailbox=self.mailbox,
            most_bytes=most_bytes,
        )
        self.providers: list[SmtpProvider] = []

    def provider(self, limits: Limits = PATIENT, **other: Any) -> SmtpProvider:
        given: dict[str, Any] = {
            "host": "localhost",
            "port": self.server.port,
            "writer": WRITER,
            "prices": PRICES,
            "now": lambda: datetime.now(UTC),
            "rate": 50.0,
            "username": "mailroom",
            "password": "secret",
            "tls_context": ssl.create_default_context(cafile=str(self.server.certificate)),
            "helo": "mailroom.example",
            "limits": limits,
        }
        provider = SmtpProvider(**{**given, **other})
        self.providers.append(provider)
        return provider

    def faults(self, *faults: Fault) -> None:
        self.rules.replace(faults)

    async def struck(self) -> None:
        """Until the first fault has struck."""
        async with asyncio.timeout(HANG):
            while not self.rules.describe()[0]["fired"]:  # noqa: ASYNC110 - the server tells nobody
                await asyncio.sleep(0.005)

    def entries(self, *attempts: OutgoingAttempt) -> list[dict[str, Any]]:
        """What was taken of these attempts."""
        ids = {attempt.attempt_id for attempt in attempts}
        return [entry for entry in map(json.loads, self.journal.read(0)[0]) if entry["tags"][ATTEMPT_TAG] in ids]

    async def taken(self, attempt: OutgoingAttempt, times: int) -> None:
        """Until it was taken so many times."""
        async with asyncio.timeout(HANG):
            while len(self.entries(attempt)) < times:  # noqa: ASYNC110 - the server tells nobody
                await asyncio.sleep(0.005)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    place = Place(tmp_path)
    await place.server.start()
    yield place
    for provider in place.providers:
        await provider.aclose()
    await place.server.stop()
    place.journal.close()


def attempt(recipient: str = "success+port@inbox.example", **fields: object) -> OutgoingAttempt:
    base = {
        "message_id": str(uuid4()),
        "from_": "Mailroom <no-reply@mailroom.example>",
        "to": (recipient, "other@inbox.example"),
        "cc": ("copy@inbox.example",),
        "reply_to": "support@mailroom.example",
        "subject": "Grüße",
        "category": "notification",
        "user_id": "u",
        "list_id": None,
        "date": datetime.now(UTC),
        "content": MessageContent(html="<p>Hällo</p>", text="Hällo\n.\n..dots"),
    }
    return OutgoingAttempt(str(uuid4()), recipient, OutgoingMail(**{**base, **fields}))  # type: ignore[arg-type]


# --- yes ---------------------------------------------------------------------------------------------------------


async def test_a_yes_has_the_queue_id_size_and_cost(place: Place) -> None:
    provider: MailProvider = place.provider()
    one = attempt(files=(("a ü.txt", "text/plain", b"file"),))
    outcome = await provider.send(one)
    assert isinstance(outcome, Accepted), outcome
    assert (outcome.cost.money.amount, outcome.cost.price_version) == (7, "smtp-test")
    (entry,) = place.entries(one)
    assert (entry["providerMessageId"], entry["size"]) == (outcome.provider_message_id, outcome.size)
    assert entry["destination"] == [one.recipient], "one envelope recipient a transaction"
    assert (entry["tags"][MESSAGE_TAG], entry["provider"]) == (one.mail.message_id, "smtp")
    assert entry["envelope"] == {
        "sender": "no-reply@mailroom.example",
        "parameters": [
            f"SIZE={outcome.size}",
            "RET=HDRS",
            f"ENVID={envelope_id(one.mail.message_id, one.attempt_id)}",
            "NOTIFY=FAILURE,DELAY",
        ],
        "tls": True,
        "loggedIn": True,
    }
    kept = place.mailbox.get(outcome.provider_message_id)
    assert kept is not None
    assert kept.submission.raw == WRITER.mime(one), "the bytes arrive as they were written, dots too"
    parsed = email.message_from_bytes(kept.submission.raw, policy=email.policy.default)
    assert [parsed["to"], parsed["cc"], parsed["bcc"]] == [", ".join(one.mail.to), one.mail.cc[0], None]
    assert (parsed[MESSAGE_HEADER], parsed[ATTEMPT_HEADER]) == (one.mail.message_id, one.attempt_id)


async def test_bounces_go_to_an_address_that_names_message_and_attempt(place: Place) -> None:
    one = attempt()
    assert isinstance(await place.provider(verp_domain="bounces.mailroom.example").send(one), Accepted)
    (entry,) = place.entries(one)
    sender = entry["envelope"]["sender"]
    assert sender.startswith("bounces+")
    assert from_return_address(sender) == Correlation(one.mail.message_id, one.attempt_id, forgeable=True)


async def test_unicode_in_every_field(place: Place) -> None:
    one = attempt(
        recipient="jane@bücher.example",
        from_="Jürgen Größe <post@bücher.example>",
        to=("Zoë ✉ <jane@bücher.example>",),
        cc=("Łukasz <copy@żółw.example>",),
        reply_to="Ответ <support@пример.example>",
        subject="Grüße ✉ こんにちは",
        content=MessageContent(html="<p>こんにちは ✉</p>", text="Привет ✉"),
        files=(("отчёт ✉.txt", "text/plain", "ä".encode()),),
    )
    assert isinstance(await place.provider().send(one), Accepted)
    (entry,) = place.entries(one)
    assert entry["destination"] == ["jane@xn--bcher-kva.example"]
    (kept,) = place.mailbox.find(None, 10)
    parsed = email.message_from_bytes(kept.submission.raw, policy=email.policy.default)
    assert parsed["subject"] == "Grüße ✉ こんにちは"
    assert parsed["from"].addresses[0].display_name == "Jürgen Größe"


async def test_fifty_recipients_in_waves_share_a_few_connections(place: Place) -> None:
    provider = place.provider(Limits(before_dot=HANG, answer=HANG, connections=4))
    first = attempt()
    attempts = [OutgoingAttempt(str(uuid4()), f"r{n}@inbox.example", first.mail) for n in range(50)]
    for wave in (attempts[:20], attempts[20:40], attempts[40:]):
        outcomes = await asyncio.gather(*(provider.send(each) for each in wave))
        assert all(isinstance(outcome, Accepted) for outcome in outcomes), outcomes
    taken = Counter(entry["tags"][ATTEMPT_TAG] for entry in place.entries(*attempts))
    assert taken == {each.attempt_id: 1 for each in attempts}
    assert place.server.connections <= 4


# --- no ----------------------------------------------------------------------------------------------------------


def no(operation: str, status: int, message: str = "no") -> Fault:
    return Fault(kind="refuse", operation=operation, status=status, message=message)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fault", "kind", "code"),
    [
        (no("SmtpConnect", 421), "unreachable", "421"),
        (no("SmtpConnect", 554), "unreachable", "554"),
        (Fault(kind="dropBeforeAccept", operation="SmtpConnect"), "unreachable", "connectionFailed"),
        (Fault(kind="malformedReply", operation="SmtpConnect"), "unreachable", "malformedReply"),
        (no("SmtpAuth", 535, "5.7.8 wrong"), "account", "535 5.7.8"),
        (no("SmtpAuth", 454, "4.7.0 later"), "unreachable", "454 4.7.0"),
        (no("SmtpMail", 550, "5.7.1 sender not allowed"), "account", "550 5.7.1"),
        (no("SmtpMail", 451, "4.3.0 later"), "throttle", "451 4.3.0"),
        (no("SmtpMail", 421), "throttle", "421"),
        (Fault(kind="dropBeforeAccept", operation="SmtpMail"), "throttle", "connectionLost"),
        (no("SmtpRcpt", 550, "5.1.1 no such user"), "mail", "550 5.1.1"),
        (no("SmtpRcpt", 452, "4.2.2 full"), "throttle", "452 4.2.2"),
        (no("SmtpRcpt", 421), "throttle", "421"),
        (Fault(kind="dropBeforeAccept", operation="SmtpRcpt"), "throttle", "connectionLost"),
        (Fault(kind="malformedReply", operation="SmtpRcpt"), "throttle", "connectionLost"),
        (no("SmtpData", 554, "5.6.0 no"), "mail", "554 5.6.0"),
        (no("SmtpData", 451), "throttle", "451"),
        (Fault(kind="dropBeforeAccept", operation="SmtpData"), "throttle", "connectionLost"),
        (Fault(kind="malformedReply", operation="SmtpData", message="250 what"), "throttle", "connectionLost"),
        (no("SmtpDot", 554, "5.6.0 spam"), "mail", "554 5.6.0"),
        (no("SmtpDot", 452, "4.3.1 no room"), "throttle", "452 4.3.1"),
        (no("SmtpDot", 421), "throttle", "421"),
    ],
    ids=lambda value: f"{value.operation}-{value.kind}-{value.status}" if isinstance(value, Fault) else "",
)
async def test_what_fails_before_the_dot_or_is_answered_with_no_is_a_refusal(
    place: Place, fault: Fault, kind: str, code: str
) -> None:
    place.faults(fault.model_copy(update={"count": 1}))
    provider, one, other = place.provider(), attempt(), attempt()
    outcome = await provider.send(one)
    assert isinstance(outcome, Rejected), outcome
    assert (outcome.kind, outcome.code) == (kind, code)
    assert isinstance(await provider.send(other), Accepted), "what one mail met is not the next one's trouble"
    assert (len(place.entries(one)), len(place.entries(other))) == (0, 1)


@pytest.mark.parametrize("operation", ["SmtpConnect", "SmtpRcpt", "SmtpData"])
async def test_a_server_that_is_silent_before_the_dot_has_taken_nothing(place: Place, operation: str) -> None:
    place.faults(Fault(kind="slow", ms=FOREVER_MS, operation=operation))  # type: ignore[arg-type]
    provider, one = place.provider(Limits(before_dot=1.0, answer=HANG)), attempt()
    outcome = await provider.send(one)
    while not place.rules.describe()[0]["fired"]:  # on a busy machine a second may end earlier
        outcome = await provider.send(one)
    assert isinstance(outcome, Rejected), outcome
    assert outcome.kind == ("unreachable" if operation == "SmtpConnect" else "throttle")
    assert not place.entries(one)


async def test_a_call_that_finds_no_free_connection_in_time_is_a_refusal(place: Place) -> None:
    place.faults(Fault(kind="slow", ms=FOREVER_MS, operation="SmtpDot"))
    provider = place.provider(Limits(before_dot=1.0, answer=HANG, connections=1))

    async def keep_waiting_for_an_answer() -> None:
        while True:
            await provider.send(attempt())

    under_way = asyncio.create_task(keep_waiting_for_an_answer())
    await place.struck()
    outcome = await provider.send(attempt())
    assert isinstance(outcome, Rejected), outcome
    assert (outcome.kind, outcome.code) == ("unreachable", "busy")
    under_way.cancel()


async def test_a_connection_that_never_stood_is_a_refusal(place: Place) -> None:
    for other in ({"port": 9}, {"host": "nowhere.invalid"}):
        outcome = await place.provider(**other).send(attempt())
        assert isinstance(outcome, Rejected), outcome
        assert (outcome.code, outcome.kind) == ("connectionFailed", "unreachable")


async def test_a_certificate_that_nobody_vouches_for_is_refused(place: Place) -> None:
    one = attempt()
    outcome = await place.provider(tls_context=ssl.create_default_context()).send(one)
    assert isinstance(outcome, Rejected), outcome
    assert (outcome.code, outcome.kind) == ("connectionFailed", "unreachable")
    assert not place.entries(one)


async def test_a_mail_above_the_servers_size_is_never_handed_over(place: Place) -> None:
    provider = place.provider()
    large = attempt(files=(("a.bin", "application/octet-stream", bytes(800_000)),))
    outcome = await provider.send(large)
    assert isinstance(outcome, Rejected), outcome
    assert (outcome.kind, outcome.code) == ("mail", "invalid")
    assert provider.capabilities.most_bytes == 1_000_000, "what its EHLO says"
    assert "1000000" in str(provider.cannot_carry(large.mail))
    assert isinstance(await provider.send(attempt()), Accepted)
    assert place.server.connections == 1
    assert not place.entries(large)


async def test_a_mail_that_cannot_be_written_is_a_refusal_without_a_call(place: Place) -> None:
    for one in (attempt(subject="a\r\nBcc: x@inbox.example"), attempt(recipient="x>\r\nRCPT TO:<y@inbox.example")):
        outcome = await place.provider().send(one)
        assert isinstance(outcome, Rejected)
        assert (outcome.kind, outcome.code) == ("mail", "invalid")
    assert place.server.connections == 0


async def test_without_a_price_nothing_is_sent(place: Place) -> None:
    outcome = await place.provider(prices=DatedPrices(Prices([], {}))).send(attempt())
    assert isinstance(outcome, Rejected)
    assert (outcome.kind, outcome.code) == ("account", "priceMissing")
    assert place.server.connections == 0


async def test_no_detail_repeats_an_address(place: Place) -> None:
    place.faults(no("SmtpRcpt", 550, "5.1.1 <jane@inbox.example>: unknown"))
    outcome = await place.provider().send(attempt())
    assert isinstance(outcome, Rejected)
    assert "jane" not in outcome.detail


@pytest.mark.parametrize(
    ("words", "kind", "code"),
    [
        (b"552 5.3.4 too much\r\n", "mail", "552 5.3.4"),
        (b"250 ok\r\n", "throttle", "connectionLost"),
        (b"", "throttle", ""),
    ],
)
async def test_a_server_that_speaks_or_goes_before_the_message_is_at_its_end_has_not_taken_it(
    place: Place, words: bytes, kind: str, code: str
) -> None:
    heard = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for reply in (b"220 hello", b"250 ok", b"250 ok", b"250 ok", b"354 go on"):
            writer.write(reply + b"\r\n")
            heard.extend(await reader.readline() if not reply.startswith(b"354") else await reader.read(10_000))
        if words:
            writer.write(words)  # and it reads on, so that only its words end the message
        else:
            writer.transport.abort()
        while more := await reader.read(100_000):
            heard.extend(more)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=20_000)
    provider = place.provider(port=server.sockets[0].getsockname()[1], tls="off", username=None, most_bytes=50_000_000)
    outcome = await provider.send(attempt(files=(("a.bin", "application/octet-stream", bytes(20_000_000)),)))
    assert isinstance(outcome, Rejected), outcome
    assert outcome.kind == kind
    assert outcome.code == (code or "connectionLost")
    assert b"\r\n.\r\n" not in heard
    server.close()


# --- nobody knows ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "accepted"),
    [
        (Fault(kind="dropBeforeAccept", operation="SmtpDot"), 0),
        (Fault(kind="slow", ms=FOREVER_MS, operation="SmtpDot"), 0),
        (Fault(kind="slow", ms=500, operation="SmtpDot"), 1),
        (Fault(kind="acceptThenDrop", operation="SmtpDot"), 1),
        (Fault(kind="slowAnswer", ms=FOREVER_MS, operation="SmtpDot"), 1),
        (Fault(kind="malformedReply", operation="SmtpDot", message="garbage"), 1),
        (Fault(kind="malformedReply", operation="SmtpDot", message=""), 1),
        (Fault(kind="malformedReply", operation="SmtpDot", message="25"), 1),
        (Fault(kind="malformedReply", operation="SmtpDot", message="250ok"), 1),
        (Fault(kind="malformedReply", operation="SmtpDot", message="5500 no"), 1),
        (Fault(kind="malformedReply", operation="SmtpDot", message="250-ok\r\n550 no"), 1),
        (Fault(kind="malformedReply", operation="SmtpDot", message="550-no\r\n250 ok"), 1),
        (Fault(kind="malformedReply", operation="SmtpDot", message="354 go on"), 1),
        (Fault(kind="malformedReply", operation="SmtpDot", message="250-and more"), 1),
    ],
    ids=lambda value: f"{value.kind}-{value.message}" if isinstance(value, Fault) else str(value),
)
async def test_no_clear_answer_to_the_dot_is_unknown_and_sent_once(place: Place, fault: Fault, accepted: int) -> None:
    endless = bool(fault.ms) or fault.message == "250-and more"
    provider = place.provider(Limits(before_dot=HANG, answer=0.2) if endless else PATIENT)
    one, other = attempt(), attempt()
    place.faults(fault.model_copy(update={"count": 1}))
    outcome = await provider.send(one)
    assert isinstance(outcome, Unknown), outcome
    await place.taken(one, accepted)
    if not endless:
        assert isinstance(await provider.send(other), Accepted), "its connection is not used again"
    assert (len(place.entries(one)), len(place.entries(other))) == (accepted, 0 if endless else 1)


async def test_a_yes_stands_whatever_follows_it(place: Place) -> None:
    place.faults(Fault(kind="malformedReply", operation="SmtpDot", message="250 ok\r\n421 closing", count=1))
    provider, one, other = place.provider(), attempt(), attempt()
    outcome = await provider.send(one)
    assert isinstance(outcome, Accepted), outcome
    assert outcome.provider_message_id == f"{one.attempt_id}@mailroom.example", "no queue id: the Message-ID"
    assert isinstance(await provider.send(other), Accepted)
    assert place.server.connections == 2, "replies that nobody asked for would be taken for the next ones"


# --- cancelled ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["SmtpConnect", "SmtpMail", "SmtpRcpt", "SmtpData"])
async def test_a_call_cancelled_before_the_dot_hands_nothing_over(place: Place, operation: str) -> None:
    place.faults(Fault(kind="slow", ms=300, operation=operation, count=1))  # type: ignore[arg-type]
    provider, one = place.provider(), attempt()
    call = asyncio.create_task(provider.send(one))
    await place.struck()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    async with asyncio.timeout(HANG):
        while place.server.open:  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.005)
    assert not place.entries(one)
    assert isinstance(await provider.send(attempt()), Accepted)


async def test_a_call_cancelled_after_the_dot_may_have_been_taken_and_is_not_sent_again(place: Place) -> None:
    place.faults(Fault(kind="slow", ms=300, operation="SmtpDot", count=1))
    provider, one = place.provider(), attempt()
    call = asyncio.create_task(provider.send(one))
    await place.struck()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await place.taken(one, 1)
    assert isinstance(await provider.send(attempt()), Accepted)
    assert len(place.entries(one)) == 1


# --- connections that are kept -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        Fault(kind="dropBeforeAccept", operation="SmtpMail", count=1),
        no("SmtpMail", 421).model_copy(update={"count": 1}),
        Fault(kind="malformedReply", operation="SmtpMail", count=1),
        Fault(kind="slow", ms=FOREVER_MS, operation="SmtpMail", count=1),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.status}",
)
async def test_an_idle_connection_that_died_is_replaced_once(place: Place, fault: Fault) -> None:
    provider, first, second = place.provider(Limits(before_dot=12.0, answer=HANG)), attempt(), attempt()
    assert isinstance(await provider.send(first), Accepted)
    place.faults(fault)
    outcome = await provider.send(second)
    assert isinstance(outcome, Accepted), outcome
    assert place.server.connections == 2
    assert (len(place.entries(first)), len(place.entries(second))) == (1, 1)


async def test_a_connection_that_the_server_closed_is_not_used(place: Place) -> None:
    provider = place.provider()
    assert isinstance(await provider.send(attempt()), Accepted)
    await place.server.stop()
    await place.server.start()
    outcome = await place.provider(port=place.server.port).send(attempt())
    assert isinstance(outcome, Accepted), outcome


async def test_connections_are_closed_with_the_provider(place: Place) -> None:
    provider = place.provider()
    assert isinstance(await provider.send(attempt()), Accepted)
    await provider.aclose()
    async with asyncio.timeout(HANG):
        while place.server.open:  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("seed", range(2))
async def test_whatever_goes_wrong_nothing_is_taken_twice_and_no_answer_lies(place: Place, seed: int) -> None:
    operations = ["SmtpConnect", "SmtpAuth", "SmtpMail", "SmtpRcpt", "SmtpData", "SmtpDot"]
    kinds: list[dict[str, Any]] = [
        {"kind": "refuse", "status": 451},
        {"kind": "refuse", "status": 550},
        {"kind": "refuse", "status": 421},
        {"kind": "dropBeforeAccept"},
        {"kind": "malformedReply"},
        {"kind": "acceptThenDrop"},
    ]
    rules = [
        Fault.model_validate({**kind, "operation": operation, "probability": 0.03})
        for kind, operation in itertools.product(kinds, operations)
    ]
    place.rules.replace(rules, seed)
    provider = place.provider(Limits(before_dot=HANG, answer=HANG, connections=5))
    attempts = [attempt(f"r{n}@inbox.example") for n in range(40)]
    outcomes = await asyncio.gather(*(provider.send(each) for each in attempts))
    taken = Counter(entry["tags"][ATTEMPT_TAG] for entry in place.entries(*attempts))
    for one, outcome in zip(attempts, outcomes, strict=True):
        times = taken[one.attempt_id]
        if isinstance(outcome, Accepted):
            assert times == 1
        elif isinstance(outcome, Rejected):
            assert times == 0, outcome
        else:
            assert times <= 1
    assert len({type(outcome) for outcome in outcomes}) > 1


# --- another server ----------------------------------------------------------------------------------------------


class Inbox:
    """A handler of aiosmtpd that keeps what comes."""

    def __init__(self) -> None:
        self.got: list[tuple[str, list[str], bytes]] = []

    async def handle_DATA(self, server: object, session: object, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        self.got.append((envelope.mail_from, envelope.rcpt_tos, envelope.original_content))
        return "250 OK"


@pytest.mark.filterwarnings(
    "ignore:Requiring AUTH while not requiring TLS"
)  # of aiosmtpd, which knows of no listener's TLS
@pytest.mark.parametrize("tls", ["starttls", "implicit"])
async def test_another_implementation_takes_the_same_bytes(place: Place, tls: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(place.server.certificate)
    inbox = Inbox()

    def connected() -> aiosmtpd.SMTP:
        return aiosmtpd.SMTP(
            inbox,
            tls_context=context if tls == "starttls" else None,
            require_starttls=tls == "starttls",
            auth_required=True,
            auth_require_tls=tls == "starttls",
            authenticator=lambda *given: aiosmtpd.AuthResult(success=given[4].password == b"secret", handled=False),
            hostname="aiosmtpd",
        )

    implicit = context if tls == "implicit" else None
    server = await asyncio.get_running_loop().create_server(connected, "127.0.0.1", 0, ssl=implicit)
    port = server.sockets[0].getsockname()[1]
    provider, one = place.provider(port=port, tls=tls), attempt()
    outcomes = [await provider.send(one), await provider.send(attempt())]
    assert all(isinstance(outcome, Accepted) for outcome in outcomes), outcomes
    assert inbox.got[0] == ("no-reply@mailroom.example", [one.recipient], WRITER.mime(one))
    refused = await place.provider(port=port, tls=tls, password="wrong").send(attempt())
    assert isinstance(refused, Rejected)
    assert refused.kind == "account", refused
    await provider.aclose()
    server.close()


async def test_without_tls_nothing_is_sent_unless_that_was_asked_for(place: Place) -> None:
    inbox = Inbox()
    server = await asyncio.get_running_loop().create_server(lambda: aiosmtpd.SMTP(inbox), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    outcome = await place.provider(port=port).send(attempt())
    assert isinstance(outcome, Rejected), outcome
    assert (outcome.code, outcome.kind) == ("noTls", "unreachable")
    assert not inbox.got
    plain = place.provider(port=port, tls="off", username=None)
    assert isinstance(await plain.send(attempt()), Accepted)
    with pytest.raises(ValueError, match="without TLS"):
        place.provider(tls="off")
    await plain.aclose()
    server.close()


# --- the rest of the port ----------------------------------------------------------------------------------------


async def test_the_quota_is_the_rate_that_was_set(place: Place) -> None:
    quota = await place.provider().quota()
    assert (quota.max_send_rate, quota.max_24_hour) == (50.0, -1)
    assert place.provider().name == "smtp"
    assert not place.provider().capabilities.reports


async def test_the_simulators_process_takes_mail_by_smtp_beside_its_api(place: Place, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "deploy.local.simulator", "--port", "0", "--region", "us-east-1"]
    command += ["--sns-endpoint", "http://127.0.0.1:9", "--state-dir", str(tmp_path / "sim"), "--smtp-port", "0"]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(HANG):
            api = (await process.stdout.readline()).decode().split(" on ")[1].split(",")[0]
            port, _, certificate = (await process.stdout.readline()).decode().strip().rpartition(":")[2].partition(",")
        trusted = ssl.create_default_context(cafile=certificate.removeprefix(" certificate "))
        provider, one = place.provider(port=int(port), tls_context=trusted), attempt()
        async with SimulatorClient(api) as simulator:
            await simulator.faults(Fault(kind="refuse", operation="SmtpRcpt", status=450, count=1))
            assert isinstance(await provider.send(attempt()), Rejected)
            outcome = await provider.send(one)
            assert isinstance(outcome, Accepted), outcome
            (entry,) = await simulator.acceptances()
            assert (entry["tags"][ATTEMPT_TAG], entry["provider"]) == (one.attempt_id, "smtp")
            assert await simulator.raw(outcome.provider_message_id) == WRITER.mime(one)
        await provider.aclose()
    finally:
        process.terminate()
        await process.wait()
