"""Every type survives the wire, whatever it holds; ids, times and addresses keep their laws."""

from __future__ import annotations

import types
import typing
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from contracts.addresses import normalise_address
from contracts.base import EventData, Money, format_time, from_micros, to_micros, to_utc
from contracts.email.commands import SendEmail
from contracts.envelope import Envelope
from contracts.errors import ContractError
from contracts.ids import fact_id, uuid7
from contracts.registry import EVENTS, command_from_wire, event_from_wire, read_json
from contracts.topics import TOPICS

micros = st.integers(0, 4_102_444_800_000_000)
text = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=5,
)


def values(annotation: Any) -> st.SearchStrategy[Any]:
    """Values that fit a field's annotation; all that the published models use, and nothing else."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return values(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return st.one_of([values(argument) for argument in arguments])
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    if origin is list:
        return st.lists(values(arguments[0]), max_size=3)
    if origin is dict:
        return st.dictionaries(text, values(arguments[1]), max_size=3)
    simple: dict[Any, st.SearchStrategy[Any]] = {
        str: text.filter(bool),
        int: st.integers(0, 2**53),
        bool: st.booleans(),
        type(None): st.none(),
        Any: json_values,
        datetime: micros.map(from_micros),
        Money: st.builds(Money, amount=st.integers(-(2**53), 2**53), currency=st.just("USD")),
    }
    if annotation in simple:
        return simple[annotation]
    assert issubclass(annotation, BaseModel), annotation
    return models(annotation)


def models(model: type[BaseModel]) -> st.SearchStrategy[Any]:
    special = {"scope": st.sampled_from(["all", "marketing", "list:news"]), "sha256": st.just("0" * 64)}
    fields = {name: special.get(name, values(field.annotation)) for name, field in model.model_fields.items()}
    return st.fixed_dictionaries(fields).map(lambda chosen: model(**chosen))


@st.composite
def envelopes(draw: st.DrawFn) -> Envelope:
    event = draw(st.sampled_from(list(EVENTS.values())))
    data: EventData = draw(models(event.model))
    return Envelope(
        id=uuid7(),
        source="/test",
        type=event.name,
        subject="0192f0c1-2b7a-7d3e-9c1a-5b8f3e2d1c0b",
        time=from_micros(draw(micros)),
        correlationid="c",
        causationid=draw(st.none() | text),
        streamversion=1 if event.kind == "decision" else None,
        revision=1 if event.kind == "fact" else None,
        data=data,
    )


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(envelopes())
def test_every_type_survives_the_wire(envelope: Envelope) -> None:
    raw = envelope.to_bytes()
    again = event_from_wire(read_json(raw))
    assert again == envelope
    assert again.to_bytes() == raw


@given(micros)
def test_times_are_exact_to_the_microsecond(value: int) -> None:
    assert to_micros(from_micros(value)) == value
    assert to_micros(datetime.fromisoformat(format_time(from_micros(value)))) == value


def test_a_time_without_offset_is_refused() -> None:
    with pytest.raises(ValueError, match="offset"):
        to_utc(datetime(2026, 1, 1))  # noqa: DTZ001
    east = timezone(timedelta(hours=2))
    assert to_utc(datetime(2026, 1, 1, 2, tzinfo=east)) == datetime(2026, 1, 1, tzinfo=UTC)


def test_our_ids_are_unique_and_ordered() -> None:
    made = [uuid7() for _ in range(20_000)]
    assert len(set(made)) == len(made)
    assert made == sorted(made)
    assert {one[14] for one in made} == {"7"}


@given(st.lists(st.tuples(text, text, text, text, text), unique=True, min_size=2, max_size=20))
def test_different_happenings_have_different_ids(parts: list[tuple[str, str, str, str, str]]) -> None:
    assert len({fact_id(*part) for part in parts}) == len(set(parts))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("Jane.Doe@EXAMPLE.com", "Jane.Doe@example.com"),
        ("a+b@exämple.com", "a+b@xn--exmple-cua.com"),
        ("  x@y.example ", "x@y.example"),
    ],
)
def test_normal_form(given: str, expected: str) -> None:
    assert normalise_address(given) == expected
    assert normalise_address(expected) == expected


@pytest.mark.parametrize(
    "bad",
    ["", "x", "@y.example", "x@", "x@localhost", "x y@z.example", "ü@y.example", "a@b@c.example", "x@-y.example",
     "x@y..example", "x@1.2.3.4", "x" * 65 + "@y.example", "x@y.example\nBcc: z@y.example", "J <j@y.example>"],
)  # fmt: skip
def test_what_cannot_be_sent_to_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match=r"address|part|domain"):
        normalise_address(bad)


def _send(**changes: Any) -> SendEmail:
    base = {
        "messageId": "0192F0C1-2B7A-7D3E-9C1A-5B8F3E2D1C0B",
        "to": "a@b.example",
        "subject": "s",
        "text": "t",
        "category": "system",
        "userId": "u",
    }
    wire = {"specversion": "1.0", "id": "1", "source": "/t", "type": "email.send", "subject": "m"}
    command = command_from_wire({**wire, "data": {**base, **changes}})
    assert isinstance(command.data, SendEmail)
    return command.data


def test_a_hand_written_send_needs_little() -> None:
    send = _send()
    assert (send.to, send.priority, send.message_id) == (
        ["a@b.example"],
        "normal",
        "0192f0c1-2b7a-7d3e-9c1a-5b8f3e2d1c0b",
    )


def test_repeated_addresses_count_once() -> None:
    assert _send(to=["a@B.example", "a@b.example"], cc=["a@b.example", "c@b.example"]).recipients == (
        "a@b.example",
        "c@b.example",
    )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"messageId": "1"}, "messageId"),
        ({"to": []}, "to"),
        ({"to": [f"a{n}@b.example" for n in range(51)]}, "to"),
        (
            {"to": [f"a{n}@b.example" for n in range(30)], "bcc": [f"b{n}@b.example" for n in range(30)]},
            "60 recipients",
        ),
        ({"subject": ""}, "subject"),
        ({"subject": "x" * 201}, "subject"),
        ({"subject": "a\r\nBcc: x@y.example"}, "line breaks"),
        ({"text": None}, "html, text or templateId"),
        ({"category": "spam"}, "category"),
        ({"category": "marketing"}, "listId"),
        ({"customData": {"x": "y" * 64_001}}, "64000"),
        ({"attachments": [{"filename": "a", "contentType": "text/plain", "content": "%%"}]}, "base64"),
        ({"attachments": [{"filename": "a", "contentType": "text/plain", "content": "QUJD" * 70_000}]}, "200000"),
        ({"attachments": [{"filename": "a\n", "contentType": "text/plain", "content": ""}]}, "line breaks"),
        ({"attachments": [{"filename": "a", "contentType": "nonsense", "content": ""}]}, "contentType"),
        ({"sendAt": "2026-01-02T00:00:00Z", "expiresAt": "2026-01-01T00:00:00Z"}, "expiresAt"),
        ({"sendAt": "2026-01-02T00:00:00"}, "offset"),
        ({"sealed": {"ref": "r", "sha256": "0" * 64}}, "sealed"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_a_bad_send_says_what_is_wrong(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ContractError, match=says):
        _send(**changes)


def test_topics_are_as_published() -> None:
    assert {topic.name: topic.partitions for topic in TOPICS} == {
        "email.commands.urgent": 6,
        "email.commands.high": 6,
        "email.commands.normal": 6,
        "email.commands.low": 6,
        "email.notifications": 12,
        "email.events": 24,
        "recipients.events": 12,
        "files.commands": 6,
        "files.notifications": 12,
        "files.events": 24,
    }
