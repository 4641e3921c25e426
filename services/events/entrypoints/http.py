"""The HTTP API of the events service, for `kit.http.create_app`."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter

from services.events.email_queries import EmailQueries
from services.events.entrypoints.http_email import email_router
from services.events.entrypoints.http_files import files_router
from services.events.entrypoints.http_parked import Retries, parked_router
from services.events.entrypoints.http_projections import ProjectionOperations, projections_router
from services.events.file_queries import FileQueries
from services.kit.clock import Clock
from services.kit.parking import ParkingLot


def events_routers(
    emails: EmailQueries,
    files: FileQueries,
    projections: Mapping[str, ProjectionOperations],
    lot: ParkingLot,
    retries: Retries,
    clock: Clock,
) -> list[APIRouter]:
    """All routes. `projections` is by name; `retries` hands parked records to the projectors' own handlers."""
    return [
        email_router(emails),
        files_router(files),
        projections_router(projections),
        parked_router(lot, retries, clock),
    ]
