"""Whether brokers answer a consumer's fetches. An idle consumer and one whose Kafka is away look alike from outside:
both read nothing, and aiokafka tells neither.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from aiokafka import TopicPartition

from services.kit.clock import Clock

SILENT_SECONDS = 8.0
"""A broker answers a fetch within half a second, with records or without."""

_FORGET_SECONDS = 6.0  # without a word on a partition it is not known whether a fetch was under way


@dataclass(slots=True)
class _Heard:
    stamp: int | None
    since: float
    seen: float


class Silence:
    """Which partitions' brokers have not answered lately. For one consumer (anything with `last_poll_timestamp`)."""

    def __init__(self, consumer: Any, clock: Clock, *, seconds: float = SILENT_SECONDS) -> None:
        self._consumer = consumer
        self._clock = clock
        self._seconds = seconds
        self._heard: dict[TopicPartition, _Heard] = {}

    def note(self, brought: Iterable[TopicPartition], drained: Iterable[TopicPartition]) -> None:
        """After each read.

        Args:
            brought: those of which there were records.
            drained: those that flow and of which nothing lies here unread, so that a fetch is under way for each.
        """
        now = self._clock.monotonic()
        for partition in brought:
            self._heard.pop(partition, None)
        for partition in drained:
            stamp = self._consumer.last_poll_timestamp(partition)
            heard = self._heard.get(partition)
            if heard is None or heard.stamp != stamp or now - heard.seen > _FORGET_SECONDS:
                self._heard[partition] = _Heard(stamp, now, now)
            else:
                heard.seen = now

    def forget(self) -> None:
        """Partitions are assigned anew."""
        self._heard.clear()

    def silent(self) -> dict[TopicPartition, float]:
        """Partitions without an answer for too long, and for how many seconds."""
        now = self._clock.monotonic()
        return {
            partition: heard.seen - heard.since
            for partition, heard in self._heard.items()
            if heard.seen - heard.since > self._seconds and now - heard.seen <= _FORGET_SECONDS
        }
