"""What operators see of the providers and may order about them; behind the HTTP door and the command alike."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, get_args

from pydantic import Field

from contracts.base import Model, UtcDateTime
from contracts.email.values import Category
from services.email.domain.warm_up import NEVER_HELD, Ramp, domain_key, provider_key, sending_domain
from services.email.ports import Order, ProviderBoard
from services.kit.daily import DailyCounts
from services.kit.errors import PermanentError
from services.kit.logs import get_logger

log = get_logger(__name__)


class OrderView(Model):
    """Who ordered it, when, and why."""

    actor: str
    at: UtcDateTime
    why: str


class DayView(Model):
    """What a limit of today has counted, in recipients. Days are UTC days."""

    used: int
    limit: int


class RampView(DayView):
    """A domain that is being warmed up. From `limit` on its mail waits for the next day, but for category `auth`."""

    domain: str


class ProviderView(Model):
    """One configured provider now."""

    provider: str
    takes_mail: Annotated[str, Field(description="`yes`, `off`, or why it is left alone and for how long")]
    today: Annotated[DayView | None, Field(description="where its days are counted here")] = None
    off: OrderView | None = None
    pinned: Annotated[list[str], Field(description="categories and templates that go through it alone")]


async def held_by_ramp(
    from_: str, category: Category, ramps: Mapping[str, Ramp], counts: DailyCounts
) -> RampView | None:
    """The ramp for which a mail that is still to be sent waits; None where it waits for none. Raises TransientError."""
    domain = sending_domain(from_)
    if domain not in ramps or category in NEVER_HELD:
        return None
    found = await _ramps_today({domain: ramps[domain]}, counts)
    return next((each for each in found if each.used >= each.limit), None)


async def _ramps_today(ramps: Mapping[str, Ramp], counts: DailyCounts) -> list[RampView]:
    """Of the ramps that allow a number today, in the order of domains. Raises TransientError."""
    used = await counts.used([domain_key(domain) for domain in ramps]) if ramps else {}
    days = {domain: used[domain_key(domain)] for domain in sorted(ramps)}
    return [
        RampView(domain=domain, used=day.used, limit=limit)
        for domain, day in days.items()
        if (limit := ramps[domain].limit_on(day.day)) is not None
    ]


class ProviderOrders:
    """Orders about the configured providers, the primary first."""

    def __init__(
        self,
        board: ProviderBoard,
        providers: Sequence[str],
        templates: Collection[str],
        counts: DailyCounts,
        daily_limits: Mapping[str, int],
        ramps: Mapping[str, Ramp],
    ) -> None:
        """`templates`: ids of those that there are. `daily_limits`: provider → recipients a day. `ramps`: by domain."""
        self._board, self._providers, self._templates = board, providers, templates
        self._counts, self._daily_limits, self._ramps = counts, daily_limits, ramps

    async def show(self) -> list[ProviderView]:
        """Every provider. Raises TransientError."""
        board = await self._board.read()
        limits = self._daily_limits
        used = await self._counts.used([provider_key(name) for name in limits]) if limits else {}
        today = {name: DayView(used=used[provider_key(name)].used, limit=limit) for name, limit in limits.items()}
        shown: list[ProviderView] = []
        for name in self._providers:
            shut, off = board.shut.get(name), board.off.get(name)
            takes = "yes"
            if off is not None:
                takes = "off"
            elif shut is not None and shut.seconds > 0:
                takes = f"no: {shut.reason}; tried again in {shut.seconds:.0f} s"
            elif shut is not None:
                takes = f"no: {shut.reason}; being tried again"
            pinned = sorted(what for what, pin in board.pins.items() if pin.provider == name)
            if takes == "yes" and name in today and today[name].used >= today[name].limit:
                takes = "no: what it may send today is used up"
            shown.append(
                ProviderView(provider=name, takes_mail=takes, today=today.get(name), off=_view(off), pinned=pinned)
            )
        return shown

    async def warming_up(self) -> list[RampView]:
        """Every domain whose ramp allows a number today. Raises TransientError."""
        return await _ramps_today(self._ramps, self._counts)

    async def switch_off(self, provider: str, actor: str, why: str) -> None:
        """No mail goes there from now on. Raises PermanentError `unknownProvider`, TransientError."""
        self._check(provider)
        await self._board.switch_off(provider, actor, why)
        log.warning("a provider is switched off", provider=provider, actor=actor, why=why)

    async def switch_on(self, provider: str) -> bool:
        """Whether it was off. Raises PermanentError `unknownProvider`, TransientError."""
        self._check(provider)
        was_off = await self._board.switch_on(provider)
        if was_off:
            log.warning("a provider is switched on", provider=provider)
        return was_off

    async def pin(self, what: str, provider: str, actor: str, why: str) -> None:
        """Such mail goes there alone. Raises PermanentError `unknownProvider`, `cannotBePinned`, TransientError."""
        self._check(provider)
        kind, _, template_id = what.partition(":")
        if what not in get_args(Category) and not (kind == "template" and template_id in self._templates):
            raise PermanentError(
                "cannotBePinned", f"{what} is neither a category ({', '.join(get_args(Category))}) nor template:ID"
            )
        await self._board.pin(what, provider, actor, why)
        log.warning("mail is pinned", what=what, provider=provider, actor=actor, why=why)

    async def unpin(self, what: str) -> bool:
        """Whether it was pinned. Raises TransientError."""
        was_pinned = await self._board.unpin(what)
        if was_pinned:
            log.warning("mail is not pinned any more", what=what)
        return was_pinned

    def _check(self, provider: str) -> None:
        if provider not in self._providers:
            raise PermanentError("unknownProvider", f"{provider} is not one of {', '.join(self._providers)}")


def _view(order: Order | None) -> OrderView | None:
    return None if order is None else OrderView(actor=order.actor, at=order.at, why=order.why)
