"""What the account may send: asked of the provider every now and then, and told to the shared rate limit."""

from __future__ import annotations

import asyncio

from services.email.ports import MailProvider
from services.kit import metrics as m
from services.kit.clock import Clock
from services.kit.errors import RefusedHere, TransientError
from services.kit.event_store.waiting import first_of
from services.kit.health import Progress
from services.kit.logs import get_logger
from services.kit.metrics import Metrics
from services.kit.rate import RateLimits

log = get_logger(__name__)

EVERY_SECONDS = 60.0
AGAIN_SECONDS = 2.0


class QuotaWatch:
    """Run as a `LoopComponent`. Until it has succeeded once, in any process, nothing is sent on a guess."""

    def __init__(
        self,
        provider: MailProvider,
        rate: RateLimits,
        clock: Clock,
        progress: Progress,
        metrics: Metrics,
        *,
        most_per_second: float | None = None,
    ) -> None:
        """`most_per_second`: a lower limit than the provider's own, from settings."""
        self._provider, self._rate, self._clock = provider, rate, clock
        self._progress, self._metrics, self._most = progress, metrics, most_per_second

    async def run(self, stopping: asyncio.Event) -> None:
        """Ask until told to stop."""
        while not stopping.is_set():
            try:
                await self.look()
            except (TransientError, RefusedHere) as error:
                self._progress.waiting(str(error))
                log.warning("the provider's quota cannot be had", provider=self._provider.name, error=str(error))
                await first_of(self._clock, AGAIN_SECONDS, stopping)
            else:
                self._progress.idle()
                await first_of(self._clock, EVERY_SECONDS, stopping)

    async def look(self) -> None:
        """Once. Raises TransientError, RefusedHere."""
        quota = await self._provider.quota()
        per_second = quota.max_send_rate if self._most is None else min(self._most, quota.max_send_rate)
        left = None if quota.max_24_hour < 0 else max(0, int(quota.max_24_hour - quota.sent_last_24_hours))
        await self._rate.set_limit(self._provider.name, per_second, left)
        if left is not None:
            self._metrics.set(m.QUOTA_REMAINING, left, provider=self._provider.name)
