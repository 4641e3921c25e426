"""Where a consumer group stands in its topics, asked from outside: of the coordinator and of the log."""

from __future__ import annotations

from collections.abc import Iterable

from aiokafka.admin import AIOKafkaAdminClient

from services.kit.errors import PermanentError
from services.kit.kafka import asking
from services.kit.kafka.bounded import bounded
from services.kit.kafka.connection import Where, connection
from services.kit.kafka.offsets import log_bounds, start_offsets
from services.kit.kafka.records import Partition

_NAME = "mailroom-positions"


async def positions(where: Where, group: str, topics: Iterable[str]) -> dict[Partition, tuple[int, int]]:
    """(position, end) of each partition of `topics`: where the group goes on, which is what it committed or else the
    beginning of the log, and where the log ends. Raises PermanentError `noTopic`, and Unavailable.
    """
    async with asking.admin(where, _NAME) as admin, asking.consumer(where, _NAME) as consumer:
        partitions = await _partitions(admin, topics)
        ends = await log_bounds(consumer, partitions)
        starts = await start_offsets(connection(where).arguments(_NAME), group, consumer, partitions)
    return {each: (starts[each][0], ends[each][1]) for each in partitions}


async def _partitions(admin: AIOKafkaAdminClient, topics: Iterable[str]) -> list[Partition]:
    found = await bounded(admin.describe_topics(list(topics)), asking.SECONDS)
    for each in found:
        if each["error_code"] or not each["partitions"]:
            raise PermanentError("noTopic", f"topic {each['topic']} does not exist, or has no leader")
    return sorted(Partition(each["topic"], one["partition"]) for each in found for one in each["partitions"])
