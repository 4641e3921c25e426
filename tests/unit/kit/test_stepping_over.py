"""Where a record batch ends, from its bytes alone, and what counts as an operator's word."""

from __future__ import annotations

from datetime import UTC, datetime
from struct import pack

import pytest

from services.kit.errors import PermanentError
from services.kit.kafka.records import Park, Partition, Record
from services.kit.kafka.stepping_over import find_batch, ordered_offset, step_over_order
from services.kit.parking import ParkedRecord

AT = datetime(2026, 11, 24, tzinfo=UTC)


def batch(first: int, records: int, *, version: int = 2, content: bytes = b"x" * 50) -> bytes:
    head = pack(">ibIhiqqqhi", 0, version, 0, 0, records - 1, 7, 8, -1, -1, -1)
    return pack(">qi", first, len(head) + len(content)) + head + content


def test_the_batch_of_an_offset_is_found_among_others() -> None:
    raw = batch(10, 5) + batch(15, 1) + batch(20, 3, content=b"\xff")
    for offset, first, last in ((10, 10, 14), (14, 10, 14), (15, 15, 15), (21, 20, 22)):
        found = find_batch(raw, offset)
        assert (found.first, found.last, found.timestamp_ms) == (first, last, 7)
    assert find_batch(raw, 22).raw == batch(20, 3, content=b"\xff")


@pytest.mark.parametrize(
    "raw", [b"", b"\x00" * 60, batch(10, 5)[:-1], batch(10, 5, version=1), batch(10, 0), batch(30, 1)]
)
def test_where_no_end_can_be_told_nothing_is_stepped_over(raw: bytes) -> None:
    with pytest.raises(PermanentError, match="no whole record batch"):
        find_batch(raw, 12)


def test_only_an_order_is_one() -> None:
    where = Partition("email.events", 3)
    order = step_over_order("email-settler", where, 12, find_batch(batch(10, 5), 12), "operator:ann", AT)
    assert order.id == "email-settler|email.events|3|12"
    assert ordered_offset(order) == 15
    assert "offsets 12 to 14" in order.detail
    poison = ParkedRecord.of("email-settler", Record(*where, 12, 0, b"k", b"{", ()), Park("notJson", "poison"), AT)
    assert ordered_offset(poison) is None
    assert ordered_offset(None) is None
