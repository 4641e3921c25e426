"""The composition root of the events service: settings in, a process out."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from services.events.adapters.backfill_processes import BackfillProcesses
from services.events.composing import ReadingSide
from services.events.entrypoints.projector import Parts, ProjectorService
from services.events.entrypoints.replayer import BACKFILL, RebuildsFound, backfill, until_input_ends
from services.events.projections.projection import EMAIL_LOG
from services.events.serving import application
from services.events.settings import EventsSettings
from services.kit.clock import SystemClock
from services.kit.component import Closing, Component
from services.kit.health import Health
from services.kit.lifecycle import Process, Stage
from services.kit.logs import configure
from services.kit.metrics import Metrics
from services.kit.mongo import Client, connect, ping
from services.kit.parking_mongo import MongoParkingLot
from services.kit.server import HttpServer

SWEEP_SECONDS = 60.0
Part = Literal["all", "http", "projector"]


@dataclass(frozen=True)
class Foundation:
    """What every part of the process stands on."""

    settings: EventsSettings
    client: Client
    side: ReadingSide
    parking: MongoParkingLot
    metrics: Metrics
    health: Health
    clock: SystemClock


def foundation(settings: EventsSettings) -> Foundation:
    """Clients and the reading side; connects to nothing yet."""
    clock, metrics = SystemClock(), Metrics()
    client = connect(settings.mongo_url.get_secret_value(), name="mailroom-events")
    database = client[settings.database]
    parking = MongoParkingLot(database, settings.key_ring())
    side = ReadingSide(
        projection=replace(EMAIL_LOG, topic=settings.email_events_topic),
        bootstrap=settings.kafka_bootstrap,
        database=database,
        parking=parking,
        metrics=metrics,
        parked_per_minute=settings.parked_per_minute,
        clock=clock,
    )
    return Foundation(settings, client, side, parking, metrics, Health(clock), clock)


def projector_service(base: Foundation) -> ProjectorService:
    """What projects, sums up, and works on rebuilds."""
    side, settings = base.side, base.settings
    workers = BackfillProcesses(settings.rebuild_workers)
    grace = settings.grace_hours * 3600
    rebuilds = RebuildsFound(side.generations, partial(side.rebuild, workers, projects=False, grace=grace))
    parts = Parts(
        projection=side.projection,
        store=side.generations,
        log=side.log,
        leases=side.leases,
        statistics=side.statistics,
        projector=side.projector,
        rebuilds=rebuilds.turn,
    )
    return ProjectorService(parts, base.clock)


async def run(part: Part, settings: EventsSettings) -> int:
    """Run a part of the service until told to stop; the exit status."""
    configure(settings.log_level, settings.log_format, service="events", secrets=settings.secret_values())
    base = foundation(settings)
    await base.parking.ensure_indexes()
    loops: dict[str, Component] = {}
    if part in ("all", "projector"):
        loops["projector"] = projector_service(base)
    server = HttpServer(
        application(settings, base.side, base.health, serves_api=part in ("all", "http")),
        host=settings.http_host,
        port=settings.http_port,
        port_variable="MAILROOM_EVENTS_PORT",
    )
    base.health.depends_on("MongoDB", partial(ping, base.client))
    stages = [
        Stage("clients", {"mongo": Closing(base.client.close)}, 2),
        Stage("loops", loops, 8),
        Stage("http", {"http": server}, 4.5),
    ]
    gc.collect()
    gc.freeze()
    return await Process(stages, health=base.health, metrics=base.metrics).run()


async def run_backfill(generation: int, settings: EventsSettings) -> int:
    """Be a worker of a rebuild until standard input ends."""
    configure(settings.log_level, settings.log_format, service="events-backfill", secrets=settings.secret_values())
    base = foundation(settings)
    side, stopping = base.side, asyncio.Event()
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
            lambda begins: side.projector(generation, pace=BACKFILL, begins=lambda: begins),
            stopping,
        )
    finally:
        watching.cancel()
        sweeping.cancel()
        base.client.close()
    return 0


async def _sweep() -> None:
    """Collect garbage now and then: a worker makes next to none, and looking for it all the time costs a third."""
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        gc.collect()
