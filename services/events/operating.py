"""A projection as operators handle it, over HTTP and at the terminal: how it stands, rebuild, pause, resume, rollback.

Each verb only writes down what shall be: whoever works on rebuilds and projections finds it there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from services.events.generations import GRACE_SECONDS, rollback
from services.events.ports import Generation, GenerationStore, LeaseStore, Log
from services.events.projections.projection import Projection
from services.events.rebuild import is_unfinished
from services.events.watching import ProjectionState, projection_state
from services.kit.errors import PermanentError


class ProjectionOperator:
    """The verbs of one projection. Each raises Unavailable when Kafka or MongoDB is away."""

    def __init__(
        self,
        projection: Projection,
        store: GenerationStore,
        leases: Callable[[int], LeaseStore],
        log: Callable[[], Log],
        create: Callable[[], Awaitable[Generation]],
        *,
        grace: float = GRACE_SECONDS,
    ) -> None:
        """`log` makes one that is not connected yet; `create` is `Rebuild.create`; `grace` in seconds."""
        self._projection = projection
        self._store = store
        self._leases = leases
        self._log = log
        self._create = create
        self._grace = grace

    async def state(self) -> ProjectionState:
        """How it stands now."""
        log = self._log()
        await log.start()
        try:
            return await projection_state(self._projection, self._store, self._leases, log)
        finally:
            await log.stop()

    async def start(self) -> Generation:
        """Make a new generation to be filled. Raises PermanentError `rebuildInProgress` and `lostHead`."""
        return await self._create()

    async def building(self) -> Generation:
        """The rebuild in progress. Raises PermanentError `noRebuild`."""
        active = (await self._store.pointer()).active
        for generation in reversed(await self._store.list()):
            if is_unfinished(generation, active):
                return generation
        raise PermanentError("noRebuild", f"no rebuild of {self._projection.name} is in progress")

    async def pause(self) -> Generation:
        """Let the rebuild in progress rest where it is.

        Raises PermanentError `noRebuild`; `filledAlready`: what is filled is kept up to date and cannot rest.
        """
        return await self._set_paused(paused=True)

    async def resume(self) -> Generation:
        """Let it go on. Raises PermanentError `noRebuild`."""
        return await self._set_paused(paused=False)

    async def rollback(self) -> Generation:
        """Read the generation before the active one again.

        Raises PermanentError `nothingToRollBack`, `pointerMoved`, and `foldMissing` where this build could not keep it
        up to date.
        """
        previous = (await self._store.pointer()).previous
        found = None if previous is None else await self._store.get(previous)
        if found is not None:
            self._projection.with_fold(found.version)
        return await self._again(await rollback(self._store, grace=self._grace))

    async def _set_paused(self, *, paused: bool) -> Generation:
        number = (await self.building()).number
        if not await self._store.pause(number, paused=paused):
            raise PermanentError(
                "filledAlready",
                f"generation {number} is filled already and only catches up: let it end, or abandon it",
            )
        return await self._again(number)

    async def _again(self, number: int) -> Generation:
        found = await self._store.get(number)
        if found is None:
            raise PermanentError("noGeneration", f"generation {number} was removed meanwhile")
        return found
