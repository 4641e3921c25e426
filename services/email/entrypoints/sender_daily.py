"""What may still go out today: of a provider whose days are counted here, and of a domain that is being warmed up.

Recipients are counted before their attempts are recorded, and given back where none was recorded or where the provider
said no. So what was accepted in a day is at most what was counted, over all processes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping
from datetime import date
from zlib import crc32

from services.email.domain.outcomes import NotCalled, Rejected
from services.email.domain.warm_up import NEVER_HELD, Ramp, domain_key, provider_key, sending_domain
from services.email.entrypoints.sender_work import Counted, Wave, Work
from services.kit import metrics as m
from services.kit.clock import Clock
from services.kit.daily import DailyCounts, DailyLimit
from services.kit.errors import TransientError
from services.kit.gauges import Look
from services.kit.logs import get_logger
from services.kit.metrics import Metrics

log = get_logger(__name__)

LOOK_AGAIN_SECONDS = 60.0
"""For so long a key that was found used up is not asked for again: recipients may be given back meanwhile."""

LONGEST_HELD_SECONDS = 3600.0
"""Until another look at mail that waits for the next day, at most, and half of it at least: its ramp may have been set
anew. What is held at one moment is looked at together, and at another one than what was held before: thousands of
mails that come due at once, and are put off again, would hold up what is due after them.
"""

ROUNDED_TO_SECONDS = 10.0
"""Mail that expires earlier is put off for a multiple of this, so that many of them are one update of the store."""


class DailyLimits:
    """The limits of today, as one sending process sees them."""

    def __init__(
        self,
        counts: DailyCounts,
        clock: Clock,
        *,
        ramps: Mapping[str, Ramp] | None = None,
        providers: Mapping[str, int] | None = None,
        carriers: Collection[str] = (),
    ) -> None:
        """`ramps`: domain → its ramp. `providers`: name → recipients a day. `carriers`: every configured provider."""
        self._counts, self._clock = counts, clock
        self._carriers = [provider_key(name) for name in carriers]
        self._ramps, self._providers = ramps or {}, providers or {}
        self._used_up: dict[str, float] = {}
        """Key → until when it is not asked for again, on the monotonic clock."""

        self._told: dict[str, date] = {}
        self._unused: Counter[Counted] = Counter()

    def domain(self, work: Work) -> str | None:
        """The key of the domain that a mail comes from, while it is warmed up."""
        if not self._ramps:
            return None
        domain = sending_domain(work.held.message.request.from_)
        ramp = self._ramps.get(domain)
        return None if ramp is None or ramp.is_over(self._clock.now().date()) else domain_key(domain)

    def provider(self, name: str) -> str | None:
        """The key of a provider whose days are counted here."""
        return provider_key(name) if name in self._providers else None

    def never_held(self, work: Work) -> bool:
        """Whether a mail counts and yet goes out whatever the ramp says."""
        return work.held.message.request.category in NEVER_HELD

    def held(self, work: Work) -> float:
        """Seconds for which a mail is to be left alone, since the day of its domain or of every provider is used up; 0
        where it may go.

        It is looked at again within `LONGEST_HELD_SECONDS`, and when it has expired.
        """
        domain = None if self.never_held(work) else self.domain(work)
        if not (domain is not None and self.used_up(domain)) and not self.no_provider_left:
            return 0.0
        expires = max(0.0, (work.held.message.request.expires_at - self._clock.now()).total_seconds())
        rounded = ROUNDED_TO_SECONDS * (math.floor(expires / ROUNDED_TO_SECONDS) + 1)
        moment = crc32(str(int(self._clock.monotonic() * 10)).encode()) / 2**32
        return min(LONGEST_HELD_SECONDS * (1 + moment) / 2, rounded)

    @property
    def no_provider_left(self) -> bool:
        """Whether the day of every provider was found used up."""
        return bool(self._carriers) and all(self.used_up(key) for key in self._carriers)

    def used_up(self, key: str) -> float:
        """Seconds until it is worth another look at a day that was found used up; 0 where none was."""
        return max(0.0, self._used_up.get(key, 0.0) - self._clock.monotonic())

    async def take(self, key: str, wanted: int, *, exempt: bool = False) -> tuple[int, Counted]:
        """Count up to `wanted` recipients today: how many, and what to give back what is not used of them by.

        Raises Unavailable.
        """
        count = await self._counts.take(key, wanted, self._limit(key), exempt=exempt)
        if count.granted < wanted:
            self._used_up[key] = self._clock.monotonic() + min(LOOK_AGAIN_SECONDS, count.next_day)
            if self._told.get(key) != count.day:
                self._told[key] = count.day
                log.warning(
                    "a limit of today is used up", of=key, limit=self._limit(key)(count.day), day=str(count.day)
                )
        return count.granted, Counted(key, count.day)

    def give_back(self, counted: Counted, recipients: int) -> None:
        """So many were not used. They can be taken again after `settle`."""
        if recipients > 0:
            self._unused[counted] += recipients

    def over(self, wave: Wave) -> None:
        """All answers of a wave stand: who was certainly not accepted is given back."""
        refused = sum(isinstance(outcome, Rejected | NotCalled) for outcome in wave.outcomes.values())
        for counted in wave.counted:
            self.give_back(counted, refused)

    async def settle(self) -> None:
        """Tell the store what was given back. Raises nothing: what it does not hear of stays counted."""
        unused, self._unused = self._unused, Counter()
        for counted, recipients in unused.items():
            try:
                await self._counts.give_back(counted.key, counted.day, recipients)
            except TransientError as error:
                log.info("recipients stay counted today", of=counted.key, recipients=recipients, error=str(error))
            else:
                self._used_up.pop(counted.key, None)

    def _limit(self, key: str) -> DailyLimit:
        kind, _, name = key.partition("/")
        if kind == "domain":
            return self._ramps[name].limit_on
        most = self._providers[name]
        return lambda _: most


def daily_use(
    counts: DailyCounts, ramps: Mapping[str, Ramp], providers: Mapping[str, int], clock: Clock, metrics: Metrics
) -> Look:
    """How much of today is used: of each domain that is being warmed up, and of each provider counted here."""

    async def look() -> None:
        today = clock.now().date()
        warming = {domain: ramp for domain, ramp in ramps.items() if not ramp.is_over(today)}
        if not warming and not providers:
            return
        found = await counts.used([*map(domain_key, warming), *map(provider_key, providers)])
        for domain, ramp in warming.items():
            used = found[domain_key(domain)]
            limit = ramp.limit_on(used.day)
            metrics.set(m.WARM_UP_USED, used.used, domain=domain)
            metrics.set(m.WARM_UP_LIMIT, math.inf if limit is None else limit, domain=domain)
        for name, most in providers.items():
            metrics.set(m.QUOTA_REMAINING, max(0, most - found[provider_key(name)].used), provider=name)

    return look
