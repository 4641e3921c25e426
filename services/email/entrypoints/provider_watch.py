"""Providers' circuits, shared: what one process finds out, all know within a second, and one of them tries again.

A circuit that opens here is told to the board. One that others found open is shut here for the same time. When the time
is over, whoever takes the probe lets one mail through; what comes of it is told again. Operators' orders come the same
way.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Literal

from services.email.domain.circuit import Circuit
from services.email.entrypoints.sender_providers import Providers
from services.email.ports import ProviderBoard, Shut
from services.kit import metrics as m
from services.kit.clock import Clock
from services.kit.errors import TransientError
from services.kit.event_store.waiting import first_of
from services.kit.health import Progress
from services.kit.logs import get_logger
from services.kit.metrics import Metrics

log = get_logger(__name__)

EVERY_SECONDS = 0.5
PROBE_SECONDS = 15.0
"""For so long nobody else tries: a call and its answer take less."""

MAIL_SECONDS = 3.0
"""For so long a process that may try waits for a mail to try it with; then it leaves that to others for as long."""

_Mode = Literal["closed", "shut", "probing"]


class ProviderWatch:
    """Run as a `LoopComponent`, beside the sender whose `providers` it keeps."""

    def __init__(
        self, board: ProviderBoard, providers: Providers, clock: Clock, owner: str, metrics: Metrics, progress: Progress
    ) -> None:
        self._board, self._providers, self._clock, self._owner = board, providers, clock, owner
        self._metrics, self._progress = metrics, progress
        self._modes: dict[str, _Mode] = dict.fromkeys(providers.circuits, "closed")
        self._probing_since: dict[str, float] = {}
        self._resting_until: dict[str, float] = {}
        for circuit in providers.circuits.values():
            circuit.shared = True

    async def run(self, stopping: asyncio.Event) -> None:
        """Until told to stop."""
        while not stopping.is_set():
            try:
                await self.look()
            except TransientError as error:
                self._progress.waiting(str(error))
            else:
                self._progress.idle()
            await first_of(self._clock, EVERY_SECONDS, stopping)

    async def look(self) -> None:
        """Once. Raises TransientError; what was not told then is told by the next look."""
        board = await self._board.read()
        providers = self._providers
        providers.wishes = replace(providers.wishes, pins={what: pin.provider for what, pin in board.pins.items()})
        providers.switched_off = {
            name: f"it was switched off by {order.actor}: {order.why}" for name, order in board.off.items()
        }
        for name, circuit in providers.circuits.items():
            await self._follow(name, circuit, board.shut.get(name))
            self._metrics.set(m.CIRCUIT_OPEN, circuit.is_open, provider=name)

    async def _follow(self, name: str, circuit: Circuit, shut: Shut | None) -> None:
        now, mode = self._clock.monotonic(), self._modes[name]
        if mode == "probing" and circuit.trying_one:
            if now - self._probing_since[name] < (PROBE_SECONDS if circuit.is_tried else MAIL_SECONDS):
                return  # its answer is waited for, or a mail to try it with
            circuit.shut(0.0, circuit.reason, now)
            mode = self._modes[name] = "shut"
            self._resting_until[name] = now + MAIL_SECONDS
            await self._board.leave_probe(name, self._owner)
        if circuit.open_until is not None and mode != "shut":
            await self._board.shut(name, max(0.0, circuit.open_until - now), circuit.reason)
            self._modes[name] = "shut"
        elif circuit.open_until is None and mode != "closed":
            await self._board.reopen(name)
            self._modes[name] = "closed"
        elif shut is None:
            circuit.resume()
            self._modes[name] = "closed"
        elif shut.seconds > 0:
            circuit.shut(shut.seconds, shut.reason, now)
            self._modes[name] = "shut"
        elif now >= self._resting_until.get(name, now) and await self._board.take_probe(
            name, self._owner, PROBE_SECONDS
        ):
            circuit.probe()
            self._modes[name], self._probing_since[name] = "probing", now
            log.info("a provider is tried again", provider=name, reason=shut.reason)
        else:
            circuit.shut(0.0, shut.reason, now)
            self._modes[name] = "shut"
