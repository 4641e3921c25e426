"""Settings of the email service, on top of the kit's."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Final, Literal, get_args

from pydantic import DirectoryPath, Field, ValidationInfo, field_validator

from contracts.email.values import Category
from contracts.topics import LANES
from services.email import warm_up_settings
from services.email.domain.message import Policy
from services.email.domain.request import SenderIdentity
from services.email.domain.warm_up import Ramp, sending_domain
from services.email.provider_settings import KNOWN, ProviderSettings
from services.email.warm_up_settings import Ramps
from services.email.webhook_settings import WebhookSettings
from services.kit.aws import AwsAccount
from services.kit.aws_settings import AwsSettings
from services.kit.bodies import largest_body
from services.kit.command_roles import MEANING, CommandRoles
from services.kit.price_settings import PriceSettings
from services.kit.request_limits import Limit
from services.kit.settings import RequestLimit, StrongSecret, Words

SCOPED: Final = (*get_args(Category), "urgent")
"""What may need a scope of its own."""


def largest_request(max_attachment_bytes: int) -> int:
    """Bytes that the body of `POST /api/email` may have: its files in base64, both bodies, and room for all else."""
    return max_attachment_bytes * 4 // 3 + 12_000_000


class EmailSettings(AwsSettings, ProviderSettings, WebhookSettings, PriceSettings):
    """Everything the email service reads from its environment."""

    http_port: int = Field(8080, alias="MAILROOM_EMAIL_PORT", ge=0, le=65535, description="the port to listen on")
    database: str = Field(
        "mailroom_email", alias="MAILROOM_EMAIL_DATABASE", min_length=1, description="its MongoDB database"
    )

    lanes: Words = Field(
        tuple(LANES),
        alias="MAILROOM_EMAIL_LANES",
        description="the lanes this process takes in and sends, separated by commas; some process must take each",
    )

    command_roles: CommandRoles = Field(default_factory=dict, alias="MAILROOM_COMMAND_ROLES", description=MEANING)

    ses_endpoint: str | None = Field(None, alias="AWS_ENDPOINT_URL_SESV2", description="one for SES alone")
    shared_bucket: str | None = Field(
        None,
        alias="AWS_S3_BUCKET",
        min_length=3,
        description="stands in for MAILROOM_CONTENT_BUCKET where that is not set",
    )
    content_bucket: str | None = Field(
        None, alias="MAILROOM_CONTENT_BUCKET", min_length=3, description="the bucket for large contents"
    )
    configuration_set: str = Field(
        alias="SES_CONFIGURATION_SET", min_length=1, description="the SES configuration set that reports events"
    )
    queue_url: str = Field(
        alias="MAILROOM_NOTIFICATIONS_QUEUE_URL", min_length=1, description="the SQS queue of SES's notifications"
    )
    queue_visibility_seconds: int = Field(
        60,
        alias="MAILROOM_QUEUE_VISIBILITY_SECONDS",
        ge=15,
        le=3600,
        description="seconds until a notification comes again whose receiver was killed; longer than a publish takes",
    )

    from_email: str = Field(alias="AWS_SES_FROM_EMAIL", description="the verified sender, as name@domain")
    reply_to: str | None = Field(None, alias="AWS_SES_REPLY_TO", description="where answers go, as name@domain")
    sender_addresses: Words = Field(
        (), alias="MAILROOM_SENDER_ADDRESSES", description="further verified senders, separated by commas"
    )
    ramps: Ramps = Field(default_factory=dict, alias="MAILROOM_WARM_UP", description=warm_up_settings.MEANING)
    unsubscribe_mailto: str | None = Field(
        None,
        alias="MAILROOM_UNSUBSCRIBE_MAILTO",
        description=(
            "an address whose mail an SES receipt rule reports to the notifications' topic; unset, none is offered "
            "to unsubscribe by mail"
        ),
    )
    address_key: StrongSecret | None = Field(
        None,
        alias="MAILROOM_ADDRESS_KEY",
        description="the secret of recipient keys, never changed in place (default: from FILE_ENCRYPTION_KEY)",
    )

    send_rate: Annotated[float, Field(gt=0)] | None = Field(
        None, alias="MAILROOM_SES_MAX_SEND_RATE", description="recipients a second, where less than the account may"
    )
    unknown_after_hours: float = Field(
        24, alias="MAILROOM_UNKNOWN_AFTER_HOURS", gt=0, description="hours until an unknown attempt ends as failed"
    )
    unknown_after_auth_minutes: float = Field(
        10, alias="MAILROOM_UNKNOWN_AFTER_AUTH_MINUTES", gt=0, description="minutes likewise, for category auth"
    )
    unknown_auth: Literal["hold", "resend"] = Field(
        "hold",
        alias="MAILROOM_UNKNOWN_AUTH",
        description=(
            "mail of category auth whose outcome stays unknown is held, or sent once more through another provider, so "
            "that it may arrive twice"
        ),
    )
    resend_after_urgent_seconds: float = Field(
        45,
        alias="MAILROOM_RESEND_AFTER_URGENT_SECONDS",
        ge=30,
        description="seconds for which urgent mail of an unknown outcome waits for a report, then it is sent once more",
    )
    resend_after_seconds: float = Field(
        180, alias="MAILROOM_RESEND_AFTER_SECONDS", ge=30, description="seconds likewise, for all other priorities"
    )
    attempts_limit: int = Field(
        12, alias="MAILROOM_ATTEMPTS_LIMIT", ge=1, description="throttled attempts until a delivery is given up"
    )
    max_attachment_bytes: int = Field(
        10_000_000, alias="MAILROOM_MAX_ATTACHMENT_BYTES", ge=0, le=25_000_000, description="bytes of all attachments"
    )

    bytes_in_hand: int = Field(
        50_000_000,
        alias="MAILROOM_MAIL_BYTES_IN_HAND",
        ge=1_000_000,
        description="bytes of large mail that a process has in hand at once; they take six times as much memory",
    )
    ses_message_bytes: int = Field(
        40_000_000,
        alias="MAILROOM_SES_MAX_MESSAGE_BYTES",
        ge=100_000,
        description="what SES takes of a message with its attachments in base64, as AWS agreed for the account",
    )

    scoped: Words = Field(
        (),
        alias="MAILROOM_EMAIL_SCOPES",
        description=(
            "categories, and urgent, that need a scope of their own beside email:create, for instance auth,urgent: "
            "email:create:auth and email:create:urgent"
        ),
    )
    limit_send: RequestLimit = Field(
        Limit(6000, 60),
        alias="MAILROOM_LIMIT_SEND",
        description="requests in seconds by which a user may send and cancel, in each process; off for no limit",
    )
    limit_unsubscribe: RequestLimit = Field(
        Limit(12_000, 60),
        alias="MAILROOM_LIMIT_UNSUBSCRIBE",
        description="likewise, from one address to /unsubscribe: mail programs call from few addresses for many people",
    )

    templates_directory: DirectoryPath | None = Field(
        None,
        alias="MAILROOM_TEMPLATES_DIR",
        description="a directory of mail templates beside those that ship, read when the process starts",
    )
    product_name: str = Field("DepLLC CRM", alias="MAILROOM_PRODUCT_NAME", description="what people know the sender as")
    crm_url: str | None = Field(
        None, alias="MAILROOM_CRM_URL", description="where people sign in (default: the public URL)"
    )
    portal_url: str | None = Field(None, alias="MAILROOM_PORTAL_URL", description="where clients sign in")
    support_address: str | None = Field(None, alias="MAILROOM_SUPPORT_ADDRESS", description="whom mails send people to")

    @field_validator("reply_to", "support_address", "unsubscribe_mailto")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        if value is not None:
            SenderIdentity.of(value, None, ())
        return value

    @field_validator("from_email")
    @classmethod
    def _is_sender(cls, value: str) -> str:
        SenderIdentity.of(value, None, ())
        return value

    @field_validator("content_bucket")
    @classmethod
    def _or_the_shared_one(cls, value: str | None, info: ValidationInfo) -> str | None:
        found = value or info.data.get("shared_bucket")
        if found is None:
            raise ValueError("needed, because AWS_S3_BUCKET is not set either")
        return str(found)

    @field_validator("max_attachment_bytes")
    @classmethod
    def _fits_into_the_bodies(cls, value: int, info: ValidationInfo) -> int:
        in_flight = info.data.get("body_bytes_in_flight")
        if in_flight is not None and largest_request(value) > largest_body(in_flight):
            raise ValueError(
                f"a request of {largest_request(value)} bytes could never be taken: at most four fifths of "
                "MAILROOM_BODY_BYTES_IN_FLIGHT may be one"
            )
        return value

    @field_validator("unknown_auth")
    @classmethod
    def _has_another_provider(cls, value: str, info: ValidationInfo) -> str:
        if value == "resend" and len(info.data.get("providers", KNOWN)) < 2:
            raise ValueError("resend needs a second provider in MAILROOM_PROVIDERS, which gets the second attempt")
        return value

    @field_validator("resend_after_urgent_seconds", "resend_after_seconds")
    @classmethod
    def _ends_before_the_mail(cls, value: float, info: ValidationInfo) -> float:
        minutes = info.data.get("unknown_after_auth_minutes")
        if info.data.get("unknown_auth") == "resend" and minutes is not None and value >= 60 * minutes:
            raise ValueError(f"less than the {minutes:g} minutes of MAILROOM_UNKNOWN_AFTER_AUTH_MINUTES")
        return value

    @field_validator("lanes")
    @classmethod
    def _are_lanes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or not set(value) <= set(LANES):
            raise ValueError(f"one or more of {', '.join(LANES)}")
        return tuple(lane for lane in LANES if lane in value)

    @field_validator("scoped")
    @classmethod
    def _are_scoped(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not set(value) <= set(SCOPED):
            raise ValueError(f"of {', '.join(SCOPED)}")
        return value

    @field_validator("sender_addresses")
    @classmethod
    def _are_addresses(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        for each in value:
            SenderIdentity.of(each, None, ())
        return value

    @field_validator("ramps")
    @classmethod
    def _are_of_senders(cls, value: dict[str, Ramp], info: ValidationInfo) -> dict[str, Ramp]:
        senders = [info.data.get("from_email"), *(info.data.get("sender_addresses") or ())]
        ours = {sending_domain(each) for each in senders if each is not None}
        strangers = ", ".join(sorted(value.keys() - ours))
        if strangers and {"from_email", "sender_addresses"} <= info.data.keys():
            raise ValueError(f"nobody sends from {strangers}; senders are from {', '.join(sorted(ours))}")
        return value

    def limits(self) -> dict[str, Limit | None]:
        return super().limits() | {"send": self.limit_send, "unsubscribe": self.limit_unsubscribe}

    @property
    def bucket(self) -> str:
        """Where large contents are."""
        return self.content_bucket or ""  # never empty: its validator has seen to that

    @property
    def policy(self) -> Policy:
        """How long and how often."""
        return Policy(
            unknown_after=timedelta(hours=self.unknown_after_hours),
            unknown_after_auth=timedelta(minutes=self.unknown_after_auth_minutes),
            attempts_limit=self.attempts_limit,
            resend=frozenset({"auth"} if self.unknown_auth == "resend" else ()),
            resend_after=timedelta(seconds=self.resend_after_seconds),
            resend_after_urgent=timedelta(seconds=self.resend_after_urgent_seconds),
        )

    @property
    def identity(self) -> SenderIdentity:
        """Whom mail comes from."""
        return SenderIdentity.of(self.from_email, self.reply_to, self.sender_addresses)

    @property
    def account(self) -> AwsAccount:
        """Where and as whom AWS is called."""
        return replace(super().account, ses_endpoint_url=self.ses_endpoint)
