"""Where a consumer group stands in its topics, asked from outside: of the coordinator and of the log."""

from __future__ import annotations

from collections.abc import Iterable

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from services.kit.errors import PermanentError
from services.kit.kafka.bounded import bounded
from services.kit.kafka.connection import ClientArguments, Where, connection
from services.kit.kafka.diagnosis import unreachable
from services.kit.kafka.offsets import log_bounds, start_offsets
from services.kit.kafka.records import Partition

_SECONDS = 10.0


async def positions(where: Where, group: str, topics: Iterable[str]) -> dict[Partition, tuple[int, int]]:
    """(position, end) of each partition of `topics`: where the group goes on, which is what it committed or else the
    beginning of the log, and where the log ends. Raises PermanentError `noTopic`, and Unavailable.
    """
    options = connection(where).arguments("mailroom-positions")
    consumer = AIOKafkaConsumer(**options, enable_auto_commit=False, auto_offset_reset="none")
    try:
        await bounded(consumer.start(), _SECONDS)
        partitions = await _partitions(options, topics)
        ends = await log_bounds(consumer, partitions)
        starts = await start_offsets(options, group, consumer, partitions)
    except (KafkaError, OSError, TimeoutError) as failure:
        raise await unreachable(where, failure) from failure
    finally:
        await bounded(consumer.stop(), _SECONDS)
    return {each: (starts[each][0], ends[each][1]) for each in partitions}


async def _partitions(options: ClientArguments, topics: Iterable[str]) -> list[Partition]:
    admin = AIOKafkaAdminClient(**options)
    try:
        await bounded(admin.start(), _SECONDS)
        found = await bounded(admin.describe_topics(list(topics)), _SECONDS)
    finally:
        await bounded(admin.close(), _SECONDS)
    for each in found:
        if each["error_code"] or not each["partitions"]:
            raise PermanentError("noTopic", f"topic {each['topic']} does not exist, or has no leader")
    return sorted(Partition(each["topic"], one["partition"]) for each in found for one in each["partitions"])
