"""How far each consumer group is behind, asked from outside: of the coordinator and of the log."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, TopicPartition

from contracts.topics import TOPICS
from services.kit.kafka import asking
from services.kit.kafka.bounded import bounded
from services.kit.kafka.connection import Where

_ALL = tuple(topic.name for topic in TOPICS)
_NAME = "mailroom-lag"


@dataclass(frozen=True, slots=True)
class GroupLag:
    """A group in one partition. `position`: the next record to be handled; `end`: the one after the last readable."""

    group: str
    topic: str
    partition: int
    position: int
    end: int

    @property
    def lag(self) -> int:
        """Records (about: offsets have gaps) that are not handled yet."""
        return max(0, self.end - self.position)


async def group_lags(bootstrap: Where, topics: Collection[str] = _ALL) -> list[GroupLag]:
    """Every group that ever committed an offset in one of `topics`, by group, topic, partition. Raises Unavailable."""
    async with (
        asking.admin(bootstrap, _NAME) as admin,
        asking.consumer(bootstrap, _NAME, isolation_level="read_committed") as consumer,
    ):
        groups = await bounded(admin.list_consumer_groups(), asking.SECONDS)
        committed: list[tuple[str, TopicPartition, int]] = []
        for group in sorted({name for name, *_ in groups}):
            found = await bounded(admin.list_consumer_group_offsets(group), asking.SECONDS)
            committed += [(group, at, offset.offset) for at, offset in found.items() if at.topic in topics]
        ends = await _ends(consumer, {at for _, at, _ in committed})
    return sorted(
        (GroupLag(group, at.topic, at.partition, max(0, offset), ends[at]) for group, at, offset in committed),
        key=lambda each: (each.group, each.topic, each.partition),
    )


async def _ends(consumer: AIOKafkaConsumer, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
    wanted = list(partitions)
    return dict(await bounded(consumer.end_offsets(wanted), asking.SECONDS)) if wanted else {}
