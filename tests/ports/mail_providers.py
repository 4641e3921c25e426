"""The providers that the contract suite runs on: how each is made, and how a fault of the simulator shows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar, get_args

from deploy.local.endpoints import AwsEndpoints
from deploy.local.simulator.client import SimulatorClient
from deploy.local.simulator.faults import AnswerKind, Fault, Faults, RequestKind
from services.email.adapters.http_outcomes import http_client
from services.email.adapters.mailgun import MailgunProvider
from services.email.adapters.prices import DatedPrices
from services.email.adapters.sendgrid import SendGridProvider
from services.email.adapters.ses import SesProvider
from services.email.adapters.writing import MailWriter
from services.email.domain.capabilities import Capabilities
from services.email.domain.correlation import ATTEMPT_TAG
from services.email.domain.outcomes import Accepted, Rejected, Unknown, for_people
from services.email.domain.unsubscribe import UnsubscribeTokens
from services.email.ports import MailProvider, OutgoingAttempt
from services.kit.addresses import RecipientKeys
from services.kit.aws import AwsAccount, ses_client
from services.kit.prices import load as load_prices
from tests.unit.email_service.fakes import Answer, FakeProvider

HANG = 180.0
"""Seconds that only something that hangs takes."""

TOKENS = UnsubscribeTokens(b"k" * 32)
RATE = 14.0


@dataclass(frozen=True)
class Making:
    """How a provider is made. `url`: instead of the simulator's; `most_bytes`: instead of its own limit."""

    call_limit: float = HANG
    url: str | None = None
    most_bytes: int | None = None

    @property
    def common(self) -> dict[str, Any]:
        """What all of them take."""
        limit = {} if self.most_bytes is None else {"most_bytes": self.most_bytes}
        writer = MailWriter(
            keys=RecipientKeys(b"r" * 32),
            tokens=TOKENS,
            public_url="https://mail.example.org",
            unsubscribe_mailto="leave@mailroom.example",
        )
        return {"prices": DatedPrices(load_prices()), "writer": writer, "now": lambda: datetime.now(UTC), **limit}


@dataclass(frozen=True)
class Described:
    """One provider. `operation`: by which faults name a send. `keeps_bytes`: whether recipients get the MIME that we
    wrote, with everybody in To and Cc.
    """

    name: str
    operation: Any
    make: Callable[[AsyncExitStack, AwsEndpoints, Making], Awaitable[MailProvider]]
    keeps_bytes: bool = True

    def fault(self, fault: Fault) -> Fault:
        """The same fault, of a send by this provider."""
        return fault.model_copy(update={"operation": self.operation})


async def _ses(stack: AsyncExitStack, aws: AwsEndpoints, making: Making) -> MailProvider:
    account = AwsAccount(
        aws.region,
        aws.access_key_id,
        aws.secret_access_key,
        aws.endpoint_url,
        making.url or aws.ses_endpoint_url,
    )
    client = await stack.enter_async_context(ses_client(account, call_limit=making.call_limit))
    return SesProvider(client, configuration_set=aws.configuration_set, **making.common)


async def _sendgrid(stack: AsyncExitStack, aws: AwsEndpoints, making: Making) -> MailProvider:
    client = await stack.enter_async_context(http_client(call_limit=making.call_limit))
    url = making.url or aws.ses_endpoint_url
    return SendGridProvider(client, api_key="SG.test", rate=RATE, url=url, **making.common)


async def _mailgun(stack: AsyncExitStack, aws: AwsEndpoints, making: Making) -> MailProvider:
    client = await stack.enter_async_context(http_client(call_limit=making.call_limit))
    url = making.url or aws.ses_endpoint_url
    return MailgunProvider(client, api_key="key", domain="mg.mailroom.example", rate=RATE, url=url, **making.common)


class Scripted(FakeProvider):
    """The fake of the sender's tests, which answers as the simulator's faults have it. All of them share what was
    taken, as adapters do that talk to one provider.
    """

    taken: ClassVar[list[OutgoingAttempt]] = []

    def __init__(self, making: Making) -> None:
        super().__init__(self._scripted, rate=RATE, name="fake")
        self.capabilities = Capabilities("mime", making.most_bytes or 1 << 30)
        self.rules = Faults(seed=1)
        self._making = making

    def take(self, attempt: OutgoingAttempt) -> Accepted:
        self.taken.append(attempt)
        return super().take(attempt)

    async def _scripted(self, attempt: OutgoingAttempt) -> Answer:
        if self._making.url is not None:
            return Rejected("connectionFailed", "nobody listens", "unreachable")
        fault = self.rules.draw(frozenset(get_args(RequestKind) + get_args(AnswerKind)), "*", [attempt.recipient])
        match fault and fault.kind:
            case None:
                return self.take(attempt)
            case "throttle":
                return Rejected("TooManyRequests", "slow down", "throttle", retry_after=1.0)
            case "accountSuspended" | "sendingPaused":
                return Rejected("suspended", "no more", "account")
            case "proxyRefuses" if fault and fault.status in (403, 407, 421):
                return Rejected(f"http{fault.status}", "a proxy", "unreachable")
            case "refuse":
                return Rejected("refused", for_people(fault.message if fault else ""), "mail")
            case "acceptThenDrop" | "acceptThenError" | "slow":
                self.take(attempt)
            case "slowAnswer":
                self.take(attempt)
                await asyncio.sleep(min(self._making.call_limit, fault.ms / 1000 if fault else 0))
        return Unknown("no clear answer")


async def _fake(_stack: AsyncExitStack, _aws: AwsEndpoints, making: Making) -> MailProvider:
    return Scripted(making)


SES = Described("ses", "SendEmail", _ses)
SENDGRID = Described("sendgrid", "SendGridSend", _sendgrid, keeps_bytes=False)
MAILGUN = Described("mailgun", "MailgunSend", _mailgun)
ALL = (SES, SENDGRID, MAILGUN)
FAKE = Described("fake", "*", _fake)
"""Writes no mail, so that only what is promised of outcomes holds for it."""


@dataclass
class Behind:
    """What stands behind all providers; each is made once, with its client: some take long to make."""

    stack: AsyncExitStack
    aws: AwsEndpoints
    simulator: SimulatorClient
    made: dict[tuple[str, Making], MailProvider] = field(default_factory=dict)

    async def provider(self, described: Described, making: Making) -> MailProvider:
        """The one that is made so."""
        key = (described.name, making)
        if key not in self.made:
            self.made[key] = await described.make(self.stack, self.aws, making)
        return self.made[key]


@dataclass
class Place:
    """A provider with what stands behind it."""

    described: Described
    provider: MailProvider
    behind: Behind
    since: int

    async def strike(self, *faults: Fault) -> None:
        """Put these faults in force for its sends."""
        if isinstance(self.provider, Scripted):
            self.provider.rules.replace(map(self.described.fault, faults))
        else:
            await self.behind.simulator.faults(*map(self.described.fault, faults))

    async def accepted(self, *attempts: OutgoingAttempt) -> int:
        """How many calls for these attempts were taken so far."""
        return len(await self.acceptances(*attempts))

    async def acceptances(self, *attempts: OutgoingAttempt) -> list[dict[str, Any]]:
        """Their lines in the simulator's log."""
        ids = {attempt.attempt_id for attempt in attempts}
        if isinstance(self.provider, Scripted):
            return [
                {"destination": [each.recipient], "providerMessageId": f"fake-{each.attempt_id}"}
                for each in self.provider.taken
                if each.attempt_id in ids
            ]
        accepted = await self.behind.simulator.acceptances(self.since)
        return [each for each in accepted if each["tags"][ATTEMPT_TAG] in ids]
