"""Where a group's partitions begin: asked of the coordinator, and never guessed."""

from collections.abc import Iterable

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from services.kit.errors import Unavailable
from services.kit.kafka.bounded import bounded
from services.kit.kafka.connection import ClientArguments
from services.kit.kafka.records import Partition

NOTHING_COMMITTED = -1


async def committed_offsets(
    connection: ClientArguments, group: str, partitions: Iterable[Partition], *, seconds: float = 10.0
) -> dict[Partition, int]:
    """The group's committed offset of each partition, `NOTHING_COMMITTED` where it has none.

    Through the admin client, since aiokafka's consumer takes an error reply for "nothing committed". Raises
    Unavailable when there is no clear answer for one of them.
    """
    wanted = [TopicPartition(*partition) for partition in partitions]
    if not wanted:
        return {}
    admin = AIOKafkaAdminClient(**connection)
    try:
        await bounded(admin.start(), seconds)
        found = await bounded(admin.list_consumer_group_offsets(group, partitions=wanted), seconds)
    except Exception as failure:
        raise Unavailable("Kafka", f"committed offsets of group {group}: {failure!r}") from failure
    finally:
        await bounded(admin.close(), seconds)
    missing = [partition for partition in wanted if partition not in found]
    if missing:
        raise Unavailable("Kafka", f"no word on the committed offsets of {missing}")
    return {Partition(*partition): found[partition].offset for partition in wanted}


async def log_bounds(
    consumer: AIOKafkaConsumer, partitions: Iterable[Partition], *, seconds: float = 10.0
) -> dict[Partition, tuple[int, int]]:
    """First and end offset of each partition. Raises Unavailable."""
    wanted = [TopicPartition(*partition) for partition in partitions]
    if not wanted:
        return {}
    try:
        begin = await bounded(consumer.beginning_offsets(wanted), seconds)
        end = await bounded(consumer.end_offsets(wanted), seconds)
        return {Partition(*partition): (begin[partition], end[partition]) for partition in wanted}
    except Exception as failure:
        raise Unavailable("Kafka", f"first and end offsets: {failure!r}") from failure


async def start_offsets(
    connection: ClientArguments,
    group: str,
    consumer: AIOKafkaConsumer,
    partitions: Iterable[Partition],
) -> dict[Partition, tuple[int, int]]:
    """(start, committed) of each partition: where the group stands, else the beginning of the log. Raises
    Unavailable.
    """
    committed = await committed_offsets(connection, group, partitions)
    new = [partition for partition, offset in committed.items() if offset == NOTHING_COMMITTED]
    first = await log_bounds(consumer, new)
    return {
        partition: (first[partition][0] if offset == NOTHING_COMMITTED else offset, offset)
        for partition, offset in committed.items()
    }
