"""Settings of the webhooks: who may POST to them. A provider whose setting is empty has none.

Apart from the service's other settings, since `mailroom verify` needs these alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.email.domain.webhooks import TOPIC_ARN
from services.kit.crypto import p256_key
from services.kit.settings import StrongSecrets, Words

AT_A_TIME: Final = 2
"""Keys that are good at a time: the one in use, and the one that it replaces or that replaces it."""

Hours = Annotated[float, Field(gt=0, le=24 * 14)]


def _topics(value: tuple[str, ...]) -> tuple[str, ...]:
    if not all(TOPIC_ARN.fullmatch(each) for each in value):
        raise ValueError("not ARNs of SNS topics, for instance arn:aws:sns:eu-central-1:123456789012:mailroom")
    return value


def _at_most_two(value: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(value) > AT_A_TIME:
        raise ValueError(f"{len(value)} keys, at most {AT_A_TIME} are taken: the present one, and a former or next one")
    return value


def _public_keys(value: tuple[str, ...]) -> tuple[str, ...]:
    for each in value:
        p256_key(each)
    return value


class WebhookSettings(BaseSettings):
    """Who may POST to the webhooks, and how old what they signed may be."""

    model_config = SettingsConfigDict(
        case_sensitive=True, env_ignore_empty=True, extra="ignore", frozen=True, validate_default=True
    )

    sns_topics: Annotated[Words, AfterValidator(_topics)] = Field(
        (),
        alias="MAILROOM_SNS_TOPICS",
        description=(
            "ARNs of the SNS topics that may send to /api/webhooks/ses by HTTPS, separated by commas; unset, SES's "
            "notifications come through SQS alone"
        ),
    )
    sns_hours: Hours = Field(
        8, alias="MAILROOM_SNS_MAX_AGE_HOURS", description="hours after which a message of SNS is refused for its age"
    )
    sendgrid_keys: Annotated[Words, AfterValidator(_public_keys), AfterValidator(_at_most_two)] = Field(
        (),
        alias="MAILROOM_SENDGRID_WEBHOOK_KEYS",
        description=(
            "the verification key of SendGrid's Event Webhook (base64), while it is rotated two, separated by a comma; "
            "unset, there is no /api/webhooks/sendgrid"
        ),
    )
    sendgrid_hours: Hours = Field(
        36,
        alias="MAILROOM_SENDGRID_WEBHOOK_MAX_AGE_HOURS",
        description="likewise, for SendGrid, which repeats an event for 24 hours and more",
    )
    mailgun_keys: Annotated[StrongSecrets, AfterValidator(_at_most_two)] = Field(
        (),
        alias="MAILROOM_MAILGUN_WEBHOOK_KEYS",
        description=(
            "Mailgun's HTTP webhook signing key, while it is rotated two, separated by a comma; unset, there is no "
            "/api/webhooks/mailgun"
        ),
    )
    mailgun_hours: Hours = Field(
        24,
        alias="MAILROOM_MAILGUN_WEBHOOK_MAX_AGE_HOURS",
        description="likewise, for Mailgun, which repeats for 8 hours; for so long the tokens of its webhooks are kept",
    )

    @property
    def sns_max_age(self) -> timedelta:
        """How old a message of SNS may be."""
        return timedelta(hours=self.sns_hours)

    @property
    def sendgrid_max_age(self) -> timedelta:
        """Likewise, what SendGrid signed."""
        return timedelta(hours=self.sendgrid_hours)

    @property
    def mailgun_max_age(self) -> timedelta:
        """Likewise, what Mailgun signed."""
        return timedelta(hours=self.mailgun_hours)


def secrets(values: Sequence[SecretStr]) -> list[bytes]:
    """Secrets as bytes."""
    return [value.get_secret_value().encode() for value in values]
