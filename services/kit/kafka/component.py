"""What consumer loops and publishers say of themselves, as components of a process."""

from dataclasses import asdict

from services.kit.component import Part
from services.kit.health import Report
from services.kit.kafka.consumer_loop import ConsumerLoop
from services.kit.kafka.health import LoopHealth
from services.kit.kafka.publisher import KafkaPublisher

LOOPS_SHOWN = 24
"""Partitions shown in a loop's report."""


def publisher_report(publisher: KafkaPublisher) -> Report:
    """A producer comes back by itself, so it is never dead."""
    trouble = publisher.trouble
    detail = {"state": "away", "reason": trouble} if trouble else {"state": "healthy"}
    return Report(live=True, ready=not trouble, detail=detail)


def consumer_part(loop: ConsumerLoop) -> Part:
    """A consumer loop as a component of a process."""
    return Part(loop.start, loop.stop, lambda: loop_report(loop.health()))


def publisher_part(publisher: KafkaPublisher) -> Part:
    """A producer as a component of a process."""
    return Part(publisher.start, publisher.stop, lambda: publisher_report(publisher))


def loop_report(health: LoopHealth) -> Report:
    """A consumer loop's own word: live while it turns, ready while every partition moves or is caught up."""
    partitions = [asdict(partition) for partition in health.partitions[:LOOPS_SHOWN]]
    detail = {"lag": health.lag, "reasons": list(health.reasons), "breaker": health.breaker, "partitions": partitions}
    return Report(live=health.live, ready=health.healthy, detail=detail)
