"""The HTTP API of the events service, for `kit.http.create_app`."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter

from services.events.entrypoints.http_email import email_router
from services.events.entrypoints.http_parked import Retries, parked_router
from services.events.entrypoints.http_projections import ProjectionOperations, projections_router
from services.events.queries import EmailQueries
from services.kit.clock import Clock
from services.kit.parking import ParkingLot


def events_routers(
    queries: EmailQueries,
    projections: Mapping[str, ProjectionOperations],
    lot: ParkingLot,
    retries: Retries,
    clock: Clock,
) -> list[APIRouter]:
    """All routes. `projections` is by name; `retries` hands parked records to the projectors' own handlers."""
    return [email_router(queries), projections_router(projections), parked_router(lot, retries, clock)]
