"""Giving decisions their place in a stream."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.email.events import EmailCancelled
from contracts.registry import event_from_wire, rank_of, read_json
from services.kit.errors import ExpectedVersionConflict, PermanentError
from services.kit.event_store.port import Append, Draft, Stream, StreamIndex, confirmed, stamp
from services.kit.testing.clock import FakeIds

NOW = datetime(2026, 11, 24, 10, 25, 0, 123456, tzinfo=UTC)
CANCELLED = Draft(EmailCancelled(reason="r"))


def grow(stream: Stream, now: datetime, count: int = 1) -> Stream:
    events = stamp(stream, [CANCELLED] * count, now=now, new_id=FakeIds().new, source="s", correlation="c")
    return Stream.of(stream.stream_id, (*stream.events, *events))


def test_every_attribute_has_its_place() -> None:
    draft = Draft(EmailCancelled(reason="r"), id="fixed", causation="cmd-1", actor="user:1")
    (first, second) = stamp(
        Stream.absent("m1"),
        [draft, CANCELLED],
        now=NOW,
        new_id=FakeIds().new,
        source="mailroom/email",
        correlation="c1",
        traceparent="00-1-2-01",
    )
    assert (first.id, first.causationid, first.actor, first.time, first.streamversion) == (
        "fixed",
        "cmd-1",
        "user:1",
        NOW,
        1,
    )
    assert (second.id, second.time, second.streamversion) == (FakeIds.nth(1), NOW + timedelta(microseconds=1), 2)
    for event in (first, second):
        assert (event.type, event.subject, event.source) == ("email.cancelled", "m1", "mailroom/email")
        assert (event.correlationid, event.traceparent, event.dataversion, event.revision) == (
            "c1",
            "00-1-2-01",
            1,
            None,
        )


@given(st.lists(st.tuples(st.integers(-10_000_000, 10_000_000), st.integers(1, 4)), min_size=1, max_size=8))
def test_stream_order_is_time_order_whatever_the_clock_does(steps: list[tuple[int, int]]) -> None:
    stream = Stream.absent("m1")
    for drift, count in steps:
        now = NOW + timedelta(microseconds=drift)
        stream = grow(stream, now, count)
        assert stream.events[-count].time >= now
    assert [event.streamversion for event in stream.events] == list(range(1, stream.version + 1))
    by_time = sorted(stream.events, key=lambda event: (event.micros, rank_of(event.type), event.id))
    assert by_time == list(stream.events)
    assert len({event.micros for event in stream.events}) == stream.version


def test_the_stored_form_is_the_published_form() -> None:
    stream = grow(Stream.absent("m1"), NOW, 3)
    reread = Stream("m1", 3, stream.wire)
    assert reread.events == stream.events
    assert [event_from_wire(read_json(text.encode())) for text in stream.wire] == list(stream.events)


def test_an_unreadable_event_is_the_trouble_of_its_own_stream_alone() -> None:
    broken = Stream("m1", 1, ('{"type": "email.cancelled"}',))
    with pytest.raises(PermanentError, match="unreadableStream"):
        _ = broken.events


def test_an_append_must_follow_its_stream() -> None:
    one, index = grow(Stream.absent("m1"), NOW), StreamIndex()
    with pytest.raises(ValueError, match="needs an event"):
        Append(one, (), index)
    with pytest.raises(ValueError, match="count on from 2"):
        Append(one, one.events, index)
    with pytest.raises(ValueError, match="subject"):
        Append(Stream.absent("m2"), one.events, index)


def test_a_due_stream_needs_a_lane() -> None:
    with pytest.raises(ValueError, match="lane"):
        StreamIndex(due_at=NOW)


def test_confirmed_raises_what_is_not() -> None:
    with pytest.raises(ExpectedVersionConflict):
        confirmed(ExpectedVersionConflict("m1", 0, 1))
