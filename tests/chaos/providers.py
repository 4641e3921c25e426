"""What goes wrong at a mail provider, in a seeded order: each trouble as the simulator's faults."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from deploy.local.providers import webhook_keys
from deploy.local.simulator.client import SimulatorClient
from deploy.local.simulator.faults import Fault
from deploy.local.stack import Stack

SENDS = {"ses": "SendEmail", "sendgrid": "SendGridSend", "mailgun": "MailgunSend", "smtp": "SmtpDot"}
"""Provider → by which faults name a send of it."""

FEW = 12
"""Calls that get no answer before a provider answers again: more than open the circuit. Each is a mail that stays
unknown where nothing was taken, since nobody sends it again.
"""

HANGS_MS = 17_000
"""Longer than a call may take."""


async def report_to(stack: Stack, simulator: SimulatorClient) -> None:
    """Have the simulator report through this stack's gateway, as it does by itself where there is every provider."""
    keys = webhook_keys(stack.site)
    for provider, key in (("sendgrid", keys.sendgrid), ("mailgun", keys.mailgun)):
        await simulator.webhook(provider, f"{stack.site.url('gateway')}/api/webhooks/{provider}", key)


@dataclass(frozen=True, slots=True)
class Trouble:
    """One way in which a provider fails.

    Attributes:
        name: for people.
        faults: of SES, SendGrid and Mailgun; the operation is filled in.
        smtp: the same of an SMTP server; none where it has no such thing.
        swallows: whether calls get no answer.
    """

    name: str
    faults: tuple[dict[str, Any], ...]
    smtp: tuple[dict[str, Any], ...] = ()
    swallows: bool = False

    def of(self, provider: str) -> list[Fault]:
        """As faults of this provider; none where it cannot fail so."""
        if provider == "smtp":
            return [Fault(**{"operation": SENDS[provider], **each}) for each in self.smtp]
        return [Fault(**{**each, "operation": SENDS[provider]}) for each in self.faults]


_FULL = {"kind": "refuse", "operation": "SmtpMail", "status": 451, "message": "4.3.2 try again later"}
_NO_ENTRY = {"kind": "refuse", "operation": "SmtpMail", "status": 530, "message": "5.7.0 authentication required"}
_ERROR = {"kind": "refuse", "status": 451, "message": "4.3.0 error"}
_NEVER_GOES_ON = {"kind": "slow", "operation": "SmtpData", "ms": 9_000, "count": FEW}
_DROPS = {"kind": "dropBeforeAccept", "count": FEW}
_ACCEPTS_AND_DROPS = {"kind": "acceptThenDrop", "count": FEW}

TROUBLES = (
    Trouble("throttles", ({"kind": "throttle"},), (_FULL,)),
    Trouble("suspends the account", ({"kind": "accountSuspended"},), (_NO_ENTRY,)),
    Trouble("answers 5xx", ({"kind": "serverError", "count": FEW},), (_ERROR,), swallows=True),
    Trouble("hangs", ({"kind": "slow", "ms": HANGS_MS, "count": FEW},), (_NEVER_GOES_ON,), swallows=True),
    Trouble("drops the connection", (_DROPS,), (_DROPS,), swallows=True),
    Trouble("accepts and drops the connection", (_ACCEPTS_AND_DROPS,), (_ACCEPTS_AND_DROPS,), swallows=True),
    Trouble("reports late", ({"kind": "delay", "ms": 4000},)),
    Trouble("reports twice", ({"kind": "duplicate"},)),
    Trouble("reports out of order", ({"kind": "reorder", "ms": 3000},)),
    Trouble("reports nothing", ({"kind": "silent", "probability": 0.5},)),
)


class Weather:
    """Troubles of one provider, one after the other. `swallowed` counts the calls that got no answer by them."""

    def __init__(self, simulator: SimulatorClient, provider: str, seed: int) -> None:
        self.provider, self.seed, self.swallowed = provider, seed, 0
        self.met: list[str] = []
        self._simulator, self._random = simulator, random.Random(f"{seed} {provider}")

    def order(self, troubles: Sequence[Trouble]) -> list[Trouble]:
        """Those that it can have, shuffled."""
        found = [each for each in troubles if each.of(self.provider)]
        self._random.shuffle(found)
        return found

    async def clear(self, seconds: float) -> None:
        """Wait until it carries mail again: one that was silent is left alone for up to a minute. AssertionError after
        `seconds`.
        """
        since = await self._simulator.position()
        deadline = asyncio.get_running_loop().time() + seconds
        while all(each.get("provider", "ses") != self.provider for each in await self._simulator.acceptances(since)):
            assert asyncio.get_running_loop().time() < deadline, f"{self.provider} gets no mail any more"
            await asyncio.sleep(0.5)

    async def begin(self, trouble: Trouble) -> None:
        """From now on it fails so, and in no other way."""
        await self._simulator.faults(*trouble.of(self.provider), seed=self.seed + len(self.met))
        self.met.append(trouble.name)

    async def end(self, trouble: Trouble) -> int:
        """It works again; how often the trouble struck."""
        struck: int = sum(each["fired"] for each in await self._simulator.shown_faults())
        await self._simulator.faults()
        if trouble.swallows:
            self.swallowed += struck
        return struck
