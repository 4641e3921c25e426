"""Settings of the providers: which there are, in which order, and how each is reached.

What SendGrid, Mailgun and SMTP servers take is from their documentation; no live account was tried.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.kit.settings import Origin, Words

KNOWN: Final = ("ses", "sendgrid", "mailgun", "smtp")

Rate = Annotated[float, Field(gt=0)]
DailyLimit = Annotated[int, Field(ge=1)]

_NEEDED_BY: Final = {
    "sendgrid_key": "sendgrid",
    "mailgun_key": "mailgun",
    "mailgun_domain": "mailgun",
    "smtp_host": "smtp",
}


def _providers(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value or not set(value) <= set(KNOWN) or len(set(value)) != len(value):
        raise ValueError(f"one or more of {', '.join(KNOWN)}, each once, the primary first")
    return value


class ProviderSettings(BaseSettings):
    """Who carries mail."""

    model_config = SettingsConfigDict(
        case_sensitive=True, env_ignore_empty=True, extra="ignore", frozen=True, validate_default=True
    )

    providers: Annotated[Words, AfterValidator(_providers)] = Field(
        ("ses",),
        alias="MAILROOM_PROVIDERS",
        description=f"who carries mail, of {', '.join(KNOWN)}, separated by commas, the primary first",
    )
    provider_choice: Literal["order", "price"] = Field(
        "order",
        alias="MAILROOM_PROVIDER_CHOICE",
        description="of providers that may have a mail, the first in `order`, or the cheapest by `price`",
    )

    sendgrid_key: SecretStr | None = Field(
        None, alias="SENDGRID_API_KEY", description="SendGrid's API key, which may send mail"
    )
    sendgrid_url: Origin = Field(
        "https://api.sendgrid.com",
        alias="MAILROOM_SENDGRID_URL",
        description="SendGrid's API; https://api.eu.sendgrid.com for subusers in the EU",
    )
    sendgrid_rate: Rate = Field(
        100, alias="MAILROOM_SENDGRID_MAX_SEND_RATE", description="recipients a second that go through SendGrid"
    )
    sendgrid_daily: DailyLimit | None = Field(
        None,
        alias="MAILROOM_SENDGRID_DAILY_LIMIT",
        description="recipients a UTC day that go through SendGrid; unset, no limit",
    )

    mailgun_key: SecretStr | None = Field(None, alias="MAILGUN_API_KEY", description="Mailgun's key for sending")
    mailgun_domain: str | None = Field(
        None, alias="MAILGUN_DOMAIN", min_length=1, description="the sending domain at Mailgun"
    )
    mailgun_url: Origin = Field(
        "https://api.mailgun.net",
        alias="MAILROOM_MAILGUN_URL",
        description="Mailgun's API; https://api.eu.mailgun.net for domains in the EU",
    )
    mailgun_rate: Rate = Field(
        100, alias="MAILROOM_MAILGUN_MAX_SEND_RATE", description="recipients a second that go through Mailgun"
    )
    mailgun_daily: DailyLimit | None = Field(
        None,
        alias="MAILROOM_MAILGUN_DAILY_LIMIT",
        description="recipients a UTC day that go through Mailgun; unset, no limit",
    )

    mailgun_ask_after: float = Field(
        60,
        alias="MAILROOM_MAILGUN_ASK_AFTER_SECONDS",
        ge=1,
        description="seconds until Mailgun's log of events is asked about an attempt whose outcome is still unknown",
    )

    smtp_host: str | None = Field(None, alias="MAILROOM_SMTP_HOST", min_length=1, description="the SMTP server's name")
    smtp_port: int = Field(587, alias="MAILROOM_SMTP_PORT", ge=1, le=65535, description="its port")
    smtp_tls: Literal["starttls", "implicit", "off"] = Field(
        "starttls",
        alias="MAILROOM_SMTP_TLS",
        description="how the connection is secured; off sends mail in the clear, and takes no password",
    )
    smtp_username: str | None = Field(
        None, alias="MAILROOM_SMTP_USERNAME", description="whom to log in as; unset, nobody logs in"
    )
    smtp_password: SecretStr | None = Field(
        None, alias="MAILROOM_SMTP_PASSWORD", description="the password of MAILROOM_SMTP_USERNAME"
    )
    smtp_bounce_domain: str | None = Field(
        None,
        alias="MAILROOM_SMTP_BOUNCE_DOMAIN",
        min_length=1,
        description="the domain whose mailbox `bounces` gets what comes back; unset, it comes to the sender",
    )
    smtp_rate: Rate = Field(
        10, alias="MAILROOM_SMTP_MAX_SEND_RATE", description="recipients a second that go through the SMTP server"
    )
    smtp_daily: DailyLimit | None = Field(
        None,
        alias="MAILROOM_SMTP_DAILY_LIMIT",
        description="recipients a UTC day that go through the SMTP server; unset, no limit",
    )

    @property
    def daily_limits(self) -> dict[str, int]:
        """Provider → recipients a day, of those in `providers` whose days are counted here. SES says itself what is
        left of its 24 hours.
        """
        limits = {"sendgrid": self.sendgrid_daily, "mailgun": self.mailgun_daily, "smtp": self.smtp_daily}
        return {name: limit for name, limit in limits.items() if limit is not None and name in self.providers}

    @field_validator(*_NEEDED_BY)
    @classmethod
    def _is_there_where_needed(cls, value: object, info: ValidationInfo) -> object:
        provider = _NEEDED_BY[info.field_name or ""]
        if value is None and provider in info.data.get("providers", ()):
            raise ValueError(f"needed, because MAILROOM_PROVIDERS names {provider}")
        return value

    @field_validator("smtp_username")
    @classmethod
    def _is_not_sent_in_the_clear(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("smtp_tls") == "off":
            raise ValueError("a password is not sent without TLS: unset it, or set MAILROOM_SMTP_TLS")
        return value

    @field_validator("smtp_password")
    @classmethod
    def _has_both(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if (value is None) != (info.data.get("smtp_username") is None):
            raise ValueError("MAILROOM_SMTP_USERNAME and MAILROOM_SMTP_PASSWORD go together")
        return value
