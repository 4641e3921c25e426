"""Health that means it: alive is who makes progress, ready is who can do its work now. A ping proves neither.

Restarting mends a loop that is stuck and nothing else. So a dependency that is away makes a process unready
and never dead, and a loop that turns without getting anywhere is dead although its connection answers.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from services.kit.clock import Clock
from services.kit.errors import MailroomError

Check = Callable[[], Awaitable[None]]
"""Returns when a dependency can be used, raises when it cannot."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a component says of itself."""

    live: bool
    """False: it is stuck, only a restart helps."""
    ready: bool = True
    """False: it cannot do its work for now (catching up, waiting for a dependency)."""
    detail: Mapping[str, object] = field(default_factory=dict)
    """For people, JSON-ready; nothing personal."""
    died: str | None = None
    """Why it ended although nobody asked it to; the process then stops."""


class Progress:
    """How a loop keeps its report: it calls one of the three each turn.

    `progressed`: did some work. `idle`: there was none. `waiting`: there is work, and a dependency is away.
    It is live while the last such call is younger than `stuck_after` seconds.
    """

    def __init__(self, clock: Clock, *, stuck_after: float = 60.0) -> None:
        self._clock = clock
        self._stuck_after = stuck_after
        self._last = clock.monotonic()
        self._ready = False
        self._state = "starting"

    def progressed(self) -> None:
        """Some work is done."""
        self._turn("working", ready=True)

    def idle(self) -> None:
        """Caught up."""
        self._turn("idle", ready=True)

    def waiting(self, reason: str) -> None:
        """Not getting on through no fault of this loop; `reason` is for people."""
        self._turn(f"waiting: {reason}", ready=False)

    def report(self, detail: Mapping[str, object] | None = None, *, died: str | None = None) -> Report:
        """The report now, with more `detail` if given."""
        silent = self._clock.monotonic() - self._last
        return Report(
            live=died is None and silent <= self._stuck_after,
            ready=died is None and self._ready and silent <= self._stuck_after,
            detail={"state": self._state, "secondsSinceProgress": round(silent, 1), **(detail or {})},
            died=died,
        )

    def _turn(self, state: str, *, ready: bool) -> None:
        self._last = self._clock.monotonic()
        self._state = state
        self._ready = ready


class Health:
    """All that `/healthz` and `/readyz` of one process tell. Both give (fine?, details); not fine is a 503."""

    def __init__(self, clock: Clock, *, check_limit: float = 2.0, keep: float = 1.0) -> None:
        """`check_limit`: seconds a dependency may take; `keep`: seconds a result stands, so that probes cost
        little.
        """
        self._clock = clock
        self._check_limit = check_limit
        self._keep = keep
        self._components: dict[str, Callable[[], Report]] = {}
        self._checks: dict[str, Check] = {}
        self._results: dict[str, str | None] = {}
        self._checked_at: float | None = None
        self._checking = asyncio.Lock()
        self._draining = False

    def watch(self, name: str, report: Callable[[], Report]) -> None:
        """Ask `report` whenever somebody asks us."""
        if name in self._components:
            raise ValueError(f"two components are called {name}")
        self._components[name] = report

    def depends_on(self, name: str, check: Check) -> None:
        """Without this dependency the process is not ready."""
        self._checks[name] = check

    def drain(self) -> None:
        """From now on not ready: a balancer shall send nothing more here."""
        self._draining = True

    def reports(self) -> dict[str, Report]:
        """Every component's report now. One that cannot even report is dead."""
        return {name: _ask(report) for name, report in self._components.items()}

    def liveness(self) -> tuple[bool, dict[str, object]]:
        """Whether every component is live."""
        reports = self.reports()
        fine = all(report.live for report in reports.values())
        return fine, {"live": fine, "components": _told(reports)}

    async def readiness(self) -> tuple[bool, dict[str, object]]:
        """Whether every component is live and ready and every dependency can be reached."""
        reports, away = self.reports(), await self._dependencies()
        fine = (
            not self._draining
            and all(report.live and report.ready for report in reports.values())
            and all(problem is None for problem in away.values())
        )
        told = {name: problem or "reachable" for name, problem in away.items()}
        return fine, {
            "ready": fine,
            "draining": self._draining,
            "dependencies": told,
            "components": _told(reports),
        }

    async def _dependencies(self) -> dict[str, str | None]:
        async with self._checking:
            now = self._clock.monotonic()
            if self._checked_at is None or now - self._checked_at >= self._keep:
                names = list(self._checks)
                problems = await asyncio.gather(*(self._problem(self._checks[name]) for name in names))
                self._results = dict(zip(names, problems, strict=True))
                self._checked_at = now
            return self._results

    async def _problem(self, check: Check) -> str | None:
        try:
            async with asyncio.timeout(self._check_limit):
                await check()
        except TimeoutError:
            return f"no answer within {self._check_limit:g} s"
        except MailroomError as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the dependency cannot be used
            return type(error).__name__
        return None


def _ask(report: Callable[[], Report]) -> Report:
    try:
        return report()
    except Exception as error:  # noqa: BLE001 - a probe must answer
        return Report(live=False, ready=False, detail={"state": f"cannot report: {type(error).__name__}"})


def _told(reports: Mapping[str, Report]) -> dict[str, object]:
    return {
        name: {"live": report.live, "ready": report.ready, **report.detail}
        | ({"died": report.died} if report.died else {})
        for name, report in reports.items()
    }
