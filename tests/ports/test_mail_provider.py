"""What every mail provider promises about the outcome of a call. SES runs it against the simulator, over real sockets.

A provider that comes later adds itself to `provider`; what it must answer stays.
"""

from __future__ import annotations

import asyncio
import email
import email.policy
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from deploy.local.endpoints import AwsEndpoints
from deploy.local.simulator.client import SimulatorClient
from deploy.local.simulator.faults import Fault
from services.email.adapters.prices import DatedPrices
from services.email.adapters.ses import SesProvider
from services.email.adapters.writing import MailWriter
from services.email.domain.content import MessageContent
from services.email.domain.correlation import ATTEMPT_HEADER, ATTEMPT_TAG, MESSAGE_HEADER, MESSAGE_TAG
from services.email.domain.unsubscribe import UnsubscribeTokens
from services.email.ports import Accepted, MailProvider, OutgoingAttempt, OutgoingMail, Rejected, Unknown
from services.kit.addresses import RecipientKeys
from services.kit.aws import AwsAccount, ses_client
from services.kit.errors import RefusedHere, Unavailable

HANG = 180.0
"""Seconds that only something that hangs takes."""

FROM = "no-reply@mailroom.example"
UNVERIFIED = "Email address is not verified. The following identities failed the check in region EU-WEST-1: "
TOKENS = UnsubscribeTokens(b"k" * 32)


@dataclass
class Place:
    """A provider with what stands behind it."""

    provider: MailProvider
    simulator: SimulatorClient
    since: int

    async def accepted(self, *attempts: OutgoingAttempt) -> int:
        """How many calls for these attempts were taken so far."""
        ids = {attempt.attempt_id for attempt in attempts}
        return sum(entry["tags"][ATTEMPT_TAG] in ids for entry in await self.simulator.acceptances(self.since))


@pytest.fixture
async def place(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, aws: AwsEndpoints
) -> AsyncIterator[Place]:
    """Its parameter: seconds until a call without an answer is given up."""
    monkeypatch.setattr("services.kit.aws.CONNECT_SECONDS", HANG)
    async with AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(SimulatorClient(aws.ses_endpoint_url))
        await simulator.reset()
        await simulator.settings(maxSendRate=0)
        account = AwsAccount(
            aws.region, aws.access_key_id, aws.secret_access_key, aws.endpoint_url, aws.ses_endpoint_url
        )
        client = await stack.enter_async_context(ses_client(account, call_limit=getattr(request, "param", HANG)))
        provider = SesProvider(
            client,
            configuration_set=aws.configuration_set,
            prices=DatedPrices.load(),
            writer=MailWriter(
                keys=RecipientKeys(b"r" * 32),
                tokens=TOKENS,
                public_url="https://mail.example.org",
                unsubscribe_mailto="leave@mailroom.example",
            ),
            now=lambda: datetime.now(UTC),
        )
        yield Place(provider, simulator, await simulator.position())
        await simulator.reset()


def attempt(recipient: str = "success+port@inbox.example", **fields: object) -> OutgoingAttempt:
    base = {
        "message_id": str(uuid4()),
        "from_": FROM,
        "to": (recipient, "other@inbox.example"),
        "cc": ("copy@inbox.example",),
        "reply_to": "support@mailroom.example",
        "subject": "Grüße",
        "category": "notification",
        "user_id": "u",
        "list_id": None,
        "date": datetime.now(UTC),
        "content": MessageContent(html="<p>Hällo</p>", text="Hällo"),
    }
    return OutgoingAttempt(str(uuid4()), recipient, OutgoingMail(**{**base, **fields}))  # type: ignore[arg-type]


async def test_a_yes_has_the_providers_id_size_and_cost(place: Place) -> None:
    one = attempt(files=(("a ü.txt", "text/plain", b"file"),))
    outcome = await place.provider.send(one)
    assert isinstance(outcome, Accepted), outcome
    assert outcome.size > 0
    assert outcome.cost.money.amount >= 100
    (accepted,) = [
        each for each in await place.simulator.acceptances(place.since) if each["tags"][ATTEMPT_TAG] == one.attempt_id
    ]
    assert accepted["providerMessageId"] == outcome.provider_message_id
    assert accepted["destination"] == [one.recipient], "one envelope recipient a call"
    assert accepted["tags"][MESSAGE_TAG] == one.mail.message_id
    assert accepted["tags"][ATTEMPT_TAG] == one.attempt_id
    raw = await place.simulator.raw(outcome.provider_message_id)
    parsed = email.message_from_bytes(raw, policy=email.policy.default)
    assert [parsed["to"], parsed["cc"]] == [", ".join(one.mail.to), one.mail.cc[0]]
    assert parsed["bcc"] is None
    assert parsed["subject"] == "Grüße"
    assert (parsed[MESSAGE_HEADER], parsed[ATTEMPT_HEADER]) == (one.mail.message_id, one.attempt_id)
    assert parsed["list-unsubscribe"] is None
    bodies = {part.get_content_type(): part.get_content() for part in parsed.walk() if not part.is_multipart()}
    assert bodies["text/html"].strip() == "<p>Hällo</p>"
    assert b"\n" not in raw.replace(b"\r\n", b""), "bare line feeds"
    assert raw.isascii(), "8-bit parts are corrupted by open and click tracking"


async def test_marketing_carries_a_one_click_way_out_for_its_recipient_alone(place: Place) -> None:
    one = attempt(
        category="marketing", list_id="news", content=MessageContent(html="<a href='{{unsubscribeUrl}}'>leave</a>")
    )
    outcome = await place.provider.send(one)
    assert isinstance(outcome, Accepted), outcome
    parsed = email.message_from_bytes(
        await place.simulator.raw(outcome.provider_message_id), policy=email.policy.default
    )
    assert parsed["list-unsubscribe-post"] == "List-Unsubscribe=One-Click"
    url = parsed["list-unsubscribe"].partition("<")[2].partition(">")[0]
    assert url.startswith("https://mail.example.org/unsubscribe/")
    assert one.recipient not in url
    claims = TOKENS.verify(url.rpartition("/")[2])
    assert (claims.scope, claims.message_id) == ("list:news", one.mail.message_id)
    assert claims.recipient_key == RecipientKeys(b"r" * 32).key(one.recipient)
    by_mail = parsed["list-unsubscribe"].rpartition("<")[2].partition(">")[0]
    assert by_mail == f"mailto:leave@mailroom.example?subject={url.rpartition('/')[2]}"
    assert url in parsed.get_content()


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault(kind="throttle"), "throttle"),
        (Fault(kind="serverError", status=503), "throttle"),
        (Fault(kind="accountSuspended"), "account"),
        (Fault(kind="sendingPaused"), "account"),
        (Fault(kind="refuse", code="LimitExceededException", status=400), "account"),
        (Fault(kind="refuse", code="MailFromDomainNotVerifiedException", status=400), "account"),
        (Fault(kind="refuse", code="ExpiredTokenException", status=403), "account"),
        (Fault(kind="refuse", code="AccessDeniedException", status=403), "account"),
        (Fault(kind="refuse", code="MessageRejected", status=400), "mail"),
        (Fault(kind="refuse", code="MessageRejected", message=UNVERIFIED + FROM), "account"),
        (Fault(kind="refuse", code="MessageRejected", message=UNVERIFIED + "someone@example.org"), "mail"),
        (Fault(kind="refuse", code="BadRequestException", status=400), "mail"),
        (Fault(kind="refuse", code="SomethingNew", status=418), "throttle"),
        (Fault(kind="proxyRefuses", status=403), "unreachable"),
        (Fault(kind="proxyRefuses", status=407), "unreachable"),
        (Fault(kind="proxyRefuses", status=421), "unreachable"),
    ],
    ids=lambda value: f"{value.kind}-{value.code}" if isinstance(value, Fault) else value,
)
async def test_a_response_that_says_no_is_a_refusal(place: Place, fault: Fault, kind: str) -> None:
    await place.simulator.faults(fault)
    one = attempt()
    outcome = await place.provider.send(one)
    assert isinstance(outcome, Rejected), outcome
    assert outcome.kind == kind
    assert await place.accepted(one) == 0


@pytest.mark.parametrize("place", [1.0], indirect=True, ids=["impatient"])
@pytest.mark.parametrize(
    ("fault", "accepted"),
    [
        (Fault(kind="serverError", status=500), 0),
        (Fault(kind="refuse", code="ThrottledByAccident", status=502), 0),
        (Fault(kind="proxyRefuses", status=408), 0),
        (Fault(kind="proxyRefuses", status=404), 0),
        (Fault(kind="dropBeforeAccept"), 0),
        (Fault(kind="slow", ms=2500), 1),
        (Fault(kind="acceptThenDrop"), 1),
        (Fault(kind="acceptThenError", status=500), 1),
        (Fault(kind="slowAnswer", ms=2500), 1),
    ],
    ids=lambda value: f"{value.kind}-{value.status}" if isinstance(value, Fault) else str(value),
)
async def test_no_clear_answer_is_unknown_and_called_once(place: Place, fault: Fault, accepted: int) -> None:
    await place.simulator.faults(fault)
    one = attempt()
    outcome = await place.provider.send(one)
    assert isinstance(outcome, Unknown), outcome
    async with asyncio.timeout(HANG):
        while await place.accepted(one) < accepted:  # noqa: ASYNC110 - another process tells
            await asyncio.sleep(0.05)
    await place.simulator.quiet(60)
    assert await place.accepted(one) == accepted, "the client library called again"


async def test_a_reused_connection_that_breaks_is_unknown_too(place: Place) -> None:
    first, second = attempt(), attempt()
    assert isinstance(await place.provider.send(first), Accepted)
    await place.simulator.faults(Fault(kind="acceptThenDrop", count=1))
    assert isinstance(await place.provider.send(second), Unknown)
    assert await place.accepted(first, second) == 2


async def test_a_connection_that_never_stood_is_a_refusal(aws: AwsEndpoints, place: Place) -> None:
    account = AwsAccount(aws.region, "test", "test", ses_endpoint_url="http://127.0.0.1:9")
    async with ses_client(account, call_limit=HANG) as client:
        outcome = await _provider(client).send(attempt())
    assert isinstance(outcome, Rejected), outcome
    assert (outcome.code, outcome.kind) == ("connectionFailed", "unreachable")


async def test_a_name_that_does_not_resolve_is_a_refusal() -> None:
    account = AwsAccount("us-east-1", "test", "test", ses_endpoint_url="http://nowhere.invalid:9")
    async with ses_client(account, call_limit=HANG) as client:
        outcome = await _provider(client).send(attempt())
    assert isinstance(outcome, Rejected), outcome
    assert outcome.kind == "unreachable"


async def test_no_detail_repeats_an_address(place: Place) -> None:
    await place.simulator.faults(Fault(kind="refuse", message="Address jane@inbox.example is bad", status=400))
    outcome = await place.provider.send(attempt())
    assert isinstance(outcome, Rejected)
    assert "jane" not in outcome.detail


async def test_a_mail_that_cannot_be_written_is_a_refusal_without_a_call(place: Place) -> None:
    one = attempt(subject="a\r\nBcc: x@inbox.example")
    outcome = await place.provider.send(one)
    assert isinstance(outcome, Rejected)
    assert (outcome.kind, outcome.code) == ("mail", "invalid")
    assert await place.accepted(one) == 0


async def test_quota_tells_recipients(place: Place) -> None:
    await place.simulator.settings(maxSendRate=200, max24HourSend=50_000)
    quota = await place.provider.quota()
    assert (quota.max_send_rate, quota.max_24_hour) == (200, 50_000)
    await place.simulator.settings(maxSendRate=0)


async def test_the_quota_of_a_paused_account_is_refused(place: Place) -> None:
    await place.simulator.faults(Fault(kind="sendingPaused", operation="*"))
    with pytest.raises(RefusedHere):
        await place.provider.quota()


async def test_a_quota_that_cannot_be_asked_is_unavailable(place: Place) -> None:
    await place.simulator.faults(Fault(kind="serverError", status=500, operation="GetAccount"))
    with pytest.raises(Unavailable):
        await place.provider.quota()


def test_prices_are_dated_and_round_up() -> None:
    prices = DatedPrices.load()
    at = datetime(2026, 11, 24, tzinfo=UTC)
    assert prices.cost("ses", 0, at).money.amount == 100
    assert prices.cost("ses", 1_000_000_000, at).money.amount == 120_100
    assert prices.cost("ses", 1, at).money.amount == 101


def _provider(client: object) -> SesProvider:
    return SesProvider(
        client,
        configuration_set="none",
        prices=DatedPrices.load(),
        writer=MailWriter(
            keys=RecipientKeys(b"r" * 32),
            tokens=TOKENS,
            public_url="https://mail.example.org",
        ),
        now=lambda: datetime.now(UTC),
    )
