"""A worker process of a rebuild. Apart from `app`, whose HTTP side takes a second to import."""

from __future__ import annotations

import asyncio
import gc
from typing import Final

from services.events.entrypoints.replayer import BACKFILL, backfill, until_input_ends
from services.events.foundation import foundation, side_of
from services.events.settings import EventsSettings
from services.kit.logs import configure

SWEEP_SECONDS: Final = 60.0


async def run_backfill(projection: str, generation: int, processes: int, settings: EventsSettings) -> int:
    """Be one of `processes` workers that fill a generation of a projection, until standard input ends; the exit status.

    Raises PermanentError `noProjection` for a name that nothing has, and `foldMissing` for a generation of a fold that
    this build has not.
    """
    configure(settings.log_level, settings.log_format, service="events-backfill", secrets=settings.secret_values())
    base = foundation(settings)
    side, stopping = side_of(base, projection), asyncio.Event()
    found = await side.generations.get(generation)
    version = None if found is None else found.version
    watching = asyncio.create_task(until_input_ends())
    watching.add_done_callback(lambda _: stopping.set())
    gc.collect()
    gc.freeze()
    gc.disable()
    sweeping = asyncio.create_task(_sweep())
    try:
        await backfill(
            generation,
            side.generations,
            side.leases(generation),
            lambda begins: side.projector(
                generation, version=version, pace=BACKFILL, begins=lambda: begins, processes=processes
            ),
            stopping,
        )
    finally:
        watching.cancel()
        sweeping.cancel()
        await base.client.close()
        await base.patient.close()
    return 0


async def _sweep() -> None:
    """Collect garbage now and then: a worker makes next to none, and looking for it all the time costs a third."""
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        gc.collect()
