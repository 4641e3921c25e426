"""Traces across processes by W3C Trace Context, through HTTP headers, Kafka headers and envelopes.

Off unless asked for: then a span costs one context variable, and a `traceparent` that came in still goes out, so that
Mailroom never breaks the trace of those around it. Spans carry names and ids, never addresses; of an exception only
its type is recorded.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SimpleSpanProcessor, SpanExporter
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from services.kit.errors import SettingsError

TRACEPARENT = "traceparent"

Kind = Literal["internal", "server", "client", "producer", "consumer"]
Attribute = str | int | float | bool

_FORM = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_current: ContextVar[str | None] = ContextVar("mailroom_traceparent", default=None)


def valid_traceparent(value: str | None) -> str | None:
    """`value` if it is a `traceparent` of version 00 (W3C Trace Context §3.2), else None."""
    match = _FORM.fullmatch(value) if value else None
    if match is None or not int(match[1], 16) or not int(match[2], 16):
        return None
    return value


def current_traceparent() -> str | None:
    """What to write into an outgoing header or envelope: the span we are in, or what came in."""
    return _current.get()


def traceparent_from(headers: Iterable[tuple[str, bytes | None]]) -> str | None:
    """The `traceparent` among Kafka headers, None when there is none or it is malformed."""
    for name, value in headers:
        if name == TRACEPARENT and value is not None:
            return valid_traceparent(value.decode("ascii", "replace"))
    return None


class Tracing:
    """Makes spans. One per process, made by `off()`, `to_console()` or `to_collector()`."""

    def __init__(self, provider: TracerProvider | None) -> None:
        """Off without a `provider`."""
        self._provider = provider
        self._tracer = provider.get_tracer("mailroom") if provider else None

    @classmethod
    def off(cls) -> "Tracing":
        """Only passes `traceparent` on."""
        return cls(None)

    @classmethod
    def to(cls, exporter: SpanExporter, service: str, *, at_once: bool = False) -> "Tracing":
        """Spans go to `exporter`; in the background, or `at_once` as each ends."""
        provider = TracerProvider(resource=Resource.create({"service.name": f"mailroom-{service}"}))
        provider.add_span_processor(SimpleSpanProcessor(exporter) if at_once else BatchSpanProcessor(exporter))
        return cls(provider)

    @classmethod
    def configured(
        cls, mode: Literal["off", "console", "otlp"], service: str, endpoint: str | None = None
    ) -> "Tracing":
        """As MAILROOM_TRACES says. SettingsError for `otlp` where its exporter is not installed or has no endpoint."""
        if mode == "off":
            return cls.off()
        if mode == "console":
            return cls.to(ConsoleSpanExporter(), service, at_once=True)
        if not endpoint:
            raise SettingsError(["OTEL_EXPORTER_OTLP_ENDPOINT is needed, because MAILROOM_TRACES is otlp."])
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        except ImportError:
            raise SettingsError(
                ["MAILROOM_TRACES is otlp: install opentelemetry-exporter-otlp-proto-http, or set it to off."]
            ) from None
        return cls.to(OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=5), service)

    @property
    def on(self) -> bool:
        """Whether spans are recorded."""
        return self._tracer is not None

    @contextmanager
    def span(
        self,
        name: str,
        *,
        parent: str | None = None,
        kind: Kind = "internal",
        attributes: Mapping[str, Attribute] | None = None,
    ) -> Iterator[None]:
        """A span around the block, under `parent` (a traceparent from outside) or the span we are in."""
        outside = valid_traceparent(parent)
        if self._tracer is None:
            token = _current.set(outside or _current.get())
            try:
                yield
            finally:
                _current.reset(token)
            return
        span = self._tracer.start_span(
            name,
            context=_context(outside) if outside else None,
            kind=SpanKind[kind.upper()],
            attributes=dict(attributes or {}),
        )
        token = _current.set(_format(span.get_span_context()))
        active = otel_context.attach(trace.set_span_in_context(span))
        try:
            yield
        except BaseException as error:
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise
        finally:
            otel_context.detach(active)
            _current.reset(token)
            span.end()

    def close(self) -> None:
        """Hand over what is still held. Blocks, for at most about 5 s with a collector that is away."""
        if self._provider is not None:
            self._provider.shutdown()


def _context(traceparent: str) -> otel_context.Context:
    match = _FORM.fullmatch(traceparent)
    assert match is not None, "checked by valid_traceparent"  # noqa: S101
    parent = SpanContext(
        int(match[1], 16), int(match[2], 16), is_remote=True, trace_flags=TraceFlags(int(match[3], 16))
    )
    return trace.set_span_in_context(NonRecordingSpan(parent))


def _format(span: SpanContext) -> str:
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"
