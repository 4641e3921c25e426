"""The translator as a batch handler: an offset is let go only when the facts of its notification are acknowledged."""

from __future__ import annotations

import json

import pytest

from contracts.envelope import Envelope
from services.email.adapters.ses_notifications import SesNotifications
from services.email.domain.correlation import Correlation
from services.email.domain.notifications import InboundMail
from services.email.entrypoints.translator import Translator
from services.kit.errors import Unavailable
from services.kit.kafka.records import DONE, Outcome, Park, Record, Retry
from services.kit.testing.publisher import MemoryPublisher
from tests.unit.email_service.ses_examples import ATTEMPT_ID, MESSAGE_ID, PARTS, PROVIDER_ID, notification


class Lookup:
    """Knows one message of the provider; `away`: cannot be asked."""

    def __init__(self, *, known: bool = False) -> None:
        self.known, self.away = known, False

    async def by_provider_message_id(self, provider: str, provider_message_id: str) -> Correlation | None:
        if self.away:
            raise Unavailable("MongoDB", "switched off by the test")
        assert (provider, provider_message_id) == ("ses", PROVIDER_ID)
        return Correlation(MESSAGE_ID, ATTEMPT_ID) if self.known else None


class NoMails:
    """Nobody writes to us."""

    async def fact(self, mail: InboundMail) -> Envelope | None:
        raise AssertionError("it was about a mail of ours")


class Counts:
    """Counts nothing."""

    def translated(self, event_type: str) -> None: ...

    def ignored(self) -> None: ...


class World:
    def __init__(self, *, known: bool = False) -> None:
        self.publisher, self.lookup = MemoryPublisher(), Lookup(known=known)
        self.translate = Translator({"ses": SesNotifications()}, self.publisher, self.lookup, NoMails(), Counts())

    async def hear(self, *values: bytes | None) -> list[Outcome]:
        records = [Record("email.notifications", 0, n, 0, None, value, ()) for n, value in enumerate(values)]
        return list(await self.translate(records))

    @property
    def facts(self) -> list[str]:
        return [json.loads(item.value)["id"] for item in self.publisher.published]


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
