"""What consumer loops and publishers say of themselves, as components of a process."""

from dataclasses import asdict

from services.kit.health import Report
from services.kit.kafka.health import LoopHealth
from services.kit.kafka.publisher import KafkaPublisher

LOOPS_SHOWN = 24
"""Partitions shown in a loop's report."""


def publisher_report(publisher: KafkaPublisher) -> Report:
    """A producer comes back by itself, so it is never dead."""
    return Report(live=True, ready=publisher.healthy, detail={"state": "healthy" if publisher.healthy else "away"})


def loop_report(health: LoopHealth) -> Report:
    """A consumer loop's own word: live while it turns, ready while every partition moves or is caught up."""
    partitions = [asdict(partition) for partition in health.partitions[:LOOPS_SHOWN]]
    detail = {"lag": health.lag, "reasons": list(health.reasons), "breaker": health.breaker, "partitions": partitions}
    return Report(live=health.live, ready=health.healthy, detail=detail)
