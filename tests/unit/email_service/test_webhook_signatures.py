"""Signatures of providers: good ones of each version, each way of being wrong, and when nobody can tell."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from datetime import timedelta
from typing import Any, Self

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from services.email.adapters.signatures import read_mailgun, verify_mailgun, verify_sendgrid
from services.email.adapters.sns_certificates import FETCHES, LARGEST, SnsCertificates
from services.email.adapters.webhooks import MailgunWebhook, SesWebhook, SnsSubscriptions
from services.email.domain.webhooks import CLOCKS_DIFFER, Forged, Genuine, Post, Subscription, Taken, Undecided
from services.kit.aws import AwsAccount
from services.kit.crypto import p256_key
from services.kit.errors import Unavailable
from tests.unit.email_service.signing import (
    CERTIFICATE_URL,
    MAILGUN_KEY,
    MAILGUN_TOKEN,
    NOW,
    TOPIC,
    Certificates,
    certificate,
    confirmation,
    mailgun_body,
    mailgun_signature,
    rsa_key,
    sendgrid_key,
    sendgrid_public,
    sendgrid_signed,
    sns_envelope,
    sns_signed,
    timestamp,
)

HOURS = timedelta(hours=8)
SECOND = timedelta(seconds=1)


def told(found: object) -> str:
    """The reason of a verdict that is not good; `taken` or `genuine` else."""
    return found.reason if isinstance(found, Forged | Undecided) else type(found).__name__.lower()


# --- SNS -----------------------------------------------------------------------------------------------------------


class Sns:
    """SES's webhook, and the certificates that it asks for."""

    def __init__(self, *topics: str) -> None:
        self.certificates = Certificates()
        self.webhook = SesWebhook(topics or (TOPIC,), self.certificates, lambda: NOW, HOURS)

    async def read(self, body: bytes, **headers: str) -> Taken | Forged | Undecided:
        return await self.webhook.read(Post.of(body, {name.replace("_", "-"): each for name, each in headers.items()}))


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize("subject", [None, "Amazon SES Email Event Notification", ""])
async def test_sns_notifications_of_both_versions_with_and_without_a_subject(version: str, subject: str | None) -> None:
    found = await Sns().read(sns_signed(sns_envelope(Subject=subject), version))
    assert isinstance(found, Taken)
    assert found.by == f"sns-signature-{version}"


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize("kind", ["SubscriptionConfirmation", "UnsubscribeConfirmation"])
async def test_sns_confirmations_are_signed_over_other_fields(version: str, kind: str) -> None:
    found = await Sns().read(sns_signed(confirmation(kind), version))
    assert isinstance(found, Taken)
    assert found.records == ()
    assert (found.subscription == Subscription(TOPIC, "t" * 64)) == (kind == "SubscriptionConfirmation")


async def test_sns_may_spell_the_field_of_the_certificate_in_either_way() -> None:
    body = sns_signed(sns_envelope(SigningCertURL=None, SigningCertUrl=CERTIFICATE_URL))
    assert told(await Sns().read(body)) == "taken"


async def test_a_newline_at_the_end_of_a_message_is_signed_too() -> None:
    envelope = sns_envelope('{"eventType": "Send"}\n')
    assert told(await Sns().read(sns_signed(envelope))) == "taken"
    assert told(await Sns().read(sns_signed(envelope, Message='{"eventType": "Send"}'))) == "badSignature"


@pytest.mark.parametrize(
    "changed",
    [
        {"Message": '{"eventType": "Complaint"}'},
        {"MessageId": "00000000-0000-0000-0000-000000000000"},
        {"Timestamp": "2026-11-24T10:24:59.123Z"},
        {"Subject": "another"},
        {"Subject": None},
        {"SignatureVersion": "1"},
    ],
    ids=str,
)
async def test_whatever_sns_has_signed_cannot_be_changed(changed: dict[str, Any]) -> None:
    body = sns_signed(sns_envelope(Subject="signed"), **changed)
    assert told(await Sns().read(body)) == "badSignature"


async def test_a_notification_does_not_pass_for_a_confirmation_nor_the_other_way_round() -> None:
    body = sns_signed(sns_envelope(), Type="SubscriptionConfirmation", Token="t", SubscribeURL="https://x")
    assert told(await Sns().read(body)) == "badSignature"
    assert told(await Sns().read(sns_signed(confirmation(), Type="Notification"))) == "badSignature"


async def test_somebody_elses_key_does_not_pass() -> None:
    assert told(await Sns().read(sns_signed(sns_envelope(), which="another"))) == "badSignature"


@pytest.mark.parametrize(
    "url",
    [
        "http://sns.eu-central-1.amazonaws.com/SimpleNotificationService-01.pem",
        "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-01.pem",
        "https://sns.eu-central-1.amazonaws.com.cn/SimpleNotificationService-01.pem",
        "https://sns.eu-central-1.amazonaws.com.evil.example/SimpleNotificationService-01.pem",
        "https://sns.eu-central-1.amazonaws.com@evil.example/SimpleNotificationService-01.pem",
        "https://sns.eu-central-1.amazonaws.com:8443/SimpleNotificationService-01.pem",
        "https://evil.example/sns.eu-central-1.amazonaws.com/SimpleNotificationService-01.pem",
        "https://s3.eu-central-1.amazonaws.com/SimpleNotificationService-01.pem",
        "https://bucket.s3.eu-central-1.amazonaws.com/SimpleNotificationService-01.pem",
        "https://sns.eu-central-1.amazonaws.com/bucket/SimpleNotificationService-01.pem",
        "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-01.pem?x=1",
        "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-01.pem\n",
        "https://snsXeu-central-1.amazonaws.com/SimpleNotificationService-01.pem",
        "file:///etc/ssl/cert.pem",
        "",
    ],
)
async def test_a_certificate_is_fetched_from_sns_in_the_topics_region_alone(url: str) -> None:
    sns = Sns()
    assert told(await sns.read(sns_signed(sns_envelope(SigningCertURL=url)))) == "strangeCertificate"
    assert sns.certificates.asked == []


@pytest.mark.parametrize(
    ("topic", "url"),
    [
        (
            "arn:aws-cn:sns:cn-north-1:123456789012:m",
            "https://sns.cn-north-1.amazonaws.com.cn/SimpleNotificationService-01.pem",
        ),
        (
            "arn:aws-us-gov:sns:us-gov-west-1:123456789012:m",
            "https://sns.us-gov-west-1.amazonaws.com/SimpleNotificationService-01.pem",
        ),
    ],
)
async def test_the_other_partitions_of_aws_have_their_own_hosts(topic: str, url: str) -> None:
    sns = Sns(topic)
    sns.certificates.found[url] = certificate()
    assert told(await sns.read(sns_signed(sns_envelope(TopicArn=topic, SigningCertURL=url)))) == "taken"


@pytest.mark.parametrize("make", [sns_envelope, confirmation])
async def test_a_topic_that_is_not_listed_is_refused_before_anything_is_fetched(make: Any) -> None:
    sns = Sns()
    other = "arn:aws:sns:eu-central-1:999999999999:mailroom-production"
    assert told(await sns.read(sns_signed(make(TopicArn=other)))) == "unknownTopic"
    assert sns.certificates.asked == []


async def test_raw_delivery_is_refused_as_nothing_in_it_is_signed() -> None:
    found = await Sns().read(b'{"eventType": "Bounce"}', X_Amz_Sns_RawDelivery="true")
    assert told(found) == "rawDelivery"
    assert told(await Sns().read(b'{"eventType": "Bounce"}')) == "notSns", "without the header likewise"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "notJson"),
        (b"Amazon", "notJson"),
        (b"[]", "notAnObject"),
        (b"[" * 100_000, "notJson"),
        (json.dumps(sns_envelope(Type="Greeting")).encode(), "notSns"),
        (json.dumps(sns_envelope(Type=["Notification"])).encode(), "notSns"),
        (json.dumps(sns_envelope(MessageId=None)).encode(), "notSns"),
        (json.dumps(sns_envelope(Message=7)).encode(), "notSns"),
        (sns_signed(sns_envelope(), Signature=None), "unsigned"),
        (sns_signed(sns_envelope(), Signature="not base64"), "unsigned"),
        (sns_signed(sns_envelope(), Signature=["AAAA"]), "unsigned"),
        (sns_signed(sns_envelope(), Signature="AAAA"), "badSignature"),
        (sns_signed(sns_envelope(Timestamp="yesterday")), "badTime"),
    ],
)
async def test_what_is_no_message_of_sns_is_refused(body: bytes, reason: str) -> None:
    found = await Sns().read(body)
    assert isinstance(found, Forged)
    assert found.reason == reason


async def test_a_subject_of_null_counts_as_none() -> None:
    envelope = json.loads(sns_signed(sns_envelope()))
    assert told(await Sns().read(json.dumps({**envelope, "Subject": None}).encode())) == "taken"


@pytest.mark.parametrize(("age", "reason"), [(HOURS, "taken"), (HOURS + SECOND, "tooOld")])
async def test_sns_messages_may_be_as_old_as_the_longest_repetition(age: timedelta, reason: str) -> None:
    assert told(await Sns().read(sns_signed(sns_envelope(Timestamp=timestamp(NOW - age))))) == reason


@pytest.mark.parametrize("version", ["3", 2, None])
async def test_a_version_that_nobody_knows_here_is_not_given_up(version: Any) -> None:
    found = await Sns().read(sns_signed(sns_envelope(), SignatureVersion=version))
    assert isinstance(found, Undecided)


async def test_a_time_in_the_future_may_be_our_clocks_mistake() -> None:
    near = sns_envelope(Timestamp=timestamp(NOW + CLOCKS_DIFFER))
    far = sns_envelope(Timestamp=timestamp(NOW + CLOCKS_DIFFER + SECOND))
    assert told(await Sns().read(sns_signed(near))) == "taken"
    assert isinstance(await Sns().read(sns_signed(far)), Undecided)


async def test_without_the_certificate_nobody_can_tell() -> None:
    sns = Sns()
    sns.certificates.away = True
    assert isinstance(await sns.read(sns_signed(sns_envelope())), Undecided)


async def test_a_certificate_is_good_for_what_was_signed_while_it_was_valid() -> None:
    sns = Sns()
    sns.certificates.found[CERTIFICATE_URL] = certificate(days=1)  # valid until NOW
    before, after = timestamp(NOW - SECOND), timestamp(NOW + SECOND)
    assert told(await sns.read(sns_signed(sns_envelope(Timestamp=before)))) == "taken"
    assert told(await sns.read(sns_signed(sns_envelope(Timestamp=after)))) == "certificateExpired"


async def test_only_what_was_signed_is_read_on() -> None:
    """A field that SNS did not sign can be added to a signed message by whoever has seen it. `Body` would be taken for
    SQS's, with another notification in it.
    """
    envelope = sns_envelope()
    body = sns_signed(envelope, Body='{"eventType": "Complaint"}', MessageAttributes={"a": 1})
    found = await Sns().read(body)
    assert isinstance(found, Taken)
    (record,) = found.records
    assert record.key == envelope["MessageId"]
    assert json.loads(record.value) == {
        name: envelope[name] for name in ("Type", "MessageId", "TopicArn", "Message", "Timestamp")
    }


@given(
    st.binary(max_size=200)
    | st.dictionaries(st.text(max_size=9), st.text(max_size=9)).map(lambda d: json.dumps(d).encode())
)
async def test_anything_else_is_never_taken_and_raises_nothing(body: bytes) -> None:
    assert isinstance(await Sns().read(body), Forged)
    assert isinstance(await MailgunWebhook([MAILGUN_KEY.encode()], lambda: NOW, HOURS).read(Post.of(body, {})), Forged)
    assert isinstance(verify_sendgrid(Post.of(body, {}), [], NOW, HOURS), Forged)


# --- SNS's certificates --------------------------------------------------------------------------------------------


class Server:
    """Answers with `status` and `content`, and counts."""

    def __init__(self) -> None:
        self.status, self.calls = 200, 0
        self.content = certificate().public_bytes(Encoding.PEM)
        self.fetch = SnsCertificates(transport=httpx.MockTransport(self.answer))

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.calls += 1
        return httpx.Response(self.status, content=self.content, headers={"location": "https://evil.example/"})


async def test_a_certificate_is_fetched_once() -> None:
    server = Server()
    assert await server.fetch(CERTIFICATE_URL) == certificate()
    assert await server.fetch(CERTIFICATE_URL) == certificate()
    assert server.calls == 1


@pytest.mark.parametrize("status", [302, 403, 404, 500])
async def test_a_failure_is_not_kept_and_a_redirect_not_followed(status: int) -> None:
    server = Server()
    server.status = status
    with pytest.raises(Unavailable):
        await server.fetch(CERTIFICATE_URL)
    assert server.calls == 1
    server.status = 200
    assert await server.fetch(CERTIFICATE_URL) == certificate()


@pytest.mark.parametrize("content", [b"<html>", b"", b"x" * (LARGEST + 1)])
async def test_what_is_no_certificate_is_none(content: bytes) -> None:
    server = Server()
    server.content = content
    with pytest.raises(Unavailable):
        await server.fetch(CERTIFICATE_URL)


async def test_certificates_that_are_not_there_keep_few_fetches_busy_and_those_that_are_known_good() -> None:
    server = Server()
    await server.fetch(CERTIFICATE_URL)
    release = asyncio.Event()

    async def hang(request: httpx.Request) -> httpx.Response:
        await release.wait()
        return httpx.Response(404)

    server.fetch._transport = httpx.MockTransport(hang)
    hanging = [asyncio.create_task(server.fetch(f"{CERTIFICATE_URL}{n}")) for n in range(FETCHES)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="too many"):
        await server.fetch(f"{CERTIFICATE_URL}x")
    assert await server.fetch(CERTIFICATE_URL) == certificate()
    release.set()
    assert {type(each) for each in await asyncio.gather(*hanging, return_exceptions=True)} == {Unavailable}


async def test_a_subscription_is_confirmed_through_the_api_in_the_topics_region() -> None:
    called: dict[str, Any] = {}

    class Client:
        async def __aenter__(self) -> Self:
            return self

        async def __aexit__(self, *_: object) -> None: ...

        async def confirm_subscription(self, **arguments: str) -> None:
            called.update(arguments)

    def connect(account: AwsAccount) -> Client:
        called["region"] = account.region
        return Client()

    await SnsSubscriptions(AwsAccount("us-east-1"), connect).confirm(Subscription(TOPIC, "token"))
    assert called == {
        "region": "eu-central-1", "TopicArn": TOPIC, "Token": "token", "AuthenticateOnUnsubscribe": "true"
    }  # fmt: skip


# --- SendGrid ------------------------------------------------------------------------------------------------------

BATCH = b'[{"event":"open","sg_event_id":"one"},\r\n{"event":"click","sg_event_id":"two"}]\r\n'
KEYS = [sendgrid_key(which).public_key() for which in ("first", "second")]


def sendgrid(body: bytes, headers: dict[str, str]) -> Genuine | Forged | Undecided:
    return verify_sendgrid(Post.of(body, headers), KEYS, NOW, timedelta(hours=36))


@pytest.mark.parametrize("which", ["first", "second"])
def test_sendgrids_signature_under_either_key(which: str) -> None:
    assert told(sendgrid(BATCH, sendgrid_signed(BATCH, which=which))) == "genuine"


@pytest.mark.parametrize("change", [str.lower, str.upper, str.title])
def test_the_case_of_header_names_is_nobodys_business(change: Any) -> None:
    headers = {change(name): value for name, value in sendgrid_signed(BATCH).items()}
    assert told(sendgrid(BATCH, headers)) == "genuine"


@pytest.mark.parametrize("changed", [BATCH.rstrip(), BATCH + b"\n", BATCH.replace(b"\r\n", b"\n"), b"", b"[]"])
def test_every_byte_of_sendgrids_body_counts(changed: bytes) -> None:
    assert told(sendgrid(changed, sendgrid_signed(BATCH))) == "badSignature"


def test_sendgrids_timestamp_is_signed_and_may_be_as_old_as_its_repetitions() -> None:
    old = sendgrid_signed(BATCH, NOW - timedelta(hours=36))
    assert told(sendgrid(BATCH, old)) == "genuine"
    assert told(sendgrid(BATCH, sendgrid_signed(BATCH, NOW - timedelta(hours=36, seconds=1)))) == "tooOld"
    moved = old | {"X-Twilio-Email-Event-Webhook-Timestamp": str(int(NOW.timestamp()))}
    assert told(sendgrid(BATCH, moved)) == "badSignature"
    assert isinstance(sendgrid(BATCH, sendgrid_signed(BATCH, NOW + timedelta(hours=1))), Undecided)


def test_what_sendgrid_did_not_sign_is_refused() -> None:
    signed = sendgrid_signed(BATCH)
    for name in signed:
        assert told(sendgrid(BATCH, {each: value for each, value in signed.items() if each != name})) == "unsigned"
    name = "X-Twilio-Email-Event-Webhook-Signature"
    assert told(sendgrid(BATCH, signed | {name: "?"})) == "unsigned"
    assert told(sendgrid(BATCH, signed | {name: b64encode(b"x" * 70).decode()})) == "badSignature"
    assert told(sendgrid(BATCH, sendgrid_signed(BATCH, which="third"))) == "badSignature"
    assert told(verify_sendgrid(Post.of(BATCH, signed), [], NOW, HOURS)) == "badSignature"


@pytest.mark.parametrize("written", ["yesterday", "", "1764000000.5", "１７６４００００００"])
def test_a_timestamp_of_sendgrid_that_is_none(written: str) -> None:
    signature = sendgrid_key("first").sign(written.encode() + BATCH, ec.ECDSA(SHA256()))
    headers = {
        "X-Twilio-Email-Event-Webhook-Signature": b64encode(signature).decode(),
        "X-Twilio-Email-Event-Webhook-Timestamp": written,
    }
    assert told(sendgrid(BATCH, headers)) == "badTime"


def test_keys_of_other_kinds_are_refused_with_a_reason() -> None:
    assert p256_key(sendgrid_public("first")).public_numbers() == sendgrid_key("first").public_key().public_numbers()
    others = (ec.generate_private_key(ec.SECP384R1()).public_key(), rsa_key("sns").public_key())
    for key in others:
        text = b64encode(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()
        with pytest.raises(ValueError, match="P-256"):
            p256_key(text)
    for text in ("", "nonsense", b64encode(b"x" * 91).decode(), sendgrid_public("first")[:-8]):
        with pytest.raises(ValueError, match="base64"):
            p256_key(text)


# --- Mailgun -------------------------------------------------------------------------------------------------------

MAILGUN_KEYS = [MAILGUN_KEY.encode(), b"another-key-that-is-32-bytes-long"]


def mailgun(signature: Any) -> str:
    given = read_mailgun({"signature": signature})
    return "none" if given is None else told(verify_mailgun(given, MAILGUN_KEYS, NOW, timedelta(hours=24)))


@pytest.mark.parametrize("key", [each.decode() for each in MAILGUN_KEYS])
def test_mailguns_signature_under_either_key(key: str) -> None:
    assert mailgun(mailgun_signature(key=key)) == "genuine"
    signature = mailgun_signature(key=key)
    assert mailgun(signature | {"signature": signature["signature"].upper()}) == "genuine"


@pytest.mark.parametrize(
    "changed", [{"token": "6f" * 25}, {"timestamp": "1764000001"}, {"signature": "00" * 32}, {"signature": "é"}]
)
def test_what_mailgun_has_signed_cannot_be_changed(changed: dict[str, str]) -> None:
    assert mailgun(mailgun_signature() | changed) == "badSignature"
    assert mailgun(mailgun_signature(key="x" * 32)) == "badSignature"


def test_mailguns_repetitions_carry_the_first_timestamp_so_it_may_be_old() -> None:
    assert mailgun(mailgun_signature(at=NOW - timedelta(hours=24))) == "genuine"
    assert mailgun(mailgun_signature(at=NOW - timedelta(hours=24, seconds=1))) == "tooOld"
    assert mailgun(mailgun_signature(at=NOW + timedelta(hours=1))) == "clock"


def test_digits_cannot_move_between_timestamp_and_token() -> None:
    """One signature would be good for another token, which no store knows."""
    signature = mailgun_signature(token="0" + MAILGUN_TOKEN)
    for digits in (9, 11):
        signed = signature["timestamp"] + signature["token"]
        moved = signature | {"timestamp": signed[:digits], "token": signed[digits:]}
        assert mailgun(moved) == "badTime"


@pytest.mark.parametrize(
    "signature",
    [None, "x", [], {}, {"timestamp": 1764000000, "token": "x", "signature": "y"}, mailgun_signature() | {"token": ""}],
)
def test_what_has_no_signature_of_mailgun(signature: Any) -> None:
    assert mailgun(signature) == "none"


async def test_a_token_may_be_used_until_it_is_refused_for_its_age() -> None:
    webhook = MailgunWebhook([MAILGUN_KEY.encode()], lambda: NOW, timedelta(hours=24))
    taken = [await webhook.read(Post.of(mailgun_body(event=event), {})) for event in ("delivered", "failed")]
    uses = [each.one_use for each in taken if isinstance(each, Taken) and each.one_use is not None]
    assert len({use.token for use in uses}) == 1
    assert len({use.body_hash for use in uses}) == 2
    assert uses[0].until > NOW + timedelta(hours=24)
    assert MAILGUN_TOKEN not in str(taken[0].one_use) if isinstance(taken[0], Taken) else False
