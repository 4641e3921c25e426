"""What every process of the events service stands on, from its settings."""

from __future__ import annotations

from dataclasses import dataclass, replace

from services.events.composing import ReadingSide
from services.events.projections.projection import EMAIL_LOG
from services.events.settings import EventsSettings
from services.kit.clock import SystemClock
from services.kit.health import Health
from services.kit.metrics import Metrics
from services.kit.mongo import PATIENCE_SECONDS, Client, connect
from services.kit.parking_mongo import MongoParkingLot


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


def in_background(base: Foundation) -> Foundation:
    """The same over a client of its own with few connections: requests never wait behind bulks."""
    settings = base.settings
    client = connect(
        settings.mongo_url.get_secret_value(),
        name="mailroom-events-background",
        pool=settings.mongo_connections,
        queue=PATIENCE_SECONDS,
    )
    database = client[settings.database]
    parking = MongoParkingLot(database, settings.key_ring())
    side = replace(base.side, database=database, parking=parking)
    return replace(base, client=client, side=side, parking=parking)
