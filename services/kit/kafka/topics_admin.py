"""Bringing a cluster's topics to what `contracts.topics` says, and telling where they differ.

How many copies there are is the cluster's affair and not the contracts': three, unless an operator says otherwise or
there are fewer brokers. Of the copies a majority must have a record before it is acknowledged (2 of 3).
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from contracts.topics import TOPICS, Topic
from services.kit.errors import PermanentError, Unavailable
from services.kit.kafka.bounded import bounded
from services.kit.kafka.connection import Where, connection
from services.kit.kafka.diagnosis import unreachable

COPIES: Final = 3
"""Copies of each partition where there are as many brokers: one may fail, and what was acknowledged is safe."""

MIN_ISR: Final = "min.insync.replicas"

_SECONDS = 15.0
_SET_ON_TOPIC = 1
"""Kafka's DYNAMIC_TOPIC_CONFIG: somebody has set it on this topic."""


@dataclass(frozen=True, slots=True)
class Drift:
    """One difference. `what` is `missing`, `partitions`, `replicas` or the name of a configuration."""

    topic: str
    what: str
    expected: str
    found: str

    @property
    def mendable(self) -> bool:
        """Whether `apply` mends it. Partition counts are frozen: changing one moves keys to other partitions. More
        copies are made by Kafka's own tool, since that takes hours on a large topic.
        """
        return self.what not in _REMEDIES

    def __str__(self) -> str:
        if self.what == "missing":
            return f"{self.topic}: does not exist"
        return f"{self.topic}: {self.what} is {self.found}, should be {self.expected}{_REMEDIES.get(self.what, '')}"


_REMEDIES: Final = {
    "partitions": " (never changed: copy it into a new topic)",
    "replicas": " (apply does not move copies: kafka-reassign-partitions.sh does)",
}


@dataclass(frozen=True, slots=True)
class Verified:
    """How the cluster stands to the topics.

    Attributes:
        replication: the copies that each partition should have.
        brokers: how many answer now.
        mended: what `apply` has mended.
        differs: what differs, in the order of the topics.
    """

    replication: int
    brokers: int
    mended: tuple[Drift, ...]
    differs: tuple[Drift, ...]

    @property
    def warning(self) -> str:
        """What is wrong with so few copies; "" where there are enough."""
        if self.replication >= COPIES:
            return ""
        lost = (
            "one broker that is lost takes acknowledged records with it" if self.replication == 1 else "none may fail"
        )
        return (
            f"{self.replication} {'copy' if self.replication == 1 else 'copies'} of each partition, on {self.brokers} "
            f"broker(s): {lost}. In production have three brokers or more"
        )


def majority(copies: int) -> int:
    """How many of a partition's copies must have a record before it is acknowledged."""
    return copies // 2 + 1


async def verify(bootstrap: Where, topics: Sequence[Topic] = TOPICS, *, replication: int | None = None) -> Verified:
    """Where the cluster differs from `topics`; changes nothing.

    Args:
        bootstrap: the cluster.
        topics: what should be there.
        replication: copies that each partition should have at least; None = three, or as many as there are brokers.

    Raises Unavailable.
    """
    async with _admin(bootstrap) as admin:
        brokers = await _brokers(admin)
        copies = replication or min(COPIES, brokers)
        return Verified(copies, brokers, (), tuple(await _drift(admin, topics, copies)))


async def apply(bootstrap: Where, topics: Sequence[Topic] = TOPICS, *, replication: int | None = None) -> Verified:
    """Create missing topics and mend configurations; arguments as for `verify`. What differs afterwards: partition
    counts and numbers of copies, which are not touched, and whatever the cluster refused to take. What an operator has
    set beside our configurations stays. May be run again. Raises Unavailable, and PermanentError `tooFewBrokers`.
    """
    async with _admin(bootstrap) as admin:
        brokers = await _brokers(admin)
        copies = replication or min(COPIES, brokers)
        if copies > brokers:
            raise PermanentError(
                "tooFewBrokers",
                f"{copies} copies need as many brokers, and {brokers} answer(s): start the others first",
            )
        before = await _drift(admin, topics, copies)
        wanted = {topic.name: topic for topic in topics}
        await _create(admin, [wanted[d.topic] for d in before if d.what == "missing"], copies)
        await _configure(admin, [d for d in before if d.mendable and d.what != "missing"])
        after = await _settled(admin, topics, copies)
    mended = tuple(drift for drift in before if drift not in after)
    return Verified(copies, brokers, mended, tuple(after))


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


async def _brokers(admin: AIOKafkaAdminClient) -> int:
    return len((await bounded(admin.describe_cluster(), _SECONDS))["brokers"])


async def _settled(admin: AIOKafkaAdminClient, topics: Sequence[Topic], copies: int) -> list[Drift]:
    """What differs after a change, which takes a moment to be seen by all of the cluster."""
    for _ in range(20):
        drift = await _drift(admin, topics, copies)
        if not any(one.mendable for one in drift):
            break
        await asyncio.sleep(0.1)
    return drift


async def _drift(admin: AIOKafkaAdminClient, topics: Sequence[Topic], copies: int) -> list[Drift]:
    existing = set(await bounded(admin.list_topics(), _SECONDS))
    present = [topic for topic in topics if topic.name in existing]
    layouts = await _layouts(admin, present)
    configs = await _configs(admin, present)
    drift: list[Drift] = []
    for topic in topics:
        if topic.name not in existing:
            drift.append(Drift(topic.name, "missing", "present", "absent"))
            continue
        count, least = layouts.get(topic.name, (0, 0))
        if count != topic.partitions:
            drift.append(Drift(topic.name, "partitions", str(topic.partitions), str(count)))
        if least < copies:
            drift.append(Drift(topic.name, "replicas", str(copies), str(least)))
        found = configs.get(topic.name, {})
        # With more in sync demanded than there are copies nothing could be written: it goes by what is there.
        for name, expected in {**topic.configs, MIN_ISR: str(majority(least))}.items():
            if found.get(name) != expected:
                drift.append(Drift(topic.name, name, expected, found.get(name, "unset")))
    return drift


async def _layouts(admin: AIOKafkaAdminClient, topics: Iterable[Topic]) -> dict[str, tuple[int, int]]:
    """Topic → partitions, and the copies of the one that has fewest."""
    names = [topic.name for topic in topics]
    if not names:
        return {}
    described = await bounded(admin.describe_topics(names), _SECONDS)
    return {
        one["topic"]: (len(one["partitions"]), min((len(each["replicas"]) for each in one["partitions"]), default=0))
        for one in described
    }


async def _configs(admin: AIOKafkaAdminClient, topics: Iterable[Topic]) -> dict[str, dict[str, str]]:
    """Topic → all that holds for it."""
    described = await _described(admin, [topic.name for topic in topics])
    return {name: {key: value for key, value, *_ in entries} for name, entries in described.items()}


async def _set_on_topics(admin: AIOKafkaAdminClient, names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Topic → what was set on it, and is not a default of the cluster."""
    described = await _described(admin, list(names))
    return {
        name: {key: value for key, value, _read_only, source, *_ in entries if source == _SET_ON_TOPIC}
        for name, entries in described.items()
    }


async def _described(admin: AIOKafkaAdminClient, names: Sequence[str]) -> dict[str, list[Any]]:
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    if not resources:
        return {}
    responses = await bounded(admin.describe_configs(resources), _SECONDS)
    found: dict[str, list[Any]] = {}
    for response in responses:
        for error, message, _kind, name, entries in response.resources:
            if error:
                raise Unavailable("Kafka", f"configuration of {name}: {message or for_code(error).__name__}")
            found[name] = entries
    return found


async def _create(admin: AIOKafkaAdminClient, topics: Sequence[Topic], copies: int) -> None:
    if not topics:
        return
    enough = {MIN_ISR: str(majority(copies))}
    new = [NewTopic(t.name, t.partitions, copies, topic_configs={**t.configs, **enough}) for t in topics]
    response = await bounded(admin.create_topics(new), _SECONDS)
    for name, code, *rest in response.topic_errors:
        if code and not issubclass(for_code(code), TopicAlreadyExistsError):
            raise Unavailable("Kafka", f"creating {name}: {rest[0] if rest else for_code(code).__name__}")


async def _configure(admin: AIOKafkaAdminClient, drifts: Sequence[Drift]) -> None:
    """Set what differs. The request replaces all that is set on a topic, so what is right goes with it."""
    if not drifts:
        return
    names = dict.fromkeys(drift.topic for drift in drifts)
    configs = await _set_on_topics(admin, names)
    for drift in drifts:
        configs[drift.topic][drift.what] = drift.expected
    resources = [ConfigResource(ConfigResourceType.TOPIC, name, configs[name]) for name in names]
    responses = await bounded(admin.alter_configs(resources), _SECONDS)
    for response in responses:
        for code, message, _kind, name in response.resources:
            if code:
                raise Unavailable("Kafka", f"configuring {name}: {message or for_code(code).__name__}")
