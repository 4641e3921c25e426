"""Is a POST to one of the webhooks genuine? For people at a terminal and for tests; changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

from cryptography import x509

from services.email.adapters.sns_certificates import SnsCertificates
from services.email.adapters.webhooks import FetchCertificate, MailgunWebhook, SendgridWebhook, SesWebhook
from services.email.domain.webhooks import Forged, Post, Taken, Undecided
from services.email.ports import Webhook
from services.email.webhook_settings import WebhookSettings, secrets
from services.kit.crypto import p256_key
from services.kit.errors import SettingsError

Kind = Literal["sns", "sendgrid", "mailgun"]


def webhook_of(
    kind: Kind,
    settings: WebhookSettings,
    *,
    at: datetime,
    any_age: bool = False,
    certificate: bytes | None = None,
) -> Webhook:
    """The webhook of these settings, at the time `at`.

    Args:
        any_age: whether what was signed long ago passes.
        certificate: one in PEM in place of that which an SNS message names; nothing is fetched then.

    Raises:
        SettingsError: nothing is set to verify with.
        ValueError: `certificate` is none.
    """
    age = timedelta(days=100_000)
    if kind == "sns":
        _need(settings.sns_topics, "MAILROOM_SNS_TOPICS", "--topic")
        fetch: FetchCertificate = SnsCertificates() if certificate is None else _given(certificate)
        return SesWebhook(settings.sns_topics, fetch, lambda: at, age if any_age else settings.sns_max_age)
    if kind == "sendgrid":
        _need(settings.sendgrid_keys, "MAILROOM_SENDGRID_WEBHOOK_KEYS", "--key")
        public = [p256_key(each) for each in settings.sendgrid_keys]
        return SendgridWebhook(public, lambda: at, age if any_age else settings.sendgrid_max_age)
    _need(settings.mailgun_keys, "MAILROOM_MAILGUN_WEBHOOK_KEYS", None)
    private = secrets(settings.mailgun_keys)
    return MailgunWebhook(private, lambda: at, age if any_age else settings.mailgun_max_age)


def headers_of(text: str) -> dict[str, str]:
    """Headers written a line each, `Name: value`, as curl and proxies write them; other lines are passed over."""
    lines = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.strip() for name, colon, value in lines if colon and " " not in name.strip()}


async def verify(webhook: Webhook, body: bytes, headers: dict[str, str]) -> Taken | Forged | Undecided:
    """What the running service would make of such a POST, before it looks whether the token was used (Mailgun)."""
    return await webhook.read(Post.of(body, headers))


def _need(found: Sequence[object], variable: str, option: str | None) -> None:
    if not found:
        other = f", or give {option}" if option else ""
        raise SettingsError([f"{variable} is not set. Set it as the email service has it{other}."])


def _given(pem: bytes) -> FetchCertificate:
    certificate = x509.load_pem_x509_certificate(pem)

    async def give(_url: str) -> x509.Certificate:
        return certificate

    return give
