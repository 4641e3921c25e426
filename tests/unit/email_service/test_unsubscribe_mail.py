"""Leaving by mail: the address is offered where its mail is read, and only a valid token in its subject counts."""

from __future__ import annotations

import email
import email.policy
import json
from datetime import UTC, datetime, timedelta
from email.header import Header
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from contracts.email.events import EmailUnsubscribed
from services.email.adapters.ses_notifications import SesNotifications
from services.email.domain.content import MessageContent
from services.email.domain.outcomes import Accepted
from services.email.domain.unsubscribe import LONGEST_SUBJECT, UnsubscribeClaims, UnsubscribeTokens
from services.email.entrypoints.translator import Translator
from services.email.explain import explain_ses
from services.email.handlers import MailedUnsubscribes, StreamLookup, suppress, unsuppress
from services.email.ports import OutgoingAttempt, OutgoingMail
from services.kit.facts import TranslatorCounts
from services.kit.kafka.codec import decode
from services.kit.kafka.records import DONE, Outcome, Park, Record, Retry
from services.kit.metrics import Metrics
from services.kit.testing.publisher import MemoryPublisher
from tests.unit.email_service.mail import COST
from tests.unit.email_service.ses_examples import sns
from tests.unit.email_service.test_sender_large import Taking, ses
from tests.unit.email_service.test_settler import START, A, World

ADDRESS = "leave@mailroom.example"
TOKENS = UnsubscribeTokens(b"k" * 32)
OTHERS = UnsubscribeTokens(b"o" * 32)


# --- what is offered ----------------------------------------------------------------------------------------------


class Keeping(Taking):
    """Keeps the last mail that it took."""

    raw: bytes

    async def send_email(self, **call: Any) -> dict[str, str]:
        self.raw = call["Content"]["Raw"]["Data"]
        return await super().send_email(**call)


async def ways_out(address: str | None, category: Any = "marketing") -> list[str]:
    client = Keeping()
    mail = OutgoingMail(
        message_id="0192f0c1-2b7a-7d3e-9c1a-5b8f3e2d4f00", from_="a@mailroom.example", to=(A,), cc=(), reply_to=None,
        subject="s", category=category, user_id="u", list_id="news", date=START, content=MessageContent(text="hi"),
        files=(),
    )  # fmt: skip
    sent = await ses(client, unsubscribe_mailto=address).send(OutgoingAttempt("a1", A, mail))
    assert isinstance(sent, Accepted)
    listed = email.message_from_bytes(client.raw, policy=email.policy.default)["list-unsubscribe"] or ""
    return [each.strip().strip("<>") for each in str(listed).split(",") if each]


async def test_an_address_is_offered_where_there_is_one_with_the_token_of_the_page() -> None:
    (page,) = await ways_out(None)
    first, by_mail = await ways_out(ADDRESS)
    assert first == page, "programs take the first that they can use: one click, no mail"
    parts = urlsplit(by_mail)
    assert (parts.scheme, parts.path) == ("mailto", ADDRESS)
    (token,) = parse_qs(parts.query)["subject"]
    assert token == page.rpartition("/")[2]
    assert TOKENS.find(token) == TOKENS.verify(token)
    assert await ways_out(ADDRESS, "notification") == []


# --- what comes in ------------------------------------------------------------------------------------------------


class Reading(World):
    """A translator beside the settler, on the same stores."""

    def __init__(self) -> None:
        super().__init__()
        self.publisher = MemoryPublisher()
        self.translate = Translator(
            {"ses": SesNotifications()},
            self.publisher,
            StreamLookup(self.post.streams),
            MailedUnsubscribes(self.post.streams, self.keys, TOKENS),
            TranslatorCounts(Metrics(), "ses"),
        )

    async def token(self, scope: str = "list:news", tokens: UnsubscribeTokens = TOKENS) -> str:
        message_id = await self.attempted(outcome=Accepted("ses-1", 10, COST))
        return tokens.issue(UnsubscribeClaims(self.keys.key(A), scope, message_id, START))

    async def receive(self, *notifications: dict[str, Any]) -> list[Outcome]:
        raw = [json.dumps(sns(each)).encode() for each in notifications]
        return list(await self.translate([Record("email.notifications", 0, 0, 0, None, each, ()) for each in raw]))

    @property
    def facts(self) -> list[Record]:
        return [Record(out.topic, 0, n, 0, out.key, out.value, ()) for n, out in enumerate(self.publisher.published)]


def received(
    subject: str | None, *, source: str = A, headers: dict[str, str] | None = None, **more: Any
) -> dict[str, Any]:
    """What SES tells of a mail to us."""
    common = {"returnPath": source, "from": [source], "to": [ADDRESS]} | (
        {} if subject is None else {"subject": subject}
    )
    mail = {
        "timestamp": "2026-11-24T12:20:00.000Z",
        "source": source,
        "messageId": "d6iitobk75ur44p8kdnnp7g2n800",
        "destination": [ADDRESS],
        "headersTruncated": False,
        "headers": [{"name": name, "value": value} for name, value in (headers or {}).items()],
        "commonHeaders": common,
    }
    receipt = {"timestamp": "2026-11-24T12:20:00.100Z", "recipients": [ADDRESS], "action": {"type": "Stop"}}
    return {"notificationType": "Received", "mail": mail, "receipt": receipt} | more


async def test_a_mail_with_the_token_is_an_unsubscribe_once_whoever_sent_it() -> None:
    world = Reading()
    mail = received(await world.token(), source="somebody-else@inbox.example")
    assert await world.receive(mail, mail) == [DONE, DONE]
    first, again = (decode(record) for record in world.facts)
    assert first == again, "the same mail is the same fact"
    assert first.data == EmailUnsubscribed(recipient=A, list_id="news", source="mailto")
    assert first.time == datetime(2026, 11, 24, 12, 20, tzinfo=UTC)
    assert await world.blocked(category="marketing", list_id="news") is None
    assert await world.hear(*world.facts) == [DONE, DONE]
    assert await world.blocked(category="marketing", list_id="news") == "unsubscribed"
    assert await world.blocked(category="marketing", list_id="offers") is None
    assert (await world.recipient_store.load(world.keys.key(A))).version == 1


async def test_what_was_mailed_before_a_lift_and_is_heard_after_it_changes_nothing() -> None:
    world = Reading()
    mail = received(await world.token("marketing"))
    world.clock.move(3600)
    await suppress(world.recipients, A, "marketing", cause="t", now=world.clock.now(), actor="admin:ops")
    await unsuppress(world.recipients, A, "marketing", reason="asked", actor="admin:ops")
    assert world.clock.now() > START + timedelta(minutes=20)
    await world.receive(mail)
    assert await world.hear(*world.facts) == [DONE]
    assert await world.blocked(category="marketing") is None


@pytest.mark.parametrize(
    "written",
    [
        "{}",
        "Re: {}",
        "[EXTERNAL] AW: {} (fwd)",
        "folded",
        "encoded",
        "unsubscribe {}",
    ],
)
async def test_what_programs_do_to_a_subject_does_no_harm(written: str) -> None:
    world = Reading()
    token = await world.token()
    subject = {
        "folded": f"{token[:76]}\r\n {token[76:]}",
        "encoded": Header(token, "utf-8").encode(),
    }.get(written, written.format(token))
    assert await world.receive(received(subject)) == [DONE]
    assert len(world.facts) == 1


async def test_without_a_valid_token_nothing_happens_and_nothing_is_parked() -> None:
    world = Reading()
    token = await world.token()
    message_id = TOKENS.verify(token).message_id
    forged = await world.token(tokens=OTHERS)
    ours = {"X-Mailroom-Message-Id": message_id, "X-Mailroom-Attempt-Id": "t1"}
    mails = [
        received(None),
        received("unsubscribe"),  # from the recipient's own address, which anybody can write there
        received(forged),
        received(token[:-1]),
        received("Automatic reply: Spring news", headers={"Auto-Submitted": "auto-replied", "References": token}),
        received("Undelivered Mail Returned to Sender", source="<>", headers=ours),
        received("Re: Spring news", headers=ours, content=f"Subject: {token}\r\n\r\n{token}"),
        received("x " * 100_000 + token),
    ]
    assert await world.receive(*mails) == [DONE] * len(mails)
    assert world.facts == []


def test_a_subject_is_looked_through_to_an_end() -> None:
    token = OTHERS.issue(UnsubscribeClaims("5f" * 32, "marketing", "0192f0c1-2b7a-7d3e-9c1a-5b8f3e2d1c0b", START))
    assert OTHERS.find("Re: " * 300 + token) is not None
    assert OTHERS.find("x" * LONGEST_SUBJECT + token) is None


async def test_a_token_whose_message_is_gone_is_parked_and_one_that_cannot_be_looked_up_comes_again() -> None:
    world = Reading()
    stranger = UnsubscribeClaims(world.keys.key(A), "marketing", "0192f0c1-2b7a-7d3e-9c1a-5b8f3e2d4f00", START)
    (outcome,) = await world.receive(received(TOKENS.issue(stranger)))
    assert isinstance(outcome, Park)
    assert (outcome.reason, outcome.kind) == ("unknownMessage", "poison")
    token = await world.token()
    world.post.store.away = True
    (outcome,) = await world.receive(received(token))
    assert isinstance(outcome, Retry)
    world.post.store.away = False
    assert await world.receive(received(token)) == [DONE]


@pytest.mark.parametrize("mail", [None, "text", {}, {"timestamp": "yesterday", "commonHeaders": {"subject": "s"}}])
async def test_what_contradicts_the_documentation_is_parked(mail: object) -> None:
    (outcome,) = await Reading().receive({"notificationType": "Received", "mail": mail})
    assert isinstance(outcome, Park)
    assert outcome.kind == "poison"


def test_explain_says_what_a_mail_to_us_is_for() -> None:
    explained = explain_ses(json.dumps(received("x")).encode())
    assert (explained.lines, explained.refused) == ((), False)
    assert "token" in (explained.why_none or "")
