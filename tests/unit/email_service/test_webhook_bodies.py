"""What lies in a webhook's body: a record for each event, whatever the others are."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.email.adapters.webhook_bodies import mailgun_record, sendgrid_records
from services.email.domain.webhooks import RawRecord

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=50)
@given(st.lists(values, max_size=6), st.sampled_from([None, 1, 4]), st.booleans(), st.sampled_from(["", "\r\n", " \t"]))
def test_an_array_is_taken_apart_into_its_elements_as_they_are_written(
    elements: list[Any], indent: int | None, ascii_: bool, around: str
) -> None:
    body = around + json.dumps(elements, indent=indent, ensure_ascii=ascii_) + around
    try:
        raw = body.encode()
    except UnicodeEncodeError:  # a lone surrogate, which no UTF-8 holds
        return
    records = sendgrid_records(raw)
    assert [repr(json.loads(each.value)) for each in records] == [repr(each) for each in elements]
    assert all(each.value in raw for each in records)


def test_a_batch_as_sendgrid_writes_it() -> None:
    one, two = b'{"event":"open","sg_event_id":"one","useragent":"},{"}', b'{"event":"click","sg_event_id":"two"}'
    assert sendgrid_records(b"[" + one + b",\r\n" + two + b"]\r\n") == (RawRecord("one", one), RawRecord("two", two))


@pytest.mark.parametrize(
    "element",
    [
        b"null",
        b"7",
        b'"text"',
        b'[{"Key":"event","Value":"open"}]',
        b'{"sg_event_id":null}',
        b'{"sg_event_id":""}',
        b'{"useragent":"\\ud800"}',
        b'{"timestamp":NaN}',
        b'{"send_at":' + b"9" * 5000 + b"}",
    ],
    ids=lambda element: element[:30].decode(),
)
def test_an_element_that_is_no_event_is_one_record_as_it_is_and_takes_no_other_down(element: bytes) -> None:
    good = b'{"event":"open","sg_event_id":"one"}'
    assert sendgrid_records(b"[" + good + b"," + element + b"," + good + b"]") == (
        RawRecord("one", good),
        RawRecord(None, element),
        RawRecord("one", good),
    )


def test_numbers_are_kept_as_they_are_written() -> None:
    event = b'{"send_at":1487700692.41447,"timestamp":1.0,"big":12345678901234567890123,"zero":0}'
    assert sendgrid_records(b"[" + event + b"]") == (RawRecord(None, event),)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{}", b"null", b"[", b"[{}", b"[{},", b"[{},]", b"[,{}]", b"[{}{}]", b"[{}]x", b"[{}]]", b"]", b"\xff[]",
        b"\xef\xbb\xbf[]", b"[" * 100_000, b"[" + b"[" * 50_000 + b"]" * 50_000 + b"]",
    ],
    ids=lambda body: body[:12].hex(),
)  # fmt: skip
def test_what_is_no_array_is_one_record_as_it_came(body: bytes) -> None:
    assert sendgrid_records(body) == (RawRecord(None, body),)


def test_an_empty_batch_has_no_records() -> None:
    assert sendgrid_records(b" [ ]\r\n") == ()


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ({"event-data": {"id": "CPgfbmQMTCKtHW6uIWtuVe"}}, "CPgfbmQMTCKtHW6uIWtuVe"),
        ({"event-data": {"id": 7}}, None),
        ({"event-data": {}}, None),
        ({"event-data": "text"}, None),
        ({}, None),
    ],
)
def test_mailguns_body_is_one_record_as_it_came(value: dict[str, Any], key: str | None) -> None:
    assert mailgun_record(value, b"as it came") == RawRecord(key, b"as it came")
