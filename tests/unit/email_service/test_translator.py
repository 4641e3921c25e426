"""The translator as a batch handler: an offset is let go only when the facts of its notification are acknowledged."""

from __future__ import annotations

import json
from collections.abc import Collection

import pytest

from contracts.envelope import Envelope
from services.email.adapters.dsn import DsnNotifications
from services.email.adapters.mailgun_notifications import MailgunNotifications
from services.email.adapters.sendgrid_notifications import SendGridNotifications
from services.email.adapters.ses_notifications import SesNotifications
from services.email.domain.correlation import Correlation
from services.email.domain.delayed_bounces import DelayedBounce
from services.email.domain.notifications import InboundMail
from services.email.entrypoints.translator import Translator
from services.kit import metrics as m
from services.kit.errors import Unavailable
from services.kit.facts import TranslatorCounts
from services.kit.kafka.records import DONE, Outcome, Park, Record, Retry
from services.kit.metrics import Metrics
from services.kit.testing.publisher import MemoryPublisher
from tests.unit.email_service import mailgun_examples as mailgun
from tests.unit.email_service import sendgrid_examples as sendgrid
from tests.unit.email_service.dsn_examples import postfix
from tests.unit.email_service.ses_examples import ATTEMPT_ID, MESSAGE_ID, PARTS, PROVIDER_ID, notification


class Lookup:
    """Knows one message of each provider, and whose its attempt is; `away`: cannot be asked."""

    def __init__(self, *, known: bool = False) -> None:
        self.known, self.away, self.asked = known, False, 0

    async def by_provider_message_id(self, provider: str, provider_message_id: str) -> Correlation | None:
        self._ask()
        ids = {"ses": PROVIDER_ID, "sendgrid": sendgrid.CALL_ID, "mailgun": mailgun.THEIR_ID}
        assert provider_message_id == ids[provider]
        return Correlation(MESSAGE_ID, ATTEMPT_ID, OURS) if self.known else None

    async def by_address(self, provider: str, report: DelayedBounce) -> Correlation | str:
        self._ask()
        assert (provider, report.address) == ("sendgrid", OURS.lower())
        return Correlation(MESSAGE_ID, ATTEMPT_ID, OURS) if self.known else "two may be meant"

    async def recipients(self, attempts: Collection[Correlation]) -> dict[Correlation, str]:
        self._ask()
        return dict.fromkeys(attempts, OURS) if self.known else {}

    async def attempt(self, provider: str, named: Correlation) -> Correlation | None:
        self._ask()
        assert (provider, named.message_id, named.attempt_id) == ("smtp", MESSAGE_ID, ATTEMPT_ID)
        return Correlation(MESSAGE_ID, ATTEMPT_ID, recipient="jane@example.com") if self.known else None

    def _ask(self) -> None:
        self.asked += 1
        if self.away:
            raise Unavailable("MongoDB", "switched off by the test")


OURS = "Jane@example.com"
"""The recipient as we wrote it; every example reports it in small letters."""


class NoMails:
    """Nobody writes to us."""

    async def fact(self, mail: InboundMail) -> Envelope | None:
        raise AssertionError("it was about a mail of ours")


class World:
    def __init__(self, *, known: bool = False) -> None:
        self.publisher, self.lookup = MemoryPublisher(), Lookup(known=known)
        self.metrics = Metrics()
        formats = (SesNotifications(), SendGridNotifications(), MailgunNotifications(), DsnNotifications())
        self.translate = Translator(
            {form.provider: form for form in formats},
            self.publisher,
            self.lookup,
            NoMails(),
            TranslatorCounts(self.metrics, "ses"),
        )

    async def hear(self, *values: bytes | None, source: str = "") -> list[Outcome]:
        headers = (("source", source.encode()),) if source else ()
        records = [Record("email.notifications", 0, n, 0, None, value, headers) for n, value in enumerate(values)]
        return list(await self.translate(records))

    @property
    def facts(self) -> list[str]:
        return [json.loads(item.value)["id"] for item in self.publisher.published]

    @property
    def recipients(self) -> list[str]:
        return [json.loads(item.value)["data"]["recipient"] for item in self.publisher.published]


def raw(kind: str = "Delivery", **changes: object) -> bytes:
    part, body = PARTS[kind]
    return json.dumps(notification(kind, part, body, **changes)).encode()  # type: ignore[arg-type]


@pytest.mark.parametrize("trouble", ["away", "losing_answers"])
async def test_facts_that_are_not_acknowledged_come_again(trouble: str) -> None:
    world = World()
    setattr(world.publisher, trouble, True)
    outcomes = await world.hear(raw(), raw("Open"))
    assert [type(each) for each in outcomes] == [Retry, Retry]
    setattr(world.publisher, trouble, False)
    assert await world.hear(raw(), raw("Open")) == [DONE, DONE]
    assert len(set(world.facts)) == 2, "the same facts under the same ids, however often"


async def test_what_belongs_to_nobody_yet_is_parked_as_early_and_found_later() -> None:
    world = World()
    without_tags = raw(tags=None, headers=None)
    (early,) = await world.hear(without_tags)
    assert isinstance(early, Park)
    assert (early.reason, early.kind) == ("uncorrelated", "uncorrelated")
    world.lookup.known = True
    assert await world.hear(without_tags) == [DONE]
    assert json.loads(world.publisher.published[0].value)["data"]["attemptId"] == ATTEMPT_ID


async def test_nothing_is_decided_while_nobody_can_be_asked_whose_it_is() -> None:
    world = World(known=True)
    world.lookup.away = True
    (outcome,) = await world.hear(raw(tags=None, headers=None))
    assert isinstance(outcome, Retry)
    assert world.facts == []


async def test_bad_notifications_are_parked_and_their_neighbours_translated() -> None:
    world = World()
    outcomes = await world.hear(None, b"nonsense", b"[]", raw(), b'{"eventType": "Delivery"}')
    assert [type(each) for each in outcomes] == [Park, Park, Park, type(DONE), Park]
    assert len(world.facts) == 1


async def test_what_says_nothing_is_let_go() -> None:
    world = World()
    confirmation = json.dumps({"Type": "SubscriptionConfirmation", "MessageId": "x", "Message": "confirm"}).encode()
    assert await world.hear(confirmation) == [DONE]
    assert world.facts == []


# --- SendGrid and Mailgun ---

EXAMPLES = {"sendgrid": sendgrid, "mailgun": mailgun}
WITHOUT_OUR_IDS = {
    "sendgrid": sendgrid.event("delivered", mailroom_message_id=None),
    "mailgun": mailgun.event("delivered", user_variables="Could not load user-variables"),
}
NAMELESS = {
    "sendgrid": {**sendgrid.delayed_bounce(""), "event": "spamreport"},
    "mailgun": mailgun.event("failed", user_variables=None, message={"headers": {}}, envelope={}),
}


@pytest.mark.parametrize("source", EXAMPLES)
async def test_the_source_of_a_record_names_its_format_and_the_provider_of_its_facts(source: str) -> None:
    world = World()
    assert await world.hear(json.dumps(EXAMPLES[source].event("delivered")).encode(), source=source) == [DONE]
    assert world.metrics.value(m.FACTS_TRANSLATED, provider=source, type="email.delivered") == 1


@pytest.mark.parametrize("source", EXAMPLES)
async def test_recipients_come_in_our_spelling_by_one_look_for_a_batch(source: str) -> None:
    world = World(known=True)
    value = json.dumps(EXAMPLES[source].event("delivered")).encode()
    assert await world.hear(value, value, source=source) == [DONE, DONE]
    assert (world.recipients, world.lookup.asked) == ([OURS, OURS], 1)


async def test_ses_reports_recipients_as_we_wrote_them_so_that_nobody_is_asked() -> None:
    world = World(known=True)
    assert await world.hear(raw()) == [DONE]
    assert world.lookup.asked == 0


@pytest.mark.parametrize("source", EXAMPLES)
async def test_a_recipient_that_no_stream_tells_of_stays_as_reported(source: str) -> None:
    world = World()
    assert await world.hear(json.dumps(EXAMPLES[source].event("delivered")).encode(), source=source) == [DONE]
    assert world.recipients == [OURS.lower()]


@pytest.mark.parametrize("source", EXAMPLES)
async def test_nothing_is_published_while_nobody_can_be_asked_for_the_recipient(source: str) -> None:
    world = World(known=True)
    world.lookup.away = True
    bad = b"{}"
    outcomes = await world.hear(json.dumps(EXAMPLES[source].event("delivered")).encode(), bad, source=source)
    assert [type(each) for each in outcomes] == [Retry, Park]
    assert world.facts == []


@pytest.mark.parametrize("source", EXAMPLES)
async def test_without_our_ids_the_provider_s_id_leads_to_the_message(source: str) -> None:
    world = World()
    value = json.dumps(WITHOUT_OUR_IDS[source]).encode()
    (early,) = await world.hear(value, source=source)
    assert isinstance(early, Park)
    assert (early.reason, early.kind) == ("uncorrelated", "uncorrelated")
    world.lookup.known = True
    assert await world.hear(value, source=source) == [DONE]
    assert world.recipients == [OURS]


@pytest.mark.parametrize("source", EXAMPLES)
async def test_what_names_no_message_is_kept_as_uncorrelated(source: str) -> None:
    world = World(known=True)
    (outcome,) = await world.hear(json.dumps(NAMELESS[source]).encode(), source=source)
    assert isinstance(outcome, Park)
    assert (outcome.reason, outcome.kind) == ("uncorrelated", "uncorrelated")
    assert "names no message" in outcome.detail


async def test_a_bounce_that_names_an_address_alone_is_that_of_the_one_attempt_or_kept() -> None:
    world = World()
    value = json.dumps(sendgrid.delayed_bounce("")).encode()
    (early,) = await world.hear(value, source="sendgrid")
    assert isinstance(early, Park)
    assert (early.reason, early.kind, early.detail) == ("uncorrelated", "uncorrelated", "two may be meant")
    world.lookup.known = True
    assert await world.hear(value, source="sendgrid") == [DONE]
    assert (world.recipients, world.lookup.asked) == ([OURS], 2)


@pytest.mark.parametrize("source", EXAMPLES)
async def test_bad_events_are_parked_and_their_neighbours_translated(source: str) -> None:
    world = World()
    good = json.dumps(EXAMPLES[source].event("delivered")).encode()
    strange = json.dumps({**EXAMPLES[source].event("delivered"), "event": "teleported"}).encode()
    outcomes = await world.hear(b"5", b'{"Key": "email"}', good, strange, None, source=source)
    assert [type(each) for each in outcomes] == [Park, Park, type(DONE), type(DONE), Park]
    assert len(world.facts) == 1


async def test_another_source_is_refused_with_the_names_of_those_that_are_known() -> None:
    (outcome,) = await World().hear(raw(), source="pigeons")
    assert isinstance(outcome, Park)
    assert (outcome.reason, outcome.detail) == (
        "unknownSource",
        "notifications of ses, sendgrid, mailgun, smtp can be translated here",
    )


# --- where strangers write ---------------------------------------------------------------------------------------


async def test_a_report_by_mail_counts_for_the_recipient_of_its_attempt_alone() -> None:
    world = World(known=True)
    assert await world.hear(postfix(recipient="boss@victim.example"), source="smtp") == [DONE]
    (published,) = world.publisher.published
    assert json.loads(published.value)["data"]["recipient"] == "jane@example.com"


async def test_a_report_of_no_attempt_of_ours_is_dropped_so_that_strangers_fill_no_parking_lot() -> None:
    world = World()
    assert await world.hear(postfix(), b"Subject: buy\r\n\r\n", b"\xff", source="smtp") == [DONE] * 3
    assert world.facts == []


async def test_a_report_waits_while_nobody_can_be_asked_whose_it_is() -> None:
    world = World(known=True)
    world.lookup.away = True
    (outcome,) = await world.hear(postfix(), source="smtp")
    assert isinstance(outcome, Retry)
