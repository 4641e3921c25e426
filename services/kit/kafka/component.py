"""Consumer loops and publishers as components of a process."""

from dataclasses import asdict

from services.kit.component import Component, Reported
from services.kit.health import Report
from services.kit.kafka.consumer_loop import ConsumerLoop
from services.kit.kafka.publisher import KafkaPublisher


def consumer_component(loop: ConsumerLoop) -> Component:
    """Live while the loop turns; ready while every partition moves or is caught up and nothing holds it."""

    def report() -> Report:
        health = loop.health()
        detail = {
            "group": health.group,
            "lag": health.lag,
            "caughtUp": health.caught_up,
            "breaker": health.breaker,
            "reasons": list(health.reasons),
            "partitions": [asdict(p) for p in health.partitions if p.blocked or p.waiting],
        }
        return Report(live=health.live, ready=health.healthy, detail=detail)

    return Reported(loop, report)


def publisher_component(publisher: KafkaPublisher) -> Component:
    """Always live, since it reconnects by itself; ready while what is published will probably be acknowledged."""

    def report() -> Report:
        return Report(live=True, ready=publisher.healthy, detail={"healthy": publisher.healthy})

    return Reported(publisher, report)
