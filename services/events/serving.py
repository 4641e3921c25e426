"""How the HTTP side of the events service is put together, and what operators use of it at the terminal too."""

from __future__ import annotations

from fastapi import FastAPI

from services.events.adapters.backfill_processes import BackfillProcesses
from services.events.adapters.mongo_email_queries import MongoEmailDocuments
from services.events.aggregates import Aggregates
from services.events.composing import ReadingSide
from services.events.entrypoints.http import events_routers
from services.events.operating import ProjectionOperator
from services.events.queries import WAIT_SECONDS, EmailQueries
from services.events.retrying import ParkedHandler, Remembering
from services.events.settings import EventsSettings
from services.kit.auth_settings import authenticator
from services.kit.health import Health
from services.kit.http import create_app
from services.kit.parking_retry import ParkedRetries
from services.kit.tracing import Tracing

VERSION = "1.0.0"


def application(
    settings: EventsSettings,
    side: ReadingSide,
    health: Health,
    *,
    serves_api: bool = True,
    wait_seconds: float = WAIT_SECONDS,
) -> FastAPI:
    """The HTTP application over one reading side.

    Args:
        serves_api: without it, health and metrics only.
        wait_seconds: how long a mail that is not there yet is waited for.
    """
    routers = events_routers(
        queries=EmailQueries(MongoEmailDocuments(side.database), side.clock, wait_seconds=wait_seconds),
        projections={side.projection.name: operator(settings, side)},
        lot=side.parking,
        retries=parked_retries(side),
        clock=side.clock,
    )
    return create_app(
        title="Mailroom: events",
        service="events",
        version=VERSION,
        authenticator=authenticator(settings, side.clock),
        health=health,
        metrics=side.metrics,
        routers=routers if serves_api else (),
        tracing=Tracing.configured(settings.traces, "events", settings.otlp_endpoint),
        ids=side.ids,
        cors_origins=settings.cors_origins,
    )


def operator(settings: EventsSettings, side: ReadingSide) -> ProjectionOperator:
    """The verbs of the projection. Rebuilds are only asked for: the projector processes do them."""
    grace = settings.grace_hours * 3600
    workers = BackfillProcesses(settings.rebuild_workers)  # not started here
    create = side.rebuild(workers, projects=False, grace=grace).create
    return ProjectionOperator(side.projection, side.generations, side.leases, side.log, create, grace=grace)


def parked_retries(side: ReadingSide) -> ParkedRetries:
    """Retries of what the projector set aside."""

    def engine(generation: int, aside: Remembering) -> Aggregates:
        return Aggregates(side.projection, side.models(generation), aside, side.metrics, generation=generation)

    return ParkedRetries(side.parking, {side.consumer: ParkedHandler(side.generations, engine)}, side.clock)
