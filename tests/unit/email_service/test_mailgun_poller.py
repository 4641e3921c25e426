"""Mailgun is asked about attempts that stay unknown, and what it says comes the way of its webhooks."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta
from typing import Any

import httpx
import orjson
import pytest

from contracts.topics import EMAIL_NOTIFICATIONS
from services.email.adapters.mailgun_events import MOST_PAGES, MailgunEventLog
from services.email.adapters.mailgun_notifications import MailgunNotifications
from services.email.entrypoints.mailgun_poller import LONGEST_PAUSE, MOST_QUESTIONS, MailgunPoller
from services.kit import metrics as m
from services.kit.errors import RefusedHere, Unavailable
from services.kit.health import Progress
from services.kit.metrics import Metrics
from services.kit.testing import FakeClock
from services.kit.testing.publisher import MemoryPublisher
from tests.unit.email_service.fakes import Post
from tests.unit.email_service.mail import NOW, SILENCE, heard, plan_for
from tests.unit.email_service.mailgun_examples import EVENTS

TO = "a@example.com"
AFTER = timedelta(seconds=60)


class Poll:
    """A poller on streams in memory, and a Mailgun that has `events`, or raises `error`."""

    def __init__(self) -> None:
        self.clock = FakeClock(NOW)
        self.post = Post(clock=self.clock)
        self.publisher = MemoryPublisher()
        self.metrics = Metrics()
        self.events: list[dict[str, Any]] = []
        self.asked: list[tuple[str, datetime, datetime]] = []
        self.poller = MailgunPoller(
            self.post.streams,
            MailgunNotifications(),
            self.ask,
            self.publisher,
            self.clock,
            Progress(self.clock),
            self.metrics,
            after=AFTER,
        )

    async def ask(self, recipient: str, since: datetime, until: datetime) -> list[dict[str, Any]]:
        self.asked.append((recipient, since, until))
        return self.events

    async def unknown(self, attempt_id: str, provider: str = "mailgun") -> str:
        """A message whose attempt got no answer."""
        (message_id,) = await self.post.queue(1)
        await self.post.do(message_id, plan_for([(TO, attempt_id)], provider), heard(attempt_id, SILENCE))
        return message_id

    def found(self) -> list[dict[str, Any]]:
        return [orjson.loads(each.value) for each in self.publisher.on(EMAIL_NOTIFICATIONS.name)]


def event(message_id: str, attempt_id: str, **other: Any) -> dict[str, Any]:
    variables = {"mailroom_message_id": message_id, "mailroom_attempt_id": attempt_id}
    return {**EVENTS["delivered"], "id": "e1", "user-variables": variables, **other}


async def test_what_is_found_comes_as_a_webhook_brings_it() -> None:
    poll = Poll()
    message_id = await poll.unknown("t1")
    mine = event(message_id, "t1")
    poll.events = [event(message_id, "t0"), mine, event("another", "t1"), {"id": "no variables"}]
    await poll.clock.advance(61)
    assert await poll.poller.look() == 1
    assert poll.found() == [{"event-data": mine}]
    (published,) = poll.publisher.on(EMAIL_NOTIFICATIONS.name)
    assert published.key == b"e1"
    assert dict(published.headers)["source"] == b"mailgun"
    ((recipient, since, until),) = poll.asked
    assert recipient == TO
    assert since < NOW < until == poll.clock.now()
    assert poll.metrics.value(m.MAILGUN_QUESTIONS, outcome="found") == 1


async def test_webhooks_have_their_time_and_other_providers_are_not_asked_about() -> None:
    poll = Poll()
    await poll.unknown("t1")
    await poll.unknown("t2", "ses")
    await poll.clock.advance(59)
    assert await poll.poller.look() == 0
    assert poll.asked == []
    await poll.clock.advance(2)
    await poll.poller.look()
    assert len(poll.asked) == 1


async def test_one_attempt_is_asked_about_ever_more_rarely() -> None:
    poll = Poll()
    await poll.unknown("t1")
    times: list[float] = []
    for second in range(3 * 3600):
        await poll.clock.advance(1)
        before = len(poll.asked)
        if second % 15 == 0:
            await poll.poller.look()
        if len(poll.asked) > before:
            times.append(second)
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert pauses == sorted(pauses)
    assert pauses[0] == 15
    assert pauses[-1] == LONGEST_PAUSE


async def test_an_outage_s_attempts_do_not_use_up_what_may_be_asked() -> None:
    poll = Poll()
    for n in range(MOST_QUESTIONS + 5):
        await poll.unknown(f"t{n}")
    await poll.clock.advance(61)
    await poll.poller.look()
    assert len(poll.asked) == MOST_QUESTIONS
    await poll.poller.look()
    assert len(poll.asked) == MOST_QUESTIONS + 5


async def test_what_kafka_does_not_take_is_asked_for_again() -> None:
    poll = Poll()
    poll.events = [event(await poll.unknown("t1"), "t1")]
    await poll.clock.advance(61)
    poll.publisher.away = True
    with pytest.raises(Unavailable):
        await poll.poller.look()
    poll.publisher.away = False
    assert await poll.poller.look() == 1


# --- the log itself ----------------------------------------------------------------------------------------------


def log_of(*answers: httpx.Response) -> tuple[MailgunEventLog, list[httpx.Request]]:
    asked: list[httpx.Request] = []
    left = list(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return left.pop(0) if len(left) > 1 else left[0]

    client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    return MailgunEventLog(client, api_key="key", domain="mg.example", url="https://mailgun.example"), asked


def page(items: list[Any], following: str = "https://mailgun.example/v3/mg.example/events/next") -> httpx.Response:
    return httpx.Response(200, json={"items": items, "paging": {"next": following}})


async def about(log: MailgunEventLog) -> list[dict[str, Any]]:
    return await log.about(TO, NOW, NOW + timedelta(hours=1))


async def test_all_pages_are_read_until_an_empty_one() -> None:
    log, asked = log_of(page([{"id": "1"}, {"id": "2"}]), page([{"id": "3"}, "no event"]), page([]))
    assert [each["id"] for each in await about(log)] == ["1", "2", "3"]
    assert dict(asked[0].url.params)["recipient"] == TO
    assert [each.url.path for each in asked] == ["/v3/mg.example/events", *2 * ["/v3/mg.example/events/next"]]
    assert all(each.headers["authorization"].startswith("Basic ") for each in asked)


async def test_a_log_without_end_is_left() -> None:
    log, asked = log_of(page([{"id": "1"}]))
    assert len(await about(log)) == MOST_PAGES
    assert len(asked) == MOST_PAGES + 1


async def test_the_key_is_given_to_nobody_else() -> None:
    log, asked = log_of(page([{"id": "1"}], "https://elsewhere.example/v3/mg.example/events/next"))
    assert len(await about(log)) == 1
    assert len(asked) == 1


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_key_that_may_not_read_is_told(status: int) -> None:
    log, _ = log_of(httpx.Response(status, text="Forbidden"))
    with pytest.raises(RefusedHere, match="MAILGUN_API_KEY"):
        await about(log)


@pytest.mark.parametrize(
    ("answer", "after"),
    [
        (httpx.Response(429, headers={"Retry-After": "7"}), 7.0),
        (httpx.Response(500), None),
        (httpx.Response(200, text="Mailgun Magnificent API"), None),
        (httpx.Response(200, json=[]), None),
    ],
)
async def test_what_is_no_answer_may_come_later(answer: httpx.Response, after: float | None) -> None:
    log, _ = log_of(answer)
    with pytest.raises(Unavailable) as raised:
        await about(log)
    assert raised.value.retry_after == after
