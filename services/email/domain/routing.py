"""Which provider gets the next attempt of a mail, and why: a pure function of the mail, what is known of each provider
now, and what the operators want.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from contracts.email.events import AttemptReason, Considered


@dataclass(frozen=True, slots=True)
class Now:
    """What is known of one provider at a moment, for all mail.

    Attributes:
        name: its wire name.
        allowance: how many attempts may be planned with it now; 0 while its circuit is open or it is switched off.
        why_not: why `allowance` is 0, for people; "" where it is not.
        paced: it has no token left for now: others go first.
        amount: what a recipient of a usual mail costs there, in micro-units of one currency.
    """

    name: str
    allowance: int
    why_not: str = ""
    paced: bool = False
    amount: int = 0

    @property
    def usable(self) -> bool:
        """Whether a mail that it carries may go there now."""
        return self.allowance > 0 and not self.paced


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the operators want.

    Attributes:
        pins: category, or `template:<id>`, → the one provider of such mail, which waits while that one is away.
        by: of providers that may have a mail, the first as configured, or the cheapest (of equals the first).
    """

    pins: Mapping[str, str] = field(default_factory=dict)
    by: Literal["order", "price"] = "order"

    def pinned(self, category: str, template_id: str | None) -> str | None:
        """The one provider of such mail; None where all may have it. A template's pin counts before its category's."""
        return (self.pins.get(f"template:{template_id}") if template_id else None) or self.pins.get(category)


@dataclass(frozen=True, slots=True)
class Route:
    """What was found for one mail.

    Attributes:
        chosen: the provider of the next attempt; None where none may have it now.
        waits_for: where none is chosen, the providers that would carry it and are away for now; none: nobody ever will.
        considered: every provider in the order in which they were looked at, each with what was found.
    """

    chosen: str | None
    waits_for: tuple[str, ...]
    considered: tuple[Considered, ...]


def route(
    providers: Sequence[Now],
    unfit: Mapping[str, str],
    pin: str | None,
    wishes: Wishes,
    blocked: Collection[str] = (),
) -> Route:
    """Choose. The same arguments give the same route.

    Args:
        providers: all that are configured, the primary first.
        unfit: provider → why it never takes this mail.
        pin: the mail's, see `Wishes.pinned`.
        wishes: the operators'.
        blocked: providers that may have taken an earlier attempt.
    """
    ordered = sorted(providers, key=lambda each: each.amount) if wishes.by == "price" else providers
    found: list[Considered] = []
    chosen: str | None = None
    waits_for: list[str] = []
    for each in ordered:
        if pin is not None and each.name != pin:
            why = f"such mail is pinned to {pin}"
        elif each.name in unfit:
            why = unfit[each.name]
        elif each.name in blocked:
            why = "the outcome of an attempt with it is unknown"
        elif each.allowance <= 0:
            waits_for.append(each.name)
            why = each.why_not
        elif each.paced:
            waits_for.append(each.name)
            why = "its rate is used up for now"
        elif chosen is None:
            chosen = each.name
            why = "chosen: " + ("pinned" if pin else "the cheapest" if wishes.by == "price" else "the first in order")
        else:
            why = "after the one that was chosen"
        found.append(Considered(provider=each.name, why=why))
    return Route(chosen, () if chosen else tuple(waits_for), tuple(found))


def reason_of(chosen: str, tried: Sequence[str], *, by_wish: bool, unknown: bool = False) -> AttemptReason:
    """Why `chosen` gets this attempt, in a word.

    Args:
        chosen: the provider.
        tried: providers of the delivery's attempts so far, oldest first.
        by_wish: whether a pin or the configured order decided, and not the price.
        unknown: whether the outcome of one of them is unknown.
    """
    if unknown:
        return "resend"
    if tried:
        return "retry" if tried[-1] == chosen else "failover"
    return "pinned" if by_wish else "cheapest"
