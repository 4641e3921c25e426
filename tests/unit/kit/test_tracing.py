"""A trace that comes in goes out, spans or no spans."""

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from services.kit.errors import SettingsError
from services.kit.tracing import Tracing, current_traceparent, traceparent_from, valid_traceparent

PARENT = f"00-{'a' * 32}-{'b' * 16}-01"


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "garbage",
        f"00-{'0' * 32}-{'b' * 16}-01",
        f"00-{'a' * 32}-{'0' * 16}-01",
        f"01-{'a' * 32}-{'b' * 16}-01",
        PARENT + "\n",
    ],
)
def test_malformed_parents_are_ignored(value: str | None) -> None:
    assert valid_traceparent(value) is None
    with Tracing.off().span("x", parent=value):
        assert current_traceparent() is None


def test_off_passes_on_what_came_in() -> None:
    tracing = Tracing.off()
    assert not tracing.on
    with tracing.span("outer", parent=PARENT), tracing.span("inner"):
        assert current_traceparent() == PARENT
    assert current_traceparent() is None


def test_on_continues_the_trace_with_spans_of_its_own() -> None:
    exporter = InMemorySpanExporter()
    tracing = Tracing.to(exporter, "email", at_once=True)
    with tracing.span("outer", parent=PARENT, kind="consumer", attributes={"topic": "email.events"}):
        outer = current_traceparent()
        with tracing.span("inner"):
            inner = current_traceparent()
    assert outer is not None
    assert inner is not None
    assert outer.split("-")[1] == inner.split("-")[1] == "a" * 32
    assert len({outer, inner, PARENT}) == 3
    first, second = exporter.get_finished_spans()
    assert (first.name, second.name) == ("inner", "outer")
    assert first.parent is not None
    assert f"{first.parent.span_id:016x}" == outer.split("-")[2]
    assert second.attributes == {"topic": "email.events"}
    assert current_traceparent() is None


def test_an_error_is_marked_by_its_type_and_nothing_it_says() -> None:
    exporter = InMemorySpanExporter()
    tracing = Tracing.to(exporter, "email", at_once=True)
    with pytest.raises(ValueError), tracing.span("x"):
        raise ValueError("alice@example.com")
    (span,) = exporter.get_finished_spans()
    assert span.status.description == "ValueError"
    assert "alice" not in span.to_json()
    tracing.close()


def test_the_header_of_kafka() -> None:
    assert traceparent_from([("a", None), ("traceparent", PARENT.encode())]) == PARENT
    assert traceparent_from([("traceparent", None)]) is None
    assert traceparent_from([("traceparent", b"\xff")]) is None
    assert traceparent_from([]) is None


def test_a_collector_needs_an_address() -> None:
    assert not Tracing.configured("off", "email").on
    with pytest.raises(SettingsError, match="OTEL_EXPORTER_OTLP_ENDPOINT"):
        Tracing.configured("otlp", "email")
    collector = Tracing.configured("otlp", "email", "http://127.0.0.1:9")
    assert collector.on
    collector.close()
