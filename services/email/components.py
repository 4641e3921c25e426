"""How the service's parts fit the lifecycle: their reports in one shape, and their counts in the list of metrics."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass

from services.kit import metrics as m
from services.kit.health import Report
from services.kit.kafka.health import LoopHealth
from services.kit.kafka.publisher import KafkaPublisher
from services.kit.metrics import Metrics

LOOPS_SHOWN = 24
"""Partitions shown in a loop's report."""


@dataclass(frozen=True, slots=True)
class Part:
    """A `Component` made of three functions."""

    starting: Callable[[], Awaitable[None]]
    stopping: Callable[[float], Awaitable[None]]
    report: Callable[[], Report]

    async def start(self) -> None:
        """Begin."""
        await self.starting()

    async def stop(self, timeout: float) -> None:
        """End within `timeout` seconds."""
        await self.stopping(timeout)

    def health(self) -> Report:
        """How it is doing."""
        return self.report()


def publisher_report(publisher: KafkaPublisher) -> Report:
    """A producer comes back by itself, so it is never dead."""
    return Report(live=True, ready=publisher.healthy, detail={"state": "healthy" if publisher.healthy else "away"})


def loop_report(health: LoopHealth) -> Report:
    """A consumer loop's own word."""
    partitions = [asdict(partition) for partition in health.partitions[:LOOPS_SHOWN]]
    detail = {"lag": health.lag, "reasons": list(health.reasons), "breaker": health.breaker, "partitions": partitions}
    return Report(live=health.live, ready=health.healthy, detail=detail)


def ingest_report(health: tuple[bool, dict[str, object]]) -> Report:
    """The poller's own word."""
    live, detail = health
    dead = detail.get("deadPollers")
    return Report(
        live=live,
        ready=live and detail.get("trouble") is None,
        detail=detail,
        died=f"pollers ended by themselves: {dead}" if dead else None,
    )


class IngestCounts:
    """`IngestMetrics` in the list of metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def received(self, ages: Sequence[float]) -> None:
        """Taken from the queue, by the seconds that each lay there."""
        self._metrics.inc(m.NOTIFICATIONS_RECEIVED, len(ages), source="sqs")
        for age in ages:
            self._metrics.observe(m.NOTIFICATION_AGE_SECONDS, age, source="sqs")

    def deleted(self, count: int) -> None:
        """Acknowledged by Kafka and let go."""
        if count:
            self._metrics.inc(m.NOTIFICATIONS_RELEASED, count, source="sqs")

    def failed(self, count: int) -> None:
        """Left on the queue: the difference between the two above tells it."""


class TranslatorCounts:
    """`TranslatorMetrics` in the list of metrics."""

    def __init__(self, metrics: Metrics, provider: str) -> None:
        self._metrics, self._provider = metrics, provider

    def translated(self, event_type: str) -> None:
        """One fact was made."""
        self._metrics.inc(m.FACTS_TRANSLATED, provider=self._provider, type=event_type)

    def ignored(self) -> None:
        """One notification said nothing."""
        self._metrics.inc(m.NOTIFICATIONS_IGNORED, reason="nothing")
