"""One process of several components: start in order, watch, drain on SIGTERM within 20 s, never die in silence.

Stages start in the order given and stop in the opposite one: what others lean on comes first. So with

    [Stage("outgoing", {"publisher": …}, 2), Stage("loops", {…}, 8), Stage("http", {"http": …}, 5)]

on SIGTERM the process says it is not ready, HTTP drains while consuming goes on (a request in progress may need a
loop), then the loops finish what they have in hand, then the producer hands over its last records.
"""

import asyncio
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import uvloop

from services.kit.component import Component
from services.kit.errors import PermanentError, SettingsError, Unavailable
from services.kit.health import Health
from services.kit.logs import get_logger
from services.kit.metrics import COMPONENT_LIVE, EVENT_LOOP_DELAY_SECONDS, Metrics

log = get_logger(__name__)

DRAIN_SECONDS = 20.0
"""From SIGTERM to the end of the process, whatever hangs."""

EXIT_FINE = 0
EXIT_DIED = 1
EXIT_SETTINGS = 78  # EX_CONFIG of sysexits.h
EXIT_NOT_DRAINED = 75  # EX_TEMPFAIL of sysexits.h

GC_THRESHOLDS = (5_000, 20, 25)
"""Of Python's collector: batches of mails make and drop thousands of objects, hardly any of them in cycles."""

_LOOK_EVERY = 0.25
_CUT_OFF = 3.0  # what a component may need beyond its limit to cut off what did not finish


@dataclass(frozen=True, slots=True)
class Stage:
    """Components that start together, and stop together within `limit` seconds."""

    name: str
    components: Mapping[str, Component]
    limit: float


class Process:
    """Runs stages until a signal comes or a component dies."""

    def __init__(
        self,
        stages: Sequence[Stage],
        *,
        health: Health,
        metrics: Metrics,
        exit_now: Callable[[int], None] = os._exit,
    ) -> None:
        """Registers every component with `health`. `exit_now` ends a process that cannot be drained; tests replace
        it.
        """
        if sum(stage.limit for stage in stages) > DRAIN_SECONDS - 2:
            raise ValueError(f"the stages' limits must leave 2 s of the {DRAIN_SECONDS:g} s to drain")
        self._stages = stages
        self._health = health
        self._metrics = metrics
        self._exit_now = exit_now
        self._told = asyncio.Event()
        self._signal = ""
        for stage in stages:
            for name, component in stage.components.items():
                health.watch(name, component.health)

    async def run(self) -> int:
        """The exit status: 0 after a signal and a full drain, 1 when a component died or did not start."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_log_unhandled)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.tell, number.name)
        begun: list[Stage] = []
        status = EXIT_FINE
        try:
            for stage in self._stages:
                begun.append(stage)
                await _start(stage)
            _spare_what_stays()
            log.info("started", components=[name for stage in begun for name in stage.components])
            status = await self._watch()
        except SettingsError:
            raise
        except Exception:
            log.exception("could not start")
            status = EXIT_DIED
        finally:
            drained = await self._drain(begun)
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
        log.info("stopped", status=status, drained=drained)
        return status if drained or status else EXIT_NOT_DRAINED

    def tell(self, why: str) -> None:
        """Ask the process to end. Asked twice, it ends at once, as a person at a terminal expects."""
        if self._told.is_set():
            log.warning("told to stop again: ending without draining", signal=why)
            self._exit_now(EXIT_NOT_DRAINED)
        self._signal = why
        self._told.set()

    async def _watch(self) -> int:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                await asyncio.wait_for(self._told.wait(), _LOOK_EVERY)
            except TimeoutError:
                self._metrics.observe(EVENT_LOOP_DELAY_SECONDS, max(0.0, loop.time() - began - _LOOK_EVERY))
            else:
                log.info("told to stop: draining", signal=self._signal)
                return EXIT_FINE
            dead = False
            for name, report in self._health.reports().items():
                self._metrics.set(COMPONENT_LIVE, report.live, component=name)
                if report.died is not None:
                    log.error("a component died: stopping the process", component=name, why=report.died)
                    dead = True
            if dead:
                return EXIT_DIED

    async def _drain(self, begun: Sequence[Stage]) -> bool:
        self._health.drain()
        watchdog = threading.Timer(DRAIN_SECONDS, self._give_up)  # a thread: the event loop itself may hang
        watchdog.daemon = True
        watchdog.start()
        try:
            drained = [await _stop(stage) for stage in reversed(begun)]
        finally:
            watchdog.cancel()
        return all(drained)

    def _give_up(self) -> None:
        log.error("not drained in time: ending anyway; what was not acknowledged will be done again")
        self._exit_now(EXIT_NOT_DRAINED)


async def _start(stage: Stage) -> None:
    for name, component in stage.components.items():
        log.debug("starting", stage=stage.name, component=name)
        await component.start()


async def _stop(stage: Stage) -> bool:
    stops = {
        asyncio.create_task(component.stop(stage.limit), name=f"stop {name}"): name
        for name, component in stage.components.items()
    }
    if not stops:
        return True
    done, late = await asyncio.wait(stops, timeout=stage.limit + _CUT_OFF)
    for task in late:
        log.error("did not stop in time", stage=stage.name, component=stops[task], seconds=stage.limit)
        task.cancel()
    failed = [task for task in done if not task.cancelled() and task.exception() is not None]
    for task in failed:
        log.error("failed to stop", component=stops[task], exc_info=task.exception())
    return not late and not failed


def _spare_what_stays() -> None:
    """Modules, models and clients stay to the end: no collection need walk through them, which takes up to 0.1 s each
    time and, of a sender's CPU, a twentieth.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def _log_unhandled(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    log.error("unhandled error in a task", message=context.get("message"), exc_info=context.get("exception"))


def main(application: Callable[[], Coroutine[Any, Any, int]]) -> NoReturn:
    """Run `application` to its end and exit with its status. Problems with settings are listed on standard error, and
    what was away at the start, or forbids it, is told there in one line.

    It runs on uvloop.
    """
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            status = runner.run(application())
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        status = EXIT_SETTINGS
    except (Unavailable, PermanentError) as error:
        sys.stderr.write(f"cannot start: {error}\n")
        status = EXIT_DIED
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)
