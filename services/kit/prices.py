"""What providers charge: dated data with a source for each entry, in `prices.json` beside this file or one of an
operator's own (`MAILROOM_PRICES_FILE`). A new price is a new entry, which changes nothing of what was sent before.

Amounts are micro-units of a currency: 100 of USD is 0.0001 dollars. Each recipient is a call of its own, so "a message"
and "a recipient" count the same, and everything of a month counts by UTC.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Final, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from contracts.base import Money

SHIPPED: Final = Path(__file__).with_name("prices.json")
GIGABYTE: Final = 1_000_000_000

Amount = Annotated[int, Field(ge=0, le=10**15)]
Text = Annotated[str, Field(min_length=1, max_length=500)]


class _Data(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="forbid", strict=True)


class Tier(_Data):
    """What a mail costs up to a number of mails of the month, those of the tiers before and what is included among
    them. `up_to` None: it has no end.
    """

    up_to: Annotated[int, Field(ge=1)] | None = None
    each: Amount


class Price(_Data):
    """A plan of a provider from a day on, until the next entry of the same plan and region.

    Attributes:
        version: names the entry in the ledger; used once.
        region: None where it is the same everywhere.
        since: the first day (UTC).
        monthly_fee: whatever is sent. `included`: mails of a month that it pays for.
        tiers: of what goes beyond, in their order; the last has no end.
        attachments_per_gigabyte: of attachments as they were given, before they are encoded.
        dedicated_ip: a month, each; None where there is none to be had.
        source: where the figures are from, and when that was read.
    """

    provider: Text
    plan: Text
    version: Text
    region: Text | None = None
    since: Annotated[date, Field(strict=False)]
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = "USD"
    monthly_fee: Amount = 0
    included: Annotated[int, Field(ge=0)] = 0
    tiers: Annotated[tuple[Tier, ...], Field(min_length=1, strict=False)]
    attachments_per_gigabyte: Amount = 0
    dedicated_ip: Amount | None = None
    source: Text

    @model_validator(mode="after")
    def _tiers_in_order(self) -> Self:
        bounds = [tier.up_to for tier in self.tiers]
        ends = [bound for bound in bounds[:-1] if bound is not None]
        if bounds[-1] is not None or len(ends) != len(bounds) - 1 or ends != sorted(set(ends)):
            raise ValueError("upTo must grow from tier to tier, and the last tier has none")
        return self

    @property
    def is_known(self) -> bool:
        """Whether it says what something costs: of a server of one's own it does not."""
        return bool(self.monthly_fee or self.tiers[-1].each or self.attachments_per_gigabyte)

    def next_mail(self, used: int) -> int:
        """What one more mail adds to a month that has `used` mails: its marginal cost. Fees are paid anyway."""
        if used < self.included:
            return 0
        return next(tier.each for tier in self.tiers if tier.up_to is None or used < tier.up_to)

    def attachments(self, size: int) -> int:
        """What `size` bytes of attachments cost, rounded up."""
        return -(-size * self.attachments_per_gigabyte // GIGABYTE)

    def mail(self, attachment_bytes: int) -> Money:
        """What the ledger says of one mail: the first price beyond what is included, and its attachments. It depends on
        nothing but the mail, so that it can be made anew at any time; `bill` says what a month comes to.
        """
        return Money(amount=self.tiers[0].each + self.attachments(attachment_bytes), currency=self.currency)

    def bill(self, mails: int, attachment_bytes: int = 0, dedicated_ips: int = 0) -> Bill:
        """What a month of `mails` comes to. Raises ValueError for dedicated IPs of a plan that has none."""
        if dedicated_ips and self.dedicated_ip is None:
            raise ValueError(f"{self.provider} {self.plan} has no dedicated IPs")
        beyond, counted = 0, self.included
        for tier in self.tiers:
            end = mails if tier.up_to is None else min(mails, tier.up_to)
            beyond += max(0, end - counted) * tier.each
            counted = max(counted, end)
        return Bill(
            currency=self.currency,
            fee=self.monthly_fee,
            mails=beyond,
            attachments=self.attachments(attachment_bytes),
            dedicated_ips=dedicated_ips * (self.dedicated_ip or 0),
        )


class StoragePrice(_Data):
    """What a class of storage costs in a region from a day on, until its next entry.

    Attributes:
        gigabyte_month: of what lies there.
        writes, reads: a thousand requests each. `retrieval`: a gigabyte that is read.
        least_days: what goes sooner is charged for these.
    """

    storage_class: Text
    version: Text
    region: Text
    since: Annotated[date, Field(strict=False)]
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = "USD"
    gigabyte_month: Amount
    writes: Amount
    reads: Amount
    retrieval: Amount = 0
    least_days: Annotated[int, Field(ge=0)] = 0
    source: Text

    def lying(self, size: int) -> int:
        """What `size` bytes cost in a month, rounded up."""
        return -(-size * self.gigabyte_month // GIGABYTE)


Dated = TypeVar("Dated", Price, StoragePrice)


@dataclass(frozen=True, slots=True)
class Bill:
    """A month at one provider, in micro-units of `currency`. `mails`: those beyond what the fee pays for."""

    currency: str
    fee: int
    mails: int
    attachments: int
    dedicated_ips: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.fee + self.mails + self.attachments + self.dedicated_ips


class _File(_Data):
    comment: str = ""
    plans: dict[str, str]
    prices: Annotated[tuple[Price, ...], Field(strict=False)]
    storage: Annotated[tuple[StoragePrice, ...], Field(strict=False)] = ()

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        versions = [*(price.version for price in self.prices), *(price.version for price in self.storage)]
        twice = sorted({each for each in versions if versions.count(each) > 1})
        if twice:
            raise ValueError(f"versions that are used twice: {', '.join(twice)}")
        days = [(price.provider, price.plan, price.region, price.since) for price in self.prices]
        if len(set(days)) != len(days):
            raise ValueError("two prices of one plan and region are from the same day on")
        return self


class Prices:
    """The prices of each provider's plan that is in use."""

    def __init__(
        self,
        prices: Sequence[Price],
        plans: Mapping[str, str],
        regions: Mapping[str, str] | None = None,
        storage: Sequence[StoragePrice] = (),
    ) -> None:
        """`plans`: by provider, which plan its account has; `regions`: by provider, in which region it is.

        Raises:
            ValueError: a plan has no prices.
        """
        self.plans = dict(plans)
        self._all, self._storage = list(prices), sorted(storage, key=lambda price: price.since, reverse=True)
        missing = [
            f"{provider} {plan} (there {'are' if len(known) > 1 else 'is'} {', '.join(known) or 'none'})"
            for provider, plan in plans.items()
            if plan not in (known := self.plans_of(provider))
        ]
        if missing:
            raise ValueError(f"no prices of {'; '.join(missing)}")
        self._dated: dict[str, list[Price]] = {}
        for provider, plan in plans.items():
            self._dated[provider] = self._of(provider, plan, (regions or {}).get(provider))

    def plans_of(self, provider: str) -> list[str]:
        """The plans whose prices are known."""
        return list(dict.fromkeys(each.plan for each in self._all if each.provider == provider))

    def in_force(self, provider: str, day: date) -> Price | None:
        """The price of its plan on a day (UTC); None where none is known."""
        return _in_force(self._dated.get(provider, ()), day)

    def of_plan(self, provider: str, plan: str, day: date, region: str | None = None) -> Price | None:
        """Likewise, of another plan."""
        return _in_force(self._of(provider, plan, region), day)

    def upcoming(self, provider: str, day: date) -> list[Price]:
        """What its plan is to cost later, the next first."""
        return [price for price in reversed(self._dated.get(provider, ())) if price.since > day]

    def cheapest_plan(self, provider: str, day: date, mails: int) -> Price | None:
        """Of the plans whose prices are known on a day, the one that is cheapest for so many mails a month."""
        known = [price for plan in self.plans_of(provider) if (price := self.of_plan(provider, plan, day)) is not None]
        return min(known, key=lambda price: price.bill(mails).total, default=None)

    def storage(self, storage_class: str, day: date, region: str) -> StoragePrice | None:
        """What a class of storage costs on a day (UTC); None where that is not known."""
        wanted = (storage_class, region)
        return _in_force((each for each in self._storage if (each.storage_class, each.region) == wanted), day)

    def _of(self, provider: str, plan: str, region: str | None) -> list[Price]:
        """The latest first; on one day that of the region before that of everywhere."""
        found = [
            price
            for price in self._all
            if (price.provider, price.plan) == (provider, plan) and price.region in (None, region)
        ]
        return sorted(found, key=lambda price: (price.since, price.region is not None), reverse=True)


def _in_force(latest_first: Iterable[Dated], day: date) -> Dated | None:
    return next((each for each in latest_first if each.since <= day), None)


def load(
    path: Path = SHIPPED, plans: Mapping[str, str] | None = None, regions: Mapping[str, str] | None = None
) -> Prices:
    """The prices of a file. `plans`: of which providers it is another one than the file says.

    Raises:
        ValueError: it cannot be read, is no such file (every problem is told, with its place), or a plan has no prices.
    """
    try:
        found = _File.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        places = (f"{'.'.join(map(str, each['loc'])) or 'the file'}: {each['msg']}" for each in error.errors())
        raise ValueError(f"{path.name} is no list of prices: {'; '.join(places)}") from None
    return Prices(found.prices, found.plans | dict(plans or {}), regions, found.storage)
