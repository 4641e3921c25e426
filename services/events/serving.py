"""How the HTTP side of the events service is put together, and what operators use of it at the terminal too."""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import FastAPI

from services.events.adapters.backfill_processes import BackfillProcesses
from services.events.adapters.mongo_email_queries import MongoEmailDocuments
from services.events.adapters.mongo_file_queries import MongoFileDocuments
from services.events.aggregates import Aggregates
from services.events.composing import ReadingSide
from services.events.email_queries import EmailQueries
from services.events.entrypoints.http import events_routers
from services.events.file_queries import FileQueries
from services.events.foundation import Foundation
from services.events.operating import ProjectionOperator
from services.events.ports import Generation
from services.events.projections.projection import EMAIL_LOG, FILE
from services.events.queries import WAIT_SECONDS
from services.events.retrying import ParkedHandler, Remembering
from services.events.setting_aside import At
from services.events.settings import EventsSettings
from services.kit.application import application as kit_application
from services.kit.clock import Clock
from services.kit.parking import ParkingLot
from services.kit.parking_retry import ParkedRetries

VERSION = "1.0.0"


def application(base: Foundation, *, serves_api: bool = True, wait_seconds: float = WAIT_SECONDS) -> FastAPI:
    """The HTTP application over the reading sides of all projections.

    Args:
        base: what it stands on.
        serves_api: without it, health and metrics only.
        wait_seconds: how long a mail or file that is not there yet is waited for.
    """
    settings, clock = base.settings, base.clock
    mails, files = base.sides[EMAIL_LOG.name], base.sides[FILE.name]
    routers = events_routers(
        emails=EmailQueries(
            MongoEmailDocuments(mails.database), clock, topic=mails.projection.topic, wait_seconds=wait_seconds
        ),
        files=FileQueries(
            MongoFileDocuments(files.database), clock, topic=files.projection.topic, wait_seconds=wait_seconds
        ),
        projections={name: operator(settings, side) for name, side in base.sides.items()},
        lot=base.parking,
        retries=parked_retries(base.sides.values(), base.parking, clock),
        clock=clock,
    )
    return kit_application(
        settings,
        clock,
        service="events",
        version=VERSION,
        health=base.health,
        metrics=base.metrics,
        routers=routers if serves_api else (),
    )


def operator(settings: EventsSettings, side: ReadingSide) -> ProjectionOperator:
    """The verbs of a projection. Rebuilds are only asked for: the projector processes do them."""
    grace = settings.grace_hours * 3600
    workers = BackfillProcesses(side.projection.name, settings.rebuild_workers)  # not started here
    create = side.rebuild(workers, projects=False, grace=grace).create
    return ProjectionOperator(side.projection, side.generations, side.leases, side.log, create, grace=grace)


def parked_retries(sides: Iterable[ReadingSide], lot: ParkingLot, clock: Clock) -> ParkedRetries:
    """Retries of what the projectors of these sides set aside in `lot`."""
    return ParkedRetries(lot, {side.consumer: _handler(side) for side in sides}, clock)


def _handler(side: ReadingSide) -> ParkedHandler:
    def engine(generation: Generation, at: At) -> tuple[Aggregates, Remembering]:
        number, fold = generation.number, side.fold(generation.version)
        aside = Remembering(at, side.aside(number, version=fold.version))
        return Aggregates(
            fold, side.models(number, version=fold.version), aside, side.metrics, generation=number
        ), aside

    return ParkedHandler(side.generations, engine)
