"""SES fails in the middle and mail goes on through another provider: sent, and judged by what the providers took."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from deploy.local.demo.cases import DELIVERED, Case, Run
from deploy.local.demo.doors import HttpDoor, KafkaDoor
from deploy.local.providers import EVERY
from deploy.local.simulator.client import SimulatorClient
from deploy.local.simulator.faults import Fault
from services.email.domain.correlation import MESSAGE_TAG

FAILING, RETURNING = 6, 16
"""Mails sent together, while SES fails and once it takes mail again. Some of each wave are urgent: another process
sends those, and it may be the one that tries SES again.
"""

BETWEEN_S = 0.3
"""Seconds between two waves while mail returns."""

OTHERS = EVERY[1:]
SKIPPED = "after the one that was chosen"


@dataclass
class Wave:
    """`size` mails that were sent together, and through which providers they may go. `at`: seconds since SES takes mail
    again.
    """

    what: str
    through: tuple[str, ...]
    size: int
    at: float = 0.0
    cases: list[Case] = field(default_factory=list)

    def carriers(self, accepted: dict[str, list[str]]) -> Counter[str]:
        """How many of them each provider took."""
        return Counter(name for case in self.cases for name in accepted.get(case.message_id, ()))


class Failover:
    """One run of it."""

    def __init__(self, run: Run, http: HttpDoor, kafka: KafkaDoor, simulator: SimulatorClient, seconds: float) -> None:
        """`seconds`: how long each step may take."""
        self._run, self._http, self._kafka, self._simulator, self._seconds = run, http, kafka, simulator, seconds
        self._since, self._ends = 0, 0.0
        self.failing: list[Wave] = []
        """Before SES fails, and after."""
        self.returning: list[Wave] = []
        """Once it takes mail again, until all of a wave goes through it."""

    @property
    def cases(self) -> list[Case]:
        """Every mail so far."""
        return [case for wave in (*self.failing, *self.returning) for case in wave.cases]

    async def play(self) -> None:
        """All waves. The simulator refuses nothing any more at the end, whatever happened."""
        self._since = await self._simulator.position()
        try:
            for wave in (
                Wave("all is well", ("ses",), FAILING),
                Wave("SES has suspended the account", OTHERS, FAILING),
                Wave("the next mails", OTHERS, FAILING),
            ):
                if wave.through == OTHERS:
                    await self._simulator.faults(Fault(kind="accountSuspended"))
                self.failing.append(wave)
                await self._send(wave)
        finally:
            await self._simulator.faults()
        self._ends = asyncio.get_running_loop().time()
        await self._return()

    async def settle(self, step: Callable[[], object]) -> None:
        """Wait until all is delivered, by the providers' own reports; `step` counts one."""
        deadline = asyncio.get_running_loop().time() + self._seconds

        async def one(case: Case) -> None:
            while asyncio.get_running_loop().time() < deadline:
                case.found = await self._http.read(f"/api/email/{case.message_id}")
                if case.found.get("status") == DELIVERED and len(_attempts(case)) == _count(case):
                    break
                await asyncio.sleep(0.25)
            step()

        await asyncio.gather(*(one(case) for case in self.cases))

    async def accepted(self) -> dict[str, list[str]]:
        """Message id → who took it, one name for each time, by the providers' own log."""
        found: dict[str, list[str]] = {}
        for entry in await self._simulator.acceptances(self._since):
            found.setdefault(entry["tags"].get(MESSAGE_TAG, ""), []).append(entry.get("provider", "ses"))
        return found

    def problems(self, accepted: dict[str, list[str]]) -> list[str]:
        """Everything that is not as it must be: each mail taken once, by who must, shown so, and explained."""
        found: list[str] = []
        for wave in (*self.failing, *self.returning):
            for case in wave.cases:
                took = accepted.get(case.message_id, [])
                if len(took) != 1:
                    found.append(f"{case.name}: the providers took {len(took)} mails, not 1")
                    continue
                if took[0] not in wave.through:
                    found.append(f"{case.name}: {took[0]} took it, not one of {', '.join(wave.through)}")
                found += [f"{case.name}: {problem}" for problem in _told(case, took[0])]
        if not self.returning or self.returning[-1].carriers(accepted)["ses"] != RETURNING:
            found.append("mail did not return to SES")
        return found

    async def _return(self) -> None:
        clock = asyncio.get_running_loop().time
        while clock() < self._ends + self._seconds:
            wave = Wave("SES takes mail again", EVERY, RETURNING, clock() - self._ends)
            self.returning.append(wave)
            accepted = await self._send(wave)
            if wave.carriers(accepted)["ses"] == wave.size:
                return
            await asyncio.sleep(BETWEEN_S)

    async def _send(self, wave: Wave) -> dict[str, list[str]]:
        """Send its mails and wait until each was taken; who took them."""
        number = len(self.failing) + len(self.returning)
        for n in range(wave.size):
            priority = "urgent" if n % 3 == 0 else "normal"
            name = f"wave {number}, mail {n + 1}"
            case = self._run.case(name, "http" if n % 2 else "kafka", "success", priority=priority)
            wave.cases.append(case)
        await asyncio.gather(
            *((self._http if case.door == "http" else self._kafka).send(case) for case in wave.cases)
        )  # fmt: skip
        deadline = asyncio.get_running_loop().time() + self._seconds
        while True:
            accepted = await self.accepted()
            if all(case.message_id in accepted for case in wave.cases):
                return accepted
            if asyncio.get_running_loop().time() > deadline:
                raise AssertionError(f"{wave.what}: not every mail was taken within {self._seconds:.0f} s")
            await asyncio.sleep(0.05)


def why(case: Case) -> str:
    """In a line, what led to the provider that took it: who said no, and who was passed over."""
    attempts = _attempts(case)
    if not attempts:
        return "it was never attempted"
    said = {
        attempt["provider"]: "not called any more" if attempt["no"] == "notCalled" else f"said no ({attempt['no']})"
        for attempt in attempts[:-1]
    }
    for each in attempts[-1].get("considered") or ():
        if each["provider"] not in (*said, attempts[-1]["provider"]) and each["why"] != SKIPPED:
            said[each["provider"]] = each["why"]
    return "; ".join(f"{provider}: {what}" for provider, what in said.items()) or "it is the first in order"


def _attempts(case: Case) -> list[dict[str, Any]]:
    """Its attempts as the API tells of them, each with the code of the no that it got, if it did (`no`)."""
    history = case.found.get("events", ())
    answers = {
        each["metadata"]["attemptId"]: each["metadata"].get("code")
        for each in history
        if each["type"] == "reject" and "attemptId" in each["metadata"]
    }
    return [
        {**each["metadata"], "no": answers.get(each["metadata"]["attemptId"])}
        for each in history
        if each["type"] == "attempt"
    ]


def _count(case: Case) -> int:
    recipients = case.found.get("recipients", ())
    return sum(recipient.get("attempts", 0) for recipient in recipients)


def _told(case: Case, took: str) -> list[str]:
    """What the read model says wrong about a mail that this provider took."""
    problems: list[str] = []
    if case.found.get("status") != DELIVERED:
        problems.append(f"status is {case.found.get('status', 'nothing')}, not {DELIVERED}")
    shown = [recipient.get("provider") for recipient in case.found.get("recipients", ())]
    if shown != [took]:
        problems.append(f"it is shown as carried by {shown}, and {took} took it")
    attempts = _attempts(case)
    if not attempts or attempts[-1]["provider"] != took:
        problems.append("its last attempt is another provider's than the one that took it")
    for attempt in attempts:
        chosen = [each["provider"] for each in attempt.get("considered") or () if each["why"].startswith("chosen")]
        if chosen != [attempt["provider"]]:
            problems.append(f"nothing says why {attempt['provider']} was asked")
    return problems
