"""Bringing a cluster's topics to what `contracts.topics` says, and telling where they differ."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from contracts.topics import TOPICS, Topic
from services.kit.errors import Unavailable
from services.kit.kafka.bounded import bounded
from services.kit.kafka.connection import Where, connection
from services.kit.kafka.diagnosis import unreachable

_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Drift:
    """One difference. `what` is `missing`, `partitions` or the name of a configuration."""

    topic: str
    what: str
    expected: str
    found: str

    @property
    def mendable(self) -> bool:
        """Whether `apply` mends it. Partition counts are frozen: changing one moves keys to other partitions."""
        return self.what != "partitions"

    def __str__(self) -> str:
        if self.what == "missing":
            return f"{self.topic}: does not exist"
        remedy = "" if self.mendable else " (never changed: copy it into a new topic)"
        return f"{self.topic}: {self.what} is {self.found}, should be {self.expected}{remedy}"


async def verify(bootstrap: Where, topics: Sequence[Topic] = TOPICS) -> list[Drift]:
    """Where the cluster differs from `topics`, in their order; changes nothing. Raises Unavailable."""
    async with _admin(bootstrap) as admin:
        return await _drift(admin, topics)


async def apply(
    bootstrap: Where, topics: Sequence[Topic] = TOPICS, *, replication: int = 1
) -> tuple[list[Drift], list[Drift]]:
    """Create missing topics and mend configurations. Gives what was mended and what differs still: a partition count,
    which is never touched, and whatever the cluster refused to take. May be run again. Raises Unavailable.
    """
    async with _admin(bootstrap) as admin:
        before = await _drift(admin, topics)
        wanted = {topic.name: topic for topic in topics}
        await _create(admin, [wanted[d.topic] for d in before if d.what == "missing"], replication)
        names = dict.fromkeys(d.topic for d in before if d.mendable and d.what != "missing")
        await _configure(admin, [wanted[name] for name in names])
        after = await _settled(admin, topics)
    return [drift for drift in before if drift not in after], after


@asynccontextmanager
async def _admin(bootstrap: Where) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(**connection(bootstrap).arguments("mailroom-topics"))
    try:
        await bounded(admin.start(), _SECONDS)
        yield admin
    except (KafkaError, OSError, TimeoutError) as failure:
        raise await unreachable(bootstrap, failure) from failure
    finally:
        await bounded(admin.close(), _SECONDS)


async def _settled(admin: AIOKafkaAdminClient, topics: Sequence[Topic]) -> list[Drift]:
    """What differs after a change, which takes a moment to be seen by all of the cluster."""
    for _ in range(20):
        drift = await _drift(admin, topics)
        if not any(one.mendable for one in drift):
            break
        await asyncio.sleep(0.1)
    return drift


async def _drift(admin: AIOKafkaAdminClient, topics: Sequence[Topic]) -> list[Drift]:
    existing = set(await bounded(admin.list_topics(), _SECONDS))
    present = [topic for topic in topics if topic.name in existing]
    partitions = await _partition_counts(admin, present)
    configs = await _configs(admin, present)
    drift: list[Drift] = []
    for topic in topics:
        if topic.name not in existing:
            drift.append(Drift(topic.name, "missing", "present", "absent"))
            continue
        count = partitions.get(topic.name, 0)
        if count != topic.partitions:
            drift.append(Drift(topic.name, "partitions", str(topic.partitions), str(count)))
        found = configs.get(topic.name, {})
        for name, expected in topic.configs.items():
            if found.get(name) != expected:
                drift.append(Drift(topic.name, name, expected, found.get(name, "unset")))
    return drift


async def _partition_counts(admin: AIOKafkaAdminClient, topics: Iterable[Topic]) -> dict[str, int]:
    names = [topic.name for topic in topics]
    if not names:
        return {}
    described = await bounded(admin.describe_topics(names), _SECONDS)
    return {one["topic"]: len(one["partitions"]) for one in described}


async def _configs(admin: AIOKafkaAdminClient, topics: Iterable[Topic]) -> dict[str, dict[str, str]]:
    resources = [ConfigResource(ConfigResourceType.TOPIC, topic.name) for topic in topics]
    if not resources:
        return {}
    responses = await bounded(admin.describe_configs(resources), _SECONDS)
    found: dict[str, dict[str, str]] = {}
    for response in responses:
        for error, message, _kind, name, entries in response.resources:
            if error:
                raise Unavailable("Kafka", f"configuration of {name}: {message or for_code(error).__name__}")
            found[name] = {entry[0]: entry[1] for entry in entries}
    return found


async def _create(admin: AIOKafkaAdminClient, topics: Sequence[Topic], replication: int) -> None:
    if not topics:
        return
    new = [NewTopic(t.name, t.partitions, replication, topic_configs=t.configs) for t in topics]
    response = await bounded(admin.create_topics(new), _SECONDS)
    for name, code, *rest in response.topic_errors:
        if code and not issubclass(for_code(code), TopicAlreadyExistsError):
            raise Unavailable("Kafka", f"creating {name}: {rest[0] if rest else for_code(code).__name__}")


async def _configure(admin: AIOKafkaAdminClient, topics: Sequence[Topic]) -> None:
    resources = [ConfigResource(ConfigResourceType.TOPIC, topic.name, topic.configs) for topic in topics]
    if not resources:
        return
    responses = await bounded(admin.alter_configs(resources), _SECONDS)
    for response in responses:
        for code, message, _kind, name in response.resources:
            if code:
                raise Unavailable("Kafka", f"configuring {name}: {message or for_code(code).__name__}")
