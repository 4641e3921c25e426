"""What SendGrid is given for one recipient, and what is never offered to it."""

from __future__ import annotations

from base64 import b64decode
from datetime import UTC, datetime
from typing import Any

import httpx
import orjson
import pytest

from services.email.adapters.prices import DatedPrices
from services.email.adapters.sendgrid import SendGridProvider
from services.email.adapters.writing import MailWriter
from services.email.domain.content import MessageContent
from services.email.domain.outcomes import Accepted, Rejected
from services.email.domain.unsubscribe import UnsubscribeTokens
from services.email.ports import OutgoingAttempt, OutgoingMail
from services.kit.addresses import RecipientKeys
from services.kit.prices import load as load_prices

NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)
MESSAGE_ID = "01a20d85-b732-7000-badd-209e88b85860"
WRITER = MailWriter(
    keys=RecipientKeys(b"r" * 32),
    tokens=UnsubscribeTokens(b"k" * 32),
    public_url="https://mail.example.org",
    unsubscribe_mailto="leave@mailroom.example",
)


def mail(**fields: Any) -> OutgoingMail:
    base: dict[str, Any] = {
        "message_id": MESSAGE_ID,
        "from_": "Mailroom <no-reply@mailroom.example>",
        "to": ("Ann Ü <ann@inbox.example>", "other@inbox.example"),
        "cc": ("Copy <copy@inbox.example>",),
        "reply_to": "Support <support@mailroom.example>",
        "subject": "Grüße 🎉",
        "category": "notification",
        "user_id": "u",
        "list_id": None,
        "date": NOW,
        "content": MessageContent(html="<p>Hällo</p>", text="Hällo"),
    }
    return OutgoingMail(**{**base, **fields})


async def sent(*attempts: OutgoingAttempt, **settings: Any) -> tuple[list[httpx.Request], list[Any]]:
    """What SendGrid would be asked, and what comes of it where it accepts all."""
    asked: list[httpx.Request] = []

    def accept(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(202, headers={"X-Message-Id": f"id-{len(asked)}"})

    async with httpx.AsyncClient(transport=httpx.MockTransport(accept)) as client:
        provider = _provider(client, **settings)
        return asked, [await provider.send(attempt) for attempt in attempts]


def _provider(client: httpx.AsyncClient, **settings: Any) -> SendGridProvider:
    given = {
        "api_key": "SG.key",
        "rate": 10.0,
        "prices": DatedPrices(load_prices()),
        "writer": WRITER,
        "now": lambda: NOW,
    }
    return SendGridProvider(client, **{**given, **settings})


async def test_a_request_has_one_recipient_its_ids_and_every_part() -> None:
    file = ("plan.ics", "text/calendar; method=REQUEST", b"\x00\xff")
    asked, (outcome,) = await sent(OutgoingAttempt("a-1", "ann@inbox.example", mail(files=(file,))))
    (request,) = asked
    assert (request.method, str(request.url)) == ("POST", "https://api.sendgrid.com/v3/mail/send")
    assert request.headers["Authorization"] == "Bearer SG.key"
    body = orjson.loads(request.content)
    assert body == {
        "personalizations": [
            {
                "to": [{"email": "ann@inbox.example", "name": "Ann Ü"}],
                "headers": {"X-Mailroom-Message-Id": MESSAGE_ID, "X-Mailroom-Attempt-Id": "a-1"},
                "custom_args": {"mailroom_message_id": MESSAGE_ID, "mailroom_attempt_id": "a-1"},
            }
        ],
        "from": {"email": "no-reply@mailroom.example", "name": "Mailroom"},
        "reply_to": {"email": "support@mailroom.example", "name": "Support"},
        "subject": "Grüße 🎉",
        "content": [{"type": "text/plain", "value": "Hällo"}, {"type": "text/html", "value": "<p>Hällo</p>"}],
        "attachments": [
            {"content": "AP8=", "type": "text/calendar", "filename": "plan.ics", "disposition": "attachment"}
        ],
        "categories": ["notification"],
        "tracking_settings": {
            "click_tracking": {"enable": False, "enable_text": False},
            "open_tracking": {"enable": False},
            "subscription_tracking": {"enable": False},
            "ganalytics": {"enable": False},
        },
    }
    assert outcome == Accepted("id-1", len(request.content), DatedPrices(load_prices()).cost("sendgrid", 2, NOW))
    assert outcome.cost.money.amount == 1330


async def test_no_tag_of_a_caller_becomes_a_field_of_sendgrids_reports() -> None:
    """They come back beside SendGrid's own fields: one named `email` or `event` would stand in their way."""
    asked, _ = await sent(OutgoingAttempt("a-1", "ann@inbox.example", mail(tags={"email": "x", "event": "y"})))
    (said,) = orjson.loads(asked[0].content)["personalizations"]
    assert said["custom_args"].keys() == {"mailroom_message_id", "mailroom_attempt_id"}


async def test_copies_of_one_mail_differ_in_what_is_the_recipients_alone() -> None:
    one = mail(
        category="marketing", list_id="news", content=MessageContent(html="<a href='{{unsubscribeUrl}}'>leave</a>")
    )
    asked, _ = await sent(
        OutgoingAttempt("a-1", "ann@inbox.example", one), OutgoingAttempt("a-2", "copy@inbox.example", one)
    )
    bodies = [orjson.loads(request.content) for request in asked]
    own = [body["personalizations"][0] for body in bodies]
    assert [each["to"] for each in own] == [
        [{"email": "ann@inbox.example", "name": "Ann Ü"}],
        [{"email": "copy@inbox.example", "name": "Copy"}],
    ]
    urls = [each["headers"]["List-Unsubscribe"].split(", ")[0].strip("<>") for each in own]
    assert urls[0] != urls[1]
    for url, each, body in zip(urls, own, bodies, strict=True):
        token = url.rpartition("/")[2]
        by_mail = f"<mailto:leave@mailroom.example?subject={token}>"
        assert each["headers"]["List-Unsubscribe"] == f"<{url}>, {by_mail}"
        assert each["headers"]["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
        assert body["content"] == [{"type": "text/html", "value": f"<a href='{url}'>leave</a>"}]


async def test_tracking_is_said_in_every_request() -> None:
    asked, _ = await sent(OutgoingAttempt("a", "ann@inbox.example", mail()), track_opens=True, track_clicks=True)
    said = orjson.loads(asked[0].content)["tracking_settings"]
    assert said["click_tracking"] == {"enable": True, "enable_text": False}
    assert said["open_tracking"] == {"enable": True}


@pytest.mark.parametrize(
    ("filename", "content_type", "named", "typed"),
    [
        ("Résumé ü.pdf", "application/pdf", "Resume u.pdf", "application/pdf"),
        ("报告.csv", "text/csv; charset=utf-8", "attachment.csv", "text/csv"),
        ("a;b,c.txt", "text/plain", "a_b_c.txt", "text/plain"),
        ("mail.eml", "message/rfc822", "mail.eml", "application/octet-stream"),
    ],
)
async def test_an_attachment_is_named_and_typed_as_sendgrid_takes_it(
    filename: str, content_type: str, named: str, typed: str
) -> None:
    attempt = OutgoingAttempt("a", "ann@inbox.example", mail(files=((filename, content_type, b"data"),)))
    asked, _ = await sent(attempt)
    (attachment,) = orjson.loads(asked[0].content)["attachments"]
    assert (attachment["filename"], attachment["type"]) == (named, typed)
    assert b64decode(attachment["content"]) == b"data"


@pytest.mark.parametrize(
    "fields",
    [
        {"subject": "a\r\nBcc: x@inbox.example"},
        {"content": MessageContent(html="")},
        {"content": MessageContent.model_construct(html="half \ud83d", text=None, attachments=())},
        {"from_": "no address"},
        {"files": (("", "text/plain", b"x"),)},
        {"files": (("a\nb", "text/plain", b"x"),)},
        {"files": (("a", "no type", b"x"),)},
    ],
    ids=lambda fields: next(iter(fields)),
)
async def test_what_cannot_be_written_is_a_refusal_without_a_call(fields: dict[str, Any]) -> None:
    asked, (outcome,) = await sent(OutgoingAttempt("a", "ann@inbox.example", mail(**fields)))
    assert isinstance(outcome, Rejected)
    assert (outcome.kind, outcome.code) == ("mail", "invalid")
    assert not asked
    assert "inbox.example" not in outcome.detail


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"from_": "Mail; room <no-reply@mailroom.example>"}, "display name"),
        ({"to": ("Miller, Ann <ann@inbox.example>",)}, "display name"),
        ({"from_": "no-réply@mailroom.example"}, "ASCII"),
        ({"files": (("a.txt", "text/plain", b""),)}, "no bytes"),
        ({"files": (("a.bin", "application/octet-stream", b"x" * 80_000),)}, "at most 100000"),
        ({"content": MessageContent(text="\x01" * 20_000)}, "at most 100000"),
    ],
    ids=["sender", "recipient", "unicode", "empty file", "large file", "escapes"],
)
async def test_what_sendgrid_never_takes_is_known_before_a_call_and_not_offered(
    fields: dict[str, Any], why: str
) -> None:
    one = mail(**fields)
    async with httpx.AsyncClient() as client:
        said = _provider(client, most_bytes=100_000).cannot_carry(one)
        assert said is not None
        assert why in said
        assert _provider(client).cannot_carry(mail()) is None
    asked, (outcome,) = await sent(OutgoingAttempt("a", "ann@inbox.example", one), most_bytes=100_000)
    assert isinstance(outcome, Rejected)
    assert (outcome.kind, outcome.code) == ("mail", "invalid")
    assert not asked


async def test_the_recipients_of_a_mail_share_what_is_written_once() -> None:
    """Attachments are encoded once for a mail, and not once a recipient."""
    one = mail(files=(("a.bin", "application/octet-stream", b"x" * 1000),))
    async with httpx.AsyncClient() as client:
        writer = _provider(client)._writer
        first = writer._shared(one, ())
        assert writer._shared(one, ("https://mail.example.org/unsubscribe/x",)) is first
