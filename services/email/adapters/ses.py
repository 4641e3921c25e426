"""Amazon SES behind the `MailProvider` port: one recipient, one call, no retries, and an honest outcome.

Why one recipient a call: opens, clicks, sends and rejects name only `mail.destination`, so nothing else tells them
apart. Why no retries: SES has no idempotency token, and a repeated call is a second mail.
Sources: SES API v2 reference, SendEmail "Errors"; aiobotocore's `httpsession` and aiohttp's `client` for what each
exception means about the request having left this machine.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import aiohttp
from botocore.exceptions import BotoCoreError, ClientError, ConnectTimeoutError, EndpointConnectionError, SSLError

from services.email.adapters.writing import MailWriter, said_of
from services.email.domain.capabilities import Capabilities
from services.email.domain.correlation import ATTEMPT_TAG, MESSAGE_TAG
from services.email.domain.outcomes import Accepted, Cost, RefusalKind, Rejected, Unknown, for_people
from services.email.ports import OutgoingAttempt, OutgoingMail, PriceTable, Quota
from services.kit.aws import error_code, is_from_aws, is_transient
from services.kit.errors import PermanentError, RefusedHere, Unavailable

NAME = "ses"

ACCOUNT_REFUSALS = frozenset(
    {
        # SES API v2: the account, its quota or its sender is the trouble, not this mail.
        "AccountSuspendedException",
        "SendingPausedException",
        "LimitExceededException",
        "MailFromDomainNotVerifiedException",
        "NotFoundException",
        # AWS common errors: we are not who may do this, or not any more.
        "AccessDenied",
        "AccessDeniedException",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "NotAuthorized",
        "OptInRequired",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
"""Codes that refuse everything of this account: the circuit opens and no mail's budget is spent."""

MAIL_REFUSALS = frozenset(
    {
        "BadRequestException",
        "MessageRejected",
        # AWS common errors that are about the content of the request.
        "RequestEntityTooLargeException",
        "ValidationError",
        "ValidationException",
    }
)
"""Codes that refuse this mail for good. Nothing else fails a mail."""

THROTTLES = frozenset(
    {
        "RequestLimitExceeded",
        "RequestThrottled",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
"""Codes that say "not now"."""

REFUSED_ON_THE_WAY = frozenset({403, 407, 421})
"""Statuses by which a proxy says that it does not pass a request on (RFC 9110 §15.5.4, §15.5.8, §15.5.20). Any other
4xx without SES's request id may come after SES had the request, above all 408."""

MOST_BYTES = 40_000_000
"""Of a message as MIME, attachments in base64: what SES takes of an account unless it has agreed on less (Amazon SES
Developer Guide, "Service quotas", "Message quotas": 40 MB)."""


class SesProvider:
    """One SES account in one region. `client` is an entered `kit.aws.ses_client`, which never retries."""

    def __init__(
        self,
        client: Any,
        *,
        configuration_set: str,
        prices: PriceTable,
        writer: MailWriter,
        now: Callable[[], datetime],
        most_bytes: int = MOST_BYTES,
    ) -> None:
        """`most_bytes`: of a message as MIME, for this account."""
        self._client, self._configuration_set = client, configuration_set
        self._prices, self._writer, self._now = prices, writer, now
        self.capabilities = Capabilities("mime", most_bytes)

    @property
    def name(self) -> str:
        """`ses`."""
        return NAME

    async def send(self, attempt: OutgoingAttempt) -> Accepted | Rejected | Unknown:
        """One SendEmail with the raw message and a single envelope recipient; see the port for what is promised."""
        mail = attempt.mail
        try:
            raw = self._writer.mime(attempt)
            # Before the call: a mail that is taken is never unknown.
            cost = self.estimate_cost(attempt.mail.attachment_bytes, self._now())
        except PermanentError as error:
            return Rejected(error.reason, str(error), "mail" if error.reason == "invalid" else "account")
        if len(raw) > self.capabilities.most_bytes:
            return Rejected("invalid", said_of(len(raw), "SES", self.capabilities.most_bytes), "mail")
        try:
            answer = await self._client.send_email(
                FromEmailAddress=mail.from_,
                Destination={"ToAddresses": [attempt.recipient]},
                Content={"Raw": {"Data": raw}},
                ConfigurationSetName=self._configuration_set,
                EmailTags=[
                    {"Name": MESSAGE_TAG, "Value": mail.message_id},
                    {"Name": ATTEMPT_TAG, "Value": attempt.attempt_id},
                    {"Name": "category", "Value": mail.category},
                ],
            )
        except (ClientError, BotoCoreError) as error:
            return outcome_of(error, mail.from_)
        except Exception as error:  # noqa: BLE001 - whatever it is, the request may have left
            return Unknown(f"unexpected {type(error).__name__}")
        message_id = answer.get("MessageId")
        if not message_id:
            return Unknown("SES answered without a message id")
        return Accepted(message_id, len(raw), cost)

    def cannot_carry(self, mail: OutgoingMail) -> str | None:
        """By the size of its MIME; see the port."""
        size = self._writer.too_large(mail, self.capabilities.most_bytes)
        return None if size is None else said_of(size, "SES", self.capabilities.most_bytes)

    async def quota(self) -> Quota:
        """GetAccount's send quota. Raises Unavailable, or RefusedHere where the account may not send."""
        try:
            answer = await self._client.get_account()
        except ClientError as error:
            if error_code(error) in ACCOUNT_REFUSALS:
                raise RefusedHere(error_code(error), "SES refuses the account") from error
            raise Unavailable("SES", f"GetAccount answered {error_code(error) or 'an error'}") from error
        except BotoCoreError as error:
            reach = "cannot be reached" if is_transient(error) else "cannot be asked"
            raise Unavailable("SES", f"{reach} ({type(error).__name__})") from error
        if answer.get("SendingEnabled") is False:
            raise RefusedHere("sendingPaused", "SES has paused sending for this account")
        quota = answer["SendQuota"]
        return Quota(
            float(quota["MaxSendRate"]), float(quota["Max24HourSend"]), float(quota.get("SentLast24Hours", 0.0))
        )

    async def unsuppress(self, address: str) -> None:
        """Take an address off the account's suppression list; one that is not on it is fine. Raises Unavailable."""
        try:
            await self._client.delete_suppressed_destination(EmailAddress=address)
        except ClientError as error:
            if error_code(error) != "NotFoundException":
                raise Unavailable("SES", f"its suppression list answered {error_code(error)}") from error
        except BotoCoreError as error:
            raise Unavailable("SES", f"its suppression list cannot be reached ({type(error).__name__})") from error

    def estimate_cost(self, attachment_bytes: int, at: datetime) -> Cost:
        """By the price table in force at `at`."""
        return self._prices.cost(NAME, attachment_bytes, at)


def outcome_of(error: ClientError | BotoCoreError, sender: str) -> Rejected | Unknown:
    """What an error of SendEmail from `sender` says about the mail: certainly not taken, or nobody knows."""
    if isinstance(error, ClientError):
        return _answered(error, sender)
    cause = getattr(error, "kwargs", {}).get("error")
    # Only these three are raised before anything is written to a connection that stands. A reset after the whole
    # request was read looks the same from outside (EndpointConnectionError), but its cause is aiohttp's ClientOSError.
    if isinstance(error, EndpointConnectionError | SSLError) and isinstance(cause, aiohttp.ClientConnectorError):
        return Rejected("connectionFailed", f"no connection to SES ({type(cause).__name__})", "unreachable")
    if isinstance(error, ConnectTimeoutError) and isinstance(cause, aiohttp.ConnectionTimeoutError):
        return Rejected("connectionFailed", "no connection to SES within the time limit", "unreachable")
    return Unknown(f"{type(error).__name__} ({type(cause).__name__})" if cause else type(error).__name__)


def _answered(error: ClientError, sender: str) -> Rejected | Unknown:
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    code = error_code(error)
    message = str(error.response.get("Error", {}).get("Message", ""))
    detail = for_people(message)
    kind: RefusalKind = "throttle"
    unlisted = False
    if code in THROTTLES or status in (429, 503):
        pass
    elif status >= 500 or status < 400:
        # It may have been taken before the answer was lost.
        return Unknown(f"SES answered {status} {code}")
    elif code in ACCOUNT_REFUSALS or (code == "MessageRejected" and _names_sender(message, sender)):
        kind = "account"
    elif code in MAIL_REFUSALS:
        kind = "mail"
    elif is_from_aws(error):
        unlisted = True
    elif status in REFUSED_ON_THE_WAY:
        kind = "unreachable"
    else:
        return Unknown(f"{status} {code}, and not from SES")
    named = code if code and not code.isdigit() else f"http{status}"
    return Rejected(named, detail, kind, _retry_after(error), unlisted)


def _names_sender(message: str, sender: str) -> bool:
    """Whether SES says of the sender that it is not verified: then it takes nothing from it, whatever the mail.

    Its words: "Email address is not verified. The following identities failed the check in region EU-WEST-1: …" and the
    identities, commas between. In the sandbox they may be recipients: then it is about this mail alone.
    """
    _, said, rest = message.partition("identities failed the check in region")
    if not said:
        return False
    named = {_bare(identity) for identity in rest.partition(":")[2].split(",")}
    address = _bare(sender)
    return not named.isdisjoint({address, address.rpartition("@")[2]})


def _bare(address: str) -> str:
    return address.rpartition("<")[2].strip().strip(">").lower()


def _retry_after(error: ClientError) -> float | None:
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    value = headers.get("retry-after", "")
    return float(value) if value.isdigit() else None
