"""What becomes of a record that the client hands out."""

from __future__ import annotations

import pytest
from aiokafka.structs import ConsumerRecord

from services.kit.kafka.reading import _record


@pytest.mark.parametrize(("kind", "by_broker"), [(0, False), (1, True)], ids=["CreateTime", "LogAppendTime"])
def test_a_record_tells_whose_clock_its_time_is_by(kind: int, by_broker: bool) -> None:
    found = ConsumerRecord("t", 3, 7, 1_795_000_000_000, kind, b"k", b"v", None, 1, 1, (("h", b"x"),))
    record = _record(found)
    assert (record.origin, record.timestamp_ms) == (("t", 3, 7), 1_795_000_000_000)
    assert (record.key, record.value, record.headers) == (b"k", b"v", (("h", b"x"),))
    assert record.log_append_time is by_broker
