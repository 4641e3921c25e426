"""The webhook of each provider: whether a POST is genuine, and what it says."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from services.email.adapters.signatures import (
    SnsMessage,
    read_mailgun,
    read_sns,
    verify_mailgun,
    verify_sendgrid,
    verify_sns,
)
from services.email.adapters.webhook_bodies import mailgun_record, sendgrid_records, sns_record
from services.email.domain.webhooks import (
    CLOCKS_DIFFER,
    TOPIC_ARN,
    Forged,
    Genuine,
    OneUse,
    Post,
    Subscription,
    Taken,
    Undecided,
)
from services.kit.aws import AwsAccount, foreign_errors, sns_client
from services.kit.errors import PermanentError, TransientError
from services.kit.logs import get_logger
from services.kit.notifications import read_object

log = get_logger(__name__)

Now = Callable[[], datetime]
FetchCertificate = Callable[[str], Awaitable[x509.Certificate]]
"""Gives the certificate at a URL. Raises TransientError where it cannot be had now."""


class SesWebhook:
    """SES's notifications through an HTTPS subscription of their SNS topic."""

    provider = "ses"

    def __init__(self, topics: Collection[str], certificate: FetchCertificate, now: Now, max_age: timedelta) -> None:
        """`topics`: ARNs of those that may send to us."""
        self._topics, self._certificate = frozenset(topics), certificate
        self._now, self._max_age = now, max_age

    async def read(self, post: Post) -> Taken | Forged | Undecided:
        message = read_sns(post, self._topics, self._now(), self._max_age)
        if not isinstance(message, SnsMessage):
            return message
        try:
            certificate = await self._certificate(message.certificate_url)
        except TransientError as error:
            return Undecided("certificate", str(error))
        verdict = verify_sns(message, certificate)
        if not isinstance(verdict, Genuine):
            return verdict
        if message.kind == "Notification":
            return Taken(verdict.by, (sns_record(message),))
        topic = message.fields["TopicArn"]
        if message.kind == "SubscriptionConfirmation":
            return Taken(verdict.by, subscription=Subscription(topic, message.fields["Token"]))
        log.warning("webhook.unsubscribed", topic=topic)
        return Taken(verdict.by)


class SendgridWebhook:
    """SendGrid's Event Webhook."""

    provider = "sendgrid"

    def __init__(self, keys: Sequence[EllipticCurvePublicKey], now: Now, max_age: timedelta) -> None:
        self._keys, self._now, self._max_age = keys, now, max_age

    async def read(self, post: Post) -> Taken | Forged | Undecided:
        verdict = verify_sendgrid(post, self._keys, self._now(), self._max_age)
        return Taken(verdict.by, sendgrid_records(post.body)) if isinstance(verdict, Genuine) else verdict


class MailgunWebhook:
    """Mailgun's webhooks, one event a POST. The form before 2018, which is no JSON, is not taken."""

    provider = "mailgun"

    def __init__(self, keys: Sequence[bytes], now: Now, max_age: timedelta) -> None:
        self._keys, self._now, self._max_age = keys, now, max_age

    async def read(self, post: Post) -> Taken | Forged | Undecided:
        try:
            value = read_object(post.body)
        except PermanentError as error:
            return Forged(error.reason, "it is not a JSON object")
        given = read_mailgun(value)
        if given is None:
            return Forged("unsigned", "it has no `signature` with timestamp, token and signature")
        verdict = verify_mailgun(given, self._keys, self._now(), self._max_age)
        if not isinstance(verdict, Genuine):
            return verdict
        one_use = OneUse(
            hashlib.sha256(given.signed_text.encode()).hexdigest(),
            hashlib.sha256(post.body).hexdigest(),
            verdict.at + self._max_age + CLOCKS_DIFFER,
        )
        return Taken(verdict.by, (mailgun_record(value, post.body),), one_use=one_use)


class SnsSubscriptions:
    """Confirms subscriptions through SNS's API, never by following the address in a message."""

    def __init__(self, account: AwsAccount, connect: Callable[[AwsAccount], Any] = sns_client) -> None:
        self._account, self._connect = account, connect

    async def confirm(self, subscription: Subscription) -> None:
        """Let the topic send to us; only its owner may end that (AuthenticateOnUnsubscribe). Harmless again.

        Needs `sns:ConfirmSubscription` on the topic. Raises TransientError, and PermanentError where SNS says no: the
        token is good for two days.
        """
        found = TOPIC_ARN.fullmatch(subscription.topic)
        account = replace(self._account, region=found[2]) if found else self._account
        with foreign_errors("SNS"):
            async with self._connect(account) as sns:
                await sns.confirm_subscription(
                    TopicArn=subscription.topic, Token=subscription.token, AuthenticateOnUnsubscribe="true"
                )
        log.info("webhook.subscribed", topic=subscription.topic)
