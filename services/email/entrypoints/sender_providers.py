"""The providers as a sending process sees them: what each carries, whether it takes mail now, what operators want."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime

from contracts.email.events import AttemptReason
from services.email.domain.circuit import Circuit
from services.email.domain.routing import Now, Route, Wishes, reason_of, route
from services.email.entrypoints.sender_work import Work
from services.email.ports import MailProvider, OutgoingMail

__all__ = ["Providers"]

SWITCHED_OFF_SECONDS = 30.0
"""Until another look at mail that waits for a provider which an operator has switched off."""


class Providers:
    """All that are configured, the primary first. `wishes` and `switched_off` (name → why) change while it runs."""

    def __init__(self, providers: Sequence[MailProvider], wishes: Wishes | None = None) -> None:
        self._providers = {provider.name: provider for provider in providers}
        self.circuits: Mapping[str, Circuit] = {provider.name: Circuit() for provider in providers}
        self.wishes = wishes or Wishes()
        self.switched_off: Mapping[str, str] = {}

    def __iter__(self) -> Iterator[MailProvider]:
        return iter(self._providers.values())

    def __contains__(self, name: object) -> bool:
        return name in self._providers

    def __getitem__(self, name: str) -> MailProvider:
        return self._providers[name]

    @property
    def several(self) -> bool:
        """Whether there is anything to choose."""
        return len(self._providers) > 1

    def now(self, monotonic: float, at: datetime, paced: Mapping[str, str]) -> list[Now]:
        """What is known of each at this moment. `paced`: those without a token now, and why."""
        return [
            Now(
                name,
                0 if name in self.switched_off else self.circuits[name].allowance(monotonic),
                self.switched_off.get(name) or self._closed_to(name),
                paced.get(name, ""),
                provider.estimate_cost(0, at).money.amount if self.several else 0,
            )
            for name, provider in self._providers.items()
        ]

    def route(self, work: Work, mail: OutgoingMail, standing: Sequence[Now], blocked: Collection[str] = ()) -> Route:
        """Where this mail's next attempts go. `blocked`: providers that may have taken an earlier one."""
        unfit = {name: why for name, each in self._providers.items() if (why := each.cannot_carry(mail)) is not None}
        return route(standing, unfit, self.pin(work), self.wishes, blocked)

    def reason(self, work: Work, chosen: str, tried: Sequence[str], *, unknown: bool = False) -> AttemptReason:
        """See `reason_of`."""
        by_order = self.several and self.wishes.by == "order"
        return reason_of(chosen, tried, by_wish=by_order or self.pin(work) is not None, unknown=unknown)

    def pin(self, work: Work) -> str | None:
        """The one provider of this mail; None where all may have it."""
        request = work.held.message.request
        return self.wishes.pinned(request.category, request.template_id)

    def elsewhere(self, work: Work, without: Collection[str], monotonic: float) -> bool:
        """Whether another provider than those `without` takes this mail now."""
        mail, pin = work.mail, self.pin(work)
        return mail is not None and any(
            name not in without
            and pin in (None, name)
            and name not in self.switched_off
            and self.circuits[name].allowance(monotonic) > 0
            and each.cannot_carry(mail) is None
            for name, each in self._providers.items()
        )

    def reopens(self, name: str, monotonic: float) -> float:
        """Seconds until it is worth another look at one that takes nothing; 0 where nobody knows."""
        if name in self.switched_off:
            return SWITCHED_OFF_SECONDS
        until = self.circuits[name].open_until
        return 0.0 if until is None else max(0.0, until - monotonic)

    def _closed_to(self, name: str) -> str:
        circuit = self.circuits[name]
        return f"it refuses everything now ({circuit.reason})" if circuit.reason else "it is being tried with a few"
