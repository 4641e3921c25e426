"""What every mail provider promises about the outcome of a call, held against the simulator, over real sockets.

A provider that comes later describes itself in `mail_providers`; what it must answer stays.
"""

from __future__ import annotations

import asyncio
import email
import email.policy
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from email.message import EmailMessage
from uuid import uuid4

import pytest
import pytest_asyncio

from deploy.local.endpoints import AwsEndpoints
from deploy.local.simulator.client import SimulatorClient
from deploy.local.simulator.faults import Fault
from services.email.domain.content import MessageContent
from services.email.domain.correlation import ATTEMPT_HEADER, ATTEMPT_TAG, MESSAGE_HEADER, MESSAGE_TAG
from services.email.ports import Accepted, OutgoingAttempt, OutgoingMail, Rejected, Unknown
from services.kit.addresses import RecipientKeys
from services.kit.errors import RefusedHere, Unavailable
from tests.ports.mail_providers import (
    ALL,
    FAKE,
    HANG,
    MAILGUN,
    RATE,
    SENDGRID,
    SES,
    TOKENS,
    Behind,
    Described,
    Making,
    Place,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

FROM = "no-reply@mailroom.example"
UNVERIFIED = "Email address is not verified. The following identities failed the check in region EU-WEST-1: "
NOT_ALLOWED = "Domain mg.mailroom.example is not allowed to send: The domain is unverified."
SENDER = "The from address does not match a verified Sender Identity."


@pytest.fixture(params=ALL, ids=lambda described: described.name)
def described(request: pytest.FixtureRequest) -> Described:
    found: Described = request.param
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def behind(aws: AwsEndpoints) -> AsyncIterator[Behind]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("services.kit.aws.CONNECT_SECONDS", HANG)
        patch.setattr("services.email.adapters.http_outcomes.CONNECT_SECONDS", HANG)
        async with AsyncExitStack() as stack:
            yield Behind(stack, aws, await stack.enter_async_context(SimulatorClient(aws.ses_endpoint_url)))


@pytest_asyncio.fixture(loop_scope="module")
async def place(request: pytest.FixtureRequest, behind: Behind, described: Described) -> AsyncIterator[Place]:
    """Its parameter: seconds until a call without an answer is given up."""
    simulator = behind.simulator
    await simulator.reset()
    await simulator.settings(maxSendRate=0)
    provider = await behind.provider(described, Making(call_limit=getattr(request, "param", HANG)))
    place = Place(described, provider, behind, await simulator.position())
    await place.strike()
    yield place
    await simulator.reset()


and_the_fake = pytest.mark.parametrize("described", [*ALL, FAKE], indirect=True, ids=lambda each: each.name)
only_ses = pytest.mark.parametrize("described", [SES], indirect=True, ids=["ses"])


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


async def received(place: Place, outcome: Accepted) -> tuple[bytes, EmailMessage]:
    """The mail as its recipient has it."""
    raw = await place.behind.simulator.raw(outcome.provider_message_id)
    parsed = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(parsed, EmailMessage)
    return raw, parsed


async def test_a_yes_has_the_providers_id_size_and_cost(place: Place) -> None:
    one = attempt(files=(("a ü.txt", "text/plain", b"file"),))
    outcome = await place.provider.send(one)
    assert isinstance(outcome, Accepted), outcome
    assert outcome.size > 0
    assert outcome.cost.money.amount >= 100
    (accepted,) = await place.acceptances(one)
    assert accepted["provider"] == place.provider.name
    assert accepted["providerMessageId"] == outcome.provider_message_id
    assert accepted["destination"] == [one.recipient], "one envelope recipient a call"
    assert accepted["tags"][MESSAGE_TAG] == one.mail.message_id
    assert accepted["tags"][ATTEMPT_TAG] == one.attempt_id
    assert accepted["tags"]["category"] == "notification"
    raw, parsed = await received(place, outcome)
    if place.described.keeps_bytes:
        assert [parsed["to"], parsed["cc"]] == [", ".join(one.mail.to), one.mail.cc[0]]
    else:
        assert [parsed["to"], parsed["cc"]] == [one.recipient, None], "the others cannot be shown"
    assert place.provider.capabilities.shows_others == place.described.keeps_bytes
    assert parsed["bcc"] is None
    assert parsed["subject"] == "Grüße"
    assert parsed["reply-to"] == one.mail.reply_to
    assert (parsed[MESSAGE_HEADER], parsed[ATTEMPT_HEADER]) == (one.mail.message_id, one.attempt_id)
    assert parsed["list-unsubscribe"] is None
    bodies = {part.get_content_type(): part for part in parsed.walk() if not part.is_multipart()}
    assert bodies["text/html"].get_content().strip() == "<p>Hällo</p>"
    assert b"\n" not in raw.replace(b"\r\n", b""), "bare line feeds"
    assert raw.isascii(), "8-bit parts are corrupted by open and click tracking"


async def test_marketing_carries_a_one_click_way_out_for_its_recipient_alone(place: Place) -> None:
    one = attempt(
        category="marketing", list_id="news", content=MessageContent(html="<a href='{{unsubscribeUrl}}'>leave</a>")
    )
    outcome = await place.provider.send(one)
    assert isinstance(outcome, Accepted), outcome
    _, parsed = await received(place, outcome)
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


async def test_unicode_arrives_in_every_field(place: Place) -> None:
    one = attempt(
        "success@xn--bcher-kva.example",
        from_="Pöst 📮 <no-reply@mailroom.example>",
        to=("Änn 安 <success@bücher.example>",),
        cc=(),
        reply_to="Hïlfe <support@mailroom.example>",
        subject="Grüße 🎉 " + "ж" * 100,
        content=MessageContent(html="<p>ünï 🎉 \u2028</p>", text="安" * 2_000),
        files=(
            ("Résumé 报告.txt", "text/plain; charset=utf-8", "ß".encode()),
            ("b.bin", "image/png", bytes(range(256))),
        ),
    )
    outcome = await place.provider.send(one)
    assert isinstance(outcome, Accepted), outcome
    _, parsed = await received(place, outcome)
    names = [parsed[name].addresses[0].display_name for name in ("from", "to", "reply-to")]
    assert names == ["Pöst 📮", "Änn 安", "Hïlfe"]
    assert parsed["subject"] == one.mail.subject
    html, text = (parsed.get_body((kind,)) for kind in ("html", "plain"))
    assert html is not None
    assert text is not None
    assert html.get_content().strip() == "<p>ünï 🎉 \u2028</p>"
    assert text.get_content().strip() == "安" * 2_000
    first, second = parsed.iter_attachments()
    named = "Résumé 报告.txt" if place.described.keeps_bytes else "Resume.txt"
    assert first.get_filename() == named
    assert first.get_payload(decode=True) == "ß".encode()
    assert second.get_payload(decode=True) == bytes(range(256))


@and_the_fake
async def test_fifty_recipients_in_waves_are_fifty_calls(place: Place) -> None:
    recipients = [f"success+{number}@inbox.example" for number in range(50)]
    mail = attempt(to=tuple(recipients), cc=()).mail
    attempts = [OutgoingAttempt(str(uuid4()), recipient, mail) for recipient in recipients]
    outcomes: list[Accepted | Rejected | Unknown] = []
    for begin in range(0, 50, 16):
        outcomes += await asyncio.gather(*map(place.provider.send, attempts[begin : begin + 16]))
    assert {type(outcome) for outcome in outcomes} == {Accepted}
    acceptances = await place.acceptances(*attempts)
    assert sorted(each["destination"] for each in acceptances) == sorted([each] for each in recipients)
    ids = {outcome.provider_message_id for outcome in outcomes if isinstance(outcome, Accepted)}
    assert ids == {each["providerMessageId"] for each in acceptances}
    assert len(ids) == 50


REFUSALS: list[tuple[Described, Fault, str]] = [
    *(
        (each, fault, kind)
        for each in (*ALL, FAKE)
        for fault, kind in [
            (Fault(kind="throttle"), "throttle"),
            (Fault(kind="accountSuspended"), "account"),
            (Fault(kind="sendingPaused"), "account"),
            (Fault(kind="proxyRefuses", status=403), "unreachable"),
            (Fault(kind="proxyRefuses", status=407), "unreachable"),
            (Fault(kind="proxyRefuses", status=421), "unreachable"),
        ]
    ),
    (SES, Fault(kind="serverError", status=503), "throttle"),
    (SES, Fault(kind="refuse", code="LimitExceededException", status=400), "account"),
    (SES, Fault(kind="refuse", code="MailFromDomainNotVerifiedException", status=400), "account"),
    (SES, Fault(kind="refuse", code="ExpiredTokenException", status=403), "account"),
    (SES, Fault(kind="refuse", code="AccessDeniedException", status=403), "account"),
    (SES, Fault(kind="refuse", code="MessageRejected", status=400), "mail"),
    (SES, Fault(kind="refuse", code="MessageRejected", message=UNVERIFIED + FROM), "account"),
    (SES, Fault(kind="refuse", code="MessageRejected", message=UNVERIFIED + "someone@example.org"), "mail"),
    (SES, Fault(kind="refuse", code="BadRequestException", status=400), "mail"),
    (SES, Fault(kind="refuse", code="SomethingNew", status=418), "throttle"),
    (SENDGRID, Fault(kind="refuse", code="personalizations.0.to.0.email"), "mail"),
    (SENDGRID, Fault(kind="refuse", code="from", message=SENDER, status=403), "account"),
    (MAILGUN, Fault(kind="refuse", message="to parameter is not a valid address."), "mail"),
    (MAILGUN, Fault(kind="refuse", message=NOT_ALLOWED), "account"),
    (FAKE, Fault(kind="refuse"), "mail"),
]


@pytest.mark.parametrize(
    ("described", "fault", "kind"),
    REFUSALS,
    indirect=["described"],
    ids=[f"{each.name}-{fault.kind}-{fault.status}-{fault.code}-{kind}" for each, fault, kind in REFUSALS],
)
async def test_a_response_that_says_no_is_a_refusal(place: Place, fault: Fault, kind: str) -> None:
    await place.strike(fault)
    one = attempt()
    outcome = await place.provider.send(one)
    assert isinstance(outcome, Rejected), outcome
    assert outcome.kind == kind
    assert await place.accepted(one) == 0


async def test_a_throttle_may_say_how_long_to_wait(place: Place) -> None:
    await place.strike(Fault(kind="throttle"))
    outcome = await place.provider.send(attempt())
    assert isinstance(outcome, Rejected), outcome
    if place.described is SES:
        assert outcome.retry_after is None
    else:
        assert outcome.retry_after is not None
        assert 0 < outcome.retry_after <= 3600


UNCLEAR: list[tuple[Described, Fault, int]] = [
    *(
        (each, fault, accepted)
        for each in (*ALL, FAKE)
        for fault, accepted in [
            (Fault(kind="serverError", status=500), 0),
            (Fault(kind="proxyRefuses", status=408), 0),
            (Fault(kind="proxyRefuses", status=404), 0),
            (Fault(kind="dropBeforeAccept"), 0),
            (Fault(kind="slow", ms=2500), 1),
            (Fault(kind="acceptThenDrop"), 1),
            (Fault(kind="acceptThenError", status=500), 1),
            (Fault(kind="slowAnswer", ms=2500), 1),
        ]
    ),
    (SES, Fault(kind="refuse", code="ThrottledByAccident", status=502), 0),
    (SENDGRID, Fault(kind="serverError", status=503), 0),
    (MAILGUN, Fault(kind="serverError", status=503), 0),
]


@pytest.mark.parametrize("place", [1.0], indirect=True, ids=["impatient"])
@pytest.mark.parametrize(
    ("described", "fault", "accepted"),
    UNCLEAR,
    indirect=["described"],
    ids=[f"{each.name}-{fault.kind}-{fault.status}" for each, fault, _ in UNCLEAR],
)
async def test_no_clear_answer_is_unknown_and_called_once(place: Place, fault: Fault, accepted: int) -> None:
    await place.strike(fault)
    one = attempt()
    outcome = await place.provider.send(one)
    assert isinstance(outcome, Unknown), outcome
    async with asyncio.timeout(HANG):
        while await place.accepted(one) < accepted:  # noqa: ASYNC110 - another process tells
            await asyncio.sleep(0.05)
    await place.behind.simulator.quiet(60)
    assert await place.accepted(one) == accepted, "the client library called again"


@and_the_fake
async def test_a_reused_connection_that_breaks_is_unknown_too(place: Place) -> None:
    first, second = attempt(), attempt()
    assert isinstance(await place.provider.send(first), Accepted)
    await place.strike(Fault(kind="acceptThenDrop", count=1))
    assert isinstance(await place.provider.send(second), Unknown)
    assert await place.accepted(first, second) == 2


@and_the_fake
async def test_a_call_that_is_cancelled_may_have_been_heard_and_spoils_no_other(place: Place) -> None:
    await place.strike(Fault(kind="slowAnswer", ms=60_000, count=1))
    one, other = attempt(), attempt()
    call = asyncio.create_task(place.provider.send(one))
    async with asyncio.timeout(HANG):
        while not await place.accepted(one):  # noqa: ASYNC110 - another process tells
            await asyncio.sleep(0.02)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    outcome = await place.provider.send(other)
    assert isinstance(outcome, Accepted), outcome
    (accepted,) = await place.acceptances(other)
    assert accepted["providerMessageId"] == outcome.provider_message_id, "the answer is of this call"
    assert await place.accepted(one, other) == 2


@and_the_fake
@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://nowhere.invalid:9"], ids=["refused", "no such name"])
async def test_a_connection_that_never_stood_is_a_refusal(place: Place, url: str) -> None:
    provider = await place.behind.provider(place.described, Making(url=url))
    outcome = await provider.send(attempt())
    assert isinstance(outcome, Rejected), outcome
    assert (outcome.code, outcome.kind) == ("connectionFailed", "unreachable")


@and_the_fake
async def test_no_detail_repeats_an_address(place: Place) -> None:
    await place.strike(Fault(kind="refuse", message="Address jane@inbox.example is bad", status=400))
    outcome = await place.provider.send(attempt())
    assert isinstance(outcome, Rejected)
    assert outcome.detail.startswith("Address (address)")
    assert "jane" not in outcome.detail


@and_the_fake
async def test_a_mail_that_cannot_be_written_is_a_refusal_without_a_call(place: Place) -> None:
    one = attempt(subject="a\r\nBcc: x@inbox.example")
    outcome = await place.provider.send(one)
    assert isinstance(outcome, Rejected)
    assert (outcome.kind, outcome.code) == ("mail", "invalid")
    assert await place.accepted(one) == 0


@and_the_fake
async def test_a_mail_beyond_the_providers_size_is_known_before_and_never_offered(place: Place) -> None:
    provider = await place.behind.provider(place.described, Making(most_bytes=50_000))
    fits, large = (attempt(files=(("a.bin", "image/png", b"x" * size),)) for size in (30_000, 40_000))
    assert provider.capabilities.most_bytes == 50_000
    assert provider.cannot_carry(fits.mail) is None
    why = provider.cannot_carry(large.mail)
    assert why is not None
    assert "50000" in why
    assert isinstance(await provider.send(fits), Accepted)
    outcome = await provider.send(large)
    assert isinstance(outcome, Rejected)
    assert (outcome.kind, outcome.code) == ("mail", "invalid")
    assert await place.accepted(fits, large) == 1


@only_ses
async def test_quota_tells_recipients(place: Place) -> None:
    await place.behind.simulator.settings(maxSendRate=200, max24HourSend=50_000)
    quota = await place.provider.quota()
    assert (quota.max_send_rate, quota.max_24_hour) == (200, 50_000)
    await place.behind.simulator.settings(maxSendRate=0)


@only_ses
async def test_the_quota_of_a_paused_account_is_refused(place: Place) -> None:
    await place.behind.simulator.faults(Fault(kind="sendingPaused", operation="*"))
    with pytest.raises(RefusedHere):
        await place.provider.quota()


@only_ses
async def test_a_quota_that_cannot_be_asked_is_unavailable(place: Place) -> None:
    await place.behind.simulator.faults(Fault(kind="serverError", status=500, operation="GetAccount"))
    with pytest.raises(Unavailable):
        await place.provider.quota()


@pytest.mark.parametrize("described", [SENDGRID, MAILGUN], indirect=True, ids=["sendgrid", "mailgun"])
async def test_a_quota_that_no_api_tells_is_the_one_that_was_given(place: Place) -> None:
    quota = await place.provider.quota()
    assert (quota.max_send_rate, quota.max_24_hour, quota.sent_last_24_hours) == (RATE, -1, 0)
