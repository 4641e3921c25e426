"""The webhooks over real HTTP semantics (ASGI): what each provider is answered, and what is on the topic by then."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from starlette.types import Message

from contracts.topics import EMAIL_NOTIFICATIONS
from services.email.domain.webhooks import OneUse
from services.email.entrypoints.http_webhooks import AT_ONCE, LARGEST
from services.kit.errors import PermanentError, Unavailable
from services.kit.kafka.publisher import Outgoing
from services.kit.metrics import NOTIFICATIONS_RECEIVED, NOTIFICATIONS_RELEASED
from tests.unit.email_service.signing import (
    NOW,
    TOPIC,
    confirmation,
    mailgun_body,
    mailgun_signature,
    sendgrid_signed,
    sns_envelope,
    sns_signed,
)
from tests.unit.email_service.webhooks import MemoryUsedTokens, Webhooks

SNS = sns_signed(sns_envelope())
SENDGRID = b'[{"event":"open","sg_event_id":"one"},\r\n{"event":"click","sg_event_id":"two"}]\r\n'
MAILGUN = mailgun_body()


@pytest.fixture
def webhooks() -> Webhooks:
    return Webhooks()


async def all_three(webhooks: Webhooks) -> list[int]:
    """The statuses of a good POST of each."""
    return [
        (await webhooks.sns(SNS)).status_code,
        (await webhooks.sendgrid(SENDGRID)).status_code,
        (await webhooks.mailgun(MAILGUN)).status_code,
    ]


async def test_what_is_genuine_is_on_the_topic_with_how_it_came(webhooks: Webhooks) -> None:
    assert await all_three(webhooks) == [200, 200, 200]
    sns, one, two, mailgun = webhooks.publisher.published
    assert {item.topic for item in webhooks.publisher.published} == {EMAIL_NOTIFICATIONS.name}
    assert (sns.key, one.key, two.key, mailgun.key) == (
        sns_envelope()["MessageId"].encode(), b"one", b"two", b"CPgfbmQMTCKtHW6uIWtuVe"
    )  # fmt: skip
    assert (one.value, two.value) == (
        b'{"event":"open","sg_event_id":"one"}', b'{"event":"click","sg_event_id":"two"}'
    )  # fmt: skip
    assert mailgun.value == MAILGUN
    for item, source, verified in (
        (sns, b"ses", b"sns-signature-2"),
        (two, b"sendgrid", b"ecdsa-p256-sha256"),
        (mailgun, b"mailgun", b"hmac-sha256-of-token"),
    ):
        assert dict(item.headers) == {"source": source, "via": b"https", "verified": verified}
    assert [webhooks.counted(name, "taken") for name in ("ses", "sendgrid", "mailgun")] == [1, 1, 1]
    assert webhooks.metrics.value(NOTIFICATIONS_RECEIVED, source="webhook-sendgrid") == 2
    assert webhooks.metrics.value(NOTIFICATIONS_RELEASED, source="webhook-sendgrid") == 2


async def test_what_is_forged_is_refused_and_nothing_of_it_is_published(webhooks: Webhooks) -> None:
    answers = [
        await webhooks.sns(sns_signed(sns_envelope(), Message="{}")),
        await webhooks.post("sendgrid", SENDGRID + b" ", sendgrid_signed(SENDGRID)),
        await webhooks.mailgun(mailgun_body(mailgun_signature(key="x" * 32))),
        await webhooks.sns(b"hello"),
        await webhooks.post("sendgrid", SENDGRID),
        await webhooks.mailgun(b"\xff"),
    ]
    assert [answer.status_code for answer in answers] == [403] * 6
    assert all(answer.json()["success"] is False for answer in answers)
    assert webhooks.values == []
    assert [webhooks.counted(name, "forged") for name in ("ses", "sendgrid", "mailgun")] == [2, 2, 2]


async def test_our_own_trouble_is_503_so_that_every_provider_repeats(webhooks: Webhooks) -> None:
    webhooks.publisher.away = True
    assert await all_three(webhooks) == [503, 503, 503]
    webhooks.publisher.away = False
    webhooks.publisher.losing_answers = True
    webhooks.publisher.__class__ = type("Healthy", (type(webhooks.publisher),), {"healthy": True})
    assert await all_three(webhooks) == [503, 503, 503]
    webhooks.publisher.losing_answers = False
    assert await all_three(webhooks) == [200, 200, 200], "no token counts as used before Kafka has its body"
    assert [webhooks.counted(name, "unpublished") for name in ("ses", "sendgrid", "mailgun")] == [2, 2, 2]
    assert [webhooks.counted(name, "duplicate") for name in ("ses", "sendgrid", "mailgun")] == [0, 0, 0]


async def test_what_cannot_be_told_now_is_503(webhooks: Webhooks) -> None:
    webhooks.certificates.away = True
    assert (await webhooks.sns(SNS)).status_code == 503
    later = mailgun_body(mailgun_signature(at=NOW + timedelta(hours=1)))
    assert (await webhooks.mailgun(later)).status_code == 503
    assert webhooks.values == []
    webhooks.certificates.away = False
    assert (await webhooks.sns(SNS)).status_code == 200
    assert webhooks.counted("ses", "undecided") == 1


async def test_a_provider_that_is_not_set_up_has_no_webhook() -> None:
    webhooks = Webhooks(["mailgun"])
    assert await all_three(webhooks) == [404, 404, 200]
    assert (await webhooks.client.get("/api/webhooks/mailgun")).status_code == 405
    document = (await webhooks.client.get("/openapi.json")).json()
    assert set(document["paths"]) == {"/api/webhooks/mailgun"}
    assert set(document["paths"]["/api/webhooks/mailgun"]["post"]["responses"]) >= {"200", "406", "413", "503"}


# --- sizes ---------------------------------------------------------------------------------------------------------


async def test_a_body_may_have_a_mebibyte(webhooks: Webhooks) -> None:
    event = b'{"sg_event_id":"%06d","pad":"' + b"x" * 900 + b'"}'
    count = LARGEST // (len(event) + 3)
    body = b"[" + b",".join(event % n for n in range(count)) + b"]"
    body += b" " * (LARGEST - len(body))
    assert (await webhooks.sendgrid(body)).json()["data"] == {"events": count}
    assert len(webhooks.values) == count
    assert (await webhooks.sendgrid(body + b" ")).status_code == 413


async def test_a_signed_batch_is_never_refused_for_its_number_of_events(webhooks: Webhooks) -> None:
    """SendGrid would repeat it as it is, and give up after a day."""
    sizes = []
    publish = webhooks.publisher.publish

    async def counting(items: list[Outgoing]) -> list[Exception | None]:
        sizes.append(len(items))
        return await publish(items)

    webhooks.publisher.publish = counting  # type: ignore[assignment,method-assign]
    events = 2 * AT_ONCE + 1
    body = b"[" + b",".join(b'{"sg_event_id":"%d"}' % n for n in range(events)) + b"]"
    assert (await webhooks.sendgrid(body)).json()["data"] == {"events": events}
    assert [item.key for item in webhooks.publisher.published] == [b"%d" % n for n in range(events)]
    assert sizes == [AT_ONCE, AT_ONCE, 1]


async def test_a_bad_event_takes_no_other_down(webhooks: Webhooks) -> None:
    body = b'[{"sg_event_id":"one"},null,[{"Key":"event"}],{"sg_event_id":"two"}]'
    assert (await webhooks.sendgrid(body)).status_code == 200
    assert webhooks.values == [b'{"sg_event_id":"one"}', b"null", b'[{"Key":"event"}]', b'{"sg_event_id":"two"}']


async def test_an_event_that_kafka_never_takes_is_not_acknowledged_and_the_others_are_there(webhooks: Webhooks) -> None:
    keep = webhooks.publisher._publish

    def refuse(item: Outgoing) -> Exception | None:
        return PermanentError("tooLarge", item.topic) if item.key == b"two" else keep(item)

    webhooks.publisher._publish = refuse  # type: ignore[method-assign]
    body = b'[{"sg_event_id":"one"},{"sg_event_id":"two"},{"sg_event_id":"three"}]'
    assert (await webhooks.sendgrid(body)).status_code == 413
    assert [item.key for item in webhooks.publisher.published] == [b"one", b"three"]


async def test_a_body_that_comes_too_slowly_is_503_and_not_408_which_sns_gives_up(webhooks: Webhooks) -> None:
    sent: list[Message] = []
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": "/api/webhooks/ses", "raw_path": b"/api/webhooks/ses", "query_string": b"", "root_path": "",
        "headers": [(b"host", b"mailroom")], "client": ("127.0.0.1", 1), "server": ("mailroom", 80),
    }  # fmt: skip

    async def receive() -> Message:
        webhooks.clock.move(60)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def send(message: Message) -> None:
        sent.append(message)

    await webhooks.app(scope, receive, send)
    assert sent[0]["status"] == 503
    assert (b"connection", b"close") in [(name.lower(), value) for name, value in sent[0]["headers"]]


# --- SNS -----------------------------------------------------------------------------------------------------------


async def test_a_subscription_of_a_listed_topic_is_confirmed_and_publishes_nothing(webhooks: Webhooks) -> None:
    assert (await webhooks.sns(sns_signed(confirmation()))).status_code == 200
    assert webhooks.subscriptions.topics == [TOPIC]
    assert webhooks.values == []


async def test_a_subscription_that_is_forged_or_of_another_topic_is_not_confirmed(webhooks: Webhooks) -> None:
    other = "arn:aws:sns:eu-central-1:999999999999:mailroom-production"
    assert (await webhooks.sns(sns_signed(confirmation(TopicArn=other)))).status_code == 403
    assert (await webhooks.sns(sns_signed(confirmation(), Token="another"))).status_code == 403
    assert webhooks.certificates.asked == [confirmation()["SigningCertURL"]], "for the second alone"
    assert webhooks.subscriptions.topics == []


@pytest.mark.parametrize("error", [Unavailable("SNS", "away"), PermanentError("awsRefused", "SNS answered NotFound")])
async def test_a_subscription_that_cannot_be_confirmed_is_asked_for_again(webhooks: Webhooks, error: Exception) -> None:
    webhooks.subscriptions.error = error
    assert (await webhooks.sns(sns_signed(confirmation()))).status_code == 503


async def test_the_end_of_a_subscription_is_taken_note_of(webhooks: Webhooks) -> None:
    assert (await webhooks.sns(sns_signed(confirmation("UnsubscribeConfirmation")))).status_code == 200
    assert (webhooks.subscriptions.topics, webhooks.values) == ([], [])


# --- Mailgun -------------------------------------------------------------------------------------------------------


async def test_the_same_again_is_200_and_published_once(webhooks: Webhooks) -> None:
    assert [(await webhooks.mailgun(MAILGUN)).status_code for _ in range(3)] == [200, 200, 200]
    assert webhooks.values == [MAILGUN]
    assert webhooks.counted("mailgun", "taken") == 1
    assert webhooks.counted("mailgun", "duplicate") == 2


async def test_a_token_is_good_for_one_body(webhooks: Webhooks) -> None:
    await webhooks.mailgun(MAILGUN)
    assert (await webhooks.mailgun(mailgun_body(event="failed"))).status_code == 406
    assert webhooks.values == [MAILGUN]
    assert webhooks.counted("mailgun", "reused") == 1
    other = mailgun_body(mailgun_signature(token="0" * 50), event="failed")
    assert (await webhooks.mailgun(other)).status_code == 200, "another token of the same second"


async def test_a_token_is_known_until_it_is_too_old(webhooks: Webhooks) -> None:
    await webhooks.mailgun(MAILGUN)
    webhooks.clock.move(timedelta(hours=24).total_seconds())
    assert (await webhooks.mailgun(mailgun_body(event="failed"))).status_code == 406
    webhooks.clock.move(1)
    assert (await webhooks.mailgun(mailgun_body(event="failed"))).status_code == 403


async def test_without_the_store_of_tokens_mailgun_repeats(webhooks: Webhooks) -> None:
    webhooks.tokens.away = True
    assert (await webhooks.mailgun(MAILGUN)).status_code == 503
    assert webhooks.values == []
    webhooks.tokens.away = False
    assert (await webhooks.mailgun(MAILGUN)).status_code == 200


class Racing(MemoryUsedTokens):
    """Another process records the token with another body between the look and the record."""

    async def record(self, use: OneUse) -> str:
        await super().record(OneUse(use.token, "another body's", use.until))
        return await super().record(use)


async def test_of_two_bodies_at_once_the_one_recorded_later_is_told_so() -> None:
    webhooks = Webhooks(tokens=Racing)
    assert (await webhooks.mailgun(MAILGUN)).status_code == 406
    assert webhooks.counted("mailgun", "reused") == 1


async def test_an_event_without_event_data_is_published_as_it_came(webhooks: Webhooks) -> None:
    body = json.dumps({"signature": mailgun_signature(), "greeting": 1}).encode()
    assert (await webhooks.mailgun(body)).status_code == 200
    assert [(item.key, item.value) for item in webhooks.publisher.published] == [(None, body)]
