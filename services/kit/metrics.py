"""All metrics of all processes: one typed list, each with the question an operator asks of it.

Add a metric here and nowhere else. Labels have few values by design: a provider, a topic, an outcome; never
an id, an address or a path with an id in it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from platform import python_version
from time import perf_counter
from typing import Any, TypeVar

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client import Counter as PrometheusCounter
from prometheus_client import Gauge as PrometheusGauge
from prometheus_client import Histogram as PrometheusHistogram


@dataclass(frozen=True, slots=True, eq=False)
class Counter:
    """Something that only grows. Its name ends in `_total`."""

    name: str
    help: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Gauge:
    """A level that goes up and down."""

    name: str
    help: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """A distribution. Times are in seconds, and names say so."""

    name: str
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


Metric = Counter | Gauge | Histogram
T = TypeVar("T")

_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
_LONG = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)

# What runs here?
BUILD_INFO = Gauge("mailroom_build_info", "Always 1; the labels tell the build", ("service", "version", "python"))

# Does the consumer move? A rising lag with no records consumed means stuck; with records, too slow.
RECORDS_CONSUMED = Counter("mailroom_records_consumed_total", "Records read from Kafka", ("group", "topic"))
RECORDS_HANDLED = Counter("mailroom_records_handled_total", "Records whose effect is acknowledged", ("group", "topic"))
RECORDS_RETRIED = Counter("mailroom_records_retried_total", "Records to be handled again", ("group", "topic"))
RECORDS_PARKED = Counter("mailroom_records_parked_total", "Records set aside", ("group", "topic", "reason"))
RECORDS_DISCARDED = Counter("mailroom_records_discarded_total", "Discarded by an operator's order", ("group", "topic"))
RECORDS_LOST = Counter("mailroom_records_lost_total", "Deleted by retention before handled", ("group", "topic"))
PARTITIONS_BLOCKED = Gauge("mailroom_partitions_blocked", "Partitions that cannot be read", ("group",))
CONSUMER_LAG = Gauge("mailroom_consumer_lag_records", "End offset minus position", ("group", "topic", "partition"))
CONSUMER_RESTARTS = Counter("mailroom_consumer_restarts_total", "New Kafka consumers after an error", ("group",))
BATCH_SECONDS = Histogram("mailroom_batch_seconds", "Handling one batch", ("group",))
BATCH_RECORDS = Histogram("mailroom_batch_records", "Records in one batch", ("group",), buckets=_SIZES)

# Is something parked that waits for a person, and has a flood of bad records stopped a consumer?
PARKED_OPEN = Gauge("mailroom_parked_open", "Parked records neither retried nor discarded", ("consumer", "kind"))
BREAKER_OPEN = Gauge("mailroom_breaker_open", "1 while parking is refused because of a flood", ("consumer",))

# Does Kafka take what we publish?
PUBLISHED = Counter("mailroom_published_total", "Records acknowledged by Kafka", ("topic",))
PUBLISH_FAILED = Counter("mailroom_publish_failed_total", "Records Kafka did not acknowledge", ("topic",))
PUBLISH_SECONDS = Histogram("mailroom_publish_seconds", "From handing over a batch to its last acknowledgement")

# Are decisions written, and do they get out?
APPENDS = Counter("mailroom_appends_total", "Appends to streams", ("outcome",))  # appended, conflict, unknown
APPEND_SECONDS = Histogram("mailroom_append_seconds", "One bulk of appends")
RELAY_BACKLOG = Gauge("mailroom_relay_backlog", "Streams with unpublished events older than the relay's patience")
RELAYED = Counter("mailroom_relayed_total", "Events that the relay had to publish")
UNPUBLISHABLE = Counter("mailroom_unpublishable_total", "Looks at streams whose next event Kafka will never take")

# Is mail waiting, and why?
DUE_STREAMS = Gauge("mailroom_due_streams", "Streams that are due and not leased, up to 100 000", ("lane",))
DUE_DELAY_SECONDS = Histogram("mailroom_due_delay_seconds", "From due to leased", ("lane",), buckets=(0.01, *_LONG))
LEASES_LOST = Counter("mailroom_leases_lost_total", "Streams whose lease went to somebody else while in work")
TOKENS_WAITED_SECONDS = Histogram(
    "mailroom_tokens_waited_seconds", "From asking in vain to the next token", ("provider", "urgent"), buckets=_LONG
)
TOKENS_GRANTED = Counter("mailroom_tokens_granted_total", "Rate tokens taken, in recipients", ("provider",))
CONTENT_WAITS = Counter("mailroom_content_waits_total", "Times a mail was put off since its content could not be had")
BYTES_IN_HAND = Gauge("mailroom_mail_bytes_in_hand", "Bytes of large mail that was fetched and is not over")
FILE_WAITS = Counter("mailroom_file_waits_total", "Times a mail was put off since a file it attaches was not ready")
QUOTA_REMAINING = Gauge("mailroom_quota_remaining", "Recipients left of the account's 24 hours", ("provider",))
WARM_UP_USED = Gauge("mailroom_warm_up_used", "Recipients counted today of a domain being warmed up", ("domain",))
WARM_UP_LIMIT = Gauge("mailroom_warm_up_limit", "Recipients that its ramp allows it today", ("domain",))
TEMPLATES_BROKEN = Gauge("mailroom_templates_broken", "Templates of one's own that could not be loaded at the start")
CIRCUIT_OPEN = Gauge("mailroom_circuit_open", "1 while the account is refused", ("provider",))

# What became of the calls?
SEND_ATTEMPTS = Counter("mailroom_send_attempts_total", "Calls to a provider", ("provider", "lane"))
SEND_OUTCOMES = Counter(
    "mailroom_send_outcomes_total", "accepted, rejected, notCalled, unknown", ("provider", "outcome")
)
SEND_SECONDS = Histogram("mailroom_send_seconds", "One call to a provider", ("provider",))
OPEN_ATTEMPTS = Gauge("mailroom_open_attempts", "Attempts recorded here and not yet answered")
RESENDS = Counter(
    "mailroom_resends_total",
    "Attempts made although the outcome of another one was unknown",
    ("provider",),
)
OUTCOMES_UNKNOWN = Counter("mailroom_outcomes_unknown_total", "Attempts that ended without an answer", ("provider",))
ATTEMPTS_SETTLED = Counter("mailroom_attempts_settled_total", "Unknown attempts settled", ("by", "outcome"))
SUPPRESSED = Counter("mailroom_suppressed_total", "Deliveries not sent because the recipient is suppressed", ("scope",))
MESSAGES_FAILED = Counter("mailroom_messages_failed_total", "Deliveries that ended as failed", ("reason",))

# Files: what becomes of uploads, and what lies where it should not.
FILE_DECISIONS = Counter("mailroom_file_decisions_total", "Decisions on files", ("type",))
PUBLIC_VIEWS = Counter("mailroom_public_views_total", "Redirects to public files; caches answer further views")
FOREIGN_VERSIONS = Counter("mailroom_foreign_versions_total", "Object versions that nobody verified, deleted")

# Do the providers' notifications arrive, and are they understood?
NOTIFICATIONS_RECEIVED = Counter(
    "mailroom_notifications_received_total", "Received, before Kafka has them", ("source",)
)
NOTIFICATIONS_RELEASED = Counter("mailroom_notifications_released_total", "Let go after Kafka had them", ("source",))
NOTIFICATION_AGE_SECONDS = Histogram(
    "mailroom_notification_age_seconds", "On the queue before it was received", ("source",), buckets=_LONG
)
# taken, duplicate, forged, reused (a token with another body), undecided, unpublished
WEBHOOKS = Counter("mailroom_webhooks_total", "POSTs of providers, by what became of them", ("provider", "outcome"))
# found, nothing, failed
MAILGUN_QUESTIONS = Counter("mailroom_mailgun_questions_total", "Questions about unknown attempts", ("outcome",))
FACTS_TRANSLATED = Counter("mailroom_facts_translated_total", "Facts made of notifications", ("provider", "type"))
NOTIFICATIONS_IGNORED = Counter("mailroom_notifications_ignored_total", "Notifications that say nothing", ("reason",))

# Is the read model fresh, and does it move?
PROJECTED_EVENTS = Counter("mailroom_projected_events_total", "Events folded", ("projection", "generation"))
PROJECTED_DOCUMENTS = Counter("mailroom_projected_documents_total", "Documents written", ("projection", "generation"))
PROJECTION_LAG = Gauge(
    "mailroom_projection_lag_records", "End minus the active generation's checkpoint", ("projection", "partition")
)
PROJECTION_DELAY_SECONDS = Histogram(
    "mailroom_projection_delay_seconds", "From Kafka's timestamp to the document", ("projection",), buckets=_LONG
)
PROJECTION_BATCH_SECONDS = Histogram("mailroom_projection_batch_seconds", "One batch", ("projection", "step"))
GUARD_FAILURES = Counter("mailroom_guard_failures_total", "Documents somebody else wrote first", ("projection",))
FENCED = Counter("mailroom_fenced_total", "Checkpoints refused because the lease was lost", ("projection",))
PARTITION_LEASES = Gauge("mailroom_partition_leases", "Partitions this process holds", ("projection", "generation"))
UNKNOWN_EVENTS = Counter("mailroom_unknown_events_total", "Events of a type this build does not know", ("topic",))
REBUILD_PROGRESS = Gauge(
    "mailroom_rebuild_progress_ratio", "Part of the log read, 0 to 1", ("projection", "generation")
)

# Do callers get answers?
HTTP_REQUESTS = Counter("mailroom_http_requests_total", "Answers", ("service", "method", "route", "status"))
HTTP_SECONDS = Histogram("mailroom_http_seconds", "One request", ("service", "method", "route"))
HTTP_IN_FLIGHT = Gauge("mailroom_http_in_flight", "Requests being answered", ("service",))
HTTP_BODY_BYTES = Gauge("mailroom_http_body_bytes", "Bytes of the bodies of requests being answered", ("service",))
HTTP_SHED = Counter(
    "mailroom_http_shed_total", "Requests refused at once: as many are answered as may be", ("service",)
)

# Does MongoDB keep up with what is asked of it? `client` is one for requests, or one for work in the background.
MONGO_IN_FLIGHT = Gauge("mailroom_mongo_in_flight", "Operations that have a connection", ("client",))
MONGO_WAITING = Gauge("mailroom_mongo_waiting", "Operations that wait for a connection", ("client",))
MONGO_REFUSED = Counter(
    "mailroom_mongo_refused_total",
    "Operations not begun: full, too many waited; late, waited too long",
    ("client", "reason"),
)

# Is each part of the process alive?
COMPONENT_LIVE = Gauge("mailroom_component_live", "1 while it makes progress or has nothing to do", ("component",))
EVENT_LOOP_DELAY_SECONDS = Histogram(
    "mailroom_event_loop_delay_seconds",
    "How late the event loop wakes up; above 0.05 heartbeats are in danger",
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5),
)

ALL: tuple[Metric, ...] = tuple(value for value in globals().values() if isinstance(value, Counter | Gauge | Histogram))
"""Every metric above, in order."""

CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """The metrics of one process. Every series' labels are given by name; a label too many or too few is a
    ValueError.
    """

    def __init__(self, registry: CollectorRegistry | None = None, metrics: Sequence[Metric] = ALL) -> None:
        """`registry`: a fresh one with the process's memory, CPU and files unless given."""
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, with nothing an operator asks for
        self.registry = registry or _process_registry()
        self._counters = {m: _make(PrometheusCounter, m, self.registry) for m in metrics if isinstance(m, Counter)}
        self._gauges = {m: _make(PrometheusGauge, m, self.registry) for m in metrics if isinstance(m, Gauge)}
        self._histograms = {
            m: _make(PrometheusHistogram, m, self.registry, buckets=m.buckets)
            for m in metrics
            if isinstance(m, Histogram)
        }

    def describe_build(self, service: str, version: str) -> None:
        """Tell which build of which service this is."""
        self.set(BUILD_INFO, 1, service=service, version=version, python=python_version())

    def inc(self, metric: Counter, amount: float = 1, **labels: str) -> None:
        """Count `amount` more."""
        counter = self._counters[metric]
        (counter.labels(**labels) if labels else counter).inc(amount)

    def set(self, metric: Gauge, value: float, **labels: str) -> None:
        """The level is `value` now."""
        gauge = self._gauges[metric]
        (gauge.labels(**labels) if labels else gauge).set(value)

    def add(self, metric: Gauge, amount: float, **labels: str) -> None:
        """The level rises by `amount`, or falls when it is negative."""
        gauge = self._gauges[metric]
        (gauge.labels(**labels) if labels else gauge).inc(amount)

    def follow(self, metric: Gauge, level: Callable[[], float], **labels: str) -> None:
        """The level is what `level` returns whenever the metrics are rendered."""
        gauge = self._gauges[metric]
        (gauge.labels(**labels) if labels else gauge).set_function(level)

    def observe(self, metric: Histogram, value: float, **labels: str) -> None:
        """One more observation."""
        histogram = self._histograms[metric]
        (histogram.labels(**labels) if labels else histogram).observe(value)

    @contextmanager
    def timed(self, metric: Histogram, **labels: str) -> Iterator[None]:
        """Observe how long the block takes, in seconds, also when it raises."""
        started = perf_counter()
        try:
            yield
        finally:
            self.observe(metric, perf_counter() - started, **labels)

    def clear(self, metric: Metric, **labels: str) -> None:
        """Forget a series (a partition given back), so that its last value does not stand for ever."""
        if isinstance(metric, Counter):
            self._counters[metric].remove_by_labels(labels)
        elif isinstance(metric, Gauge):
            self._gauges[metric].remove_by_labels(labels)
        else:
            self._histograms[metric].remove_by_labels(labels)

    def value(self, metric: Counter | Gauge, **labels: str) -> float:
        """What a counter or gauge stands at; 0 for a series not seen yet. For tests and progress displays."""
        return self.registry.get_sample_value(metric.name, labels) or 0.0

    def count(self, metric: Histogram, **labels: str) -> float:
        """How many observations a histogram has. For tests."""
        return self.registry.get_sample_value(f"{metric.name}_count", labels) or 0.0

    def render(self) -> bytes:
        """The text for `/metrics`, of type `CONTENT_TYPE`."""
        return generate_latest(self.registry)


def _process_registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


def _make(kind: Callable[..., T], metric: Metric, registry: CollectorRegistry, **options: Any) -> T:
    return kind(metric.name, metric.help, metric.labels, registry=registry, **options)
