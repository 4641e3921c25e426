"""A gate in front of a MongoDB client's connections: so many operations at a time, and a bounded queue before it.

PyMongo's own queue for connections does not stand a crowd, for two reasons (4.20, `pymongo/asynchronous/pool.py`):

- Whoever waits there takes part in one asyncio lock, which passes from hand to hand once a turn of the event loop. With
  170 callers for 50 connections an operation cost ten turns of the loop, all of it CPU. Behind this gate nobody ever
  waits for that lock.
- `waitQueueTimeoutMS` waits for a condition with `asyncio.wait_for`, which cancels a waiter that has to take the lock
  again before it can end. If the caller's own time limit ends in that moment, the lock stays locked for ever, and every
  later operation of the process hangs: it cannot even be cancelled. So that option is never set (`kit.mongo.connect`).

The gate stands where PyMongo checks a connection out, so it covers commands, every batch of a bulk and every `getMore`,
each for as long as it has its connection and no longer. No operation holds one place while it waits for another.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any

from pymongo.asynchronous.pool import AsyncConnection, Pool, _PoolCheckout
from pymongo.errors import PyMongoError

from services.kit.metrics import MONGO_IN_FLIGHT, MONGO_REFUSED, MONGO_WAITING, Metrics

MOST_WAITING = 500
"""Operations that wait for a connection of one client, at most."""

RETRY_SECONDS = 1
"""After that long an operation that the gate refused may be tried again: places come free every few milliseconds."""


class GateRefused(PyMongoError):
    """The operation was not begun: too many wait already, or it has waited for long enough.

    Not a ConnectionFailure, which PyMongo would try once more and take for a sign that the server is away. After an
    attempt that lost its connection it may be the second attempt that is refused, so a write may stand all the same.
    """


class Gate:
    """Lets `places` operations in at a time; the others wait in the order in which they came.

    A waiter that is cancelled, by its caller's time limit for instance, leaves the queue at once.
    """

    def __init__(
        self,
        places: int,
        *,
        patience: float,
        most_waiting: int = MOST_WAITING,
        client: str = "",
        metrics: Metrics | None = None,
    ) -> None:
        """
        Args:
            places: operations at a time; no more than the client may have connections.
            patience: seconds that an operation waits, then it is refused.
            most_waiting: one that finds so many waiting is refused at once.
            client: names the gate in the metrics.
        """
        self._places = asyncio.Semaphore(places)
        self._patience = patience
        self._most_waiting = most_waiting
        self._client = client
        self._metrics = metrics
        self.in_flight = 0
        """Operations that have a place now."""
        self.waiting = 0
        """Operations that wait for one."""
        if metrics is not None:
            metrics.follow(MONGO_IN_FLIGHT, lambda: self.in_flight, client=client)
            metrics.follow(MONGO_WAITING, lambda: self.waiting, client=client)

    async def enter(self) -> None:
        """Take a place, which `leave` gives back. Raises GateRefused."""
        if self._places.locked():
            await self._wait()
        else:
            await self._places.acquire()
        self.in_flight += 1

    def leave(self) -> None:
        """Give the place to whoever has waited for longest."""
        self.in_flight -= 1
        self._places.release()

    async def _wait(self) -> None:
        if self.waiting >= self._most_waiting:
            raise self._refused("full", f"{self.waiting} operations wait for a connection already")
        self.waiting += 1
        try:
            async with asyncio.timeout(self._patience):
                await self._places.acquire()
        except TimeoutError:
            raise self._refused("late", f"no connection was free within {self._patience:g} s") from None
        finally:
            self.waiting -= 1

    def _refused(self, reason: str, message: str) -> GateRefused:
        if self._metrics is not None:
            self._metrics.inc(MONGO_REFUSED, client=self._client, reason=reason)
        return GateRefused(message)


def pools_behind(gate: Gate) -> Callable[..., Pool]:
    """What an AsyncMongoClient makes its pools with (`_pool_class`): one pool for each server, all behind `gate`.

    Pools of monitors, which look whether the servers are there, stay outside.
    """

    def pool(address: Any, options: Any, is_sdam: bool = False, client_id: Any = None) -> Pool:
        made = (Pool if is_sdam else _GatedPool)(address, options, is_sdam, client_id)
        if isinstance(made, _GatedPool):
            made.gate = gate
        return made

    return pool


class _GatedPool(Pool):
    gate: Gate

    def checkout(self, handler: Any = None) -> _PoolCheckout:
        return _GatedCheckout(self, handler, self.gate)


class _GatedCheckout(_PoolCheckout):
    __slots__ = ("_gate",)

    def __init__(self, pool: Pool, handler: Any, gate: Gate) -> None:
        super().__init__(pool, handler)
        self._gate = gate

    async def __aenter__(self) -> AsyncConnection:
        await self._gate.enter()
        try:
            return await super().__aenter__()
        except BaseException:
            self._gate.leave()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await super().__aexit__(kind, error, trace)
        finally:
            self._gate.leave()
