"""The composition root of the events service: settings in, a process out."""

from __future__ import annotations

import asyncio
import gc
from functools import partial
from typing import Literal

from services.events.adapters.backfill_processes import BackfillProcesses
from services.events.composing import ReadingSide
from services.events.entrypoints.projector import Parts, ProjectorService
from services.events.entrypoints.replayer import RebuildsFound
from services.events.foundation import Foundation, foundation, in_background
from services.events.serving import VERSION, application
from services.events.settings import EventsSettings
from services.events.watching import LagGauge
from services.kit.component import Closing, Component, LoopComponent
from services.kit.gauges import keep_looking, parked_open
from services.kit.health import Progress
from services.kit.lifecycle import Process, Stage
from services.kit.logs import configure
from services.kit.mongo import ping
from services.kit.server import HttpServer

__all__ = ["Foundation", "Part", "foundation", "projector_service", "run"]

Part = Literal["all", "http", "projector"]


def projector_service(base: Foundation, side: ReadingSide) -> ProjectorService:
    """What projects, sums up, and works on rebuilds of one projection."""
    settings = base.settings
    workers = BackfillProcesses(side.projection.name, settings.rebuild_workers)
    grace = settings.grace_hours * 3600
    rebuilds = RebuildsFound(
        side.generations,
        partial(side.rebuild, workers, projects=False, grace=grace),
        base.clock,
        has_fold=lambda version: side.projection.of(version) is not None,
    )
    parts = Parts(
        projection=side.projection,
        store=side.generations,
        log=side.log,
        leases=side.leases,
        statistics=side.statistics,
        projector=side.projector,
        rebuilds=rebuilds.turn,
        close_releases=side.close_releases,
        grace=grace,
    )
    return ProjectorService(parts, base.clock)


def gauges(base: Foundation) -> LoopComponent:
    """What is looked up for `/metrics`: lag and parked records."""
    progress = Progress(base.clock)
    lags = [
        LagGauge(side.projection, side.generations, side.leases, side.log(), base.metrics)
        for side in base.sides.values()
    ]

    async def look(stopping: asyncio.Event) -> None:
        try:
            looks = (*(lag.look for lag in lags), parked_open(base.parking, base.metrics))
            await keep_looking(looks, base.clock, progress, stopping)
        finally:
            await asyncio.gather(*(lag.close() for lag in lags))

    return LoopComponent("gauges", look, progress)


async def run(part: Part, settings: EventsSettings) -> int:
    """Run a part of the service until told to stop; the exit status."""
    configure(settings.log_level, settings.log_format, service="events", secrets=settings.secret_values())
    serves_api = part in ("all", "http")
    base = foundation(settings, serves=serves_api)
    background = in_background(base)
    base.metrics.describe_build("events", VERSION)
    await base.parking.ensure_indexes()
    await base.releases.ensure_indexes()
    loops: dict[str, Component] = {}
    if part in ("all", "projector"):
        for name, side in background.sides.items():
            await side.check_fold()
            loops[f"projector {name}"] = projector_service(background, side)
        loops["gauges"] = gauges(background)
    server = HttpServer(
        application(base, serves_api=serves_api),
        host=settings.http_host,
        port=settings.http_port,
        port_variable="MAILROOM_EVENTS_PORT",
        trusted_proxies=settings.trusted_proxies,
    )
    base.health.depends_on("MongoDB", partial(ping, base.client))
    stages = [
        Stage(
            "clients",
            {
                "mongo": Closing(base.client.close),
                "mongo-background": Closing(background.client.close),
                "mongo-patient": Closing(base.patient.close),
            },
            2,
        ),
        Stage("loops", loops, 8),
        Stage("http", {"http": server}, 4.5),
    ]
    gc.collect()
    gc.freeze()
    return await Process(stages, health=base.health, metrics=base.metrics).run()
