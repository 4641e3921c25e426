"""Events of mail, version 1 each. Subject = messageId. One delivery per recipient; `recipient` is in normal form.

Decisions come from the message's stream; facts from a provider's notification.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from contracts.base import EventData, Money, UtcDateTime
from contracts.email.values import AttachmentInfo, Category, ContentRef, Priority, ProviderName

AttemptReason = Literal["cheapest", "pinned", "failover", "retry", "resend"]
"""Why a provider got an attempt. `pinned`: by what operators want, a pin or the order of providers; `cheapest`: by its
price, or it is the only one; `failover`: another one definitely refused before; `retry`: it did so itself; `resend`:
another one's outcome stayed unknown, and mail of this category is then sent once more, so that two may arrive."""
FailureReason = Literal[
    "suppressed",
    "rejected",
    "renderingFailed",
    "expired",
    "cancelled",
    "attemptsExhausted",
    "outcomeUnknown",
    "invalid",
]
BounceType = Literal["permanent", "transient", "undetermined"]
SuppressedFor = Literal["bounce", "complaint", "unsubscribe"]
SUPPRESSED = "suppressed"
"""The reason of an `email.rejected` where the provider did not try, since the recipient is on a list of its own."""


# --- decisions ---------------------------------------------------------------------------------------------------


class EmailRequested(EventData):
    """Accepted for sending: the command without bodies, template data and attachment bytes."""

    message_id: str
    to: list[str]
    cc: list[str] | None = None
    bcc: list[str] | None = None
    from_: Annotated[str, Field(alias="from")]
    reply_to: str | None = None
    subject: str
    template_id: str | None = None
    category: Category
    priority: Priority
    user_id: str
    client_id: str | None = None
    tags: dict[str, str] | None = None
    custom_data: dict[str, Any] | None = None
    attachments: list[AttachmentInfo] | None = None
    send_at: UtcDateTime | None = None
    expires_at: UtcDateTime
    list_id: str | None = None
    content: ContentRef | None = None
    """Absent only where the content could not be rendered; `email.failed` then says why."""
    request_hash: str

    @property
    def recipients(self) -> tuple[str, ...]:
        """Every recipient once, in the order to, cc, bcc."""
        return tuple(dict.fromkeys((*self.to, *(self.cc or ()), *(self.bcc or ()))))


class Considered(EventData):
    """One provider as it was looked at for an attempt."""

    provider: ProviderName
    why: str
    """Why it was chosen or was not, for people."""


class EmailSendAttempted(EventData):
    """About to call: its confirmed append is the only licence to call the provider, once."""

    attempt_id: str
    recipient: str
    provider: ProviderName
    reason: AttemptReason
    considered: list[Considered] | None = None
    """Every provider that is configured, in the order in which they were looked at; absent where there is but one."""


class EmailSent(EventData):
    """The provider's API accepted the message."""

    attempt_id: str
    recipient: str
    provider: ProviderName
    provider_message_id: str
    size: int
    cost: Money
    price_version: str
    attachment_bytes: int | None = None
    """Of its attachments as they were given, which some providers charge for; absent where it has none."""


class EmailSendRejected(EventData):
    """The provider said no, or it was never called (`code` = `notCalled`)."""

    attempt_id: str
    recipient: str
    code: str
    detail: str | None = None
    next: Literal["retry", "failover", "giveUp"]
    refusal: Literal["mail", "account", "throttle", "unreachable", "notCalled"] | None = None
    """Whom the refusal means; only a `throttle` uses up the mail's own budget of attempts."""
    retry_at: UtcDateTime | None = None
    """Not before this the next attempt; absent with `giveUp`."""


class EmailSendOutcomeUnknown(EventData):
    """We called and got no answer: not sent again unless an operator settles it as not accepted, or by one attempt with
    the reason `resend`.
    """

    attempt_id: str
    recipient: str
    detail: str | None = None


class EmailAttemptSettled(EventData):
    """An attempt without an answer is resolved."""

    attempt_id: str
    recipient: str
    outcome: Literal["accepted", "notAccepted"]
    by: Literal["notification", "operator"]
    evidence: str
    provider_message_id: str | None = None
    size: int | None = None
    cost: Money | None = None
    price_version: str | None = None
    attachment_bytes: int | None = None


class EmailCancelled(EventData):
    """Somebody stopped what could still be stopped."""

    reason: str | None = None


class EmailFailed(EventData):
    """The end for one recipient."""

    recipient: str
    reason: FailureReason
    detail: str | None = None


# --- facts -------------------------------------------------------------------------------------------------------


class DeliveryFact(EventData):
    """What every fact about one delivery says."""

    recipient: str
    provider: ProviderName
    provider_message_id: str | None = None
    attempt_id: str | None = None
    reported_address: str | None = None
    """The provider's spelling, where it differs from `recipient`."""


class EmailSendConfirmed(DeliveryFact):
    """SES Send, SendGrid processed, Mailgun accepted."""


class EmailDelivered(DeliveryFact):
    """The receiving server took the message."""

    smtp_response: str | None = None
    processing_time_ms: int | None = None


class EmailDeliveryDelayed(DeliveryFact):
    """The provider goes on trying."""

    delay_type: str
    diagnostic_code: str | None = None
    expires_at: UtcDateTime | None = None


class EmailBounced(DeliveryFact):
    """The message came back, for now or for good."""

    bounce_type: BounceType
    bounce_sub_type: str
    status: str | None = None
    diagnostic_code: str | None = None
    feedback_id: str | None = None


class EmailRejected(DeliveryFact):
    """Accepted by the provider's API and then dropped: virus, rendering failure, dropped."""

    reason: str
    detail: str | None = None
    suppressed_for: SuppressedFor | None = None
    """With the reason `suppressed`: what the provider had heard from the recipient earlier. Nothing was tried now."""


class EmailComplained(DeliveryFact):
    """The recipient (or one who may be it) called the message spam."""

    feedback_type: str | None = None
    complaint_sub_type: str | None = None
    feedback_id: str | None = None


class EmailComplaintWithdrawn(DeliveryFact):
    """The recipient called the message not spam."""

    feedback_type: str | None = None
    complaint_sub_type: str | None = None
    feedback_id: str | None = None


class EmailOpened(DeliveryFact):
    """The tracking pixel was fetched; `machine` where a proxy or scanner did it."""

    user_agent: str | None = None
    ip_address: str | None = None
    machine: bool = False


class EmailClicked(DeliveryFact):
    """A link was followed; `machine` where a proxy or scanner did it."""

    link: str | None = None
    user_agent: str | None = None
    ip_address: str | None = None
    machine: bool = False


class EmailUnsubscribed(EventData):
    """The recipient wants no more of a list, or no more marketing at all where `listId` is absent."""

    recipient: str
    list_id: str | None = None
    source: Literal["oneClick", "page", "mailto", "provider", "operator"]
    provider: ProviderName | None = None
    provider_message_id: str | None = None
    attempt_id: str | None = None
    reported_address: str | None = None


class EventRetracted(EventData):
    """A fact that should not be. A revision above `upToRevision` may say it again."""

    event_id: str
    up_to_revision: int
    reason: str
