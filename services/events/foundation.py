"""What every process of the events service stands on, from its settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from services.events.composing import ReadingSide
from services.events.projections.projection import EMAIL_LOG, FILE
from services.events.settings import EventsSettings
from services.kit.clock import SystemClock
from services.kit.errors import PermanentError
from services.kit.health import Health
from services.kit.metrics import Metrics
from services.kit.mongo import CONNECTIONS, PATIENCE_SECONDS, Client, connect
from services.kit.parking_mongo import MongoParkingLot
from services.kit.releases_mongo import MongoReleases

PATIENT_SECONDS: Final = 6 * 3600.0
"""How long MongoDB may take over the indexes of a new generation, or the sums of one bucket. A server that is gone is
noticed long before, by TCP.
"""
PATIENT_CONNECTIONS: Final = 4


@dataclass(frozen=True)
class Foundation:
    """What every part of the process stands on. `sides` has the reading side of each projection, by its name.

    Attributes:
        client: of MongoDB.
        patient: likewise, for what takes longer than a request may: index builds and the sums of whole buckets.
    """

    settings: EventsSettings
    client: Client
    patient: Client
    sides: Mapping[str, ReadingSide]
    parking: MongoParkingLot
    releases: MongoReleases
    metrics: Metrics
    health: Health
    clock: SystemClock


def foundation(settings: EventsSettings, *, serves: bool = False) -> Foundation:
    """Clients and the reading sides; connects to nothing yet. A process that `serves` requests opens all connections
    in advance, others open what they need.
    """
    clock, metrics = SystemClock(), Metrics()
    client = connect(
        settings.mongo_url.get_secret_value(),
        name="mailroom-events",
        opened=CONNECTIONS if serves else 0,
        metrics=metrics,
    )
    patient = connect(
        settings.mongo_url.get_secret_value(),
        name="mailroom-events-patient",
        operation=PATIENT_SECONDS,
        pool=PATIENT_CONNECTIONS,
        queue=PATIENCE_SECONDS,
        metrics=metrics,
    )
    database = client[settings.database]
    parking, releases = MongoParkingLot(database, settings.key_ring()), MongoReleases(database)
    projections = (
        replace(EMAIL_LOG, topic=settings.email_events_topic),
        replace(FILE, topic=settings.files_events_topic),
    )
    sides = {
        projection.name: ReadingSide(
            projection=projection,
            bootstrap=settings.kafka,
            database=database,
            patient=patient[settings.database],
            parking=parking,
            releases=releases,
            metrics=metrics,
            parked_per_minute=settings.parked_per_minute,
            clock=clock,
        )
        for projection in projections
    }
    return Foundation(settings, client, patient, sides, parking, releases, metrics, Health(clock), clock)


def in_background(base: Foundation) -> Foundation:
    """The same over a client of its own with few connections: requests never wait behind bulks."""
    settings = base.settings
    client = connect(
        settings.mongo_url.get_secret_value(),
        name="mailroom-events-background",
        pool=settings.mongo_connections,
        queue=PATIENCE_SECONDS,
        opened=settings.mongo_connections,
        metrics=base.metrics,
    )
    database = client[settings.database]
    parking, releases = MongoParkingLot(database, settings.key_ring()), MongoReleases(database)
    sides = {
        name: replace(side, database=database, parking=parking, releases=releases) for name, side in base.sides.items()
    }
    return replace(base, client=client, sides=sides, parking=parking, releases=releases)


def side_of(base: Foundation, projection: str) -> ReadingSide:
    """The reading side of a projection, by its name. Raises PermanentError `noProjection`."""
    side = base.sides.get(projection)
    if side is None:
        raise PermanentError("noProjection", f"there is no projection {projection}; there are {', '.join(base.sides)}")
    return side
