"""`mailroom providers`: who carries mail now, and orders about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.environment import actor, run
from services.cli.output import Json, confirm, console, moment, print_json, refuse, say, table

if TYPE_CHECKING:
    from services.email.provider_orders import ProviderView, RampView

app = typer.Typer(no_args_is_help=True, help="Who carries mail, and orders about it. Heard by all within a second.")

Provider = Annotated[str, typer.Argument(metavar="PROVIDER", help="Of those in MAILROOM_PROVIDERS.")]
What = Annotated[str, typer.Argument(metavar="WHAT", help="A category, or template:ID.")]
Why = Annotated[str, typer.Option("--why", help="The reason; shown with the order.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@app.command("list")
def list_providers(json: Json = False) -> None:
    """Every configured provider: whether it takes mail, and what is ordered about it."""
    found = run(_list())
    if json:
        print_json([each.to_wire() for each in found])
        return
    rows = table("provider", "takes mail", "today", "pinned to it", "order")
    for each in found:
        order = each.off
        said = "" if order is None else f"off since {moment(order.at)}, by {order.actor}: {order.why}"
        today = "" if each.today is None else f"{each.today.used} of {each.today.limit}"
        rows.add_row(each.provider, each.takes_mail, today, ", ".join(each.pinned) or "", said)
    console().print(rows)


@app.command("warm-up")
def warm_up(json: Json = False) -> None:
    """Every domain that is being warmed up: recipients counted this UTC day, and how many its ramp allows."""
    found = run(_warming_up())
    if json:
        print_json([each.to_wire() for each in found])
        return
    rows = table("domain", "today", "mail")
    for each in found:
        waits = "waits for tomorrow, but for category auth" if each.used >= each.limit else "goes out"
        rows.add_row(each.domain, f"{each.used} of {each.limit}", waits)
    console().print(rows)


@app.command("disable")
def disable(provider: Provider, why: Why, yes: Yes = False, json: Json = False) -> None:
    """Send nothing through it from now on. Calls under way end; what waits goes through others, or waits."""
    confirm(f"Nothing goes through {provider} any more. Is that meant?", yes=yes)
    run(_order("switch_off", provider, why))
    told = f"{provider} gets no mail. Undo: mailroom providers enable {provider}"
    _tell({"provider": provider, "off": True}, told, json)


@app.command("enable")
def enable(provider: Provider, json: Json = False) -> None:
    """Let mail go through it again."""
    if not run(_order("switch_on", provider)):
        raise refuse(f"{provider} is not switched off")
    _tell({"provider": provider, "off": False}, f"{provider} gets mail again", json)


@app.command("pin")
def pin(what: What, provider: Provider, why: Why, yes: Yes = False, json: Json = False) -> None:
    """Send such mail through that provider alone: while it is away, such mail waits."""
    confirm(f"Mail of {what} then waits whenever {provider} is away. Is that meant?", yes=yes)
    run(_order("pin", what, provider, why))
    told = f"{what} goes through {provider} alone. Undo: mailroom providers unpin {what}"
    _tell({"what": what, "provider": provider}, told, json)


@app.command("unpin")
def unpin(what: What, json: Json = False) -> None:
    """Let such mail go through every provider again."""
    if not run(_order("unpin", what)):
        raise refuse(f"{what} is not pinned")
    _tell({"what": what, "provider": None}, f"{what} may go through every provider", json)


def _tell(done: dict[str, object], said: str, json: bool) -> None:
    if json:
        print_json(done)
    else:
        say(said)


async def _list() -> list[ProviderView]:
    from services.cli.email_service import email_service

    async with email_service("settler") as email:
        return await email.provider_orders.show()


async def _warming_up() -> list[RampView]:
    from services.cli.email_service import email_service

    async with email_service("settler") as email:
        return await email.provider_orders.warming_up()


async def _order(verb: str, *arguments: str) -> bool:
    from services.cli.email_service import email_service

    async with email_service("settler") as email:
        orders = email.provider_orders
        match verb, arguments:
            case "switch_off", (provider, why):
                await orders.switch_off(provider, actor(), why)
            case "switch_on", (provider,):
                return await orders.switch_on(provider)
            case "pin", (what, provider, why):
                await orders.pin(what, provider, actor(), why)
            case "unpin", (what,):
                return await orders.unpin(what)
    return True
