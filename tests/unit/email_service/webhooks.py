"""The webhooks over real HTTP semantics (ASGI), with everything behind them in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import httpx

from services.email.adapters.webhooks import MailgunWebhook, SendgridWebhook, SesWebhook
from services.email.domain.webhooks import OneUse, Subscription
from services.email.entrypoints.http_webhooks import webhooks_router
from services.email.ports import Webhook
from services.kit.auth import Authenticator, SecretVerifier
from services.kit.clock import Clock
from services.kit.errors import Unavailable
from services.kit.health import Health
from services.kit.http import create_app
from services.kit.metrics import WEBHOOKS, Metrics
from services.kit.testing import FakeClock
from services.kit.testing.publisher import MemoryPublisher
from tests.unit.email_service.signing import MAILGUN_KEY, NOW, TOPIC, Certificates, sendgrid_key, sendgrid_signed


class MemoryUsedTokens:
    """`UsedTokens` in this process only."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: dict[str, OneUse] = {}
        self.away = False

    async def body_of(self, token: str) -> str | None:
        if self.away:
            raise Unavailable("MongoDB", "switched off by the test")
        found = self._kept.get(token)
        return None if found is None or found.until < self._clock.now() else found.body_hash

    async def record(self, use: OneUse) -> str:
        found = await self.body_of(use.token)
        if found is not None:
            return found
        self._kept[use.token] = use
        return use.body_hash


class Confirmed:
    """`Subscriptions` that remembers what it confirmed, or raises `error`."""

    def __init__(self) -> None:
        self.topics: list[str] = []
        self.error: Exception | None = None

    async def confirm(self, subscription: Subscription) -> None:
        if self.error is not None:
            raise self.error
        self.topics.append(subscription.topic)


class Webhooks:
    """The webhooks of one process."""

    def __init__(
        self,
        providers: Sequence[str] = ("ses", "sendgrid", "mailgun"),
        tokens: Callable[[Clock], Any] = MemoryUsedTokens,
    ) -> None:
        self.clock = FakeClock(NOW)
        self.publisher = MemoryPublisher()
        self.tokens = tokens(self.clock)
        self.subscriptions = Confirmed()
        self.certificates = Certificates()
        self.metrics = Metrics()
        sendgrid = [sendgrid_key(which).public_key() for which in ("first", "second")]
        made: dict[str, Webhook] = {
            "ses": SesWebhook([TOPIC], self.certificates, self.clock.now, timedelta(hours=8)),
            "sendgrid": SendgridWebhook(sendgrid, self.clock.now, timedelta(hours=36)),
            "mailgun": MailgunWebhook([MAILGUN_KEY.encode()], self.clock.now, timedelta(hours=24)),
        }
        self.app = create_app(
            title="Mailroom: email",
            service="email",
            version="1",
            authenticator=Authenticator(SecretVerifier("s" * 40)),
            health=Health(self.clock),
            metrics=self.metrics,
            clock=self.clock,
            routers=[
                webhooks_router(
                    [made[name] for name in providers],
                    publisher=self.publisher,
                    tokens=self.tokens,
                    subscriptions=self.subscriptions,
                    metrics=self.metrics,
                )
            ],
        )
        transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://mailroom")

    async def post(self, provider: str, body: bytes, headers: Mapping[str, str] | None = None) -> httpx.Response:
        """POST these bytes."""
        return await self.client.post(f"/api/webhooks/{provider}", content=body, headers=dict(headers or {}))

    async def sns(self, body: bytes) -> httpx.Response:
        """As SNS POSTs."""
        return await self.post("ses", body, {"Content-Type": "text/plain; charset=UTF-8"})

    async def sendgrid(self, body: bytes, **signing: Any) -> httpx.Response:
        """As SendGrid POSTs."""
        return await self.post("sendgrid", body, sendgrid_signed(body, **signing))

    async def mailgun(self, body: bytes) -> httpx.Response:
        """As Mailgun POSTs."""
        return await self.post("mailgun", body, {"Content-Type": "application/json"})

    @property
    def values(self) -> list[bytes]:
        """The values of all records that were published."""
        return [item.value for item in self.publisher.published]

    def counted(self, provider: str, outcome: str) -> float:
        """How many POSTs became that."""
        return self.metrics.value(WEBHOOKS, provider=provider, outcome=outcome)
