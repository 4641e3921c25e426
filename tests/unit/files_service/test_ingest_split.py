"""From a message to records: each by itself, under the transport's id, and nothing lost."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.files.entrypoints.ingest import split
from services.kit.kafka.publisher import Outgoing
from tests.unit.files_service.s3_examples import TEST_EVENT, event, message, record, scan, sns


def of(body: Any) -> tuple[Outgoing, ...]:
    return split(message(body))


def keys(body: Any) -> list[bytes | None]:
    return [item.key for item in of(body)]


@pytest.mark.parametrize(
    ("wrapped", "key"),
    [
        (lambda value: value, b"sqs-1"),
        (sns, b"sns-1"),
        (lambda value: sns(json.dumps(value, indent=2)), b"sns-1"),
        (lambda value: sns(value, MessageId=None), b"sqs-1"),
    ],
)
def test_records_come_bare_or_in_an_envelope(wrapped: Any, key: bytes) -> None:
    """SNS's raw delivery is the bare form."""
    one = record()
    (item,) = of(wrapped({"Records": [one]}))
    assert (item.topic, item.key, json.loads(item.value)) == ("files.notifications", key, one)
    assert dict(item.headers) == {
        "source": b"s3",
        "via": b"sqs",
        "verified": b"queue-policy",
        "sqs-message-id": b"sqs-1",
        "sqs-sent-timestamp": b"1796292009250",
        "receive-count": b"2",
    }


def test_of_several_each_is_a_record_of_its_own_bad_ones_too() -> None:
    several = [record("ObjectCreated:Put"), 5, record("ObjectRemoved:Delete"), None]
    assert [json.loads(item.value) for item in of({"Records": several})] == several
    assert keys({"Records": several}) == [b"sqs-1#1", b"sqs-1#2", b"sqs-1#3", b"sqs-1#4"]
    assert keys(sns({"Records": several[:2]})) == [b"sns-1#1", b"sns-1#2"]


@pytest.mark.parametrize("wrapped", [lambda value: value, sns])
def test_an_event_of_eventbridge_goes_by_its_own_id(wrapped: Any) -> None:
    for one, source in ((event(), b"s3"), (scan(), b"guardduty")):
        (item,) = of(wrapped(one))
        assert (item.key, json.loads(item.value)) == (one["id"].encode(), one)
        assert dict(item.headers)["source"] == source
    assert keys(wrapped({**event(), "id": None})) == [b"sns-1" if wrapped is sns else b"sqs-1"]


@pytest.mark.parametrize("body", [TEST_EVENT, sns(TEST_EVENT), {"Records": []}])
def test_what_says_nothing_becomes_nothing(body: Any) -> None:
    assert of(body) == ()


@pytest.mark.parametrize(
    ("body", "key"),
    [
        ("not JSON", b"sqs-1"),
        ("[1]", b"sqs-1"),
        ("", b"sqs-1"),
        ('{"Records": [{"size": Infinity}]}', b"sqs-1"),
        ({"Records": {"0": 1}}, b"sqs-1"),
        ({"hello": "world"}, b"sqs-1"),
        (sns("no JSON inside"), b"sns-1"),
        (sns({"Records": [record()]}, Type="SubscriptionConfirmation"), b"sns-1"),
        ("[" * 500 + "]" * 500, b"sqs-1"),
    ],
)
def test_what_cannot_be_split_goes_as_it_came(body: Any, key: bytes) -> None:
    (item,) = of(body)
    assert (item.key, item.value) == (key, message(body)["Body"].encode())


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["Records", "Message", "Type", "MessageId", "Event", "detail-type", "id"])
            | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(values | st.builds(sns, values) | st.builds(lambda each: {"Records": each}, st.lists(values, max_size=4)))
def test_nothing_is_lost_whatever_comes(value: Any) -> None:
    items = of(json.dumps(value))
    inner = value
    if isinstance(value, dict) and isinstance(value.get("Message"), str) and value.get("Type") == "Notification":
        try:
            inner = json.loads(value["Message"])
        except ValueError:
            inner = None
    if isinstance(inner, dict) and isinstance(inner.get("Records"), list):
        assert [json.loads(item.value) for item in items] == inner["Records"]
    elif isinstance(inner, dict) and inner.get("Event") == "s3:TestEvent":
        assert items == ()
    else:
        (item,) = items
        assert json.loads(item.value) in (value, inner)


@given(st.text())
def test_no_text_is_too_bad(text: str) -> None:
    assert len(of(text)) <= 1
    assert split({"Body": text}) is not None, "not even one without ids"
