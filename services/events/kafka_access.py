"""What the events service reads from Kafka; it publishes nothing."""

from __future__ import annotations

from services.events.projections.projection import PROJECTIONS, Projection
from services.kit.kafka.access import Access, Reading


def reading_of(projection: Projection) -> Reading:
    """Under which name a projection tells Kafka its positions, and the topic that it reads."""
    return Reading(f"events.{projection.name}", projection.topic)


def access() -> Access:
    """What every process of the service does on Kafka: each part looks at the logs."""
    return Access(tuple(reading_of(projection) for projection in PROJECTIONS))
