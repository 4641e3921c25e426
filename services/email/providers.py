"""The providers that there are, made from the settings. A new one is an adapter, its settings and a line here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pydantic import SecretStr

from services.email.adapters.http_outcomes import http_client
from services.email.adapters.mailgun import MailgunProvider
from services.email.adapters.mailgun_events import MailgunEventLog
from services.email.adapters.sendgrid import SendGridProvider
from services.email.adapters.ses import SesProvider
from services.email.adapters.smtp import SmtpProvider
from services.email.adapters.writing import MailWriter
from services.email.ports import MailProvider, PriceTable
from services.email.settings import EmailSettings
from services.kit import aws


@dataclass(frozen=True, slots=True)
class Parts:
    """What all of them share."""

    prices: PriceTable
    writer: MailWriter
    now: Callable[[], datetime]


Making = Callable[[EmailSettings, Parts], AbstractAsyncContextManager[MailProvider]]


@asynccontextmanager
async def _ses(settings: EmailSettings, parts: Parts) -> AsyncIterator[MailProvider]:
    async with aws.ses_client(settings.account) as client:
        yield SesProvider(
            client,
            configuration_set=settings.configuration_set,
            prices=parts.prices,
            writer=parts.writer,
            now=parts.now,
            most_bytes=settings.ses_message_bytes,
        )


@asynccontextmanager
async def _sendgrid(settings: EmailSettings, parts: Parts) -> AsyncIterator[MailProvider]:
    async with http_client() as client:
        yield SendGridProvider(
            client,
            api_key=_secret(settings.sendgrid_key),
            rate=settings.sendgrid_rate,
            prices=parts.prices,
            writer=parts.writer,
            now=parts.now,
            url=settings.sendgrid_url,
        )


@asynccontextmanager
async def _mailgun(settings: EmailSettings, parts: Parts) -> AsyncIterator[MailProvider]:
    async with http_client() as client:
        yield MailgunProvider(
            client,
            api_key=_secret(settings.mailgun_key),
            domain=settings.mailgun_domain or "",
            rate=settings.mailgun_rate,
            prices=parts.prices,
            writer=parts.writer,
            now=parts.now,
            url=settings.mailgun_url,
        )


@asynccontextmanager
async def mailgun_events(settings: EmailSettings) -> AsyncIterator[MailgunEventLog]:
    """The log of Mailgun's events, for settings that name Mailgun."""
    async with http_client() as client:
        yield MailgunEventLog(
            client,
            api_key=_secret(settings.mailgun_key),
            domain=settings.mailgun_domain or "",
            url=settings.mailgun_url,
        )


@asynccontextmanager
async def _smtp(settings: EmailSettings, parts: Parts) -> AsyncIterator[MailProvider]:
    provider = SmtpProvider(
        settings.smtp_host or "",
        settings.smtp_port,
        writer=parts.writer,
        prices=parts.prices,
        now=parts.now,
        rate=settings.smtp_rate,
        username=settings.smtp_username,
        password=_secret(settings.smtp_password) or None,
        tls=settings.smtp_tls,
        verp_domain=settings.smtp_bounce_domain,
    )
    try:
        yield provider
    finally:
        await provider.aclose()


MAKING: Final[Mapping[str, Making]] = {"ses": _ses, "sendgrid": _sendgrid, "mailgun": _mailgun, "smtp": _smtp}


def _secret(value: SecretStr | None) -> str:
    return "" if value is None else value.get_secret_value()  # never: settings demand those of who is named
