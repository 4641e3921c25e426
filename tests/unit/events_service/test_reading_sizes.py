"""How much of the log is in memory at a time: bytes count, not records alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition

from contracts.email import events as mail
from services.events import aggregates
from services.events.adapters.kafka_log import BEHIND, STEP, KafkaLog
from services.events.aggregates import Aggregates
from services.events.projections.projection import EMAIL_LOG
from services.kit.metrics import Metrics
from tests.unit.events_service.events import ANN, Log, fact, requested
from tests.unit.events_service.memory import MemoryReadModels


class Fetched:
    """A consumer that has everything of one partition fetched already."""

    def __init__(self, partition: TopicPartition, values: list[bytes]) -> None:
        self._partition = partition
        self._left = [SimpleNamespace(offset=at, value=value) for at, value in enumerate(values)]
        self._end = len(values)

    def assign(self, _: object) -> None: ...

    def seek(self, *_: object) -> None: ...

    def highwater(self, _: object) -> int:
        return self._end

    async def getmany(self, *_: object, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[Any]]:
        found, self._left = self._left[:max_records], self._left[max_records:]
        return {self._partition: found} if found else {}


@pytest.mark.parametrize("count", [BEHIND * 3, BEHIND - 1])
async def test_what_is_read_of_a_partition_is_bounded_by_bytes(count: int) -> None:
    log = KafkaLog("127.0.0.1:9", "t")
    consumer: Any = Fetched(TopicPartition("t", 0), [b"x" * 1_000] * count)
    log._consumer = consumer
    log.assign({0: 0})
    read = 0
    while batches := await log.read(0.0, 100_000, 1_000_000):
        assert 1_000 <= len(batches[0]) <= 1_000 + STEP or read + len(batches[0]) == count
        assert batches[0][0].offset == read, "nothing is left out"
        read += len(batches[0])
    assert read == count


async def test_large_records_are_parsed_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    models = MemoryReadModels()
    stored: list[int] = []

    async def hook(step: str) -> None:
        if step == "write":
            stored.append(len(models.stored))

    models.hook = hook
    records: list[Any] = []
    for number in range(8):
        name = f"m{number}"
        log = Log(name)
        story = (requested(ANN).model_copy(update={"message_id": name}), fact(mail.EmailOpened))
        for offset, data in enumerate(story):
            records.append(SimpleNamespace(partition=3, offset=offset, key=name.encode(), value=log.raw(data)))
    monkeypatch.setattr(aggregates, "SLICE_BYTES", sum(len(each.value) for each in records) // 4)
    aside: Any = SimpleNamespace(left_out=lambda _: _nothing(), park=lambda _: _nothing(), went_through=_nothing)
    await Aggregates(EMAIL_LOG, models, aside, Metrics(), generation=1).write(records, fresh=True)
    assert stored == [0, 2, 4, 6], "as many at a time as fit"
    assert len(models.stored) == 8


async def _nothing() -> tuple[()]:
    return ()
