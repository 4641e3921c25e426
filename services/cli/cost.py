"""`mailroom cost`: what mail and files cost by the list of prices."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated, Final

import typer

from services.cli.output import Json, console, print_json, refuse, say, table

if TYPE_CHECKING:
    from services.kit.prices import Bill, Price, Prices, StoragePrice

app = typer.Typer(no_args_is_help=True, help="What mail and files cost by the list of prices.")

REGION: Final = "us-east-1"
"""Where the files of a projection lie."""

GUIDE: Final = (
    (2_000, 10, 9_360_000),
    (10_000, 50, 10_500_000),
    (50_000, 200, 15_800_000),
    (200_000, 1_000, 45_600_000),
)
"""The scales of the guide that many users come from: mails a month, gigabytes of files, and in micro-units what it says
that SES and S3 cost together.
"""

Mails = Annotated[list[int] | None, typer.Option("--mails", min=0, help="A month; may be given several times.")]
Gigabytes = Annotated[float, typer.Option("--gigabytes", min=0, help="Of files in S3, with --mails.")]
Sent = Annotated[int, typer.Option("--sent", min=0, help="Mails that each has sent in this month before.")]
Attachments = Annotated[int, typer.Option("--attachments", min=0, help="Bytes of the mail's attachments.")]


@dataclass(frozen=True, slots=True)
class Scale:
    """A month of so many mails and files. `guide`: what the guide says for it, in micro-units."""

    mails: int
    gigabytes: float
    guide: int | None = None

    @property
    def size(self) -> int:
        """Bytes of the files."""
        return int(self.gigabytes * 10**9)


@app.command("project")
def project(mails: Mails = None, gigabytes: Gigabytes = 10.0, json: Json = False) -> None:
    """What a month costs at each provider, by the plan that is cheapest for so many mails, and its files in S3. Without
    --mails at the four scales of the guide, beside the guide's own figures.
    """
    prices, day = _prices(), datetime.now(UTC).date()
    storage = prices.storage("STANDARD", day, REGION)
    if storage is None:
        raise refuse(f"the list of prices has no storage of class STANDARD in {REGION}")
    scales = [Scale(each, gigabytes) for each in mails] if mails else [Scale(*each) for each in GUIDE]
    plans = [_cheapest(prices, day, each.mails) for each in scales]
    if json:
        print_json([_projected(scale, found, storage) for scale, found in zip(scales, plans, strict=True)])
        return
    names = [name for name in prices.plans if any(name in found for found in plans)]
    told = () if mails else ("guide",)
    numbers = ("mails", "GB", "S3", "ses+S3", *told)
    rows = table(*numbers[:2], *names, *numbers[2:], right=numbers)
    for scale, found in zip(scales, plans, strict=True):
        files = storage.lying(scale.size)
        both = money(found["ses"].bill(scale.mails).total + files) if "ses" in found else ""
        rows.add_row(
            f"{scale.mails:,}",
            f"{scale.gigabytes:,g}",
            *(
                f"{money(found[name].bill(scale.mails).total)} {found[name].plan}" if name in found else ""
                for name in names
            ),
            money(files),
            both,
            *(() if scale.guide is None else (money(scale.guide),)),
        )
    console().print(rows)
    say("A month in USD, by the plan that is cheapest for so many mails, with so many gigabytes of files in S3;")
    say("without attachments, dedicated IPs, requests and downloads.")
    if not mails:
        say("guide: what it says of SES and S3. That is not the sum of its own parts (0.10 per 1,000 mails, 0.023")
        say("per GB), and the 6,000 free mails a month that it counts on are no longer given to new accounts.")


@app.command("compare")
def compare(sent: Sent = 0, attachments: Attachments = 0, json: Json = False) -> None:
    """What the next mail adds to the month, and what the month comes to with it, by each plan of each provider."""
    prices, day = _prices(), datetime.now(UTC).date()
    found = [
        (price, price.next_mail(sent) + price.attachments(attachments), price.bill(sent + 1, attachments))
        for provider in prices.plans
        for plan in prices.plans_of(provider)
        if (price := prices.of_plan(provider, plan, day)) is not None and price.is_known
    ]
    found.sort(key=lambda each: (each[1], each[2].total))
    if json:
        print_json([_compared(price, adds, bill, prices) for price, adds, bill in found])
        return
    rows = table(
        "provider", "plan", "ours", "the mail adds", "month with it", "from", right=("the mail adds", "month with it")
    )
    for price, adds, bill in found:
        ours = "yes" if prices.plans[price.provider] == price.plan else ""
        rows.add_row(price.provider, price.plan, ours, money(adds, 6), money(bill.total), price.since.isoformat())
    console().print(rows)
    say(f"USD, after {sent:,} mails in this month. Fees are paid whoever carries the mail, so no mail adds them.")


def money(amount: int, digits: int = 2) -> str:
    """Micro-units for people."""
    return f"{amount / 1_000_000:,.{digits}f}"


def _cheapest(prices: Prices, day: date, mails: int) -> dict[str, Price]:
    """Of each provider whose costs are known the plan that is cheapest."""
    found = {name: prices.cheapest_plan(name, day, mails) for name in prices.plans}
    return {name: price for name, price in found.items() if price is not None and price.is_known}


def _projected(scale: Scale, plans: Mapping[str, Price], storage: StoragePrice) -> dict[str, object]:
    return {
        "mails": scale.mails,
        "gigabytes": scale.gigabytes,
        "providers": {name: {"plan": price.plan, **_bill(price.bill(scale.mails))} for name, price in plans.items()},
        "files": {"storageClass": storage.storage_class, "amount": storage.lying(scale.size)},
        **({} if scale.guide is None else {"guide": {"amount": scale.guide}}),
    }


def _compared(price: Price, adds: int, bill: Bill, prices: Prices) -> dict[str, object]:
    return {
        "provider": price.provider,
        "plan": price.plan,
        "ours": prices.plans[price.provider] == price.plan,
        "version": price.version,
        "since": price.since.isoformat(),
        "adds": adds,
        "month": _bill(bill),
        "source": price.source,
    }


def _bill(bill: Bill) -> dict[str, object]:
    return {
        "currency": bill.currency,
        "fee": bill.fee,
        "mails": bill.mails,
        "attachments": bill.attachments,
        "dedicatedIps": bill.dedicated_ips,
        "total": bill.total,
    }


def _prices() -> Prices:
    from services.kit.price_settings import PriceSettings
    from services.kit.settings import load

    return load(PriceSettings, others=os.environ).prices
